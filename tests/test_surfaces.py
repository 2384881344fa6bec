"""Surface metrics against brute force on small volumes, where they are undefined, and of a trial's predictions."""

from __future__ import annotations

import itertools
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import RESULT, make_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from prepared import spec_of, workplace
from skimage.measure import marching_cubes, mesh_surface_area

from study.buckets.checkout import RemoteCheckout
from study.buckets.shared_ledger import study_ledger
from study.buckets.view import SCRATCH_VARIABLE, viewed
from study.common import files
from study.nnunet.datasets import data_paths
from study.nnunet.surfaces import surface_metrics, validation_folder
from study.run.trial import run_trial
from study.store.ledger import Ledger
from study.store.outcomes import objectives, outcome
from study.store.results import HD95, METRICS, NO_METRICS, NSD, Measured, Metrics, measured

SHAPE, SPACING = (3, 4, 4), (2.5, 1.0, 0.7)


def at(tolerance_mm: float) -> Metrics:
    return Metrics(names=METRICS, nsd_tolerance_mm=tolerance_mm)


def border(mask: Any) -> Any:
    """Places in mm of the voxels of a mask that have a neighbour outside it."""
    padded = np.pad(mask, 1)
    inside = np.ones_like(mask)
    for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
        inside &= np.roll(padded, step, axis)[(slice(1, -1),) * mask.ndim]
    return np.argwhere(mask & ~inside) * SPACING[: mask.ndim]


def elements(mask: Any) -> tuple[Any, Any]:
    """Places in mm and areas in square mm of the surface elements between the voxels of a mask."""
    padded, places, areas = np.pad(mask, 1), [], []
    for corner in itertools.product(*(range(size - 1) for size in padded.shape)):
        cube = padded[tuple(slice(n, n + 2) for n in corner)]
        if cube.any() and not cube.all():
            # A surface is that of the fewer voxels, from whichever side it is seen.
            fewer = cube if cube.sum() <= 4 else ~cube
            vertices, faces, *_ = marching_cubes(fewer.astype(float), 0.5, spacing=SPACING, method="lorensen")
            places.append(np.array(corner) * SPACING)
            areas.append(mesh_surface_area(vertices, faces))
    return np.array(places), np.array(areas)


def distances(one: Any, other: Any) -> Any:
    return np.sqrt(((one[:, None] - other[None]) ** 2).sum(axis=-1)).min(axis=1)


masks = arrays(bool, SHAPE)


@settings(max_examples=6, deadline=None)
@given(masks, masks)
def test_hd95_is_the_larger_of_the_directed_percentiles(prediction: Any, reference: Any) -> None:
    prediction[1, 2, 3] = reference[2, 2, 2] = True
    one, other = border(prediction), border(reference)
    expected = max(np.percentile(distances(one, other), 95), np.percentile(distances(other, one), 95))
    assert surface_metrics(prediction, reference, SPACING, at(1.0))[HD95] == pytest.approx(expected, rel=1e-5)


@settings(max_examples=6, deadline=None)
@given(masks, masks, st.sampled_from([0.5, 0.8, 1.1, 2.6]))
def test_nsd_is_the_share_of_area_within_the_tolerance(prediction: Any, reference: Any, tolerance: float) -> None:
    prediction[1, 2, 3] = reference[2, 2, 2] = True
    (one, one_areas), (other, other_areas) = elements(prediction), elements(reference)
    near = one_areas[distances(one, other) <= tolerance].sum() + other_areas[distances(other, one) <= tolerance].sum()
    expected = near / (one_areas.sum() + other_areas.sum())
    assert surface_metrics(prediction, reference, SPACING, at(tolerance))[NSD] == pytest.approx(expected, rel=1e-5)


def test_a_surface_that_is_shifted_counts_from_that_tolerance_on() -> None:
    reference, prediction = np.zeros((2, 9, 9, 9), bool)
    reference[2:5, 2:7, 2:7] = prediction[3:6, 2:7, 2:7] = True
    assert surface_metrics(prediction, reference, SPACING, at(2.4))[NSD] < 0.9
    assert surface_metrics(prediction, reference, SPACING, at(2.5))[NSD] == 1
    assert surface_metrics(prediction, reference, SPACING, at(0))[HD95] == 2.5
    assert surface_metrics(reference, reference, SPACING, at(0)) == {NSD: 1, HD95: 0}


def test_a_class_that_is_nowhere_has_no_value_and_one_in_either_has_the_worst() -> None:
    empty, full = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    diagonal = math.hypot(3 * 2.5, 4 * 1.0, 4 * 0.7)
    assert surface_metrics(empty, empty, SPACING, at(1)) == {NSD: None, HD95: None}
    for prediction, reference in ((empty, full), (full, empty)):
        assert surface_metrics(prediction, reference, SPACING, at(1)) == {NSD: 0, HD95: pytest.approx(diagonal)}


def test_an_axis_of_one_voxel_is_left_out() -> None:
    flat = np.zeros((1, 8, 8), bool)
    flat[0, 2:5, 2:5] = True
    shifted = np.roll(flat, 2, axis=1)
    found = surface_metrics(shifted, flat, (999.0, 1.5, 1.0), at(3))
    assert found == {NSD: 1, HD95: 3}
    nothing = surface_metrics(np.zeros_like(flat), flat, (999.0, 1.5, 1.0), at(3))
    assert nothing[HD95] == pytest.approx(math.hypot(8 * 1.5, 8))


def test_the_mean_is_over_labels_of_means_over_cases() -> None:
    cases = {"a": {"1": 1.0, "2": None}, "b": {"1": 0.5, "2": 0.25}, "c": {"1": None, "2": None}}
    assert measured(cases, 2.0) == Measured(mean=0.5, per_case_and_class=cases, tolerance_mm=2.0)
    assert measured({"a": {"1": None}}, None).mean is None
    assert measured({}, None).mean is None


@pytest.mark.cluster
def test_a_trial_measures_what_is_asked_for_and_later_what_it_lacks(data: Path, tmp_path: Path) -> None:
    paths = data_paths(data)
    length = {"epochs": 1, "iterations_per_epoch": 2, "validation_batches": 1}
    spec, ledger, place = spec_of(paths, "cps", training=length), Ledger.create(tmp_path / "study"), workplace(paths)
    first = run_trial(spec, ledger, replace(place, metrics=Metrics(names=(NSD,), nsd_tolerance_mm=2)))
    folder, [nsd] = first.folder, first.result.metrics.values()
    assert folder.trial_id == spec.trial_id
    assert nsd.tolerance_mm == 2
    assert {case: set(labels) for case, labels in nsd.per_case_and_class.items()} == {
        case: set(labels) for case, labels in first.result.dice_per_case_and_class.items()
    }
    assert nsd == measured(nsd.per_case_and_class, 2)

    # Asked for more: from the stored predictions, by no new attempt, and what was there stays.
    both = Metrics(names=METRICS, nsd_tolerance_mm=2)
    assert outcome([folder], both).state.value == "interrupted"
    second = run_trial(spec, ledger, replace(place, metrics=both))
    assert second.result.metrics[NSD] == nsd
    assert second.result.metrics[HD95].mean > 0
    assert replace(second.result, metrics={}) == replace(first.result, metrics={})
    assert len(folder.attempts()) == 1
    assert outcome([folder], both).values[NSD] == objectives(folder)[NSD] == nsd.mean

    # Another tolerance is another metric.
    wider = run_trial(spec, ledger, replace(place, metrics=Metrics(names=(NSD,), nsd_tolerance_mm=100)))
    assert wider.result.metrics[NSD].mean >= nsd.mean
    assert wider.result.metrics[HD95] == second.result.metrics[HD95]

    # Without the predictions there is no value, and the result stays.
    shutil.rmtree(validation_folder(folder, spec))
    gone = run_trial(spec, ledger, replace(place, metrics=both))
    assert gone.result.metrics[NSD].mean is None
    assert gone.result.dice == first.result.dice
    assert outcome([folder], both).state.value == "finished"
    assert NSD not in outcome([folder], both).values
    assert "are gone" in folder.events()[-1]["text"]


@pytest.mark.cluster
def test_a_finished_trial_in_object_storage_is_measured_later(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, url = data_paths(data), f"file://{tmp_path}/bucket"
    spec = spec_of(paths, "cps", training={"epochs": 1, "iterations_per_epoch": 2, "validation_batches": 1})
    found = {}
    with study_ledger(url):
        pass
    for machine, metrics in (("first", NO_METRICS), ("second", at(1)), ("third", at(1))):
        monkeypatch.setenv(SCRATCH_VARIABLE, str(tmp_path / machine))
        checkout = RemoteCheckout(url, waits=False)
        ledger = Ledger.open(checkout.study)
        with checkout.checked_out(ledger.add(spec), metrics):
            run_trial(spec, ledger, replace(workplace(paths), metrics=metrics))
        with viewed(url) as view:
            [folder] = view.ledger.trials()
            found[machine] = folder.result()
            assert len(folder.attempts()) == 1
    assert found["first"].metrics == {}
    assert found["second"].metrics[HD95].mean > 0
    assert replace(found["second"], metrics={}) == found["first"]
    # Measured once: the third machine has nothing to fetch.
    assert found["third"] == found["second"]
    assert not list((tmp_path / "third").rglob("*.nii.gz"))


def test_a_result_without_metrics_as_before_is_read(tmp_path: Path) -> None:
    folder = Ledger.create(tmp_path / "study").add(make_spec("pgps"))
    folder.complete(RESULT)
    stored = files.read_json(folder.path / "result.json")
    del stored["metrics"]
    files.write_json(folder.path / "result.json", stored)
    assert folder.result() == RESULT
    assert Metrics(names=METRICS).lacking_in(folder.result()) == METRICS
    assert Metrics().lacking_in(folder.result()) == ()

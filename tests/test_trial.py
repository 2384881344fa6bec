"""Trials that are stopped, killed, damaged and resumed come to the same weights, and the ledger tells what it took.

All train for real. Processes are killed by their id; whoever needs only the weights stops before the final validation.
"""

from __future__ import annotations

import multiprocessing.pool
import os
import shutil
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prepared import (
    CUBE,
    FLAT_2D,
    FULL,
    NAME,
    cascade_plans,
    model_folder,
    plans_document,
    spec_of,
    train,
    workplace,
    write_variant,
)
from references import Reference, assert_same_training, reference_of, resumed_from, training_process

from study.common import files
from study.common.errors import (
    InfeasibleTrialError,
    LedgerError,
    MissingDataError,
    TrialBusyError,
    TrialFailedError,
    TrialInterrupted,
)
from study.nnunet.checkpoints import FINAL, LATEST
from study.nnunet.datasets import DataPaths, data_paths, find_dataset
from study.nnunet.paths import previous_stage_folder
from study.run.progress import Progress, StopRequest
from study.run.trial import run_trial
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.records import EpochReport, Phase
from study.store.trial_folder import TrialFolder, TrialState

# Of 24 iterations in 3 epochs and 9 stages, this one ends within an epoch and within a stage.
WITHIN = 14
LAST_EPOCH_END = 8


@pytest.fixture(scope="module")
def paths(data: Path) -> DataPaths:
    return data_paths(data)


@pytest.fixture(scope="module", params=["pgps", pytest.param("rpss", marks=pytest.mark.cluster)])
def reference(request: pytest.FixtureRequest, paths: DataPaths, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return reference_of(spec_of(paths, request.param), paths, tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("reference", ["rpss"], indirect=True)
@pytest.mark.cluster
def test_the_number_of_data_workers_changes_nothing(reference: Reference, paths: DataPaths, ledger: Ledger) -> None:
    assert len(reference.epochs) == 3
    assert_same_training(train(reference.spec, ledger, workplace(paths, data_workers=2)), reference)


def test_stops_at_awkward_places_change_nothing(reference: Reference, paths: DataPaths, ledger: Ledger) -> None:
    # Within an epoch, at its end with the validation still to come, within a stage, between the two batches of a
    # validation, and after the very last iteration.
    stops = [5, 8, WITHIN, 16, 24]
    for after in stops:
        if after == 16:
            with pytest.raises(TrialInterrupted, match="after iteration 16 of 24"):
                run_trial(reference.spec, ledger, workplace(paths), stop=AskedOften(16 - WITHIN + 1))
        else:
            train(reference.spec, ledger, workplace(paths), after=after)
        folder = ledger.trial(reference.spec.trial_id)
        assert folder.state() is TrialState.INTERRUPTED
        assert folder.events()[-1]["reason"] == f"stopped after iteration {after} of 24"
        assert len(folder.epochs()) == (after - 1) // 8
    folder = train(reference.spec, ledger, workplace(paths))
    assert resumed_from(folder) == [0, *stops]
    assert_same_training(folder, reference)
    costs = bill(folder.attempts(), folder.cost_intervals())
    assert costs.waste.seconds == 0
    assert [(s.iteration_start, s.iteration_stop) for s in costs.segments] == list(pairwise([0, *stops, 24]))


class AskedOften(StopRequest):
    """A stop that is requested when it has been asked for so many times: after every iteration and validation batch."""

    def __init__(self, times: int) -> None:
        self.left = times
        super().__init__()

    @property
    def requested(self) -> bool:  # type: ignore[override]
        # Elsewhere it is asked for, too.
        self.left -= self._deferred
        return self.left < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        """Only asking counts."""


def test_a_stop_in_the_last_validation_is_not_forgotten(paths: DataPaths, ledger: Ledger) -> None:
    class StopInTheEnd(Progress):
        def epoch_done(self, report: EpochReport) -> None:
            if report.epoch == 2:
                stop.signal()

        def phase(self, phase: Phase) -> None:
            assert phase is not Phase.FINAL_VALIDATION

    stop, spec = StopRequest(), spec_of(paths)
    with pytest.raises(TrialInterrupted):
        run_trial(spec, ledger, workplace(paths), progress=StopInTheEnd(), stop=stop)
    assert (model_folder(ledger.trial(spec.trial_id)) / FINAL).exists()
    assert resumed_from(train(spec, ledger, workplace(paths))) == [0, 24]


@pytest.mark.parametrize(
    ("reference", "number"),
    [("pgps", signal.SIGKILL), pytest.param("rpss", signal.SIGTERM, marks=pytest.mark.cluster)],
    indirect=["reference"],
)
def test_a_killed_trial_resumes_in_a_new_process(
    reference: Reference, paths: DataPaths, ledger: Ledger, number: signal.Signals
) -> None:
    spec = reference.spec
    folder = ledger.add(spec)
    with training_process(ledger, spec, paths, halt_at=WITHIN) as (process, pipe):
        pid = pipe.recv()
        assert folder.state() is TrialState.RUNNING
        assert (model_folder(folder) / LATEST).exists()
        with pytest.raises(TrialBusyError, match=f"is being trained by process {pid} on "):
            run_trial(spec, ledger, workplace(paths))
        os.kill(pid, number)
        process.join()
        assert process.exitcode == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert folder.state() is TrialState.INTERRUPTED
    with training_process(ledger, spec, paths) as (process, _):
        process.join()
        assert process.exitcode == 0
    continued = LAST_EPOCH_END if number == signal.SIGKILL else WITHIN
    assert resumed_from(folder) == [0, continued]
    assert_same_training(folder, reference)
    _check_bill(folder, wasted=WITHIN - continued)


def _check_bill(folder: TrialFolder, *, wasted: int) -> None:
    costs = bill(folder.attempts(), folder.cost_intervals())
    first, second = costs.segments
    assert first.header.pid != second.header.pid
    assert sum(segment.charge.seconds for segment in costs.segments) == pytest.approx(costs.total.seconds)
    assert costs.total.seconds == pytest.approx(sum(interval.seconds for interval in folder.cost_intervals()))
    # Work that the killed process had not yet reported is lost to the bill too.
    assert (costs.waste.seconds > 0) is (first.iteration_stop > second.iteration_start)
    assert costs.waste.seconds == first.waste.seconds < first.charge.seconds
    assert costs.waste.seconds < costs.training.seconds < costs.total.seconds
    assert costs.total.energy_kwh is None
    assert wasted == 0 or WITHIN >= first.iteration_stop >= WITHIN - wasted
    if not folder.spec().curriculum.random_draws:
        assert (costs.waste.seconds > 0) is (wasted > 0)
    assert (second.iteration_start, second.iteration_stop) == (WITHIN - wasted, 24)


@pytest.mark.cluster
def test_a_loss_that_is_no_number_is_infeasible_and_says_so(paths: DataPaths, ledger: Ledger) -> None:
    # Every step multiplies the weights by about a hundred.
    explosive = {"optimizer": "sgd", "initial_learning_rate": 10.0, "weight_decay": 10.0}
    spec = spec_of(paths, training={**explosive, "epochs": 1, "iterations_per_epoch": 30})
    for attempt in (1, 2):
        with pytest.raises(
            InfeasibleTrialError, match=r"not finite in epoch 0; lower the learning rate; see .*log\.txt"
        ):
            run_trial(spec, ledger, workplace(paths))
        folder = ledger.trial(spec.trial_id)
        assert folder.state() is TrialState.INFEASIBLE
        assert "not finite" in (folder.failure_reason() or "")
        assert folder.result() is None
        assert len(folder.attempts()) == attempt
    costs = bill(folder.attempts(), folder.cost_intervals())
    assert costs.training.seconds > 0


def test_a_validation_that_breaks_is_a_failure_that_cost_something(data: Path, tmp_path: Path, ledger: Ledger) -> None:
    copied = data_paths(tmp_path / "data")
    shutil.copytree(data_paths(data).preprocessed / NAME, copied.preprocessed / NAME)
    case = find_dataset(copied, NAME).split(0).validation[0]

    class Sabotage(Progress):
        def phase(self, phase: Phase) -> None:
            if phase is Phase.FINAL_VALIDATION:
                next(copied.preprocessed.glob(f"{NAME}/*_{FULL}/{case}.b2nd")).unlink()

    spec = spec_of(copied, training={"epochs": 1})
    with pytest.raises(TrialFailedError, match=rf"trial {spec.trial_id}: .*; see .*log\.txt"):
        run_trial(spec, ledger, workplace(copied), progress=Sabotage())
    folder = ledger.trial(spec.trial_id)
    assert (folder.state(), folder.result()) == (TrialState.FAILED, None)
    costs = bill(folder.attempts(), folder.cost_intervals())
    assert costs.by_phase[Phase.FINAL_VALIDATION].seconds > 0
    assert (model_folder(folder) / FINAL).exists()


def finished(paths: DataPaths, ledger: Ledger, *, mirroring: bool, **spec: Any) -> Any:
    training = {"epochs": 2, "iterations_per_epoch": 10, "test_time_mirroring": mirroring}
    return run_trial(spec_of(paths, training=training, **spec), ledger, workplace(paths))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What nnU-Net's final validation is given: sizes of its pools, and axes to mirror."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

    seen: dict[str, list[Any]] = {"processes": [], "axes": []}
    make_pool, initialise = multiprocessing.pool.Pool.__init__, nnUNetPredictor.manual_initialization

    def noting_pool(self: Any, processes: Any = None, *more: Any, **named: Any) -> None:
        seen["processes"].append(processes)
        make_pool(self, processes, *more, **named)

    def noting_initialise(self: Any, *arguments: Any) -> None:
        seen["axes"].append(arguments[-1])
        initialise(self, *arguments)

    monkeypatch.setattr(multiprocessing.pool.Pool, "__init__", noting_pool)
    monkeypatch.setattr(nnUNetPredictor, "manual_initialization", noting_initialise)
    # As if nnU-Net had been imported before the trial said how many processes it may use.
    monkeypatch.setattr(stock, "default_num_processes", 8)
    return seen


@pytest.mark.cluster
def test_one_class_in_two_dimensions(data: Path, tmp_path: Path, ledger: Ledger, seen: dict[str, list[Any]]) -> None:
    labels = {"background": 0, "lump": 1}
    variant = write_variant(
        tmp_path / "data",
        data,
        labels,
        relabel=lambda array: (array > 0).astype(np.uint8),
        plans="PlannedPlans",
        configuration=FLAT_2D,
    )
    trial = finished(variant, ledger, plans="PlannedPlans", configuration=FLAT_2D, mirroring=True)
    assert seen == {"processes": [1, 1], "axes": [(0, 1)]}
    assert len(trial.spec.curriculum.stages[0].patch_size) == 2
    assert len(trial.spec.curriculum.stages) > 5
    assert set(trial.result.dice_per_class) == {"1"}
    assert 0 <= trial.result.dice == trial.result.dice_per_class["1"] <= 1
    assert all(len(report.pseudo_dice_per_class) == 1 for report in trial.folder.epochs())


@pytest.mark.cluster
def test_regions_with_an_ignored_label(data: Path, tmp_path: Path, ledger: Ledger, seen: dict[str, list[Any]]) -> None:
    labels = {"background": 0, "whole": [1, 2], "bud": 2, "ignore": 3}
    variant = write_variant(tmp_path / "data", data, labels, relabel=ignore_a_border, order=(1, 2))
    trial = finished(variant, ledger, mirroring=False)
    assert seen == {"processes": [1, 1], "axes": [None]}
    assert set(trial.result.dice_per_class) == {"(1, 2)", "2"}
    assert 0 <= trial.result.dice <= 1
    split = find_dataset(variant, NAME).split(0)
    assert set(trial.result.dice_per_case) == set(split.validation)
    assert all(len(report.pseudo_dice_per_class) == 2 for report in trial.folder.epochs())
    plain = {"background": 0, "body": 1, "bud": 2, "ignore": 3}
    variant = write_variant(tmp_path / "plain", data, plain, relabel=ignore_a_border)
    folder = train(spec_of(variant, "pgps+"), ledger, workplace(variant))
    assert [len(report.pseudo_dice_per_class) for report in folder.epochs()] == [2, 2, 2]


def ignore_a_border(labels: Any) -> Any:
    changed = labels.copy()
    changed[:12] = 3
    return changed


@pytest.mark.cluster
def test_a_cascade_reads_the_previous_stage(data: Path, tmp_path: Path, ledger: Ledger) -> None:
    paths, cascade = cascade_plans(data, tmp_path), "3d_cascade_fullres"
    dataset = find_dataset(paths, NAME)
    assert previous_stage_folder(dataset, "CascadePlans", FULL, None) is None
    with pytest.raises(LedgerError, match="is a cascade and needs the segmentations of 3d_lowres: received none"):
        previous_stage_folder(dataset, "CascadePlans", cascade, None)
    absent = tmp_path / "absent"
    with pytest.raises(LedgerError, match=f"received {absent}; give --previous-stage DIR"):
        previous_stage_folder(dataset, "CascadePlans", cascade, absent)

    spec = spec_of(paths, plans="CascadePlans", configuration=cascade)
    with pytest.raises(LedgerError, match="needs the segmentations of 3d_lowres"):
        run_trial(spec, ledger, workplace(paths))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MissingDataError, match=f"10 cases have no segmentation in {empty}, the first is phantom_"):
        run_trial(spec, ledger, replace(workplace(paths), previous_stage=empty))

    folder = train(spec, ledger, replace(workplace(paths), previous_stage=tmp_path / "previous"))
    assert len(folder.epochs()) == 3
    weights = torch.load(model_folder(folder) / FINAL, weights_only=False)["network_weights"]
    first = next(weight for name, weight in weights.items() if name.startswith("encoder") and weight.ndim == 5)
    # The image and one channel per class of the previous stage.
    assert first.shape[1] == 3


def test_what_changed_since_the_specification_is_refused(data: Path, tmp_path: Path, ledger: Ledger) -> None:
    copied = data_paths(tmp_path / "data")
    shutil.copytree(data_paths(data).preprocessed / NAME, copied.preprocessed / NAME)
    folder, spec = copied.preprocessed / NAME, spec_of(copied)

    def refusal() -> str:
        with pytest.raises((LedgerError, MissingDataError)) as refused:
            run_trial(spec, ledger, workplace(copied))
        return str(refused.value)

    (folder / "gt_segmentations" / "phantom_000.nii.gz").unlink()
    case = next((folder / "nnUNetPlans_3d_fullres").glob("*.pkl"), None) or next(folder.glob("*/*.pkl"))
    case.unlink()
    assert "2 files of Dataset901_Phantom are missing, the first is " in refusal()
    shutil.copytree(data_paths(data).preprocessed / NAME, folder, dirs_exist_ok=True)
    files.write_json(folder / f"{CUBE}.json", {**plans_document(data), "original_median_shape_after_transp": [1, 1, 1]})
    assert "plans or splits of Dataset901_Phantom have changed since trial" in refusal()
    assert ledger.trial(spec.trial_id).attempts() == []
    assert ledger.trial(spec.trial_id).state() is TrialState.NEW

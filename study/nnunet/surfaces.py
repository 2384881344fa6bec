"""NSD and HD95 of stored predictions, by MONAI, in millimetres of the images' spacing.

*NSD* (normalised surface Dice) is the share of both surfaces' area that lies within a tolerance of the other surface.
Areas are those of surface elements between voxels, as in the Medical Segmentation Decathlon. *HD95* is the larger of
the two directed 95th percentiles of the distances between border voxels. Both are taken for every label or region of
every case, in the grid of the raw image; voxels with the ignore label count as background on both sides.

A class that is neither in the case nor predicted has no value, as for Dice. One that is in just one of them has NSD 0,
and as HD95 the diagonal of the image: no distance in it could be larger. A surface on the border of the image counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.common import files
from study.nnunet.datasets import DataPaths, find_dataset
from study.store.prediction import TRAINER_NAME
from study.store.results import HD95, NSD, Measured, Metrics, measured
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder

Mask = NDArray[np.bool_]
PERCENTILE = 95
# nnU-Net's folder of the reference segmentations, beside the preprocessed cases.
REFERENCES = "gt_segmentations"


def validation_folder(folder: TrialFolder, spec: TrialSpec) -> Path:
    """Where nnU-Net leaves the predictions of a trial's validation cases."""
    model = f"{TRAINER_NAME}__{spec.plans}__{spec.configuration}"
    return folder.results_path / spec.dataset / model / f"fold_{spec.fold}" / "validation"


def add_lacking(folder: TrialFolder, data: DataPaths, metrics: Metrics, alive: Callable[[], None]) -> None:
    """Measure what a finished trial's result lacks of these metrics; only who holds the trial's lock does.

    Where its predictions are gone the metric stays without a value, and nobody looks for it again.
    """
    spec, result = folder.spec(), folder.result()
    if result is None:
        return
    wanted = replace(metrics, names=metrics.lacking_in(result))
    found = measure(folder, spec, data, wanted, result.dice_per_case_and_class, alive)
    folder.complete(replace(result, metrics={**result.metrics, **found}))
    gone = [name for name, one in found.items() if not one.per_case_and_class]
    if gone:
        folder.note(f"{', '.join(gone)} not measured: predictions of {validation_folder(folder, spec)} are gone")


def measure(
    folder: TrialFolder,
    spec: TrialSpec,
    data: DataPaths,
    metrics: Metrics,
    cases: Mapping[str, Mapping[str, object]],
    alive: Callable[[], None],
) -> dict[str, Measured]:
    """The metrics of a trial's stored predictions, none of any case unless all predictions are there.

    Args:
        folder: of the trial.
        spec: likewise.
        data: has the reference segmentations.
        metrics: what is wanted.
        cases: validation case -> label or region -> anything; which there are.
        alive: called after every case.
    """
    if not metrics.names:
        return {}
    dataset = find_dataset(data, spec.dataset)
    predictions = validation_folder(folder, spec)
    ending = dataset.description["file_ending"]
    values: dict[str, dict[str, dict[str, float | None]]] = {name: {} for name in metrics.names}
    if all((predictions / f"{case}{ending}").is_file() for case in cases):
        reader = _Reader(files.read_json(dataset.folder / f"{spec.plans}.json"), dataset.description)
        for case, labels in cases.items():
            paths = (predictions / f"{case}{ending}", dataset.folder / REFERENCES / f"{case}{ending}")
            for name, by_label in reader.measure(*paths, list(labels), metrics).items():
                values[name][case] = by_label
            alive()
    return {
        name: measured(by_case, metrics.nsd_tolerance_mm if name == NSD else None) for name, by_case in values.items()
    }


class _Reader:
    """Reads segmentations as nnU-Net's evaluation does."""

    def __init__(self, plans: dict[str, Any], description: dict[str, Any]) -> None:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager = PlansManager(plans)
        self._files = manager.image_reader_writer_class()
        self._ignored = manager.get_label_manager(description).ignore_label

    def measure(
        self, prediction: Path, reference: Path, labels: list[str], metrics: Metrics
    ) -> dict[str, dict[str, float | None]]:
        from nnunetv2.evaluation.evaluate_predictions import key_to_label_or_region, region_or_label_to_mask

        predicted, _ = self._files.read_seg(str(prediction))
        true, properties = self._files.read_seg(str(reference))
        counted = np.ones_like(true, dtype=bool) if self._ignored is None else true != self._ignored
        found: dict[str, dict[str, float | None]] = {name: {} for name in metrics.names}
        for label in labels:
            what = key_to_label_or_region(label)
            # The first axis is nnU-Net's channel.
            pair = [(region_or_label_to_mask(one, what) & counted)[0] for one in (predicted, true)]
            values = surface_metrics(pair[0], pair[1], tuple(properties["spacing"]), metrics)
            for name, value in values.items():
                found[name][label] = value
        return found


def surface_metrics(
    prediction: Mask, reference: Mask, spacing_mm: tuple[float, ...], metrics: Metrics
) -> dict[str, float | None]:
    """The metrics of one mask against another.

    Args:
        prediction: mask of two or three axes; those of one voxel are left out.
        reference: likewise, of the same shape.
        spacing_mm: of the voxels along these axes.
        metrics: what is wanted.
    """
    present = bool(prediction.any()), bool(reference.any())
    if not any(present):
        return dict.fromkeys(metrics.names)
    if not all(present):
        sides = [size * step for size, step in zip(reference.shape, spacing_mm, strict=True) if size > 1]
        worst = {NSD: 0.0, HD95: math.hypot(*sides)}
        return {name: worst[name] for name in metrics.names}
    return _between_surfaces(prediction, reference, spacing_mm, metrics)


def _between_surfaces(
    prediction: Mask, reference: Mask, spacing_mm: tuple[float, ...], metrics: Metrics
) -> dict[str, float | None]:
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    predicted, true = (torch.from_numpy(mask)[None, None] for mask in _cut(prediction, reference))
    spacing = [step for step, size in zip(spacing_mm, reference.shape, strict=True) if size > 1]
    values: dict[str, float | None] = {}
    if NSD in metrics.names:
        tolerance = [metrics.nsd_tolerance_mm]
        share = compute_surface_dice(
            predicted, true, tolerance, include_background=True, spacing=spacing, use_subvoxels=True
        )
        values[NSD] = float(share)
    if HD95 in metrics.names:
        distance = compute_hausdorff_distance(
            predicted, true, include_background=True, percentile=PERCENTILE, spacing=spacing
        )
        values[HD95] = float(distance)
    return values


def _cut(*masks: Mask) -> list[Mask]:
    """The masks around what is in any of them, with a margin of background, without axes of one voxel."""
    union = np.logical_or.reduce(masks)
    axes = range(union.ndim)
    inside = [np.flatnonzero(union.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    window = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in inside)
    flat = tuple(axis for axis in axes if union.shape[axis] == 1)
    return [np.pad(mask[window].squeeze(axis=flat), 1) for mask in masks]

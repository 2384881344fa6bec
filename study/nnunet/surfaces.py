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
from study.nnunet.datasets import LABELS_FOLDER, DataPaths, find_dataset
from study.store.prediction import TRAINER_NAME
from study.store.results import HD95, NSD, Measured, Metrics, measured
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder

Mask = NDArray[np.bool_]
PERCENTILE = 95


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
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    dataset = find_dataset(data, spec.dataset)
    folders = validation_folder(folder, spec), dataset.folder / LABELS_FOLDER
    paths = {case: [root / f"{case}{dataset.description['file_ending']}" for root in folders] for case in cases}
    values: dict[str, dict[str, dict[str, float | None]]] = {name: {} for name in metrics.names}
    if all(prediction.is_file() for prediction, _ in paths.values()):
        manager = PlansManager(files.read_json(dataset.folder / f"{spec.plans}.json"))
        ignored = manager.get_label_manager(dataset.description).ignore_label
        for case, labels in cases.items():
            pair = [manager.image_reader_writer_class().read_seg(str(path)) for path in paths[case]]
            by_label = {label: _of_label(pair, label, ignored, metrics) for label in labels}
            for name in metrics.names:
                values[name][case] = {label: found[name] for label, found in by_label.items()}
            alive()
    return {
        name: measured(by_case, metrics.nsd_tolerance_mm if name == NSD else None) for name, by_case in values.items()
    }


def _of_label(pair: list[Any], label: str, ignored: int | None, metrics: Metrics) -> dict[str, float | None]:
    """Of a label or region in a prediction and its reference, each with its properties, as nnU-Net reads them."""
    from nnunetv2.evaluation.evaluate_predictions import key_to_label_or_region, region_or_label_to_mask

    what, (true, properties) = key_to_label_or_region(label), pair[1]
    counted = np.ones_like(true, dtype=bool) if ignored is None else true != ignored
    # The first axis is nnU-Net's channel.
    prediction, reference = ((region_or_label_to_mask(one, what) & counted)[0] for one, _ in pair)
    return surface_metrics(prediction, reference, tuple(properties["spacing"]), metrics)


def surface_metrics(
    prediction: Mask, reference: Mask, spacing_mm: tuple[float, ...], metrics: Metrics
) -> dict[str, float | None]:
    """The metrics of one mask against another of the same shape; axes of one voxel are left out."""
    present = bool(prediction.any()), bool(reference.any())
    if not any(present):
        return dict.fromkeys(metrics.names)
    steps = [(size, step) for size, step in zip(reference.shape, spacing_mm, strict=True) if size > 1]
    if not all(present):
        worst = {NSD: 0.0, HD95: math.hypot(*(size * step for size, step in steps))}
        return {name: worst[name] for name in metrics.names}
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    one, other = (torch.from_numpy(mask)[None, None] for mask in _cut(prediction, reference))
    given: Any = {"include_background": True, "spacing": [step for _, step in steps]}
    values: dict[str, float | None] = {}
    if NSD in metrics.names:
        values[NSD] = float(compute_surface_dice(one, other, [metrics.nsd_tolerance_mm], use_subvoxels=True, **given))
    if HD95 in metrics.names:
        values[HD95] = float(compute_hausdorff_distance(one, other, percentile=PERCENTILE, **given))
    return values


def _cut(*masks: Mask) -> list[Mask]:
    """The masks around what is in any of them, with a margin of background, without axes of one voxel."""
    union = np.logical_or.reduce(masks)
    axes = range(union.ndim)
    inside = [np.flatnonzero(union.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    window = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in inside)
    flat = tuple(axis for axis in axes if union.shape[axis] == 1)
    return [np.pad(mask[window].squeeze(axis=flat), 1) for mask in masks]

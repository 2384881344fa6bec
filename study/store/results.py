"""What a finished trial achieved: Dice always, and the surface metrics that were asked for.

Surface metrics are computed from the stored predictions of the final validation, so they can be asked for later: they
decide nothing of the training and are no part of a trial's identity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from annotated_types import Ge, Le, MinLen, Predicate

from study.common.checks import check_choice, check_range
from study.common.errors import InvalidInputError, TrialFailedError
from study.store.records import Dice, Positive
from study.store.stored import Amount, Stored, Whole, one_of

NSD, HD95 = "nsd", "hd95_mm"
METRICS = (NSD, HD95)
"""Surface metrics beside Dice: normalised surface Dice, and the 95th percentile of the Hausdorff distance."""
DEFAULT_TOLERANCE_MM = 1.0
MetricName = Annotated[str, one_of(*METRICS)]
# A share too, of NSD; what no image comes near to.
Millimetres = Annotated[float, Ge(0), Le(1e6)]
Sha256 = Annotated[str, Predicate(lambda text: re.fullmatch("[0-9a-f]{64}", text) is not None)]


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What is measured beside Dice.

    Attributes:
        names: some of `METRICS`, each once.
        nsd_tolerance_mm: how far apart two surfaces may be and still count as the same.

    Raises:
        InvalidInputError: an unknown name, one twice, or a tolerance that is none.
    """

    names: tuple[str, ...] = ()
    nsd_tolerance_mm: float = DEFAULT_TOLERANCE_MM

    def __post_init__(self) -> None:
        # A list, as JSON has it, is taken too.
        object.__setattr__(self, "names", tuple(self.names))
        for name in self.names:
            check_choice("metrics", name, METRICS)
        if len(set(self.names)) < len(self.names):
            raise InvalidInputError(field="metrics", received=list(self.names), legal="each one once")
        check_range("nsd_tolerance_mm", self.nsd_tolerance_mm, 0, 1000)
        object.__setattr__(self, "nsd_tolerance_mm", float(self.nsd_tolerance_mm))

    def lacking_in(self, result: TrialResult | None) -> tuple[str, ...]:
        """Those that a result does not have, or has at another tolerance; none of a trial without a result."""
        return () if result is None else tuple(name for name in self.names if not self._has(result, name))

    def _has(self, result: TrialResult, name: str) -> bool:
        measured = result.metrics.get(name)
        return measured is not None and (name != NSD or measured.tolerance_mm == self.nsd_tolerance_mm)


NO_METRICS = Metrics()


@dataclass(frozen=True, kw_only=True)
class Measured(Stored):
    """One metric of a trial's predictions.

    Attributes:
        mean: over labels of the means over cases, as nnU-Net's foreground mean; None where nothing could be measured,
            because the predictions are gone or no class is in any case or prediction.
        per_case_and_class: case -> label -> value; None where the class is neither in case nor prediction.
        tolerance_mm: of NSD.
    """

    mean: Amount | None
    per_case_and_class: Mapping[str, Mapping[str, Millimetres | None]]
    tolerance_mm: Amount | None = None


def measured(cases: Mapping[str, Mapping[str, float | None]], tolerance_mm: float | None) -> Measured:
    """The metric whose values by case and label are these."""
    by_label: dict[str, list[float]] = {}
    for labels in cases.values():
        for label, value in labels.items():
            if value is not None:
                by_label.setdefault(label, []).append(value)
    mean = fmean(map(fmean, by_label.values())) if by_label else None
    return Measured(mean=mean, per_case_and_class=cases, tolerance_mm=tolerance_mm)


@dataclass(frozen=True, kw_only=True)
class TrialResult(Stored):
    """What a finished trial achieved; what it cost is in the ledger's cost intervals.

    Attributes:
        dice: mean foreground Dice of nnU-Net's own validation of the fold.
        dice_per_class: mean Dice by label or region.
        dice_per_case: mean over foreground classes, by case; None where no class is in case or prediction.
        dice_per_case_and_class: case -> label -> Dice.
        iterations, voxels: really trained, each counted once; fewer than specified when `stop_at_dice` was reached.
        voxel_share: relative to as many iterations of CPS.
        weights_sha256: over names, shapes, types and bytes of the final weights.
        metrics: name, one of `METRICS` -> what was measured; empty where none was asked for.
        remarks: sentences about the data that a reader of the Dice must know.
    """

    dice: Dice
    dice_per_class: Mapping[str, Dice | None]
    dice_per_case: Annotated[Mapping[str, Dice | None], MinLen(1)]
    dice_per_case_and_class: Mapping[str, Mapping[str, Dice | None]]
    iterations: Positive
    voxels: Whole
    voxel_share: Amount
    weights_sha256: Sha256
    metrics: Mapping[MetricName, Measured] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def result_from(
    summary: Mapping[str, Any],
    *,
    file_ending: str,
    iterations: int,
    voxels: int,
    voxel_share: float,
    checksum: str,
    remarks: tuple[str, ...] = (),
) -> TrialResult:
    """The result that nnU-Net's summary of a validation comes to, over the classes that are in its cases.

    Args:
        summary: nnU-Net's `summary.json`.
        file_ending: of segmentations.
        iterations: trained.
        voxels: likewise.
        voxel_share: of those.
        checksum: of the weights.
        remarks: see `trial_remarks`.

    Raises:
        TrialFailedError: no class is in any case.
    """
    classes = summary["mean"]
    shown = [label for label in classes if any(case["metrics"][label]["n_ref"] for case in summary["metric_per_case"])]
    dice = _number(summary["foreground_mean"]["Dice"])
    if len(shown) < len(classes):
        dice = _mean([_number(classes[label]["Dice"]) for label in shown])
    if dice is None:
        raise TrialFailedError("the validation's mean foreground Dice is not a number: no class in any validation case")
    cases = {
        base_name(case["reference_file"]).removesuffix(file_ending): {
            str(label): _number(metrics["Dice"]) if label in shown else None
            for label, metrics in case["metrics"].items()
        }
        for case in summary["metric_per_case"]
    }
    return TrialResult(
        dice=dice,
        dice_per_class={
            str(label): _number(metrics["Dice"]) if label in shown else None for label, metrics in classes.items()
        },
        dice_per_case={case: _mean(list(labels.values())) for case, labels in cases.items()},
        dice_per_case_and_class=cases,
        iterations=iterations,
        voxels=voxels,
        voxel_share=voxel_share,
        weights_sha256=checksum,
        remarks=remarks,
    )


def base_name(path: str) -> str:
    """The name of a file, of Windows too."""
    return Path(path.replace("\\", "/")).name


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None

"""What a finished trial achieved: Dice always, and the surface metrics that were asked for.

Surface metrics are computed from the stored predictions of the final validation, so they can be asked for later: they
decide nothing of the training and are no part of a trial's identity.

Whether records can be what was written, beyond what the types of their fields say: what no training has come to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from annotated_types import Ge, Le, MinLen, Predicate

from study.common.errors import LARGEST, InvalidInputError, TrialFailedError, check_choice, check_range
from study.curriculum.schemes import SCHEMES
from study.store.records import CostInterval, Dice, EpochReport, Phase, Positive
from study.store.specification import TrialSpec
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


_LAST_SECOND = 1e10
_DICE_TOLERANCE = 1e-6


def spec_problem(spec: TrialSpec) -> str | None:
    """What is wrong with a specification, None if nothing is; so of all that follow."""
    if not all(
        isinstance(word, str)
        for word in (spec.dataset, spec.plans, spec.configuration, spec.scheme, spec.imported or "")
    ):
        return "it has values of another kind"
    if spec.scheme not in SCHEMES:
        return f"there is no scheme {spec.scheme!r}"
    curriculum, data = spec.curriculum, spec.data
    numbers = [spec.fold, spec.seed, curriculum.seed, curriculum.total_iterations, data.until_iteration if data else 0]
    numbers += [*vars(spec.axes).values(), *vars(spec.training).values()]
    numbers += [n for stage in curriculum.stages for n in (*stage.patch_size, *vars(stage).values())]
    largest = max((number for number in numbers if type(number) is int), key=abs)
    return f"it has the number {largest}, larger than any seed or count" if abs(largest) > LARGEST else None


def interval_problem(interval: CostInterval, stages: int) -> str | None:
    """Of an interval of a curriculum of so many stages."""
    trained, parts, own = interval.iteration_stop - interval.iteration_start, interval.parts, interval.own
    if trained < 0:
        return f"iterations from {interval.iteration_start} back to {interval.iteration_stop}"
    if trained and interval.phase is not Phase.TRAINING:
        return f"iterations of {interval.phase.value}"
    if interval.stage is not None and interval.stage >= stages:
        return f"stage {interval.stage} of {stages}"
    if parts:
        if any(part.stage >= stages for part in parts):
            return f"stage {max(part.stage for part in parts)} of {stages}"
        iterations, seconds = sum(part.iterations for part in parts), sum(part.seconds for part in parts)
        if iterations != trained or not isclose(seconds, interval.seconds, rel_tol=1e-6):
            return f"parts of {iterations} iterations and {seconds!r} s, which it is not"
    if own is not None:
        for part, mine, all_ in (("GPU", own.gpu_kwh, interval.gpu_kwh), ("RAM", own.ram_kwh, interval.ram_kwh)):
            if mine is not None and (all_ is None or mine > all_ * (1 + 1e-9) + 1e-12):
                return f"{mine!r} of {all_!r} kWh of the {part} are the trial's"
    return None


def epoch_problem(report: EpochReport, spec: TrialSpec) -> str | None:
    """Of the report of an epoch."""
    stages = len(spec.curriculum.stages)
    if report.epoch >= spec.training.epochs:
        return f"is beyond the {spec.training.epochs} specified"
    return f"has stage {report.stage} of {stages}" if report.stage >= stages else None


def event_problem(event: dict[str, Any], attempts: int) -> str | None:
    """Of an event of a trial of so many attempts."""
    if not 0 <= event["time"] <= _LAST_SECOND:
        return f"is of the time {event['time']!r}"
    attempt = event.get("attempt")
    # What broke before it had a header counts as the next.
    if attempt is not None and not (type(attempt) is int and 0 <= attempt <= attempts):
        return f"is of attempt {attempt!r} of {attempts}"
    words = [event[name] for name in ("reason", "text") if event.get(name) is not None]
    return None if all(isinstance(word, str) for word in words) else "has values of another kind"


def result_problem(result: TrialResult, spec: TrialSpec) -> str | None:
    """Of a result."""
    metrics = (_metric_problem(name, one, result) for name, one in result.metrics.items())
    return next(filter(None, metrics), None) or _dice_problem(result) or _voxel_problem(result, spec)


def _metric_problem(name: str, one: Measured, result: TrialResult) -> str | None:
    cases = one.per_case_and_class
    if name == NSD and (
        one.tolerance_mm is None or any((value or 0) > 1 for labels in cases.values() for value in labels.values())
    ):
        return f"its {name} have the tolerance {one.tolerance_mm!r}, or are no shares"
    # Those whose predictions were gone when they were asked for have no cases.
    if cases and cases.keys() != result.dice_per_case.keys():
        return f"its {name} are of other cases than its Dice"
    mean = measured(cases, None).mean
    fits = one.mean is mean if one.mean is None or mean is None else isclose(one.mean, mean, rel_tol=_DICE_TOLERANCE)
    return None if fits else f"its {name} {one.mean!r} is not the mean of its parts"


def _dice_problem(result: TrialResult) -> str | None:
    """Means that are none of what they are said to be means of."""
    by_case = result.dice_per_case_and_class
    if by_case.keys() != result.dice_per_case.keys():
        return "its cases are others by class than in the mean"
    labels = set().union(*by_case.values())
    if labels and labels != result.dice_per_class.keys():
        return "its classes are others by case than in the mean"
    of_cases = [by_case[case].values() for case in result.dice_per_case]
    of_classes = [[classes.get(label) for classes in by_case.values()] for label in result.dice_per_class if labels]
    return (
        _off({"its Dice": result.dice}, [result.dice_per_class.values()])
        or _off(result.dice_per_case, of_cases, "Dice of case ")
        or _off(result.dice_per_class, of_classes, "Dice of class ")
    )


def _off(means: Mapping[str, float | None], parts: Iterable[Collection[float | None]], what: str = "") -> str | None:
    # Thousands of trials are read at a time, and hardly a case lacks a class.
    for (name, mean), values in zip(means.items(), parts, strict=False):
        known = [value for value in values if value is not None] if None in values else values
        if known and (mean is None or abs(mean - sum(known) / len(known)) > _DICE_TOLERANCE):  # type: ignore[arg-type]
            return f"{what}{name} {mean!r} is not the mean of its parts"
    return None


def _voxel_problem(result: TrialResult, spec: TrialSpec) -> str | None:
    curriculum = spec.curriculum
    if result.iterations > curriculum.total_iterations:
        return f"it is of {result.iterations} iterations, the trial of {curriculum.total_iterations}"
    low = high = curriculum.voxels
    if spec.stopped_at(result.iterations) is not None:
        sizes = [stage.voxels_per_iteration for stage in curriculum.stages]
        low, high = min(sizes) * result.iterations, max(sizes) * result.iterations
    if not low <= result.voxels <= high:
        return f"{result.voxels} voxels cannot be those of its curriculum"
    share = curriculum.share_of_cps(result.voxels, result.iterations)
    return None if isclose(result.voxel_share, share, rel_tol=1e-9) else f"a voxel share of {result.voxel_share!r}"

"""Whether records can be what was written, beyond what the types of their fields say: what no training has come to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import isclose
from typing import Any

from study.curriculum.schemes import SCHEMES
from study.store.records import CostInterval, EpochReport, Phase
from study.store.results import NSD, Measured, TrialResult, measured
from study.store.specification import TrialSpec

# What tables of 64-bit numbers can hold.
LARGEST = 2**63 - 1
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
    if name == NSD and (one.tolerance_mm is None or any(value > 1 for value in _known(cases))):
        return f"its {name} have the tolerance {one.tolerance_mm!r}, or are no shares"
    # Those whose predictions were gone when they were asked for have no cases.
    if cases and cases.keys() != result.dice_per_case.keys():
        return f"its {name} are of other cases than its Dice"
    mean = measured(cases, None).mean
    fits = one.mean is mean if one.mean is None or mean is None else isclose(one.mean, mean, rel_tol=_DICE_TOLERANCE)
    return None if fits else f"its {name} {one.mean!r} is not the mean of its parts"


def _known(cases: Any) -> Iterable[float]:
    return (value for labels in cases.values() for value in labels.values() if value is not None)


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

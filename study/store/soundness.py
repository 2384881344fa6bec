"""Whether a record can be what was written, by itself: kinds of its values, and what no training can have come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isclose, isfinite
from typing import Any

from study.curriculum.schemes import SCHEMES
from study.store.records import AttemptHeader, CostInterval, EpochReport, Phase
from study.store.results import METRICS, NSD, Measured, TrialResult, measured
from study.store.specification import TrialSpec

# What tables of 64-bit numbers can hold.
LARGEST = 2**63 - 1
# The year 2286: a time beyond it is none.
_LAST_SECOND = 1e10
_SHA256_LENGTH, _HEXADECIMAL = 64, frozenset("0123456789abcdef")
# What no stretch of a training, grid, or image comes near to.
_MOST_SECONDS, _MOST_KWH, _MOST_KG_PER_KWH, _MOST_MM = 1e8, 1e6, 100.0, 1e6
_DICE_TOLERANCE = 1e-6
_WORDS, _WHOLE, _NUMBERS = frozenset((str,)), frozenset((int,)), frozenset((int, float))


def spec_problem(spec: TrialSpec) -> str | None:
    """What is wrong with a specification, None if nothing is."""
    words = (spec.dataset, spec.plans, spec.configuration, spec.scheme)
    if not all(isinstance(word, str) for word in words):
        return "it has values of another kind"
    if spec.scheme not in SCHEMES:
        return f"there is no scheme {spec.scheme!r}"
    curriculum, data = spec.curriculum, spec.data
    numbers = [spec.fold, spec.seed, curriculum.seed, curriculum.total_iterations, data.until_iteration if data else 0]
    numbers += [*vars(spec.axes).values(), *vars(spec.training).values()]
    numbers += [n for stage in curriculum.stages for n in (*stage.patch_size, *vars(stage).values())]
    largest = max((number for number in numbers if type(number) is int), key=abs)
    return f"it has the number {largest}, larger than any seed or count" if abs(largest) > LARGEST else None


def header_problem(header: AttemptHeader) -> str | None:
    """What is wrong with the header of an attempt, None if nothing is."""
    meter = header.meter
    whole = (header.attempt, header.resumed_from_iteration, header.concurrent_trials, header.data_workers, header.pid)
    numbers = (header.started_at, header.cpus, header.gpus, meter.carbon_intensity_kg_per_kwh, meter.pue)
    words = (
        header.hostname,
        header.device,
        header.cpu_name,
        *header.gpu_names,
        meter.name,
        meter.version,
        meter.country,
    )
    maps = (meter.methods, meter.reasons, header.versions, header.inputs)
    watts = 0.0 if meter.cpu_tdp_watts is None else meter.cpu_tdp_watts
    if not (
        _are_whole(*whole, header.cpus_of_node, *header.gpu_ids)
        and _are_amounts(*numbers, watts, *(one.prepared_seconds for one in header.execution))
        and all(isinstance(word, str) for word in (*words, header.preprocessed or "", *_reasons(header)))
        and all(_is_of_words(one) for one in maps)
    ):
        return "it has values of another kind"
    if not header.cpus_of_node or not header.cpus or header.started_at > _LAST_SECOND:
        return f"it has {header.cpus!r} of {header.cpus_of_node} cores at {header.started_at!r} s"
    if header.device not in ("cpu", "cuda") or not header.concurrent_trials:
        return f"it has the device {header.device!r} for {header.concurrent_trials} trials"
    if not meter.pue >= 1 or meter.carbon_intensity_kg_per_kwh > _MOST_KG_PER_KWH:
        return f"it has {meter.carbon_intensity_kg_per_kwh!r} kg CO2 per kWh at a PUE of {meter.pue!r}"
    return None


def _reasons(header: AttemptHeader) -> list[object]:
    return [one.reason for one in header.execution]


def intervals_problem(intervals: Sequence[CostInterval], stages: int) -> str | None:
    """What is wrong with intervals of a curriculum of so many stages, None if nothing is; of one, what it is."""
    owns, uses = ([one for i in intervals if (one := getattr(i, name)) is not None] for name in ("own", "use"))
    energies = [kwh for i in intervals for kwh in (i.cpu_kwh, i.gpu_kwh, i.ram_kwh) if kwh is not None]
    energies += [kwh for own in owns for kwh in vars(own).values() if kwh is not None]
    seconds, times = [i.seconds for i in intervals], [i.started_at for i in intervals]
    amounts = [*seconds, *times, *energies, *(s for use in uses for s in (use.own_cpu_seconds, use.cpu_seconds))]
    trials = [use.trials for use in uses if use.trials is not None]
    whole = [number for i in intervals for number in (i.attempt, i.iteration_start, i.iteration_stop)]
    trained = [i for i in intervals if i.iteration_stop != i.iteration_start]
    if not (_are_whole(*whole, *trials) and all(trials) and _are_amounts(*amounts)):
        return "values of another kind"
    if any(i.iteration_stop < i.iteration_start for i in trained) or max(times, default=0) > _LAST_SECOND:
        return "values of another kind"
    if max(seconds, default=0) > _MOST_SECONDS or max(energies, default=0) > _MOST_KWH:
        return f"{max(seconds)!r} s and {max(energies, default=0.0)!r} kWh"
    if other := next((i.phase for i in trained if i.phase is not Phase.TRAINING), None):
        return f"iterations of {other.value}"
    numbers = [i.stage for i in intervals if i.stage is not None]
    if not (_are_whole(*numbers) and max(numbers, default=-1) < stages):
        return f"stage {numbers[0]!r} of {stages}"
    if not all(_is_of_words(i.reasons) for i in intervals if i.reasons != {}):
        return "values of another kind"
    problems = (_parts_problem(i, stages) or _share_problem(i) for i in intervals if i.parts or i.own)
    return next(filter(None, problems), None)


def epochs_problem(reports: Sequence[EpochReport], spec: TrialSpec) -> str | None:
    """What is wrong with reports of epochs, None if nothing is; of one, what it is."""
    stages, dice = len(spec.curriculum.stages), [d for r in reports for d in (r.pseudo_dice, *r.pseudo_dice_per_class)]
    known = [value for value in dice if value is not None]
    if not _are_dice(*known):
        return f"has the Dice {next(value for value in known if not _are_dice(value))!r}"
    losses = [loss for r in reports for loss in (r.training_loss, r.validation_loss) if loss is not None]
    whole = [n for r in reports for n in (r.epoch, r.iteration, r.stage, r.batch_size, r.voxels, *r.patch_size)]
    amounts = [amount for r in reports for amount in (r.learning_rate, r.training_seconds)]
    if not (_are_whole(*whole) and _are_numbers(*losses) and _are_amounts(*amounts)):
        return "has values of another kind"
    if any(r.epoch >= spec.training.epochs for r in reports):
        return f"is beyond the {spec.training.epochs} specified"
    return next((f"has stage {r.stage} of {stages}" for r in reports if r.stage >= stages), None)


def result_problem(result: TrialResult, spec: TrialSpec) -> str | None:
    """What is wrong with a result, None if nothing is."""
    if not _are_dice(result.dice):
        return f"dice {result.dice!r} is no number from 0 to 1"
    by_case = result.dice_per_case_and_class
    maps = [result.dice_per_class, result.dice_per_case, *(by_case.values() if isinstance(by_case, dict) else [None])]
    values = [value for one in maps if isinstance(one, dict) for value in one.values() if value is not None]
    if not all(isinstance(one, dict) for one in maps) or not _are_dice(*values):
        return "its Dice by class and case are no numbers from 0 to 1"
    checksum = result.weights_sha256
    if not isinstance(checksum, str) or len(checksum) != _SHA256_LENGTH or not set(checksum) <= _HEXADECIMAL:
        return "its checksum of the weights is none"
    if not result.dice_per_case or not all(isinstance(remark, str) for remark in result.remarks):
        return "it has no cases, or remarks that are no words"
    if (
        not _are_whole(result.iterations, result.voxels)
        or not result.iterations
        or not _are_amounts(result.voxel_share)
    ):
        return f"{result.iterations!r} iterations, {result.voxels!r} voxels, a share of {result.voxel_share!r}"
    return _metric_problem(result) or _dice_problem(result) or _voxel_problem(result, spec)


def _metric_problem(result: TrialResult) -> str | None:
    for name, one in result.metrics.items():
        if name not in METRICS:
            return f"there is no metric {name!r}"
        if wrong := _measured_problem(name, one, result):
            return f"its {name} {wrong}"
    return None


def _measured_problem(name: str, one: Measured, result: TrialResult) -> str | None:
    cases = one.per_case_and_class
    known = [value for case in cases.values() for value in case.values() if value is not None]
    if not (_are_dice(*known) if name == NSD else _are_amounts(*known) and max(known, default=0.0) <= _MOST_MM):
        return "are no distances or shares"
    if name == NSD and not _are_amounts(one.tolerance_mm):
        return f"have the tolerance {one.tolerance_mm!r}"
    # Those whose predictions were gone when they were asked for have no cases.
    if cases and cases.keys() != result.dice_per_case.keys():
        return "are of other cases than its Dice"
    mean = measured(cases, None).mean
    if (one.mean is None) != (mean is None) or not (mean is None or _is_mean(one.mean, mean)):
        return f"{one.mean!r} is not the mean of its parts"
    return None


def _is_mean(value: object, mean: float) -> bool:
    return _are_numbers(value) and isclose(value, mean, rel_tol=_DICE_TOLERANCE)  # type: ignore[arg-type]


def event_problem(event: dict[str, Any], attempts: int) -> str | None:
    """What is wrong with an event of a trial of so many attempts, None if nothing is."""
    if not is_time(event["time"]):
        return f"is of the time {event['time']!r}"
    attempt = event.get("attempt")
    # What broke before it had a header counts as the next.
    if attempt is not None and not (_are_whole(attempt) and attempt <= attempts):
        return f"is of attempt {attempt!r} of {attempts}"
    words = [event[name] for name in ("reason", "text") if event.get(name) is not None]
    return None if all(isinstance(word, str) for word in words) else "has values of another kind"


def is_time(value: object) -> bool:
    """Whether it can be a time in seconds since the epoch."""
    return _are_amounts(value) and value <= _LAST_SECOND  # type: ignore[operator]


def _parts_problem(interval: CostInterval, stages: int) -> str | None:
    """The parts of stages that were drawn are the whole."""
    parts = interval.parts
    if not parts:
        return None
    whole = [value for part in parts for value in (part.stage, part.iterations)]
    if not (_are_whole(*whole) and _are_amounts(*(part.seconds for part in parts))):
        return "parts of another kind"
    if any(part.stage >= stages for part in parts):
        return f"stage {max(part.stage for part in parts)} of {stages}"
    iterations, seconds = sum(part.iterations for part in parts), sum(part.seconds for part in parts)
    if iterations != interval.iteration_stop - interval.iteration_start or not isclose(
        seconds, interval.seconds, rel_tol=1e-6
    ):
        return f"parts of {iterations} iterations and {seconds!r} s, which it is not"
    return None


def _share_problem(interval: CostInterval) -> str | None:
    """The part of a GPU or of the RAM that is the trial's cannot be more than the whole."""
    own = interval.own
    if own is None:
        return None
    for part, mine, all_ in (("GPU", own.gpu_kwh, interval.gpu_kwh), ("RAM", own.ram_kwh, interval.ram_kwh)):
        if mine is not None and (all_ is None or mine > all_ * (1 + 1e-9) + 1e-12):
            return f"{mine!r} of {all_!r} kWh of the {part} are the trial's"
    return None


def _dice_problem(result: TrialResult) -> str | None:
    """Means that are none of what they are said to be means of."""
    by_case = result.dice_per_case_and_class
    if by_case.keys() != result.dice_per_case.keys():
        return "its cases are others by class than in the mean"
    labels = set().union(*by_case.values())
    columns = {label: [classes.get(label) for classes in by_case.values()] for label in labels}
    if labels and labels != result.dice_per_class.keys():
        return "its classes are others by case than in the mean"
    if _is_off(result.dice, result.dice_per_class.values()):
        return f"its Dice {result.dice!r} is not the mean of its parts"
    for case, mean in result.dice_per_case.items():
        if _is_off(mean, by_case[case].values()):
            return f"Dice of case {case} {mean!r} is not the mean of its parts"
    for label, column in columns.items():
        if _is_off(mean := result.dice_per_class[label], column):
            return f"Dice of class {label} {mean!r} is not the mean of its parts"
    return None


def _is_off(mean: float | None, values: Iterable[float | None]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and (mean is None or abs(mean - sum(known) / len(known)) > _DICE_TOLERANCE)


def _voxel_problem(result: TrialResult, spec: TrialSpec) -> str | None:
    curriculum = spec.curriculum
    if result.iterations > curriculum.total_iterations:
        return f"it is of {result.iterations} iterations, the trial of {curriculum.total_iterations}"
    sizes = [stage.voxels_per_iteration for stage in curriculum.stages]
    if spec.stopped_at(result.iterations) is None:
        low = high = curriculum.voxels
    else:
        low, high = min(sizes) * result.iterations, max(sizes) * result.iterations
    if not low <= result.voxels <= high:
        return f"{result.voxels} voxels cannot be those of its curriculum"
    share = curriculum.share_of_cps(result.voxels, result.iterations)
    return None if isclose(result.voxel_share, share, rel_tol=1e-9) else f"a voxel share of {result.voxel_share!r}"


def _is_of_words(value: object) -> bool:
    return isinstance(value, dict) and _WORDS.issuperset(map(type, value.values()))


# Readers check every value of thousands of trials: what follows loops in C.
def _are_dice(*values: object) -> bool:
    return _are_amounts(*values) and max(values, default=0) <= 1  # type: ignore[type-var,operator]


def _are_whole(*values: object) -> bool:
    whole = _WHOLE.issuperset(map(type, values))
    return whole and (not values or (min(values) >= 0 and max(values) <= LARGEST))  # type: ignore[type-var,operator]


def _are_numbers(*values: object) -> bool:
    return _NUMBERS.issuperset(map(type, values)) and all(map(isfinite, values))  # type: ignore[arg-type]


def _are_amounts(*values: object) -> bool:
    return _are_numbers(*values) and min(values, default=0) >= 0  # type: ignore[type-var,operator]

"""Whether the records of a study fit together: what a truncated, replaced or lost file would silently change.

What holds however a process dies, because each of these is on disk before the next is begun: the attempt's header, the
costs of a stretch of training, those of the epoch's validation, the epoch's report, the checkpoint that contains them.
So costs cover every iteration that any checkpoint holds, and every epoch before a checkpoint's is reported; a gap means
that a file was damaged. Records that only tell the story (`events.jsonl`, `log.txt`) are not missed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import isfinite
from typing import Any, NoReturn

from study import locks
from study.errors import LedgerError
from study.ledger import Ledger, TrialFolder, TrialState
from study.records import AttemptHeader, CostInterval, Phase, TrialSpec
from study.results import NSD, TrialResult
from study.stopping import stopping_epoch

_SHA256_LENGTH = 64


def audit(ledger: Ledger) -> None:
    """Check a study before anything is started in it. Trials that somebody works on are left to that process.

    Raises:
        LedgerError: a file is damaged; which, what is wrong and what to do about it in one line.
    """
    named = _check_points(ledger)
    of_a_space = ledger.header().get("space") is not None
    for folder in _folders(ledger):
        _check_unless_busy(folder)
        if of_a_space and folder.trial_id not in named and _has(folder, "spec.json") and not folder.by_hand:
            raise LedgerError(
                f"{ledger.root / 'points.jsonl'} has lost lines: none names trial {folder.trial_id}; restore it from a "
                f"backup or, if somebody made that trial by hand, make an empty file {folder.path / 'by_hand'}"
            )


def audit_trial(folder: TrialFolder) -> None:
    """Check the records of one trial, which nobody else works on.

    Raises:
        LedgerError: a file is damaged.
    """
    if not _has(folder, "spec.json"):
        _check_nothing_recorded(folder)
        return
    spec = folder.spec()
    if spec.trial_id != folder.trial_id:
        remedy = "delete it, and the same command writes it again"
        raise LedgerError(f"{folder.path / 'spec.json'} specifies trial {spec.trial_id}; {remedy}")
    result, events = folder.result(), folder.events()
    curve = _checked_epochs(folder, spec)
    reported = len(curve)
    attempts, intervals = _checked_attempts(folder), folder.cost_intervals()
    covered = _check_costs(folder, attempts, intervals)
    done = max((i.iteration_start for i in intervals if i.iteration_stop > i.iteration_start), default=0)
    _check_reported(folder, spec, reported, done // spec.iterations_per_epoch)
    if reported * spec.iterations_per_epoch > covered:
        _damaged(folder, "costs.jsonl", f"it ends at iteration {covered}, epoch {reported - 1} was trained to its end")
    if result is not None:
        stop = stopping_epoch(curve, spec.training.stop_at_dice)
        epochs = spec.training.epochs if stop is None else stop + 1
        total = epochs * spec.iterations_per_epoch
        _check_reported(folder, spec, reported, epochs)
        _check_result(folder, result, total)
        # On a device that does not repeat itself, a process that died may have come further before.
        covered = covered if stop is None else min(covered, total)
        _check_whole_bill(folder, intervals, events, covered=covered, total=total)


def check_resumable(folder: TrialFolder, *, iteration: int, epoch: int) -> None:
    """Check that the ledger knows all that a checkpoint holds, before an attempt goes on from there.

    Args:
        folder: of the trial.
        iteration: how many are trained.
        epoch: index of the one to go on with.

    Raises:
        LedgerError: costs or epochs have lost lines.
    """
    covered = _check_costs(folder, folder.attempts(), folder.cost_intervals())
    if covered < iteration:
        _damaged(folder, "costs.jsonl", f"it ends at iteration {covered}, the checkpoint at {iteration}")
    _check_reported(folder, folder.spec(), len(folder.epochs()), epoch)


def _check_points(ledger: Ledger) -> set[str]:
    """Trials that the points name; the points are numbered in order."""
    points = ledger.points()
    for index, point in enumerate(points):
        if point["number"] != index:
            raise LedgerError(
                f"{ledger.root / 'points.jsonl'} is damaged: line {index + 1} is point {point['number']}, "
                f"not {index}; restore it from a backup"
            )
    return {trial_id for point in points for trial_id in point["trial_ids"]}


def _folders(ledger: Ledger) -> list[TrialFolder]:
    """All folders of trials, also those that have lost their specification."""
    place = ledger.root / "trials"
    return [TrialFolder(path) for path in sorted(place.iterdir()) if path.is_dir()] if place.is_dir() else []


def _check_unless_busy(folder: TrialFolder) -> None:
    try:
        audit_trial(folder)
    except LedgerError:
        if locks.holder(folder.locks_path) is None:
            # Whoever was writing while the records were read may have ended since.
            audit_trial(folder)


def _check_nothing_recorded(folder: TrialFolder) -> None:
    for name in ("attempts", "costs.jsonl", "epochs.jsonl", "result.json"):
        if _has(folder, name):
            raise LedgerError(f"{folder.path / 'spec.json'} is not there and the trial has begun; {folder.remedy}")


def _checked_attempts(folder: TrialFolder) -> list[AttemptHeader]:
    attempts = folder.attempts()
    numbers = [header.attempt for header in attempts]
    if numbers != list(range(len(attempts))):
        _damaged(folder, "attempts", f"they are numbered {numbers}")
    for header in attempts:
        if not _are_whole(header.resumed_from_iteration) or not _are_numbers(header.started_at, header.cpus):
            _damaged(folder, f"attempts/{header.attempt:03d}.json", "it has values of another kind")
    return attempts


def _check_costs(folder: TrialFolder, attempts: Sequence[AttemptHeader], intervals: Sequence[CostInterval]) -> int:
    """Up to which iteration the intervals cover all; each attempt's follow each other from where it began."""
    covered = 0
    by_attempt: dict[Any, list[CostInterval]] = {header.attempt: [] for header in attempts}
    for line, interval in enumerate(intervals, start=1):
        if not _is_sound(interval):
            _damaged(folder, "costs.jsonl", f"line {line} has values of another kind")
        if interval.attempt not in by_attempt:
            path = f"attempts/{interval.attempt:03d}.json"
            raise LedgerError(f"{folder.path / path} is not there and costs.jsonl has its costs; {folder.remedy}")
        by_attempt[interval.attempt].append(interval)
    for header in attempts:
        position = header.resumed_from_iteration
        if position > covered:
            _damaged(folder, "costs.jsonl", f"it lacks iterations {covered} to {position}, where an attempt went on")
        for interval in by_attempt[header.attempt]:
            if interval.iteration_start != position:
                _damaged(folder, "costs.jsonl", f"attempt {header.attempt} has a gap at iteration {position}")
            position = interval.iteration_stop
        covered = max(covered, position)
    return covered


def _checked_epochs(folder: TrialFolder, spec: TrialSpec) -> Sequence[float | None]:
    """Pseudo Dice of the epochs reported, which begin at 0 and leave none out."""
    reports = folder.epochs()
    for index, report in enumerate(reports):
        if report.epoch != index:
            _damaged(folder, "epochs.jsonl", f"epoch {index} is missing")
        if report.iteration != (index + 1) * spec.iterations_per_epoch:
            _damaged(folder, "epochs.jsonl", f"epoch {index} ends at iteration {report.iteration}")
        if report.pseudo_dice is not None and not _are_numbers(report.pseudo_dice):
            _damaged(folder, "epochs.jsonl", f"epoch {index} has the Dice {report.pseudo_dice!r}")
    return [report.pseudo_dice for report in reports]


def _check_reported(folder: TrialFolder, spec: TrialSpec, reported: int, needed: int) -> None:
    if reported < needed:
        _damaged(folder, "epochs.jsonl", f"it has {reported} of the {needed} epochs trained, of {spec.training.epochs}")


def _check_whole_bill(
    folder: TrialFolder,
    intervals: Sequence[CostInterval],
    events: Sequence[dict[str, Any]],
    *,
    covered: int,
    total: int,
) -> None:
    if covered != total:
        _damaged(folder, "costs.jsonl", f"it ends at iteration {covered} of {total} of a finished trial")
    if not any(interval.phase is Phase.FINAL_VALIDATION for interval in intervals):
        _damaged(folder, "costs.jsonl", "it lacks the final validation of a finished trial")
    for event in events:
        lines = event.get("cost_lines") if event["event"] == TrialState.FINISHED.value else None
        if lines is not None and lines > len(intervals):
            _damaged(folder, "costs.jsonl", f"it has {len(intervals)} of {lines} lines")


def _check_result(folder: TrialFolder, result: TrialResult, total: int) -> None:
    if not _are_numbers(result.dice, result.voxel_share) or not 0 <= result.dice <= 1:
        _bad_result(folder, f"dice {result.dice!r} is no number from 0 to 1")
    if result.iterations != total:
        _bad_result(folder, f"it is of {result.iterations} iterations, the trial of {total}")
    for values in (result.dice_per_class, result.dice_per_case):
        if not isinstance(values, dict) or not _are_numbers(*(v for v in values.values() if v is not None)):
            _bad_result(folder, "its Dice by class and case are no numbers")
    for name, one in result.metrics.items():
        labels = (value for case in one.per_case_and_class.values() for value in case.values())
        known = [value for value in (one.mean, *labels) if value is not None]
        if not _are_numbers(*known) or not all(0 <= value <= (1 if name == NSD else math.inf) for value in known):
            _bad_result(folder, f"its {name} are no distances or shares")
    if len(str(result.weights_sha256)) != _SHA256_LENGTH:
        _bad_result(folder, "its checksum of the weights is none")


def _is_sound(interval: CostInterval) -> bool:
    energies = (interval.cpu_kwh, interval.gpu_kwh, interval.ram_kwh)
    return (
        _are_whole(interval.attempt, interval.iteration_start, interval.iteration_stop)
        and interval.iteration_stop >= interval.iteration_start
        and _are_numbers(interval.seconds, interval.started_at, *(e for e in energies if e is not None))
        and interval.seconds >= 0
    )


def _are_whole(*values: object) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _are_numbers(*values: object) -> bool:
    return all(type(value) in (int, float) and isfinite(value) for value in values)  # type: ignore[arg-type]


def _has(folder: TrialFolder, name: str) -> bool:
    return (folder.path / name).exists()


def _damaged(folder: TrialFolder, name: str, what: str) -> NoReturn:
    raise LedgerError(f"{folder.path / name} is damaged: {what}; {folder.remedy}")


def _bad_result(folder: TrialFolder, what: str) -> NoReturn:
    remedy = "delete it, and the same command validates the trial again"
    raise LedgerError(f"{folder.path / 'result.json'} is damaged: {what}; {remedy}")

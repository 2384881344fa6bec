"""Whether the records of a study fit together: what a truncated, replaced or lost file would silently change.

What holds however a process dies, because each of these is on disk before the next is begun: the attempt's header, the
costs of a stretch of training, those of the epoch's validation, the epoch's report, the checkpoint that contains them.
So costs cover every iteration that any checkpoint holds, and every epoch before a checkpoint's is reported; a gap means
that a file was damaged. Records that only tell the story (`events.jsonl`, `log.txt`) are not missed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from study.common import files
from study.common.errors import InvalidInputError, LedgerError
from study.curriculum.data_curriculum import stopping_epoch
from study.store import locks
from study.store.ledger import Ledger
from study.store.records import AttemptHeader, CostInterval, EpochReport, Phase
from study.store.results import TrialResult
from study.store.soundness import (
    epochs_problem,
    event_problem,
    header_problem,
    intervals_problem,
    result_problem,
    spec_problem,
)
from study.store.specification import TrialSpec
from study.store.trial_folder import ENDINGS, EVENTS_REMEDY, TrialFolder, TrialState, one_per_epoch

_RECORDED = ("attempts", "costs.jsonl", "epochs.jsonl", "result.json")
UNFORESEEN = (
    ArithmeticError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    InvalidInputError,
    OSError,
)
"""What values of another kind may raise that were not looked for."""


def audit(ledger: Ledger) -> None:
    """Check a study before anything is started in it. Trials that somebody works on are left to that process.

    Raises:
        LedgerError: a file is damaged; which, what is wrong and what to do about it in one line.
    """
    named = _check_points(ledger)
    of_a_space = ledger.header().get("space") is not None
    with reading_many():
        for folder in _folders(ledger):
            _check_unless_busy(folder)
            if of_a_space and folder.trial_id not in named and folder.has("spec.json") and not folder.by_hand:
                raise LedgerError(
                    f"{ledger.root / 'points.jsonl'} has lost lines: none names trial {folder.trial_id}; restore it "
                    f"from a backup or, if somebody made that trial by hand, make an empty file "
                    f"{folder.path / 'by_hand'}"
                )


def audit_trial(folder: TrialFolder) -> None:
    """Check the records of one trial, which nobody else works on.

    Raises:
        LedgerError: a file is damaged.
    """
    if folder.has("spec.json"):
        _check(folder, _read(folder))
    else:
        _check_nothing_recorded(folder)


@dataclass(frozen=True, kw_only=True)
class Records:
    """All that a trial's folder holds; the fields are those of `TrialFolder`.

    Attributes:
        state: of the trial; failure: why it is failed or infeasible.
    """

    spec: TrialSpec
    state: TrialState
    failure: str | None
    result: TrialResult | None
    attempts: Sequence[AttemptHeader]
    intervals: Sequence[CostInterval]
    epochs: Sequence[EpochReport]
    events: Sequence[dict[str, Any]]


def read_trial(folder: TrialFolder) -> Records:
    """A trial as every reader sees it: its records, if they pass the audit.

    Of a trial that somebody works on, records are read while others are written: whether they fit together is left to
    that process.

    Raises:
        LedgerError: the trial is unreadable; which file is damaged, and how, in one line.
    """
    if not folder.has("spec.json"):
        _check_nothing_recorded(folder)
    records = _read(folder)
    try:
        _check(folder, records)
    except LedgerError:
        if locks.holder(folder.locks_path) is None:
            # Whoever was writing meanwhile may have ended since.
            records = _read(folder)
            _check(folder, records)
    return records


@contextmanager
def reading_many() -> Iterator[None]:
    """Without the garbage collector, which looks through all that was read again and again; no record is cyclic."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def folders(ledger: Ledger) -> list[TrialFolder]:
    """All trials, oldest first, also those that have lost their specification."""
    found = {folder: begun(folder) for folder in _folders(ledger)}
    trials = [folder for folder, since in found.items() if since is not None]
    return sorted(trials, key=lambda folder: (found[folder] or 0, folder.trial_id))


def begun(folder: TrialFolder) -> int | None:
    """When a trial was specified, in ns; 0 for one that has lost its specification, None where nothing is recorded."""
    stamp = files.stamp(f"{folder.path}/spec.json")
    if stamp is not None:
        return stamp[0]
    return 0 if any(folder.has(name) for name in _RECORDED) else None


def _read(folder: TrialFolder) -> Records:
    """The records, each sound by itself."""
    try:
        spec = folder.spec()
        if spec.trial_id != folder.trial_id:
            remedy = "delete it, and the same command writes it again"
            raise LedgerError(f"{folder.path / 'spec.json'} specifies trial {spec.trial_id}; {remedy}")
        _refuse(folder, "spec.json", spec_problem(spec))
        state, result, events = folder.state(), folder.result(), folder.events()
        # What is written first is read last, so that a running trial seldom looks as if it had lost something.
        lines, intervals, attempts = folder.epoch_lines(), folder.cost_intervals(), folder.attempts()
        _check_soundness(folder, spec, result, attempts, intervals, lines)
        _check_order(folder, lines, attempts)
        return Records(
            spec=spec,
            state=state,
            failure=folder.failure_reason() if state in ENDINGS.values() else None,
            result=result,
            attempts=attempts,
            intervals=intervals,
            epochs=one_per_epoch(lines),
            events=events,
        )
    except UNFORESEEN as error:
        raise LedgerError(f"{folder.path} cannot be read: {type(error).__name__}: {error}; {folder.remedy}") from error


def _check_soundness(
    folder: TrialFolder,
    spec: TrialSpec,
    result: TrialResult | None,
    attempts: Sequence[AttemptHeader],
    intervals: Sequence[CostInterval],
    epochs: Sequence[EpochReport],
) -> None:
    for number, header in enumerate(attempts):
        _refuse(folder, f"attempts/{number:03d}.json", header_problem(header))
    # All at a time, and one by one only where something is wrong.
    stages = len(spec.curriculum.stages)
    if intervals_problem(intervals, stages) or len({*map(_written, intervals)}) < len(intervals):
        _refuse_lines(folder, intervals, stages)
    if epochs_problem(epochs, spec):
        for report in epochs:
            problem = epochs_problem([report], spec)
            _refuse(folder, "epochs.jsonl", problem and f"epoch {report.epoch} {problem}")
    wrong = None if result is None else result_problem(result, spec)
    if wrong:
        _bad_result(folder, wrong)


def _refuse_lines(folder: TrialFolder, intervals: Sequence[CostInterval], stages: int) -> None:
    seen: set[object] = set()
    for line, interval in enumerate(intervals, start=1):
        problem = intervals_problem([interval], stages)
        _refuse(folder, "costs.jsonl", problem and f"line {line} has {problem}")
        _refuse(folder, "costs.jsonl", f"line {line} is there twice" if _written(interval) in seen else None)
        seen.add(_written(interval))


def _written(interval: CostInterval) -> tuple[object, ...]:
    return (interval.attempt, interval.phase, interval.iteration_stop, interval.started_at, interval.seconds)


def _check_order(folder: TrialFolder, lines: Sequence[EpochReport], attempts: Sequence[AttemptHeader]) -> None:
    """Whether epochs stand where they were written: only another attempt goes back."""
    there, back, last = {report.epoch for report in lines}, 0, -1
    for report in lines:
        back += report.epoch <= last
        skipped = report.epoch > last + 1 and last + 1 in there
        if skipped or back >= max(1, len(attempts)):
            _damaged(folder, "epochs.jsonl", f"epoch {report.epoch} is out of order")
        last = report.epoch


def _check_events(folder: TrialFolder, events: Sequence[dict[str, Any]], attempts: int) -> None:
    """Whether events can be of these attempts, and none begins after it has ended."""
    begun, ended = -1, set()
    for line, event in enumerate(events, start=1):
        problem, kind, attempt = event_problem(event, attempts), event["event"], event.get("attempt")
        if not problem and kind == "started" and attempt is not None:
            problem = "is out of order" if attempt < begun or str(attempt) in ended else None
            begun = attempt
        elif kind in ("interrupted", TrialState.FINISHED.value):
            ended.add(str(attempt))
        if problem:
            raise LedgerError(f"{folder.path / 'events.jsonl'} is damaged: line {line} {problem}; {EVENTS_REMEDY}")


def _check(folder: TrialFolder, records: Records) -> None:
    """Whether the records fit together."""
    spec, result, intervals = records.spec, records.result, records.intervals
    curve = _checked_epochs(folder, spec, records.epochs)
    reported = len(curve)
    _check_attempts(folder, records.attempts)
    covered = _check_costs(folder, records.attempts, intervals)
    if covered > spec.curriculum.total_iterations:
        _damaged(folder, "costs.jsonl", f"it goes to iteration {covered} of {spec.curriculum.total_iterations}")
    done = max((i.iteration_start for i in intervals if i.iteration_stop > i.iteration_start), default=0)
    _check_reported(folder, spec, reported, done // spec.iterations_per_epoch)
    if reported * spec.iterations_per_epoch > covered:
        _damaged(folder, "costs.jsonl", f"it ends at iteration {covered}, epoch {reported - 1} was trained to its end")
    if result is not None:
        stop = stopping_epoch(curve, spec.training.stop_at_dice)
        epochs = spec.training.epochs if stop is None else stop + 1
        total = epochs * spec.iterations_per_epoch
        _check_reported(folder, spec, reported, epochs)
        if result.iterations != total:
            _bad_result(folder, f"it is of {result.iterations} iterations, the trial of {total}")
        # On a device that does not repeat itself, a process that died may have come further before.
        covered = covered if stop is None else min(covered, total)
        _check_whole_bill(folder, intervals, records.events, covered=covered, total=total)
    _check_events(folder, records.events, len(records.attempts))


def check_resumable(folder: TrialFolder, *, iteration: int, epoch: int) -> None:
    """Check that the ledger knows all that a checkpoint holds, before an attempt goes on from there.

    Args:
        folder: of the trial.
        iteration: how many are trained.
        epoch: index of the one to go on with.

    Raises:
        LedgerError: costs or epochs have lost lines.
    """
    records = _read(folder)
    covered = _check_costs(folder, records.attempts, records.intervals)
    if covered < iteration:
        _damaged(folder, "costs.jsonl", f"it ends at iteration {covered}, the checkpoint at {iteration}")
    _check_reported(folder, records.spec, len(records.epochs), epoch)


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
    for name in _RECORDED:
        if folder.has(name):
            raise LedgerError(f"{folder.path / 'spec.json'} is not there and the trial has begun; {folder.remedy}")


def _check_attempts(folder: TrialFolder, attempts: Sequence[AttemptHeader]) -> None:
    numbers = [header.attempt for header in attempts]
    if numbers != list(range(len(attempts))):
        _damaged(folder, "attempts", f"they are numbered {numbers}")


def _check_costs(folder: TrialFolder, attempts: Sequence[AttemptHeader], intervals: Sequence[CostInterval]) -> int:
    """Up to which iteration the intervals cover all; each attempt's follow each other from where it began."""
    covered = 0
    by_attempt: dict[Any, list[CostInterval]] = {header.attempt: [] for header in attempts}
    last = 0
    for line, interval in enumerate(intervals, start=1):
        if interval.attempt not in by_attempt:
            path = f"attempts/{interval.attempt:03d}.json"
            raise LedgerError(f"{folder.path / path} is not there and costs.jsonl has its costs; {folder.remedy}")
        if interval.attempt < last:
            _damaged(
                folder, "costs.jsonl", f"line {line} is of attempt {interval.attempt}, after one of attempt {last}"
            )
        last = interval.attempt
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


def _checked_epochs(folder: TrialFolder, spec: TrialSpec, reports: Sequence[EpochReport]) -> Sequence[float | None]:
    """Pseudo Dice of the epochs reported, which begin at 0 and leave none out."""
    for index, report in enumerate(reports):
        if report.epoch != index:
            _damaged(folder, "epochs.jsonl", f"epoch {index} is missing")
        if report.iteration != (index + 1) * spec.iterations_per_epoch:
            _damaged(folder, "epochs.jsonl", f"epoch {index} ends at iteration {report.iteration}")
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
    told = [
        event["cost_lines"] for event in events if event["event"] == TrialState.FINISHED.value and "cost_lines" in event
    ]
    if told and told[-1] != len(intervals):
        _damaged(folder, "costs.jsonl", f"it has {len(intervals)} of {told[-1]} lines")


def _refuse(folder: TrialFolder, name: str, problem: str | None) -> None:
    if problem:
        _damaged(folder, name, problem)


def _damaged(folder: TrialFolder, name: str, what: str) -> NoReturn:
    raise LedgerError(f"{folder.path / name} is damaged: {what}; {folder.remedy}")


def _bad_result(folder: TrialFolder, what: str) -> NoReturn:
    remedy = "delete it, and the same command validates the trial again"
    raise LedgerError(f"{folder.path / 'result.json'} is damaged: {what}; {remedy}")

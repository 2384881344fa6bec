"""Whether the records of a study fit together: what a truncated, replaced or lost file would silently change.

What holds however a process dies, because each of these is on disk before the next is begun: the attempt's header, the
costs of a stretch of training, those of the epoch's validation, the epoch's report, the checkpoint that contains them.
So costs cover every iteration that any checkpoint holds, and every epoch before a checkpoint's is reported; a gap means
that a file was damaged. Records that only tell the story (`events.jsonl`, `log.txt`) are not missed.
"""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any

from study.common import files
from study.common.errors import InvalidInputError, LedgerError
from study.curriculum.data_curriculum import stopping_epoch
from study.store import locks, results
from study.store.ledger import Ledger
from study.store.records import AttemptHeader, CostInterval, EpochReport, Phase
from study.store.results import TrialResult
from study.store.specification import TrialSpec
from study.store.trial_folder import (
    ATTEMPTS,
    COSTS,
    ENDINGS,
    EPOCHS,
    EVENTS,
    IMPORTED,
    RESULT,
    SPEC,
    TrialFolder,
    TrialState,
    one_per_epoch,
)

_RECORDED = (ATTEMPTS, COSTS, EPOCHS, RESULT)
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

# What is read of a trial, in this order, and of how many trials at once.
_KINDS = ("spec", "result", "events", "epoch_lines", "cost_intervals", "attempts", "imported")
AT_ONCE = 100
Ahead = Mapping[str, tuple[Any, Exception | None]]
"""Some of that by its kind, or why it cannot be read."""
Problem = tuple[str, str]
"""A file of a trial, and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Records:
    """All that a trial's folder holds; the fields are those of `TrialFolder`.

    Attributes:
        state: of the trial; failure: why it is failed, infeasible or stopped late.
    """

    spec: TrialSpec
    state: TrialState
    failure: str | None
    result: TrialResult | None
    attempts: Sequence[AttemptHeader]
    intervals: Sequence[CostInterval]
    epochs: Sequence[EpochReport]
    events: Sequence[dict[str, Any]]


def audit(ledger: Ledger) -> None:
    """Check a study before anything is started in it. Trials that somebody works on are left to that process.

    Raises:
        LedgerError: a file is damaged; which, what is wrong and what to do about it in one line.
    """
    path, points = ledger.root / "points.jsonl", ledger.points()
    for index, point in enumerate(points):
        if point["number"] != index:
            wrong = f"line {index + 1} is point {point['number']}, not {index}"
            raise LedgerError(f"{path} is damaged: {wrong}; restore it from a backup")
    named = {trial_id for each in [*points, *ledger.confirmations()] for trial_id in each["trial_ids"]}
    of_a_space = ledger.header().get("space") is not None
    with reading_many():
        for folder in _folders(ledger):
            try:
                audit_trial(folder)
            except LedgerError:
                if locks.holder(folder.locks_path) is None:
                    # Whoever was writing while the records were read may have ended since.
                    audit_trial(folder)
            if of_a_space and folder.trial_id not in named and folder.has(SPEC) and not folder.by_hand:
                raise LedgerError(
                    f"{path} has lost lines: none names trial {folder.trial_id}; restore it from a backup or, if "
                    f"somebody made that trial by hand, make an empty file {folder.path / 'by_hand'}"
                )


def audit_trial(folder: TrialFolder) -> None:
    """Check the records of one trial, which nobody else works on.

    Raises:
        LedgerError: a file is damaged.
    """
    if folder.has(SPEC):
        _refuse(folder, _misfits(_read(folder)))
    else:
        _check_nothing_recorded(folder)


def reading_ahead(folders: Sequence[TrialFolder]) -> Iterator[tuple[TrialFolder, Ahead]]:
    """Folders, each with what `read_trial` reads of it.

    Of a hundred folders all files of one kind are read before those of the next, in the order of `_read`: what reads
    them is then at hand in the processor's caches, which saves a quarter of the time.
    """
    for first in range(0, len(folders), AT_ONCE):
        some = folders[first : first + AT_ONCE]
        found = [[_tried(folder, kind) for folder in some] for kind in _KINDS]
        yield from ((folder, dict(zip(_KINDS, one, strict=True))) for folder, *one in zip(some, *found, strict=True))


def _tried(folder: TrialFolder, kind: str) -> tuple[Any, Exception | None]:
    try:
        return getattr(folder, kind)(), None
    except (LedgerError, *UNFORESEEN) as error:
        return None, error


def read_trial(folder: TrialFolder, ahead: Ahead = MappingProxyType({})) -> Records:
    """A trial as every reader sees it: its records, if they pass the audit; see `reading_ahead`.

    Of a trial that somebody works on, records are read while others are written: whether they fit together is left to
    that process.

    Raises:
        LedgerError: the trial is unreadable; which file is damaged, and how, in one line.
    """
    try:
        records = _read(folder, ahead)
    except LedgerError:
        if not folder.has(SPEC):
            _check_nothing_recorded(folder)
        raise
    try:
        _refuse(folder, _misfits(records))
    except LedgerError:
        if locks.holder(folder.locks_path) is None:
            # Whoever was writing meanwhile may have ended since.
            records = _read(folder)
            _refuse(folder, _misfits(records))
    return records


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
    covered = _covered(records)
    late = [(COSTS, f"it ends at iteration {covered}, the checkpoint at {iteration}")] if covered < iteration else []
    _refuse(folder, chain(_gaps(records), late, _unreported(records, epoch)))


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
    stamp = files.stamp(f"{folder.path}/{SPEC}")
    if stamp is not None:
        return stamp[0]
    return 0 if any(folder.has(name) for name in _RECORDED) else None


def _folders(ledger: Ledger) -> list[TrialFolder]:
    """All folders of trials, also those that have lost their specification."""
    place = ledger.trials_folder
    if not place.is_dir():
        return []
    with os.scandir(place) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    return [TrialFolder(place / name) for name in names]


def _check_nothing_recorded(folder: TrialFolder) -> None:
    if any(folder.has(name) for name in _RECORDED):
        raise LedgerError(f"{folder.path / SPEC} is not there and the trial has begun; {folder.remedy(COSTS)}")


def _refuse(folder: TrialFolder, problems: Iterable[Problem]) -> None:
    """Raise LedgerError for the first problem."""
    for name, what in problems:
        damage = "" if what.startswith(("is not there", "specifies")) else "is damaged: "
        raise LedgerError(f"{folder.path / name} {damage}{what}; {folder.remedy(name)}")


def _read(folder: TrialFolder, ahead: Ahead = MappingProxyType({})) -> Records:
    def read(kind: str) -> Any:
        value, error = ahead[kind] if kind in ahead else _tried(folder, kind)
        if error is not None:
            raise error
        return value

    try:
        spec = read("spec")
        if spec.trial_id != folder.trial_id:
            _refuse(folder, [(SPEC, f"specifies trial {spec.trial_id}")])
        if wrong := results.spec_problem(spec):
            _refuse(folder, [(SPEC, wrong)])
        result = read("result")
        state = folder.state() if result is None else TrialState.FINISHED
        if result is None and state is TrialState.FINISHED:
            result = folder.result()
        events = read("events")
        # What is written first is read last, so that a running trial seldom looks as if it had lost something.
        lines, intervals, attempts = read("epoch_lines"), read("cost_intervals"), read("attempts")
        if (spec.imported is None) is not (read("imported") is None):
            _refuse(folder, [(IMPORTED, "is not there" if spec.imported else "is of a trial that was not imported")])
        records = Records(
            spec=spec,
            state=state,
            failure=folder.failure_reason() if state in ENDINGS.values() else None,
            result=result,
            attempts=attempts,
            intervals=intervals,
            epochs=one_per_epoch(lines),
            events=events,
        )
        _refuse(folder, _unsound(records, lines))
        return records
    except UNFORESEEN as error:
        remedy = folder.remedy(COSTS)
        raise LedgerError(f"{folder.path} cannot be read: {type(error).__name__}: {error}; {remedy}") from error


def _unsound(records: Records, lines: Sequence[EpochReport]) -> Iterator[Problem]:
    spec, result = records.spec, records.result
    stages, seen = len(spec.curriculum.stages), set[object]()
    for line, interval in enumerate(records.intervals, start=1):
        if problem := results.interval_problem(interval, stages):
            yield COSTS, f"line {line} has {problem}"
        written = (interval.attempt, interval.phase, interval.iteration_stop, interval.started_at, interval.seconds)
        if written in seen:
            yield COSTS, f"line {line} is there twice"
        seen.add(written)
    # Only another attempt goes back.
    there, back, last = {report.epoch for report in lines}, 0, -1
    for report in lines:
        if problem := results.epoch_problem(report, spec):
            yield EPOCHS, f"epoch {report.epoch} {problem}"
        back += report.epoch <= last
        if (report.epoch > last + 1 and last + 1 in there) or back >= max(1, len(records.attempts)):
            yield EPOCHS, f"epoch {report.epoch} is out of order"
        last = report.epoch
    if result is not None and (problem := results.result_problem(result, spec)):
        yield RESULT, problem


def _misfits(records: Records) -> Iterator[Problem]:
    for check in (_missing_epochs, _gaps, _ends, _unfinished, _misplaced_events):
        yield from check(records)


def _missing_epochs(records: Records) -> Iterator[Problem]:
    """Epochs begin at 0 and leave none out."""
    for index, report in enumerate(records.epochs):
        if report.epoch != index:
            yield EPOCHS, f"epoch {index} is missing"
        if report.iteration != (index + 1) * records.spec.iterations_per_epoch:
            yield EPOCHS, f"epoch {index} ends at iteration {report.iteration}"


def _gaps(records: Records) -> Iterator[Problem]:
    """Each attempt's intervals follow each other from where it began, which is covered by then."""
    numbers = [header.attempt for header in records.attempts]
    if numbers != list(range(len(numbers))):
        yield ATTEMPTS, f"they are numbered {numbers}"
    last = 0
    for line, interval in enumerate(records.intervals, start=1):
        if interval.attempt not in numbers:
            yield f"{ATTEMPTS}/{interval.attempt:03d}.json", "is not there and costs.jsonl has its costs"
        if interval.attempt < last:
            yield COSTS, f"line {line} is of attempt {interval.attempt}, after one of attempt {last}"
        last = interval.attempt
    covered, by_attempt = 0, defaultdict[int, list[CostInterval]](list)
    for interval in records.intervals:
        by_attempt[interval.attempt].append(interval)
    for header in records.attempts:
        position = header.resumed_from_iteration
        if position > covered:
            yield COSTS, f"it lacks iterations {covered} to {position}, where an attempt went on"
        for interval in by_attempt[header.attempt]:
            if interval.iteration_start != position:
                yield COSTS, f"attempt {header.attempt} has a gap at iteration {position}"
            position = interval.iteration_stop
        covered = max(covered, position)


def _covered(records: Records) -> int:
    """Up to which iteration the intervals cover all."""
    resumed = [header.resumed_from_iteration for header in records.attempts]
    return max([*resumed, *(interval.iteration_stop for interval in records.intervals)], default=0)


def _ends(records: Records) -> Iterator[Problem]:
    """Costs go as far as the epochs, and these as far as the costs."""
    covered, reported, each = _covered(records), len(records.epochs), records.spec.iterations_per_epoch
    if covered > records.spec.curriculum.total_iterations:
        yield COSTS, f"it goes to iteration {covered} of {records.spec.curriculum.total_iterations}"
    trained = [one.iteration_start for one in records.intervals if one.iteration_stop > one.iteration_start]
    yield from _unreported(records, max(trained, default=0) // each)
    if reported * each > covered:
        yield COSTS, f"it ends at iteration {covered}, epoch {reported - 1} was trained to its end"


def _unreported(records: Records, needed: int) -> Iterator[Problem]:
    reported = len(records.epochs)
    if reported < needed:
        yield EPOCHS, f"it has {reported} of the {needed} epochs trained, of {records.spec.training.epochs}"


def _unfinished(records: Records) -> Iterator[Problem]:
    """A finished trial has reported all epochs and the whole bill."""
    result, spec, covered = records.result, records.spec, _covered(records)
    if result is None:
        return
    stop = stopping_epoch([report.pseudo_dice for report in records.epochs], spec.training.stop_at_dice)
    epochs = spec.training.epochs if stop is None else stop + 1
    total = epochs * spec.iterations_per_epoch
    yield from _unreported(records, epochs)
    if result.iterations != total:
        yield RESULT, f"it is of {result.iterations} iterations, the trial of {total}"
    # On a device that does not repeat itself, a process that died may have come further before.
    if (covered if stop is None else min(covered, total)) != total:
        yield COSTS, f"it ends at iteration {covered} of {total} of a finished trial"
    validated = any(interval.phase is Phase.FINAL_VALIDATION for interval in records.intervals)
    if not validated and spec.imported is None:
        yield COSTS, "it lacks the final validation of a finished trial"
    ends = [event for event in records.events if event["event"] == TrialState.FINISHED.value and "cost_lines" in event]
    if ends and ends[-1]["cost_lines"] != len(records.intervals):
        yield COSTS, f"it has {len(records.intervals)} of {ends[-1]['cost_lines']} lines"


def _misplaced_events(records: Records) -> Iterator[Problem]:
    """Events are of these attempts, and none begins after it has ended."""
    begun, ended = -1, set()
    for line, event in enumerate(records.events, start=1):
        problem = results.event_problem(event, len(records.attempts))
        kind, attempt = event["event"], event.get("attempt")
        if problem:
            yield EVENTS, f"line {line} {problem}"
        elif kind == "started" and attempt is not None:
            if attempt < begun or attempt in ended:
                yield EVENTS, f"line {line} is out of order"
            begun = attempt
        elif kind in ("interrupted", TrialState.FINISHED.value):
            ended.add(attempt)

"""One trial's folder in a ledger: its records, its state, its lock. What lies in it, `ledger` says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from study.common import files
from study.common.errors import DISK_FULL_CODES, DiskFullError, LedgerError, LockedError, TrialBusyError
from study.common.serialize import record_to_json
from study.store import locks
from study.store.records import AttemptHeader, CostInterval, EpochReport, ImportedFrom
from study.store.results import TrialResult
from study.store.specification import TrialSpec
from study.store.stored import record_from_json, records_from_lines

# At most this many characters of a failure's reason are kept: the log has the rest.
REASON_LENGTH = 500


class TrialState(str, Enum):
    """Where a trial stands, derived from its folder; unreadable is what readers say of one that fails the audit."""

    NEW = "new"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    FINISHED = "finished"
    STOPPED = "stopped"
    UNREADABLE = "unreadable"


# Events that end a trial without a result, and the state they leave.
ENDINGS = {state.value: state for state in (TrialState.FAILED, TrialState.INFEASIBLE, TrialState.STOPPED)}
NOTE = "note"
SPEC, RESULT, COSTS, EPOCHS, EVENTS = "spec.json", "result.json", "costs.jsonl", "epochs.jsonl", "events.jsonl"
ATTEMPTS = "attempts"
IMPORTED = "imported.json"
# What can be had again.
REMEDIES = {
    SPEC: "delete it, and the same command writes it again",
    RESULT: "delete it, and the same command validates the trial again",
    IMPORTED: "restore it from a backup, or delete the trial's folder and import the run again",
    EVENTS: "delete it: it tells the trial's story and decides nothing",
}
_T = TypeVar("_T")


@dataclass(frozen=True)
class TrialFolder:
    """One trial's folder; every method reads the disk, so several processes may look at the same trial."""

    path: Path

    @property
    def trial_id(self) -> str:
        """The trial's identity, also the folder's name."""
        return self.path.name

    @property
    def results_path(self) -> Path:
        """The nnU-Net results folder (`nnUNet_results`) of this trial alone."""
        return self.path / "results"

    @property
    def locks_path(self) -> Path:
        """The lock of whoever works on the trial."""
        return self.path / "locks"

    @property
    def log_path(self) -> Path:
        """What the trial's processes printed."""
        return self.path / "log.txt"

    @property
    def by_hand(self) -> bool:
        """Whether somebody made the trial without the study's searcher."""
        return self.has("by_hand")

    def has(self, name: str) -> bool:
        """Whether there is such a record."""
        return files.is_there(f"{self.path}/{name}")

    def remedy(self, name: str) -> str:
        """What to do when a record is damaged: most of them nothing can replace."""
        anew = f"restore it from a backup, or delete {self.path} to train the trial anew"
        return REMEDIES.get(name, anew)

    def spec(self) -> TrialSpec:
        """The specification."""
        with files.damage_named(f"{self.path}/{SPEC}", self.remedy(SPEC)):
            return TrialSpec.from_file(files.read_whole(f"{self.path}/{SPEC}"))

    def state(self) -> TrialState:
        """The state now: a result means finished, a held lock running, else what the last event says."""
        if self.has(RESULT):
            return TrialState.FINISHED
        if locks.holder(self.locks_path) is not None:
            return TrialState.RUNNING
        ending = self._last_event()
        if ending is None:
            return TrialState.INTERRUPTED if self._attempt_names() else TrialState.NEW
        return ENDINGS.get(ending["event"], TrialState.INTERRUPTED)

    def result_stamp(self) -> tuple[int, int] | None:
        """Of the result, None without one."""
        return files.stamp(f"{self.path}/{RESULT}")

    def signature(self) -> tuple[object, ...]:
        """Differs from an earlier one when something has been written meanwhile, a heart-beat aside."""
        return tuple(files.stamp(f"{self.path}/{name}") for name in (EVENTS, COSTS, EPOCHS, RESULT, "locks"))

    def result(self) -> TrialResult | None:
        """The result, None before the trial finished."""
        return self._document(RESULT, TrialResult) if self.has(RESULT) else None

    def imported(self) -> ImportedFrom | None:
        """Where the trial was imported from, None if this project trained it."""
        return self._document(IMPORTED, ImportedFrom) if self.has(IMPORTED) else None

    def attempts(self) -> list[AttemptHeader]:
        """Headers of all attempts, in order."""
        return [self._document(f"{ATTEMPTS}/{name}", AttemptHeader) for name in self._attempt_names()]

    def cost_intervals(self) -> list[CostInterval]:
        """Every recorded stretch of every attempt, in order of writing."""
        return self._lines(COSTS, CostInterval)

    def epochs(self) -> list[EpochReport]:
        """One report per epoch; of an epoch trained twice, the later attempt's."""
        return one_per_epoch(self.epoch_lines())

    def epoch_lines(self) -> list[EpochReport]:
        """Every recorded epoch of every attempt, in order of writing."""
        return self._lines(EPOCHS, EpochReport)

    def events(self) -> list[dict[str, Any]]:
        """What happened when: dictionaries with `event`, `time` (seconds since the epoch), `attempt` and details."""
        return files.load_lines(f"{self.path}/{EVENTS}", _event, self.remedy(EVENTS))

    def failure_reason(self) -> str | None:
        """Why the trial is failed, infeasible or stopped late, in one line; None if it is none of these."""
        if self.state() not in ENDINGS.values():
            return None
        return str((self._last_event() or {}).get("reason", ""))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the trial's lock.

        Raises:
            TrialBusyError: another process works on the trial.
            LedgerError: its folder cannot be written.
        """
        busy, wait = f"trial {self.trial_id} is being trained by", "wait for it or stop it first"
        with holding(self.locks_path, self.note, lambda who: TrialBusyError(f"{busy} {who}; {wait}")):
            yield

    def begin_attempt(self, header: AttemptHeader) -> None:
        """Record that a process starts to work on the trial."""
        self.amend_attempt(header)
        self.append_event("started", attempt=header.attempt, iteration=header.resumed_from_iteration)

    def amend_attempt(self, header: AttemptHeader) -> None:
        """Record what is known of a begun attempt by now."""
        files.write_json(self.path / ATTEMPTS / f"{header.attempt:03d}.json", record_to_json(header))

    def append_cost(self, interval: CostInterval) -> None:
        """Record one stretch of work, durably."""
        self._append(COSTS, record_to_json(interval))

    def append_epoch(self, report: EpochReport) -> None:
        """Record the end of an epoch, durably."""
        self._append(EPOCHS, record_to_json(report))

    def append_event(self, event: str, **details: Any) -> None:
        """Record an event, durably."""
        self._append(EVENTS, {"event": event, "time": time.time(), **details})

    def note(self, text: str) -> None:
        """Record something worth knowing that changes no state."""
        self.append_event(NOTE, text=text)

    def fail(self, *, reason: str, attempt: int | None = None, state: TrialState = TrialState.FAILED) -> None:
        """Record that the training broke, or with `TrialState.INFEASIBLE` that it is not possible as specified.

        Args:
            reason: in words; one line of it is kept.
            attempt: that broke, None when none had begun.
            state: failed or infeasible.
        """
        self.append_event(state.value, attempt=attempt, reason=" ".join(reason.split())[:REASON_LENGTH])

    def finish(self, result: TrialResult, *, attempt: int) -> None:
        """Store the result; the trial is finished from here on."""
        locks.check_held(self.locks_path)
        files.write_json(self.path / RESULT, record_to_json(result))
        # So that a bill that loses lines later does not pass for a smaller one.
        lines = len(files.whole_lines(self.path / COSTS))
        self.append_event(TrialState.FINISHED.value, attempt=attempt, cost_lines=lines)

    def complete(self, result: TrialResult) -> None:
        """Store the result of a finished trial anew, with what it lacked."""
        files.write_json(self.path / RESULT, record_to_json(result))

    def sweep(self) -> None:
        """Delete what killed processes had not finished writing; only who holds the trial's lock does."""
        files.sweep(self.path)

    def _document(self, name: str, cls: type[_T]) -> _T:
        with files.damage_named(f"{self.path}/{name}", self.remedy(name)):
            return record_from_json(cls, files.read_whole(f"{self.path}/{name}"))

    def _lines(self, name: str, cls: type[_T]) -> list[_T]:
        with files.damage_named(f"{self.path}/{name}", self.remedy(name)):
            return records_from_lines(cls, files.whole_lines(f"{self.path}/{name}"))

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        check = partial(locks.check_held, self.locks_path)
        files.append_record(self.path / name, record, self.remedy(name), check)

    def _attempt_names(self) -> list[str]:
        try:
            names = os.listdir(f"{self.path}/{ATTEMPTS}")  # noqa: PTH208 (thousands of trials are listed at a time)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = (name for name in names if name.endswith(".json") and not files.is_temporary(name))
        return sorted(found, key=lambda name: (len(name), name))

    def _last_event(self) -> dict[str, Any] | None:
        return next((event for event in reversed(self.events()) if event["event"] != NOTE), None)


def one_per_epoch(lines: Sequence[EpochReport]) -> list[EpochReport]:
    """The last report of each epoch, in order."""
    return sorted({report.epoch: report for report in lines}.values(), key=lambda report: report.epoch)


def _event(record: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(record["event"], str) or not isinstance(record["time"], float | int):
        raise TypeError("an event has a name and a time")
    return record


@contextmanager
def holding(lock: Path, on_takeover: Callable[[str], None], busy: Callable[[str], LedgerError]) -> Iterator[None]:
    """Hold a lock of a ledger.

    Args:
        lock: its folder.
        on_takeover: told, in one line, whose stale lock this one replaces.
        busy: the error for one that somebody else holds, given who.

    Raises:
        DiskFullError: there is no room for it.
        LedgerError: what `busy` makes, or its folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            hold = stack.enter_context(locks.held(lock, on_takeover=on_takeover))
            if hold.may_be_contested:
                for path in lock.parent.glob("*.jsonl"):
                    files.renew(path)
        except LockedError as error:
            raise busy(str(error)) from error
        except OSError as error:
            if error.errno in DISK_FULL_CODES:
                raise DiskFullError(str(lock.parent)) from error
            raise LedgerError(f"cannot write to {lock.parent}: {error.strerror}") from error
        yield

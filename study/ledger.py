"""The ledger: one folder per trial, append-only records. The only truth about what ran and what it cost.

    STUDY/
      study.json                 schema, creation, the space that the study belongs to (none for hand-made trials)
      locks/                     who runs the study, see `locks`
      points.jsonl               which point of the search space became which trials
      trials/ID/
        spec.json                the TrialSpec
        by_hand                  there when no point of the study's space became this trial
        attempts/000.json        one AttemptHeader per process that worked on the trial
        costs.jsonl              CostInterval records
        epochs.jsonl             EpochReport records
        events.jsonl             started, interrupted, failed, infeasible, finished, note
        result.json              the TrialResult; its presence means finished
        locks/                   who works on the trial
        log.txt                  what nnU-Net and our process printed
        results/                 nnU-Net results folder with the model

Sums are taken when read, so nothing is counted twice: an iteration that a crash made the next attempt train again is a
cost of the attempt that lost it, and shown as waste. What cannot be read is an error with a remedy; whether what can be
read fits together is for `audit` to say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from study import files, locks, point_records, same_study
from study.errors import DiskFullError, LedgerError, LockedError, TrialBusyError
from study.holders import Holder
from study.plain import record_to_json
from study.records import (
    AttemptHeader,
    CostInterval,
    EpochReport,
    TrialSpec,
)
from study.results import TrialResult

SCHEMA_VERSION = 1
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
    UNREADABLE = "unreadable"


# Events that end a trial without a result, and the state they leave.
ENDINGS = {state.value: state for state in (TrialState.FAILED, TrialState.INFEASIBLE)}
NOTE = "note"


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
        return (self.path / "by_hand").exists()

    def spec(self) -> TrialSpec:
        """The specification."""
        remedy = "delete it, and the same command writes it again"
        return files.load_document(self.path / "spec.json", TrialSpec.from_json, remedy)

    def state(self) -> TrialState:
        """The state now: a result means finished, a held lock running, else what the last event says."""
        if (self.path / "result.json").exists():
            return TrialState.FINISHED
        if locks.holder(self.locks_path) is not None:
            return TrialState.RUNNING
        ending = self._last_event()
        if ending is None:
            return TrialState.INTERRUPTED if self._attempt_paths() else TrialState.NEW
        return ENDINGS.get(ending["event"], TrialState.INTERRUPTED)

    def result_stamp(self) -> tuple[int, int] | None:
        """Of the result, None without one."""
        return files.stamp(self.path / "result.json")

    def signature(self) -> tuple[object, ...]:
        """Differs from an earlier one when something has been written meanwhile, a heart-beat aside."""
        return tuple(files.stamp(self.path / name) for name in ("events.jsonl", "costs.jsonl", "result.json", "locks"))

    def result(self) -> TrialResult | None:
        """The result, None before the trial finished."""
        path, remedy = self.path / "result.json", "delete it, and the same command validates the trial again"
        return files.load_document(path, TrialResult.from_json, remedy) if path.exists() else None

    def attempts(self) -> list[AttemptHeader]:
        """Headers of all attempts, in order."""
        paths, remedy = self._attempt_paths(), self.remedy
        return [files.load_document(path, AttemptHeader.from_json, remedy) for path in paths]

    def cost_intervals(self) -> list[CostInterval]:
        """Every recorded stretch of every attempt, in order of writing."""
        return files.load_lines(self.path / "costs.jsonl", CostInterval.from_json, self.remedy)

    def epochs(self) -> list[EpochReport]:
        """One report per epoch; of an epoch trained twice, the later attempt's."""
        reports = files.load_lines(self.path / "epochs.jsonl", EpochReport.from_json, self.remedy)
        return sorted({report.epoch: report for report in reports}.values(), key=lambda report: report.epoch)

    def events(self) -> list[dict[str, Any]]:
        """What happened when: dictionaries with `event`, `time` (seconds since the epoch), `attempt` and details."""
        remedy = "delete it: it tells the trial's story and decides nothing"
        return files.load_lines(self.path / "events.jsonl", _event, remedy)

    def failure_reason(self) -> str | None:
        """Why the trial is failed or infeasible, in one line; None if it is neither."""
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
        with _locked(self.locks_path, self.note, lambda who: TrialBusyError(f"{busy} {who}; {wait}")):
            yield

    def begin_attempt(self, header: AttemptHeader) -> None:
        """Record that a process starts to work on the trial."""
        self.amend_attempt(header)
        self.append_event("started", attempt=header.attempt, iteration=header.resumed_from_iteration)

    def amend_attempt(self, header: AttemptHeader) -> None:
        """Record what is known of a begun attempt by now."""
        files.write_json(self._attempt_path(header.attempt), record_to_json(header))

    def append_cost(self, interval: CostInterval) -> None:
        """Record one stretch of work, durably."""
        self._append("costs.jsonl", record_to_json(interval))

    def append_epoch(self, report: EpochReport) -> None:
        """Record the end of an epoch, durably."""
        self._append("epochs.jsonl", record_to_json(report))

    def append_event(self, event: str, **details: Any) -> None:
        """Record an event, durably."""
        self._append("events.jsonl", {"event": event, "time": time.time(), **details})

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
        files.write_json(self.path / "result.json", record_to_json(result))
        # So that a bill that loses lines later does not pass for a smaller one.
        lines = sum(1 for _ in files.read_lines(self.path / "costs.jsonl"))
        self.append_event(TrialState.FINISHED.value, attempt=attempt, cost_lines=lines)

    def complete(self, result: TrialResult) -> None:
        """Store the result of a finished trial anew, with what it lacked."""
        files.write_json(self.path / "result.json", record_to_json(result))

    def sweep(self) -> None:
        """Delete what killed processes had not finished writing; only who holds the trial's lock does."""
        files.sweep(self.path)

    @property
    def remedy(self) -> str:
        """What to do when a record that nothing can replace is damaged."""
        return f"restore it from a backup, or delete {self.path} to train the trial anew"

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        files.append_record(self.path / name, record, self.remedy, lambda: locks.check_held(self.locks_path))

    def _attempt_path(self, attempt: int) -> Path:
        return self.path / "attempts" / f"{attempt:03d}.json"

    def _attempt_paths(self) -> list[Path]:
        found = (path for path in (self.path / "attempts").glob("*.json") if not files.is_temporary(path.name))
        return sorted(found, key=lambda path: (len(path.name), path.name))

    def _last_event(self) -> dict[str, Any] | None:
        return next((event for event in reversed(self.events()) if event["event"] != NOTE), None)


@dataclass(frozen=True)
class Ledger:
    """A study folder. Use `create` to write to one and `open` to read one."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Ledger:
        """A study folder that exists.

        Raises:
            LedgerError: the folder is absent, no study, or written by a newer version.
        """
        if not root.is_dir():
            raise LedgerError(f"no study at {root}: the folder does not exist")
        if not (root / "study.json").exists():
            raise LedgerError(f"{root} is not a study folder (no study.json in it)")
        ledger = cls(root)
        schema = ledger.header().get("schema")
        if schema != SCHEMA_VERSION:
            raise LedgerError(
                f"{root} has ledger schema {schema}, this version reads {SCHEMA_VERSION}; update pgps-study"
            )
        return ledger

    @classmethod
    def create(cls, root: Path, *, space: Mapping[str, Any] | None = None) -> Ledger:
        """The study folder at `root`, made if absent.

        Args:
            root: an absent or empty folder, or the folder of the same study.
            space: identity of the search space; None (a hand-made trial) fits every study folder.

        Raises:
            LedgerError: the folder holds something else, another study, or cannot be written.
        """
        if (root / "study.json").exists():
            ledger = cls.open(root)
            ledger._check_same_space(space)
            return ledger
        try:
            root.mkdir(parents=True, exist_ok=True)
            if not all(files.is_temporary(path.name) for path in root.iterdir()):
                raise LedgerError(f"{root} holds other files and no study.json; name an empty or new folder")
            header = {"schema": SCHEMA_VERSION, "created_at": time.time(), "space": space}
            files.write_json(root / "study.json", header)
        except OSError as error:
            raise LedgerError(f"cannot write to {root}: {error.strerror}; name a folder you may write to") from error
        return cls(root)

    @contextmanager
    def locked(self, on_takeover: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Hold the study's lock: who runs the study as a whole does. Trials have their own.

        Args:
            on_takeover: told, in one line, whose stale lock this one replaces.

        Raises:
            LedgerError: another process runs the study, or its folder cannot be written.
        """
        lock = self.root / "locks"
        with _locked(
            lock,
            on_takeover,
            lambda who: LedgerError(f"{self.root} is being run by {who}; stop that one first, or name another --out"),
        ):
            for folder in (self.root, lock):
                files.sweep(folder, below=False)
            yield

    def runner(self) -> Holder | None:
        """Who runs the study now, as far as can be seen from here."""
        return locks.holder(self.root / "locks")

    def header(self) -> dict[str, Any]:
        """Content of study.json."""
        try:
            header = files.read_json(self.root / "study.json")
        except (OSError, ValueError) as error:
            path = self.root / "study.json"
            raise LedgerError(f"{path} is not readable JSON: {error}; restore it from a backup") from error
        if not isinstance(header, dict) or not isinstance(header.get("space"), dict | None):
            raise LedgerError(f"{self.root / 'study.json'} is not a study header; restore it from a backup")
        return header

    def amend(self, **fields: Any) -> None:
        """Add fields to study.json; only who runs the study does."""
        files.write_json(self.root / "study.json", {**self.header(), **fields})

    def trials(self) -> list[TrialFolder]:
        """All trials, oldest specification first."""
        found = (self.root / "trials").glob("*/spec.json")
        return [TrialFolder(path.parent) for path in sorted(found, key=lambda p: (p.stat().st_mtime_ns, str(p)))]

    def look(self) -> None:
        """Look at all trials at once: whether a process elsewhere still works on one takes seconds to see."""
        locks.look(trial.locks_path for trial in self.trials() if not (trial.path / "result.json").exists())

    def trial(self, trial_id: str) -> TrialFolder:
        """The folder of a trial by identity, whether it exists or not."""
        return TrialFolder(self.root / "trials" / trial_id)

    def add(self, spec: TrialSpec, *, by_hand: bool = False) -> TrialFolder:
        """The folder of a trial, made with its specification if it is new.

        Args:
            spec: what to train.
            by_hand: it is not one that the study's searcher proposed.

        Raises:
            LedgerError: the folder cannot be written, or holds another specification.
        """
        folder = self.trial(spec.trial_id)
        path = folder.path / "spec.json"
        try:
            if not path.exists():
                if by_hand:
                    files.write_atomically(folder.path / "by_hand", lambda handle: handle.write(b""))
                files.write_json(path, spec.to_json())
            elif (stored := folder.spec().trial_id) != spec.trial_id:
                raise LedgerError(f"{path} specifies trial {stored}; delete it, and the same command writes it again")
        except OSError as error:
            raise LedgerError(f"cannot write to {folder.path}: {error.strerror}") from error
        return folder

    def add_point(self, number: int, point: Mapping[str, Any], trial_ids: Sequence[str]) -> None:
        """Record which trials a point of the search space became; only who runs the study does.

        Args:
            number: position in the order of proposals, from 0; each is recorded once.
            point: name -> value of the searched settings.
            trial_ids: one for each fold and seed.
        """
        self._append_point({"number": number, "point": dict(point), "trial_ids": list(trial_ids)})

    def extend_point(self, number: int, trial_ids: Sequence[str]) -> None:
        """Record that a point stands for more trials than before: folds or seeds were added to the study."""
        self._append_point({"extends": number, "trial_ids": list(trial_ids)})

    def _append_point(self, record: Mapping[str, Any]) -> None:
        lock = self.root / "locks"
        files.append_record(self.root / "points.jsonl", record, point_records.REMEDY, lambda: locks.check_held(lock))

    def points(self) -> list[dict[str, Any]]:
        """Points proposed so far, in order: `number`, `point` (name -> value) and all of their `trial_ids`."""
        return point_records.read(self.root / "points.jsonl")

    def adopt(self, space: Mapping[str, Any]) -> None:
        """Take on the folds and seeds that were added to the space, and what its defaults came to."""
        stored = self.header().get("space")
        wanted = same_study.extended(stored, space)
        if stored != wanted:
            self.amend(space=wanted)

    def _check_same_space(self, space: Mapping[str, Any] | None) -> None:
        header = self.header()
        stored = header.get("space")
        if space is None:
            return
        if stored is None:
            raise LedgerError(f"{self.root} holds hand-made trials, not this study; name another --out")
        changed = same_study.differences(stored, same_study.recorded_defaults(header), space)
        if changed:
            raise LedgerError(
                f"{self.root} belongs to another study: {', '.join(changed)} differ; "
                "name another --out, or undo the change to continue this one (folds and seeds can be added)"
            )


def _event(record: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(record["event"], str) or not isinstance(record["time"], float | int):
        raise TypeError("an event has a name and a time")
    return record


@contextmanager
def _locked(lock: Path, on_takeover: Callable[[str], None], busy: Callable[[str], LedgerError]) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            hold = stack.enter_context(locks.held(lock, on_takeover=on_takeover))
            if hold.may_be_contested:
                for path in lock.parent.glob("*.jsonl"):
                    files.renew(path)
        except LockedError as error:
            raise busy(str(error)) from error
        except OSError as error:
            if error.errno in files.DISK_FULL_CODES:
                raise DiskFullError(str(lock.parent)) from error
            raise LedgerError(f"cannot write to {lock.parent}: {error.strerror}") from error
        yield

"""The ledger: one folder per trial, append-only records. The only truth about what ran and what it cost.

    STUDY/
      study.json                 schema, creation, the space that the study belongs to (none for hand-made trials)
      locks/                     who runs the study, see `locks`
      points.jsonl               which point of the search space became which trials
      confirmation.json          what `confirm` came to, made anew from the rest
      trials/ID/
        spec.json                the TrialSpec
        imported.json            ImportedFrom, of a training of stock nnU-Net's
        by_hand                  there when no point of the study's space became this trial
        attempts/000.json        one AttemptHeader per process that worked on the trial
        costs.jsonl              CostInterval records
        epochs.jsonl             EpochReport records
        events.jsonl             started, interrupted, failed, infeasible, stopped, finished, rung, note
        result.json              the TrialResult; its presence means finished
        locks/                   who works on the trial
        log.txt                  what nnU-Net and our process printed
        results/                 nnU-Net results folder with the model

Sums are taken when read, so nothing is counted twice: an iteration that a crash made the next attempt train again is a
cost of the attempt that lost it, and shown as waste. What cannot be read is an error with a remedy; whether what can be
read fits together is for `audit` to say.

When two search spaces are one study: all but what may be added to it, and whatever words name the same data.

The records of a study's points: one line a point, a line for each to which folds or seeds were added later, and one for
each training of a point that confirms it: those are no part of what the search knows.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from study.common import files
from study.common.errors import LedgerError, check_name
from study.common.serialize import record_to_json
from study.store import locks
from study.store.holders import Holder
from study.store.records import Confirmation
from study.store.specification import TrialSpec
from study.store.stored import check_kinds, record_from_json
from study.store.trial_folder import TrialFolder, holding

# Keys of a space's identity that may grow, and the one that holds what its defaults came to.
EXTENSIBLE, RESOLVED = ("folds", "seeds"), "resolved"
# Of a line of points.jsonl: the number of the point that a training confirms.
CONFIRMS, CONFIRMATION = "confirms", "confirmation.json"


class _Space(TypedDict, total=False):
    """What is read of a space, of what `SearchSpace.identity` has."""

    searcher: str
    stopping: str
    objectives: list[str]
    folds: list[int]
    seeds: list[int]
    resolved: dict[str, str | list[str]]


class _Header(TypedDict, total=False):
    space: _Space | None
    provenance: dict[str, dict[str, Any]] | None
    trackers: dict[str, str] | None


def differences(stored: Mapping[str, Any], defaults: Mapping[str, Any], space: Mapping[str, Any]) -> list[str]:
    """Keys by which a space is another study than the one stored.

    Args:
        stored: as study.json has it.
        defaults: what its defaults came to, see `recorded_defaults`.
        space: identity of a search space.
    """
    given = as_stored(space)
    passed_over = {RESOLVED}
    if defaults and defaults == given.get(RESOLVED):
        # The same data by an id or by its name, with its plans named or left to the default.
        passed_over |= {"dataset", "plans"}
    passed_over |= {name for name in EXTENSIBLE if set(stored.get(name, ())) <= set(given.get(name, ()))}
    return sorted(key for key in {*stored, *given} - passed_over if stored.get(key) != given.get(key))


def recorded_defaults(header: Mapping[str, Any]) -> dict[str, Any]:
    """Full dataset name -> plans of a study that has a header, a list if they are an axis; empty if it has not said."""
    space = header.get("space") or {}
    if RESOLVED in space:
        return dict(space[RESOLVED])
    # Studies from before they were recorded name dataset, plans and configuration in their provenance.
    named = (header.get("provenance") or {}).get("data", {})
    return {name.split("/")[0]: name.split("/")[1] for name in named}


def extended(stored: Mapping[str, Any] | None, space: Mapping[str, Any]) -> dict[str, Any]:
    """What study.json is to have: the stored space with the folds and seeds added, and what defaults came to."""
    given = as_stored(space)
    return {**(stored or given), **{name: given[name] for name in (*EXTENSIBLE, RESOLVED) if name in given}}


def as_stored(space: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data as it reads back: tuples are lists."""
    return dict(json.loads(json.dumps(space)))


REMEDY = "restore it from a backup: it says what the searcher proposed"


def read(path: Path) -> list[dict[str, Any]]:
    """Points in order: `number`, `point` (name -> value) and all of their `trial_ids`.

    Raises:
        LedgerError: a line is damaged, or one that another extends is missing.
    """
    points: list[dict[str, Any]] = []
    for record in files.load_lines(path, _checked, REMEDY):
        if CONFIRMS in record:
            continue
        if "point" in record:
            points.append({"number": len(points), **record})
        elif record["extends"] < len(points):
            points[record["extends"]]["trial_ids"] = record["trial_ids"]
        else:
            raise LedgerError(f"{path} has lost lines: point {len(points)} is missing; {REMEDY}")
    return points


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    if CONFIRMS in record:
        is_sound = all(isinstance(record[name], int) for name in (CONFIRMS, "fold", "seed"))
    else:
        is_sound = isinstance(record["extends"], int) if "extends" in record else isinstance(record["point"], dict)
    if not is_sound or not all(isinstance(name, str) for name in record["trial_ids"]):
        raise TypeError("a point has settings and trials")
    for trial_id in record["trial_ids"]:
        check_name("trial_ids", trial_id)
    return record


SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Ledger:
    """A study folder. Use `create` to write to one and `open` to read one."""

    root: Path

    @property
    def url(self) -> str | None:
        """Where it is in object storage, None for a folder."""
        return None

    def refresh(self, *, at_once: bool = False) -> None:
        """Show what is in object storage by now, if it is there, even if that was asked for a moment ago."""

    def named(self, text: str, trial_id: str) -> str:
        """A text about a trial with names that stay valid."""
        return text

    def post_stop(self, stop_file: Path) -> None:
        """Tell trainings that do not see the stop file that the study is being stopped."""

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
            check_same_space(ledger.header(), space, ledger.root)
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
        with holding(
            lock,
            on_takeover,
            lambda who: LedgerError(f"{self.root} is being run by {who}; stop that one first, or name another study"),
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
            header: dict[str, Any] = files.read_json(self.root / "study.json")
            check_kinds(_Header, header)
        except (OSError, ValueError) as error:
            path = self.root / "study.json"
            raise LedgerError(f"{path} is no study's header: {error}; restore it from a backup") from error
        return header

    def amend(self, **fields: Any) -> None:
        """Add fields to study.json; only who runs the study does."""
        files.write_json(self.root / "study.json", {**self.header(), **fields})

    def trials(self) -> list[TrialFolder]:
        """All trials, oldest specification first."""
        found = self.trials_folder.glob("*/spec.json")
        return [TrialFolder(path.parent) for path in sorted(found, key=lambda p: (p.stat().st_mtime_ns, str(p)))]

    @property
    def trials_folder(self) -> Path:
        """Where they are, which may not be there yet.

        Raises:
            LedgerError: something else is there: what was trained is not taken for nothing.
        """
        place = self.root / "trials"
        if os.path.lexists(place) and not place.is_dir():
            raise LedgerError(f"{place} is no folder, or a link to one that is not there; mount or restore it")
        return place

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
                    files.write_bytes(folder.path / "by_hand", b"")
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
        files.append_record(self.root / "points.jsonl", record, REMEDY, lambda: locks.check_held(lock))

    def points(self) -> list[dict[str, Any]]:
        """Points proposed so far, in order: `number`, `point` (name -> value) and all of their `trial_ids`."""
        return read(self.root / "points.jsonl")

    def add_confirmation(self, number: int, fold: int, seed: int, trial_id: str) -> None:
        """Record that a point is trained once more to confirm it; see `add_point`."""
        self._append_point({CONFIRMS: number, "fold": fold, "seed": seed, "trial_ids": [trial_id]})

    def confirmations(self) -> list[dict[str, Any]]:
        """Trainings that confirm points, in order: `confirms` (a point's number), `fold`, `seed`, `trial_ids`."""
        return [r for r in files.load_lines(self.root / "points.jsonl", _checked, REMEDY) if CONFIRMS in r]

    def conclude(self, confirmation: Confirmation) -> None:
        """Store what confirming came to so far; only who runs the study does."""
        files.write_json(self.root / CONFIRMATION, record_to_json(confirmation))

    def confirmation(self) -> Confirmation | None:
        """What confirming came to, None where nobody did; it may be deleted, and `confirm` makes it anew."""
        path = self.root / CONFIRMATION
        if not path.exists():
            return None
        with files.damage_named(path, "delete it, and `confirm` writes it again"):
            return record_from_json(Confirmation, files.read_whole(path))

    def adopt(self, space: Mapping[str, Any]) -> None:
        """Take on the folds and seeds that were added to the space, and what its defaults came to."""
        stored = self.header().get("space")
        wanted = extended(stored, space)
        if stored != wanted:
            self.amend(space=wanted)


def check_same_space(header: Mapping[str, Any], space: Mapping[str, Any] | None, where: Path | str) -> None:
    """Raise LedgerError where a study, by its header, is not that of a space; None is of every study."""
    stored = header.get("space")
    if space is None:
        return
    if stored is None:
        raise LedgerError(f"{where} holds hand-made trials, not this study; name another --out")
    changed = differences(stored, recorded_defaults(header), space)
    if changed:
        raise LedgerError(
            f"{where} belongs to another study: {', '.join(changed)} differ; "
            "name another --out, or undo the change to continue this one (folds and seeds can be added)"
        )

"""An Optuna storage that shows a study as it goes on, for optuna-dashboard to look at.

The mirror is written and never asked: what is in it follows from the ledger. Whatever an earlier driver left there is
put right when it is opened. A storage that fails while the study runs stops the mirror alone, until it answers again.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from study.common.errors import LedgerError, MachineError, StudyError
from study.search.proposers import KnownPoint, Proposal, known_points
from study.search.space import SearchSpace
from study.search.tpe import Verdict, directions, distributions, silence_optuna, verdict
from study.store.ledger import Ledger
from study.store.outcomes import Outcome
from study.store.trial_folder import TrialFolder, TrialState

# Shown of lists, which optimise nothing: what every training has.
OBJECTIVES_OF_LISTS = ("dice", "runtime_seconds")
# How long a storage may be in somebody else's hands.
LOCK_SECONDS = 10.0
# How long a storage that failed is left alone, because Tune waits meanwhile.
PAUSE_SECONDS = 60.0
LOST = "its driver ended before it did"
SETTLED = (TrialState.FINISHED, TrialState.INFEASIBLE, TrialState.FAILED)

NUMBER, TRIAL_IDS, REASON, STUDY = "point number", "trial ids", "reason", "study"


class Mirror:
    """Shows proposals and what they came to as trials of an Optuna study.

    A proposal that is made again becomes another trial of the same point number, because a trial that has ended stays
    what it is.

    Args:
        storage: where the study is; study_id: its number there.
        space: what is searched.

    Attributes:
        trouble: why the mirror is behind, in one line; None when it is not.
    """

    def __init__(self, storage: BaseStorage, study_id: int, space: SearchSpace, ledger: Ledger) -> None:
        self.trouble: str | None = None
        self._ledger = ledger
        self._storage = storage
        self._study_id = study_id
        self._objectives = shown(space)
        self._distributions = distributions(space)
        self._trial_ids: dict[int, int] = {}
        self._waiting: deque[Callable[[], None]] = deque()
        self._retry_at = 0.0

    def proposed(self, proposal: Proposal) -> None:
        """Show a point that is being trained."""
        self._later(lambda: self._open(proposal))

    def told(self, number: int, outcome: Outcome) -> None:
        """Show what a point came to."""
        self._later(lambda: self._close(number, verdict(outcome, self._objectives)))

    def reconcile(self, known: Sequence[KnownPoint]) -> None:
        """Make the storage show what the ledger knows, whatever it shows now.

        Args:
            known: the ledger's points.
        """
        by_number = {one.proposal.number: one for one in known}
        shown_as: dict[int, set[OptunaState]] = {}
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            number = trial.user_attrs.get(NUMBER, -1)
            state = trial.state
            if not state.is_finished():
                state = self._end(trial._trial_id, self._ending(by_number.get(number)))
            shown_as.setdefault(number, set()).add(state)
        for number, one in by_number.items():
            ending = self._ending(one)
            if one.outcome.state in SETTLED and ending.state not in shown_as.get(number, ()):
                self._show(one.proposal, ending)

    def _ending(self, known: KnownPoint | None) -> Verdict:
        if known is None or known.outcome.state not in SETTLED:
            return Verdict(state=OptunaState.FAIL, reason=LOST)
        return verdict(known.outcome, self._objectives)

    def _open(self, proposal: Proposal) -> None:
        trial: FrozenTrial = optuna.trial.create_trial(
            state=OptunaState.RUNNING,
            params=proposal.point,
            distributions=self._distributions,
            user_attrs={NUMBER: proposal.number, TRIAL_IDS: list(proposal.trial_ids)},
        )
        self._trial_ids[proposal.number] = self._storage.create_new_trial(self._study_id, template_trial=trial)

    def _show(self, proposal: Proposal, ending: Verdict) -> None:
        """A point that has ended before, with its own times and curve."""
        folders = self._folders(proposal.trial_ids)
        attributes: dict[str, Any] = {NUMBER: proposal.number, TRIAL_IDS: list(proposal.trial_ids)}
        trial: FrozenTrial = optuna.trial.create_trial(
            state=ending.state,
            values=ending.values,
            params=proposal.point,
            distributions=self._distributions,
            user_attrs=attributes | ({} if ending.reason is None else {REASON: ending.reason}),
            intermediate_values=curve(folders),
        )
        times = [event["time"] for folder in folders for event in folder.events()]
        if times:
            trial.datetime_start, trial.datetime_complete = (
                datetime.fromtimestamp(t) for t in (min(times), max(times))
            )
        self._storage.create_new_trial(self._study_id, template_trial=trial)

    def _close(self, number: int, ending: Verdict) -> None:
        trial_id = self._trial_ids[number]
        names = self._storage.get_trial(trial_id).user_attrs.get(TRIAL_IDS, ())
        with suppress(UpdateFinishedTrialError):
            for epoch, dice in curve(self._folders(names)).items():
                self._storage.set_trial_intermediate_value(trial_id, epoch, dice)
        self._end(trial_id, ending)
        del self._trial_ids[number]

    def _folders(self, trial_ids: Sequence[str]) -> list[TrialFolder]:
        return [self._ledger.trial(trial_id) for trial_id in trial_ids]

    def _end(self, trial_id: int, ending: Verdict) -> OptunaState:
        with suppress(UpdateFinishedTrialError):  # somebody ended it by hand
            if ending.reason is not None:
                self._storage.set_trial_user_attr(trial_id, REASON, ending.reason)
            self._storage.set_trial_state_values(trial_id, ending.state, ending.values)
        return ending.state

    def _later(self, write: Callable[[], Any]) -> None:
        """Write after what still waits to be written; what fails is tried again after a pause."""
        self._waiting.append(write)
        if time.monotonic() < self._retry_at:
            return
        try:
            while self._waiting:
                self._waiting[0]()
                self._waiting.popleft()
            self.trouble = None
        except Exception as error:  # whatever a storage raises, no training may end for it
            self.trouble = f"the Optuna storage does not answer ({_reason(error)})"
            self._retry_at = time.monotonic() + PAUSE_SECONDS


def curve(folders: Sequence[TrialFolder]) -> dict[int, float]:
    """Pseudo Dice by epoch, counted from one: the mean of the trials that were evaluated then."""
    values: dict[int, list[float]] = {}
    for folder in folders:
        for report in folder.epochs():
            if report.pseudo_dice is not None:
                values.setdefault(report.epoch + 1, []).append(report.pseudo_dice)
    return {epoch: fmean(found) for epoch, found in sorted(values.items())}


def shown(space: SearchSpace) -> tuple[str, ...]:
    """Objectives of a space's Optuna study."""
    return space.objectives or OBJECTIVES_OF_LISTS


def open_mirror(url: str, space: SearchSpace, ledger: Ledger) -> Mirror:
    """The mirror of a study, made if absent, put right if a driver was killed. Only who holds the study's lock may.

    Args:
        url: of a relational database (`sqlite:///study.db`), or the path of a journal file.
        space: of the study, whose name the Optuna study has.
        ledger: of the study.

    Raises:
        StudyError: the storage is locked, unreachable or unreadable, or holds another study of that name.
    """
    silence_optuna()
    known = known_points(space, ledger)
    with _told_clearly(url):
        storage = _storage(url)
        mirror = Mirror(storage, _study(storage, url, space, ledger), space, ledger)
        mirror.reconcile(known)
    return mirror


def _storage(url: str) -> BaseStorage:
    if "://" not in url:
        return JournalStorage(_journal(Path(url).resolve()))
    arguments = {"connect_args": {"timeout": LOCK_SECONDS}} if url.startswith("sqlite") else {}
    return RDBStorage(url, engine_kwargs=arguments)


def _journal(path: Path) -> JournalFileBackend:
    lock = JournalFileSymlinkLock(str(path), grace_period=math.ceil(LOCK_SECONDS))
    backend = JournalFileBackend(str(path), lock_obj=lock)
    lock.acquire()
    try:
        # What a killed driver had written of a line would spoil the next one.
        whole = path.read_bytes().rpartition(b"\n")
        if whole[2]:
            os.truncate(path, len(whole[0]) + len(whole[1]))
    finally:
        lock.release()
    return backend


def _study(storage: BaseStorage, url: str, space: SearchSpace, ledger: Ledger) -> int:
    objectives = shown(space)
    study = optuna.create_study(
        storage=storage, study_name=space.name, directions=directions(objectives), load_if_exists=True
    )
    whose = ledger.header()["created_at"]
    if STUDY not in study.user_attrs and not study.get_trials(deepcopy=False):
        study.set_metric_names(list(objectives))
        study.set_user_attr(STUDY, whose)
    if study.user_attrs.get(STUDY) != whose:
        raise LedgerError(
            f"the Optuna storage {_without_password(url)} holds another study named {space.name!r}; name another one"
        )
    return storage.get_study_id_from_name(space.name)


@contextmanager
def _told_clearly(url: str) -> Iterator[None]:
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        raise MachineError(
            f"the Optuna storage {_without_password(url)} cannot be used ({_reason(error)}); "
            "name another one, or leave it out: it only shows the study"
        ) from error


def _reason(error: BaseException) -> str:
    """The innermost error in one line: those around it are SQLAlchemy's and Optuna's."""
    cause = error.__cause__ or getattr(error, "orig", None)
    if cause is not None:
        return _reason(cause)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True) if "://" in url else url
    except ArgumentError:
        return "given"

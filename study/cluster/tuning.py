"""What happens inside one Ray Tune trial: a point's trials, one after another, each in a process of its own.

The training never runs in the actor: a killed actor with forked children would not be noticed until they end, and a
process per trial gives a GPU's memory back. The actor only starts it, relays and watches. A training that breaks is no
error to Tune but an outcome that is reported; Tune itself retries what is lost with a worker or a node.

Tune itself has a thread that can be told to end, so that the main thread is free to take signals. It must be over
before Ray goes down: a thread that asks a Ray that is gone for anything ends the whole process.

To Tune a point is the configuration `{"number": ..., "point": {...}}`. The trainable's last report holds `outcome`, the
value of a `TrialState`, and every measured objective when that is `finished`; any other word says why the trial was
interrupted. A trial without an outcome was lost with its worker.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.search import Searcher

from study.buckets.checkout import open_checkout
from study.common.errors import DiskFullError, LedgerError, StudyError, TrialInterrupted
from study.curriculum.data_curriculum import STALL_SECONDS
from study.run.trial_host import Ending, TrialHost
from study.run.trial_process import BUSY, DISK_FULL, INFEASIBLE, LOST, REFUSED, TOLD_CODES, TrialJob
from study.search.samplers import TrialSource
from study.search.space import OBJECTIVES, SearchSpace
from study.search.trials import prepared_lookup, specs
from study.store.ledger import Ledger
from study.store.outcomes import Outcome, outcome
from study.store.trial_folder import TrialFolder, TrialState

BUSY_POLL_SECONDS = 2.0
# Between a fault and the next try, so that what is broken for an instant is given time; doubled up to minutes.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
OUTCOME = "outcome"
REASON = "reason"
PROJECTED = "projected"
OUT_OF_DISK = "disk full"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How much is put up with.

    Attributes:
        retries: how often a trial is started again, in a row, after faults between which it made no progress.
        stall_seconds: a training that says nothing for so long is ended, which is such a fault.
        retry_infeasible: whether a trial that an earlier run found infeasible is tried again.
    """

    retries: int = 2
    stall_seconds: float = STALL_SECONDS
    retry_infeasible: bool = False


DEFAULT_PATIENCE = Patience()
Attempt = Callable[[TrialFolder, TrialJob, Patience], Ending]


def train_in_process(folder: TrialFolder, job: TrialJob, patience: Patience) -> Ending:
    """One attempt at a trial, in a process forked from this worker's server of trainings."""
    return _host(patience.stall_seconds).run(job, folder.log_path)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that the trials of a study have in common, sent to every node.

    Attributes:
        space: the search space.
        template: a job whose trial is still to be named.
        patience: with faults.
        attempt: makes one attempt at a trial.
        url: of a study in object storage, None for a folder.
        umask: of the driver, so that the study's files are for whom they would be without Ray.
    """

    space: SearchSpace
    template: TrialJob
    patience: Patience
    attempt: Attempt
    url: str | None = None
    umask: int = 0o022


def run_point(config: Mapping[str, Any], assignment: Assignment) -> None:
    """Ray Tune's trainable: train a point's folds and seeds and report what they came to.

    Args:
        config: `point`, name -> value of the searched settings, as a searcher of ours proposed it; perhaps `only`, the
            one fold and seed to train.
        assignment: the study.

    Raises:
        TrialInterrupted: the study is being stopped.
    """
    os.umask(assignment.umask)
    template = assignment.template
    checkout = open_checkout(assignment.url, str(template.study), str(template.stop_file))
    ledger, lookup = Ledger.open(checkout.study), prepared_lookup(template.workplace.data)
    space = assignment.space.only(*config["only"]) if "only" in config else assignment.space
    folders = [ledger.add(spec) for spec in specs(space, config["point"], lookup)]
    try:
        for folder in folders:
            with checkout.checked_out(folder, template.workplace.metrics) as stop:
                job = replace(template, study=Path(checkout.study), trial_id=folder.trial_id, stop_file=Path(stop))
                state = bring_to_end(folder, job, assignment)
            if state is not TrialState.FINISHED:
                break
    except DiskFullError as error:
        tune.report({OUTCOME: OUT_OF_DISK, REASON: error.where})
        return
    except TrialInterrupted:
        raise
    except StudyError as error:
        # Not an error to Tune, which would try again and again what cannot succeed.
        tune.report({OUTCOME: TrialState.FAILED.value, REASON: str(error)})
        return
    reached = outcome(folders)
    tune.report({OUTCOME: reached.state.value, REASON: reached.reason, PROJECTED: reached.projected, **reached.values})


def bring_to_end(folder: TrialFolder, job: TrialJob, assignment: Assignment) -> TrialState:
    """Train one trial until it has finished, is infeasible, was stopped late, or has failed too often; returns which.

    While another process works on the trial, this one waits: a process that lost its worker may still be writing its
    checkpoint, and a lock whose holder is gone with its node becomes stale.

    Raises:
        TrialInterrupted: the study is being stopped.
        DiskFullError: there is no room for the trial's records.
    """
    patience = assignment.patience
    faults, reached, tried = 0, -1, False
    while (state := folder.state()) is not TrialState.FINISHED or job.workplace.metrics.lacking_in(folder.result()):
        _check_not_stopped(job)
        if state is TrialState.RUNNING:
            time.sleep(BUSY_POLL_SECONDS)
            continue
        if state is TrialState.STOPPED:
            return state
        if state is TrialState.INFEASIBLE and (tried or not patience.retry_infeasible):
            return state
        if faults > patience.retries:
            return TrialState.FAILED
        number = len(folder.attempts())
        ending = assignment.attempt(folder, job, patience)
        tried = True
        if ending.code == DISK_FULL:
            raise DiskFullError(str(folder.path))
        if ending.code in (BUSY, LOST):
            continue
        if folder.result() is not None:
            break
        if folder.state() is TrialState.STOPPED:
            continue
        if ending.reason or ending.code not in TOLD_CODES:
            # What the process could not record itself.
            ended = TrialState.INFEASIBLE if ending.code == INFEASIBLE else TrialState.FAILED
            reason = ending.reason or f"its process ended with code {ending.code}"
            folder.fail(attempt=number, reason=reason, state=ended)
        if ending.code == REFUSED:
            return TrialState.FAILED
        if ending.code != INFEASIBLE:
            trained = max((interval.iteration_stop for interval in folder.cost_intervals()), default=0)
            before, reached = reached, trained
            faults = 1 if reached > before else faults + 1
            _pause(job, pause_seconds(faults))
    return TrialState.FINISHED


def _check_not_stopped(job: TrialJob) -> None:
    if job.stop_file.exists():
        raise TrialInterrupted("the study is being stopped")


def pause_seconds(faults: int) -> float:
    """How long to wait after so many faults in a row."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(faults, 1000))


def _pause(job: TrialJob, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        _check_not_stopped(job)
        time.sleep(0.1)


@cache
def _host(stall_seconds: float) -> TrialHost:
    """This worker's host: Ray uses a worker for one trial after the other."""
    host = TrialHost(stall_seconds=stall_seconds)
    atexit.register(host.close)
    return host


# How long Tune may take to leave its loop, which turns several times a second.
END_SECONDS = 30.0


class EndOnRequest(tune.Callback):
    """Makes Tune's loop break off once `now` is set; keeps in `full` what was said of a disk that ran full."""

    def __init__(self) -> None:
        self.now = threading.Event()
        self.full: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its callbacks to a file, which nobody reads back.
        return {}

    def on_step_begin(self, iteration: int, trials: Iterable[Any], **info: Any) -> None:
        if self.now.is_set():
            raise TrialInterrupted("the study is being stopped")

    def on_trial_result(
        self, iteration: int, trials: Iterable[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        """Note a full disk: the other trials share it."""
        if result.get(OUTCOME) == OUT_OF_DISK:
            self.full = str(result[REASON])


class TuneThread(threading.Thread):
    """Runs a tuner.

    Args:
        make_tuner: makes the tuner, given the callback that it must have.
    """

    def __init__(self, make_tuner: Callable[[EndOnRequest], tune.Tuner]) -> None:
        super().__init__(daemon=True)
        # Tune would copy these of our variables, AWS' secrets among them, into each actor's runtime environment, which
        # Ray's agent writes to a log.
        class_cache.ENV_VARS_TO_PROPAGATE = set()
        self._request = EndOnRequest()
        self._tuner = make_tuner(self._request)
        self._results: Any = ()
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._results = self._tuner.fit()
        except BaseException as error:  # handed to the thread that waits
            self._failure = error

    @property
    def full_disk(self) -> str | None:
        """What a trial could not write because there was no room, if one could not."""
        return self._request.full

    def end(self) -> None:
        """Have the loop break off if it still turns, and wait until it is over."""
        self._request.now.set()
        if self.is_alive():
            self.join(END_SECONDS)

    def failures(self) -> list[str]:
        """A line for each point that was lost with its worker or node too often, or that our own code broke on.

        Raises:
            LedgerError: Tune itself broke.
        """
        if self._failure is not None:
            text = f"Ray Tune stopped: {type(self._failure).__name__}: {self._failure}"
            raise LedgerError(text) from self._failure
        return [_line(result.error) for result in self._results if result.error]


def _line(error: object) -> str:
    """An error from a worker in one line, without the traceback that Ray adds."""
    cause = getattr(error, "cause", None) or error
    text = " ".join(str(cause).split())
    return text if isinstance(cause, StudyError) else f"{type(cause).__name__}: {text}"


LOST_WITH_WORKER = "lost with its worker"
STATES = {state.value for state in TrialState}


class PointSearcher(Searcher):
    """A Tune searcher that hands out a sampler's points.

    Args:
        sampler: decides what is trained.
    """

    def __init__(self, sampler: TrialSource) -> None:
        super().__init__()
        self._sampler = sampler
        self._numbers: dict[str, int] = {}
        self._failure: StudyError | None = None

    @property
    def remaining(self) -> int:
        return self._sampler.remaining

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its searcher to a file, which nobody reads back.
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next point, FINISHED when there is none; nothing for now while what is next waits for trials to end.

        Raises:
            StudyError: the search cannot go on, and nothing is being trained any more.
        """
        try:
            if self._failure is not None:
                raise self._failure
            proposal = self._sampler.propose()
        except StudyError as error:
            self._failure = error
            if self._numbers:
                return None
            raise
        if proposal is None:
            return None if self._sampler.waits and self._numbers else Searcher.FINISHED
        self._numbers[trial_id] = proposal.number
        only = {} if proposal.only is None else {"only": proposal.only}
        return {"number": proposal.number, "point": dict(proposal.point), **only}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        number = self._numbers.pop(trial_id, None)
        if number is not None:
            self._sampler.tell(number, reported(None if error else result))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a study is resumed from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


def reported(result: Mapping[str, Any] | None) -> Outcome:
    """The outcome that a trainable's last report tells.

    Args:
        result: the report with whatever Tune adds to it; None or empty for a trial that was lost.
    """
    if not result or "outcome" not in result:
        return Outcome(state=TrialState.FAILED, reason=LOST_WITH_WORKER)
    if result["outcome"] not in STATES:
        return Outcome(state=TrialState.INTERRUPTED, reason=str(result["outcome"]))
    values = {name: result.get(name) for name in OBJECTIVES}
    measured = {n: value for n, value in values.items() if isinstance(value, int | float) and math.isfinite(value)}
    state, reason, projected = TrialState(result[OUTCOME]), result.get(REASON), result.get(PROJECTED)
    return Outcome(state=state, values=measured, reason=reason, projected=projected)

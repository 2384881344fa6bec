"""What happens inside one Ray Tune trial: a point's trials, one after another, each in a process of its own.

The training never runs in the actor: a killed actor with forked children would not be noticed until they end, and a
process per trial gives a GPU's memory back. The actor only starts it, relays and watches. A training that breaks is no
error to Tune but an outcome that is reported; Tune itself retries what is lost with a worker or a node.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ray import tune

from study.datasets import DataPaths
from study.errors import DiskFullError, StudyError, TrialInterrupted
from study.ledger import Ledger
from study.outcomes import outcome
from study.remote.workshop import open_workshop
from study.spaces import SearchSpace, specs
from study.specs import prepared_lookup
from study.stopping import STALL_SECONDS
from study.trial_folder import TrialFolder, TrialState
from study.trial_host import Ending, TrialHost
from study.trial_process import BUSY, DISK_FULL, INFEASIBLE, LOST, REFUSED, TOLD_CODES, Job

BUSY_POLL_SECONDS = 2.0
# Between a fault and the next try, so that what is broken for an instant is given time; doubled up to minutes.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
OUTCOME = "outcome"
REASON = "reason"
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
Attempt = Callable[[TrialFolder, Job, Patience], Ending]


def train_in_process(folder: TrialFolder, job: Job, patience: Patience) -> Ending:
    """One attempt at a trial, in a process forked from this worker's server of trainings."""
    return _host(patience.stall_seconds).run(job, folder.log_path)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that the trials of a study have in common, sent to every node.

    Attributes:
        space: the search space; data: folders of prepared data.
        template: a job whose trial is still to be named.
        patience: with faults.
        attempt: makes one attempt at a trial.
        url: of a study in object storage, None for a folder.
        umask: of the driver, so that the study's files are for whom they would be without Ray.
    """

    space: SearchSpace
    data: DataPaths
    template: Job
    patience: Patience
    attempt: Attempt
    url: str | None = None
    umask: int = 0o022


def run_point(config: Mapping[str, Any], assignment: Assignment) -> None:
    """Ray Tune's trainable: train a point's folds and seeds and report what they came to.

    Args:
        config: `point`, name -> value of the searched settings, as a searcher of ours proposed it.
        assignment: the study.

    Raises:
        TrialInterrupted: the study is being stopped.
    """
    os.umask(assignment.umask)
    template = assignment.template
    workshop = open_workshop(assignment.url, template.study, template.stop_file)
    ledger = Ledger.open(workshop.study)
    folders = [ledger.add(spec) for spec in specs(assignment.space, config["point"], prepared_lookup(assignment.data))]
    try:
        for folder in folders:
            with workshop.checked_out(folder, template.metrics) as stop:
                job = replace(template, study=str(workshop.study), trial_id=folder.trial_id, stop_file=str(stop))
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
    tune.report({OUTCOME: reached.state.value, REASON: reached.reason, **reached.values})


def bring_to_end(folder: TrialFolder, job: Job, assignment: Assignment) -> TrialState:
    """Train one trial until it has finished, is infeasible, or has failed too often; returns which.

    While another process works on the trial, this one waits: a process that lost its worker may still be writing its
    checkpoint, and a lock whose holder is gone with its node becomes stale.

    Raises:
        TrialInterrupted: the study is being stopped.
        DiskFullError: there is no room for the trial's records.
    """
    patience = assignment.patience
    faults, reached, tried = 0, -1, False
    while (state := folder.state()) is not TrialState.FINISHED or job.metrics.lacking_in(folder.result()):
        _check_not_stopped(job)
        if state is TrialState.RUNNING:
            time.sleep(BUSY_POLL_SECONDS)
            continue
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
        _record(folder, number, ending)
        if ending.code == REFUSED:
            return TrialState.FAILED
        if ending.code != INFEASIBLE:
            before, reached = reached, _reached(folder)
            faults = 1 if reached > before else faults + 1
            _pause(job, pause_seconds(faults))
    return TrialState.FINISHED


def _record(folder: TrialFolder, number: int, ending: Ending) -> None:
    """What the process could not record itself."""
    if ending.reason:
        state = TrialState.INFEASIBLE if ending.code == INFEASIBLE else TrialState.FAILED
        folder.fail(attempt=number, reason=ending.reason, state=state)
    elif ending.code not in TOLD_CODES:
        folder.fail(attempt=number, reason=f"its process ended with code {ending.code}")


def _reached(folder: TrialFolder) -> int:
    """The furthest iteration that any attempt has trained."""
    return max((interval.iteration_stop for interval in folder.cost_intervals()), default=0)


def _check_not_stopped(job: Job) -> None:
    if Path(job.stop_file).exists():
        raise TrialInterrupted("the study is being stopped")


def pause_seconds(faults: int) -> float:
    """How long to wait after so many faults in a row."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(faults, 1000))


def _pause(job: Job, seconds: float) -> None:
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

"""What a training process is told, and what it does: train one trial, say how it gets on, end on request.

Whoever starts it holds a pipe from which it gets its job. When that closes, because the starter stopped or died, or
when the job's stop file appears, the trial writes a checkpoint and ends. Its memory, a GPU's included, ends with it.
`trial_server` starts these processes.

A training that may be stopped late is asked at its rungs, every answer recorded before anything follows from it. The
trainer sees a stop that is requested, no more. A rung that was asked is in the trial's events and is not asked again.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from study.buckets.view import reading
from study.common.errors import (
    DiskFullError,
    InfeasibleTrialError,
    StudyError,
    TrialBusyError,
    TrialFailedError,
    TrialInterrupted,
)
from study.common.terminal import output_to
from study.run.progress import Progress, StopRequest
from study.run.provenance import Workplace
from study.run.trial import run_trial
from study.store.ledger import Ledger
from study.store.locks import EXIT_CODE_OF_LOSS
from study.store.records import EpochReport, Phase
from study.store.specification import TrialSpec
from study.store.stopping import (
    RUNG,
    STAYED,
    STOPPED,
    StopDecision,
    curve_of,
    finished_curves,
    is_kept,
    judged,
    rung_epochs,
    said_before,
    searched_training,
)
from study.store.trial_folder import TrialFolder


class LateStop(StopRequest):
    """A request to stop that a training's own curve may make.

    Args:
        folder: of the trial.
        study: folder or URL of the study whose finished trainings it is compared with.
    """

    def __init__(self, folder: TrialFolder, study: str) -> None:
        super().__init__()
        self._folder, self._study = folder, study
        training = folder.spec().training
        self._rungs = rung_epochs(training.epochs, training.validation_every_epochs)

    def epoch_done(self, report: EpochReport) -> None:
        """At a rung, ask; and stop if that is the answer."""
        rung = self._rungs.get(report.epoch)
        if rung is None or said_before(self._folder.events(), rung):
            return
        try:
            verdict = self._verdict(rung, report.iteration)
        except (StudyError, OSError) as error:
            self._folder.note(f"not asked at {rung:.0%} whether to stop: {' '.join(str(error).split())}")
            return
        if verdict is not None:
            self._record(verdict)

    def _verdict(self, rung: float, iteration: int) -> StopDecision | None:
        spec = self._folder.spec()
        with reading(self._study) as (root, _):
            ledger = Ledger(root)
            curve = curve_of(spec, self._folder.epochs(), None, searched_training(ledger.header()))
            others = finished_curves(ledger, group=curve.group)
        return judged(curve, others, rung=rung, share=iteration / spec.curriculum.total_iterations)

    def _record(self, verdict: StopDecision) -> None:
        stops = verdict.beaten_by is not None
        event = RUNG if not stops else STAYED if is_kept(self._folder.trial_id) else STOPPED
        reason = {"reason": verdict.reason} if stops else {}
        self._folder.append_event(event, **asdict(verdict), **reason)
        if event == STOPPED:
            self.requested = self.recorded = True


FINISHED, INTERRUPTED, FAILED, BUSY, INFEASIBLE, LOST, DISK_FULL, REFUSED = 0, 3, 4, 5, 6, EXIT_CODE_OF_LOSS, 8, 9
# The process has recorded itself how it ended.
TOLD_CODES = (FINISHED, INTERRUPTED, FAILED, BUSY, INFEASIBLE, LOST, DISK_FULL, REFUSED)
# Of errors, subclasses first.
_CODES = {
    TrialInterrupted: INTERRUPTED,
    DiskFullError: DISK_FULL,
    TrialBusyError: BUSY,
    InfeasibleTrialError: INFEASIBLE,
    TrialFailedError: FAILED,
}
# How often a training says at most that it gets on.
SAY_SECONDS = 1.0
STOP_POLL_SECONDS = 0.5
# How long a training may take to finish its iteration and write its checkpoint.
STOP_GRACE_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """What the process is told.

    Attributes:
        study: absolute path of the study folder; trial_id: a trial whose specification is in it.
        workplace: where and with what it is trained, with absolute paths.
        stop_file: its appearance stops the trial.
        curves: folder or URL of the study whose finished curves may stop it late; None where none may.
    """

    study: Path
    trial_id: str
    workplace: Workplace
    stop_file: Path
    curves: str | None = None


class Speaker(Progress):
    """Says where the training stands, as `iteration` and `phase`, at most once a second.

    Args:
        pipe: where to.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._iteration, self._phase = 0, Phase.SETUP
        self._said = 0.0

    def begin(self, spec: TrialSpec, first_iteration: int) -> None:
        self._iteration = first_iteration
        self._say()

    def iteration_done(self, report: Any) -> None:
        self._iteration = report.iteration + 1
        self.alive()

    def phase(self, phase: Phase) -> None:
        self._phase = phase
        self._say()

    def alive(self) -> None:
        if time.monotonic() - self._said >= SAY_SECONDS:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        with suppress(OSError):  # nobody is there any more; the stop request comes by another way
            self._pipe.send({"iteration": self._iteration, "phase": self._phase.value})


def run_job(job: TrialJob, progress: Progress, *, orders: Connection, helpers: tuple[int, ...]) -> int:
    """Train the job's trial in this process; the exit code says how it ended.

    Args:
        job: what to train.
        progress: told how it gets on.
        orders: the pipe that ends the training when it closes.
        helpers: see `Workplace`.
    """
    ledger = Ledger.open(job.study)
    folder = ledger.trial(job.trial_id)
    # Whoever started the process ends it when it says nothing for too long.
    workplace = replace(job.workplace, stall_seconds=math.inf, helpers=helpers)
    with output_to(folder.log_path):
        try:
            stop = StopRequest() if job.curves is None else LateStop(folder, job.curves)
            _stop_on_request(stop, lambda: orders.poll(None), lambda: _until_exists(job.stop_file))
            run_trial(folder.spec(), ledger, workplace, progress=progress, stop=stop)
        except StudyError as error:
            code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), REFUSED)
            if code == FAILED:
                traceback.print_exception(error)
            else:
                print(error, file=sys.stderr)
            if code == REFUSED:
                # Nobody has recorded it yet.
                folder.fail(reason=str(error))
            return code
    return FINISHED


def _stop_on_request(stop: StopRequest, *waits: Callable[[], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop.signal)
    for wait in waits:
        threading.Thread(target=_terminate_after, args=(wait,), daemon=True).start()


def _terminate_after(wait: Callable[[], object]) -> None:
    wait()
    os.kill(os.getpid(), signal.SIGTERM)
    # Nobody is left to end a training that does not get to its next iteration.
    time.sleep(STOP_GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _until_exists(path: Path) -> None:
    while not path.exists():
        time.sleep(STOP_POLL_SECONDS)

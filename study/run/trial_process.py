"""What a training process is told, and what it does: train one trial, say how it gets on, end on request.

Whoever starts it holds a pipe to its standard input. When that closes, because the starter stopped or died, or when the
job's stop file appears, the trial writes a checkpoint and ends. Its memory, a GPU's included, ends with it.
`trial_server` starts these processes.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from study.common.errors import (
    DiskFullError,
    InfeasibleTrialError,
    StudyError,
    TrialBusyError,
    TrialFailedError,
    TrialInterrupted,
)
from study.common.machine import MachineShare
from study.common.terminal import output_to
from study.nnunet.datasets import DataPaths
from study.run.progress import Progress, StopRequest
from study.run.trial import run_trial
from study.run.workplace import Workplace
from study.store.ledger import Ledger
from study.store.locks import EXIT_CODE_OF_LOSS
from study.store.records import Phase
from study.store.results import NO_METRICS, Metrics
from study.store.specification import Energy, TrialSpec
from study.store.trial_folder import TrialFolder

FINISHED, INTERRUPTED, FAILED, BUSY, INFEASIBLE, LOST, DISK_FULL, REFUSED = 0, 3, 4, 5, 6, EXIT_CODE_OF_LOSS, 8, 9
# The process has recorded itself how it ended.
TOLD_CODES = (FINISHED, INTERRUPTED, FAILED, BUSY, INFEASIBLE, LOST, DISK_FULL, REFUSED)
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
        raw, preprocessed: absolute paths of nnU-Net's folders.
        resources: what the trial is allotted; energy: how it is measured.
        previous_stage: for cascades.
        metrics: measured beside Dice.
        stop_file: its appearance stops the trial.
    """

    study: str
    trial_id: str
    raw: str | None
    preprocessed: str
    resources: MachineShare
    energy: Energy
    previous_stage: str | None
    stop_file: str
    metrics: Metrics = NO_METRICS

    def to_json(self) -> str:
        """The job as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrialJob:
        """Inverse of `to_json`."""
        data: dict[str, Any] = json.loads(text)
        records = {"resources": MachineShare, "energy": Energy, "metrics": Metrics}
        return cls(**{**data, **{name: record(**data[name]) for name, record in records.items()}})

    def workplace(self) -> Workplace:
        """Data, resources and meter of the job."""
        return Workplace(
            data=DataPaths(raw=_path(self.raw), preprocessed=Path(self.preprocessed)),
            resources=self.resources,
            energy=self.energy,
            previous_stage=_path(self.previous_stage),
            metrics=self.metrics,
            # Whoever started the process ends it when it says nothing for too long.
            stall_seconds=math.inf,
        )


class Speaker(Progress):
    """Writes where the training stands to a pipe, as JSON lines, at most once a second.

    Args:
        pipe: file descriptor.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._iteration, self._phase = 0, Phase.SETUP
        self._said = 0.0

    def begin(self, spec: TrialSpec, first_iteration: int) -> None:
        """Say where it starts."""
        self._iteration = first_iteration
        self._say()

    def iteration_done(self, report: Any) -> None:
        """Count."""
        self._iteration = report.iteration + 1
        self.alive()

    def phase(self, phase: Phase) -> None:
        """Say what begins."""
        self._phase = phase
        self._say()

    def alive(self) -> None:
        """Say so, unless it was said just now."""
        if time.monotonic() - self._said >= SAY_SECONDS:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        line = json.dumps({"iteration": self._iteration, "phase": self._phase.value}) + "\n"
        with suppress(BrokenPipeError):  # the stop request comes by another way
            os.write(self._pipe, line.encode())


def run_job(job: TrialJob, progress: Progress) -> int:
    """Train the job's trial in this process; the exit code says how it ended."""
    ledger = Ledger.open(Path(job.study))
    folder = ledger.trial(job.trial_id)
    with output_to(folder.log_path):
        try:
            run_trial(folder.spec(), ledger, job.workplace(), progress=progress, stop=_stop_on_request(job))
        except StudyError as error:
            return _exit_code(error, folder)
    return FINISHED


def _exit_code(error: StudyError, folder: TrialFolder) -> int:
    for kind, code in (
        (TrialInterrupted, INTERRUPTED),
        (DiskFullError, DISK_FULL),
        (TrialBusyError, BUSY),
        (InfeasibleTrialError, INFEASIBLE),
    ):
        if isinstance(error, kind):
            print(error, file=sys.stderr)
            return code
    if isinstance(error, TrialFailedError):
        traceback.print_exception(error)
        return FAILED
    # Refused, so nobody has recorded it yet.
    folder.fail(reason=str(error))
    print(error, file=sys.stderr)
    return REFUSED


def _stop_on_request(job: TrialJob) -> StopRequest:
    stop = StopRequest()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop.signal)
    for wait in (_until_stdin_closes, lambda: _until_exists(Path(job.stop_file))):
        threading.Thread(target=_terminate_after, args=(wait,), daemon=True).start()
    return stop


def _terminate_after(wait: Callable[[], None]) -> None:
    wait()
    os.kill(os.getpid(), signal.SIGTERM)
    # Nobody is left to end a training that does not get to its next iteration.
    time.sleep(STOP_GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _until_stdin_closes() -> None:
    # Not through sys.stdin: a thread inside its buffer makes the interpreter abort when it exits.
    while os.read(0, 1):
        pass


def _until_exists(path: Path) -> None:
    while not path.exists():
        time.sleep(STOP_POLL_SECONDS)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)

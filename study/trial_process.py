"""A trial in a process of its own: `python -m study.trial_process JOB`, JOB being the JSON of a `Job`.

The process that starts it holds a pipe to its standard input. When that closes, because the starter stopped or died, or
when the job's stop file appears, the trial writes a checkpoint and ends. Its memory, a GPU's included, ends with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from study.datasets import DataPaths
from study.errors import StudyError, TrialBusyError, TrialFailedError, TrialInterrupted
from study.ledger import Ledger
from study.machine import Resources
from study.records import Energy
from study.terminal import output_to
from study.trial import StopRequest, Workplace, run_trial

FINISHED, INTERRUPTED, FAILED, BUSY = 0, 3, 4, 5
STOP_POLL_SECONDS = 0.5
# How long a training may take to finish its iteration and write its checkpoint.
STOP_GRACE_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the process is told.

    Attributes:
        study: absolute path of the study folder; trial_id: a trial whose specification is in it.
        raw, preprocessed: absolute paths of nnU-Net's folders.
        resources: what the trial is allotted; energy: how it is measured.
        previous_stage: for cascades.
        stop_file: its appearance stops the trial.
    """

    study: str
    trial_id: str
    raw: str | None
    preprocessed: str
    resources: Resources
    energy: Energy
    previous_stage: str | None
    stop_file: str

    def to_json(self) -> str:
        """The job as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Inverse of `to_json`."""
        data: dict[str, Any] = json.loads(text)
        return cls(**{**data, "resources": Resources(**data["resources"]), "energy": Energy(**data["energy"])})

    def workplace(self) -> Workplace:
        """Data, resources and meter of the job."""
        return Workplace(
            data=DataPaths(raw=_path(self.raw), preprocessed=Path(self.preprocessed)),
            resources=self.resources,
            energy=self.energy,
            previous_stage=_path(self.previous_stage),
        )


def main() -> int:
    """Run the job named on the command line; the exit code says how it ended."""
    job = Job.from_json(sys.argv[1])
    ledger = Ledger.open(Path(job.study))
    with output_to(ledger.trial(job.trial_id).log_path):
        return _run(job, ledger)


def _run(job: Job, ledger: Ledger) -> int:
    folder = ledger.trial(job.trial_id)
    try:
        run_trial(folder.spec(), ledger, job.workplace(), stop=_stop_on_request(job))
    except TrialInterrupted as interruption:
        print(interruption, file=sys.stderr)
        return INTERRUPTED
    except TrialBusyError as busy:
        print(busy, file=sys.stderr)
        return BUSY
    except TrialFailedError:
        import traceback

        traceback.print_exc()
        return FAILED
    except StudyError as error:
        # Refused before an attempt began, so nobody has recorded it yet.
        folder.fail(attempt=len(folder.attempts()), reason=str(error))
        print(error, file=sys.stderr)
        return FAILED
    return FINISHED


def _stop_on_request(job: Job) -> StopRequest:
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


if __name__ == "__main__":
    sys.exit(main())

"""Forks training processes from one that has torch and nnU-Net loaded: only the first trial waits for the imports.

`python -m study.run.trial_server JOBS SAYS` gets jobs from one pipe and trains them one at a time, each in a child of
its own with its own process group. To the other go `started` with the child's pid, what the child says of its progress,
and `ended` with its exit code, negative for a signal. It ends when its jobs' pipe closes; so does a child, having
written its checkpoint.

nnU-Net's validation spawns one pool to write predictions and another to score them, whose processes would import torch
and nnU-Net each before they do anything. Here they come from Python's own forkserver, started once beside this server.
It starts no trainings: their parent would be a child of whoever asks, which Ray kills with its worker, and each would
first import the asker's main module, which in Ray's workers is Ray.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

from study.run.trial_process import Speaker, TrialJob, run_job

VALIDATION_MODULES = ["nnunetv2.inference.export_prediction", "nnunetv2.evaluation.evaluate_predictions"]


def main() -> None:
    """Serve until the jobs' pipe closes, or nobody listens any more."""
    import study.nnunet.trainer  # noqa: F401

    jobs, says = (Connection(int(word)) for word in sys.argv[1:])
    get_context("forkserver").set_forkserver_preload(VALIDATION_MODULES)
    forkserver.ensure_running()
    with suppress(EOFError, OSError):
        while True:
            says.send({"ended": _train(jobs.recv(), jobs, says)})


def _train(job: TrialJob, jobs: Connection, says: Connection) -> int:
    pid = os.fork()
    if pid == 0:
        _child(job, jobs, says)
    with suppress(OSError):  # the child may have done it already, or ended
        os.setpgid(pid, pid)
    says.send({"started": pid})
    _, status = os.waitpid(pid, 0)
    # Loaders and validation processes that outlive a killed training.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def _child(job: TrialJob, jobs: Connection, says: Connection) -> None:
    code = 1
    try:
        with suppress(OSError):
            os.setpgid(0, 0)
        code = run_job(job, Speaker(says), orders=jobs, helpers=_use_forkserver())
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: what the server would do at its own exit is not the child's to do.
        os._exit(code)


def _use_forkserver() -> tuple[int, ...]:
    """Have nnU-Net's validation take its processes from the inherited forkserver; its id."""
    from nnunetv2.evaluation import evaluate_predictions
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer

    inherited: Any = forkserver._forkserver
    # It would wait for the forkserver as for a child of its own, which it is not.
    inherited.ensure_running = resource_tracker.ensure_running
    for module in (nnUNetTrainer, evaluate_predictions):
        module.multiprocessing = SimpleNamespace(get_context=lambda _: get_context("forkserver"))
    return () if inherited._forkserver_pid is None else (inherited._forkserver_pid,)


if __name__ == "__main__":
    main()

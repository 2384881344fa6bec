"""A preparation in a process of its own, so that nnU-Net's chatter, environment variables and pools stay out of ours.

The process leads its own group, which is ended with everything in it when the caller stops. It writes to the log in the
dataset's folder and holds a lock on it as long as it lives, so two preparations never mix.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from study.common.errors import LockedError, MachineError, StudyError
from study.nnunet.datasets import NNUNET_PREFIX
from study.nnunet.prepare.steps import PreparationJob, Step, run_steps
from study.store import locks

LOG_NAME, LOCK_NAME = "pgps_prepare.log", "pgps_prepare.locks"
LOOK_INTERVAL_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True)
class PreparationProgress:
    """How far a preparation is: the index of the step at work, its name, cases done and to do (0 when unknown)."""

    index: int
    step: str
    done: int
    cases: int


def run_job(job: PreparationJob, report: Callable[[PreparationProgress], None], note: Callable[[str], None]) -> None:
    """Run a preparation's steps in a new process and wait for it.

    Args:
        job: what to do; its folder exists.
        report: told of every step and, a few times a second, how far it is.
        note: told what had to be assumed.

    Raises:
        StudyError: whatever the steps raise.
        MachineError: nnU-Net broke or its process died, or another preparation of the dataset is at work.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(job, theirs))
    process.start()
    theirs.close()
    try:
        _follow(ours, report, note)
        process.join()
    except EOFError:
        process.join()
        log = job.folder / LOG_NAME
        raise MachineError(
            f"the preparing process died (exit code {process.exitcode}), which a lack of memory can do; "
            f"the same command goes on from here, with fewer --workers it needs less memory; see {log}"
        ) from None
    finally:
        _end(process)


def _follow(messages: Connection, report: Callable[[PreparationProgress], None], note: Callable[[str], None]) -> None:
    index, step = 0, Step(name="starting nnU-Net")
    while True:
        report(PreparationProgress(index=index, step=step.name, done=step.cases_done(), cases=step.cases))
        if messages.poll(LOOK_INTERVAL_SECONDS):
            message = messages.recv()
            if message is None:
                return
            if isinstance(message, StudyError):
                raise message
            if isinstance(message, str):
                note(message)
                continue
            index, step = index + 1, message


def _end(process: Any) -> None:
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
    process.close()


def _work(job: PreparationJob, messages: Connection) -> None:
    """What the new process does: the last message is None, or the error that ended it."""
    os.setsid()
    log = job.folder / LOG_NAME
    try:
        with _locked(job.folder / LOCK_NAME):
            _write_to(log)
            _set_environment(job.workers)
            _import_once()
            run_steps(job, messages.send, messages.send)
    except StudyError as error:
        messages.send(error)
    except Exception as error:  # nnU-Net raises what it likes
        traceback.print_exc()
        sys.stderr.flush()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        messages.send(MachineError(f"preparing {job.source.dataset}: {reason}; see {log}"))
    else:
        messages.send(None)


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locks.held(lock))
        except LockedError as error:
            folder = lock.parent
            raise MachineError(
                f"{folder.name} is being prepared by another process, {error}; see {folder / LOG_NAME}"
            ) from None
        yield


def _write_to(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def _set_environment(workers: int) -> None:
    for name in [name for name in os.environ if name.startswith(NNUNET_PREFIX)]:
        del os.environ[name]
    # nnU-Net reads the first when it is imported and the second, which must not be 0, when it plans.
    os.environ.update(nnUNet_def_n_proc=str(workers), nnUNet_n_proc_DA=str(workers))


def _import_once() -> None:
    """Give nnU-Net's pools workers forked from a server that imports torch once, while this process does the same.

    nnU-Net spawns four pools one after another and another one whenever it lists files. Every spawned worker would take
    seconds and up to a gigabyte for its imports: most of the time of a small dataset.
    """
    multiprocessing.set_start_method("forkserver", force=True)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["nnunetv2.experiment_planning.plan_and_preprocess_api"])
    forkserver.ensure_running()
    stock = multiprocessing.get_context

    def get_context(method: str | None = None) -> Any:
        return server if method == "spawn" else stock(method)

    multiprocessing.get_context = get_context

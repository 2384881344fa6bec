"""Runs trials in processes of their own and watches over them: whoever calls it survives whatever a training does.

A host starts one `trial_server` when it is first needed and keeps it for the next trial. It relays what the training
says of its progress, ends one that says nothing for too long, and tells a process that the system killed for want of
memory from one that somebody else killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from study.common.process import temporary_variables
from study.nnunet.datasets import NNUNET_PREFIX
from study.run.trial_process import FAILED, INFEASIBLE, STOP_GRACE_SECONDS, TOLD_CODES, TrialJob

Told = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a training process ended.

    Attributes:
        code: its exit code, negative for a signal; None when its server died with it or before it.
        reason: what the process could not say itself, in one line, empty when it could.
    """

    code: int | None
    reason: str = ""


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen[bytes]
    jobs: Connection
    says: Connection


class TrialHost:
    """Starts trainings one at a time. Close it, or use it as a context manager.

    Args:
        stall_seconds: a training that says nothing for so long is killed.
    """

    def __init__(self, *, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._server: _Server | None = None

    def __enter__(self) -> TrialHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, job: TrialJob, log: Path, told: Told = lambda _: None) -> Ending:
        """Train the job's trial until its process ends.

        Args:
            job: what to train.
            log: where the server's own errors go, should it not start.
            told: called with what the training says: `started`, `iteration` and `phase`.
        """
        kills, child = memory_kills(), 0
        server = self._running_server(log)
        try:
            with suppress(OSError):  # seen when its answer is read
                server.jobs.send(job)
            while said := self._heard(server):
                if "ended" in said:
                    return _ending(said["ended"], out_of_memory=memory_kills() > kills)
                child = said.get("started", child)
                told(said)
        except TimeoutError:
            self._kill(child)
            reason = f"no progress for {self._stall_seconds / 60:g} minutes, so its process was ended"
            return Ending(code=-signal.SIGKILL, reason=reason)
        except BaseException:
            self.close()
            raise
        # A training whose server is killed goes on: this is read when it, too, has ended.
        self.close()
        return Ending(code=None, reason="the process that starts trainings was killed or could not start")

    def close(self) -> None:
        """Have the training, if any, write its checkpoint and end, and the server with it."""
        server, self._server = self._server, None
        if server is None:
            return
        with suppress(OSError):
            server.jobs.close()
        try:
            server.process.wait(STOP_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
        server.says.close()

    def _running_server(self, log: Path) -> _Server:
        if self._server is not None and self._server.process.poll() is None:
            return self._server
        self.close()
        log.parent.mkdir(parents=True, exist_ok=True)
        (their_jobs, jobs), (says, their_says) = Pipe(duplex=False), Pipe(duplex=False)
        with log.open("ab") as errors, their_jobs, their_says:
            theirs = (their_jobs.fileno(), their_says.fileno())
            process = subprocess.Popen(
                [sys.executable, "-m", "study.run.trial_server", *map(str, theirs)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=theirs,
                env=own_environment(),
                # Out of reach of a terminal's Ctrl-C and of Ray, which would kill it together with its worker.
                start_new_session=True,
            )
        self._server = _Server(process, jobs, says)
        return self._server

    def _heard(self, server: _Server) -> dict[str, Any] | None:
        """What is said next; None when the server has ended. Raises TimeoutError where nothing is for too long."""
        with suppress(EOFError):
            if not server.says.poll(self._stall_seconds):
                raise TimeoutError
            said: dict[str, Any] = server.says.recv()
            return said
        return None

    def _kill(self, child: int) -> None:
        """End a training that hangs, and its server with it: what it will still say is of no interest."""
        server, self._server = self._server, None
        if server is None:
            return
        with suppress(ProcessLookupError):
            if child:
                os.killpg(child, signal.SIGKILL)
        server.process.kill()
        server.process.wait()
        server.jobs.close()
        server.says.close()


def memory_kills() -> int:
    """How many processes the system has killed for want of memory, in this process' control group or machine."""
    counters = [Path("/proc/vmstat")]
    with suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        groups = [line.split(":", 2)[2].lstrip("/") for line in lines if line.startswith("0:")]
        counters = [*(Path("/sys/fs/cgroup", group, "memory.events") for group in groups), *counters]
    for path in counters:
        with suppress(OSError, ValueError):
            fields = dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())
            if "oom_kill" in fields:
                return int(fields["oom_kill"])
    return 0


def _ending(code: int, *, out_of_memory: bool) -> Ending:
    if out_of_memory and code in (FAILED, -signal.SIGKILL):
        return Ending(code=INFEASIBLE, reason="out of memory: the system killed a process of the training")
    if code == -signal.SIGKILL:
        return Ending(code=code, reason="its process was killed")
    if code < 0:
        return Ending(code=code, reason=f"its process ended by {signal.Signals(-code).name}")
    return Ending(code=code, reason="" if code in TOLD_CODES else f"its process ended with code {code}")


def own_environment() -> dict[str, str]:
    """This process' environment with our own package first: the checkout wins over anything installed.

    Without nnU-Net's variables, which it reads as it is imported: a trial sets its own.
    """
    root = str(Path(__file__).resolve().parents[2])
    rest = os.environ.get("PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NNUNET_PREFIX)}
    return {**kept, **temporary_variables(), "PYTHONPATH": f"{root}{os.pathsep}{rest}" if rest else root}

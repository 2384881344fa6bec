"""Runs trials in processes of their own and watches over them: whoever calls it survives whatever a training does.

A host starts one `trial_server` when it is first needed and keeps it for the next trial. It relays what the training
says of its progress, ends one that says nothing for too long, and tells a process that the system killed for want of
memory from one that somebody else killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.common.process import temporary_variables
from study.nnunet.datasets import NNUNET_PREFIX
from study.run.trial_process import FAILED, INFEASIBLE, STOP_GRACE_SECONDS, TOLD_CODES, TrialJob

Told = Callable[[dict[str, Any]], None]
MEMORY_EVENTS = "memory.events"
READ_BYTES = 65536


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a training process ended.

    Attributes:
        code: its exit code, negative for a signal; None when its server died with it or before it.
        reason: what the process could not say itself, in one line, empty when it could.
    """

    code: int | None
    reason: str = ""


class TrialHost:
    """Starts trainings one at a time. Close it, or use it as a context manager.

    Args:
        stall_seconds: a training that says nothing for so long is killed.
    """

    def __init__(self, *, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._server: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def __enter__(self) -> TrialHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, job: TrialJob, log: Path, told: Told = lambda _: None) -> Ending:
        """Train the job's trial until its process ends.

        Args:
            job: what to train.
            log: where the server's own errors go, should it not start.
            told: called with what the training says: `iteration` and `phase`.
        """
        kills = memory_kills()
        server = self._running_server(log)
        child = 0
        try:
            _write(server, job.to_json() + "\n")
            while (said := self._next(server)) is not None and "ended" not in said:
                child = said.get("started", child)
                told(said)
        except _Stalled:
            reason = f"no progress for {self._stall_seconds / 60:g} minutes, so its process was ended"
            self._kill(child)
            return Ending(code=-signal.SIGKILL, reason=reason)
        except BaseException:
            self.close()
            raise
        if said is None:
            # A training whose server is killed goes on: this is read when it, too, has ended.
            self.close()
            return Ending(code=None, reason="the process that starts trainings was killed or could not start")
        return _ending(int(said["ended"]), out_of_memory=memory_kills() > kills)

    def close(self) -> None:
        """Have the training, if any, write its checkpoint and end, and the server with it."""
        server, self._server, self._unread = self._server, None, b""
        if server is None:
            return
        with suppress(OSError):
            if server.stdin:
                server.stdin.close()
        try:
            server.wait(STOP_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if server.stdout:
            server.stdout.close()

    def _running_server(self, log: Path) -> subprocess.Popen[bytes]:
        if self._server is not None and self._server.poll() is None:
            return self._server
        self.close()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "study.run.trial_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(),
                # Out of reach of a terminal's Ctrl-C and of Ray, which would kill it together with its worker.
                start_new_session=True,
            )
        return self._server

    def _next(self, server: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """What is said next; None when the server has ended."""
        pipe = server.stdout.fileno() if server.stdout else -1
        deadline = time.monotonic() + self._stall_seconds
        while b"\n" not in self._unread:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise _Stalled
            read = os.read(pipe, READ_BYTES)
            if not read:
                return None
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def _kill(self, child: int) -> None:
        """End a training that hangs, and its server with it: what it will still say is of no interest."""
        server, self._server, self._unread = self._server, None, b""
        for kill, pid in ((os.killpg, child), (os.kill, server.pid if server else 0)):
            with suppress(ProcessLookupError):
                if pid:
                    kill(pid, signal.SIGKILL)
        if server:
            server.wait()


class _Stalled(Exception):
    """Nothing was said for too long."""


def memory_kills() -> int:
    """How many processes the system has killed for want of memory, in this process' control group or machine."""
    for path, name in (*((path, "oom_kill") for path in _memory_events()), (Path("/proc/vmstat"), "oom_kill")):
        with suppress(OSError, ValueError):
            fields = dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())
            if name in fields:
                return int(fields[name])
    return 0


def _memory_events() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    with suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        return [root / line.split(":", 2)[2].lstrip("/") / MEMORY_EVENTS for line in lines if line.startswith("0:")]
    return []


def _ending(code: int, *, out_of_memory: bool) -> Ending:
    if out_of_memory and code in (FAILED, -signal.SIGKILL):
        return Ending(code=INFEASIBLE, reason="out of memory: the system killed a process of the training")
    if code == -signal.SIGKILL:
        return Ending(code=code, reason="its process was killed")
    if code < 0:
        return Ending(code=code, reason=f"its process ended by {signal.Signals(-code).name}")
    return Ending(code=code, reason="" if code in TOLD_CODES else f"its process ended with code {code}")


def _write(server: subprocess.Popen[bytes], line: str) -> None:
    with suppress(BrokenPipeError):  # seen when its answer is read
        if server.stdin:
            server.stdin.write(line.encode())
            server.stdin.flush()


def _environment() -> dict[str, str]:
    """This process' environment with our own package first: the checkout wins over anything installed.

    Without nnU-Net's variables, which it reads as it is imported: a trial sets its own.
    """
    root = str(Path(__file__).resolve().parents[2])
    rest = os.environ.get("PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NNUNET_PREFIX)}
    return {**kept, **temporary_variables(), "PYTHONPATH": f"{root}{os.pathsep}{rest}" if rest else root}

"""Locks in tests: real processes that hold them, and records as somebody elsewhere would have left them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from study.buckets.lease import Lease
from study.buckets.storage import Storage
from study.store.holders import FolderLock, Holder, Lock
from study.store.locks import held

WAIT_SECONDS = 600.0
DAY_SECONDS = 86400.0


@dataclass
class Clock:
    """Stands for the module `time`: sleeping takes no time, and something may happen meanwhile."""

    now: float = 0.0
    meanwhile: Callable[[], object] = lambda: None
    slept: list[float] = field(default_factory=list)
    time = staticmethod(time.time)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.meanwhile()


# Takes the lock, says so, does something, and says what came of it. The first argument is the lock.
WORKER = """
import os, sys, time
from pathlib import Path
from study.store import locks
say = lambda word: os.write(1, f"{{word}}\\n".encode())
lock = Path(sys.argv[1])
{before}
with locks.held(lock):
    say("holding")
    {work}
say("released")
"""
SLEEP = "time.sleep(600)"
QUICK = "locks.BEAT_SECONDS = 0.02"


@contextmanager
def worker(lock: Path, *, before: str = "", work: str = SLEEP) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock, killed at the end if the test has not done it."""
    command = [sys.executable, "-c", WORKER.format(before=before, work=work), str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert line_from(process) == "holding"
            yield process
        finally:
            process.kill()


def line_from(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (given := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return given


def take(lock: Path | Lock) -> list[str]:
    """Take the lock and release it; what was said about a former holder."""
    said: list[str] = []
    with held(lock, on_takeover=said.append):
        assert is_mine(lock)
    return said


def living(lock: Path | Lock) -> list[Holder]:
    """Who claims the lock and may live, by its records alone."""
    claims = (FolderLock(lock) if isinstance(lock, Path) else lock).claims()
    return [claim.holder for claim in claims if claim.holder is not None and claim.may_live]


def is_mine(lock: Path | Lock) -> bool:
    return [(found.pid, found.host) for found in living(lock)] == [(os.getpid(), socket.gethostname())]


def records(lock: Path) -> list[str]:
    return sorted(path.name for path in lock.iterdir())


def elsewhere(**changes: Any) -> dict[str, Any]:
    """The record of a process on another machine, whose pid lives here, and of whom nobody here can say if it does."""
    usual = Holder(host="node-7", machine="another boot", pid=os.getpid(), born=1, since=1.7e9, token="0" * 32)
    return {**asdict(usual), **changes}


def write_record(
    lock: Path | Lock, holder: dict[str, Any] | str, *, age_seconds: float = 0.0, number: int = 1, name: str = "study"
) -> Path:
    """The file of a record as a holder elsewhere would have left it so long ago, in a folder or a storage on disk."""
    text = holder if isinstance(holder, str) else json.dumps(holder)
    if isinstance(lock, Lease):
        key = put_lock(lock.storage, number, json.loads(text), name)
        record = Path(lock.storage.url.removeprefix("file://"), key)
    else:
        folder = lock if isinstance(lock, Path) else lock.folder  # type: ignore[attr-defined]
        folder.mkdir(exist_ok=True)
        record = folder / f"{number:06d}.json"
        record.write_text(text)
    os.utime(record, times=(time.time() - age_seconds,) * 2)
    return record


def put_lock(storage: Storage, number: int, holder: dict[str, Any], name: str = "study") -> str:
    """The key of a record that somebody has put just now."""
    key = f"locks/{name}/{number:06d}-{holder['token']}.json"
    storage.write(key, json.dumps({**holder, "renewed": time.time()}).encode())
    return key


def shift(record: Path, seconds: float = 5.0) -> None:
    """Renew a record by so much, as a holder's own clock counts, whatever time that is."""
    stamp = record.lstat().st_mtime_ns + int(seconds * 1e9)
    os.utime(record, ns=(stamp, stamp), follow_symlinks=False)


@contextmanager
def beating(record: Path) -> Iterator[None]:
    """Somebody renews the record now and then."""
    command = [sys.executable, "-c", f"import os, time\nwhile True: os.utime({str(record)!r}); time.sleep(0.05)"]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()

"""Neighbours of a trial on its node: processes that work all the time and are no children of the test's.

A child would be charged to the trial that the test trains.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def busy_neighbours(count: int = 1) -> Iterator[None]:
    """So many of them, on the cores that this process may use, killed by their ids in the end."""
    detached = f"{sys.executable} -c 'while True: pass' >/dev/null 2>&1 & echo $!"
    pids = []
    try:
        for _ in range(count):
            started = subprocess.run(["sh", "-c", detached], stdout=subprocess.PIPE, check=True, timeout=600)
            pids.append(int(started.stdout))
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def on_one_core() -> Iterator[None]:
    """This process, and what it starts meanwhile, on one core: neighbours then take the trial's time and no more.

    Beside a neighbour on the other thread of a core, or in the same cache, the same work takes more CPU time, too.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)

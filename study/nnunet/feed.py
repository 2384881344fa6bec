"""Hands a training its batches, and never lets it hang for want of one.

A thread takes batches from torch's DataLoader, or draws them itself when there are no worker processes; the training
waits for the thread in short polls. So a wait ends when a stop is requested, or when nothing has come for too long,
whatever the thread is blocked in: a worker that was stopped or sits on a dead file server, the socket through which a
batch's memory is handed over, the thread that pins it.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.util import Finalize, get_temp_dir
from typing import Any

from torch.utils.data import DataLoader

from study.common.errors import NoBatchError
from study.nnunet.batches import Batch, Batches, Schedule

POLL_SECONDS = 0.25
# Batches that a worker has begun or finished before they are asked for.
PREFETCHED_PER_WORKER = 4
# Batches of workers that lie ready in this process; without workers none, as drawing them would disturb the seeds.
READY = 2
# From the moment a process no longer answers to the moment it is seen to have ended.
DYING_SECONDS = 1.0


class Feed:
    """An iterator over a schedule's batches in order. Its processes end with it, or with `close`.

    Args:
        batches: draws them.
        schedule: which ones.
        workers: processes that draw them, 0 for none; does not change the batches.
        pin_memory: whether they arrive in pinned memory.
        stop_requested: asked while there is none.
        stall_seconds: how long to wait for one.

    Attributes:
        workers: the processes that draw.
    """

    def __init__(
        self,
        batches: Batches,
        schedule: Schedule,
        *,
        workers: int,
        pin_memory: bool = False,
        stop_requested: Callable[[], bool] = lambda: False,
        stall_seconds: float = float("inf"),
    ) -> None:
        self._stop_requested, self._stall_seconds = stop_requested, stall_seconds
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=schedule,
            num_workers=workers,
            pin_memory=pin_memory,
            prefetch_factor=PREFETCHED_PER_WORKER if workers else None,
            worker_init_fn=_leave_signals_to_the_trial,
            # Elsewhere, and from Python 3.14 on everywhere, the default starts each process with a new import of torch.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        # Workers inherit it for their sockets. One of their own, as they are killed, would stay.
        get_temp_dir()
        # Without torch's signal handler: it raises wherever the training is when a worker dies.
        before = signal.getsignal(signal.SIGCHLD)
        source = iter(loader)
        if signal.getsignal(signal.SIGCHLD) is not before:
            signal.signal(signal.SIGCHLD, before)
        self.workers: list[Any] = list(getattr(source, "_workers", ()))
        self._tickets = threading.Semaphore(READY if self.workers else 0)
        self._drawn: queue.SimpleQueue[Batch | BaseException] = queue.SimpleQueue()
        self._end: BaseException | None = None
        closed = threading.Event()
        # Also runs when the interpreter exits, before multiprocessing waits for its children.
        self.close = Finalize(self, _close, args=(closed, self._tickets, self.workers), exitpriority=0)
        threading.Thread(
            target=_draw, args=(source, self._tickets, self._drawn, closed), daemon=True, name="batches"
        ).start()

    def __iter__(self) -> Iterator[Batch]:
        """Itself."""
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            NoBatchError: a stop is requested and there is none yet, none has come for too long, or a worker has died.
        """
        if self._end is None:
            self._tickets.release()
            drawn = self._wait()
            if not isinstance(drawn, BaseException):
                return drawn
            self._end = self._named(drawn)
        raise self._end

    def _named(self, end: BaseException) -> BaseException:
        """A dead worker in plain words: torch has several errors for it, by where its batch was at the time."""
        if isinstance(end, StopIteration):
            return end
        died = wait([worker.sentinel for worker in self.workers], timeout=DYING_SECONDS)
        pids = ", ".join(str(worker.pid) for worker in self.workers if worker.sentinel in died)
        if not pids:
            return end
        error = NoBatchError(f"data worker {pids} was killed or has died")
        error.__cause__ = end
        return error

    def _wait(self) -> Batch | BaseException:
        begun = time.monotonic()
        while True:
            try:
                return self._drawn.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if self._stop_requested():
                    raise NoBatchError("a stop was requested while there was no batch") from None
                if time.monotonic() - begun >= self._stall_seconds:
                    minutes = f"no batch has come for {self._stall_seconds / 60:g} minutes"
                    raise NoBatchError(f"{minutes}, from {len(self.workers)} data workers") from None


def _draw(
    source: Iterator[Batch],
    tickets: threading.Semaphore,
    drawn: queue.SimpleQueue[Batch | BaseException],
    closed: threading.Event,
) -> None:
    while tickets.acquire() and not closed.is_set():
        try:
            drawn.put(next(source))
        except BaseException as error:  # whatever it is, it is raised where the batch is awaited
            drawn.put(error)
            return


def _close(closed: threading.Event, tickets: threading.Semaphore, workers: list[Any]) -> None:
    closed.set()
    tickets.release()
    for worker in workers:
        # A stopped process ends by nothing less, and holds nothing that anybody needs.
        worker.kill()


def _leave_signals_to_the_trial(_: int) -> None:
    """A terminal and some schedulers signal every process of a trial; it still needs its workers for its checkpoint.

    They end with the loader, or within seconds of a trial that was killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

"""Requests to stop that come as signals, one of which is often sent twice: to a process and to its group."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# `timeout`, a terminal and a batch system send one request so close together.
REPEAT_SECONDS = 1.0


class Requests:
    """Tells a request from the repetition of the last one.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None

    def is_new(self) -> bool:
        """Whether the signal that has just come is a request of its own."""
        now = self._clock()
        if self._last is not None and now - self._last < REPEAT_SECONDS:
            return False
        self._last = now
        return True


@contextmanager
def interrupts() -> Iterator[None]:
    """Within the block SIGTERM is as Ctrl-C is, a KeyboardInterrupt, and each request is one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    requests = Requests()

    def interrupt(*_: object) -> None:
        if requests.is_new():
            raise KeyboardInterrupt

    # One that is ignored, as in the background of a script, stays so.
    taken = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in taken}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action or signal.SIG_DFL)

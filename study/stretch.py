"""Stretches of work, timed while open and reported when they close: iterations of one stage, or anything else."""

from __future__ import annotations

import time
from collections.abc import Callable


class Stretch:
    """Times consecutive iterations of one stage.

    Args:
        position: gives the index of the next iteration.
        report: told the stage, the first iteration and the seconds of every stretch that closes.
        settle: waits until the iterations so far are done, before the clock is read.
    """

    def __init__(
        self,
        position: Callable[[], int],
        report: Callable[[int | None, int, float], None],
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._position, self._report, self._settle = position, report, settle
        self._stage: int | None = None
        self.reopen()

    @property
    def seconds(self) -> float:
        """How long it has been open."""
        return time.perf_counter() - self._started

    def enter(self, stage: int) -> None:
        """Go on at a stage; another one closes the stretch of the last."""
        if stage != self._stage:
            self.close()
            self._stage = stage

    def close(self) -> None:
        """Report the iterations since it opened, if any, and open again."""
        if self._position() > self._first:
            self._settle()
            self._report(self._stage, self._first, self.seconds)
        self.reopen()

    def reopen(self) -> None:
        """Open anew from here, leaving out the time since it closed."""
        self._first = self._position()
        self._started = time.perf_counter()


class Interval:
    """Any work: closing reports the seconds since it was last closed, and starts again."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long it has been open."""
        return time.perf_counter() - self._started

    def close(self) -> None:
        """Report, and open again."""
        seconds = self.seconds
        self._started += seconds
        self._report(seconds)

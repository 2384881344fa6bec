"""Stretches of work, timed while open and reported when they close: iterations of one stage, or anything else.

Where every iteration draws its stage, a stretch is of many stages: it closes as seldom as any other, so that reading
the meter and waiting for the device stay rare, and says what each of them had of its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

from study.readings import StagePart


class Device(Protocol):
    """Where iterations are done, see `steps`: a clock is right once it is settled, marks are times to come."""

    def settle(self) -> None: ...

    def mark(self) -> Any: ...

    def seconds_between(self, first: Any, second: Any) -> float: ...


class Stretch:
    """Times consecutive iterations of one stage, or of stages drawn one by one.

    Args:
        position: gives the index of the next iteration.
        report: told the stage, the first iteration, the seconds and the parts of every stretch that closes.
        device: of the iterations.
    """

    def __init__(
        self,
        position: Callable[[], int],
        report: Callable[[int | None, int, float, tuple[StagePart, ...]], None],
        device: Device,
    ) -> None:
        self._position, self._report, self._device = position, report, device
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

    def drawn(self, stage: int) -> None:
        """The iteration just done was of a stage drawn for it alone."""
        self._draws.append((stage, self._device.mark()))

    def close(self) -> None:
        """Report the iterations since it opened, if any, and open again."""
        if self._position() > self._first:
            self._device.settle()
            seconds = self.seconds
            self._report(self._stage, self._first, seconds, self._parts(seconds))
        self.reopen()

    def reopen(self) -> None:
        """Open anew from here, leaving out the time since it closed."""
        self._first = self._position()
        self._started = time.perf_counter()
        self._draws: list[tuple[int | None, Any]] = [(None, self._device.mark())]

    def _parts(self, seconds: float) -> tuple[StagePart, ...]:
        """The seconds by stage, in the ratio of those between marks."""
        if len(self._draws) - 1 != self._position() - self._first:
            return ()
        spent: dict[int, list[float]] = {}
        for (_, before), (stage, after) in pairwise(self._draws):
            if stage is not None:
                spent.setdefault(stage, []).append(self._device.seconds_between(before, after))
        whole = sum(map(sum, spent.values()))
        return tuple(
            StagePart(stage=stage, iterations=len(laps), seconds=seconds * sum(laps) / whole)
            for stage, laps in sorted(spent.items())
        )


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

"""Following a trial from outside, and asking it to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from study.errors import TrialInterrupted
from study.records import EpochReport, Phase, TrialSpec
from study.signals import Requests


class Progress:
    """Follows a trial; override what is of interest.

    Attributes:
        wants_forecast: whether it is told how long the training will take, for which a step is timed.
    """

    wants_forecast = False

    def begin(self, spec: TrialSpec, first_iteration: int) -> None:
        """The training starts, or resumes, at an iteration."""

    def iteration_done(self, report: Any) -> None:
        """One training iteration is done (`trainer.IterationReport`)."""

    def epoch_done(self, report: EpochReport) -> None:
        """One epoch is done."""

    def phase(self, phase: Phase) -> None:
        """Another kind of work starts."""

    def remark(self, text: str) -> None:
        """Something to know of the data, before the training starts."""

    def validating(self, number: int) -> None:
        """The final validation begins with its case of this number, from one."""

    def alive(self) -> None:
        """Something is going on, though none of the above happens."""


class StopRequest:
    """Set by a signal handler; what is deferred goes on to a place where it can stop, anything else ends at once."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False
        self._requests = Requests()

    def signal(self, *_: object) -> None:
        """Handle SIGINT or SIGTERM."""
        if not self._requests.is_new():
            return
        self.requested = True
        if not self._deferred:
            self.check()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise nothing within the block, but after it: inside a library that catches everything it would be lost."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before
        if not before:
            self.check()

    def check(self) -> None:
        """Raise TrialInterrupted when a stop has been requested."""
        if self.requested:
            raise TrialInterrupted("stopped outside the training loop")

"""Ray Tune in a thread of its own that can be told to end, so that the main thread is free to take signals.

It must be over before Ray goes down: a thread that asks a Ray that is gone for anything ends the whole process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray import tune
from ray.tune.execution import class_cache

from study.cluster.work import OUT_OF_DISK, OUTCOME, REASON
from study.errors import LedgerError, StudyError, TrialInterrupted

# How long Tune may take to leave its loop, which turns several times a second.
END_SECONDS = 30.0


class EndOnRequest(tune.Callback):
    """Makes Tune's loop break off once `now` is set; keeps in `full` what was said of a disk that ran full."""

    def __init__(self) -> None:
        self.now = threading.Event()
        self.full: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its callbacks to a file, which nobody reads back.
        return {}

    def on_step_begin(self, iteration: int, trials: Iterable[Any], **info: Any) -> None:
        """Raise TrialInterrupted when it is time."""
        if self.now.is_set():
            raise TrialInterrupted("the study is being stopped")

    def on_trial_result(
        self, iteration: int, trials: Iterable[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        """Note a full disk: the other trials share it."""
        if result.get(OUTCOME) == OUT_OF_DISK:
            self.full = str(result[REASON])


class TuneThread(threading.Thread):
    """Runs a tuner.

    Args:
        make_tuner: makes the tuner, given the callback that it must have.
    """

    def __init__(self, make_tuner: Callable[[EndOnRequest], tune.Tuner]) -> None:
        super().__init__(daemon=True)
        # Tune would copy these of our variables, AWS' secrets among them, into each actor's runtime environment, which
        # Ray's agent writes to a log.
        class_cache.ENV_VARS_TO_PROPAGATE = set()
        self._request = EndOnRequest()
        self._tuner = make_tuner(self._request)
        self._results: Any = ()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Run the tuner to its end; called by `start`."""
        try:
            self._results = self._tuner.fit()
        except BaseException as error:  # handed to the thread that waits
            self._failure = error

    @property
    def full_disk(self) -> str | None:
        """What a trial could not write because there was no room, if one could not."""
        return self._request.full

    def end(self) -> None:
        """Have the loop break off if it still turns, and wait until it is over."""
        self._request.now.set()
        if self.is_alive():
            self.join(END_SECONDS)

    def failures(self) -> list[str]:
        """A line for each point that was lost with its worker or node too often, or that our own code broke on.

        Raises:
            LedgerError: Tune itself broke.
        """
        if self._failure is not None:
            text = f"Ray Tune stopped: {type(self._failure).__name__}: {self._failure}"
            raise LedgerError(text) from self._failure
        return [_line(result.error) for result in self._results if result.error]


def _line(error: object) -> str:
    """An error from a worker in one line, without the traceback that Ray adds."""
    cause = getattr(error, "cause", None) or error
    text = " ".join(str(cause).split())
    return text if isinstance(cause, StudyError) else f"{type(cause).__name__}: {text}"

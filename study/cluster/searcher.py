"""Ray Tune's view of a proposer: Tune asks for a configuration and says what came of it.

A configuration is `{"number": ..., "point": {...}}`. The trainable's last report holds `outcome`, the value of a
`TrialState`, and every measured objective when that is `finished`; any other word says why the trial was interrupted. A
trial without an outcome was lost with its worker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ray.tune.search import Searcher

from study.common.errors import StudyError
from study.search.proposers import Proposer
from study.search.space import OBJECTIVES
from study.store.outcomes import Outcome
from study.store.trial_folder import TrialState

LOST = "lost with its worker"
STATES = {state.value for state in TrialState}


class PointSearcher(Searcher):
    """A Tune searcher that hands out a proposer's points.

    Args:
        proposer: decides what is trained.
    """

    def __init__(self, proposer: Proposer) -> None:
        super().__init__()
        self._proposer = proposer
        self._numbers: dict[str, int] = {}
        self._failure: StudyError | None = None

    @property
    def remaining(self) -> int:
        return self._proposer.remaining

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its searcher to a file, which nobody reads back.
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next point, FINISHED when there is none; nothing for now while a failed search waits for its trials.

        Raises:
            StudyError: the search cannot go on, and nothing is being trained any more.
        """
        try:
            if self._failure is not None:
                raise self._failure
            proposal = self._proposer.propose()
        except StudyError as error:
            self._failure = error
            if self._numbers:
                return None
            raise
        if proposal is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = proposal.number
        return {"number": proposal.number, "point": dict(proposal.point)}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        number = self._numbers.pop(trial_id, None)
        if number is not None:
            self._proposer.tell(number, reported(None if error else result))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a study is resumed from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


def reported(result: Mapping[str, Any] | None) -> Outcome:
    """The outcome that a trainable's last report tells.

    Args:
        result: the report with whatever Tune adds to it; None or empty for a trial that was lost.
    """
    if not result or "outcome" not in result:
        return Outcome(state=TrialState.FAILED, reason=LOST)
    if result["outcome"] not in STATES:
        return Outcome(state=TrialState.INTERRUPTED, reason=str(result["outcome"]))
    values = {name: result.get(name) for name in OBJECTIVES}
    measured = {n: value for n, value in values.items() if isinstance(value, int | float) and math.isfinite(value)}
    return Outcome(state=TrialState(result["outcome"]), values=measured, reason=result.get("reason"))

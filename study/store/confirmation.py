"""What confirming a study came to: a verdict for each point, stored beside the ledger's records and made from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from study.store.stored import Amount, Stored, Whole

Verdict = Literal["on the front", "not on the front", "undecided"]
ON: Verdict = "on the front"
OFF: Verdict = "not on the front"
UNDECIDED: Verdict = "undecided"
Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, kw_only=True)
class Confirmed(Stored):
    """A point and what is said of it.

    Attributes:
        number: of the point in the ledger; settings: name -> value of what was searched.
        probability: P(on front).
        dice: mean over the trainings that it is judged on, folds weighing the same; None if there are none.
        dice_of_search: mean over those of the search.
        costs: objective -> what the search measured.
        folds, seeds, trainings: that it is judged on.
        gpu_hours: spent on confirming it.
        trial_ids: of the search, then those that it is judged on.
    """

    number: Whole
    dataset: str
    settings: Mapping[str, str | float | int | bool | None]
    verdict: Verdict
    probability: Share
    dice: Share | None
    dice_of_search: Share
    costs: Mapping[str, Amount]
    folds: tuple[Whole, ...]
    seeds: tuple[Whole, ...]
    trainings: Whole
    gpu_hours: Amount
    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Confirmation(Stored):
    """All points with a result, by number.

    Attributes:
        objectives: Dice and costs; folds, seeds: that may be trained.
        max_gpu_hours: that may be spent, None for no limit.
        gpu_hours: spent, or predicted for what is under way; gpu_hours_of_everything: of all points on all these folds.
        trainings: finished that points are judged on.
    """

    objectives: tuple[str, ...]
    folds: tuple[Whole, ...]
    seeds: tuple[Whole, ...]
    max_gpu_hours: Amount | None
    gpu_hours: Amount
    gpu_hours_of_everything: Amount
    trainings: Whole
    points: tuple[Confirmed, ...]

    def words(self) -> str:
        """How it stands, in a line."""
        count = Counter(point.verdict for point in self.points)
        verdicts = f"{count[ON]} on the front, {count[OFF]} not, {count[UNDECIDED]} undecided"
        limit = "" if self.max_gpu_hours is None else f" of {self.max_gpu_hours:.3g}"
        return (
            f"confirmed: {verdicts}; {self.trainings} trainings, {self.gpu_hours:.3g}{limit} GPU-hours "
            f"(all points on these folds: {self.gpu_hours_of_everything:.3g})"
        )

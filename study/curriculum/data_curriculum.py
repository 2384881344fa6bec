"""The data curriculum: which training cases an iteration may draw (Progressive Deep Learning, PDL).

A training starts on the cases that are most dissimilar from the others and goes on with all of them (AAPM 2020; Choi et
al., Med Phys 2023;50:5075). Which cases an iteration may draw depends on its index alone, like its patch size, so the
two curricula combine freely and a resumed training needs to know nothing else. How similar cases are is for the ranking
to say; only its order arrives here.

And when a training may end before its last epoch: as soon as its smoothed validation Dice reaches a target. That Dice
is the mean foreground pseudo Dice over the fixed validation batches, patches of the full size, not the criterion of the
PDL poster, whose Dice is of the validation set. Single evaluations jump, so it is the mean of the last three. The
decision is a function of the evaluations alone, so the trainer that takes it, one that resumes, and whoever checks the
records later come to the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from study.common.errors import InvalidInputError, check_count, check_range
from study.common.setting import CountOrShare

METRICS = ("mse", "psnr", "ssim", "uqi", "mean-rank")
"""What cases may be ranked by: a measure of similarity, or the mean of the ranks by several of them."""
DEFAULT_METRIC = "mean-rank"
# Ours. The poster says "a fixed number of epochs"; the AAPM 2020 abstract 10 for CT, 20 for MRI, passes over the cases.
DEFAULT_EPOCHS = 0.25


@dataclass(frozen=True, kw_only=True)
class DataCurriculum:
    """A first phase that draws some of the training cases; afterwards all may be drawn.

    Attributes:
        cases: training cases of the first phase, sorted by name: in which order they were ranked decides nothing.
        until_iteration: first iteration that may draw every training case.

    Raises:
        InvalidInputError: no case, cases out of order or twice, or a phase without an iteration.
    """

    cases: tuple[str, ...]
    until_iteration: int

    def __post_init__(self) -> None:
        # A list, as JSON has it, is taken too.
        object.__setattr__(self, "cases", tuple(self.cases))
        if not self.cases or list(self.cases) != sorted(set(self.cases)):
            legal = "at least one training case, sorted, each once"
            raise InvalidInputError(field="cases of the first phase", received=list(self.cases), legal=legal)
        check_count("until_iteration", self.until_iteration)

    def allowed(self, iteration: int) -> tuple[str, ...] | None:
        """The cases that an iteration may draw, None for all training cases."""
        return self.cases if iteration < self.until_iteration else None

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Self | None:
        """Inverse of `serialize.record_to_json`; None, of a specification without a data curriculum, stays None."""
        return None if data is None else cls(**data)


def phase_iterations(pdl_epochs: int | float, *, epochs: int, iterations_per_epoch: int) -> int:
    """Length of the first phase, which ends with an epoch, in iterations, of which a budget may leave fewer per epoch.

    It is a whole number of epochs, or a share of them: rounded half up, at least one.

    Raises:
        InvalidInputError: more epochs than the training has.
    """
    CountOrShare(of="epochs").check("pdl_epochs", pdl_epochs)
    wanted = pdl_epochs if isinstance(pdl_epochs, int) else max(1, math.floor(pdl_epochs * epochs + 0.5))
    if wanted > epochs:
        legal = f"at most the {epochs} epochs of the training, or a share of them above 0 and below 1"
        raise InvalidInputError(field="pdl_epochs", received=pdl_epochs, legal=legal)
    return wanted * iterations_per_epoch


def resolve_cases(ranked: Sequence[str], fraction: float) -> tuple[str, ...] | None:
    """The most dissimilar cases, sorted by name; None where that is all of them or none is asked for.

    Cases are ranked most dissimilar first; the fraction, 0 to 1, is rounded half up to whole ones.

    Raises:
        InvalidInputError: a fraction outside 0 to 1, or one above 0 that leaves no case.
    """
    check_range("pdl_fraction", fraction, 0.0, 1.0)
    size = math.floor(fraction * len(ranked) + 0.5)
    if fraction > 0 and size == 0:
        least = 0.5 / len(ranked) if ranked else 1.0
        legal = f"0, or at least {least:.3g}: less leaves no case of {len(ranked)}"
        raise InvalidInputError(field="pdl_fraction", received=fraction, legal=legal)
    return tuple(sorted(ranked[:size])) if 0 < size < len(ranked) else None


SMOOTHED_EVALUATIONS = 3
# A training without a sign of progress for so long hangs, unless the user says otherwise.
STALL_SECONDS = 1800.0


def smoothed_dice(evaluations: Sequence[float]) -> float | None:
    """Mean of the last three evaluations, None while there are fewer."""
    last = evaluations[-SMOOTHED_EVALUATIONS:]
    return sum(last) / SMOOTHED_EVALUATIONS if len(last) == SMOOTHED_EVALUATIONS else None


def stopping_epoch(pseudo_dice: Sequence[float | None], target: float | None) -> int | None:
    """Index of the first epoch that is evaluated and whose smoothed Dice is at least `target`; None if there is none.

    Dice is by epoch, None for one that was not evaluated or had no class to evaluate. The target is above 0; None never
    stops.
    """
    evaluations: list[float] = []
    for epoch, dice in enumerate(pseudo_dice):
        if dice is None or target is None:
            continue
        evaluations.append(dice)
        if (smoothed_dice(evaluations) or 0.0) >= target:
            return epoch
    return None

"""When a training may end before its last epoch: as soon as its smoothed validation Dice reaches a target.

The validation Dice is the mean foreground pseudo Dice over the fixed validation batches, patches of the full size. That
is not the criterion of the PDL poster, whose Dice is of the validation set. Single
evaluations jump, so it is smoothed: the mean of the last three. The decision is a function of the evaluations alone,
so the trainer that takes it, one that resumes, and whoever checks the records later come to the same.
"""

from __future__ import annotations

from collections.abc import Sequence

SMOOTHED_EVALUATIONS = 3
# A training without a sign of progress for so long hangs, unless the user says otherwise.
STALL_SECONDS = 1800.0


def smoothed_dice(evaluations: Sequence[float]) -> float | None:
    """Mean of the last three evaluations, None while there are fewer."""
    last = evaluations[-SMOOTHED_EVALUATIONS:]
    return sum(last) / SMOOTHED_EVALUATIONS if len(last) == SMOOTHED_EVALUATIONS else None


def stopping_epoch(pseudo_dice: Sequence[float | None], target: float | None) -> int | None:
    """Index of the first epoch that is evaluated and whose smoothed Dice is at least `target`; None if there is none.

    Args:
        pseudo_dice: by epoch; None for an epoch that was not evaluated, or in which no class was there to evaluate.
        target: Dice to stop at, above 0; None never stops.
    """
    evaluations: list[float] = []
    for epoch, dice in enumerate(pseudo_dice):
        if dice is None or target is None:
            continue
        evaluations.append(dice)
        if (smoothed_dice(evaluations) or 0.0) >= target:
            return epoch
    return None

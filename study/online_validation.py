"""What an epoch's validation batches came to, as nnU-Net's logger holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class OnlineValidation:
    """Loss, mean foreground Dice and Dice by class over the fixed batches; as it is, of an epoch without them."""

    loss: float | None = None
    dice: float | None = None
    dice_per_class: tuple[float | None, ...] = ()

    @classmethod
    def logged(cls, logger: Any) -> Self:
        """That of the epoch that nnU-Net's logger was last told of."""
        loss, dice = (float(logger.get_value(key, step=-1)) for key in ("val_losses", "mean_fg_dice"))
        by_class = logger.get_value("dice_per_class_or_region", step=-1)
        return cls(loss=loss, dice=_finite(dice), dice_per_class=tuple(_finite(float(value)) for value in by_class))


def log_none(logger: Any, labels: Any) -> None:
    """Repeat the last values: nnU-Net's log wants one per epoch for its progress.png; the ledger's report says None.

    Args:
        logger: nnU-Net's.
        labels: its label manager.
    """
    log = logger.local_logger.my_fantastic_logging
    classes = len(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
    firsts = {"val_losses": math.nan, "mean_fg_dice": 0.0, "ema_fg_dice": 0.0}
    for key, first in {**firsts, "dice_per_class_or_region": [math.nan] * classes}.items():
        log[key].append(log[key][-1] if log[key] else first)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

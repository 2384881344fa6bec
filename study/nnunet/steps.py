"""How iterations are executed and timed, and what validation came to: nnU-Net's own steps, as a CPU runs them.

`cuda_steps` has those of a GPU.

Iterations are timed in stretches that are reported when they close. Where every iteration draws its stage, a stretch is
of many stages: it closes as seldom as any other, so that reading the meter and waiting for the device stay rare, and
says what each of them had of its time.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch

from study.store.readings import StagePart

Batch = dict[str, Any]


class StockSteps:
    """Executes the iterations of one training, here by nnU-Net's own steps."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def ready(self, stage: int, batch: Batch, iteration: int) -> None:
        """Make what the stage needs, given a batch of its shape, before the first of its iterations is seeded."""

    def train(self, stage: int, batch: Batch) -> float | torch.Tensor:
        """Train on a batch; its loss, which may wait for the device when it is read."""
        return float(self._trainer.train_step(batch)["loss"])

    def validate(self, batch: Batch, iteration: int) -> Any:
        """Evaluate a validation batch; see `outputs`."""
        return self._trainer.validation_step(batch)

    def observe(self, batch: Batch) -> None:
        """Run a batch through the network for what its layers take from it, without a gradient."""
        self._trainer.network(batch["data"].to(self._trainer.device))

    def outputs(self, validated: list[Any]) -> list[dict[str, Any]]:
        """What nnU-Net's `validation_step` would have returned for each batch."""
        return validated

    def settle(self) -> None:
        """Wait until all iterations are done, so that a clock read next is right."""

    def mark(self) -> Any:
        """A moment after the iterations so far, for `seconds_between`, without waiting for them."""
        return time.perf_counter()

    def seconds_between(self, first: Any, second: Any) -> float:
        """Seconds from one mark to a later one; only of what is settled."""
        return float(second - first)

    def close(self) -> None:
        """Free what was made."""


def read_losses(losses: Sequence[float | torch.Tensor]) -> list[float]:
    """Losses as numbers, waiting for the device once."""
    on_device = [loss for loss in losses if isinstance(loss, torch.Tensor)]
    values = iter(torch.stack(on_device).tolist() if on_device else ())
    return [next(values) if isinstance(loss, torch.Tensor) else float(loss) for loss in losses]


class IterationTimer:
    """Times consecutive iterations of one stage, or of stages drawn one by one.

    Args:
        position: gives the index of the next iteration.
        report: told the stage, the first iteration, the seconds and the parts of every stretch that closes.
        device: executes the iterations.
    """

    def __init__(
        self,
        position: Callable[[], int],
        report: Callable[[int | None, int, float, tuple[StagePart, ...]], None],
        device: StockSteps,
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
        self._draws: list[tuple[int, Any]] = [(-1, self._device.mark())]

    def _parts(self, seconds: float) -> tuple[StagePart, ...]:
        """The seconds by stage, in the ratio of those between marks."""
        if len(self._draws) - 1 != self._position() - self._first:
            return ()
        spent = defaultdict(list)
        for (_, before), (stage, after) in pairwise(self._draws):
            spent[stage].append(self._device.seconds_between(before, after))
        whole = sum(map(sum, spent.values()))
        return tuple(
            StagePart(stage=stage, iterations=len(laps), seconds=seconds * sum(laps) / whole)
            for stage, laps in sorted(spent.items())
        )


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

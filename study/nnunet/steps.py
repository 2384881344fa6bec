"""How an iteration is executed: nnU-Net's own step on a CPU, captured in CUDA graphs on a GPU (`cuda_steps`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from study.nnunet.cuda_steps import CudaSteps
from study.store.readings import StageExecution

Batch = dict[str, Any]
Announce = Callable[[StageExecution], None]


class Steps(Protocol):
    """Executes the iterations of one training."""

    def ready(self, stage: int, batch: Batch, iteration: int) -> None:
        """Make what the stage needs, given a batch of its shape, before the first of its iterations is seeded."""

    def train(self, stage: int, batch: Batch) -> float | torch.Tensor:
        """Train on a batch; its loss, which may wait for the device when it is read."""

    def validate(self, batch: Batch, iteration: int) -> Any:
        """Evaluate a validation batch; see `outputs`."""

    def outputs(self, validated: list[Any]) -> list[dict[str, Any]]:
        """What nnU-Net's `validation_step` would have returned for each batch."""

    def settle(self) -> None:
        """Wait until all iterations are done, so that a clock read next is right."""

    def mark(self) -> Any:
        """A moment after the iterations so far, for `seconds_between`, without waiting for them."""

    def seconds_between(self, first: Any, second: Any) -> float:
        """Seconds from one mark to a later one; only of what is settled."""

    def close(self) -> None:
        """Free what was made."""


class StockSteps:
    """nnU-Net's own steps, as a CPU runs them."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def ready(self, stage: int, batch: Batch, iteration: int) -> None:
        """Nothing is needed."""

    def train(self, stage: int, batch: Batch) -> float:
        """Train on a batch."""
        return float(self._trainer.train_step(batch)["loss"])

    def validate(self, batch: Batch, iteration: int) -> Any:
        """Evaluate a validation batch."""
        return self._trainer.validation_step(batch)

    def outputs(self, validated: list[Any]) -> list[dict[str, Any]]:
        """What they returned."""
        return validated

    def settle(self) -> None:
        """Nothing is under way."""

    def mark(self) -> float:
        """Now."""
        return time.perf_counter()

    def seconds_between(self, first: float, second: float) -> float:
        """By the clock."""
        return second - first

    def close(self) -> None:
        """Nothing was made."""


def make_steps(trainer: Any, announce: Announce) -> Steps:
    """The steps of an initialised trainer on its device."""
    return CudaSteps(trainer, announce) if trainer.device.type == "cuda" else StockSteps(trainer)


def read_losses(losses: Sequence[float | torch.Tensor]) -> list[float]:
    """Losses as numbers, waiting for the device once."""
    if any(isinstance(loss, torch.Tensor) for loss in losses):
        on_device = [loss for loss in losses if isinstance(loss, torch.Tensor)]
        values = iter(torch.stack(on_device).tolist())
        return [next(values) if isinstance(loss, torch.Tensor) else loss for loss in losses]
    return [float(loss) for loss in losses]

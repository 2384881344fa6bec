"""The learning rate of every iteration: a pure function of its index, so that a training resumes at any of them.

Two factors of the initial rate: the schedule's share, and the scaling with the batch size of the iteration's stage.
No torch: the optimizer is handed its rate as a number, outside of whatever a GPU captures.
"""

from __future__ import annotations

import math
from typing import Any

from study.curriculum.curriculum import Curriculum
from study.store.training_settings import LEARNING_RATE_SCALINGS, TrainingSettings

# That of nnU-Net's trainer with warm-up: 50 of 1000 epochs.
WARM_UP_SHARE = 0.05
# PyTorch's defaults of `OneCycleLR`: share of the iterations that rise, highest over first, first over last.
RISING_SHARE, FIRST_DIVISOR, LAST_DIVISOR = 0.3, 25.0, 1e4


def scheduled_share(settings: TrainingSettings, iteration: int, total: int) -> float:
    """Share of the initial learning rate that the schedule leaves to an iteration of 0 … total - 1, 0 to 1."""
    exponent = settings.learning_rate_exponent
    if settings.learning_rate_schedule == "cosine":
        return _between(1.0, 0.0, iteration / total)
    if settings.learning_rate_schedule == "one-cycle":
        return _one_cycle(iteration, total)
    if settings.learning_rate_schedule == "warmup":
        rising = max(1, round(WARM_UP_SHARE * total))
        if iteration < rising:
            return (iteration + 1) / rising
        return float((1 - (iteration - rising) / (total - rising)) ** exponent)
    epoch = iteration // (total // settings.epochs)
    return float((1 - epoch / settings.epochs) ** exponent)


def _one_cycle(iteration: int, total: int) -> float:
    first = 1 / FIRST_DIVISOR
    top = max(0.0, RISING_SHARE * total - 1)
    if iteration < top:
        return _between(first, 1.0, iteration / top)
    return _between(1.0, first / LAST_DIVISOR, (iteration - top) / max(1.0, total - 1 - top))


def _between(start: float, end: float, part: float) -> float:
    """Half a cosine from start to end."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


class LearningRates:
    """Sets the learning rate of a training; nnU-Net calls `step` as its scheduler's.

    Args:
        settings: resolved.
        curriculum: whose stages have the batch sizes.
        optimizer: whose groups of parameters are told; a checkpoint that is loaded gives it others.
    """

    def __init__(self, settings: TrainingSettings, curriculum: Curriculum, optimizer: Any = None) -> None:
        self._settings, self._curriculum, self._optimizer = settings, curriculum, optimizer

    def __call__(self, iteration: int) -> float:
        """The rate of an iteration."""
        curriculum, settings = self._curriculum, self._settings
        larger = curriculum.stage_at(iteration).batch_size / curriculum.geometry.batch_size
        scale = larger ** LEARNING_RATE_SCALINGS[settings.learning_rate_scaling]
        share = scheduled_share(settings, iteration, curriculum.total_iterations)
        return float((settings.initial_learning_rate or 0.0) * share * scale)

    def at(self, iteration: int) -> None:
        """Set the rate for an iteration."""
        rate = self(iteration)
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def step(self, epoch: int) -> None:
        """Set the rate for the first iteration of an epoch."""
        self.at(epoch * self._curriculum.total_iterations // self._settings.epochs)

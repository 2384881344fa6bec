"""A trainer that times its own work at single shapes: real batches, real steps, the real final validation.

Its curriculum has a stage for each shape and an epoch for each stage, so that a feed begun at a stage gives its batches
and one begun behind it the validation's. Nothing is learned: checkpoints, learning rates and reports are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from study.curriculum.chain import Size
from study.curriculum.curriculum import Stage
from study.nnunet.cuda_steps import make_steps
from study.nnunet.feed import Feed
from study.nnunet.trainer import nnUNetTrainerPGPS
from study.store.readings import NEVER
from study.store.specification import TrialSpec

# Of a shape's time, the part that warms it up, and the stretches that the rest is timed in.
_WARMING_SHARE, _STRETCHES = 0.4, 5
# Iterations that warm up, and that are timed, at the least.
_FEWEST_WARM, _FEWEST_TIMED = 2, 2
# More than are timed of any shape.
_MOST_ITERATIONS = 100_000


def timed_spec(spec: TrialSpec, shapes: Sequence[tuple[Size, int]]) -> TrialSpec:
    """A specification whose stages are these shapes (patch, batch); its steps are not compiled, which takes minutes."""
    stages = tuple(
        Stage(
            patch_size=patch,
            batch_size=batch,
            crops_per_volume=1,
            first_iteration=number * _MOST_ITERATIONS,
            iterations=_MOST_ITERATIONS,
        )
        for number, (patch, batch) in enumerate(shapes)
    )
    curriculum = replace(
        spec.curriculum, stages=stages, random_draws=False, total_iterations=len(stages) * _MOST_ITERATIONS
    )
    training = replace(spec.training, epochs=len(stages), validation_batches=_MOST_ITERATIONS, compile_network=NEVER)
    return replace(spec, curriculum=curriculum, training=training, data=None)


@dataclass(frozen=True, kw_only=True)
class Laps:
    """What timing found: seconds of one, for each stretch; and how many were timed in all."""

    seconds: tuple[float, ...]
    count: int


class TimedTrainer(nnUNetTrainerPGPS):
    """Times single shapes; see `timed_spec`. Call `on_train_start` first."""

    validated_cases: int | None = None

    def begin(self) -> None:
        """Start as a training does, and make its steps."""
        self.on_train_start()
        self.dataloader_train.close()
        self._steps = make_steps(self, self._stage_ready)
        self.network.train()

    def time_iterations(self, stage: int, seconds: float, warm: Callable[[], None]) -> Laps:
        """Time the iterations of a stage.

        Args:
            stage: of the curriculum.
            seconds: that the warming up and the timing take together, or a little more.
            warm: called when the timing begins.
        """
        self._steps.close()
        self._steps = make_steps(self, self._stage_ready)
        self.iteration = self._stages[stage].first_iteration
        with self._feed(stage, self.iteration):
            return self._timed(lambda: self._train_iteration(stage), seconds, warm)

    def time_validation(self, seconds: float, warm: Callable[[], None]) -> Laps:
        """The same of the batches of an online validation."""
        with self._feed(0, self._stages[0].iterations), torch.no_grad():
            self.network.eval()
            found = self._timed(lambda: self._steps.validate(next(self.dataloader_train), 0), seconds, warm)
            self.network.train()
        return found

    def time_final_validation(self, cases: int) -> float:
        """Seconds of nnU-Net's final validation of so many cases, its processes included."""
        self._steps.close()
        self.dataloader_train = None
        self.validated_cases = cases
        started = time.perf_counter()
        self.perform_actual_validation()
        return time.perf_counter() - started

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's, in the final validation only so many of the cases, from the middle of those sorted by size."""
        training, validation = super().do_split()
        if self.validated_cases is None:
            return training, validation
        by_size = sorted(validation, key=lambda case: (_size(self.preprocessed_dataset_folder, case), case))
        first = (len(by_size) - self.validated_cases) // 2
        return training, by_size[max(0, first) :][: self.validated_cases]

    @property
    def _stages(self) -> tuple[Stage, ...]:
        stages: tuple[Stage, ...] = self._job.curriculum.stages
        return stages

    @contextmanager
    def _feed(self, epoch: int, iteration: int) -> Iterator[None]:
        schedule = replace(self._schedule(), start_epoch=epoch, start_iteration=iteration)
        feed = Feed(
            self.make_batches(),
            schedule,
            workers=self._job.data_workers,
            pin_memory=self.device.type == "cuda",
            stall_seconds=self._job.stall_seconds,
        )
        self.dataloader_train = feed
        try:
            yield
        finally:
            feed.close()

    def _timed(self, once: Callable[[], Any], seconds: float, warm: Callable[[], None]) -> Laps:
        warming = self._repeated(once, _FEWEST_WARM, _WARMING_SHARE * seconds)
        rest = (1 - _WARMING_SHARE) * seconds
        warm()
        return self._repeated(once, _FEWEST_TIMED, rest, each=int(rest / _STRETCHES / median(warming.seconds)))

    def _repeated(self, once: Callable[[], Any], fewest: int, seconds: float, *, each: int = 1) -> Laps:
        """Stretches of `each` until the time is up."""
        laps, each, began = list[float](), max(1, each), time.perf_counter()
        while len(laps) < fewest or time.perf_counter() - began < seconds:
            started = time.perf_counter()
            for _ in range(each):
                once()
            self._steps.settle()
            laps.append((time.perf_counter() - started) / each)
        return Laps(seconds=tuple(laps), count=each * len(laps))


def _size(folder: str, case: str) -> int:
    return max((path.stat().st_size for path in Path(folder).glob(f"{case}.*")), default=0)

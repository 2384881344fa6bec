"""Times a network on this machine, shape by shape, within so many seconds: what `python -m study calibrate` runs.

The smallest shape comes first, then the largest, then always the one farthest from all that have been timed, so that
whatever there is no time for lies between two that were. What would take longer than is left is passed over.

`TimedTrainer` times its own work: real batches, real steps, the real final validation. Its curriculum has a stage for
each shape and an epoch for each stage, so that a feed begun at a stage gives its batches and one begun behind it the
validation's. Nothing is learned: checkpoints, learning rates and reports are left out.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from study.common.machine import cpu_name, hostname, resolve_device
from study.curriculum.chain import Size
from study.curriculum.curriculum import Stage
from study.nnunet.cuda_steps import make_steps
from study.nnunet.datasets import find_dataset
from study.nnunet.feed import Feed
from study.nnunet.identity import recorded_versions
from study.nnunet.paths import nnunet_environment
from study.nnunet.torch_tools import cpu_threads, cuda_device_names, cuda_device_uuids, reserved_memory
from study.nnunet.trainer import nnUNetTrainerPGPS
from study.nnunet.training_job import make_trainer
from study.run.meter import Accounts
from study.run.provenance import Workplace, check_workplace
from study.store.calibration import FORMAT, Calibration, ShapeTiming, Timing, hardware_words, network_of
from study.store.readings import NEVER
from study.store.records import Phase
from study.store.specification import TrialSpec
from study.store.taken import Shape, voxels_of
from study.store.trial_folder import TrialFolder

# Parts of the seconds that training iterations and validation batches may take; the rest is the final validation's.
_SHAPES_UNTIL, _VALIDATION_UNTIL = 0.7, 0.78
# Iterations that a shape takes at the least, those that warm it up among them.
_FEWEST = 4
# Cases of the second of two final validations, from which the time of a case follows.
_CASES = 3


def calibrate(spec: TrialSpec, shapes: Sequence[Shape], workplace: Workplace, *, seconds: float) -> Calibration:
    """Time shapes, validation batches and the final validation of a network.

    Args:
        spec: a trial of the network, whose fold gives the data.
        shapes: patch and batch size of each.
        workplace: data, and what a trial gets of the machine.
        seconds: that it may take from its set-up on; one final validation of a case may go beyond.

    Raises:
        StudyError: data or device are not fit for it.
    """
    check_workplace(spec, workplace)
    device = resolve_device(workplace.resources.device)
    with tempfile.TemporaryDirectory(prefix="pgps-calibrate-", ignore_cleanup_errors=True) as folder:
        resources = workplace.resources
        gpus = 1.0 if resources.gpus is None else resources.gpus
        accounts = Accounts(workplace.energy, cpus=resources.usable_cpus, gpus=gpus)
        accounts.start()
        try:
            with nnunet_environment(TrialFolder(Path(folder)), workplace.data, processes=resources.threads):
                return _Measurement(spec, farthest_first(shapes), workplace, device, accounts, seconds).taken()
        finally:
            accounts.close()


def farthest_first(shapes: Sequence[Shape]) -> list[Shape]:
    """The smallest by voxels, the largest, then always the one farthest from all before, by their logarithm."""
    left = sorted(set(shapes), key=lambda shape: (voxels_of(shape), shape))
    order = [left.pop(0), *([left.pop()] if len(left) > 1 else [])]
    while left:
        sizes = [math.log(voxels_of(shape)) for shape in order]
        far = max(left, key=lambda shape: min(abs(math.log(voxels_of(shape)) - size) for size in sizes))
        left.remove(far)
        order.append(far)
    return order


class _Measurement:
    """One calibration, in this process."""

    def __init__(
        self,
        spec: TrialSpec,
        shapes: Sequence[Shape],
        workplace: Workplace,
        device: str,
        accounts: Accounts,
        seconds: float,
    ) -> None:
        self._spec, self._shapes, self._workplace, self._device = spec, shapes, workplace, device
        self._accounts, self._seconds, self._began = accounts, seconds, time.perf_counter()
        self._timed: dict[Shape, ShapeTiming] = {}

    def taken(self) -> Calibration:
        on_gpu, resources = self._device == "cuda", self._workplace.resources
        with cpu_threads(resources.threads):
            trainer = self._make_trainer()
            meter, _ = self._accounts.describe((cuda_device_uuids()[:1] or ("no name",)) if on_gpu else ())
            setup, self._began = self._timing([self._accounts.seconds], 1), time.perf_counter()
            for stage, shape in enumerate(self._shapes):
                self._time_shape(trainer, stage, shape)
            validation = self._validation(trainer)
            final = self._final_validation(trainer)
        names = cuda_device_names()[:1] if on_gpu else ()
        return Calibration(
            format=FORMAT,
            network=network_of(self._spec),
            plans_sha256=self._spec.plans_sha256,
            hardware=hardware_words(
                device=self._device, gpu="".join(names), cpu=cpu_name(), cpus=resources.usable_cpus
            ),
            hostname=hostname(),
            taken_at=time.time(),
            versions=recorded_versions(),
            meter=meter,
            card_memory_bytes=reserved_memory()[1] if on_gpu else None,
            setup=setup,
            validation=validation,
            final=final,
            mirroring=self._spec.training.predicts_mirrored,
            shapes=tuple(self._timed.values()),
            left_out=len(self._shapes) - len(self._timed),
            took_seconds=self._accounts.seconds,
        )

    def _make_trainer(self) -> Any:
        resources = self._workplace.resources
        trainer = make_trainer(
            timed_spec(self._spec, self._shapes),
            find_dataset(self._workplace.data, self._spec.dataset),
            device=self._device,
            kind=TimedTrainer,
            data_workers=resources.workers_for(self._device),
            validation_processes=resources.threads,
            previous_stage=self._workplace.previous_stage,
            compile_cache=resources.compile_cache_folder,
            stall_seconds=self._workplace.stall_seconds,
        )
        trainer.initialize()
        trainer.begin()
        return trainer

    def _left(self, share: float = 1.0) -> float:
        return share * self._seconds - (time.perf_counter() - self._began)

    def _time_shape(self, trainer: Any, stage: int, shape: Shape) -> None:
        slot = self._left(_SHAPES_UNTIL) / (len(self._shapes) - stage)
        if self._timed and (slot <= 0 or _FEWEST * self._guess(shape) > self._left(_SHAPES_UNTIL)):
            return
        on_gpu = self._device == "cuda"
        if on_gpu:
            _forget_memory()
        laps = trainer.time_iterations(stage, max(slot, 0.0), self._forget)
        timing = self._timing(laps.seconds, laps.count)
        memory = reserved_memory()[0] if on_gpu else None
        patch, batch = shape
        self._timed[shape] = ShapeTiming(**vars(timing), patch_size=patch, batch_size=batch, peak_memory_bytes=memory)

    def _guess(self, shape: Shape) -> float:
        """Seconds of an iteration, in the ratio of the voxels to those of the largest shape that was timed."""
        largest = max(self._timed, key=voxels_of)
        return self._timed[largest].seconds * max(1.0, voxels_of(shape) / voxels_of(largest))

    def _validation(self, trainer: Any) -> Timing | None:
        if self._left(_VALIDATION_UNTIL) <= 0:
            return None
        laps = trainer.time_validation(self._left(_VALIDATION_UNTIL), self._forget)
        return self._timing(laps.seconds, laps.count)

    def _final_validation(self, trainer: Any) -> Timing | None:
        """Of the whole fold, from one case and, if there is time, from several."""
        cases = len(find_dataset(self._workplace.data, self._spec.dataset).split(self._spec.fold).validation)
        if self._left() <= 0:
            return None
        self._forget()
        one = trainer.time_final_validation(1)
        timing = self._timing([one], 1)
        if cases < _CASES or _CASES * one > self._left():
            return _repeated(timing, cases, cases * one)
        more = trainer.time_final_validation(_CASES)
        each = max(0.0, more - one) / (_CASES - 1)
        return _repeated(timing, cases, one + each * (cases - 1))

    def _forget(self) -> None:
        """What was used so far is not what is timed next."""
        self._used(0.0)

    def _used(self, seconds: float) -> Any:
        return self._accounts.interval(Phase.TRAINING, attempt=0, stage=None, start=0, stop=0, seconds=seconds).own

    def _timing(self, laps: Sequence[float], count: int) -> Timing:
        own = self._used(sum(laps))
        parts = (own.cpu_kwh, own.idle_cpu_kwh, own.gpu_kwh, own.ram_kwh)
        energy = None if None in parts else sum(part for part in parts if part is not None) / count
        return Timing(
            seconds=median(laps), low_seconds=min(laps), high_seconds=max(laps), count=count, energy_kwh=energy
        )


def _repeated(one: Timing, cases: int, seconds: float) -> Timing:
    """A fold of so many cases that takes so long, from one case; energy goes with the time."""
    energy = None if one.energy_kwh is None else one.energy_kwh * seconds / one.seconds
    return Timing(seconds=seconds, low_seconds=seconds, high_seconds=seconds, count=cases, energy_kwh=energy)


def _forget_memory() -> None:
    """What torch reserves on the card counts from here on."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


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

"""What a trainer is told to do and whom it tells: the trial keeps the books, the trainer trains."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, SupportsFloat

from study.common import files
from study.curriculum.curriculum import Curriculum, resolve
from study.curriculum.data_curriculum import STALL_SECONDS, DataCurriculum
from study.curriculum.schemes import named_axes
from study.nnunet.datasets import PreparedDataset
from study.nnunet.plans import plan_from_document
from study.store.readings import CompileChoice, StageExecution, StagePart
from study.store.records import EpochReport, Phase
from study.store.specification import TrainingSettings, TrialSpec


class Stopwatch:
    """Any work: closing reports the seconds since it was last closed, and starts again."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long it has been open."""
        return time.perf_counter() - self._started

    def close(self) -> None:
        """Report, and open again."""
        seconds = self.seconds
        self._started += seconds
        self._report(seconds)


Parts = tuple[StagePart, ...]


@dataclass(frozen=True, kw_only=True)
class IterationReport:
    """One training iteration: its index, stage, loss, and where its wall time went.

    `fetch_seconds` waited for the batch, `step_seconds` was forward, backward and optimiser step. On a GPU the step is
    handed over, and an iteration waits for the one two before it; `float(loss)` waits for it to be done.
    """

    iteration: int
    stage: int
    loss: SupportsFloat
    fetch_seconds: float
    step_seconds: float


class Observer(Protocol):
    """What a training tells whoever runs it."""

    def iteration_done(self, report: IterationReport) -> None:
        """Called after every training iteration."""

    def stage_ready(self, execution: StageExecution) -> None:
        """Called on a GPU when it is settled how the iterations of a stage, or the validation batches, are run."""

    def epoch_done(self, report: EpochReport) -> None:
        """Called after every epoch, its validation included."""

    def interval_done(
        self, phase: Phase, stage: int | None, start: int, stop: int, seconds: float, parts: Parts = ()
    ) -> None:
        """Called when a stretch of work ends: training iterations start … stop - 1, or a validation after `stop`.

        Stages that were drawn for single iterations are in `parts`, and `stage` is None.
        """

    def alive(self, doing: str = "") -> None:
        """Called with a line of nnU-Net's log now and then while something is going on that calls none of the above."""

    def stop_requested(self) -> bool:
        """Whether to write a checkpoint and raise TrialInterrupted."""
        return False


class SilentObserver(Observer):
    """An observer that does nothing and never stops a training."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What to train.

    Attributes:
        curriculum: the stage table.
        data: which training cases come first, None for all throughout.
        settings: resolved training settings.
        seed: of weights and batches.
        data_workers: processes that draw batches; 0 draws them in this one. Does not change the result.
        validation_processes: of the final validation, None for nnU-Net's own number.
        previous_stage: folder with the previous stage's segmentations, for cascades.
        compile_cache: folder of compiled kernels, None for the user's own.
        stall_seconds: how long a training waits for a batch before it writes its checkpoint and fails.
        observer: who is told.
    """

    curriculum: Curriculum
    settings: TrainingSettings
    seed: int
    data: DataCurriculum | None = None
    data_workers: int = 0
    validation_processes: int | None = None
    previous_stage: Path | None = None
    compile_cache: Path | None = None
    stall_seconds: float = STALL_SECONDS
    observer: Observer = field(default_factory=SilentObserver)


def published_job(plans: dict[str, Any], configuration: str, *, data_workers: int) -> TrainingJob:
    """PGPS' published chain and allocation with nnU-Net's own settings, on a configuration of a plans file's content.

    Unlike in the published code, augmentation is decided once at the full patch; see `batches`.

    `nnUNet_compile` of the environment is heard as in nnU-Net: `f` never compiles, `t` always does.
    """
    plan = plan_from_document(plans, plans["configurations"], configuration)
    curriculum = resolve(plan.geometry, named_axes("pgps", allocation="reference"))
    said = os.environ.get("nnUNet_compile")  # noqa: SIM112 - nnU-Net's own name
    compiles: CompileChoice = "auto" if said is None else "always" if said.lower() in ("true", "1", "t") else "never"
    settings = TrainingSettings(compile_network=compiles).resolved(constant_patch_size=curriculum.is_constant)
    return TrainingJob(curriculum=curriculum, settings=settings, seed=0, data_workers=data_workers)


def make_trainer(
    spec: TrialSpec, dataset: PreparedDataset, *, device: str = "cpu", kind: type | None = None, **how: Any
) -> Any:
    """An nnU-Net trainer with the job of a specification, its network not yet built.

    `kind` is a subclass of ours; `how` are fields of `TrainingJob` that decide no result.
    """
    import torch

    from study.nnunet.presets import with_normalization
    from study.nnunet.trainer import nnUNetTrainerPGPS

    document = files.read_json(dataset.folder / f"{spec.plans}.json")
    plans = with_normalization(document, spec.configuration, spec.training.normalization) | {"continue_training": False}
    make = kind or nnUNetTrainerPGPS
    trainer: Any = make(plans, spec.configuration, spec.fold, dataset.description, torch.device(device))
    trainer.attach(
        TrainingJob(curriculum=spec.curriculum, data=spec.data, settings=spec.training, seed=spec.seed, **how)
    )
    return trainer

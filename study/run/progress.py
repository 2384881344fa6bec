"""Following a trial from outside, asking it to stop, and what is said before it trains.

A reader of its Dice must know of its data and curriculum: a class that is in no validation case has no Dice (a network
that finds none of it would be given "not a number", one that is wrong about it 0), so the mean is over the classes that
exist, see `results`.

How long it will take is told on a CPU, by a step of the middle stage on a copy of the network. That is rough by a
factor of two: small patches take more time per voxel than large ones, and making batches is left out. On a GPU a first
step says nothing of later ones, which are captured or compiled, so only the work is told.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from study.common.errors import DataIntegrityError, TrialInterrupted
from study.common.terminal import time_left
from study.curriculum.curriculum import Curriculum
from study.curriculum.table import shortfalls
from study.nnunet.datasets import PreparedDataset
from study.store.records import EpochReport, Phase
from study.store.specification import TrialSpec

LONG_SECONDS = 24 * 3600.0
FOR_A_CPU = "--optimizer adamw --epochs 10 --iterations-per-epoch 40 --validation-batches 2 --no-mirroring"


def forecast(trainer: Any, curriculum: Curriculum, *, timed: bool) -> str:
    """What is known of how long a training will take, as a sentence; a step is timed where that tells."""
    if timed:
        return words(training_seconds(trainer, curriculum, trainer.iteration))
    return unknown(curriculum, trainer.iteration)


def training_seconds(trainer: Any, curriculum: Curriculum, iteration: int) -> float:
    """Seconds from an iteration to the end of a training; changes neither the trainer nor a random state."""
    import torch

    stage = curriculum.stages[len(curriculum.stages) // 2]
    network = copy.deepcopy(trainer.network)
    batch = torch.zeros(stage.batch_size, trainer.num_input_channels, *stage.patch_size, device=trainer.device)
    started = time.perf_counter()
    outputs = network(batch)
    sum(output.mean() for output in (outputs if isinstance(outputs, list | tuple) else [outputs])).backward()
    per_voxel = (time.perf_counter() - started) / stage.voxels_per_iteration
    return per_voxel * curriculum.voxels * (1 - iteration / curriculum.total_iterations)


def words(seconds: float) -> str:
    """The forecast as a sentence, with a warning where it is days."""
    told = f"the training takes about {time_left(seconds)} here (h:mm:ss, by one step of its middle stage)"
    return f"{told}: use a GPU, or train less, such as {FOR_A_CPU}" if seconds > LONG_SECONDS else told


def unknown(curriculum: Curriculum, iteration: int) -> str:
    """What is known of a training whose time is not, as a sentence."""
    stages = f"{len(curriculum.stages)} stage{'' if len(curriculum.stages) == 1 else 's'}"
    return (
        f"{curriculum.total_iterations - iteration} iterations to go, {stages}, {curriculum.voxel_share:.0%} of the "
        "voxels of constant patch size in all; how long that takes on this GPU is not known before it trains: the time "
        "left is shown from then on, and `python -m study bench gpu` measures each stage"
    )


class Progress:
    """Follows a trial; override what is of interest.

    Attributes:
        wants_forecast: whether it is told how long the training will take, for which a step is timed.
    """

    wants_forecast = False

    def begin(self, spec: TrialSpec, first_iteration: int) -> None:
        """The training starts, or resumes, at an iteration."""

    def iteration_done(self, report: Any) -> None:
        """One training iteration is done (`trainer.IterationReport`)."""

    def epoch_done(self, report: EpochReport) -> None:
        """One epoch is done."""

    def phase(self, phase: Phase) -> None:
        """Another kind of work starts."""

    def remark(self, text: str) -> None:
        """Something to know of the data, before the training starts."""

    def validating(self, number: int) -> None:
        """The final validation begins with its case of this number, from one."""

    def alive(self) -> None:
        """Something is going on, though none of the above happens."""


class StopRequest:
    """Set by a signal handler; what is deferred goes on to a place where it can stop, anything else ends at once.

    Further requests only repeat the first one, so that what cleans up after it is not interrupted.

    Attributes:
        requested: whether a stop is.
        recorded: whether the ledger says already how the trial ends.
    """

    def __init__(self) -> None:
        self.requested = self.recorded = False
        self._deferred = False

    def signal(self, *_: object) -> None:
        """Handle SIGINT or SIGTERM."""
        repeated, self.requested = self.requested, True
        if not repeated and not self._deferred:
            self.check()

    def epoch_done(self, report: EpochReport) -> None:
        """One epoch is in the ledger: what is asked for may depend on it."""

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise nothing within the block, but after it: inside a library that catches everything it would be lost."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before
        if not before:
            self.check()

    def check(self) -> None:
        """Raise TrialInterrupted when a stop has been requested."""
        if self.requested:
            raise TrialInterrupted("stopped outside the training loop")


def absent_classes(trainer: Any, references: Sequence[Path]) -> list[str]:
    """Foreground classes or regions, as nnU-Net's summary names them, that are in none of the reference segmentations.

    Reads until all have been seen, usually one or two files.

    Raises:
        DataIntegrityError: none is there, so a training would have no Dice.
    """
    import numpy as np

    labels, reader = trainer.label_manager, trainer.plans_manager.image_reader_writer_class()
    classes = list(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
    missing = list(classes)
    for path in references:
        if not missing:
            break
        values = np.unique(reader.read_seg(str(path))[0])
        missing = [name for name in missing if not np.isin(values, name).any()]
    if len(missing) == len(classes):
        raise DataIntegrityError(
            f"no validation case of this fold shows any foreground class ({len(references)} reference segmentations, "
            f"the first is {references[0]}): there would be no Dice; choose another fold or correct splits_final.json"
        )
    return [str(name) for name in missing]


def remarks(spec: TrialSpec, trainer: Any, dataset: PreparedDataset) -> tuple[str, ...]:
    """What a reader of the trial's Dice must know of its data and curriculum.

    Raises:
        DataIntegrityError: there would be no Dice.
    """
    split, fold = dataset.split(spec.fold), f"fold {spec.fold}"
    said = []
    absent = absent_classes(trainer, dataset.references(split.validation))
    if absent:
        said.append(f"class {', '.join(absent)} is in no validation case of {fold}: Dice is the mean of the others")
    if split.overlap:
        number = f"{len(split.overlap)} of {len(split.validation)} validation cases of {fold}"
        said.append(f"{number} are training cases too (the first is {split.overlap[0]}): Dice is too high")
    return (*said, *shortfalls(spec.curriculum, spec.axes))

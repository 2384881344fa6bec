"""Iteration-indexed batches: batch i is a pure function of (seed, i), so nothing has to be restarted or restored.

A map-style dataset draws one nnU-Net batch for an `Item`, after seeding numpy, torch and random from the item alone.
`feed` serves the items of a training in order: the iterations of an epoch, then its validation batches. Stage changes
therefore restart no worker, a resumed training needs no state of any generator, and the number of workers does not
change a result. Validation batches depend on their index only and have the full patch, so that curves of different
trials compare pair by pair.

Arrays are (batch, channels, *patch size) in plan axis order, as nnU-Net's own loader gives them. The draws are
nnU-Net's, in its order. What it does around them is not: limits on thread pools looked up anew for every batch, files
opened and properties unpickled for every sample, crops wider than the patch where none is rotated.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch.utils.data import Dataset, Sampler

from study.curriculum.curriculum import ROUNDED, Curriculum, VolumeRule, foreground_volumes
from study.curriculum.data_curriculum import DataCurriculum
from study.nnunet.torch_tools import cpu_threads
from study.nnunet.transforms import Augmentation, Pipeline, TransformFactory
from study.store.training_settings import CONSTANT_FOREGROUND_OVERSAMPLING, TrainingSettings

KEPT_BYTES = 128 * 2**20
MOST_OPEN = 32
Batch = dict[str, Any]

_TRAINING_STREAM, _VALIDATION_STREAM, _WEIGHTS_STREAM, _FORWARD_STREAM, _STATISTICS_STREAM = range(5)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One batch to draw: training iteration `index`, or the fixed batch `index` for validation or for statistics."""

    index: int
    validation: bool = False
    statistics: bool = False


def seed_everything(stream: int, seed: int, index: int) -> None:
    """Seed numpy, torch and random from (stream, seed, index)."""
    state = np.random.SeedSequence([stream, seed, index]).generate_state(4, np.uint32)
    np.random.seed(state[0])
    random.seed(int(state[1]))
    # `torch.manual_seed` takes a stack trace of 0.15 ms each time while no GPU is used.
    of_torch = int(state[2]) << 32 | int(state[3])
    torch.default_generator.manual_seed(of_torch)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(of_torch)


def seed_weights(seed: int) -> None:
    """Seed the draw of initial weights."""
    seed_everything(_WEIGHTS_STREAM, seed, 0)


def seed_forward(seed: int, iteration: int) -> None:
    """Seed what a forward pass may draw, so that it does not depend on who drew the batch."""
    seed_everything(_FORWARD_STREAM, seed, iteration)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case as nnU-Net's dataset gives it.

    Attributes:
        image, segmentation: (channels, *axes), arrays or open files.
        previous: (*axes), segmentation of a cascade's previous stage.
        locations: voxels (0, *axes) by class, or tuple of classes.
    """

    image: Any
    segmentation: Any
    previous: Any
    locations: dict[Any, Any] | None


class Cases:
    """Opened cases of an nnU-Net dataset, by identifier, kept so that a sample does not open, unpickle and decompress.

    Small cases are kept whole: as many as the dataset has fit into `KEPT_BYTES` of a process together. Of larger ones a
    few stay open; their crops are read from the file each time.
    """

    def __init__(self, dataset: Any) -> None:
        self.identifiers = dataset.identifiers
        self._dataset = dataset
        self._most_bytes = KEPT_BYTES // max(1, len(dataset.identifiers))
        self._whole: dict[str, Case] = {}
        self._open: OrderedDict[str, Case] = OrderedDict()

    def load(self, identifier: str) -> Case:
        """The case, from memory if it is kept."""
        case = self._whole.get(identifier) or self._open.get(identifier)
        if case is None:
            return self._opened(identifier)
        if identifier in self._open:
            self._open.move_to_end(identifier)
        return case

    def _opened(self, identifier: str) -> Case:
        image, segmentation, previous, properties = self._dataset.load_case(identifier)
        parts = {"image": image, "segmentation": segmentation, "previous": previous}
        locations = properties["class_locations"]
        if sum(_nbytes(part) for part in (*parts.values(), *(locations or {}).values())) <= self._most_bytes:
            whole = {name: None if part is None else np.asarray(part[:]) for name, part in parts.items()}
            case = self._whole[identifier] = Case(**whole, locations=locations)
            return case
        case = self._open[identifier] = Case(**parts, locations=locations)
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        return case


def _nbytes(part: Any) -> int:
    if part is None:
        return 0
    return int(np.prod(np.shape(part), dtype=np.int64)) * np.dtype(getattr(part, "dtype", float)).itemsize


class StageLoader(nnUNetDataLoader):  # type: ignore[misc]
    """nnU-Net's draws of cases and boxes, able to take several crops from each volume it opens (arXiv 2510.23241).

    With one crop per volume they are nnU-Net's own. With more, ceil(batch / crops) volumes are drawn, and `crops` says
    which of them are foreground-centred.
    """

    _data: Cases
    indices: list[str]
    batch_size: int
    oversample_foreground_percent: float
    patch_size: tuple[int, ...]
    final_patch_size: tuple[int, ...]

    def __init__(
        self,
        *args: Any,
        crops_per_volume: int,
        transforms: ComposeTransforms | None,
        volume_rule: VolumeRule = ROUNDED,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.crops_per_volume = crops_per_volume
        if crops_per_volume > 1:
            self._foreground = foreground_volumes(volume_rule, self._volumes, self.oversample_foreground_percent)
            self.get_do_oversample = self._is_foreground_volume
        size = self.final_patch_size[1:] if self.patch_size_was_2d else self.final_patch_size
        self._pipeline = Pipeline(transforms or ComposeTransforms([]), size)

    @property
    def _volumes(self) -> int:
        return math.ceil(int(self.batch_size) / self.crops_per_volume)

    def get_indices(self) -> list[str]:
        """Case identifiers of the samples of one batch."""
        drawn = np.random.choice(self.indices, self._volumes, replace=True)
        return [str(case) for case in np.repeat(drawn, self.crops_per_volume)[: self.batch_size]]

    def _is_foreground_volume(self, sample: int) -> bool:
        return self._foreground[sample // self.crops_per_volume]

    def generate_train_batch(self) -> dict[str, Any]:
        """Draw a batch: `data`, `target`, `keys`."""
        keys = self.get_indices()
        batch: list[torch.Tensor] = []
        with torch.no_grad(), cpu_threads(1):
            for index, key in enumerate(keys):
                sample = self._sample(self._data.load(key), self.get_do_oversample(index))
                labels = sample["segmentation"]
                parts = [sample["image"], *(labels if isinstance(labels, list) else [labels])]
                batch = batch or [torch.empty((self.batch_size, *part.shape), dtype=part.dtype) for part in parts]
                for whole, part in zip(batch, parts, strict=True):
                    whole[index] = part
        return {"data": batch[0], "target": batch[1:] if isinstance(labels, list) else batch[1], "keys": keys}

    def _sample(self, case: Case, foreground: bool) -> dict[str, Any]:
        lows, highs = self.get_bbox(case.image.shape[1:], foreground, case.locations)
        wide = [int(high - low) for low, high in zip(lows, highs, strict=True)]
        drawn = self._pipeline.draw_rotation((case.image.shape[0], *wide[self.patch_size_was_2d :]))
        size = wide if drawn else list(self.final_patch_size)
        # Rotation alone needs what lies around the patch.
        offsets = [whole // 2 - part // 2 for whole, part in zip(wide, size, strict=True)]
        lows = [int(low) + offset for low, offset in zip(lows, offsets, strict=True)]
        # A view of the wider box, as nnU-Net's is: over other strides means would differ in their last bits.
        middle = tuple(slice(offset, offset + part) for offset, part in zip(offsets, size, strict=True))
        image = np.empty((case.image.shape[0], *wide), np.float32)[(slice(None), *middle)]
        cut(case.image, lows, image, fill=0)
        parts = [case.segmentation] if case.previous is None else [case.segmentation, case.previous[None]]
        labels = np.empty((sum(part.shape[0] for part in parts), *size), np.int16)
        cut(case.segmentation, lows, labels[: case.segmentation.shape[0]], fill=-1)
        for part in parts[1:]:
            cut(part, lows, labels[-1:], fill=-1)
        if self.patch_size_was_2d:
            image, labels = image[:, 0], labels[:, 0]
        return self._pipeline.apply(torch.from_numpy(image), torch.from_numpy(labels), drawn)


def cut(array: Any, lows: Sequence[int], out: Any, *, fill: int) -> None:
    """Copy a box out of an array.

    Args:
        array: (channels, *axes), or an open file that is sliced like one.
        lows: first voxel per axis, may be negative.
        out: takes the box, (channels, *size).
        fill: value where the box is outside the array.
    """
    there, inside = [slice(None)], [slice(None)]
    for low, size, length in zip(lows, out.shape[1:], array.shape[1:], strict=True):
        first, last = min(max(low, 0), length), max(0, min(low + size, length))
        there.append(slice(first, last))
        inside.append(slice(first - low, last - low))
    found = array[tuple(there)]
    if found.shape != out.shape:
        out[:] = fill
    if found.size:
        out[tuple(inside)] = found


class Batches(Dataset[Batch]):
    """Every batch of one training, by `Item`.

    The trainer is an initialised one of nnU-Net's: it gives label manager, transforms and plan. The cases are nnU-Net
    datasets of the fold; `data` says which of them come first, None is all throughout. Augmentations are one per stage.
    """

    def __init__(
        self,
        *,
        trainer: Any,
        curriculum: Curriculum,
        data: DataCurriculum | None,
        seed: int,
        foreground_oversampling: float,
        augmentations: Sequence[Augmentation],
        training_cases: Any,
        validation_cases: Any,
    ) -> None:
        self._labels = trainer.label_manager
        self._curriculum = curriculum
        self._data = data
        self._seed = seed
        self._oversampling = foreground_oversampling
        self._augmentations = augmentations
        self._cases = Cases(training_cases), Cases(validation_cases)
        self._transforms = TransformFactory(trainer)
        # By stage and whether some cases alone may be drawn.
        self._training_loaders: dict[tuple[int, bool], StageLoader] = {}
        self._whole_loaders: dict[bool, StageLoader] = {}

    def __getitem__(self, item: Item) -> Batch:
        """Draw one batch: `data` (batch, channels, *patch), `target` likewise per deep supervision scale, `keys`."""
        if item.validation or item.statistics:
            seed_everything(_VALIDATION_STREAM if item.validation else _STATISTICS_STREAM, 0, item.index)
            loader = self._whole_loader_of(item.validation)
        else:
            seed_everything(_TRAINING_STREAM, self._seed, item.index)
            loader = self._training_loader_at(item.index)
        batch: Batch = loader.generate_train_batch()
        return {**batch, "keys": [str(key) for key in batch["keys"]]}

    def _training_loader_at(self, iteration: int) -> StageLoader:
        cases = None if self._data is None else self._data.allowed(iteration)
        key = self._curriculum.stage_index(iteration), cases is not None
        if key not in self._training_loaders:
            loader = self._training_loader(key[0])
            if cases is not None:
                # What nnU-Net's loader draws from, uniformly and with replacement.
                loader.indices = list(cases)
            self._training_loaders[key] = loader
        return self._training_loaders[key]

    def _training_loader(self, index: int) -> StageLoader:
        stage, augmentation = self._curriculum.stages[index], self._augmentations[index]
        return StageLoader(
            self._cases[0],
            stage.batch_size,
            augmentation.crop_size(stage.patch_size),
            stage.patch_size,
            self._labels,
            oversample_foreground_percent=self._oversampling,
            transforms=self._transforms.training(stage.patch_size, augmentation),
            crops_per_volume=stage.crops_per_volume,
            volume_rule=self._curriculum.volume_rule,
        )

    def _whole_loader_of(self, validation: bool) -> StageLoader:
        """Of validation or training cases at the full patch, not augmented."""
        if validation not in self._whole_loaders:
            self._whole_loaders[validation] = self._whole_loader(self._cases[validation])
        return self._whole_loaders[validation]

    def _whole_loader(self, cases: Cases) -> StageLoader:
        geometry = self._curriculum.geometry
        return StageLoader(
            cases,
            geometry.batch_size,
            geometry.patch_size,
            geometry.patch_size,
            self._labels,
            oversample_foreground_percent=CONSTANT_FOREGROUND_OVERSAMPLING,
            transforms=self._transforms.validation(),
            crops_per_volume=1,
        )


@dataclass(frozen=True, kw_only=True)
class Schedule(Sampler[Item]):
    """The items of a training in order, from a position on.

    After each epoch that is validated come the batches for statistics, then those of validation: every
    `validation_every_epochs`, and the last.

    Attributes:
        start_epoch: the epoch to go on with.
        start_iteration: the next iteration, in that epoch; its end when only its validation is missing.
        epochs, iterations_per_epoch: length of the whole training.
        validation_every_epochs, validation_batches: when and how much is validated.
        statistics_batches: how many there are before.
    """

    start_epoch: int
    start_iteration: int
    epochs: int
    iterations_per_epoch: int
    validation_every_epochs: int
    validation_batches: int
    statistics_batches: int = 0

    @classmethod
    def of(cls, settings: TrainingSettings, curriculum: Curriculum, epoch: int = 0, iteration: int = 0) -> Self:
        """That of a training, from an epoch and an iteration on."""
        return cls(
            start_epoch=epoch,
            start_iteration=iteration,
            epochs=settings.epochs,
            iterations_per_epoch=curriculum.total_iterations // settings.epochs,
            validation_every_epochs=settings.validation_every_epochs,
            validation_batches=settings.validation_batches,
            statistics_batches=settings.statistics_batches,
        )

    def validates(self, epoch: int) -> bool:
        """Whether an epoch ends with validation."""
        return (epoch + 1) % self.validation_every_epochs == 0 or epoch == self.epochs - 1

    def __iter__(self) -> Iterator[Item]:
        """Items in the order they are used."""
        for epoch in range(self.start_epoch, self.epochs):
            first, stop = epoch * self.iterations_per_epoch, (epoch + 1) * self.iterations_per_epoch
            yield from (Item(index=index) for index in range(max(first, self.start_iteration), stop))
            if self.validates(epoch):
                yield from (Item(index=index, statistics=True) for index in range(self.statistics_batches))
                yield from (Item(index=index, validation=True) for index in range(self.validation_batches))

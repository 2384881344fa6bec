"""Iteration-indexed batches: batch i is a pure function of (seed, i), so nothing has to be restarted or restored.

A map-style dataset draws one nnU-Net batch for an `Item`, after seeding numpy, torch and random from the item alone.
`feed` serves the items of a training in order: the iterations of an epoch, then its validation batches. Stage changes
therefore restart no worker, a resumed training needs no state of any generator, and the number of workers does not
change a result. Validation batches depend on their index only and have the full patch, so that curves of different
trials compare pair by pair.

Arrays are (batch, channels, *patch size) in plan axis order, as nnU-Net's own loader gives them.

What nnU-Net decides about augmentation from a patch: rotation range, whether in 2D, which axes are mirrored.

Its rule for flat patches (no rotation out of the plane, 180 degrees in it) takes the patch of the configuration. At
the small patches of a curriculum it may come out otherwise. `full-patch` asks once, so that a stage changes sizes and
nothing else; `per-stage` asks anew for every stage, as the published code of PGPS does. On the Decathlon's pancreas
task the two differ in 18.6 % of PGPS' iterations.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from torch.utils.data import Dataset, Sampler

from study.curriculum.curriculum import Curriculum, Stage
from study.curriculum.data_curriculum import DataCurriculum
from study.nnunet.samples import Cases, StageLoader
from study.store.specification import CONSTANT_FOREGROUND_OVERSAMPLING, AugmentationRule

# nnU-Net widens the crop before rotation and scaling by these, whatever the transform itself draws from.
_CROP_SCALE_RANGE = (0.85, 1.25)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """nnU-Net's decisions for one patch.

    Attributes:
        rotation: range in radians; dummy_2d: whether axis 0 is left out of spatial transforms.
        mirror_axes: axes that training mirrors.
    """

    rotation: tuple[float, float]
    dummy_2d: bool
    mirror_axes: tuple[int, ...]

    def crop_size(self, patch_size: tuple[int, ...]) -> list[int]:
        """Voxels to cut out per axis so that a rotated, scaled patch has no empty corners."""
        size = [int(n) for n in get_patch_size(patch_size, *[self.rotation] * 3, _CROP_SCALE_RANGE)]
        return [patch_size[0], *size[1:]] if self.dummy_2d else size


def augmentations(trainer: Any, curriculum: Curriculum, rule: AugmentationRule) -> list[Augmentation]:
    """The decisions of an nnU-Net trainer for each stage of a curriculum."""
    if rule == "full-patch":
        return [_decided(trainer)] * len(curriculum.stages)
    configuration = trainer.configuration_manager.configuration
    full_patch = configuration["patch_size"]
    decisions = []
    for patch_size in (*(list(stage.patch_size) for stage in curriculum.stages), full_patch):
        configuration["patch_size"] = patch_size
        decisions.append(_decided(trainer))
    # The last one is for the full patch: what else nnU-Net sets when asked is as it was.
    return decisions[:-1]


def _decided(trainer: Any) -> Augmentation:
    rotation, dummy_2d, _, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    return Augmentation(rotation=rotation, dummy_2d=bool(dummy_2d), mirror_axes=tuple(mirror_axes or ()))


Batch = dict[str, Any]

_TRAINING_STREAM, _VALIDATION_STREAM, _WEIGHTS_STREAM, _FORWARD_STREAM = range(4)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One batch to draw: training iteration `index`, or fixed validation batch `index`."""

    index: int
    validation: bool = False


def seed_everything(stream: int, seed: int, index: int) -> None:
    """Seed numpy, torch and random from (stream, seed, index)."""
    state = np.random.SeedSequence([stream, seed, index]).generate_state(4, np.uint32)
    np.random.seed(state[0])
    random.seed(int(state[1]))
    _seed_torch(int(state[2]) << 32 | int(state[3]))


def _seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, which takes a stack trace of 0.15 ms each time while no GPU is used."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)


def seed_weights(seed: int) -> None:
    """Seed the draw of initial weights."""
    seed_everything(_WEIGHTS_STREAM, seed, 0)


def seed_forward(seed: int, iteration: int) -> None:
    """Seed what a forward pass may draw, so that it does not depend on who drew the batch."""
    seed_everything(_FORWARD_STREAM, seed, iteration)


class Batches(Dataset[Batch]):
    """Every batch of one training, by `Item`.

    Args:
        trainer: an initialised nnU-Net trainer: gives label manager, transforms and plan.
        curriculum: the stage table.
        data: which training cases come first, None for all throughout.
        seed: of the training batches.
        foreground_oversampling: share of training samples centred on foreground.
        augmentations: the decisions, one per stage.
        training_cases: nnU-Net dataset of the fold's training cases; validation_cases likewise.
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
        self._transforms = _TransformFactory(trainer)
        # By stage and whether some cases alone may be drawn.
        self._training_loaders: dict[tuple[int, bool], StageLoader] = {}
        self._validation: StageLoader | None = None

    def __getitem__(self, item: Item) -> Batch:
        """Draw one batch: `data` (batch, channels, *patch), `target` likewise per deep supervision scale, `keys`."""
        if item.validation:
            seed_everything(_VALIDATION_STREAM, 0, item.index)
            self._validation = self._validation or self._validation_loader()
            return _drawn(self._validation)
        seed_everything(_TRAINING_STREAM, self._seed, item.index)
        return _drawn(self._training_loader_at(item.index))

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
        stage: Stage = self._curriculum.stages[index]
        augmentation = self._augmentations[index]
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

    def _validation_loader(self) -> StageLoader:
        geometry = self._curriculum.geometry
        return StageLoader(
            self._cases[1],
            geometry.batch_size,
            geometry.patch_size,
            geometry.patch_size,
            self._labels,
            oversample_foreground_percent=CONSTANT_FOREGROUND_OVERSAMPLING,
            transforms=self._transforms.validation(),
            crops_per_volume=1,
        )


def _drawn(loader: StageLoader) -> Batch:
    batch: Batch = loader.generate_train_batch()
    return {**batch, "keys": [str(key) for key in batch["keys"]]}


class _TransformFactory:
    """Makes nnU-Net's transforms for a patch size; holds nothing that cannot travel to a worker process."""

    def __init__(self, trainer: Any) -> None:
        labels = trainer.label_manager
        self._make_training = trainer.get_training_transforms
        self._make_validation = trainer.get_validation_transforms
        self._scales = trainer._get_deep_supervision_scales()
        self._mask_for_norm = trainer.configuration_manager.use_mask_for_norm
        self._labelling = {
            "is_cascaded": trainer.is_cascaded,
            "foreground_labels": labels.foreground_labels,
            "regions": labels.foreground_regions if labels.has_regions else None,
            "ignore_label": labels.ignore_label,
        }

    def training(self, patch_size: tuple[int, ...], augmentation: Augmentation) -> ComposeTransforms:
        transforms: ComposeTransforms = self._make_training(
            patch_size,
            augmentation.rotation,
            self._scales,
            augmentation.mirror_axes,
            augmentation.dummy_2d,
            use_mask_for_norm=self._mask_for_norm,
            **self._labelling,
        )
        return transforms

    def validation(self) -> ComposeTransforms:
        transforms: ComposeTransforms = self._make_validation(self._scales, **self._labelling)
        return transforms


class Schedule(Sampler[Item]):
    """The items of a training in order, from a position on.

    After each epoch that is validated come the validation batches: every `validation_every_epochs`, and the last.

    Args:
        start_epoch: the epoch to go on with.
        start_iteration: the next iteration, in that epoch; its end when only its validation is missing.
        epochs, iterations_per_epoch: length of the whole training.
        validation_every_epochs, validation_batches: when and how much is validated.
    """

    def __init__(
        self,
        *,
        start_epoch: int,
        start_iteration: int,
        epochs: int,
        iterations_per_epoch: int,
        validation_every_epochs: int,
        validation_batches: int,
    ) -> None:
        self.start_epoch = start_epoch
        self.start_iteration = start_iteration
        self.epochs = epochs
        self.iterations_per_epoch = iterations_per_epoch
        self.validation_every_epochs = validation_every_epochs
        self.validation_batches = validation_batches

    def validates(self, epoch: int) -> bool:
        """Whether an epoch ends with validation."""
        return (epoch + 1) % self.validation_every_epochs == 0 or epoch == self.epochs - 1

    def __iter__(self) -> Iterator[Item]:
        """Items in the order they are used."""
        for epoch in range(self.start_epoch, self.epochs):
            first, stop = epoch * self.iterations_per_epoch, (epoch + 1) * self.iterations_per_epoch
            yield from (Item(index=index) for index in range(max(first, self.start_iteration), stop))
            if self.validates(epoch):
                yield from (Item(index=index, validation=True) for index in range(self.validation_batches))

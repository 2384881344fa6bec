"""nnU-Net's augmentations by name: whose transforms are taken, who decides rotation, and whether there is mirroring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.local.local_transform import LocalTransform
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA

from study.store.training_settings import AUGMENTATION_PRESETS

Decisions = tuple[Any, bool, Any, Any]
"""Range of rotation, whether axis 0 is left out of spatial transforms, the crop's size, axes that training mirrors."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One of nnU-Net's augmentations.

    Attributes:
        transforms: makes those of a patch size; None where they are the trainer's own.
        decide: makes nnU-Net's decisions for the patch of a trainer's configuration.
        crop_scales: what nnU-Net widens the crop for before rotation and scaling, whatever the transform itself draws
            from; None where it cuts out the patch.
        mirrors: in training and prediction.
    """

    transforms: Callable[..., Any] | None
    decide: Callable[[Any], Decisions]
    crop_scales: tuple[float, float] | None
    mirrors: bool


def _preset(
    name: str, scales: tuple[float, float] | None, transforms: Any = None, decide: Any = nnUNetTrainer
) -> Preset:
    return Preset(
        transforms=transforms and transforms.get_training_transforms,
        decide=decide.configure_rotation_dummyDA_mirroring_and_inital_patch_size,
        crop_scales=scales,
        mirrors=AUGMENTATION_PRESETS[name],
    )


PRESETS: Mapping[str, Preset] = {
    "default": _preset("default", (0.85, 1.25)),
    "da5": _preset("da5", (0.7, 1.43), nnUNetTrainerDA5, nnUNetTrainerDA5),
    "none": _preset("none", None, nnUNetTrainerNoDA),
    "no-mirroring": _preset("no-mirroring", (0.85, 1.25)),
}


def decided(trainer: Any, name: str) -> Decisions:
    """A preset's decisions for the patch of a trainer's configuration; prediction mirrors along the same axes."""
    rotation, dummy_2d, crop, mirror_axes = PRESETS[name].decide(trainer)
    if not PRESETS[name].mirrors:
        trainer.inference_allowed_mirroring_axes = mirror_axes = None
    return rotation, dummy_2d, crop, mirror_axes


class _LowResolution(SimulateLowResolutionTransform):  # type: ignore[misc]
    """nnU-Net's, which leaves each axis one voxel at least."""

    def get_parameters(self, **sample: Any) -> dict[str, Any]:
        drawn: dict[str, Any] = super().get_parameters(**sample)
        if len(drawn["scales"]):
            drawn["scales"] = torch.maximum(drawn["scales"], 1 / torch.tensor(sample["image"].shape[1:]))
        return drawn


def fit_short_axes(transform: BasicTransform) -> None:
    """Have a transform take axes of a few voxels, which no full patch has; on others it does what it did."""
    if type(transform) is SimulateLowResolutionTransform:
        transform.__class__ = _LowResolution
    if isinstance(transform, LocalTransform):
        transform.scale = _kernel_scale
    if isinstance(transform, BlankRectangleTransform):
        transform.rectangle_size = [[low, max(low + 1, high)] for low, high in transform.rectangle_size]


def _kernel_scale(shape: Sequence[int], axis: int) -> float:
    """Width of a gradient in voxels, drawn as DA5 does, from a sixth of the axis and no less than one voxel on."""
    voxels = shape[axis]
    return float(np.exp(np.random.uniform(np.log(max(1, voxels // 6)), np.log(voxels))))

"""nnU-Net's augmentations by name: whose transforms are taken, who decides rotation, and whether there is mirroring.

Normalisation layers other than the plan's, put where stock nnU-Net finds them: into the plans kept with a trial.

nnU-Net builds a network, for training and for prediction, from the class and arguments that `architecture` of a plans
file names. The trial's own copy of the plans names the wanted ones, so its models are predicted with as any others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.nn.modules.batchnorm import _BatchNorm

from study.common.errors import InvalidInputError
from study.store.training_settings import AUGMENTATION_PRESETS, NORMALIZATION_GROUPS

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


class GroupedNorm(torch.nn.GroupNorm):
    """GroupNorm made from a number of channels, as nnU-Net makes its layers.

    Args:
        num_channels: of the feature map.
        groups: at most; fewer where they do not divide the channels.
        more: further arguments of `torch.nn.GroupNorm`.
    """

    def __init__(self, num_channels: int, groups: int = NORMALIZATION_GROUPS, **more: Any) -> None:
        fitting = next(n for n in range(min(groups, num_channels), 0, -1) if num_channels % n == 0)
        super().__init__(fitting, num_channels, **more)


def with_normalization(plans: Mapping[str, Any], configuration: str, normalization: str) -> dict[str, Any]:
    """A copy of a plans file's content in which the network of a configuration has other normalisation layers.

    Raises:
        InvalidInputError: a network that has none to replace.
    """
    made = copy.deepcopy(dict(plans))
    if normalization == "instance":
        return made
    # With what it inherits, and of old plans what nnU-Net makes of them.
    architecture = copy.deepcopy(PlansManager(copy.deepcopy(made)).get_configuration(configuration).configuration)
    architecture = architecture["architecture"]
    if not architecture["arch_kwargs"].get("norm_op"):
        legal = f"instance for {architecture['network_class_name']}, whose plan names no norm_op to replace"
        raise InvalidInputError(field="normalization", received=normalization, legal=legal)
    axes = architecture["arch_kwargs"]["conv_op"][-2:]
    layers = {
        "batch": f"torch.nn.modules.batchnorm.BatchNorm{axes}",
        "group": f"{__name__}.{GroupedNorm.__name__}",
    }
    shared = {"eps": 1e-5, "affine": True}
    groups = {"groups": NORMALIZATION_GROUPS} if normalization == "group" else {}
    architecture["arch_kwargs"] |= {"norm_op": layers[normalization], "norm_op_kwargs": shared | groups}
    made["configurations"][configuration]["architecture"] = architecture
    return made


def take_statistics(trainer: Any, observe: Callable[[], None]) -> None:
    """Take the running statistics of every BatchNorm anew, if the settings have any: the plain mean over batches.

    They follow from the weights and the batches alone, so what a stop breaks off is done again from its start.

    Args:
        trainer: with its job; its network is in training.
        observe: runs the next batch through the network.
    """
    batches = trainer.job.settings.statistics_batches
    if batches:
        with _forgetful(trainer.network):
            while batches and not trainer.job.observer.stop_requested():
                observe()
                batches -= 1


@contextmanager
def _forgetful(network: torch.nn.Module) -> Iterator[None]:
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

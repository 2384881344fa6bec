"""nnU-Net's transforms as batches use them: the same draws in the same order, the same values, less around them.

What is replaced: the blur with a stopwatch; rotation and scaling, which are drawn first, so that they say whether a
crop wider than the patch is needed; writing to labels by positions; deep supervision's copies.

Rotation and scaling of labels are batchgeneratorsv2's, bit for bit, at a fraction of its time. The original
interpolates an indicator of every label over the whole patch and takes the label with the highest score. Away from
borders between labels the answer is known before: where a sample point's nearest voxel and all that touch it carry one
label, that label wins. Scores are computed for the other points only, for all labels in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform, _compute_kernel_size, blur_dimension
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from torch.nn.functional import grid_sample

from study.curriculum.curriculum import Curriculum
from study.nnunet.presets import PRESETS, fit_short_axes
from study.store.training_settings import AugmentationRule

# The original's: scores are halves of a thousandth, so that near ties become ties.
_SCALE = 1000.0
# Up to so many sample points, finding out which of them are in doubt takes longer than computing all.
FEW_POINTS = 8192


def rotated(transform: SpatialTransform, image: torch.Tensor, labels: torch.Tensor, drawn: dict[str, Any]) -> Any:
    """Image and labels, (channels, *crop) each, at the points that `transform.get_parameters` has drawn."""
    image = transform._apply_to_image(image, **drawn)
    settings = (transform.mode_seg, transform.border_mode_seg, transform.seg_tiebreak, transform.align_corners)
    if settings != ("bilinear", "constant", "nearest", False) or transform.bg_style_seg_sampling:
        return image, transform._apply_to_segmentation(labels, **drawn)
    grid = drawn["grid"]
    outside = int(transform.padding_value_seg)
    reaches_out = transform._may_reach_outside(grid, labels.shape[1:])
    return image, torch.stack([_resampled(channel, grid, outside, reaches_out) for channel in labels])


def _resampled(labels: torch.Tensor, grid: torch.Tensor, outside: int, reaches_out: bool) -> torch.Tensor:
    # The values that occur, in order.
    lowest = int(labels.min())
    found: Any = np.flatnonzero(np.bincount((labels.numpy().astype(np.intp) - lowest).ravel())) + lowest
    if reaches_out:
        found = np.union1d(found, outside)
    if len(found) == 1:
        return torch.full(grid.shape[:-1], int(found[0]), dtype=labels.dtype)
    if grid[..., 0].numel() <= FEW_POINTS:
        nearest = _nearest(labels, grid, outside)
        return _winners(labels, _row(grid.flatten(0, -2)), nearest.flatten(), found, outside, reaches_out).view_as(
            nearest
        )
    plain = torch.from_numpy(_surrounded(labels.numpy())).float()
    result, unsure = _nearest(labels, grid, outside), _sample(plain[None], grid, "nearest")[0] == 0
    if unsure.any():
        result[unsure] = _winners(labels, _row(grid[unsure]), result[unsure], found, outside, reaches_out)
    return result


def _nearest(labels: torch.Tensor, grid: torch.Tensor, outside: int) -> torch.Tensor:
    sampled = _sample((labels.float() - outside)[None], grid, "nearest")[0] + outside
    return sampled.to(labels.dtype)


def _row(points: torch.Tensor) -> torch.Tensor:
    """Points (n, axes) as a grid of one row."""
    return points.view(*[1] * (points.shape[1] - 1), *points.shape)


def _winners(
    labels: torch.Tensor, points: torch.Tensor, nearest: torch.Tensor, found: Any, outside: int, reaches_out: bool
) -> torch.Tensor:
    """The label with the highest score at each point, the nearest voxel's where it has that score, too."""
    values = torch.from_numpy(found).to(labels.dtype)
    if len(values) == 2:
        (score,) = _scores(labels, points, values[1:], outside, reaches_out)
        winner = torch.where(score > _SCALE / 2, values[1], values[0])
        return torch.where(score == _SCALE / 2, nearest, winner)
    scores = _scores(labels, points, values, outside, reaches_out)
    best, winner = scores[0], values[0].expand_as(nearest)
    own = torch.full(nearest.shape, -torch.inf, dtype=scores.dtype)
    for value, score in zip(values, scores, strict=True):
        own = torch.where(nearest == value, score, own)
        winner = torch.where(score > best, value, winner)
        best = torch.maximum(best, score)
    return torch.where(own == best, nearest, winner)


def _scores(
    labels: torch.Tensor, points: torch.Tensor, values: torch.Tensor, outside: int, reaches_out: bool
) -> torch.Tensor:
    """Scores (labels, points) in float16, as the original compares them."""
    indicators = torch.empty((len(values), *labels.shape))
    torch.eq(labels, values.view(-1, *[1] * labels.ndim), out=indicators)
    padding = [i for i, value in enumerate(values.tolist()) if reaches_out and value == outside]
    # Sampling pads with zeros: the label that lies outside is sampled less one.
    indicators[padding] -= 1
    sampled = _sample(indicators.mul_(_SCALE), points, "bilinear").flatten(1)
    sampled[padding] += _SCALE
    return sampled.to(torch.float16)


def _sample(volumes: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    return grid_sample(volumes[None], grid[None], mode=mode, padding_mode="zeros", align_corners=False)[0]


def _surrounded(labels: Any) -> Any:
    """Whether a voxel and all that touch it, corners included, have one value; False at the border."""
    low = high = labels
    for axis in range(labels.ndim):
        shifts = [slice(start, max(start, labels.shape[axis] - 2 + start)) for start in range(3)]
        windows = [(*[slice(None)] * axis, shift) for shift in shifts]
        low = reduce(np.minimum, (low[window] for window in windows))
        high = reduce(np.maximum, (high[window] for window in windows))
    inner = tuple(slice(1, n - 1) for n in labels.shape)
    result = np.zeros(labels.shape, dtype=bool)
    result[inner] = low == high
    return result


# Kernel width in standard deviations, the default of batchgeneratorsv2's blur.
_BLUR_TRUNCATE = 6


class RepeatableBlur(GaussianBlurTransform):  # type: ignore[misc]
    """nnU-Net's blur without its stopwatch.

    The original times convolution against FFT for each new shape and keeps the faster: the choice, and with it the last
    bits of a batch, would depend on the load of the machine. An axis too short for the kernel's reflection, which no
    full patch has, is left as it is.
    """

    def _benchmark_wrapper(self, img: torch.Tensor, sigma: float, dim_to_blur: int) -> torch.Tensor:
        reach = _compute_kernel_size(sigma, truncate=_BLUR_TRUNCATE) // 2
        if img.shape[dim_to_blur + 1] <= reach:
            return img
        blurred: torch.Tensor = blur_dimension(img, sigma, dim_to_blur, truncate=_BLUR_TRUNCATE)
        return blurred


class ReplacedLabel(SegOnlyTransform):  # type: ignore[misc]
    """nnU-Net's removal of a label from all channels."""

    def __init__(self, removed: int, put: int) -> None:
        super().__init__()
        self._removed, self._put = removed, put

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **_: Any) -> torch.Tensor:
        return segmentation.masked_fill_(segmentation == self._removed, self._put)


class EveryNth(DownsampleSegForDSTransform):  # type: ignore[misc]
    """nnU-Net's smaller labels for deep supervision; where a scale is one in n voxels per axis, without computing."""

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> list[torch.Tensor]:
        steps = [_steps(scale, segmentation.shape[1:]) for scale in self.ds_scales]
        if not all(steps):
            computed: list[torch.Tensor] = super()._apply_to_segmentation(segmentation, **params)
            return computed
        return [segmentation[(slice(None), *(slice(n // 2, None, n) for n in step))] for step in steps]


def _steps(scale: Any, shape: torch.Size) -> list[int]:
    """n of a scale of 1 / n by axis; nothing if it is none that divides the shape."""
    scales = scale if isinstance(scale, tuple | list) else [scale] * len(shape)
    steps = [round(1 / share) for share in scales]
    exact = all(n * share == 1 and size % n == 0 for n, share, size in zip(steps, scales, shape, strict=True))
    return steps if exact else []


class Pipeline:
    """The transforms of a stage, for labels of type int16.

    Args:
        transforms: nnU-Net's own.
        patch_size: voxels per axis that come out.
    """

    def __init__(self, transforms: ComposeTransforms, patch_size: tuple[int, ...]) -> None:
        steps = list(transforms.transforms)
        kinds = [type(step) for step in steps]
        flat = kinds[:3] == [Convert3DTo2DTransform, SpatialTransform, Convert2DTo3DTransform]
        self._flat, self._spatial = flat, None
        if flat or kinds[:1] == [SpatialTransform]:
            self._spatial, steps = steps[flat], steps[3 if flat else 1 :]
        self._rest = [replaced(step) for step in steps]
        self._patch_size = tuple(patch_size)

    def draw_rotation(self, image_shape: tuple[int, ...]) -> dict[str, Any] | None:
        """What rotates and scales a crop (channels, *axes); None when all that is done is to cut out its middle."""
        if self._spatial is None:
            return None
        drawn: dict[str, Any] = self._spatial.get_parameters(image=torch.empty(self._seen(image_shape), device="meta"))
        return None if drawn["grid"] is None else drawn

    def apply(self, image: torch.Tensor, labels: torch.Tensor, drawn: dict[str, Any] | None) -> dict[str, Any]:
        """Transform a crop: of the full size if a rotation was drawn, else of the patch's."""
        if drawn is not None:
            before = image.shape[0], labels.shape[0]
            image, labels = image.view(self._seen(image.shape)), labels.view(self._seen(labels.shape))
            parts = rotated(self._spatial, image, labels, drawn)
            image, labels = (part.view(n, *self._patch_size) for part, n in zip(parts, before, strict=True))
        sample = {"image": image, "segmentation": labels}
        for step in self._rest:
            sample = step(**sample)
        return sample

    def _seen(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0] * shape[1], *shape[2:]) if self._flat else tuple(shape)


def replaced(step: BasicTransform) -> BasicTransform:
    """Ours for a transform of nnU-Net's that is replaced, any other as it is."""
    if type(step) is OneOfTransform:
        return OneOfTransform([replaced(each) for each in step.list_of_transforms])
    if type(step) is RemoveLabelTransform and step.segmentation_channels is None:
        return ReplacedLabel(step.label_value, step.set_to)
    if type(step) is DownsampleSegForDSTransform:
        return EveryNth(step.ds_scales)
    if isinstance(step, RandomTransform):
        fit_short_axes(step.transform)
    if not isinstance(step, RandomTransform) or not isinstance(step.transform, GaussianBlurTransform):
        return step
    names = ("blur_sigma", "synchronize_channels", "synchronize_axes", "p_per_channel")
    blur = RepeatableBlur(**{name: getattr(step.transform, name) for name in names}, benchmark=True)
    return RandomTransform(blur, apply_probability=step.apply_probability)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """nnU-Net's decisions for one patch.

    Attributes:
        rotation: range in radians; dummy_2d: whether axis 0 is left out of spatial transforms.
        mirror_axes: axes that training mirrors.
        crop_scales: what the crop is widened for before it is rotated and scaled; None where neither is done.
    """

    rotation: tuple[float, float]
    dummy_2d: bool
    mirror_axes: tuple[int, ...]
    crop_scales: tuple[float, float] | None

    def crop_size(self, patch_size: tuple[int, ...]) -> list[int]:
        """Voxels to cut out per axis so that a rotated, scaled patch has no empty corners."""
        if self.crop_scales is None:
            return list(patch_size)
        size = [int(n) for n in get_patch_size(patch_size, *[self.rotation] * 3, self.crop_scales)]
        return [patch_size[0], *size[1:]] if self.dummy_2d else size


def augmentations(trainer: Any, curriculum: Curriculum, rule: AugmentationRule) -> list[Augmentation]:
    """The decisions of an nnU-Net trainer for each stage of a curriculum.

    Its rule for flat patches (no rotation out of the plane, 180 degrees in it) takes the patch of the configuration. At
    the small patches of a curriculum it may come out otherwise. `full-patch` asks once, so that a stage changes sizes
    and nothing else; `per-stage` asks anew for every stage, as the published code of PGPS does. On the Decathlon's
    pancreas task the two differ in 18.6 % of PGPS' iterations.
    """
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
    return Augmentation(
        rotation=rotation,
        dummy_2d=bool(dummy_2d),
        mirror_axes=tuple(mirror_axes or ()),
        crop_scales=PRESETS[trainer.job.settings.augmentation_preset].crop_scales,
    )


class TransformFactory:
    """Makes nnU-Net's transforms for a patch size; holds nothing that cannot travel to a worker process."""

    def __init__(self, trainer: Any) -> None:
        labels = trainer.label_manager
        preset = PRESETS[trainer.job.settings.augmentation_preset]
        self._make_training = preset.transforms or trainer.get_training_transforms
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
        """Those of a stage."""
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
        """Those of validation batches."""
        transforms: ComposeTransforms = self._make_validation(self._scales, **self._labelling)
        return transforms

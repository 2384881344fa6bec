"""nnU-Net's transforms as batches use them: the same draws in the same order, the same values, less around them.

What is replaced: the blur with a stopwatch; rotation and scaling, which `resampling` does and which are drawn first, so
that they say whether a crop wider than the patch is needed; writing to labels by positions; deep supervision's copies.
"""

from __future__ import annotations

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform, _compute_kernel_size, blur_dimension
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform

from study.resampling import rotated

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


def make_repeatable(transforms: ComposeTransforms) -> ComposeTransforms:
    """The same transforms with every blur replaced by `RepeatableBlur`."""
    return ComposeTransforms([_repeatable(transform) for transform in transforms.transforms])


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
        steps = list(make_repeatable(transforms).transforms)
        kinds = [type(step) for step in steps]
        flat = kinds[:3] == [Convert3DTo2DTransform, SpatialTransform, Convert2DTo3DTransform]
        self._flat, self._spatial = flat, None
        if flat or kinds[:1] == [SpatialTransform]:
            self._spatial, steps = steps[flat], steps[3 if flat else 1 :]
        self._rest = [_lean(step) for step in steps]
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


def _lean(step: BasicTransform) -> BasicTransform:
    if type(step) is RemoveLabelTransform and step.segmentation_channels is None:
        return ReplacedLabel(step.label_value, step.set_to)
    return EveryNth(step.ds_scales) if type(step) is DownsampleSegForDSTransform else step


def _repeatable(transform: BasicTransform) -> BasicTransform:
    if not isinstance(transform, RandomTransform) or not isinstance(transform.transform, GaussianBlurTransform):
        return transform
    blur = transform.transform
    replacement = RepeatableBlur(
        blur_sigma=blur.blur_sigma,
        synchronize_channels=blur.synchronize_channels,
        synchronize_axes=blur.synchronize_axes,
        p_per_channel=blur.p_per_channel,
        benchmark=True,
    )
    return RandomTransform(replacement, apply_probability=transform.apply_probability)

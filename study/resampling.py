"""Rotation and scaling of labels as batchgeneratorsv2 does it, bit for bit, at a fraction of its time.

The original interpolates an indicator of every label over the whole patch and takes the label with the highest score.
Away from borders between labels the answer is known before: where a sample point's nearest voxel and all that touch it
carry one label, that label wins. Scores are computed for the other points only, for all labels in one pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from torch.nn.functional import grid_sample

# The original's: scores are halves of a thousandth, so that near ties become ties.
_SCALE = 1000.0
# Up to so many sample points, finding out which of them are in doubt takes longer than computing all.
FEW_POINTS = 8192


def rotated(transform: SpatialTransform, image: torch.Tensor, labels: torch.Tensor, drawn: dict[str, Any]) -> Any:
    """Image and labels, (channels, *crop) each, at the points that `transform.get_parameters` has drawn."""
    image = transform._apply_to_image(image, **drawn)
    if not _is_nnunets(transform):
        return image, transform._apply_to_segmentation(labels, **drawn)
    grid = drawn["grid"]
    outside = int(transform.padding_value_seg)
    reaches_out = transform._may_reach_outside(grid, labels.shape[1:])
    return image, torch.stack([_resampled(channel, grid, outside, reaches_out) for channel in labels])


def _is_nnunets(transform: SpatialTransform) -> bool:
    settings = (transform.mode_seg, transform.border_mode_seg, transform.seg_tiebreak, transform.align_corners)
    return settings == ("bilinear", "constant", "nearest", False) and not transform.bg_style_seg_sampling


def _resampled(labels: torch.Tensor, grid: torch.Tensor, outside: int, reaches_out: bool) -> torch.Tensor:
    found = _values(labels.numpy())
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


def _values(labels: Any) -> Any:
    """The values that occur, in order."""
    lowest = int(labels.min())
    return np.flatnonzero(np.bincount((labels.astype(np.intp) - lowest).ravel())) + lowest


def _surrounded(labels: Any) -> Any:
    """Whether a voxel and all that touch it, corners included, have one value; False at the border."""
    low = high = labels
    for axis in range(labels.ndim):
        low, high = _over_three(np.minimum, low, axis), _over_three(np.maximum, high, axis)
    inner = tuple(slice(1, n - 1) for n in labels.shape)
    result = np.zeros(labels.shape, dtype=bool)
    result[inner] = low == high
    return result


def _over_three(reduce: Any, array: Any, axis: int) -> Any:
    before, here, after = (
        tuple(slice(start, max(start, n - 2 + start)) if a == axis else slice(None) for a, n in enumerate(array.shape))
        for start in range(3)
    )
    return reduce(reduce(array[before], array[here]), array[after])

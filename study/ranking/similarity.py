"""Similarity of two images on a common grid, over the voxels where both are defined: MSE, PSNR, SSIM, UQI.

The measures are scikit-image's. SSIM and UQI are means over the windows that lie wholly in the overlap. UQI is SSIM
with both constants 0, so a window that is constant in both images has none and is left out. Of several channels the
mean counts. What has no value has a reason instead; no NaN and no infinity leaves this module.

Sources: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004 (SSIM);
Wang and Bovik, "A universal image quality index", IEEE SPL 2002 (UQI).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from study.ranking.files import MEASURES

Voxels = NDArray[np.float64]
Mask = NDArray[np.bool_]

LARGEST_WINDOW_VOXELS, SMALLEST_WINDOW_VOXELS = 7, 3
# Equal images would have an infinite PSNR, which no mean survives.
MOST_PSNR_DECIBEL = 100.0
# A window that varies by less than this share of the data range is constant: the rest is rounding of the resampling.
CONSTANT_SHARE = 1e-6
NO_OVERLAP = "no overlap with what it is compared to"
TOO_THIN = f"overlap holds no window of {SMALLEST_WINDOW_VOXELS} voxels or more"
CONSTANT = "constant where it is compared"


@dataclass(frozen=True, kw_only=True, eq=False)
class GridImage:
    """An image on the common grid.

    Attributes:
        voxels: (channels, *axes), finite everywhere.
        inside: (*axes), where the image is defined.
    """

    voxels: Voxels
    inside: Mask
    _spreads: dict[int, Voxels] = field(default_factory=dict, repr=False)

    def spread(self, window: int) -> Voxels:
        """Largest minus smallest value in the window around every voxel, per channel; kept for the next call."""
        if window not in self._spreads:
            from scipy import ndimage

            size = (1,) + (window,) * self.inside.ndim
            largest, smallest = ndimage.maximum_filter(self.voxels, size), ndimage.minimum_filter(self.voxels, size)
            self._spreads[window] = largest - smallest
        return self._spreads[window]


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """What two images have in common.

    Attributes:
        values: measure -> value; MSE in squared intensities, PSNR in dB, SSIM and UQI up to 1; None where undefined.
        reasons: measure -> why it is undefined.
    """

    values: Mapping[str, float | None]
    reasons: Mapping[str, str]


def compare(first: GridImage, second: GridImage, data_ranges: Sequence[float]) -> Similarity:
    """Compare two images on one grid.

    Args:
        first: an image.
        second: another of the same shape and channels.
        data_ranges: per channel, the range of intensities that PSNR and SSIM relate to, the same for all comparisons.
    """
    overlap = first.inside & second.inside
    if not overlap.any():
        return _comparison([], dict.fromkeys(MEASURES, NO_OVERLAP))
    box = _bounding_box(overlap)
    window = window_that_fits(overlap[box].shape)
    windows = _window_centres(overlap[box], window) if window else None
    if window is None or windows is None or not windows.any():
        window, windows = None, None
    channels = [
        _channel(first, second, index, float(data_range), overlap[box], box, window, windows)
        for index, data_range in enumerate(data_ranges)
    ]
    structural = CONSTANT if window else TOO_THIN
    return _comparison(channels, {"psnr": CONSTANT, "ssim": structural, "uqi": structural})


def window_that_fits(shape: Sequence[int]) -> int | None:
    """Edge in voxels of the largest odd window up to 7 that fits an image; None under 3.

    An axis of one voxel among larger ones is the caller's to drop.
    """
    edge = min(LARGEST_WINDOW_VOXELS, *shape)
    edge -= 1 - edge % 2
    return edge if edge >= SMALLEST_WINDOW_VOXELS else None


def _channel(
    first: GridImage,
    second: GridImage,
    index: int,
    data_range: float,
    overlap: Mask,
    box: tuple[slice, ...],
    window: int | None,
    windows: Mask | None,
) -> dict[str, float | None]:
    ours, theirs = first.voxels[index][box], second.voxels[index][box]
    values = _pointwise(ours[overlap], theirs[overlap], data_range)
    if window is None or windows is None:
        return {**values, "ssim": None, "uqi": None}
    constant = CONSTANT_SHARE * data_range
    varied = [image.spread(window)[index][box] > constant for image in (first, second)]
    has_quality = windows & (varied[0] | varied[1])
    ssim = _mean_map(ours, theirs, windows, window, data_range=data_range) if data_range > 0 else None
    return {**values, "ssim": ssim, "uqi": _mean_map(ours, theirs, has_quality, window, data_range=1.0, K1=0.0, K2=0.0)}


def _pointwise(ours: Voxels, theirs: Voxels, data_range: float) -> dict[str, float | None]:
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

    error = float(mean_squared_error(ours, theirs))
    if data_range <= 0:
        return {"mse": error, "psnr": None}
    ratio = float(peak_signal_noise_ratio(ours, theirs, data_range=data_range)) if error > 0 else math.inf
    return {"mse": error, "psnr": min(ratio, MOST_PSNR_DECIBEL)}


def _mean_map(ours: Voxels, theirs: Voxels, where: Mask, window: int, **settings: float) -> float | None:
    """Mean of scikit-image's SSIM map over the given window centres; None where no window has a value."""
    from skimage.metrics import structural_similarity

    if not where.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        _, similarity = structural_similarity(ours, theirs, win_size=window, full=True, **settings)
    found = similarity[where]
    found = found[np.isfinite(found)]
    return float(found.mean()) if found.size else None


def _window_centres(overlap: Mask, window: int) -> Mask:
    """Where a window lies wholly in the overlap."""
    from scipy import ndimage

    # Far cheaper than a binary erosion by a cube, and the same.
    smallest: Mask = ndimage.minimum_filter(overlap.view(np.uint8), window, mode="constant", cval=0).astype(bool)
    return smallest


def _bounding_box(overlap: Mask) -> tuple[slice, ...]:
    from scipy import ndimage

    box: tuple[slice, ...] = ndimage.find_objects(overlap.astype(np.uint8))[0]
    return box


def _comparison(channels: Sequence[Mapping[str, float | None]], reasons: Mapping[str, str]) -> Similarity:
    """The mean over channels that have a value, and the reasons of measures that have none."""
    values = {measure: _mean([channel[measure] for channel in channels]) for measure in MEASURES}
    return Similarity(
        values=values, reasons={measure: reasons[measure] for measure in MEASURES if values[measure] is None}
    )


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None

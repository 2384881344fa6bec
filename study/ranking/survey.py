"""A first look at every case: size, range of intensities, a thumbnail. It settles what all comparisons have in common.

The common reference is the medoid of the thumbnails unless a case is named: the case whose thumbnail correlates most
with all others'. A thumbnail is the unregistered case, mean over channels, stretched to 16 voxels along every axis and
standardised. A case that is constant, or that along some axis has less than half of the median size, would be a poor
reference and is passed over.

The data range of PSNR and SSIM is, per channel, the median over the cases of the width between their 0.5 and 99.5
percentiles: one outlier does not set the scale for everybody.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from study.common.errors import DataIntegrityError
from study.ranking.images import CaseImage, centred, shrink_factors

THUMBNAIL_VOXELS = 16
PERCENTILES = (0.5, 99.5)
MEDOID = "medoid"
# An image has at least two axes, however flat the data.
_LEAST_AXES = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseSurvey:
    """What one case is like.

    Attributes:
        shape: voxels per axis; spacing: millimetres per axis.
        ranges: per channel, width between the percentiles; 0 without any finite voxel.
        thumbnail: 16 voxels along every axis, mean 0, standard deviation 1; all 0 for a constant case.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    ranges: tuple[float, ...]
    thumbnail: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class CommonLayout:
    """What all comparisons of a ranking have in common.

    Attributes:
        reference: case that all others are registered to, and whose grid is the common one.
        dropped_axes: axes in which every case has one voxel.
        factors: per remaining axis, how many voxels are averaged into one of the grid.
        data_ranges: per channel, see above.
    """

    reference: str
    dropped_axes: tuple[int, ...]
    factors: tuple[int, ...]
    data_ranges: tuple[float, ...]


def survey(case: CaseImage) -> CaseSurvey:
    """Look at a case."""
    import SimpleITK
    from skimage.transform import resize

    # Averaging first is cheap and leaves little to the slow, smoothing resampling.
    factors = [max(1, size // (2 * THUMBNAIL_VOXELS)) for size in case.shape]
    coarse = SimpleITK.GetArrayFromImage(centred(case, factors).mean())
    size = (THUMBNAIL_VOXELS,) * coarse.ndim
    small = np.asarray(resize(coarse, size, order=1, mode="edge", anti_aliasing=True), dtype=np.float64)
    spread = small.std()
    # What is left of a constant after rounding is no image.
    standard = (small - small.mean()) / spread if spread > 1e-6 * np.abs(small).max() else np.zeros_like(small)
    return CaseSurvey(
        shape=case.shape,
        spacing=tuple(float(step) for step in case.spacing),
        ranges=tuple(_range(channel) for channel in case.voxels),
        thumbnail=standard.astype(np.float32),
    )


def lay_out(surveys: Mapping[str, CaseSurvey], reference: str) -> CommonLayout:
    """Settle what all comparisons have in common.

    Args:
        surveys: of all training cases.
        reference: one of them, or `medoid`.

    Raises:
        DataIntegrityError: the cases differ in their number of channels.
    """
    channels = sorted({len(found.ranges) for found in surveys.values()})
    if len(channels) > 1:
        raise DataIntegrityError(f"cases of {' and '.join(map(str, channels))} channels cannot be compared")
    chosen = _medoid_of(surveys) if reference == MEDOID else reference
    shape, spacing = surveys[chosen].shape, surveys[chosen].spacing
    flat = [axis for axis in range(len(shape)) if all(found.shape[axis] == 1 for found in surveys.values())]
    dropped = tuple(flat[: len(shape) - _LEAST_AXES])
    kept = [axis for axis in range(len(shape)) if axis not in dropped]
    return CommonLayout(
        reference=chosen,
        dropped_axes=dropped,
        factors=shrink_factors([shape[axis] for axis in kept], [spacing[axis] for axis in kept]),
        data_ranges=tuple(
            statistics.median(found.ranges[channel] for found in surveys.values()) for channel in range(channels[0])
        ),
    )


def medoid(thumbnails: Mapping[str, NDArray[np.float32]], candidates: Sequence[str]) -> str:
    """The candidate that differs least from all cases; the first by name of several."""
    from scipy.spatial.distance import cdist

    points = {case: thumbnails[case].ravel().astype(np.float64) for case in sorted(thumbnails)}
    names = sorted(candidates)
    distances = cdist([points[name] for name in names], list(points.values()), "sqeuclidean")
    return names[int(np.argmin(distances.sum(axis=1)))]


def _medoid_of(surveys: Mapping[str, CaseSurvey]) -> str:
    sizes = np.median([found.shape for found in surveys.values()], axis=0)
    fit = [
        case
        for case, found in surveys.items()
        if found.thumbnail.any() and all(2 * size >= median for size, median in zip(found.shape, sizes, strict=True))
    ]
    return medoid({case: found.thumbnail for case, found in surveys.items()}, fit or list(surveys))


def _range(channel: NDArray[np.float32]) -> float:
    finite = channel[np.isfinite(channel)]
    if not finite.size:
        return 0.0
    low, high = np.percentile(finite, PERCENTILES)
    return float(high) - float(low)

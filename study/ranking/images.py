"""Preprocessed cases as SimpleITK images: centred on one another, coarse enough to compare many, on one common grid.

They are read as nnU-Net stored them, by nnU-Net's own dataset class.

Preprocessing crops every case, so where it lay in the scanner says nothing about where it lies in another one. Cases
are therefore laid with their centres on the origin, in the spacing that nnU-Net resampled them to. Axes in which every
case has a single voxel, as in datasets of 2D images, are dropped. Array axes are those of nnU-Net, z, y, x; SimpleITK
counts them in the opposite order, which is hidden here.

A first look at every case (size, range of intensities, a thumbnail) settles what all comparisons have in common. The
common reference is the medoid of the thumbnails unless a case is named: the case whose thumbnail correlates most with
all others'. A thumbnail is the unregistered case, mean over channels, stretched to 16 voxels along every axis and
standardised. A case that is constant, or that along some axis has less than half of the median size, would be a poor
reference and is passed over. The data range of PSNR and SSIM is, per channel, the median over the cases of the width
between their 0.5 and 99.5 percentiles: one outlier does not set the scale for everybody.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.common import files
from study.common.errors import DataIntegrityError, MissingDataError
from study.nnunet.datasets import PreparedDataset
from study.nnunet.plans import NetworkPlan, inherited
from study.ranking.similarity import GridImage, Mask

Array = NDArray[np.float32]
# A case of 64 voxels in every direction; larger ones are averaged down to it before they are compared.
MOST_GRID_VOXELS = 64**3
# A cubic spline needs as many along every axis.
LEAST_SPLINE_VOXELS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseImage:
    """A preprocessed case.

    Attributes:
        voxels: (channels, *axes), as nnU-Net stored them.
        spacing: per axis, millimetres.
        labels: (*axes), class of every voxel, 0 or less where there is none; None when they are not known.
    """

    voxels: Array
    spacing: tuple[float, ...]
    labels: NDArray[Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.voxels.shape[1:])

    def without(self, axes: Sequence[int]) -> CaseImage:
        """The same with these axes of one voxel dropped."""
        kept = [axis for axis in range(len(self.spacing)) if axis not in axes]
        return CaseImage(
            voxels=np.squeeze(self.voxels, axis=tuple(axis + 1 for axis in axes)),
            spacing=tuple(self.spacing[axis] for axis in kept),
            labels=None if self.labels is None else np.squeeze(self.labels, axis=tuple(axes)),
        )


@dataclass(frozen=True, kw_only=True)
class Centred:
    """A case in SimpleITK's form, centred on the origin.

    Attributes:
        channels: one SimpleITK image per channel, 32-bit floats, zero where the case is not finite.
        defined: SimpleITK image, 1 where all channels are finite.
        centroids: class -> centre of its voxels, millimetres in SimpleITK's order of axes.
    """

    channels: tuple[Any, ...]
    defined: Any
    centroids: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(reversed(self.defined.GetSize()))

    def mean(self) -> Any:
        """The mean of the channels, which is what is registered."""
        total = self.channels[0]
        for channel in self.channels[1:]:
            total = total + channel
        return total / len(self.channels)


@dataclass(frozen=True, kw_only=True)
class CaseFolder:
    """Preprocessed cases of one configuration.

    Attributes:
        path: the folder.
        spacing: millimetres per axis after resampling; of the last two axes alone for a 2D configuration.
        transpose: nnU-Net's order of axes, in terms of the image file's.
    """

    path: Path
    spacing: tuple[float, ...]
    transpose: tuple[int, ...]

    def read(self, case: str) -> CaseImage:
        """One case.

        Raises:
            MissingDataError: it cannot be read.
        """
        try:
            data, labels, _, properties = _dataset(self.path).load_case(case)
            return CaseImage(
                voxels=np.asarray(data[:], dtype=np.float32),
                spacing=self._spacing(properties),
                labels=np.asarray(labels[0]),
            )
        except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise MissingDataError(
                f"case {case} in {self.path} cannot be read ({reason}); run `python -m study prepare` again"
            ) from error

    def _spacing(self, properties: dict[str, Any]) -> tuple[float, ...]:
        original = [float(properties["spacing"][axis]) for axis in self.transpose]
        # A 2D configuration resamples within the slices alone.
        return (*original[: len(original) - len(self.spacing)], *self.spacing)


def case_folder(dataset: PreparedDataset, plan: NetworkPlan) -> CaseFolder:
    """Where the cases of a plan's configuration are.

    Raises:
        MissingDataError: the plans do not say how cases were resampled.
    """
    path = dataset.folder / f"{plan.plans}.json"
    try:
        document = files.read_json(path)
        spacing = inherited(document["configurations"], plan.configuration)["spacing"]
        transpose: Sequence[int] = document["transpose_forward"]
    except (OSError, ValueError, LookupError) as error:
        raise MissingDataError(f"{path} does not say how cases were resampled ({error}); plan it again") from error
    return CaseFolder(
        path=dataset.folder / plan.data_identifier,
        spacing=tuple(float(step) for step in spacing),
        transpose=tuple(int(axis) for axis in transpose),
    )


@lru_cache(maxsize=2)
def _dataset(folder: Path) -> Any:
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    return infer_dataset_class(str(folder))(str(folder))


def shrink_factors(shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """Whole factors per axis that bring an image to at most `MOST_GRID_VOXELS`, the finest axis coarsened first."""
    factors = [1] * len(shape)

    def size(axis: int) -> int:
        return max(1, shape[axis] // factors[axis])

    while math.prod(size(axis) for axis in range(len(shape))) > MOST_GRID_VOXELS:
        wide = [axis for axis in range(len(shape)) if size(axis) > 1]
        factors[min(wide, key=lambda axis: (factors[axis] * spacing[axis], axis))] += 1
    return tuple(factors)


def centred(case: CaseImage, factors: Sequence[int]) -> Centred:
    """A case centred on the origin, averaged over blocks of so many voxels per axis (fewer where it has fewer)."""
    finite: Mask = np.all(np.isfinite(case.voxels), axis=0)
    cleaned: Array = np.where(finite[None], case.voxels, np.float32(0))
    channels = tuple(_image(channel, case.spacing, factors) for channel in cleaned)
    return Centred(
        channels=channels,
        defined=_image(finite.astype(np.float32), case.spacing, factors),
        centroids=_centroids(case, factors),
    )


def on_grid(case: Centred, grid: Any, transform: Any) -> GridImage:
    """A case resampled onto a grid, with cubic splines, because linear interpolation takes away a case's noise.

    A case that moved would then be smoother than one that did not, and more similar to everything.

    Args:
        case: what is resampled.
        grid: SimpleITK image that has the wanted voxels.
        transform: from points of the grid to points of the case; SimpleITK.
    """
    import SimpleITK

    fine = SimpleITK.sitkBSpline if min(case.shape) >= LEAST_SPLINE_VOXELS else SimpleITK.sitkLinear
    voxels = np.stack([_resampled(channel, grid, transform, fine) for channel in case.channels])
    # A voxel counts only when its neighbours in the case are all defined.
    inside = _resampled(case.defined, grid, transform, SimpleITK.sitkLinear) > 1 - 1e-3
    return GridImage(voxels=np.where(inside[None], voxels, 0).astype(np.float64), inside=inside)


def _centroids(case: CaseImage, factors: Sequence[int]) -> dict[int, tuple[float, ...]]:
    from scipy import ndimage

    if case.labels is None:
        return {}
    classes = [int(n) for n in np.unique(case.labels) if n > 0]
    # The centre of what is left when blocks are averaged is the origin.
    kept = [size // min(f, size) * min(f, size) for size, f in zip(case.shape, factors, strict=True)]
    found = ndimage.center_of_mass(np.ones(case.shape), case.labels, classes) if classes else []
    return {
        n: tuple(step * (place - (size - 1) / 2) for place, size, step in zip(place, kept, case.spacing, strict=True))[
            ::-1
        ]
        for n, place in zip(classes, found, strict=True)
    }


def _image(voxels: Array, spacing: Sequence[float], factors: Sequence[int]) -> Any:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels, dtype=np.float32))
    image.SetSpacing([float(step) for step in reversed(spacing)])
    usable = [min(factor, size) for factor, size in zip(factors, voxels.shape, strict=True)]
    if max(usable) > 1:
        image = SimpleITK.BinShrink(image, [int(factor) for factor in reversed(usable)])
    image.SetOrigin([-step * (size - 1) / 2 for step, size in zip(image.GetSpacing(), image.GetSize(), strict=True)])
    return image


def _resampled(image: Any, grid: Any, transform: Any, interpolator: int) -> NDArray[np.float32]:
    import SimpleITK

    resampler = SimpleITK.ResampleImageFilter()
    resampler.SetReferenceImage(grid)
    resampler.SetInterpolator(interpolator)
    resampler.SetTransform(transform)
    resampler.SetDefaultPixelValue(0)
    resampler.SetNumberOfThreads(1)
    found: NDArray[np.float32] = SimpleITK.GetArrayFromImage(resampler.Execute(image))
    return found


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
    """Settle what all comparisons have in common, by surveys of all training cases; the reference may be `medoid`.

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

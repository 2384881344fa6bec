"""Registration of a case to the reference, the same every time: one thread, one seed, coarse to fine.

Correlation of the two images is maximised over rigid or affine transforms (rotations and shifts about the common
centre, for affine ones then scaling and shearing), on up to three levels of resolution. Levels coarsen the fine axes
first. Thick slices turn and shift in their plane alone, with many slices across them too: what a few thick slices
cannot show is noise, and would be fitted.

Nothing is believed without proof. A transform is kept only if it lowers the mean squared error, on the overlap and on
the voxels that overlap before and after; leaves at least half of the overlap there was; and, where training labels
are known, brings the centres of the classes no farther apart. Otherwise the case stays where it was. What ITK cannot
register is left so too, with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.ranking.images import Centred, on_grid
from study.ranking.similarity import GridImage, Mask

RIGID, AFFINE, NONE = "rigid", "affine", "none"
TRANSFORMS = (RIGID, AFFINE, NONE)
REFERENCE, REGISTERED, IDENTITY, UNREGISTERED = "reference", "registered", "identity", "unregistered"

LEAST_VOXELS = 4
LEAST_OVERLAP_SHARE = 0.5
# All voxels are looked at up to here, a drawn share of them beyond.
MOST_SAMPLES = 100_000
SAMPLING_SEED = 20_240
ITERATIONS = 100
# Shrink factors of the levels in terms of the finest axis; coarser axes shrink less, down to this many voxels.
LEVELS = (4, 2, 1)
LEAST_LEVEL_VOXELS = 8
# A slice so many times as thick as the finest spacing is a thick one; nnU-Net's threshold of anisotropy.
THICK = 3.0
# Fewer of them say nothing reliable about a shift across them: it drifts by slices where nothing is wrong.
FEW_SLICES = 24


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """A case on the grid of the reference.

    Attributes:
        image: the resampled case.
        registration: `registered`, `identity` (no transform was better) or `unregistered` (none could be found).
        reason: why it is not registered, empty otherwise.
        parameters: of the transform from the reference to the case, in SimpleITK's order; empty for identity.
        off_mm: how far the centres of its classes are from the reference's, mean over the classes that both have,
            unmoved and as placed; None without labels.
    """

    image: GridImage
    registration: str
    reason: str
    parameters: tuple[float, ...] = ()
    off_mm: tuple[float, float] | None = None


def align(case: Centred, reference: Centred, kind: str) -> Alignment:
    """Bring a case onto the grid of a reference of as many axes, registered where that is possible and better."""
    import SimpleITK

    still = SimpleITK.Transform(len(reference.shape), SimpleITK.sitkIdentity)
    unmoved, off = on_grid(case, reference.defined, still), centres_off_mm(case, reference, still)

    def stays(registration: str, reason: str) -> Alignment:
        both = None if off is None else (off, off)
        return Alignment(image=unmoved, registration=registration, reason=reason, off_mm=both)

    if kind == NONE:
        return stays(IDENTITY, "no registration was asked for")
    reason = _why_not(case, reference)
    if reason:
        return stays(UNREGISTERED, reason)
    try:
        transform = register(case, reference, kind)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return stays(UNREGISTERED, f"ITK gave up: {lines[-1] if lines else type(error).__name__}")
    moved, off_after = on_grid(case, reference.defined, transform), centres_off_mm(case, reference, transform)
    worse = _why_worse(unmoved, moved, on_grid(reference, reference.defined, still))
    if not worse and off is not None and off_after is not None and off_after > off:
        worse = f"registration moved the centres of the classes apart, from {off:.1f} to {off_after:.1f} mm"
    if worse:
        return stays(IDENTITY, worse)
    return Alignment(
        image=moved,
        registration=REGISTERED,
        reason="",
        parameters=tuple(float(p) for p in transform.GetParameters()),
        off_mm=None if off is None or off_after is None else (off, off_after),
    )


def centres_off_mm(case: Centred, reference: Centred, transform: Any) -> float | None:
    """Mean distance of a case's class centres from where the transform puts the reference's; None without labels."""
    shared = sorted(case.centroids.keys() & reference.centroids.keys())
    distances = [math.dist(transform.TransformPoint(reference.centroids[n]), case.centroids[n]) for n in shared]
    return math.fsum(distances) / len(distances) if distances else None


def register(case: Centred, reference: Centred, kind: str) -> Any:
    """The transform from points of the reference to points of the case, rigid or affine, centred on the origin.

    Raises:
        RuntimeError: ITK could not find one.
    """
    import SimpleITK

    fixed, moving = reference.mean(), case.mean()
    rigid = _optimised(fixed, moving, _rigid_start(len(reference.shape)))
    if kind != AFFINE:
        return rigid
    start = SimpleITK.AffineTransform(rigid.GetDimension())
    start.SetMatrix(rigid.GetMatrix())
    start.SetTranslation(rigid.GetTranslation())
    return _optimised(fixed, moving, start)


def kept_transform(kind: str, axes: int, parameters: Sequence[float]) -> Any:
    """The transform of an alignment, from its parameters."""
    import SimpleITK

    if not parameters:
        return SimpleITK.Transform(axes, SimpleITK.sitkIdentity)
    transform = SimpleITK.AffineTransform(axes) if kind == AFFINE else _rigid_start(axes)
    transform.SetParameters(list(parameters))
    return transform


def _optimised(fixed: Any, moving: Any, start: Any) -> Any:
    """ITK's registration from a start, level by level; the start is changed and returned."""
    import SimpleITK

    for level in LEVELS:
        factors = _factors(fixed.GetSpacing(), fixed.GetSize(), level)
        if max(factors) > 1:
            # Without what the level cannot show, half a voxel of it as standard deviation.
            pairs = zip(fixed.GetSpacing(), factors, strict=True)
            variances = [(step * factor / 2) ** 2 if factor > 1 else 0.0 for step, factor in pairs]
            ours, theirs = (SimpleITK.DiscreteGaussian(each, variances, 32, 0.01, True) for each in (fixed, moving))
            _optimise(SimpleITK.Shrink(ours, factors), theirs, start, step_mm=min(fixed.GetSpacing()))
        elif level == 1:
            _optimise(fixed, moving, start, step_mm=min(fixed.GetSpacing()))
    return start


def _optimise(fixed: Any, moving: Any, transform: Any, *, step_mm: float) -> None:
    import SimpleITK

    method = SimpleITK.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    voxels = math.prod(fixed.GetSize())
    method.SetMetricSamplingStrategy(method.NONE if voxels <= MOST_SAMPLES else method.RANDOM)
    if voxels > MOST_SAMPLES:
        method.SetMetricSamplingPercentage(MOST_SAMPLES / voxels, SAMPLING_SEED)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0 * step_mm,
        minStep=1e-3 * step_mm,
        numberOfIterations=ITERATIONS,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-8,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetOptimizerWeights(_weights(transform, moving.GetSpacing(), moving.GetSize()))
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)


def _factors(spacing: Sequence[float], size: Sequence[int], level: int) -> list[int]:
    """Per axis, how far a level shrinks it: to about the level's multiple of the finest spacing."""
    wanted = [max(1, round(level * min(spacing) / step)) for step in spacing]
    return [max(1, min(factor, voxels // LEAST_LEVEL_VOXELS)) for factor, voxels in zip(wanted, size, strict=True)]


def _weights(transform: Any, spacing: Sequence[float], size: Sequence[int]) -> list[float]:
    """1 for the parameters that may change, 0 for those that thick slices do not show; in the transform's order."""
    axes = len(spacing)
    thick = [axis for axis in range(axes) if axes == 3 and spacing[axis] >= THICK * min(spacing)]
    if len(thick) != 1:
        return [1.0] * len(transform.GetParameters())
    in_plane = [float(axis not in thick) for axis in range(axes)]
    shifts = in_plane if size[thick[0]] < FEW_SLICES else [1.0] * axes
    if len(transform.GetParameters()) == 2 * axes:
        # Angles about the axes, then shifts: slices turn in their plane, about the thick axis.
        return [*(1.0 - free for free in in_plane), *shifts]
    return [*(row * column for row in in_plane for column in in_plane), *shifts]


def _rigid_start(axes: int) -> Any:
    import SimpleITK

    return SimpleITK.Euler3DTransform() if axes == 3 else SimpleITK.Euler2DTransform()


def _why_not(case: Centred, reference: Centred) -> str:
    """Why the two cannot be registered at all; empty if they can."""
    import SimpleITK

    for what, image in (("it", case), ("the reference", reference)):
        least = min(image.shape)
        if least < LEAST_VOXELS:
            counted = "one voxel" if least == 1 else f"{least} voxels"
            return f"{what} has an axis of {counted}, registration needs {LEAST_VOXELS}"
        voxels = SimpleITK.GetArrayFromImage(image.mean())
        if voxels.max() == voxels.min():
            return f"{what} is constant"
    return ""


def _why_worse(before: GridImage, after: GridImage, reference: GridImage) -> str:
    """Why a transform is no improvement; empty if it is one."""
    here, there = before.inside & reference.inside, after.inside & reference.inside
    if there.sum() < LEAST_OVERLAP_SHARE * here.sum():
        return "registration left less than half of the overlap"

    def error(image: GridImage, where: Mask) -> float:
        found = (image.voxels[:, where] - reference.voxels[:, where]) ** 2
        return float(np.mean(found)) if where.any() else math.inf

    both = here & there
    if error(after, there) < error(before, here) and error(after, both) < error(before, both):
        return ""
    return "registration did not lower the mean squared error"

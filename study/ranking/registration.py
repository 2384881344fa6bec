"""Registration of a case to the reference, the same every time: one thread, one seed, coarse to fine.

Correlation of the two images is maximised over rigid or affine transforms (rotations and shifts about the common
centre, for affine ones then scaling and shearing), on up to three levels of resolution. Nothing is believed without
proof: a transform is kept only if it lowers the mean squared error on the overlap and leaves at least half of the
overlap there was. Otherwise the case stays where it was. What ITK cannot register is left so too, with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.ranking.images import Centred, on_grid
from study.ranking.similarity import GridImage

RIGID, AFFINE, NONE = "rigid", "affine", "none"
TRANSFORMS = (RIGID, AFFINE, NONE)
REFERENCE, REGISTERED, IDENTITY, UNREGISTERED = "reference", "registered", "identity", "unregistered"

LEAST_VOXELS = 4
LEAST_OVERLAP_SHARE = 0.5
# All voxels are looked at up to here, a drawn share of them beyond.
MOST_SAMPLES = 100_000
SAMPLING_SEED = 20_240
ITERATIONS = 100
# Shrink factors and smoothing (in voxels) of the levels; a level is left out where fewer voxels than this would remain.
LEVELS = ((4, 2.0), (2, 1.0), (1, 0.0))
LEAST_LEVEL_VOXELS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """A case on the grid of the reference.

    Attributes:
        image: the resampled case.
        registration: `registered`, `identity` (no transform was better) or `unregistered` (none could be found).
        reason: why it is not registered, empty otherwise.
        parameters: of the transform from the reference to the case, in SimpleITK's order; empty for identity.
    """

    image: GridImage
    registration: str
    reason: str
    parameters: tuple[float, ...] = ()


def align(case: Centred, reference: Centred, kind: str) -> Alignment:
    """Bring a case onto the reference's grid, registered where that is possible and better.

    Args:
        case: of as many axes as the reference.
        reference: whose grid is the common one.
        kind: one of `TRANSFORMS`.
    """
    import SimpleITK

    still = SimpleITK.Transform(len(reference.shape), SimpleITK.sitkIdentity)
    unmoved = on_grid(case, reference.defined, still)
    if kind == NONE:
        return Alignment(image=unmoved, registration=IDENTITY, reason="no registration was asked for")
    reason = _why_not(case, reference)
    if reason:
        return Alignment(image=unmoved, registration=UNREGISTERED, reason=reason)
    try:
        transform = register(case, reference, kind)
    except RuntimeError as error:
        return Alignment(image=unmoved, registration=UNREGISTERED, reason=f"ITK gave up: {_last_line(error)}")
    moved = on_grid(case, reference.defined, transform)
    worse = _why_worse(unmoved, moved, on_grid(reference, reference.defined, still))
    if worse:
        return Alignment(image=unmoved, registration=IDENTITY, reason=worse)
    return Alignment(
        image=moved, registration=REGISTERED, reason="", parameters=tuple(float(p) for p in transform.GetParameters())
    )


def register(case: Centred, reference: Centred, kind: str) -> Any:
    """The transform from points of the reference to points of the case, rigid or affine, centred on the origin.

    Raises:
        RuntimeError: ITK could not find one.
    """
    fixed, moving = reference.mean(), case.mean()
    transform = _optimised(fixed, moving, _rigid_start(len(reference.shape)))
    if kind == AFFINE:
        transform = _optimised(fixed, moving, _affine_start(transform))
    return transform


def kept_transform(kind: str, axes: int, parameters: Sequence[float]) -> Any:
    """The transform of an alignment, from its parameters."""
    import SimpleITK

    if not parameters:
        return SimpleITK.Transform(axes, SimpleITK.sitkIdentity)
    transform = SimpleITK.AffineTransform(axes) if kind == AFFINE else _rigid_start(axes)
    transform.SetParameters(list(parameters))
    return transform


def _optimised(fixed: Any, moving: Any, start: Any) -> Any:
    """ITK's registration from a start, which is changed and returned."""
    import SimpleITK

    method = SimpleITK.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    _set_sampling(method, math.prod(fixed.GetSize()))
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0 * min(fixed.GetSpacing()),
        minStep=1e-3 * min(fixed.GetSpacing()),
        numberOfIterations=ITERATIONS,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-8,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    levels = _levels(min(*fixed.GetSize(), *moving.GetSize()))
    method.SetShrinkFactorsPerLevel([factor for factor, _ in levels])
    method.SetSmoothingSigmasPerLevel([sigma for _, sigma in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(start, inPlace=True)
    method.Execute(fixed, moving)
    return start


def _set_sampling(method: Any, voxels: int) -> None:
    if voxels <= MOST_SAMPLES:
        method.SetMetricSamplingStrategy(method.NONE)
        return
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(MOST_SAMPLES / voxels, SAMPLING_SEED)


def _levels(smallest_axis_voxels: int) -> list[tuple[int, float]]:
    return [level for level in LEVELS if level[0] == 1 or smallest_axis_voxels // level[0] >= LEAST_LEVEL_VOXELS]


def _rigid_start(axes: int) -> Any:
    import SimpleITK

    return SimpleITK.Euler3DTransform() if axes == 3 else SimpleITK.Euler2DTransform()


def _affine_start(rigid: Any) -> Any:
    import SimpleITK

    start = SimpleITK.AffineTransform(rigid.GetDimension())
    start.SetMatrix(rigid.GetMatrix())
    start.SetTranslation(rigid.GetTranslation())
    return start


def _why_not(case: Centred, reference: Centred) -> str:
    """Why the two cannot be registered at all; empty if they can."""
    for what, image in (("it", case), ("the reference", reference)):
        if min(image.shape) < LEAST_VOXELS:
            return f"{what} has an axis of {_counted(min(image.shape))}, registration needs {LEAST_VOXELS}"
        if _is_constant(image):
            return f"{what} is constant"
    return ""


def _why_worse(before: GridImage, after: GridImage, reference: GridImage) -> str:
    """Why a transform is no improvement; empty if it is one."""
    if _overlap(after, reference).sum() < LEAST_OVERLAP_SHARE * _overlap(before, reference).sum():
        return "registration left less than half of the overlap"
    if not _error(after, reference) < _error(before, reference):
        return "registration did not lower the mean squared error"
    return ""


def _overlap(image: GridImage, reference: GridImage) -> Any:
    return image.inside & reference.inside


def _error(image: GridImage, reference: GridImage) -> float:
    where = _overlap(image, reference)
    if not where.any():
        return math.inf
    return float(np.mean((image.voxels[:, where] - reference.voxels[:, where]) ** 2))


def _is_constant(image: Centred) -> bool:
    import SimpleITK

    voxels = SimpleITK.GetArrayFromImage(image.mean())
    return bool(voxels.max() == voxels.min())


def _counted(voxels: int) -> str:
    return "one voxel" if voxels == 1 else f"{voxels} voxels"


def _last_line(error: RuntimeError) -> str:
    lines: Sequence[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

"""The chain of patch sizes that a network can grow through, one divisor of one axis at a time.

`cyclic` is the order of PGPS (MICCAI 2024, section 2.1), `smallest-first` that of its follow-up (arXiv 2510.23241). The
follow-up starts with one voxel at the bottleneck, which InstanceNorm refuses in training unless told otherwise: its
output there is its bias, whatever came in, so the layers below it learn nothing in that stage and nothing is harmed.

Axis order is that of the nnU-Net plan. Only the standard library is imported here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from study.common.errors import InvalidInputError, check_choice, check_count

Size = tuple[int, ...]
ChainOrder = Literal["cyclic", "smallest-first"]
ChainStart = Literal["trainable", "one-voxel"]

CHAIN_ORDERS: tuple[ChainOrder, ...] = ("cyclic", "smallest-first")
CHAIN_STARTS: tuple[ChainStart, ...] = ("trainable", "one-voxel")
# Bounds of what is computed at all, far above any training: nnU-Net trains 250,000 iterations through 9 to 17 sizes.
LARGEST_NUMBER = 1_000_000
MOST_SIZES = 10_000


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What a network and its plan allow.

    Attributes:
        patch_size: full patch P in voxels per axis, one to three axes.
        divisors: product of the strides of each axis; every legal size is a multiple of it.
        batch_size: samples per batch at the full patch.
        min_bottleneck_voxels: fewest voxels the deepest feature map may have in training. InstanceNorm needs two.

    Raises:
        InvalidInputError: an entry is no whole number from 1 to a million, the axes differ in number, the patch is not
            a multiple of its divisors, or more than ten thousand sizes lie between divisors and patch.
    """

    patch_size: Size
    divisors: Size
    batch_size: int
    min_bottleneck_voxels: int = 2

    def __post_init__(self) -> None:
        # A list, as JSON has it, is taken too: compared with a tuple it would never equal the full patch.
        object.__setattr__(self, "patch_size", _checked_size("patch size", self.patch_size))
        object.__setattr__(self, "divisors", _checked_size("divisors", self.divisors))
        check_count("batch size", self.batch_size, most=LARGEST_NUMBER)
        check_count("min_bottleneck_voxels", self.min_bottleneck_voxels, most=LARGEST_NUMBER)
        if len(self.divisors) != len(self.patch_size):
            legal = f"one per axis of the patch {self.patch_size}"
            raise InvalidInputError(field="divisors", received=self.divisors, legal=legal)
        for axis, (voxels, divisor) in enumerate(zip(self.patch_size, self.divisors, strict=True)):
            if voxels % divisor:
                legal = f"a multiple of the divisor {divisor}"
                raise InvalidInputError(field=f"patch size, axis {axis}", received=voxels, legal=legal)
        if sum(p // d for p, d in zip(self.patch_size, self.divisors, strict=True)) > MOST_SIZES:
            legal = f"at most {MOST_SIZES} sizes above the divisors {self.divisors}"
            raise InvalidInputError(field="patch size", received=self.patch_size, legal=legal)

    @property
    def patch_voxels(self) -> int:
        """V(P), voxels of one full patch."""
        return math.prod(self.patch_size)

    def processable(self, size: Size) -> bool:
        """Whether normalisation leaves enough voxels in the deepest feature map at this patch size."""
        bottleneck = math.prod(n // d for n, d in zip(size, self.divisors, strict=True))
        return bottleneck >= self.min_bottleneck_voxels


def patch_chain(geometry: Geometry, order: ChainOrder = "cyclic", start: ChainStart = "trainable") -> list[Size]:
    """Every patch size of the growth order, smallest first, the full patch last.

    Each size differs from the next by one divisor on one axis. `trainable` starts at the smallest size that the
    network's normalisation takes in training; when there is none but P the chain is {P}. `one-voxel` starts at the
    divisors themselves, one voxel at the bottleneck.
    """
    check_choice("chain", order, CHAIN_ORDERS)
    check_choice("chain_start", start, CHAIN_STARTS)
    sizes = _grown(geometry, order)
    if start == "one-voxel":
        return sizes if sizes[0] == geometry.divisors else [geometry.divisors, *sizes]
    return [size for size in sizes if geometry.processable(size)] or [geometry.patch_size]


def _checked_size(field: str, size: object) -> Size:
    if not isinstance(size, list | tuple) or not 1 <= len(size) <= 3:
        raise InvalidInputError(field=field, received=size, legal="one to three whole numbers, one per axis")
    for axis, number in enumerate(size):
        check_count(f"{field}, axis {axis}", number, most=LARGEST_NUMBER)
    return tuple(size)


def _grown(geometry: Geometry, order: ChainOrder) -> list[Size]:
    full, divisors = geometry.patch_size, geometry.divisors
    size = list(divisors)
    if order == "cyclic":
        size[0] = min(2 * divisors[0], full[0])
    sizes, axis = [tuple(size)], 0
    while tuple(size) != full:
        growing = [a for a in range(len(full)) if size[a] < full[a]]
        if order == "cyclic":
            axis = min(growing, key=lambda a: (a - axis - 1) % len(full))
        else:
            axis = min(growing, key=lambda a: size[a] + divisors[a])
        size[axis] = min(size[axis] + divisors[axis], full[axis])
        sizes.append(tuple(size))
    return sizes

"""The small plan: nnU-Net's own plan with fewer features, another patch or another batch, so that a CPU can train it.

Everything that decides the preprocessed images (spacing, normalisation, resampling) stays, so a small plan shares them
with the plan it came from. A new patch gets the network that nnU-Net would build for it: its own topology function
decides strides and kernel sizes. No torch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from study.checks import check_choice, check_count
from study.errors import InvalidInputError

FEWEST_FEATURES, MOST_FEATURES = 4, 2048
DEFAULT_BATCH_SIZE = 2
# nnU-Net's planners: 32 features, doubled at every stage up to a bound that depends on the number of axes; feature maps
# of at least 4 voxels per axis; no bound on the number of poolings; these numbers of convolutions or blocks per stage.
BASE_FEATURES = 32
MOST_PLANNED_FEATURES = {2: 512, 3: 320}
SMALLEST_FEATURE_MAP_VOXELS = 4
MOST_POOLINGS = 999999
STOCK_DEPTHS: Mapping[str, tuple[int, ...]] = {
    "n_conv_per_stage": (2,),
    "n_blocks_per_stage": (1, 3, 4, 6),
}


@dataclass(frozen=True, kw_only=True)
class SmallPlan:
    """What is changed in a plan; None leaves it.

    Attributes:
        max_features: features of the deepest stage; every stage above has half as many, at least 4.
        patch_size: voxels per axis, in the axis order of the plan.
        batch_size: samples per batch.

    Raises:
        InvalidInputError: a value is outside its range.
    """

    max_features: int | None = None
    patch_size: tuple[int, ...] | None = None
    batch_size: int = DEFAULT_BATCH_SIZE

    def __post_init__(self) -> None:
        check_count("batch size", self.batch_size, most=1024)
        if self.max_features is not None:
            check_count("max features", self.max_features, least=FEWEST_FEATURES, most=MOST_FEATURES)
        for axis, voxels in enumerate(self.patch_size or ()):
            check_count(f"patch size, axis {axis}", voxels, most=4096)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self) | {"patch_size": list(self.patch_size) if self.patch_size else None}


@dataclass(frozen=True, kw_only=True)
class Topology:
    """How a network pools: strides and kernel sizes by stage and axis, and what the patch must be divisible by."""

    strides: list[list[int]]
    kernel_sizes: list[list[int]]
    divisors: tuple[int, ...]
    padded_patch_size: tuple[int, ...]


def small_plans(
    document: Mapping[str, Any], configurations: Sequence[str], plans_name: str, small: SmallPlan
) -> dict[str, Any]:
    """A copy of a plans document that has the given configurations alone, made small, and those they inherit from.

    Args:
        document: nnU-Net's plans.
        configurations: names of those wanted.
        plans_name: name of the new plans.
        small: what is changed.

    Raises:
        InvalidInputError: no such configuration, or the patch has another number of axes or is not divisible.
    """
    planned = document["configurations"]
    for name in configurations:
        check_choice("--configurations", name, list(planned))
    kept = _with_parents(planned, configurations)
    plans = copy.deepcopy({**document, "plans_name": plans_name, "configurations": kept})
    for name, configuration in plans["configurations"].items():
        if configuration.get("next_stage") not in kept:
            configuration.pop("next_stage", None)
        if "architecture" in configuration:
            _make_small(name, configuration, small)
    return plans


def topology(spacing_mm: Sequence[float], patch_size: Sequence[int]) -> Topology:
    """The pooling nnU-Net plans for a patch; spacing and patch in the plan's axis order."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    _, strides, kernels, padded, divisors = get_pool_and_conv_props(
        list(spacing_mm), list(patch_size), SMALLEST_FEATURE_MAP_VOXELS, MOST_POOLINGS
    )
    return Topology(
        strides=[[int(n) for n in stage] for stage in strides],
        kernel_sizes=[[int(n) for n in stage] for stage in kernels],
        divisors=tuple(int(n) for n in divisors),
        padded_patch_size=tuple(int(n) for n in padded),
    )


def features_per_stage(stages: int, max_features: int) -> list[int]:
    """Features halved from the deepest stage upwards: 4 stages and 64 give 8 16 32 64."""
    return [max(FEWEST_FEATURES, max_features >> (stages - 1 - stage)) for stage in range(stages)]


def _with_parents(planned: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The named configurations, and the ones they inherit from or continue, in the order of the plans."""
    wanted = set(names)
    while True:
        parents = {planned[name].get(key) for name in wanted for key in ("inherits_from", "previous_stage")}
        if parents <= wanted | {None}:
            return {name: planned[name] for name in planned if name in wanted}
        wanted |= parents - {None}


def _make_small(name: str, configuration: dict[str, Any], small: SmallPlan) -> None:
    network, patch = configuration["architecture"]["arch_kwargs"], small.patch_size
    if patch is not None:
        _check_axes(name, len(configuration["patch_size"]), patch)
        configuration["patch_size"] = list(patch)
        _rebuild(network, _checked_topology(configuration["spacing"], patch))
    if small.max_features is not None:
        network["features_per_stage"] = features_per_stage(network["n_stages"], small.max_features)
    configuration["batch_size"] = small.batch_size


def _rebuild(network: dict[str, Any], new: Topology) -> None:
    stages, axes = len(new.strides), len(new.divisors)
    network["n_stages"], network["strides"], network["kernel_sizes"] = stages, new.strides, new.kernel_sizes
    network["features_per_stage"] = [
        min(MOST_PLANNED_FEATURES[axes], BASE_FEATURES * 2**stage) for stage in range(stages)
    ]
    for name, stock in STOCK_DEPTHS.items():
        if name in network:
            network[name] = _resized(network[name], stages, stock)
    decoder = network["n_conv_per_stage_decoder"]
    network["n_conv_per_stage_decoder"] = _resized(decoder, stages - 1, decoder[-1:])


def _resized(depths: Sequence[int], stages: int, stock: Sequence[int]) -> list[int]:
    """Depths cut to a number of stages, or continued as the stock ones, whose last value repeats."""
    return [depths[i] if i < len(depths) else stock[min(i, len(stock) - 1)] for i in range(stages)]


def _checked_topology(spacing_mm: Sequence[float], patch_size: tuple[int, ...]) -> Topology:
    found = topology(spacing_mm, patch_size)
    if len(found.strides) < 2:
        legal = f"sizes that nnU-Net pools, such as {3 * SMALLEST_FEATURE_MAP_VOXELS} voxels along the finest axis"
        raise InvalidInputError(field="--patch-size", received=patch_size, legal=legal)
    if found.padded_patch_size != patch_size:
        nearest = _nearest_legal(spacing_mm, patch_size, found)
        raise InvalidInputError(
            field="--patch-size",
            received=patch_size,
            legal=f"multiples of {_words(found.divisors)}, by which the network pools",
            remedy=f"the nearest is {_words(nearest)}",
        )
    return found


def _nearest_legal(spacing_mm: Sequence[float], patch_size: tuple[int, ...], found: Topology) -> tuple[int, ...]:
    """The legal size with the fewest voxels of difference per axis, the larger one if two are as near."""
    choices = [{n // d * d, -(-n // d) * d} - {0} for n, d in zip(patch_size, found.divisors, strict=True)]
    legal = [size for size in product(*choices) if topology(spacing_mm, size).padded_patch_size == size]
    return min(
        legal or [found.padded_patch_size],
        key=lambda size: (sum(abs(n - m) for n, m in zip(size, patch_size, strict=True)), [-n for n in size]),
    )


def _check_axes(name: str, axes: int, patch_size: tuple[int, ...]) -> None:
    if len(patch_size) != axes:
        legal = f"{axes} numbers for {name}, in the axis order of the plan"
        raise InvalidInputError(field="--patch-size", received=patch_size, legal=legal)


def _words(size: Sequence[int]) -> str:
    return " ".join(str(n) for n in size)

"""The curriculum: which patch size and batch size a training iteration gets.

From a `Geometry` and a point of the search space, `Axes`, `resolve` makes a `Curriculum`: the stage table, and a lookup
from iteration to stage. Which cases come first is for `data_curriculum` to resolve.

Axis order is that of the nnU-Net plan everywhere. Only the standard library is imported here.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Literal, Self, TypeVar

from study.common.errors import check_count, check_range
from study.common.serialize import made_of, with_tuples
from study.curriculum.chain import Geometry, Size, patch_chain
from study.curriculum.schemes import SMALLEST_BUDGET, Axes

Item = TypeVar("Item")
Span = tuple[int, int]
"""First iteration of a stage, and how many it has."""
# Far above any training: nnU-Net's has 250,000.
MOST_ITERATIONS = 10_000_000

# PGPS+ as published starts its recursion at two samples whatever the plan's batch size is.
STEPWISE_LAST_BATCH = 2

VolumeRule = Literal["rounded", "alternating"]
ROUNDED: VolumeRule = "rounded"
ALTERNATING: VolumeRule = "alternating"
# Keeps products that are whole numbers (0.29 * 100) from falling below them in floating point.
_LIFT = 1e-9


def foreground_volumes(rule: VolumeRule, volumes: int, share: float) -> tuple[bool, ...]:
    """Whether each of the volumes of a batch is foreground-centred, in the order they are opened.

    All crops of a volume are of one kind, random or foreground-centred. `alternating` is the follow-up's rule (arXiv
    2510.23241): the kinds alternate, random first, so at a share of one half floor(n/2) of n volumes are
    foreground-centred. Other shares are spread likewise: volume i is one where floor(share * (i + 1)) steps up.
    `rounded` is what trials were specified with before that: nnU-Net's rounding of so many samples, spread evenly. At
    a share of one half the two agree for every even number of volumes but not for all odd ones.
    """
    foreground = volumes - round(volumes * (1 - share))
    steps = [
        math.floor(volume * share + _LIFT) if rule == ALTERNATING else volume * foreground // volumes
        for volume in range(volumes + 1)
    ]
    return tuple(after > before for before, after in pairwise(steps))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row of the stage table.

    Attributes:
        patch_size: voxels per axis.
        batch_size: samples per batch.
        crops_per_volume: crops taken from each volume opened for a batch.
        first_iteration: index of the first iteration of this stage; in random order of its first draw, or the length of
            the training if it is never drawn.
        iterations: how many iterations train at this stage.
    """

    patch_size: Size
    batch_size: int
    crops_per_volume: int
    first_iteration: int
    iterations: int

    @property
    def volumes(self) -> int:
        """Volumes opened for one batch."""
        return math.ceil(self.batch_size / self.crops_per_volume)

    @property
    def voxels_per_iteration(self) -> int:
        """Voxels in one batch, channels not counted."""
        return math.prod(self.patch_size) * self.batch_size

    @property
    def voxels(self) -> int:
        """Voxels of the whole stage."""
        return self.voxels_per_iteration * self.iterations


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """A resolved curriculum: the stage table and the lookup from iteration to stage.

    Attributes:
        geometry: what it was resolved for.
        stages: the table, in the order trained (for random draws: by size); in cyclic order a size comes several times.
        random_draws: whether every iteration draws its stage by itself.
        seed: seeds those draws; otherwise unused.
        total_iterations: length of the training.
        volume_rule: which of the volumes that several crops come from are foreground-centred.
    """

    geometry: Geometry
    stages: tuple[Stage, ...]
    random_draws: bool
    seed: int
    total_iterations: int
    volume_rule: VolumeRule = ROUNDED

    @cached_property
    def _hash(self) -> int:
        # Of numbers alone, so that it is the same in every process.
        return hash((self.geometry, self.stages, self.seed, self.total_iterations))

    def __hash__(self) -> int:
        """Computed once: thousands of trials have the same curriculum, and what is told of it is remembered."""
        return self._hash

    @cached_property
    def _starts(self) -> list[int]:
        return [stage.first_iteration for stage in self.stages]

    def stage_index(self, iteration: int) -> int:
        """Index in `stages` of the stage that an iteration trains at, in O(log stages).

        Raises:
            InvalidInputError: the iteration is outside 0 … total_iterations - 1.
        """
        check_count("iteration", iteration, least=0, most=self.total_iterations - 1)
        if self.random_draws:
            return draw(self.seed, iteration, len(self.stages))
        return bisect_right(self._starts, iteration) - 1

    def stage_at(self, iteration: int) -> Stage:
        """The stage that an iteration trains at; see `stage_index`."""
        return self.stages[self.stage_index(iteration)]

    @property
    def has_one_voxel_stage(self) -> bool:
        """Whether a stage leaves fewer voxels in the deepest feature map than the network's normalisation takes."""
        return not all(self.geometry.processable(stage.patch_size) for stage in self.stages)

    def draws_as_rounded(self, share: float) -> bool:
        """Whether the rule for foreground-centred volumes comes to what `rounded` makes of such a share."""
        return all(
            foreground_volumes(self.volume_rule, stage.volumes, share)
            == foreground_volumes(ROUNDED, stage.volumes, share)
            for stage in self.stages
            if stage.crops_per_volume > 1
        )

    @cached_property
    def voxels(self) -> int:
        """Voxels trained on over the whole curriculum."""
        return sum(stage.voxels for stage in self.stages)

    @property
    def voxel_share(self) -> float:
        """Voxels relative to as many iterations at constant full patch and plan batch size (CPS)."""
        return self.share_of_cps(self.voxels, self.total_iterations)

    def share_of_cps(self, voxels: int, iterations: int) -> float:
        """So many voxels relative to so many iterations of CPS."""
        return voxels / (self.geometry.patch_voxels * self.geometry.batch_size * iterations)

    @property
    def is_constant(self) -> bool:
        """Whether this is conventional training: the full patch at the plan's batch size throughout."""
        only = self.stages[0]
        full = (self.geometry.patch_size, self.geometry.batch_size)
        return len(self.stages) == 1 and (only.patch_size, only.batch_size) == full

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `serialize.record_to_json`."""
        geometry = Geometry(**with_tuples(data["geometry"]))
        stages = tuple(made_of(Stage, with_tuples(stage)) for stage in data["stages"])
        return cls(**{**data, "geometry": geometry, "stages": stages})


def scaled_iterations_per_epoch(iterations_per_epoch: int, budget: float) -> int:
    """Iterations per epoch that a budget leaves: rounded half up, at least one.

    Raises:
        InvalidInputError: iterations or budget outside their range.
    """
    check_count("iterations_per_epoch", iterations_per_epoch, most=MOST_ITERATIONS)
    check_range("budget", budget, SMALLEST_BUDGET, 1.0)
    return max(1, math.floor(iterations_per_epoch * budget + 0.5))


def available_sizes(geometry: Geometry, axes: Axes) -> list[Size]:
    """The part of the chain that `min_patch` leaves, before `stages` and the length of the training thin it out."""
    chain = patch_chain(geometry, axes.chain, axes.chain_start)
    return chain[math.floor(axes.min_patch * (len(chain) - 1) + 0.5) :]


def resolve(
    geometry: Geometry, axes: Axes, *, epochs: int = 1000, iterations_per_epoch: int = 250, seed: int = 0
) -> Curriculum:
    """The stage table of a point of the search space.

    It has epochs × iterations per epoch, which a budget scales. Fewer iterations (or, with `reference` allocation,
    epochs) than stages merge stages: sizes are left out evenly, the full patch is kept. The seed is that of a random
    order's draws.

    Raises:
        InvalidInputError: epochs, iterations, their product (ten million at most) or the seed outside their range.
    """
    check_count("epochs", epochs, most=MOST_ITERATIONS)
    check_count("seed", seed, least=0)
    per_epoch = scaled_iterations_per_epoch(iterations_per_epoch, axes.budget)
    total = epochs * per_epoch
    check_count("epochs times iterations_per_epoch times budget", total, most=MOST_ITERATIONS)
    available = available_sizes(geometry, axes)
    sizes = spread(available, axes.stages or len(available))
    random_draws = axes.order == "random" and len(sizes) > 1
    units = epochs if axes.allocation == "reference" else total
    cycles = min(axes.cycles, units) if axes.order == "cyclic" else 1
    if not random_draws:
        sizes = spread(sizes, units // cycles)
    cycles = cycles if len(sizes) > 1 else 1
    rows = cycles * list(zip(sizes, _batch_sizes(geometry, sizes, axes), strict=True))
    if axes.order == "shrinking":
        rows.reverse()
    count = len(sizes)
    spans = random_spans(count, total, seed) if random_draws else _cycles(axes, count, cycles, epochs, per_epoch)
    stages = tuple(
        Stage(
            patch_size=size,
            batch_size=batch,
            crops_per_volume=math.ceil(batch / geometry.batch_size) if axes.shared_crops else 1,
            first_iteration=first,
            iterations=iterations,
        )
        for (size, batch), (first, iterations) in zip(rows, spans, strict=True)
    )
    return Curriculum(
        geometry=geometry,
        stages=stages,
        random_draws=random_draws,
        seed=seed,
        total_iterations=total,
        volume_rule=ALTERNATING if any(stage.crops_per_volume > 1 for stage in stages) else ROUNDED,
    )


def _batch_sizes(geometry: Geometry, sizes: Sequence[Size], axes: Axes) -> list[int]:
    growth = axes.batch_growth
    if growth == "stepwise":
        batches = [STEPWISE_LAST_BATCH]
        for larger, smaller in pairwise(reversed(sizes)):
            batches.append(batches[-1] * math.prod(larger) // math.prod(smaller))
        return [max(batch, geometry.batch_size) for batch in reversed(batches)]
    # A tiny lift keeps powers that are whole numbers (V(P)/V)^1 from falling below them in floating point.
    return [
        math.floor(geometry.batch_size * (geometry.patch_voxels / math.prod(size)) ** growth * (1 + 1e-12))
        for size in sizes
    ]


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spread, both ends among them; of one, the last."""
    if count >= len(items):
        return list(items)
    if count == 1:
        return [items[-1]]
    last = len(items) - 1
    return [items[(2 * i * last + count - 1) // (2 * (count - 1))] for i in range(count)]


def even_spans(count: int, total: int, growth: float = 0.0) -> list[Span]:
    """Consecutive stages of at least one iteration, the k-th with a share of k^growth; see `_starts`."""
    return _between(_starts(count, total, growth), total)


def whole_epoch_spans(count: int, epochs: int, iterations_per_epoch: int, growth: float = 0.0) -> list[Span]:
    """Likewise of whole epochs; of even shares the last stage takes the remainder, as in the published code."""
    starts = _starts(count, epochs, growth) if growth else [i * (epochs // count) for i in range(count)]
    return _between([start * iterations_per_epoch for start in starts], epochs * iterations_per_epoch)


def _starts(count: int, total: int, growth: float) -> list[int]:
    """First of the `total` units of each stage: rounded down, but so that every stage has one."""
    if not growth:
        return [i * total // count for i in range(count)]
    sums = [0.0, *accumulate(k**growth for k in range(1, count + 1))]
    return [min(max(math.floor(total * sums[i] / sums[-1]), i), total - count + i) for i in range(count)]


def random_spans(count: int, total: int, seed: int) -> list[Span]:
    """First draw and number of draws of each stage when every iteration draws one; `total` if it is never drawn."""
    first, drawn = [total] * count, [0] * count
    for iteration in range(total):
        index = draw(seed, iteration, count)
        first[index] = min(first[index], iteration)
        drawn[index] += 1
    return list(zip(first, drawn, strict=True))


def draw(seed: int, iteration: int, count: int) -> int:
    """A uniform draw from range(count) that depends on (seed, iteration) alone: SplitMix64 (Steele et al. 2014)."""
    mask = (1 << 64) - 1
    z = (seed * 0xD1342543DE82EF95 + iteration * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) * count) >> 64


def _between(starts: Sequence[int], total: int) -> list[Span]:
    return [(start, stop - start) for start, stop in zip(starts, [*starts[1:], total], strict=True)]


def _cycles(axes: Axes, count: int, cycles: int, epochs: int, iterations_per_epoch: int) -> list[Span]:
    """Of cycles that are as long as each other, each of `count` consecutive stages."""
    units, unit = epochs * iterations_per_epoch, 1
    if axes.allocation == "reference":
        units, unit = epochs, iterations_per_epoch
    return [
        (start * unit + first, iterations)
        for start, length in even_spans(cycles, units)
        for first, iterations in _spans(axes, count, length, unit)
    ]


def _spans(axes: Axes, count: int, epochs: int, iterations_per_epoch: int) -> list[Span]:
    """Of `count` consecutive stages."""
    if axes.allocation == "reference":
        return whole_epoch_spans(count, epochs, iterations_per_epoch, axes.growth)
    return even_spans(count, epochs * iterations_per_epoch, axes.growth)

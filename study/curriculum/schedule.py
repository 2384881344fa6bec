"""How iterations are dealt out to stages: which sizes of a chain are kept, where each stage starts, what a draw gives.

Whole-number arithmetic but for uneven shares; `curriculum` puts patch sizes and batches to it.

Which volumes of a batch are foreground-centred where several crops come from each volume (arXiv 2510.23241).

All crops of a volume are of one kind, random or foreground-centred. `alternating` is the follow-up's rule: the kinds
alternate, random first, so at a share of one half floor(n/2) of n volumes are foreground-centred. Other shares are
spread likewise: volume i is foreground-centred where floor(share * (i + 1)) steps up.

`rounded` is what trials were specified with before that: nnU-Net's rounding of so many samples, spread evenly. At a
share of one half the two agree for every even number of volumes but not for all odd ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, TypeVar

Item = TypeVar("Item")
Span = tuple[int, int]
"""First iteration of a stage, and how many it has."""


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


VolumeRule = Literal["rounded", "alternating"]
ROUNDED: VolumeRule = "rounded"
ALTERNATING: VolumeRule = "alternating"
# Keeps products that are whole numbers (0.29 * 100) from falling below them in floating point.
_LIFT = 1e-9


def foreground_volumes(rule: VolumeRule, volumes: int, share: float) -> tuple[bool, ...]:
    """Whether each of the volumes of a batch is foreground-centred, in the order they are opened."""
    steps = _alternating(volumes, share) if rule == ALTERNATING else _rounded(volumes, share)
    return tuple(after > before for before, after in itertools.pairwise(steps))


def _alternating(volumes: int, share: float) -> list[int]:
    return [math.floor(volume * share + _LIFT) for volume in range(volumes + 1)]


def _rounded(volumes: int, share: float) -> list[int]:
    foreground = volumes - round(volumes * (1 - share))
    return [volume * foreground // volumes for volume in range(volumes + 1)]

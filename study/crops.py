"""Which volumes of a batch are foreground-centred where several crops come from each volume (arXiv 2510.23241).

All crops of a volume are of one kind, random or foreground-centred. `alternating` is the follow-up's rule: the kinds
alternate, random first, so at a share of one half floor(n/2) of n volumes are foreground-centred. Other shares are
spread likewise: volume i is foreground-centred where floor(share * (i + 1)) steps up.

`rounded` is what trials were specified with before that: nnU-Net's rounding of so many samples, spread evenly. At a
share of one half the two agree for every even number of volumes but not for all odd ones.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

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

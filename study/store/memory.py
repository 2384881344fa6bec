"""Whether several trainings fit on one card side by side, from what trainings of the same network reserved on it.

What torch reserves is not all: the driver takes some hundred MiB for each process, so what is said is a little low.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from study.store.taken import Peak

_GIB = 2**30


def needed_bytes(voxels: int, known: Sequence[Peak]) -> int:
    """What a training whose largest iteration has so many voxels will reserve: as much as the next larger one that is
    known, or the largest in the ratio of the voxels.

    Args:
        voxels: of its largest iteration.
        known: at least one.
    """
    enough = [peak.reserved_bytes for peak in known if peak.voxels >= voxels]
    largest = max(known)
    return min(enough) if enough else round(largest.reserved_bytes * voxels / largest.voxels)


def too_large(voxels: Iterable[int], known: Sequence[Peak], *, on_a_card: int) -> str:
    """A line for trainings that do not fit on a card together, empty where they do, or where nothing says.

    Args:
        voxels: of the largest iteration of each.
        known: what others of the network reserved, all on cards of one kind.
        on_a_card: how many run side by side.
    """
    largest = max(voxels, default=0)
    if on_a_card < 2 or not known or not largest:
        return ""
    each, card = needed_bytes(largest, known), known[0].card_bytes
    if on_a_card * each <= card:
        return ""
    return (
        f"{on_a_card} trainings on one card need about {on_a_card * each / _GIB:.1f} GiB for their largest size, "
        f"{each / _GIB:.1f} GiB each, and it has {card / _GIB:.1f} GiB: the last to come will run out of memory; "
        f"give each a larger share with --gpus {min(1.0, each / card * 1.05):.2g} or more"
    )

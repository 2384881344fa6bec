"""Dominance among rows of numbers: who is on the front, what area it covers, what is attained how often.

The one wrapper around moocore, which is fast but crashes on infinities and, next to a NaN, corrupts sound rows. Here it
is given finite rows only. Every function says per objective whether more is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def nondominated(values: ArrayLike, *, maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """Which rows no other row dominates: none is at least as good everywhere and better somewhere.

    Args:
        values: rows × objectives.
        maximise: per objective, whether more is better.

    Returns:
        One flag per row. Equal rows share their flag; a row with a NaN or an infinity is never on the front and never
        dominates another.
    """
    table, finite = _table(values, maximise)
    flags = np.zeros(len(table), dtype=bool)
    if finite.any():
        import moocore

        flags[finite] = moocore.is_nondominated(table[finite], maximise=list(maximise), keep_weakly=True)
    return flags


def hypervolume(values: ArrayLike, *, reference: Sequence[float], maximise: Sequence[bool]) -> float:
    """Volume of what the rows dominate, bounded by the reference point, in the product of the objectives' units.

    Args:
        values: rows × objectives; rows that are not finite count for nothing.
        reference: a value per objective; rows that are not better than it everywhere add nothing.
        maximise: per objective, whether more is better.
    """
    table, finite = _table(values, maximise)
    if not finite.any():
        return 0.0
    import moocore

    return float(moocore.hypervolume(table[finite], ref=list(reference), maximise=list(maximise)))


def contributions(values: ArrayLike, *, reference: Sequence[float], maximise: Sequence[bool]) -> NDArray[np.float64]:
    """The part of the front's hypervolume that would be lost without each row.

    Args:
        values: rows × objectives.
        reference: a value per objective.
        maximise: per objective, whether more is better.

    Returns:
        One volume per row: 0 for a dominated row, and for equal rows, since one alone covers as much. What a dominated
        row would cover instead of a lost one is not counted: the loss is of the front as it stands.
    """
    table, finite = _table(values, maximise)
    lost = np.zeros(len(table))
    if finite.any():
        import moocore

        lost[finite] = moocore.hv_contributions(table[finite], ref=list(reference), maximise=list(maximise))
    return lost


def attained_by(values: ArrayLike, runs: ArrayLike, *, at_least: int, maximise: Sequence[bool]) -> NDArray[np.float64]:
    """The best goals that a number of runs attain: a run attains a goal if one of its rows is as good everywhere.

    Args:
        values: rows × objectives.
        runs: number of the run of each row.
        at_least: how many runs attain each goal, from 1 to their number.
        maximise: per objective, whether more is better.

    Returns:
        Mutually non-dominated goals × objectives, by the first objective; none where fewer runs have a finite row.
    """
    table, finite = _table(values, maximise)
    signs = np.where(list(maximise), -1.0, 1.0)
    sets = np.unique(np.asarray(runs)[finite], return_inverse=True)[1] + 1
    count = int(sets.max(initial=0))
    if not 1 <= at_least <= count:
        return np.empty((0, len(signs)))
    import moocore

    # moocore takes every change of the set from row to row for a new run.
    order = np.argsort(sets, kind="stable")
    rows = table[finite][order] * signs
    surface = moocore.eaf(rows, sets[order].astype(float), percentiles=[100 * at_least / count])
    goals = surface[:, :-1] * signs
    return np.asarray(goals[np.lexsort(goals.T[::-1])])


def _table(values: ArrayLike, maximise: Sequence[bool]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The rows as numbers, and which of them are finite."""
    table = np.asarray(values, dtype=float).reshape(-1, len(maximise))
    return table, np.isfinite(table).all(axis=1)

"""Pareto fronts over averaged points, and dominance among rows of numbers.

Datasets are never compared with each other: every one has a front of its own. moocore, which is fast but crashes on
infinities and, next to a NaN, corrupts sound rows, is called here alone, with finite rows only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.tables.columns import SETTING_NAMES, Objective, choose_objectives
from study.common.errors import InvalidInputError


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


_NO_GROUPS = ("dataset", "stage_table")
GROUP_COLUMNS: tuple[str, ...] = (*(n for n in SETTING_NAMES if n not in _NO_GROUPS), "n_folds", "hardware", "country")
"""Columns that `by` may name; datasets are kept apart without it."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """Points and which of them nothing beats.

    Attributes:
        objectives: what was compared, in the order asked for.
        by: column whose values have a front each; None pools them.
        points: those with a value for every objective, in the columns of the points, plus `non_dominated` (bool) and
            `number`: from 1 along each front by the first minimised objective (else the first), missing off the front.
        dropped: how many points lack a finite value, by objective.
        n_dropped: how many points lack at least one.
    """

    objectives: tuple[Objective, ...]
    by: str | None
    points: pd.DataFrame
    dropped: Mapping[str, int]
    n_dropped: int

    @property
    def best(self) -> pd.DataFrame:
        """The non-dominated points by dataset, group and number."""
        return self.points[self.points["non_dominated"]].sort_values(
            ["dataset", *([self.by] if self.by else []), "number"], kind="stable"
        )


def pareto_front(points: pd.DataFrame, objectives: Sequence[str], *, by: str | None = None) -> Front:
    """The front of each dataset, or of each of its groups.

    Args:
        points: as `points.average_points` gives them.
        objectives: names out of `columns.OBJECTIVES`, at least two.
        by: a column out of GROUP_COLUMNS.

    Raises:
        InvalidInputError: unknown objectives or column.
    """
    chosen = choose_objectives(objectives)
    if by is not None and by not in GROUP_COLUMNS:
        raise InvalidInputError(field="by", received=by, legal="one of " + ", ".join(GROUP_COLUMNS))
    finite = np.isfinite(points[list(objectives)].to_numpy(dtype=float))
    usable = points[finite.all(axis=1)].copy()
    groups = ["dataset", *([by] if by else [])]
    usable["non_dominated"] = _flags(usable, chosen, groups)
    usable["number"] = _numbers(usable, chosen, groups)
    return Front(
        objectives=chosen,
        by=by,
        points=usable,
        dropped=dict(zip(objectives, (~finite).sum(axis=0).tolist(), strict=True)),
        n_dropped=int((~finite.all(axis=1)).sum()),
    )


def _flags(points: pd.DataFrame, objectives: Sequence[Objective], groups: list[str]) -> pd.Series[bool]:
    flags = pd.Series(False, index=points.index)
    maximise = [objective.maximise for objective in objectives]
    for _, part in points.groupby(groups, dropna=False):
        flags[part.index] = nondominated(part[[o.name for o in objectives]].to_numpy(dtype=float), maximise=maximise)
    return flags


def _numbers(points: pd.DataFrame, objectives: Sequence[Objective], groups: list[str]) -> pd.Series[int]:
    """1, 2, … along each front; ties go by the other objectives, then by identity."""
    by_cost = sorted(objectives, key=lambda objective: objective.maximise)
    best = points[points["non_dominated"]].sort_values(
        [*(o.name for o in by_cost), "point_id"], ascending=[*(not o.maximise for o in by_cost), True]
    )
    return (best.groupby(groups, dropna=False).cumcount() + 1).reindex(points.index).astype("Int64")

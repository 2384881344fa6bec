"""Pareto fronts over averaged points. Datasets are never compared with each other: every one has a front of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fronts.dominance import nondominated
from analysis.tables.columns import SETTING_NAMES
from analysis.tables.objectives import Objective, choose_objectives
from study.common.errors import InvalidInputError

__all__ = ["GROUP_COLUMNS", "Front", "nondominated", "pareto_front"]

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
        objectives: names out of `objectives.OBJECTIVES`, at least two.
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

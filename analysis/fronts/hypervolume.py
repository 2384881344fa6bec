"""Hypervolume: how much of the space of objectives a set of points dominates, up to a reference point.

The reference point of a dataset lies a tenth of the range beyond its worst value in every objective, over all its
points, so the worst points still count and numbers of schemes and budgets compare. Dice is no exception: with 0 as its
reference, nearly all of the volume would be the part below every point, and differences would drown in it. A reference
never falls below 0.

The share is of the box between the reference point and the ideal point, the best value of every objective; 1 would be a
point that is best in everything. Values of different datasets, or of a dataset with other points, do not compare.
A set with more configurations never has less, so schemes compare fairly only when they tried as many.

The table of a front: its points with interval, probability of being non-dominated and share of the hypervolume.

Points that something beats, but that are on the front when the evidence is drawn again often enough, stand in it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fronts.captions import amount_of
from analysis.fronts.front import Front, contributions, hypervolume, nondominated
from analysis.fronts.resampling import CaseDraws, probability_on_front
from analysis.tables.columns import FRONT_COLUMNS, POINT_COLUMNS, Objective
from analysis.tables.format import Table, number, readable, without_empty
from analysis.tables.methods import METHOD_LABELS

MARGIN = 0.1
"""By what share of the range the reference point lies beyond the worst value."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """Where volumes are measured, in the objectives' file units and order.

    Attributes:
        objectives: the axes.
        reference: a tenth of the range worse than the worst value, not below 0.
        ideal: the best value of each objective.
    """

    objectives: tuple[Objective, ...]
    reference: tuple[float, ...]
    ideal: tuple[float, ...]

    @property
    def volume(self) -> float:
        """Of the whole box, in the product of the units."""
        return float(np.prod(np.abs(np.subtract(self.reference, self.ideal))))

    @property
    def words(self) -> str:
        """The reference point for people: `Dice 0.742, Training time 103 s`."""
        pairs = zip(self.objectives, self.reference, strict=True)
        return ", ".join(f"{o.label} {number(value, 4) if o.maximise else amount_of(o, value)}" for o, value in pairs)


def box_of(points: pd.DataFrame, objectives: Sequence[Objective]) -> Box:
    """The box of one dataset.

    Args:
        points: all of the dataset's that are to be compared, with a finite value for every objective; at least one.
        objectives: its axes.
    """
    ends = [_ends(points[objective.name], objective.maximise) for objective in objectives]
    return Box(
        objectives=tuple(objectives), reference=tuple(worst for worst, _ in ends), ideal=tuple(best for _, best in ends)
    )


def volume_share(points: pd.DataFrame, box: Box) -> float:
    """Hypervolume of some of the points as a share of the box, from 0 to 1."""
    values, maximise = _values(points, box)
    return _share(hypervolume(values, reference=box.reference, maximise=maximise), box)


def contribution_shares(points: pd.DataFrame, box: Box) -> pd.Series[float]:
    """Share of the box that the front of some points would lose without each of them."""
    values, maximise = _values(points, box)
    lost = contributions(values, reference=box.reference, maximise=maximise)
    return pd.Series([_share(volume, box) for volume in lost], index=points.index, dtype=float)


def hypervolume_rows(front: Front) -> pd.DataFrame:
    """Hypervolumes of one dataset's points: all of them, by scheme and by budget.

    Args:
        front: of one dataset, with at least one point, not grouped.

    Returns:
        A row per set of points: `objectives`, `group` (all, scheme or budget), `name`, `points`, `on_front` (of its
        own front), `hypervolume` (product of the file units), `share`, and `reference_…` per objective.
    """
    box = box_of(front.points, front.objectives)
    rows = [_row(group, name, part, box) for group, name, part in _sets(front.points)]
    return pd.DataFrame(rows)


def _row(group: str, name: str, points: pd.DataFrame, box: Box) -> dict[str, object]:
    values, maximise = _values(points, box)
    share = volume_share(points, box)
    return {
        "objectives": ",".join(objective.name for objective in box.objectives),
        "group": group,
        "name": name,
        "points": len(points),
        "on_front": int(nondominated(values, maximise=maximise).sum()),
        "hypervolume": share * box.volume,
        "share": share,
        **{f"reference_{o.name}": value for o, value in zip(box.objectives, box.reference, strict=True)},
    }


def _sets(points: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    yield "all", "all", points
    methods = [method for method in METHOD_LABELS if (points["method"] == method).any()]
    if len(methods) > 1:
        yield from (("scheme", METHOD_LABELS[method], points[points["method"] == method]) for method in methods)
    if 1 < points["budget"].nunique() < len(points):
        yield from (("budget", f"{budget:.4g}", part) for budget, part in points.groupby("budget"))


def _ends(values: pd.Series[float], maximise: bool) -> tuple[float, float]:
    """Reference and ideal value of one objective."""
    low, high = float(values.min()), float(values.max())
    # Where all points agree there is no range: a tenth of the value keeps the box from being flat.
    margin = MARGIN * ((high - low) or abs(high) or 1.0)
    return (max(low - margin, 0.0), high) if maximise else (high + margin, low)


def _share(volume: float, box: Box) -> float:
    # The box is flat where every Dice is 0.
    return float(volume / box.volume) if box.volume > 0 else 0.0


def _values(points: pd.DataFrame, box: Box) -> tuple[np.ndarray, list[bool]]:
    names = [objective.name for objective in box.objectives]
    return points[names].to_numpy(dtype=float), [objective.maximise for objective in box.objectives]


LIKELY = 0.1
"""From this probability on a dominated point stands in the table."""

_ADDED = ("non_dominated", *(column.name for column in FRONT_COLUMNS))


def judged(front: Front, draws: CaseDraws) -> pd.DataFrame:
    """The points of a front, with `probability` and `contribution`, in the order of the front, others behind.

    Args:
        front: of one or several datasets, grouped or not.
        draws: of the tables behind the points; several fronts may share them.

    Returns:
        Columns of the points, `non_dominated`, `number`, `probability` and `contribution` (share of the hypervolume box
        of the dataset; the same box for all groups).
    """
    points = front.points.assign(probability=probability_on_front(front, draws), contribution=float("nan"))
    groups = ["dataset", *([front.by] if front.by else [])]
    for _, dataset in points.groupby("dataset"):
        box = box_of(dataset, front.objectives)
        for _, part in dataset.groupby(groups, dropna=False):
            points.loc[part.index, "contribution"] = contribution_shares(part, box)
    # Behind the front, by how likely they are on it.
    order = points.assign(unlikely=-points["probability"].where(~points["non_dominated"], 1.0))
    order = order.sort_values([*groups, "number", "unlikely", "point_id"], kind="stable", na_position="last")
    return points.loc[order.index]


def rows_to_read(points: pd.DataFrame) -> pd.DataFrame:
    """Of judged points those for people: the front, and what is likely enough on it."""
    return points[points["non_dominated"] | (points["probability"] >= LIKELY)]


def data_of(points: pd.DataFrame) -> pd.DataFrame:
    """Judged points for a CSV file: first what the front adds, then every column of the points."""
    return points[[*_ADDED, *(column.name for column in POINT_COLUMNS)]].reset_index(drop=True)


def table_of(points: pd.DataFrame, front: Front) -> Table:
    """Judged points as text; costs and folds as in the figure, and the interval where there is one."""
    costs = [objective.name for objective in front.objectives if objective.name != "dice"]
    interval = [] if points["dice_low"].isna().all() else ["dice_low", "dice_high", "n_cases"]
    more = without_empty(points, ["energy_kwh", "gpu_energy_kwh"]) if "co2_kg" in costs else []
    names = ["number", *([front.by] if front.by else []), "summary", "dice", *interval, *costs, *more]
    return readable(points, [*names, "probability", "contribution", "folds", "n_seeds", "trial_ids"])

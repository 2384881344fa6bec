"""The table of a front: its points with interval, probability of being non-dominated and share of the hypervolume.

Points that something beats, but that are on the front when the evidence is drawn again often enough, stand in it too.
"""

from __future__ import annotations

import pandas as pd

from analysis.columns import FRONT_COLUMNS, POINT_COLUMNS
from analysis.front import Front
from analysis.hypervolume import box_of, contribution_shares
from analysis.resampling import CaseDraws, probability_on_front
from analysis.tables import Table, readable, without_empty

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

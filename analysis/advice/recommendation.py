"""Which configuration to take: the best Dice within a limit, or the knee of the front of Dice against a cost.

The knee is the point of the front that lies farthest above the straight line between its two ends, once the front's
Dice and cost are each scaled from 0 to 1: beyond it, more cost buys less Dice than on average along the front.

Configurations that cannot be told apart from the recommended one stand beside it: those whose paired difference of
Dice, over the cases they share, has a 95 % interval that contains 0. Each interval stands for itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.fronts.captions import amount_of, lowered
from analysis.fronts.caveats import states
from analysis.fronts.front import Front, pareto_front
from analysis.statistics.case_dice import case_matrices
from analysis.statistics.evidence import Evidence
from analysis.statistics.intervals import estimate
from analysis.tables.objectives import Objective
from analysis.tables.units import counted
from study.common.errors import InvalidInputError, MissingDataError


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One configuration and why.

    Attributes:
        point: a row of the points.
        reason: why it, in a sentence.
        front: Dice against the cost that decided.
        candidates: how many points it was chosen from.
        alternatives: points as cheap as allowed whose Dice cannot be told apart from it, by rising cost, with
            `difference_low` and `difference_high` (their Dice minus its, 95 %) and `shared_cases`.
        not_compared: how many others share no fold, or fewer than two cases of one, with it.
    """

    point: pd.Series[Any]
    reason: str
    front: Front
    candidates: int
    alternatives: pd.DataFrame
    not_compared: int


def best_within(evidence: Evidence, cost: Objective, most: float) -> Recommendation:
    """The highest Dice among the configurations that cost at most so much.

    Args:
        evidence: of one dataset.
        cost: the limited objective.
        most: of it per trained fold, in the unit of its column.

    Raises:
        InvalidInputError: nothing is that cheap, or the limit is not a positive number.
        MissingDataError: no configuration has both Dice and this cost.
    """
    front = _front(evidence, cost)
    option = f"--max-{cost.name.replace('_', '-')}"
    if not isinstance(most, float) or not np.isfinite(most) or most <= 0:
        raise InvalidInputError(field=option, received=most, legal=f"a positive number of {cost.unit}")
    allowed = front.points[front.points[cost.name] <= most]
    if allowed.empty:
        cheapest = front.points.sort_values([cost.name, "point_id"]).iloc[0]
        raise InvalidInputError(
            field=option,
            received=most,
            legal=f"at least {_rounded_up(cheapest[cost.name])}, what the cheapest configuration took "
            f"({cheapest['summary']}, Dice {cheapest['dice']:.4f})",
        )
    point = allowed.sort_values(["dice", cost.name, "point_id"], ascending=[False, True, True]).iloc[0]
    number = counted(len(allowed), "configuration")
    reason = f"the highest Dice of {number} within {amount_of(cost, most)} of {lowered(cost.label)} per fold"
    return _recommendation(evidence, front, point, allowed, reason)


def at_knee(evidence: Evidence, cost: Objective) -> Recommendation:
    """The knee of the front of Dice against a cost.

    Args:
        evidence: of one dataset.
        cost: an objective to be minimised.

    Raises:
        MissingDataError: no configuration has both Dice and this cost.
    """
    front = _front(evidence, cost)
    point, reason = _knee(front.best, cost)
    allowed = front.points[front.points[cost.name] <= point[cost.name]]
    return _recommendation(evidence, front, point, allowed, reason)


def _front(evidence: Evidence, cost: Objective) -> Front:
    front = pareto_front(evidence.points, ("dice", cost.name))
    if front.points.empty:
        raise MissingDataError(
            f"no finished configuration has both Dice and {cost.name} ({states(evidence.tables.trials)}); "
            "finish a trial, or limit a cost that was measured"
        )
    return front


def _knee(best: pd.DataFrame, cost: Objective) -> tuple[pd.Series[Any], str]:
    """The knee of a front sorted by rising cost, and what was done in words."""
    against = f"the front of Dice against {lowered(cost.label)}"
    dice, spent = _scaled(best["dice"]), _scaled(best[cost.name])
    above = dice - spent
    if best[["dice", cost.name]].drop_duplicates().shape[0] == 1:
        return best.iloc[0], f"the only point on {against}, which nothing beats in either"
    if above.max() <= 1e-9:
        number = counted(len(best), "point")
        return best.iloc[-1], f"no knee in {against} ({number}, none above the line between its ends): its highest Dice"
    at = int(np.argmax(above))
    words = f"{above[at] / np.sqrt(2):.2f} from the line between its ends, both axes scaled to 0 to 1"
    return best.iloc[at], f"the knee of {against}, the farthest of its {len(best)} points: {words}"


def _scaled(values: pd.Series[float]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return np.asarray((values.to_numpy(dtype=float) - low) / ((high - low) or 1.0), dtype=float)


def _rounded_up(value: float) -> str:
    """Four digits that are no less than the value, so that they are a limit it keeps."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3) if value > 0 else 1.0
    return f"{math.ceil(value / step) * step:.4g}"


def _recommendation(
    evidence: Evidence, front: Front, point: pd.Series[Any], allowed: pd.DataFrame, reason: str
) -> Recommendation:
    others = allowed[allowed["point_id"] != point["point_id"]]
    compared = _differences(evidence, point, others)
    same = compared[(compared["difference_low"] <= 0) & (compared["difference_high"] >= 0)]
    cost = front.objectives[1].name
    return Recommendation(
        point=point,
        reason=reason,
        front=front,
        candidates=len(allowed),
        alternatives=same.sort_values([cost, "point_id"], ignore_index=True),
        not_compared=len(others) - len(compared),
    )


def _differences(evidence: Evidence, point: pd.Series[Any], others: pd.DataFrame) -> pd.DataFrame:
    """Those of the others that share two cases of a fold or more with the point, with intervals of the difference."""
    columns = {"difference_low": np.nan, "difference_high": np.nan, "shared_cases": 0}
    others = others.assign(**columns)
    matrix = case_matrices(evidence.tables).get(str(point["dataset"]))
    own = str(point["point_id"])
    if matrix is None or others.empty or own not in matrix.point_ids:
        return others.iloc[:0]
    index = pd.Series(others.index, index=others["point_id"])
    for alike in matrix.alike(others["point_id"].tolist()):
        sample = matrix.common([own, *alike])
        found = estimate(sample, sample.averages(alike) - sample.averages([own]))
        others.loc[index[alike], ["difference_low", "difference_high"]] = np.column_stack([found.low, found.high])
        others.loc[index[alike], "shared_cases"] = len(sample.cases)
    return others[others["difference_low"].notna()]

"""Dice at equal cost: where budgets were varied, what the other scheme has for the time, energy or voxels of this one.

A scheme's configurations that differ in the budget alone make a line of Dice over cost. Each of them is set against the
other scheme's line at its own cost, linearly between the two nearest budgets and never beyond its ends. With the cases
of all three the difference has an interval, as every other difference has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison.numbers import budget_words, dice, several_of, signed
from analysis.comparison.pairs import MATCHED
from analysis.fronts.captions import amount_of, lowered
from analysis.statistics.case_dice import CaseDice, case_matrices
from analysis.statistics.evidence import Evidence
from analysis.statistics.intervals import estimate
from analysis.tables.columns import BY_NAME
from analysis.tables.format import MISSING, Table
from analysis.tables.methods import METHOD_LABELS
from analysis.tables.objectives import OBJECTIVES

COSTS = ("runtime_seconds", "energy_kwh", "voxels")
_SETTING = [name for name in MATCHED if name != "budget"]
# Differing in one of these, seconds and energy cannot be compared.
_MACHINE = ("hardware", "cpus", "gpus")


def equal_cost(evidence: Evidence, baseline: str, against: Sequence[str]) -> pd.DataFrame:
    """Every configuration of two schemes against the other's line.

    Args:
        evidence: any study; a scheme with one budget has no line.
        baseline: scheme to compare with.
        against: schemes.

    Returns:
        A row per measured configuration, other scheme and cost: dataset, plans, measured, budget, `other`, cost,
        amount, `measured_dice`, `other_dice` (interpolated), `difference` of method minus baseline with `low` and
        `high`.
    """
    matrices = case_matrices(evidence.tables)
    rows: list[dict[str, Any]] = []
    for _, points in evidence.points.groupby(_SETTING, dropna=False, sort=False):
        lines = {name: points[points["method"] == name] for name in (baseline, *against)}
        for name in against:
            for measured, other, sign in ((name, baseline, 1), (baseline, name, -1)):
                for _, point in lines[measured].sort_values("budget", ascending=False).iterrows():
                    rows += _rows(point, lines[other], other, sign, matrices)
    return pd.DataFrame(rows)


def equal_cost_table(rows: pd.DataFrame) -> Table:
    """A row per measured configuration and other scheme, the costs side by side."""
    costs = [cost for cost in COSTS if (rows["cost"] == cost).any()]
    words = [lowered(OBJECTIVES[cost].label) for cost in costs]
    places = several_of(rows, "dataset", "plans")
    cells = []
    for _, part in rows.groupby(["dataset", "plans", "measured", "budget", "other"], sort=False):
        first, by_cost = part.iloc[0], {row["cost"]: row for _, row in part.iterrows()}
        cells.append(
            (
                *(str(first[name]) for name in places),
                *(METHOD_LABELS[first["measured"]], budget_words(first["budget"]), dice(first["measured_dice"])),
                METHOD_LABELS[first["other"]],
                *(_cell(by_cost[cost]) if cost in by_cost else MISSING for cost in costs),
            )
        )
    return Table(
        headings=(
            *(BY_NAME[name].label for name in places),
            *("Measured", "Budget", "Dice", "Other", *(f"Its Dice at equal {word} (difference)" for word in words)),
        ),
        numeric=(*(False for _ in places), False, True, True, False, *(True for _ in costs)),
        rows=tuple(cells),
    )


def equal_cost_sentences(rows: pd.DataFrame) -> list[str]:
    """How to read it, and per method its dearest configuration that the baseline's line reaches."""
    if rows.empty:
        return []
    sentences = [
        "Dice at equal cost: a measured configuration, and the other scheme interpolated between its budgets at the "
        "same cost, never beyond them. The difference, always of the method minus the baseline, has the 95 % interval "
        "of its cases and seeds, not of the costs."
    ]
    measured, places = rows[rows["sign"] > 0], ("dataset", *several_of(rows, "plans"))
    for _, part in measured.groupby(["dataset", "plans", "measured"], sort=False):
        row = part[part["cost"] == part["cost"].iloc[0]].iloc[0]
        cost = OBJECTIVES[row["cost"]]
        span = "" if pd.isna(row["low"]) else f", 95 % {signed(row['low'])} to {signed(row['high'])}"
        sentences.append(
            f"{', '.join(row[name] for name in places)}: "
            f"for the {lowered(cost.label)} of {METHOD_LABELS[row['measured']]} at "
            f"{budget_words(row['budget'])} ({amount_of(cost, row['amount'])}) it has Dice "
            f"{dice(row['measured_dice'])}, {METHOD_LABELS[row['other']]} {dice(row['other_dice'])} "
            f"({signed(row['difference'])}{span})."
        )
    return sentences


def _weights(line: pd.DataFrame, cost: str, value: float, folds: str) -> dict[str, float]:
    """Of the configurations whose mean is the line at a cost, by id; none where it does not reach."""
    known = line[line[cost].notna() & (line["folds"] == folds)].sort_values(cost)
    costs = known[cost].to_numpy(dtype=float)
    if len(costs) < 2 or not costs[0] <= value <= costs[-1]:
        return {}
    after = max(int(np.searchsorted(costs, value)), 1)
    share = (value - costs[after - 1]) / ((costs[after] - costs[after - 1]) or 1.0)
    weights = zip(known["point_id"].iloc[after - 1 : after + 1], (1 - share, share), strict=True)
    return {str(name): float(weight) for name, weight in weights if weight > 0}


def _rows(
    point: pd.Series[Any], line: pd.DataFrame, other: str, sign: int, matrices: Mapping[str, CaseDice]
) -> Iterator[dict[str, Any]]:
    same_machine = all(set(line[name].dropna()) <= {point[name]} for name in _MACHINE)
    for cost in COSTS:
        if pd.isna(point[cost]) or (OBJECTIVES[cost].machine_bound and not same_machine):
            continue
        if weights := _weights(line, cost, float(point[cost]), point["folds"]):
            yield {
                **{name: point[name] for name in ("dataset", "plans")},
                "measured": point["method"],
                "budget": float(point["budget"]),
                "other": other,
                "cost": cost,
                "amount": float(point[cost]),
                "sign": sign,
                **_dice(point, line, weights, sign, matrices.get(str(point["dataset"]))),
            }


def _dice(
    point: pd.Series[Any], line: pd.DataFrame, weights: Mapping[str, float], sign: int, matrix: CaseDice | None
) -> dict[str, float]:
    own = str(point["point_id"])
    theirs = line.set_index("point_id")["dice"]
    values = {"measured_dice": float(point["dice"]), "low": np.nan, "high": np.nan}
    values["other_dice"] = float(sum(weight * theirs[name] for name, weight in weights.items()))
    if matrix is not None and {own, *weights} <= set(matrix.point_ids):
        sample = matrix.common([own, *weights])
        other = np.array([list(weights.values())]) @ sample.averages(weights)
        found = estimate(sample, sign * (sample.averages([own]) - other))
        values |= {"low": float(found.low[0]), "high": float(found.high[0])}
    return values | {"difference": sign * (values["measured_dice"] - values["other_dice"])}


def _cell(row: pd.Series[Any]) -> str:
    return f"{dice(row['other_dice'])} ({signed(row['difference'])})"

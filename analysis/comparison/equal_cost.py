"""Dice at equal cost, and the cost of equal Dice.

Dice at equal cost: where budgets were varied, what the other scheme has for the time, energy or voxels of this one.

A scheme's configurations that differ in the budget alone make a line of Dice over cost. Each of them is set against the
other scheme's line at its own cost, linearly between the two nearest budgets and never beyond its ends. With the cases
of all three the difference has an interval, as every other difference has.

Time to a fixed Dice, relative to conventional training: the table of the PDL poster, for every scheme.

A configuration is paired with the constant patch size training (CPS) on all cases of the same settings, fold and seed.
Where every training of both sides crosses the threshold, a ratio is that of what both had spent there, averaged over
the pairs geometrically, with a Student t interval of their logarithms from three pairs on.

Where some do not, the pairs in which both do are a choice of the fortunate. Then the ratio is one of restricted means:
each training counts what it had spent when it crossed, at most the horizon, and the horizon if it ended without. The
horizon is what the longest of these trainings spent. A schedule that is over does not go on, so a training that ended
has not been lost from sight: it does not arrive. Such a ratio has no interval, and there is none if a side has no
training that arrives. Seconds and CO₂ of pairs on different hardware have no ratio.

When a training reached a Dice: the crossing of a threshold on its own learning curve.

The curve is the smoothed validation Dice, the very one that `--stop-at-dice` watches: pseudo Dice of the fixed
validation batches, mean of the last three evaluations. Between two evaluations it is taken as linear, and so is what
was spent between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison.pairs import (
    BASELINE,
    MATCHED,
    Pair,
    budget_words,
    dice,
    find_pairs,
    methods_of,
    several_of,
    signed,
)
from analysis.fronts.captions import amount_of, lowered
from analysis.statistics.case_dice import CaseDice, case_matrices
from analysis.statistics.intervals import estimate
from analysis.statistics.study_results import StudyResults
from analysis.tables.columns import BY_NAME, OBJECTIVES
from analysis.tables.format import MISSING, Table
from analysis.tables.frame import FINISHED, KEY
from analysis.tables.methods import METHOD_LABELS
from study.curriculum.data_curriculum import SMOOTHED_EVALUATIONS, smoothed_dice

COSTS = ("runtime_seconds", "energy_kwh", "voxels")
_SETTING = [name for name in MATCHED if name != "budget"]
# Differing in one of these, seconds and energy cannot be compared.
_MACHINE = ("hardware", "cpus", "gpus")


def equal_cost(results: StudyResults, baseline: str, against: Sequence[str]) -> pd.DataFrame:
    """Every configuration of two schemes against the other's line.

    Args:
        results: any study; a scheme with one budget has no line.
        baseline: scheme to compare with.
        against: schemes.

    Returns:
        A row per measured configuration, other scheme and cost: dataset, plans, measured, budget, `other`, cost,
        amount, `measured_dice`, `other_dice` (interpolated), `difference` of method minus baseline with `low` and
        `high`.
    """
    matrices = case_matrices(results.tables)
    rows: list[dict[str, Any]] = []
    for _, points in results.points.groupby(_SETTING, dropna=False, sort=False):
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


SPENT = ("training_seconds", "co2_kg", "voxels", "iteration")
"""Columns of the epochs that a crossing is told in."""


def smoothed_curves(epochs: pd.DataFrame) -> pd.DataFrame:
    """Evaluated epochs with the column `smoothed`; those before the third evaluation of a trial are left out.

    Args:
        epochs: as in `frame.Tables`.

    Returns:
        Columns study, trial_id, smoothed and those of SPENT, in order.
    """
    evaluated = epochs[epochs["pseudo_dice"].notna()].sort_values([*KEY, "epoch"], kind="stable")
    parts = [_smoothed(part) for _, part in evaluated.groupby(KEY, sort=False)]
    names = [*KEY, "smoothed", *SPENT]
    return pd.concat(parts)[names] if parts else pd.DataFrame(columns=names)


def crossings(curves: pd.DataFrame, thresholds: Sequence[float]) -> pd.DataFrame:
    """Where each trial first reaches each threshold.

    Args:
        curves: as `smoothed_curves` gives them.
        thresholds: of Dice.

    Returns:
        One row per trial and threshold: study, trial_id, threshold, `reached`, `best` (highest smoothed Dice), `dice`
        at the evaluation that reached it, `interval_iterations` between that evaluation and the one before, the columns
        of SPENT at the crossing, and with `end_` before them at the last evaluation. What is not known is missing; a
        first evaluation at or above the threshold counts where it stands.
    """
    rows = [
        {**dict(zip(KEY, key, strict=True)), "threshold": threshold, **_crossing(part, threshold)}
        for key, part in curves.groupby(KEY, sort=False)
        for threshold in thresholds
    ]
    ends = [f"end_{name}" for name in SPENT]
    names = [*KEY, "threshold", "reached", "best", "dice", "interval_iterations", *SPENT, *ends]
    return pd.DataFrame(rows, columns=names)


def _smoothed(part: pd.DataFrame) -> pd.DataFrame:
    values = part["pseudo_dice"].tolist()
    smoothed = [smoothed_dice(values[: end + 1]) for end in range(len(values))]
    return part.assign(smoothed=pd.Series(smoothed, index=part.index, dtype=float)).iloc[SMOOTHED_EVALUATIONS - 1 :]


def _crossing(part: pd.DataFrame, threshold: float) -> dict[str, object]:
    dice = part["smoothed"].to_numpy(dtype=float)
    spent = part[list(SPENT)].to_numpy(dtype=float)
    above = np.flatnonzero(dice >= threshold)
    best: dict[str, object] = {"reached": bool(len(above)), "best": float(dice.max())}
    best |= {f"end_{name}": value for name, value in zip(SPENT, spent[-1].tolist(), strict=True)}
    if not len(above):
        return best
    end = int(above[0])
    at, interval = spent[end], np.nan
    if end > 0:
        share = (threshold - dice[end - 1]) / (dice[end] - dice[end - 1])
        at = spent[end - 1] + share * (spent[end] - spent[end - 1])
        interval = spent[end][SPENT.index("iteration")] - spent[end - 1][SPENT.index("iteration")]
    return {
        **best,
        "dice": float(dice[end]),
        "interval_iterations": interval,
        **dict(zip(SPENT, at.tolist(), strict=True)),
    }


POSTER_THRESHOLDS = (0.80, 0.85, 0.90, 0.95)
"""Of the PDL poster, tables 1 and 2."""
CONFIDENCE = 0.95
_STEP, _FEWEST = 0.05, 3
_FEWEST_PAIRS = 3
_MACHINE_BOUND = ("training_seconds", "co2_kg")


def choose_thresholds(curves: pd.DataFrame) -> tuple[float, ...]:
    """The poster's; where no training reaches three of them, the highest multiples of 0.05 that one does, too.

    Of those that none reaches, the lowest.
    """
    if curves.empty:
        return POSTER_THRESHOLDS
    best = float(curves["smoothed"].max())
    reached = [threshold for threshold in POSTER_THRESHOLDS if threshold <= best]
    if len(reached) >= _FEWEST:
        return POSTER_THRESHOLDS
    lower = [round(_STEP * n, 2) for n in range(1, math.floor(POSTER_THRESHOLDS[0] / _STEP + 0.5))]
    own = [threshold for threshold in lower if threshold <= best][-(_FEWEST - len(reached)) :]
    return (*own, *POSTER_THRESHOLDS[: len(reached) + 1])


def time_to_dice(results: StudyResults, thresholds: Sequence[float] | None = None) -> pd.DataFrame:
    """One row per dataset, configuration of a named scheme at the largest budget, and threshold.

    Args:
        results: studies with learning curves.
        thresholds: of Dice, ascending; None chooses them per dataset.

    Returns:
        dataset, plans, budget, method, point_id, threshold; `n_pairs`, of which `n_reached` reached it and `n_baseline`
        of the conventional ones did; for both sides (`baseline_` before the latter) means over those that reached it of
        the columns of SPENT, `dice` and `interval_iterations`, and `best`; for each of SPENT `ratio_`, `low_` and
        `high_`, and `horizon_` where the ratio is of restricted means.
    """
    parts = [_of_dataset(results.of(dataset), thresholds) for dataset in results.datasets]
    rows = [row for part in parts for row in part]
    return pd.DataFrame(rows)


def _of_dataset(results: StudyResults, thresholds: Sequence[float] | None) -> list[dict[str, Any]]:
    trials = results.tables.trials
    finished = trials.loc[trials["state"] == FINISHED, [*KEY, "point_id", "fold", "seed", "hardware"]]
    curves = smoothed_curves(results.tables.epochs.merge(finished[KEY], on=KEY))
    points = results.points
    points = points[points["budget"] == points["budget"].max()]
    others = [method for method in methods_of(points) if method != BASELINE]
    if curves.empty or not others or BASELINE not in methods_of(points):
        return []
    chosen = choose_thresholds(curves) if thresholds is None else tuple(thresholds)
    reached = crossings(curves, chosen).merge(finished, on=KEY)
    pairs = find_pairs(points, BASELINE, others).pairs
    return [_row(pair, reached, threshold) for pair in pairs for threshold in chosen]


def _row(pair: Pair, reached: pd.DataFrame, threshold: float) -> dict[str, Any]:
    here = reached[reached["threshold"] == threshold]
    sides = [here[here["point_id"] == point["point_id"]] for point in (pair.baseline, pair.against)]
    both = sides[1].merge(sides[0], on=["fold", "seed"], suffixes=("", "_baseline"))
    return {
        **{name: pair.against[name] for name in ("dataset", "plans")},
        "budget": float(pair.against["budget"]),
        "method": pair.against["method"],
        "point_id": pair.against["point_id"],
        "threshold": threshold,
        "n_pairs": len(both),
        "n_reached": int(both["reached"].sum()),
        "n_baseline": int(both["reached_baseline"].sum()),
        **_means(both, ""),
        **_means(both, "_baseline"),
        **{name: value for spent in SPENT for name, value in _ratio(both, spent).items()},
    }


def _means(both: pd.DataFrame, suffix: str) -> dict[str, float]:
    """Over the trials of a side that reached the threshold; `best` over all of them."""
    prefix = "baseline_" if suffix else ""
    there = both[both[f"reached{suffix}"].astype(bool)]
    means = {name: _mean(there[f"{name}{suffix}"]) for name in (*SPENT, "dice", "interval_iterations")}
    means["best"] = _mean(both[f"best{suffix}"])
    return {f"{prefix}{name}": value for name, value in means.items()}


def _mean(values: pd.Series[Any]) -> float:
    return float(values.astype(float).mean()) if len(values) else np.nan


def _ratio(both: pd.DataFrame, spent: str) -> dict[str, float]:
    """Against / conventional, with interval or horizon; missing if any of the pairs is unmeasured."""
    if spent in _MACHINE_BOUND:
        both = both[both["hardware"] == both["hardware_baseline"]]
    told = dict.fromkeys((f"{name}_{spent}" for name in ("ratio", "low", "high", "horizon")), np.nan)
    arrived = [both[f"reached{suffix}"].to_numpy(dtype=bool) for suffix in ("", "_baseline")]
    if not all(side.any() for side in arrived):
        return told
    ours, theirs = (both[f"{spent}{suffix}"].to_numpy(dtype=float) for suffix in ("", "_baseline"))
    if all(side.all() for side in arrived):
        logs = np.log(ours / theirs)
        low, high = _t_interval(logs)
        return told | {f"ratio_{spent}": float(np.exp(logs.mean())), f"low_{spent}": low, f"high_{spent}": high}
    horizon = float(both[[f"end_{spent}", f"end_{spent}_baseline"]].to_numpy(dtype=float).max())
    means = [np.where(there, at, horizon).mean() for there, at in zip(arrived, (ours, theirs), strict=True)]
    return told | {f"ratio_{spent}": float(means[0] / means[1]), f"horizon_{spent}": horizon}


def _t_interval(logs: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    from scipy import stats

    if len(logs) < _FEWEST_PAIRS:
        return np.nan, np.nan
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
    return float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))

"""Time to a fixed Dice, relative to conventional training: the table of the PDL poster, for every scheme.

A configuration is paired with the constant patch size training (CPS) on all cases of the same settings, fold and seed.
Where every training of both sides crosses the threshold, a ratio is that of what both had spent there, averaged over
the pairs geometrically, with a Student t interval of their logarithms from three pairs on.

Where some do not, the pairs in which both do are a choice of the fortunate. Then the ratio is one of restricted means:
each training counts what it had spent when it crossed, at most the horizon, and the horizon if it ended without. The
horizon is what the longest of these trainings spent. A schedule that is over does not go on, so a training that ended
has not been lost from sight: it does not arrive. Such a ratio has no interval, and there is none if a side has no
training that arrives. Seconds and CO₂ of pairs on different hardware have no ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison import BASELINE, methods_of
from analysis.comparison.pairs import Pair, find_pairs
from analysis.crossings import SPENT, crossings, smoothed_curves
from analysis.evidence import Evidence
from analysis.frame import FINISHED, KEY

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


def time_to_dice(evidence: Evidence, thresholds: Sequence[float] | None = None) -> pd.DataFrame:
    """One row per dataset, configuration of a named scheme at the largest budget, and threshold.

    Args:
        evidence: studies with learning curves.
        thresholds: of Dice, ascending; None chooses them per dataset.

    Returns:
        dataset, budget, method, point_id, threshold; `n_pairs`, of which `n_reached` reached it and `n_baseline` of the
        conventional ones did; for both sides (`baseline_` before the latter) means over those that reached it of the
        columns of SPENT, `dice` and `interval_iterations`, and `best`; for each of SPENT `ratio_`, `low_` and `high_`,
        and `horizon_` where the ratio is of restricted means.
    """
    parts = [_of_dataset(evidence.of(dataset), thresholds) for dataset in evidence.datasets]
    rows = [row for part in parts for row in part]
    return pd.DataFrame(rows)


def _of_dataset(evidence: Evidence, thresholds: Sequence[float] | None) -> list[dict[str, Any]]:
    trials = evidence.tables.trials
    finished = trials.loc[trials["state"] == FINISHED, [*KEY, "point_id", "fold", "seed", "hardware"]]
    curves = smoothed_curves(evidence.tables.epochs.merge(finished[KEY], on=KEY))
    points = evidence.points
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
        "dataset": pair.against["dataset"],
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

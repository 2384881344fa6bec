"""One pair measured: both on the folds and cases that both have, as a row of `pairs.ROW_COLUMNS`.

One side of a pair: a configuration on some folds, its mean Dice, its mean costs, the Dice of its cases.

Seeds of a fold are averaged first, then folds, as everywhere (`case_dice`). A published configuration has no trials:
its printed means are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison.pairs import RATIOS, Pair, different_settings
from analysis.fronts.captions import estimated_parts, words_of
from analysis.statistics.case_dice import CaseDice, case_matrices
from analysis.statistics.intervals import cautions, estimate, fold_sd, training_sd
from analysis.statistics.study_results import StudyResults
from analysis.statistics.tests import DECIMALS, Alternative, paired_statistics, smallest_difference, too_few
from analysis.tables.contention import sentence as contention
from analysis.tables.format import counted
from analysis.tables.frame import FINISHED, KEY
from analysis.tables.rows import FOREGROUND

AVERAGED = ("dice", "runtime_seconds", "energy_kwh", "co2_kg", "voxels", "voxel_share", "iterations")
_CONFIGURATION = ["dataset", "point_id"]


@dataclass(frozen=True, kw_only=True)
class Side:
    """A configuration on some of its folds.

    Attributes:
        point: its row in the frame of points.
        trials: its finished trials on those folds; empty for published numbers.
        means: by name, those of `AVERAGED`; NaN where it is unknown in any of the trials.
        cases: Dice by validation case, seeds averaged; NaN where no seed has one.
    """

    point: pd.Series[Any]
    trials: pd.DataFrame
    means: dict[str, float]
    cases: pd.Series[float]

    def words(self, name: str) -> set[str]:
        """The different values of a circumstance among its trials."""
        values = self.trials[name] if len(self.trials) else pd.Series([self.point[name]])
        return words_of(values.dropna().map(lambda v: f"{v:g}" if isinstance(v, float) else str(v)))

    @property
    def seeds(self) -> set[int]:
        """Of its trials."""
        return set(self.trials["seed"])


class Finished:
    """The finished trials and cases of some studies by configuration, looked up quickly."""

    def __init__(self, results: StudyResults) -> None:
        trials = results.tables.trials
        self._none = trials.iloc[:0]
        finished = trials[trials["state"] == FINISHED]
        self._trials = dict(list(finished.groupby(_CONFIGURATION, sort=False)))
        cases = results.tables.cases
        means = cases[cases["label"] == FOREGROUND].merge(finished[[*KEY, *_CONFIGURATION, "fold"]], on=KEY)
        self._no_cases, self._cases = means.iloc[:0], dict(list(means.groupby(_CONFIGURATION, sort=False)))
        self._matrices = case_matrices(results.tables)
        # CO₂ of all trials of a dataset, whatever became of them; NaN where some of it is not known.
        self.search_kg = trials.groupby("dataset")["total_co2_kg"].agg(lambda kg: kg.sum(skipna=False))

    def side(self, point: pd.Series[Any], folds: set[int]) -> Side:
        """A configuration on some of its folds."""
        key = (point["dataset"], point["point_id"])
        trials = self._trials.get(key, self._none)
        trials = trials[trials["fold"].isin(folds)]
        rows = self._cases.get(key, self._no_cases)
        cases = rows[rows["fold"].isin(folds)].groupby("case")["dice"].mean()
        return Side(point=point, trials=trials, means=_means(point, trials), cases=cases)

    def sample(self, sides: Sequence[Side], folds: set[int]) -> CaseDice | None:
        """The trainings of both on some folds with the cases that all of them saw; None if a side has none."""
        matrix = self._matrices.get(str(sides[0].point["dataset"]))
        ids = [str(side.point["point_id"]) for side in sides]
        if matrix is None or not set(ids) <= set(matrix.point_ids):
            return None
        sample = matrix.common(ids, folds)
        return sample if sample.cases else None


def _means(point: pd.Series[Any], trials: pd.DataFrame) -> dict[str, float]:
    if trials.empty:
        return {name: np.nan if pd.isna(point[name]) else float(point[name]) for name in AVERAGED}
    by_fold = trials[["fold", *AVERAGED]].astype(float).groupby("fold").mean(skipna=False)
    return {name: float(by_fold[name].mean(skipna=False)) for name in AVERAGED}


# Differing in one of these, seconds and energy cannot be compared.
_SAME_MACHINE = {"hardware": "hardware", "cpus": "shares of the CPUs", "gpus": "shares of the GPUs"}
_MACHINE_BOUND = ("runtime_ratio", "energy_ratio", "co2_ratio")
CASES, CASES_AND_TRAININGS = "cases", "cases and trainings"
"""What the column `covers` says."""
TRIALS = "trials"
"""What the column `source` says of numbers that no publication printed."""
_ENERGY_BOUND = ("energy_ratio", "co2_ratio")


def measure(pair: Pair, finished: Finished, *, alternative: Alternative) -> dict[str, Any]:
    """The row of a pair. Without a common fold, everything but the names is missing."""
    folds = [{int(fold) for fold in point["folds"].split()} for point in (pair.baseline, pair.against)]
    shared = folds[0] & folds[1]
    row = _names(pair, shared, folds[0] ^ folds[1])
    if not shared:
        return row | {"remarks": "no fold in common"}
    baseline, against = (finished.side(point, shared) for point in (pair.baseline, pair.against))
    tested, warnings = _tested(baseline, against, alternative)
    sample = finished.sample((baseline, against), shared)
    estimated, cautioned = ({}, []) if sample is None else _estimated(sample, pair, above=alternative == "greater")
    reasons = dict(_incomparable(baseline, against))
    ratios = {name: np.nan if name in reasons else value for name, value in _ratios(baseline, against).items()}
    even = _break_even(baseline, against, finished) if "co2_ratio" not in reasons else np.nan
    remarks = [
        *(f"settings differ: {words}" for words in different_settings(pair)),
        *_about_cases(row, tested),
        *dict.fromkeys(reasons.values()),
        *_about_circumstances(baseline, against),
        *([*warnings, *cautioned] if len(baseline.trials) else ["published means, no cases: no test, no interval"]),
    ]
    row |= _measure_means(baseline, against) | tested | estimated | ratios
    return row | {"break_even": even, "remarks": "; ".join(remarks)}


def _names(pair: Pair, shared: set[int], alone: set[int]) -> dict[str, Any]:
    baseline, against = pair.baseline, pair.against
    return {
        "source": baseline["studies"] if baseline["trial_ids"] == "" else TRIALS,
        **{name: baseline[name] for name in ("dataset", "plans", "configuration", "budget")},
        "baseline": pair.baseline_name,
        "against": pair.against_name,
        "baseline_method": baseline["method"],
        "against_method": against["method"],
        "baseline_id": baseline["point_id"],
        "against_id": against["point_id"],
        "folds": " ".join(map(str, sorted(shared))),
        "n_folds": len(shared),
        "folds_left_out": " ".join(map(str, sorted(alone))),
    }


def _measure_means(baseline: Side, against: Side) -> dict[str, float]:
    return {
        "dice_difference": round(against.means["dice"] - baseline.means["dice"], DECIMALS),
        **{f"baseline_{name}": baseline.means[name] for name in ("dice", "runtime_seconds", "co2_kg")},
        **{f"against_{name}": against.means[name] for name in ("dice", "runtime_seconds", "co2_kg")},
    }


def _tested(baseline: Side, against: Side, alternative: Alternative) -> tuple[dict[str, Any], list[str]]:
    """Statistics over the cases of both, which were dropped, and what is too few."""
    differences = (against.cases - baseline.cases)[baseline.cases.index.intersection(against.cases.index)].sort_index()
    dropped = differences[differences.isna()]
    statistics = paired_statistics(differences.dropna(), alternative=alternative)
    values = {
        "n_cases": statistics.n,
        "n_zero": statistics.n_zero,
        "dropped_cases": " ".join(dropped.index),
        "n_dropped": len(dropped),
        "n_unpaired": len(baseline.cases.index.symmetric_difference(against.cases.index)),
        "baseline_trainings": len(baseline.trials),
        "against_trainings": len(against.trials),
        "median_difference": statistics.median,
        "effect_size": statistics.effect_size,
        "p": statistics.p,
    }
    return values, too_few(statistics)


def _estimated(sample: CaseDice, pair: Pair, *, above: bool) -> tuple[dict[str, Any], list[str]]:
    """Both Dice and their difference on the same cases, how sure it is, and what makes its interval too narrow."""
    ids = [str(point["point_id"]) for point in (pair.baseline, pair.against)]
    theirs, ours = (sample.averages([name]) for name in ids)
    found = estimate(sample, np.concatenate([ours - theirs, theirs, ours]))
    error, freedom = float(found.error[0]), float(found.freedom[0])
    covers_trainings = bool(np.isfinite(found.training_error[0]))
    p = found.p(0, above=above)
    values = {
        "dice_difference": round(float(found.mean[0]), DECIMALS),
        "baseline_dice": float(found.mean[1]),
        "against_dice": float(found.mean[2]),
        "standard_error": error,
        "difference_low": float(found.low[0]),
        "difference_high": float(found.high[0]),
        "covers": CASES_AND_TRAININGS if covers_trainings else CASES,
        "case_sd": float(found.case_error[0]) * np.sqrt(len(sample.cases)),
        "fold_sd": fold_sd(sample, ours[0] - theirs[0]),
        "baseline_training_sd": training_sd(sample.common([ids[0]])),
        "against_training_sd": training_sd(sample.common([ids[1]])),
        "detectable": smallest_difference(error, freedom=freedom if covers_trainings else np.inf),
        "p_trainings": p if covers_trainings else np.nan,
        "false_outperformance": p,
    }
    reasons = cautions(len(sample.cases), float(found.skewness[0])) if np.isfinite(error) else []
    return values, [f"the 95 % interval holds the truth less often: {reason}" for reason in reasons]


def _break_even(baseline: Side, against: Side, finished: Finished) -> float:
    """How many trainings with the method instead of the baseline save what all trials of the dataset emitted."""
    saved = baseline.means["co2_kg"] - against.means["co2_kg"]
    return float(finished.search_kg.get(baseline.point["dataset"], np.nan)) / saved if saved > 0 else np.nan


def _ratios(baseline: Side, against: Side) -> dict[str, float]:
    sides = [against.means, baseline.means]
    # Where a publication prints shares of voxels only, these by the iterations they are relative to.
    shares_only = any(np.isnan(means["voxels"]) for means in sides)
    voxels = [means["voxel_share"] * means["iterations"] if shares_only else means["voxels"] for means in sides]
    pairs = {
        "runtime_ratio": [means["runtime_seconds"] for means in sides],
        "voxel_ratio": voxels,
        "energy_ratio": [means["energy_kwh"] for means in sides],
        "co2_ratio": [means["co2_kg"] for means in sides],
    }
    return {name: ours / theirs if theirs > 0 else np.nan for name, (ours, theirs) in pairs.items()}


def _incomparable(baseline: Side, against: Side) -> Iterator[tuple[str, str]]:
    """Ratios that would mislead, with the reason; of several reasons for a ratio the last weighs most."""
    machine = [words for name, words in _SAME_MACHINE.items() if _differ(baseline, against, name)]
    reasons = (
        (_differ(baseline, against, "carbon_rate"), "CO₂ of different grids", ("co2_ratio",)),
        (_differ(baseline, against, "energy_methods"), "energy read in different ways", _ENERGY_BOUND),
        (bool(machine), f"different {' and '.join(machine)}", _MACHINE_BOUND),
    )
    for applies, reason, names in reasons:
        if applies:
            words = " and ".join(", ".join(RATIOS[name] for name in names).rsplit(", ", 1))
            yield from ((name, f"{reason}: {words} not compared") for name in names)


def _differ(baseline: Side, against: Side, name: str) -> bool:
    return len(baseline.words(name) | against.words(name)) > 1


def _about_cases(row: dict[str, Any], tested: dict[str, Any]) -> Iterator[str]:
    if row["folds_left_out"]:
        yield f"folds left out, which only one of the two has: {row['folds_left_out']}"
    if tested["n_dropped"]:
        cases = tested["dropped_cases"].split()
        named = ", ".join(cases[:5]) + (f" and {len(cases) - 5} more" if len(cases) > 5 else "")
        yield f"{counted(tested['n_dropped'], 'case')} without Dice dropped: {named}"
    if tested["n_unpaired"]:
        yield f"{counted(tested['n_unpaired'], 'case')} of only one of the two left out"


def _about_circumstances(baseline: Side, against: Side) -> Iterator[str]:
    if _differ(baseline, against, "concurrent_trials"):
        yield "different numbers of trials on the machine at once, which changes the runtime"
    if apart := contention(pd.concat([baseline.trials, against.trials])):
        yield apart
    if baseline.seeds != against.seeds:
        seeds = [", ".join(map(str, sorted(side.seeds))) for side in (baseline, against)]
        yield f"different seeds: {seeds[0]} and {seeds[1]}"
    parts = estimated_parts(against.trials["energy_methods"])
    if parts:
        yield f"energy of {' and '.join(parts)} estimated, not measured"

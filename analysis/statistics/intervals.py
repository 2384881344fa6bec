"""How sure a Dice, or a difference of Dice, is: standard error and 95 % interval over cases and trainings.

What is estimated is always the mean of `case_dice`, or a weighted sum of such means: 1 and -1 for a difference. All of
its terms rest on the same cases, which are drawn together, so that differences are paired.

- Cases: they are drawn again within their fold (2000 times); the spread of the replicates is the error. With one
  training per fold this is all there is to see, and the interval is bias-corrected and accelerated (BCa).
- Trainings: where a configuration has two or more in a fold (seeds), their variance within folds is the error of
  drawing others, and the two errors are added as in a hierarchical bootstrap, trainings within folds, then cases. A
  bootstrap proper would take the variance of two trainings for half of what it is, so the unbiased variance is taken,
  and Student's t with Satterthwaite's degrees of freedom. Where the truth is no difference, trainings scatter by 0.004
  and 104 cases of one fold by 0.03, a one-sided test at 5 % says otherwise in 22 % of comparisons with one training on
  either side; in 5 % with 2, 3 or 5 (plain percentiles of a hierarchical bootstrap: 10, 8, 6 %).

What a 95 % interval rests on, and when it holds less, is in `coverage`.

What a 95 % interval of a mean over cases rests on, and the cases with which it holds the truth less often.

A few cases with a Dice near 0 decide the mean and its interval, and how many a sample has is chance. Of intervals from
populations in which 5 % of the cases have Dice 0 (the others beta-distributed, mean 0.85), BCa holds the true mean in
78 % of samples of 26 cases and in 91 % of 52; without such cases in 93 to 95 %. So samples are judged by what is in
them: by their number, and by Cochran's rule (Sampling Techniques, 1977, 2.15) that n should exceed 25 times the squared
skewness. A sample without a failed case cannot show that there are none: of n cases without one, up to 1 - 0.05^(1/n)
of the population may fail (95 %).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from analysis.statistics.case_dice import CaseDice, case_matrices, mean_dice, strata
from analysis.tables.format import counted
from analysis.tables.frame import Tables

FEW_CASES = 50
"""Below this, intervals are too narrow whatever the cases are."""
_COCHRAN = 25


def skewness(values: ArrayLike) -> float:
    """Fisher's skewness of the cases; 0 if all of them agree, NaN for fewer than three."""
    d = np.asarray(values, dtype=float)
    if len(d) < 3:
        return float("nan")
    apart = d - d.mean()
    spread = float((apart**2).mean())
    return float((apart**3).mean() / spread**1.5) if spread > 1e-24 else 0.0


def cautions(count: int, skew: float, zeros: int | None = None) -> list[str]:
    """Why an interval over these cases holds the truth less often than 95 % of the time; nothing if nothing says so.

    Args:
        count: of cases.
        skew: of their Dice, or of their differences.
        zeros: how many of them have Dice 0; None where that is not the question.
    """
    reasons = []
    if count < FEW_CASES:
        reasons.append(f"fewer than {FEW_CASES} cases ({count})")
    needed = _COCHRAN * skew**2 if math.isfinite(skew) else 0.0
    if count < needed:
        failed = f", {counted(zeros, 'case')} with Dice 0" if zeros else ""
        reasons.append(f"cases too skewed for their number ({count} where {math.ceil(needed)} are asked for{failed})")
    return reasons


def unseen_failures(count: int) -> float:
    """The share of cases that may fail (95 % upper bound) although none of so many did."""
    return float(1 - 0.05 ** (1 / count))


CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """Estimates with what is known of their error, an array entry each; NaN where the cases do not allow one.

    Attributes:
        mean: the estimate.
        low, high: ends of its 95 % interval.
        error: standard error, over cases, and over trainings where `training_error` is known.
        freedom: degrees of freedom of that error.
        case_error: standard error over cases alone (jackknife within folds).
        skewness: of the cases' parts in the estimate.
        training_error: the same over trainings; NaN where a configuration has a single one in every fold.
    """

    mean: Array
    low: Array
    high: Array
    error: Array
    freedom: Array
    case_error: Array
    skewness: Array
    training_error: Array

    def p(self, index: int, *, above: bool) -> float:
        """One-sided p value of Student's t that the estimate is above 0 (or below); NaN where there is no error."""
        mean = self.mean[index] if above else -self.mean[index]
        if self.error[index] == 0:
            return float(mean <= 0)
        return float(stdtr(self.freedom[index], -mean / self.error[index]))


def estimate(sample: CaseDice, weights: Array, *, resamples: int = RESAMPLES, seed: int = SEED) -> Estimates:
    """Weighted sums of the Dice of trainings.

    Args:
        sample: the trainings, all with the same cases in their fold.
        weights: outputs × trainings, as `CaseDice.averages` gives them or a difference of such rows.
        resamples: of the cases.
        seed: of the resampling; the same gives the same result.
    """
    groups = strata(sample.seen)
    # Where every case has every class, sums of means are means of sums, of fewer rows.
    sums = np.tensordot(weights, sample.dice, 1) if np.isfinite(sample.dice).all() else None

    def statistic(drawn: Array) -> Array:
        return np.asarray(weights @ mean_dice(sample.dice, drawn) if sums is None else mean_dice(sums, drawn))

    low, high, case_error, skew = _over_cases(statistic, groups, len(sample.cases), resamples, seed)
    of_trainings = _of_trainings(sample)
    mean = weights @ of_trainings
    variances, freedoms = _over_trainings(sample, weights, of_trainings)
    known = np.isfinite(variances.sum(axis=1)) & np.isfinite(case_error)
    squares = np.column_stack([case_error**2, variances])
    parts = np.array([len(sample.cases) - len(groups), *freedoms])
    freedom = np.where(known, _satterthwaite(squares, parts), parts[0])
    error = np.where(known, np.sqrt(squares.sum(axis=1)), case_error)
    half = -stdtrit(np.maximum(freedom, 1), (1 - CONFIDENCE) / 2) * error
    return Estimates(
        mean=mean,
        low=np.where(known, mean - half, low),
        high=np.where(known, mean + half, high),
        error=error,
        freedom=freedom,
        case_error=case_error,
        skewness=skew,
        training_error=np.where(known, np.sqrt(variances.sum(axis=1)), np.nan),
    )


def training_sd(sample: CaseDice) -> float:
    """SD of the Dice of trainings that differ in their seed alone, pooled over folds; NaN without two in a fold.

    Args:
        sample: the trainings of one configuration.
    """
    return _sd(_of_trainings(sample), sample.folds)


def fold_sd(sample: CaseDice, weights: Array) -> float:
    """SD over folds of a weighted sum of the Dice of trainings; NaN for one fold.

    Args:
        sample: the trainings.
        weights: one per training.
    """
    parts, folds = weights * _of_trainings(sample), np.unique(sample.folds)
    by_fold = [len(folds) * parts[sample.folds == fold].sum() for fold in folds]
    return float(np.std(by_fold, ddof=1)) if len(folds) > 1 else np.nan


def with_intervals(points: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Points with intervals, the scatter of their trainings and what their cases are like filled in."""
    points = points.copy()
    for dataset, matrix in case_matrices(tables).items():
        index = pd.Series(points.index, index=points["point_id"].where(points["dataset"] == dataset))
        for alike in matrix.alike(points.loc[points["dataset"] == dataset, "point_id"].tolist()):
            sample = matrix.common(alike)
            found = estimate(sample, sample.averages(alike))
            rows = index[alike]
            points.loc[rows, "dice_low"] = np.clip(found.low, 0, 1)
            points.loc[rows, "dice_high"] = np.clip(found.high, 0, 1)
            points.loc[rows, "n_cases"] = len(sample.cases)
            points.loc[rows, "case_skewness"] = found.skewness
            dice = _of_trainings(sample)
            points.loc[rows, "training_sd"] = [_sd(dice[own], sample.folds[own]) for own in map(sample.rows_of, alike)]
            points.loc[rows, "n_zero_cases"] = _zeros(sample, alike)
    return points


def dice_bars(points: pd.DataFrame) -> tuple[pd.Series[float], pd.Series[float]]:
    """Ends of the bars that figures draw: the interval, or lowest to highest trial where there is no interval."""
    return points["dice_low"].fillna(points["dice_min"]), points["dice_high"].fillna(points["dice_max"])


def _of_trainings(sample: CaseDice) -> Array:
    return np.asarray(mean_dice(sample.dice, np.ones((1, len(sample.cases))))[:, 0], dtype=float)


def _sd(dice: Array, folds: NDArray[np.int64]) -> float:
    variance, freedom = _pooled(dice, folds)
    return float(np.sqrt(variance)) if freedom else np.nan


def _zeros(sample: CaseDice, point_ids: Sequence[str]) -> list[int]:
    """Cases in which no class has any Dice, in none of the trainings of a configuration that saw them."""
    there: NDArray[np.bool_] = np.asarray(np.isfinite(sample.dice).any(axis=2))
    some: NDArray[np.bool_] = np.asarray((np.nan_to_num(sample.dice) > 0).any(axis=2))
    rows = map(sample.rows_of, point_ids)
    return [int(np.sum(np.any(there[mine], axis=0) & ~np.any(some[mine], axis=0))) for mine in rows]


def _over_trainings(sample: CaseDice, weights: Array, dice: Array) -> tuple[Array, list[float]]:
    """Per output and configuration the variance that the choice of trainings gives (outputs × configurations).

    That of a configuration which an output does not use is 0, that of one with a single training per fold NaN.
    """
    columns, freedoms = [], []
    for point in dict.fromkeys(sample.point_ids):
        mine = sample.rows_of(point)
        variance, freedom = _pooled(dice[mine], sample.folds[mine])
        factor = (weights[:, mine] ** 2).sum(axis=1)
        columns.append(np.where(factor > 0, factor * (variance if freedom else np.nan), 0.0))
        freedoms.append(float(freedom))
    return np.column_stack(columns) if columns else np.zeros((len(weights), 0)), freedoms


def _pooled(dice: Array, folds: NDArray[np.int64]) -> tuple[float, int]:
    """Variance of trainings within folds, and its degrees of freedom."""
    if len(dice) == 1:
        return np.nan, 0
    groups = [dice[folds == fold] for fold in np.unique(folds)]
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return (squares / freedom if freedom else np.nan), freedom


def _satterthwaite(squares: Array, parts: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        below = np.where(squares > 0, squares**2 / np.maximum(parts, 1), 0.0).sum(axis=1)
        freedom = np.where(below > 0, squares.sum(axis=1) ** 2 / below, parts[0])
    return np.asarray(freedom, dtype=float)


def _over_cases(
    statistic: Callable[[Array], Array], groups: Sequence[NDArray[np.int64]], n_cases: int, resamples: int, seed: int
) -> Array:
    """How sure a statistic of weighted cases (weightings × cases -> outputs × weightings) is.

    Cases are drawn, and left out one by one, within their group (Efron and Tibshirani 1993, chapters 11 and 14).

    Returns:
        Ends of the BCa interval, the jackknife's standard error, and the skewness of what single cases change, each of
        all outputs; NaN if a group has fewer than two cases.
    """
    whole = statistic(np.ones((1, n_cases)))
    if not groups or min(map(len, groups)) < 2:
        return np.full((4, len(whole)), np.nan)
    drawn, without = statistic(_drawn(groups, n_cases, resamples, seed)), statistic(1 - np.eye(n_cases))
    variance, squares, cubes = np.zeros((3, len(whole)))
    moved = np.zeros_like(without)
    for group in groups:
        size, apart = len(group), without[:, group] - without[:, group].mean(axis=1, keepdims=True)
        # Of cases that agree the rounding is not an error.
        apart[np.ptp(apart, axis=1) < 1e-12] = 0.0
        variance += (size - 1) / size * (apart**2).sum(axis=1)
        moved[:, group] = -apart * size
        squares += (((1 - size) * apart) ** 2).sum(axis=1) / size**2
        cubes += (((1 - size) * apart) ** 3).sum(axis=1) / size**3
    with np.errstate(invalid="ignore", divide="ignore"):
        # An output for which all cases agree has no BCa interval; it is given below.
        acceleration = (1 / 6 * cubes / squares**1.5)[:, np.newaxis]
        below = ((drawn < whole).sum(axis=1) + (drawn <= whole).sum(axis=1)) / (2 * resamples)
        bias = ndtri(below)[:, np.newaxis]
        lifted = bias + ndtri([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        low, high = _quantiles(np.sort(drawn, axis=1), ndtr(bias + lifted / (1 - acceleration * lifted))).T
    same = np.ptp(drawn, axis=1) < 1e-12
    ends = (np.where(same, whole[:, 0], end) for end in (low, high))
    return np.stack([*ends, np.sqrt(variance), [skewness(row) for row in moved]])


def _drawn(groups: Sequence[NDArray[np.int64]], n_cases: int, resamples: int, seed: int) -> Array:
    """How often each case was drawn (resamples × cases), group by group as `scipy.stats.bootstrap` draws."""
    rng, weights = np.random.default_rng(seed), np.zeros((resamples, n_cases))
    for group in groups:
        rows = rng.integers(0, len(group), (resamples, len(group))) + len(group) * np.arange(resamples)[:, np.newaxis]
        weights[:, group] = np.bincount(rows.ravel(), minlength=resamples * len(group)).reshape(resamples, len(group))
    return weights


def _quantiles(ordered: Array, shares: Array) -> Array:
    """Quantiles of each row at its own shares (rows × shares), interpolated linearly; NaN where either has one."""
    position = np.nan_to_num(shares) * (ordered.shape[1] - 1)
    first = np.minimum(position.astype(np.int64), ordered.shape[1] - 2)
    low, high = (np.take_along_axis(ordered, first + step, axis=1) for step in (0, 1))
    found = low + (position - first) * (high - low)
    return np.where(np.isnan(shares) | np.isnan(ordered[:, -1:]), np.nan, found)

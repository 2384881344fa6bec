"""Confidence intervals of Dice: bias-corrected and accelerated (BCa) bootstrap over validation cases.

The cases of all folds that a configuration was validated on are one sample; seeds of the same case are averaged first.
The interval therefore covers the choice of cases, not the choice of seeds: what another training of the same
configuration would have given is not in it. It is that of nnU-Net's own mean: over cases within a class, then over
classes. On samples from a beta distribution (mean 0.8, standard deviation 0.12, 2000 samples each) intervals held the
true mean in 92 % of samples of 20 cases, 93 % of 52, 94 % of 104 and of 260.

Configurations with the same cases are resampled together, with the same draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.case_dice import CaseDice, case_matrices, mean_dice
from analysis.frame import FINISHED, KEY
from analysis.rows import FOREGROUND

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0
FEW_CASES = 50
"""Below this, intervals are too narrow to be trusted, and reports say so."""

Array: TypeAlias = NDArray[np.float64]


def dice_interval(
    dice: Array, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """The BCa interval of the mean over classes of the mean over cases.

    Args:
        dice: cases × classes, NaN where a class is neither in the case nor predicted.
        confidence: of the interval.
        resamples: of the bootstrap.
        seed: of the resampling; the same gives the same interval.

    Returns:
        Lower and upper end; NaN for fewer than two cases. Both are the mean when all cases agree.
    """
    low, high = dice_intervals(dice[None], confidence=confidence, resamples=resamples, seed=seed)[0]
    return float(low), float(high)


def dice_intervals(
    dice: Array, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = SEED
) -> Array:
    """The intervals of several configurations with the same cases, as `dice_interval` gives each.

    Args:
        dice: configurations × cases × classes.
        confidence: of the interval.
        resamples: of the bootstrap.
        seed: of the resampling.

    Returns:
        Configurations × (lower end, upper end).
    """
    return _bca(lambda weights: mean_dice(dice, weights), dice.shape[1], confidence, resamples, seed)


def difference_intervals(
    dice: Array, reference: Array, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = SEED
) -> Array:
    """Paired intervals of how much more Dice configurations have than another one, on cases they share.

    Args:
        dice: configurations × cases × classes.
        reference: cases × classes of the other one, in the same order.
        confidence: of the interval.
        resamples: of the bootstrap.
        seed: of the resampling.

    Returns:
        Configurations × (lower end, upper end) of their mean minus that of the reference.
    """

    def difference(weights: Array) -> Array:
        return mean_dice(dice, weights) - mean_dice(reference[None], weights)

    return _bca(difference, len(reference), confidence, resamples, seed)


def case_dice(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Dice of configurations by case and class, seeds averaged.

    Args:
        trials: as in `frame.Tables`.
        cases: as in `frame.Tables`.

    Returns:
        Columns dataset, point_id, case, label and dice, of finished trials, without the label `foreground`.
    """
    finished = trials.loc[trials["state"] == FINISHED, [*KEY, "dataset", "point_id"]]
    rows = cases[cases["label"] != FOREGROUND].merge(finished, on=KEY)
    return rows.groupby(["dataset", "point_id", "case", "label"], sort=False)["dice"].mean().reset_index()


def with_intervals(points: pd.DataFrame, trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Points with `dice_low`, `dice_high` and `n_cases` filled in from the cases of their trials."""
    points = points.copy()
    for dataset, matrix in case_matrices(trials, cases).items():
        index = points.index[points["dataset"] == dataset]
        rows = matrix.rows(points.loc[index, "point_id"])
        index, rows = index[rows >= 0], rows[rows >= 0]
        points.loc[index, ["dice_low", "dice_high"]] = _by_pattern(matrix)[rows]
        points.loc[index, "n_cases"] = matrix.seen.sum(axis=1)[rows]
    return points


def dice_bars(points: pd.DataFrame) -> tuple[pd.Series[float], pd.Series[float]]:
    """Ends of the bars that figures draw: the interval, or lowest to highest trial where there is no interval."""
    return points["dice_low"].fillna(points["dice_min"]), points["dice_high"].fillna(points["dice_max"])


def _by_pattern(matrix: CaseDice) -> Array:
    """Intervals of all configurations; those with the same cases are resampled in one go."""
    intervals = np.full((len(matrix.point_ids), 2), np.nan)
    patterns, which = np.unique(matrix.seen, axis=0, return_inverse=True)
    for number, cases in enumerate(patterns):
        rows = np.flatnonzero(which.ravel() == number)
        intervals[rows] = dice_intervals(matrix.dice[rows][:, cases])
    return intervals


def _bca(statistic: Callable[[Array], Array], n_cases: int, confidence: float, resamples: int, seed: int) -> Array:
    """BCa intervals of a statistic of weighted cases (weightings × cases -> outputs × weightings)."""
    from scipy.stats import bootstrap

    whole = statistic(np.ones((1, n_cases)))[:, 0]
    if n_cases < 2:
        return np.full((len(whole), 2), np.nan)
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        # A configuration whose cases all agree has no BCa interval; it is given below.
        warnings.simplefilter("ignore")
        result = bootstrap(
            (np.arange(n_cases),),
            lambda rows, axis=-1: _of_draws(statistic, rows, n_cases),
            vectorized=True,
            n_resamples=resamples,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    interval = np.column_stack([result.confidence_interval.low, result.confidence_interval.high])
    same = np.ptp(result.bootstrap_distribution, axis=-1) < 1e-12
    interval[same] = whole[same, None]
    return interval


def _of_draws(statistic: Callable[[Array], Array], draws: NDArray[np.int64], n_cases: int) -> Array:
    """The statistic of drawn cases (… × draws): as the weight of a case, how often it was drawn."""
    flat = np.atleast_2d(draws)
    shifted = flat + n_cases * np.arange(len(flat))[:, None]
    weights = np.bincount(shifted.ravel(), minlength=len(flat) * n_cases).reshape(len(flat), n_cases)
    values = statistic(weights.astype(float))
    return values if draws.ndim > 1 else values[:, 0]

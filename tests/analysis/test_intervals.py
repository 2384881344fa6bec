"""Intervals of Dice: against scipy and a BCa spelled out, missing classes, coverage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from ledgers import finish_trial, make_points, make_spec, make_study
from scipy.stats import bootstrap, norm

from analysis.case_dice import case_matrices, mean_dice
from analysis.evidence import gather
from analysis.intervals import dice_bars, dice_interval, dice_intervals, difference_intervals
from study.ledger import Ledger


def random_cases(count: int, classes: int = 2, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).beta(8, 2, (count, classes))


def with_holes(dice: np.ndarray) -> np.ndarray:
    """Some cases without the last class."""
    dice = dice.copy()
    dice[::3, -1] = np.nan
    return dice


def nnunet_mean(dice: np.ndarray) -> float:
    """nnU-Net's mean, spelled out: over classes of the mean over the cases that have the class."""
    return float(np.mean([column[~np.isnan(column)].mean() for column in dice.T if not np.isnan(column).all()]))


def bca_by_hand(dice: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """Efron's formulas, with given draws."""
    whole = nnunet_mean(dice)
    replicates = np.array([nnunet_mean(dice[rows]) for rows in draws])
    below = ((replicates < whole).sum() + (replicates <= whole).sum()) / (2 * len(replicates))
    left_out = np.array([nnunet_mean(np.delete(dice, row, axis=0)) for row in range(len(dice))])
    apart = left_out.mean() - left_out
    acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    bias = norm.ppf(below)

    def end(z: float) -> float:
        share = norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        return float(np.percentile(replicates, 100 * share))

    return end(norm.ppf(0.025)), end(norm.ppf(0.975))


@pytest.mark.parametrize("dice", [random_cases(40), with_holes(random_cases(40, 3, seed=1))])
def test_the_interval_is_efrons(dice: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(dice), (20000, len(dice)))
    assert dice_interval(dice, resamples=20000) == pytest.approx(bca_by_hand(dice, draws), abs=0.0015)


def test_the_interval_is_scipys_for_one_class() -> None:
    dice = random_cases(60, 1)
    usual = bootstrap(
        (dice[:, 0],), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert dice_interval(dice) == pytest.approx((usual.low, usual.high), abs=1e-12)


def test_many_configurations_at_once_are_as_each_alone() -> None:
    dice = np.stack([with_holes(random_cases(30, seed=seed)) for seed in range(5)])
    assert dice_intervals(dice) == pytest.approx(np.array([dice_interval(one) for one in dice]), abs=1e-12)


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        (np.full((5, 2), 0.8), (0.8, 0.8)),
        (np.array([[0.8, np.nan]] * 5), (0.8, 0.8)),
        (np.zeros((3, 1)), (0.0, 0.0)),
        (np.full((1, 2), 0.8), (np.nan, np.nan)),
        (np.empty((0, 2)), (np.nan, np.nan)),
        (np.full((5, 2), np.nan), (np.nan, np.nan)),
    ],
)
def test_cases_that_agree_and_cases_that_are_missing(dice: np.ndarray, expected: tuple[float, float]) -> None:
    assert dice_interval(dice) == pytest.approx(expected, nan_ok=True)


@given(arrays.arrays(float, st.tuples(st.integers(2, 25), st.integers(1, 3)), elements=st.floats(0, 1)))
@settings(max_examples=40)
def test_an_interval_lies_within_the_range_of_the_cases_and_never_swaps_its_ends(dice: np.ndarray) -> None:
    low, high = dice_interval(dice, resamples=300)
    if not np.isnan(low):
        assert dice.min() - 1e-9 <= low <= high <= dice.max() + 1e-9


def test_coverage_is_near_95_percent_from_50_cases() -> None:
    truth, rng = 0.8, np.random.default_rng(7)
    samples = rng.beta(8, 2, (400, 52, 2))
    intervals = dice_intervals(samples, resamples=600)
    assert ((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).mean() == pytest.approx(0.95, abs=0.025)


def test_a_paired_difference_knows_that_cases_are_shared() -> None:
    easy = random_cases(60)
    better = easy + 0.01 + np.random.default_rng(3).normal(0, 0.005, easy.shape)
    low, high = difference_intervals(better[None], easy)[0]
    assert 0 < low < 0.01 + 0.003
    assert high - low < 0.1 * np.subtract(*reversed(dice_interval(easy)))
    assert difference_intervals(easy[None], easy)[0].tolist() == [0.0, 0.0]


@given(
    arrays.arrays(float, (3, 7, 2), elements=st.floats(0, 1) | st.just(float("nan"))),
    arrays.arrays(np.int64, (4, 7), elements=st.integers(0, 3)),
)
def test_the_weighted_mean_is_that_of_repeated_cases(dice: np.ndarray, weights: np.ndarray) -> None:
    found = mean_dice(dice, weights.astype(float))
    for point in range(len(dice)):
        for row, counts in enumerate(weights):
            drawn = np.repeat(dice[point], counts, axis=0)
            empty = not len(drawn) or np.isnan(drawn).all()
            expected = np.nan if empty else nnunet_mean(drawn)
            assert found[point, row] == pytest.approx(expected, nan_ok=True)


def test_points_get_intervals_from_the_cases_of_all_their_folds(tmp_path: Path) -> None:
    points = gather([make_study(tmp_path / "study", folds=(0, 1), n_cases=12).root]).points
    assert (points["n_cases"] == 24).all()
    assert (points["dice_low"] < points["dice"]).all()
    assert (points["dice"] < points["dice_high"]).all()


def test_seeds_of_a_case_are_averaged_and_folds_are_not(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for seed, dice in ((0, 0.7), (1, 0.8)):
        finish_trial(study, make_spec(seed=seed), dice=dice, seconds=9, n_cases=2)
    finish_trial(study, make_spec(fold=1), dice=0.5, seconds=9, n_cases=3)
    tables = gather([study.root]).tables
    matrix = case_matrices(tables.trials, tables.cases)["Dataset004_Hippocampus"]
    assert matrix.dice.shape == (1, 5, 2)
    first = matrix.dice[0, [case.startswith("case_0") for case in matrix.cases]]
    assert first.mean() == pytest.approx(0.75)


def test_bars_are_the_interval_or_the_range_of_the_trials() -> None:
    points = make_points(dice_low=[0.7, np.nan], dice_high=[0.8, np.nan], dice_min=[0.1, 0.6], dice_max=[0.9, 0.9])
    low, high = dice_bars(points)
    assert (low.tolist(), high.tolist()) == ([0.7, 0.6], [0.8, 0.9])


def test_a_study_without_finished_trials_has_no_cases(tmp_path: Path) -> None:
    tables = gather([Ledger.create(tmp_path / "study").root]).tables
    assert case_matrices(tables.trials, tables.cases) == {}

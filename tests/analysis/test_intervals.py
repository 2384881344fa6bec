"""Intervals of Dice: against scipy and a BCa spelled out, missing classes, one estimand, cases and trainings.

And what they hold: false positives with and without seeds, coverage with failed cases, its warnings.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from ledgers import complete, finish_trial, make_result, make_spec, sample_of, start_trial
from scipy.stats import bootstrap, norm

from analysis.comparison.compare import compare
from analysis.fronts.captions import interval_cautions
from analysis.statistics.case_dice import CaseDice, case_matrices, mean_dice
from analysis.statistics.intervals import (
    Estimates,
    cautions,
    estimate,
    skewness,
    training_sd,
    unseen_failures,
)
from analysis.statistics.study_results import gather
from study.store.ledger import Ledger


def mean_of(dice: np.ndarray, **settings: int) -> Estimates:
    """The estimate of the mean of one training's cases × classes."""
    return estimate(sample_of(dice[None]), np.ones((1, 1)), **settings)


def dice_interval(dice: np.ndarray, **settings: int) -> tuple[float, float]:
    found = mean_of(dice, **settings)
    return found.low[0], found.high[0]


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
    names = [f"p{n}" for n in range(5)]
    sample = sample_of(dice, points=names)
    together = estimate(sample, sample.averages(names))
    assert np.column_stack([together.low, together.high]) == pytest.approx(np.array([dice_interval(d) for d in dice]))


def test_the_error_over_cases_is_the_textbooks() -> None:
    dice = random_cases(30, 1)
    assert mean_of(dice).error[0] == pytest.approx(dice.std(ddof=1) / np.sqrt(30))


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


def test_a_paired_difference_knows_that_cases_are_shared() -> None:
    easy = random_cases(60)
    better = easy + 0.01 + np.random.default_rng(3).normal(0, 0.005, easy.shape)
    sample = sample_of(np.stack([easy, better, easy]), points=["a", "b", "c"])
    found = estimate(sample, sample.averages(["b", "c"]) - sample.averages(["a"]))
    assert 0 < found.low[0] < 0.01 + 0.003
    assert found.high[0] - found.low[0] < 0.1 * np.subtract(*reversed(dice_interval(easy)))
    assert (found.low[1], found.high[1], found.error[1]) == (0.0, 0.0, 0.0)


def unequal_folds() -> CaseDice:
    """Two seeds in a fold of 12 cases, one in a fold of 5, a class missing in some cases."""
    dice = np.full((3, 17, 2), np.nan)
    dice[:2, :12] = with_holes(random_cases(24, seed=4)).reshape(2, 12, 2)
    dice[2, 12:] = with_holes(random_cases(5, seed=5)) - 0.3
    return sample_of(dice, folds=[0, 0, 1])


def test_folds_weigh_the_same_whatever_their_cases_and_seeds() -> None:
    sample = unequal_folds()
    found = estimate(sample, sample.averages(["p"]))
    means = [nnunet_mean(one) for one in (sample.dice[0, :12], sample.dice[1, :12], sample.dice[2, 12:])]
    assert found.mean[0] == pytest.approx((np.mean(means[:2]) + means[2]) / 2)
    assert found.low[0] < found.mean[0] < found.high[0]


def test_scatter_of_trainings_is_that_within_folds() -> None:
    sample = unequal_folds()
    means = [nnunet_mean(sample.dice[row, :12]) for row in (0, 1)]
    assert training_sd(sample) == pytest.approx(np.std(means, ddof=1))
    found = estimate(sample, sample.averages(["p"]))
    # Weights 1/4, 1/4 and 1/2 of independent trainings.
    assert found.training_error[0] == pytest.approx(np.std(means, ddof=1) * np.sqrt(1 / 16 + 1 / 16 + 1 / 4))
    assert found.error[0] == pytest.approx(np.hypot(found.training_error[0], found.case_error[0]))
    assert np.isnan(training_sd(sample_of(sample.dice[1:], folds=[0, 1])))


def test_copies_of_a_training_are_no_second_training(tmp_path: Path) -> None:
    studies = [Ledger.create(tmp_path / name) for name in ("one", "other")]
    for study in studies:
        finish_trial(study, make_spec(), dice=0.8, seconds=9, n_cases=9)
    point = gather([study.root for study in studies]).points.iloc[0]
    assert (point["n_trials"], point["n_seeds"]) == (2, 1)
    assert np.isnan(point["training_sd"])


@pytest.mark.parametrize("unequal", [False, True])
def test_one_estimand_everywhere(unequal: bool, tmp_path: Path) -> None:
    """Table of points, interval, comparison: folds of 30 and 8 cases, three seeds and one, classes that are missing."""
    study = Ledger.create(tmp_path / "study")
    trials = [(0, 0, 30), (0, 1, 30), (0, 2, 30), (1, 0, 8)] if unequal else [(0, 0, 20), (1, 0, 20)]
    expected: dict[str, dict[int, list[float]]] = {}
    for scheme, dice in (("cps", 0.7), ("pgps", 0.72)):
        for fold, seed, cases in trials:
            spec = make_spec(scheme, fold=fold, seed=seed)
            spread = with_holes(random_cases(cases, seed=fold + 10 * seed + 100 * len(scheme)) - 0.1 + dice / 10)
            by_class = {f"{fold}_{n}": {"1": row[0], "2": row[1]} for n, row in enumerate(spread.tolist())}
            result = replace(
                make_result(spec, nnunet_mean(spread)),
                dice_per_class={label: float(np.nanmean(spread[:, n])) for n, label in enumerate(("1", "2"))},
                dice_per_case={case: float(np.nanmean(list(row.values()))) for case, row in by_class.items()},
                dice_per_case_and_class=by_class,
            )
            complete(start_trial(study, spec, seconds=9), result)
            expected.setdefault(scheme, {}).setdefault(fold, []).append(result.dice)
    results = gather([study.root])
    row = compare(results).rows.iloc[0]
    for scheme, name in (("cps", "baseline_dice"), ("pgps", "against_dice")):
        point = results.points.set_index("method").loc[scheme]
        assert point["dice"] == pytest.approx(np.mean([np.mean(fold) for fold in expected[scheme].values()]))
        assert point["dice_low"] < point["dice"] < point["dice_high"]
        assert row[name] == pytest.approx(point["dice"])
    assert row["dice_difference"] == pytest.approx(row["against_dice"] - row["baseline_dice"])
    assert row["difference_low"] < row["dice_difference"] < row["difference_high"]
    assert row["covers"] == ("cases and trainings" if unequal else "cases")


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


def test_seeds_share_the_weight_of_their_fold(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for seed, dice in ((0, 0.7), (1, 0.8)):
        finish_trial(study, make_spec(seed=seed), dice=dice, seconds=9, n_cases=2)
    finish_trial(study, make_spec(fold=1), dice=0.5, seconds=9, n_cases=3)
    tables = gather([study.root]).tables
    matrix = case_matrices(tables)["Dataset004_Hippocampus"]
    assert matrix.dice.shape == (3, 5, 2)
    assert matrix.averages([matrix.point_ids[0]]).tolist() == [[0.25, 0.25, 0.5]]


def test_a_study_without_finished_trials_has_no_cases(tmp_path: Path) -> None:
    tables = gather([Ledger.create(tmp_path / "study").root]).tables
    assert case_matrices(tables) == {}


CASES, CASE_SD, TRAINING_SD, COMPARISONS = 104, 0.03, 0.004, 1000


def false_positives(seeds: int) -> float:
    """Share of comparisons without a true difference that come out below 5 %, one-sided."""
    rng = np.random.default_rng(seeds)
    cases = rng.normal(0, CASE_SD / np.sqrt(2), (2 * COMPARISONS, CASES))
    trainings = np.repeat(cases, seeds, axis=0) + rng.normal(0, TRAINING_SD, (2 * COMPARISONS * seeds, 1))
    names = [f"{side}{n}" for n in range(COMPARISONS) for side in "ab"]
    sample = sample_of(trainings, points=list(np.repeat(names, seeds)))
    found = estimate(sample, sample.averages(names[1::2]) - sample.averages(names[::2]), resamples=1)
    return float(np.mean([found.p(n, above=True) < 0.05 for n in range(COMPARISONS)]))


@pytest.mark.parametrize(("seeds", "expected"), [(1, 0.22), (2, 0.05), (3, 0.05), (5, 0.05)])
def test_false_positives_where_trainings_scatter(seeds: int, expected: float) -> None:
    # Standard error of the share: 0.007 of 5 %, 0.013 of 22 %.
    assert false_positives(seeds) == pytest.approx(expected, abs=0.035 if seeds == 1 else 0.02)


def with_failures(share: float, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Samples × cases: beta-distributed Dice of mean 0.85, a share of them 0."""
    return np.where(rng.random(size) < share, 0.0, rng.beta(17, 3, size))


def intervals(samples: np.ndarray) -> Estimates:
    """Each sample is a configuration of its own on as many cases."""
    names = [f"p{n}" for n in range(len(samples))]
    sample = sample_of(samples, points=names)
    return estimate(sample, sample.averages(names), resamples=1000)


@pytest.mark.parametrize(
    ("share", "cases", "expected"), [(0.05, 26, 0.785), (0.05, 52, 0.91), (0.0, 26, 0.93), (0.0, 52, 0.945)]
)
def test_coverage_with_and_without_failed_cases(share: float, cases: int, expected: float) -> None:
    samples = with_failures(share, (1500, cases), np.random.default_rng(5))
    found, truth = intervals(samples), 0.85 * (1 - share)
    covered = (found.low <= truth) & (truth <= found.high)
    assert covered.mean() == pytest.approx(expected, abs=0.025)


def test_what_is_in_the_cases_is_warned_about() -> None:
    rng = np.random.default_rng(6)
    failing, sound = (with_failures(share, (400, 104), rng) for share in (0.05, 0.0))
    # Of 104 cases nearly every sample has a failed one, and none is called sound because of its number.
    assert np.mean([bool(cautions(104, skewness(row))) for row in failing]) > 0.98
    assert np.mean([bool(cautions(104, skewness(row))) for row in sound]) < 0.02
    # Near-failures and outliers are the same to it as zeros.
    outlier = np.append(rng.beta(17, 3, 103), 0.04)
    assert "cases too skewed for their number (104 where " in cautions(104, skewness(outlier), 0)[0]
    assert "1 case with Dice 0" in cautions(104, skewness(np.append(outlier[:-1], 0.0)), 1)[0]
    assert cautions(20, 0.0) == ["fewer than 50 cases (20)"]


def test_what_no_case_shows() -> None:
    # The rule of three, exactly: (1 - share)^n = 0.05.
    assert unseen_failures(26) == pytest.approx(0.109, abs=0.001)
    assert skewness([0.8] * 9) == 0
    assert np.isnan(skewness([0.8, 0.9]))


def test_what_is_said_of_several_intervals_is_of_the_worst_whatever_their_order() -> None:
    points = pd.DataFrame(
        {"n_cases": [60, 4, 4, 4], "case_skewness": [0.0, -0.5, -2.0, float("nan")], "n_zero_cases": [0, 1, 0, 0]}
    )
    said = [list(interval_cautions(points.iloc[order])) for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1])]
    assert said[0] == said[1] == said[2]
    assert said[0][0].startswith("Less than 95 % is covered by 3 of 4 intervals, at worst: fewer than 50 cases (4); ")
    assert "(4 where 100 are asked for)" in said[0][0]

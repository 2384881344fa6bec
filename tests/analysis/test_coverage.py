"""What intervals and tests hold: false positives with and without seeds, coverage with failed cases, its warnings."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.statistics.case_dice import CaseDice
from analysis.statistics.intervals import Estimates, cautions, estimate, skewness, unseen_failures

CASES, CASE_SD, TRAINING_SD, COMPARISONS = 104, 0.03, 0.004, 1000


def made_up(dice: np.ndarray, points: list[str]) -> CaseDice:
    """Trainings × cases of one fold and class."""
    return CaseDice(
        point_ids=np.array(points, dtype=object),
        folds=np.zeros(len(dice), dtype=int),
        cases=tuple(map(str, range(dice.shape[1]))),
        labels=("1",),
        dice=dice[:, :, None],
        seen=np.ones(dice.shape, dtype=bool),
    )


def false_positives(seeds: int) -> float:
    """Share of comparisons without a true difference that come out below 5 %, one-sided."""
    rng = np.random.default_rng(seeds)
    cases = rng.normal(0, CASE_SD / np.sqrt(2), (2 * COMPARISONS, CASES))
    trainings = np.repeat(cases, seeds, axis=0) + rng.normal(0, TRAINING_SD, (2 * COMPARISONS * seeds, 1))
    names = [f"{side}{n}" for n in range(COMPARISONS) for side in "ab"]
    sample = made_up(trainings, list(np.repeat(names, seeds)))
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
    sample = made_up(samples, names)
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

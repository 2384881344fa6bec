"""Paired statistics against scipy, worked examples by hand, and properties that hold for any differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics.tests import (
    error_of_difference,
    holm,
    paired_statistics,
    rank_biserial,
    signed_rank_p,
    smallest_difference,
    too_few,
)
from study.common.errors import InvalidInputError

SOME = np.random.default_rng(3).normal(0.01, 0.05, 30)
differences = st.lists(st.floats(-1, 1).map(lambda d: round(d, 3)), min_size=1, max_size=60)


def test_signed_rank_is_scipys() -> None:
    for alternative in ("greater", "less"):
        assert signed_rank_p(SOME, alternative=alternative) == stats.wilcoxon(SOME, alternative=alternative).pvalue


def test_signed_rank_by_hand() -> None:
    # Ranks 1 to 4, only the smallest is negative: W+ = 9 of 10. Two of the 16 sign patterns reach that.
    assert signed_rank_p([-0.01, 0.02, 0.03, 0.04]) == pytest.approx(2 / 16)


def test_ties_are_left_out_of_the_ranking_and_counted() -> None:
    result = paired_statistics([0.0, 0.0, 0.02, 0.03, 0.04])
    assert (result.n, result.n_zero) == (5, 2)
    assert result.p == pytest.approx(1 / 8)
    assert result.median == pytest.approx(0.02)


def test_equal_up_to_rounding_is_equal() -> None:
    assert paired_statistics([0.1 + 0.2 - 0.3, 0.5]).n_zero == 1
    assert signed_rank_p([0.0, 1e-14]) == 1.0


def test_rank_biserial_by_hand() -> None:
    # Ranks 1, 2, 3 of 0.1, -0.2, 0.3: (1 - 2 + 3) / 6.
    assert rank_biserial([0.1, -0.2, 0.3]) == pytest.approx(1 / 3)
    assert rank_biserial([0.1, 0.2]) == 1
    assert rank_biserial([0.0, 0.0]) == 0


@pytest.mark.parametrize(("training_sd", "expected"), [(0.0, 0.0073), (0.004, 0.0159)])
def test_the_smallest_difference_of_104_cases_with_sd_of_3_points(training_sd: float, expected: float) -> None:
    error = error_of_difference(case_sd=0.03, cases=104, training_sd=training_sd)
    assert smallest_difference(error) == pytest.approx(expected, abs=5e-5)


def test_the_smallest_difference_is_found_in_four_studies_of_five() -> None:
    error, rng = 0.004, np.random.default_rng(1)
    found = rng.normal(smallest_difference(error), error, 20000) / error > stats.norm.isf(0.05)
    assert found.mean() == pytest.approx(0.8, abs=0.01)
    # Error with 4 degrees of freedom: estimated from five values.
    samples = rng.normal(smallest_difference(error, freedom=4), error * math.sqrt(5), (20000, 5))
    p = stats.ttest_1samp(samples, 0, axis=1, alternative="greater").pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_holm_worked_example() -> None:
    # m = 4: 0.005·4, 0.01·3, then max(0.03·2, …), 0.04·1 held up to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_holm_does_not_count_what_was_not_tested() -> None:
    adjusted = holm([0.01, math.nan, 0.02])
    assert math.isnan(adjusted[1])
    assert [adjusted[0], adjusted[2]] == pytest.approx([0.02, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_stepping_down_rejects(p: list[float]) -> None:
    adjusted = holm(p)
    order = sorted(range(len(p)), key=lambda index: p[index])
    rejected = True
    for step, index in enumerate(order):
        rejected = rejected and p[index] * (len(p) - step) <= 0.05
        assert (adjusted[index] <= 0.05) == rejected
    assert all(p[index] <= adjusted[index] <= 1 for index in order)


@settings(max_examples=25)
@given(differences)
def test_both_directions_mirror_each_other(d: list[float]) -> None:
    up, down = paired_statistics(d), paired_statistics([-x for x in d], alternative="less")
    assert up.p == pytest.approx(down.p)
    assert up.effect_size == pytest.approx(-down.effect_size)
    assert up.median == pytest.approx(-down.median)
    assert up.p >= up.smallest_p - 1e-12 or len(d) - up.n_zero > 50 or len(set(map(abs, d))) < len(d)


def test_no_and_single_differences() -> None:
    none = paired_statistics([])
    assert none.n == 0
    assert all(math.isnan(v) for v in (none.median, none.p, none.effect_size))
    assert too_few(none) == ["no paired case: no p value, no effect size, no interval"]
    one = paired_statistics([0.1])
    assert (one.p, one.smallest_p) == (0.5, 0.5)


def test_too_few_cases_are_said() -> None:
    four = too_few(paired_statistics([0.1, 0.2, 0.3, 0.4]))
    assert four[0].startswith("only 4 cases that differ: the smallest p is 0.062, so the test cannot reach 0.05")
    assert "can barely reach" in too_few(paired_statistics([0.1, 0.2, 0.3, 0.4, 0.5]))[0]
    assert too_few(paired_statistics(np.arange(1, 10))) == []


def test_wrong_input_is_one_line() -> None:
    with pytest.raises(InvalidInputError, match="differences: received '1 not finite', legal is finite numbers"):
        paired_statistics([0.1, math.nan])
    with pytest.raises(InvalidInputError, match="legal is one of greater, less"):
        paired_statistics([0.1], alternative="two-sided")  # type: ignore[arg-type]

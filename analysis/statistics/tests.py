"""Statistics of two methods on the same cases: signed-rank test, Holm, effect size, smallest difference to be seen.

The test rests on one list of numbers: per validation case, Dice of the one method minus Dice of the baseline. Positive
means above the baseline. The mean difference itself, its error and interval are `intervals.estimate`'s.

- Test: Wilcoxon's signed-rank test, one-sided, on differences rounded to 1e-12 (so that equal values stay equal).
  Differences of 0 are left out of the ranking (Wilcoxon's own rule) and counted. It is about cases: with one training
  of either method it says nothing of what others would have given.
- Several comparisons: Holm's step-down correction of their p values.
- Effect size: matched-pairs rank-biserial correlation, (W+ - W-) / (W+ + W-), from -1 to 1 (Kerby 2014).
- Probability of false outperformance: that the mean difference is not truly above 0 although it was in the sample
  (Christodoulou et al. 2025, arXiv 2505.04720). With a non-informative prior on mean and variance of normally
  distributed differences, it is the one-sided p value of Student's t, `intervals.Estimates.p`.
- Smallest difference: what a one-sided test at 5 % finds in 80 % of studies like this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from study.common.errors import InvalidInputError, check_choice

Alternative = Literal["greater", "less"]
ALTERNATIVES: tuple[Alternative, ...] = ("greater", "less")
SIGNIFICANT = 0.05
POWER = 0.8
DECIMALS = 12
ZERO_METHOD: Literal["wilcox"] = "wilcox"
"""Differences of 0 are dropped before ranking; `PairedStatistics.n_zero` counts them."""


@dataclass(frozen=True, kw_only=True)
class PairedStatistics:
    """What paired differences say. A value that their number does not allow is NaN.

    Attributes:
        alternative: of the test: the differences are `greater` or `less` than 0.
        n: differences.
        n_zero: those of exactly 0, which the test leaves out.
        median: of the differences.
        effect_size: matched-pairs rank-biserial correlation; 0 if all differences are 0.
        p: of the one-sided signed-rank test; 1 if all differences are 0.
        smallest_p: that this many non-zero differences could have given.
    """

    alternative: Alternative
    n: int
    n_zero: int
    median: float
    effect_size: float
    p: float
    smallest_p: float


def paired_statistics(differences: ArrayLike, *, alternative: Alternative = "greater") -> PairedStatistics:
    """Statistics of paired differences.

    Args:
        differences: one per case, method minus baseline, finite.
        alternative: whether the claim is that the method is above (`greater`) or below (`less`) the baseline.

    Raises:
        InvalidInputError: a difference is not finite, or an unknown alternative.
    """
    check_choice("alternative", alternative, ALTERNATIVES)
    d = _rounded(differences)
    n, n_zero = len(d), int((d == 0).sum())
    return PairedStatistics(
        alternative=alternative,
        n=n,
        n_zero=n_zero,
        median=float(np.median(d)) if n else np.nan,
        effect_size=rank_biserial(d),
        p=signed_rank_p(d, alternative=alternative),
        smallest_p=0.5 ** (n - n_zero),
    )


def signed_rank_p(differences: ArrayLike, *, alternative: Alternative = "greater") -> float:
    """The p value of Wilcoxon's one-sided signed-rank test; NaN without differences, 1 if all of them are 0.

    It is exact up to 50 differences without ties, otherwise scipy's normal approximation.
    """
    from scipy.stats import wilcoxon

    d = _rounded(differences)
    if len(d) == 0:
        return float("nan")
    if not d.any():
        return 1.0
    return float(wilcoxon(d[d != 0], alternative=alternative, zero_method=ZERO_METHOD).pvalue)


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation: 1 if every case gained, -1 if every one lost; NaN without any."""
    from scipy.stats import rankdata

    d = _rounded(differences)
    if len(d) == 0:
        return float("nan")
    moved = d[d != 0]
    ranks = rankdata(np.abs(moved))
    return float((np.sign(moved) * ranks).sum() / ranks.sum()) if len(moved) else 0.0


def smallest_difference(error: float, *, freedom: float = np.inf) -> float:
    """The smallest true difference that a one-sided test at 5 % finds with a probability of 80 %.

    Args:
        error: standard error of the difference.
        freedom: degrees of freedom of that error; with few of them the quantiles are Student's, a close approximation.
    """
    from scipy.stats import t

    return float((t.isf(SIGNIFICANT, freedom) + t.isf(1 - POWER, freedom)) * error)


def error_of_difference(*, case_sd: float, cases: int, training_sd: float = 0.0, trainings: int = 1) -> float:
    """Standard error of a mean difference.

    Args:
        case_sd: SD over cases of their differences.
        cases: how many.
        training_sd: SD between trainings of one method that differ in the seed alone; the same for both methods.
        trainings: of each method.
    """
    return float(np.sqrt(case_sd**2 / cases + 2 * training_sd**2 / trainings))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given; NaN stays NaN and does not count as a test.

    The i-th smallest of m is multiplied by m - i + 1, then made no smaller than those before it and at most 1.
    """
    p = np.asarray(p_values, dtype=float)
    order = [index for index in np.argsort(p, kind="stable") if not np.isnan(p[index])]
    adjusted = np.full(len(p), np.nan)
    stepped = p[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return [float(value) for value in adjusted]


def too_few(statistics: PairedStatistics) -> list[str]:
    """Sentences about what the number of cases does not allow the test."""
    if statistics.n == 0:
        return ["no paired case: no p value, no effect size, no interval"]
    sentences = []
    moved = statistics.n - statistics.n_zero
    if moved < 6:
        reach = "cannot reach" if statistics.smallest_p >= SIGNIFICANT else "can barely reach"
        sentences.append(
            f"only {moved} cases that differ: the smallest p is {statistics.smallest_p:.2g}, "
            f"so the test {reach} {SIGNIFICANT:g}"
        )
    return sentences


def _rounded(differences: ArrayLike) -> NDArray[np.float64]:
    d = np.round(np.asarray(differences, dtype=float).ravel(), DECIMALS)
    if not np.isfinite(d).all():
        bad = int((~np.isfinite(d)).sum())
        remedy = "leave out the cases without Dice and count them"
        raise InvalidInputError(
            field="differences", received=f"{bad} not finite", legal="finite numbers", remedy=remedy
        )
    return d

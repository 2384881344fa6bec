"""Statistics of two methods on the same cases: signed-rank test, Holm, effect size, probability of a false claim.

Everything rests on one list of numbers: per validation case, Dice of the one method minus Dice of the baseline.
Positive means above the baseline.

- Test: Wilcoxon's signed-rank test, one-sided, on differences rounded to 1e-12 (so that equal values stay equal).
  Differences of 0 are left out of the ranking (Wilcoxon's own rule) and counted.
- Several tasks: Holm's step-down correction of the p values of the same question on each task.
- Effect size: matched-pairs rank-biserial correlation, (W+ - W-) / (W+ + W-), from -1 to 1 (Kerby 2014).
- Probability of false outperformance: that the mean difference of all cases like these is not above 0 although it was
  in the sample (Christodoulou et al. 2025, arXiv 2505.04720). With a non-informative prior on mean and variance of
  normally distributed differences, the mean's posterior is Student's t with n - 1 degrees of freedom around the
  sample mean, scaled by the standard error. It assumes independent cases, and does not know that another seed or
  another training set would give other differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.intervals import FEW_CASES, dice_interval
from study.checks import check_choice
from study.errors import InvalidInputError

Alternative = Literal["greater", "less"]
ALTERNATIVES: tuple[Alternative, ...] = ("greater", "less")
SIGNIFICANT = 0.05
DECIMALS = 12
ZERO_METHOD: Literal["wilcox"] = "wilcox"
"""Differences of 0 are dropped before ranking; `PairedStatistics.n_zero` counts them."""


@dataclass(frozen=True, kw_only=True)
class PairedStatistics:
    """What paired differences say. A value that their number does not allow is NaN.

    Attributes:
        alternative: of the test and of `false_outperformance`: the mean is `greater` or `less` than 0.
        n: differences.
        n_zero: those of exactly 0, which the test leaves out.
        mean: of the differences.
        median: of the differences.
        standard_error: of the mean.
        low: lower end of the 95 % BCa bootstrap interval of the mean.
        high: upper end of the same.
        effect_size: matched-pairs rank-biserial correlation; 0 if all differences are 0.
        p: of the one-sided signed-rank test; 1 if all differences are 0.
        smallest_p: that this many non-zero differences could have given.
        false_outperformance: probability that the claim of `alternative` about the mean is wrong.
    """

    alternative: Alternative
    n: int
    n_zero: int
    mean: float
    median: float
    standard_error: float
    low: float
    high: float
    effect_size: float
    p: float
    smallest_p: float
    false_outperformance: float


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
    low, high = dice_interval(d[:, None])
    return PairedStatistics(
        alternative=alternative,
        n=n,
        n_zero=n_zero,
        mean=float(d.mean()) if n else np.nan,
        median=float(np.median(d)) if n else np.nan,
        standard_error=_standard_error(d),
        low=low,
        high=high,
        effect_size=rank_biserial(d),
        p=signed_rank_p(d, alternative=alternative),
        smallest_p=0.5 ** (n - n_zero),
        false_outperformance=false_outperformance(d, alternative=alternative),
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


def false_outperformance(differences: ArrayLike, *, alternative: Alternative = "greater") -> float:
    """Probability that the mean difference is not truly above 0 (`greater`) or below 0 (`less`), given the sample.

    Student's t with n - 1 degrees of freedom, as the module says. NaN for fewer than two differences. If all of them
    are the same, the posterior is a point: 0 or 1.
    """
    from scipy.stats import t

    d = _rounded(differences) * (1 if alternative == "greater" else -1)
    if len(d) < 2:
        return float("nan")
    error = _standard_error(d)
    if error == 0:
        return float(d.mean() <= 0)
    return float(t.cdf(-d.mean() / error, df=len(d) - 1))


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
    """Sentences about what the number of cases does not allow; none from 50 cases on."""
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
    if statistics.n < FEW_CASES:
        sentences.append(f"fewer than {FEW_CASES} cases: the 95 % interval is too narrow")
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


def _standard_error(d: NDArray[np.float64]) -> float:
    if len(d) < 2:
        return float("nan")
    # All the same is exactly 0, which the rounding of the mean would hide.
    return 0.0 if np.ptp(d) == 0 else float(d.std(ddof=1) / np.sqrt(len(d)))

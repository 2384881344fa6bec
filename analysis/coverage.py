"""What a 95 % interval of a mean over cases rests on, and the cases with which it holds the truth less often.

A few cases with a Dice near 0 decide the mean and its interval, and how many a sample has is chance. Of intervals from
populations in which 5 % of the cases have Dice 0 (the others beta-distributed, mean 0.85), BCa holds the true mean in
78 % of samples of 26 cases and in 91 % of 52; without such cases in 93 to 95 %. So samples are judged by what is in
them: by their number, and by Cochran's rule (Sampling Techniques, 1977, 2.15) that n should exceed 25 times the squared
skewness. A sample without a failed case cannot show that there are none: of n cases without one, up to 1 - 0.05^(1/n)
of the population may fail (95 %).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from analysis.units import counted

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

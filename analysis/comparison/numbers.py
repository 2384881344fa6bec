"""Numbers of a comparison for people: ratios in per cent, differences with their sign, p values."""

from __future__ import annotations

import pandas as pd

from analysis.tables import MISSING

# Below this, p values and probabilities are printed as a bound.
_SMALLEST_SHOWN = 0.001
# Differences of Dice below this are 0.0000 and have no sign.
_SMALLEST_DIFFERENCE = 5e-5


def percent(value: float, decimals: int = 1) -> str:
    """A ratio as `46.1 %`, a dash where it is missing."""
    return MISSING if pd.isna(value) else f"{100 * value:.{decimals}f} %"


def budget_words(value: float) -> str:
    """A budget as `25 %`."""
    return percent(value, 0)


def dice(value: float) -> str:
    """A Dice to four decimals."""
    return MISSING if pd.isna(value) else f"{value:.4f}"


def signed(value: float) -> str:
    """A difference of Dice with its sign, four decimals; zero has none."""
    if pd.isna(value):
        return MISSING
    return f"{value:+.4f}" if abs(value) >= _SMALLEST_DIFFERENCE else "0.0000"


def probability(value: float) -> str:
    """A p value or probability: three decimals, or a bound."""
    if pd.isna(value):
        return MISSING
    return f"< {_SMALLEST_SHOWN:g}" if value < _SMALLEST_SHOWN else f"{value:.3f}"

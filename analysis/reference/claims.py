"""What a publication's text says about its own table, checked by the code that compares trials."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.comparison import compare
from analysis.methods import METHOD_LABELS
from analysis.reference import claims_of, load

# Quantities of claims.csv in words; those in per cent, and the count.
_WORDS = {
    "runtime_ratio": "runtime",
    "voxel_ratio": "voxels",
    "co2_ratio": "CO₂",
    "dice_gain_where_higher": "gain of Dice where higher",
    "dice_loss_where_lower": "loss of Dice where lower",
    "tasks_higher": "tasks with a higher Dice",
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A number of the text beside what its table gives.

    Attributes:
        method: scheme; quantity: in words.
        printed: as in the text.
        computed: from the table, with as many decimals.
    """

    method: str
    quantity: str
    printed: str
    computed: str

    @property
    def holds(self) -> bool:
        """Whether the text's number follows from the table, to its last digit."""
        return self.printed == self.computed


def check_claims(name: str) -> list[Claim]:
    """Every claim of a publication about its Table 1, computed again.

    Raises:
        InvalidInputError: an unknown name.
    """
    stated = claims_of(name)
    summary = compare(load(name), against=list(dict.fromkeys(stated["method"]))).summary
    computed = {row["against"]: row for _, row in summary.iterrows()}
    return [_claim(row, computed[METHOD_LABELS[row["method"]]]) for _, row in stated.iterrows()]


def contradictions(name: str) -> list[str]:
    """A sentence per claim that does not follow from the table."""
    return [
        f"{name}: the text gives {claim.method} {claim.quantity} {claim.printed}, its Table 1 gives {claim.computed}."
        for claim in check_claims(name)
        if not claim.holds
    ]


def _claim(stated: pd.Series[str], summary: pd.Series[float]) -> Claim:
    quantity, unit = stated["quantity"], stated["unit"]
    if unit:
        values = [f"{_rounded(stated[end], 100 * summary[f'{quantity}_{end}'])} {unit}" for end in ("mean", "sd")]
        printed, computed = f"{stated['mean']} {unit} ± {stated['sd']} {unit}", " ± ".join(values)
    else:
        printed, computed = stated["mean"], str(summary[quantity])
    return Claim(method=METHOD_LABELS[stated["method"]], quantity=_WORDS[quantity], printed=printed, computed=computed)


def _rounded(printed: str, value: float) -> str:
    """A value with as many decimals as the printed one."""
    decimals = len(printed.partition(".")[2])
    return f"{value:.{decimals}f}"

"""From comparisons to ranks: a case's value is its mean similarity to what it was compared to, rank 1 is the smallest.

Most dissimilar means a high MSE, and a low PSNR, SSIM or UQI. `mean-rank` is the mean of the ranks by MSE, SSIM and
UQI, in which cases of equal value share the mean of their ranks; PSNR is left out because it repeats the MSE. A case
without a value cannot be called dissimilar: it comes last. Equal cases are ordered by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from study.curriculum.data_curriculum import METRICS
from study.ranking.files import MEAN_RANK, MEASURES, CasePair, RankedCase, Values

RANKED_TOGETHER = ("mse", "ssim", "uqi")
# High values of these, and low values of the others, mean dissimilar.
_HIGH_IS_DISSIMILAR = ("mse",)


def ranked(
    placed: Mapping[str, tuple[str, str]], pairs: Sequence[CasePair], *, both_sides: bool = True
) -> tuple[RankedCase, ...]:
    """The rows of a ranking, by metric in the order of `METRICS`, then by rank.

    Args:
        placed: training case -> how it came onto the common grid, and why; see `RankedCase.registration`.
        pairs: all comparisons; a case's value is the mean over those that are its own and have a value.
        both_sides: whether a comparison is its second case's too, or the first's alone.
    """
    values = {measure: _means(placed, pairs, measure, both_sides) for measure in MEASURES}
    values[MEAN_RANK] = _mean_ranks(values)
    rows = []
    for metric in METRICS:
        for rank, case in enumerate(_ordered(metric, values[metric]), start=1):
            registration, reason = placed[case]
            value = values[metric][case]
            undefined = _why_undefined(case, metric, pairs) if value is None else ""
            reason = "; ".join(filter(None, (reason, undefined)))
            row = RankedCase(case=case, metric=metric, value=value, rank=rank, registration=registration, reason=reason)
            rows.append(row)
    return tuple(rows)


def _means(cases: Iterable[str], pairs: Iterable[CasePair], measure: str, both_sides: bool) -> Values:
    found: dict[str, list[float]] = {case: [] for case in cases}
    for pair in pairs:
        value = pair.values[measure]
        if value is not None:
            for case in (pair.first, pair.second) if both_sides else (pair.first,):
                found[case].append(value)
    # Exactly rounded sums do not depend on the order of the pairs.
    return {case: math.fsum(values) / len(values) if values else None for case, values in found.items()}


def _mean_ranks(values: Mapping[str, Values]) -> Values:
    """Mean of ranks in which cases of equal value share the mean of theirs; None without any value."""
    ranks: dict[str, list[float]] = {case: [] for case in values[MEASURES[0]]}
    for metric in RANKED_TOGETHER:
        places: dict[float, list[int]] = {}
        for rank, case in enumerate(_ordered(metric, values[metric]), start=1):
            places.setdefault(_key(metric, values[metric][case]), []).append(rank)
        for case, value in values[metric].items():
            ranks[case].append(fmean(places[_key(metric, value)]))
    defined = {case for metric in RANKED_TOGETHER for case, value in values[metric].items() if value is not None}
    return {case: fmean(found) if case in defined else None for case, found in ranks.items()}


def _ordered(metric: str, values: Values) -> list[str]:
    return sorted(values, key=lambda case: (_key(metric, values[case]), case))


def _key(metric: str, value: float | None) -> float:
    """Smaller is more dissimilar; undefined is largest."""
    if value is None:
        return math.inf
    return -value if metric in _HIGH_IS_DISSIMILAR else value


def _why_undefined(case: str, metric: str, pairs: Iterable[CasePair]) -> str:
    measure = RANKED_TOGETHER[0] if metric == MEAN_RANK else metric
    reasons = (pair.reasons[measure] for pair in pairs if case in (pair.first, pair.second) and measure in pair.reasons)
    return f"{metric} undefined: {next(reasons, 'compared to nothing')}"

"""Methods against a baseline over all datasets and budgets of some studies, or of a publication, by the same code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from analysis.comparison.equal_cost import equal_cost
from analysis.comparison.measure import Finished, measure
from analysis.comparison.pairs import BASELINE, RATIOS, ROW_COLUMNS, SUMMARY_COLUMNS, find_pairs, methods_of, percent
from analysis.statistics.study_results import StudyResults
from analysis.statistics.tests import ALTERNATIVES, SIGNIFICANT, Alternative, holm
from analysis.tables.columns import Column, dtypes
from analysis.tables.methods import METHOD_LABELS
from study.common.errors import MissingDataError, check_choice

# What a mean over tasks is over.
_TASKS = ["source", "baseline", "against", "budget"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows and their means over tasks.

    Attributes:
        baseline: name for people.
        alternative: of the tests.
        rows: in the columns of `pairs.ROW_COLUMNS`, by dataset, budget and method.
        summary: in the columns of `pairs.SUMMARY_COLUMNS`, by budget and method.
        equal_cost: as `equal_cost.equal_cost` gives it.
        ambiguous: a sentence per scheme that several configurations fit; those are not compared.
        missing: a sentence per scheme without a partner.
        foreground: a sentence on shares of foreground-centred samples that differ, or nothing.
    """

    baseline: str
    alternative: Alternative
    rows: pd.DataFrame
    summary: pd.DataFrame
    equal_cost: pd.DataFrame
    ambiguous: tuple[str, ...]
    missing: tuple[str, ...]
    foreground: str

    def with_rows(self) -> Self:
        """The same.

        Raises:
            MissingDataError: it has no row.
        """
        if self.rows.empty:
            reasons = [*self.ambiguous, *self.missing] or ["no finished trial of two schemes"]
            raise MissingDataError(f"nothing to compare: {'; '.join(reasons)}")
        return self


def compare(
    results: StudyResults,
    *,
    baseline: str = BASELINE,
    against: Sequence[str] | None = None,
    alternative: Alternative = "greater",
) -> Comparison:
    """Each of some methods against a baseline.

    Args:
        results: studies, or a publication as `reference.load` gives it.
        baseline: a scheme such as `cps`, or the id of a configuration or trial.
        against: likewise; None is every published scheme with a finished trial.
        alternative: `greater` tests whether a method is above the baseline, `less` whether it is below.

    Raises:
        InvalidInputError: a word that names nothing, or several configurations; an unknown alternative.
    """
    check_choice("alternative", alternative, ALTERNATIVES)
    words = [m for m in methods_of(results.points) if m != baseline] if against is None else against
    matches = find_pairs(results.points, baseline, words)
    finished = Finished(results)
    rows = _frame([measure(pair, finished, alternative=alternative) for pair in matches.pairs], ROW_COLUMNS)
    rows = _with_holm(rows)
    return Comparison(
        baseline=METHOD_LABELS.get(baseline, baseline),
        alternative=alternative,
        rows=rows,
        summary=summarised(rows),
        equal_cost=equal_cost(results, baseline, [word for word in words if word in METHOD_LABELS])
        if baseline in METHOD_LABELS
        else pd.DataFrame(),
        ambiguous=matches.ambiguous,
        missing=matches.missing,
        foreground=_foreground([pair.baseline for pair in matches.pairs], [pair.against for pair in matches.pairs]),
    )


def joined_with(comparison: Comparison, published: Comparison) -> Comparison:
    """The same with the rows of a publication below, those of its datasets that are compared here."""
    rows = published.rows[published.rows["dataset"].isin(comparison.rows["dataset"])]
    rows = rows[rows["against"].isin(comparison.rows["against"])]
    both = pd.concat([comparison.rows, rows], ignore_index=True)
    return replace(comparison, rows=both, summary=summarised(both))


def significant(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which rows get a star: p below 0.05 after Holm's correction, of a test that knows how much trainings scatter."""
    return rows["p_trainings"].notna() & (rows["p_holm"].fillna(rows["p_trainings"]) < SIGNIFICANT)


def summarised(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over tasks of the rows of the same source, baseline, method and budget."""
    groups = rows[rows["n_folds"] > 0].groupby(_TASKS, sort=False)
    return _frame([dict(zip(_TASKS, key, strict=True)) | _summary(group) for key, group in groups], SUMMARY_COLUMNS)


def _summary(group: pd.DataFrame) -> dict[str, Any]:
    difference = group["dice_difference"]
    relative = difference / group["baseline_dice"]
    return {
        "n_tasks": len(group),
        "tasks_higher": int((difference > 0).sum()),
        "tasks_equal": int((difference == 0).sum()),
        "tasks_lower": int((difference < 0).sum()),
        "tasks_significant": int(significant(group).sum()) if group["p_trainings"].notna().any() else pd.NA,
        **_mean_and_sd("dice_gain_where_higher", relative[difference > 0]),
        **_mean_and_sd("dice_loss_where_lower", -relative[difference < 0]),
        **{key: value for name in RATIOS for key, value in _mean_and_sd(name, group[name]).items()},
        **{f"{name}_tasks": int(group[name].notna().sum()) for name in RATIOS},
    }


def _mean_and_sd(name: str, values: pd.Series[float]) -> dict[str, float]:
    present = values.dropna()
    # The publication's SD is that of a population; of a single task there is none.
    sd = float(present.std(ddof=0)) if len(present) > 1 else np.nan
    return {f"{name}_mean": float(present.mean()) if len(present) else np.nan, f"{name}_sd": sd}


def _with_holm(rows: pd.DataFrame) -> pd.DataFrame:
    p = rows["p_trainings"].fillna(rows["p"])
    # Of a single comparison there is nothing to correct.
    adjusted = holm(list(p)) if p.notna().sum() > 1 else [np.nan] * len(rows)
    return rows.assign(p_holm=pd.Series(adjusted, index=rows.index, dtype="float64"))


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> pd.DataFrame:
    names = [column.name for column in columns]
    return pd.DataFrame(list(rows), columns=names, dtype=object).astype(dtypes(columns))


def _foreground(baselines: Sequence[pd.Series[Any]], others: Sequence[pd.Series[Any]]) -> str:
    shares: dict[str, dict[str, None]] = {}
    for point in (*baselines, *others):
        if not pd.isna(point["foreground_oversampling"]):
            name = METHOD_LABELS[point["method"]]
            shares.setdefault(name, {})[percent(point["foreground_oversampling"], 0)] = None
    if len({share for found in shares.values() for share in found}) < 2:
        return ""
    words = ", ".join(f"{name} {' and '.join(found)}" for name, found in shares.items())
    return f"The share of samples centred on foreground follows the scheme and differs: {words}."

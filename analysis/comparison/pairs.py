"""Which configurations are compared: those that differ in the curriculum and in nothing else that decides a result.

Method and baseline are named by scheme (the column `method`: by stage table, not by the name a trial started from) or
by id. By scheme, two configurations match if dataset, plans, configuration, budget and training settings agree. The
share of foreground-centred samples may differ, because its default follows the scheme.

The columns of a comparison: one row per dataset, budget and method (`ROW_COLUMNS`), and their means over tasks.

Ratios are method / baseline: 0.46 is 46 % of the baseline's cost. A ratio is missing where one side has no such value
or where the two cannot be compared; `remarks` says why.

Numbers of a comparison for people: ratios in per cent, differences with their sign, p values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from analysis.tables.columns import BY_NAME, Column
from analysis.tables.format import MISSING
from analysis.tables.methods import METHOD_LABELS, OTHER
from study.common.errors import InvalidInputError
from study.common.setting import Dtype
from study.store.specification import TrainingSettings

BASELINE = "cps"
FOLLOWS_SCHEME = "foreground_oversampling"
MATCHED: tuple[str, ...] = (
    *("dataset", "plans", "configuration", "budget"),
    *(field.name for field in fields(TrainingSettings) if field.name != FOLLOWS_SCHEME),
)
"""Columns that agree within a pair found by scheme."""

_SHORTEST_PREFIX = 4
# Ids, and datasets with budgets, in a message about several of them.
_MOST_IDS = 6
_MOST_PLACES = 4


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two configurations, rows of a frame of points; `baseline_name` and `against_name` are words for people."""

    baseline: pd.Series[Any]
    against: pd.Series[Any]
    baseline_name: str
    against_name: str


@dataclass(frozen=True, kw_only=True)
class Matches:
    """What was found.

    Attributes:
        pairs: by dataset, largest budget first, in the order of the methods asked for.
        ambiguous: a sentence per scheme that several configurations fit, with their ids.
        missing: a sentence per scheme that lacks a partner.
    """

    pairs: tuple[Pair, ...]
    ambiguous: tuple[str, ...]
    missing: tuple[str, ...]


def methods_of(points: pd.DataFrame) -> list[str]:
    """Published schemes among the points, in the order of legends."""
    return [method for method in METHOD_LABELS if method != OTHER and (points["method"] == method).any()]


def find_pairs(points: pd.DataFrame, baseline: str, against: Sequence[str]) -> Matches:
    """Pairs of the baseline with each of the others.

    Args:
        points: as `points.average_points` gives them.
        baseline: a scheme, or the id of a configuration or trial (its first letters do).
        against: likewise, at least one.

    Raises:
        InvalidInputError: a word that is neither, an id of several, two ids of different datasets, or a method that is
            the baseline.
    """
    if baseline in against:
        raise InvalidInputError(field="against", received=baseline, legal="anything but the baseline itself")
    found = [_pairs_with(points, baseline, word) for word in dict.fromkeys(against)]
    pairs = [pair for matches in found for pair in matches.pairs]
    pairs.sort(key=lambda pair: (pair.baseline["dataset"], -float(pair.baseline["budget"])))
    return Matches(
        pairs=tuple(pairs),
        ambiguous=tuple(dict.fromkeys(text for matches in found for text in matches.ambiguous)),
        missing=tuple(dict.fromkeys(text for matches in found for text in matches.missing)),
    )


def _pairs_with(points: pd.DataFrame, baseline: str, word: str) -> Matches:
    ours, theirs = _chosen(points, "baseline", baseline), _chosen(points, "against", word)
    names = (_name(baseline), _name(word))
    absent = [name for name, rows in zip(names, (ours, theirs), strict=True) if rows.empty]
    if absent:
        return Matches(pairs=(), ambiguous=(), missing=tuple(f"No finished trial of {name}." for name in absent))
    if baseline not in METHOD_LABELS and word not in METHOD_LABELS:
        return Matches(pairs=(_by_ids(ours, theirs, names),), ambiguous=(), missing=())
    pairs, ambiguous, alone = [], [], []
    left, right = _by_setting(ours), _by_setting(theirs)
    for setting in {**left, **right}:
        rows = (left.get(setting, []), right.get(setting, []))
        if all(len(row) == 1 for row in rows):
            pairs.append(Pair(baseline=rows[0][0], against=rows[1][0], baseline_name=names[0], against_name=names[1]))
        elif all(rows):
            ambiguous += [_ambiguity(name, row) for name, row in zip(names, rows, strict=True) if len(row) > 1]
        else:
            alone.append((setting, names[1] if rows[0] else names[0]))
    by_id = baseline not in METHOD_LABELS or word not in METHOD_LABELS
    missing = _without_partner(pairs, names) if by_id else _alone(alone)
    return Matches(pairs=tuple(pairs), ambiguous=tuple(ambiguous), missing=tuple(missing))


def _chosen(points: pd.DataFrame, field: str, word: str) -> pd.DataFrame:
    """The points that a word names."""
    if word in METHOD_LABELS and word != OTHER:
        return points[points["method"] == word]
    long_enough = len(word) >= _SHORTEST_PREFIX
    ids = [
        any(name.startswith(word) for name in (point, *trials.split())) if long_enough else False
        for point, trials in zip(points["point_id"], points["trial_ids"], strict=True)
    ]
    chosen = points[pd.Series(ids, index=points.index, dtype=bool)]
    if len(chosen) != 1:
        here = ", ".join(methods_of(points)) or "none"
        legal = f"a scheme (finished here: {here}), or the id of one configuration or trial"
        remedy = f"it begins {len(chosen)} of them: give more letters" if len(chosen) else ""
        raise InvalidInputError(field=field, received=word, legal=legal, remedy=remedy)
    return chosen


def _name(word: str) -> str:
    return METHOD_LABELS.get(word, word)


def _by_ids(ours: pd.DataFrame, theirs: pd.DataFrame, names: tuple[str, str]) -> Pair:
    datasets = (ours["dataset"].iloc[0], theirs["dataset"].iloc[0])
    if datasets[0] != datasets[1]:
        received = f"{names[0]} on {datasets[0]} and {names[1]} on {datasets[1]}"
        raise InvalidInputError(field="against", received=received, legal="two configurations of one dataset")
    return Pair(baseline=ours.iloc[0], against=theirs.iloc[0], baseline_name=names[0], against_name=names[1])


def _by_setting(points: pd.DataFrame) -> dict[tuple[Any, ...], list[pd.Series[Any]]]:
    groups: dict[tuple[Any, ...], list[pd.Series[Any]]] = {}
    for setting, (_, point) in zip(points[list(MATCHED)].itertuples(index=False), points.iterrows(), strict=True):
        # NaN would not equal itself.
        key = tuple("" if pd.isna(value) else value for value in setting)
        groups.setdefault(key, []).append(point)
    return groups


def _ambiguity(name: str, rows: Sequence[pd.Series[Any]]) -> str:
    ids = [
        f"{row['point_id']} ({row['allocation']} allocation, {percent(row[FOLLOWS_SCHEME], 0)} foreground)"
        for row in rows
    ]
    more = f" and {len(ids) - _MOST_IDS} more" if len(ids) > _MOST_IDS else ""
    first = rows[0]
    return (
        f"{len(rows)} configurations are {name} on {first['dataset']} at {budget_words(first['budget'])}, "
        f"name one by its id: {', '.join(ids[:_MOST_IDS])}{more}"
    )


def _without_partner(pairs: Sequence[Pair], names: tuple[str, str]) -> list[str]:
    if pairs:
        return []
    return [f"{names[1]} and {names[0]} have no setting in common; two ids are compared whatever their settings are."]


def _alone(alone: Sequence[tuple[tuple[Any, ...], str]]) -> list[str]:
    """A sentence per scheme that has no partner, with the datasets and budgets."""
    places: dict[str, dict[str, None]] = {}
    for setting, name in alone:
        named = dict(zip(MATCHED, setting, strict=True))
        places.setdefault(name, {})[f"{named['dataset']} at {budget_words(named['budget'])}"] = None
    return [
        f"No {name} with the same settings on {_first(list(where))}: not compared." for name, where in places.items()
    ]


def _first(places: Sequence[str]) -> str:
    more = f" and {len(places) - _MOST_PLACES} more" if len(places) > _MOST_PLACES else ""
    return f"{', '.join(places[:_MOST_PLACES])}{more}"


def different_settings(pair: Pair) -> list[str]:
    """What differs between the two besides the curriculum: `budget 50 % and 100 %`; possible for pairs of ids."""
    sentences = []
    for name in MATCHED:
        values = (pair.baseline[name], pair.against[name])
        if not all(map(pd.isna, values)) and values[0] != values[1]:
            words = [budget_words(v) if name == "budget" else str(v) for v in values]
            sentences.append(f"{BY_NAME[name].label.lower()} {words[0]} and {words[1]}")
    return sentences


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


def several_of(rows: pd.DataFrame, *names: str) -> list[str]:
    """Those of `dataset` and `plans` that rows must be told apart by: more than one dataset, or plans of one."""
    varies = {
        "dataset": rows["dataset"].nunique() > 1,
        "plans": bool(rows.groupby("dataset")["plans"].nunique().gt(1).any()),
    }
    return [name for name in names if varies[name]]


RATIOS = {"runtime_ratio": "runtime", "voxel_ratio": "voxels", "energy_ratio": "energy", "co2_ratio": "CO₂"}
"""Column of each ratio, and its name in sentences."""


def _column(name: str, label: str, dtype: Dtype, meaning: str, *, unit: str = "") -> Column:
    return Column(name=name, label=label, unit=unit, dtype=dtype, meaning=meaning)


ROW_COLUMNS: tuple[Column, ...] = (
    _column("source", "Source", "str", "`trials`, or the publication that printed the numbers"),
    _column("dataset", "Dataset", "str", "nnU-Net's name"),
    _column("plans", "Plans", "str", "name of the nnU-Net plans"),
    _column("configuration", "Configuration", "str", "of those plans"),
    _column("budget", "Budget", "float64", "share of the iterations per epoch that the baseline trained"),
    _column("baseline", "Baseline", "str", "what is compared with"),
    _column("against", "Method", "str", "what is compared"),
    _column("baseline_method", "Baseline scheme", "str", "published scheme of the baseline, or `other`"),
    _column("against_method", "Scheme", "str", "published scheme of the method, or `other`"),
    _column("baseline_id", "Baseline id", "str", "its configuration id"),
    _column("against_id", "Method id", "str", "its configuration id"),
    _column("folds", "Folds", "str", "that both have; all numbers of the row rest on these"),
    _column("n_folds", "Folds", "Int64", "number of these"),
    _column("folds_left_out", "Folds left out", "str", "that only one of the two has"),
    _column("baseline_dice", "Baseline Dice", "float64", "mean over the shared folds, in a fold over seeds"),
    _column("against_dice", "Dice", "float64", "likewise, on the same cases"),
    _column("dice_difference", "ΔDice", "float64", "of these two, method minus baseline"),
    _column("n_cases", "Cases", "Int64", "validation cases with a Dice of both, seeds averaged"),
    _column("n_zero", "Ties", "Int64", "cases whose two Dice are equal to 1e-12; the test leaves them out"),
    _column("dropped_cases", "Dropped", "str", "cases without a Dice on one side or both, separated by spaces"),
    _column("n_dropped", "Dropped", "Int64", "number of these"),
    _column("n_unpaired", "Unpaired", "Int64", "cases of the shared folds that only one of the two was validated on"),
    _column("baseline_trainings", "Baseline trainings", "Int64", "on the shared folds: folds × seeds"),
    _column("against_trainings", "Trainings", "Int64", "the same"),
    _column("standard_error", "SE", "float64", "of ΔDice: over cases, and over trainings if `covers` says so"),
    _column("difference_low", "ΔDice, from", "float64", "lower end of its 95 % interval"),
    _column("difference_high", "ΔDice, to", "float64", "upper end of the same"),
    _column(
        "covers", "Covers", "str", "`cases and trainings` where both sides have two trainings in a fold, else `cases`"
    ),
    _column("case_sd", "SD of cases", "float64", "SD over cases of their part in ΔDice"),
    _column("fold_sd", "SD of folds", "float64", "SD over folds of ΔDice; missing for one"),
    _column("baseline_training_sd", "SD of seeds, baseline", "float64", "of the Dice of a fold; missing for one seed"),
    _column("against_training_sd", "SD of seeds", "float64", "the same"),
    _column(
        "detectable", "Detectable", "float64", "smallest ΔDice found with 80 % power, one-sided at 5 %, as `covers`"
    ),
    _column("median_difference", "Median ΔDice", "float64", "per case"),
    _column("effect_size", "Effect size", "float64", "matched-pairs rank-biserial correlation, -1 to 1"),
    _column("p", "p, cases", "float64", "one-sided Wilcoxon signed-rank test over cases, of these trainings alone"),
    _column("p_trainings", "p", "float64", "one-sided t test of ΔDice over cases and trainings; missing for one seed"),
    _column("p_holm", "Holm p", "float64", "of the latter, else the former, over all rows; missing if there is one"),
    _column("false_outperformance", "False claim", "float64", "probability that ΔDice is truly not so, as `covers`"),
    _column("baseline_runtime_seconds", "Baseline time", "float64", "training, mean over the shared folds", unit="s"),
    _column("against_runtime_seconds", "Training time", "float64", "the same", unit="s"),
    _column("baseline_co2_kg", "Baseline CO₂", "float64", "training, mean over the shared folds", unit="kg"),
    _column("against_co2_kg", "Training CO₂", "float64", "the same", unit="kg"),
    _column("runtime_ratio", "Runtime ratio", "float64", "training time, method / baseline"),
    _column("voxel_ratio", "Voxel ratio", "float64", "voxels trained on, method / baseline"),
    _column("energy_ratio", "Energy ratio", "float64", "training energy, method / baseline"),
    _column("co2_ratio", "CO₂ ratio", "float64", "training CO₂, method / baseline"),
    _column(
        "break_even", "Trainings to break even", "float64", "CO₂ of all trials of the dataset / saved per training"
    ),
    _column("remarks", "Remarks", "str", "what was left out, and why"),
)

SUMMARY_COLUMNS: tuple[Column, ...] = (
    _column("source", "Source", "str", "as in the rows"),
    _column("budget", "Budget", "float64", "as in the rows"),
    _column("baseline", "Baseline", "str", "as in the rows"),
    _column("against", "Method", "str", "as in the rows"),
    _column("n_tasks", "Tasks", "Int64", "rows that the means are over"),
    _column("tasks_higher", "Higher", "Int64", "tasks whose mean Dice over folds is above the baseline's"),
    _column("tasks_equal", "Equal", "Int64", "tasks with equal ones"),
    _column("tasks_lower", "Lower", "Int64", "tasks with a lower one"),
    _column("tasks_significant", "Significant", "Int64", "tasks with p below 0.05 over cases and trainings (Holm's)"),
    _column("dice_gain_where_higher_mean", "Gain", "float64", "relative difference of Dice where it is higher, mean"),
    _column("dice_gain_where_higher_sd", "Gain, SD", "float64", "SD of the same"),
    _column("dice_loss_where_lower_mean", "Loss", "float64", "relative difference of Dice where it is lower, mean"),
    _column("dice_loss_where_lower_sd", "Loss, SD", "float64", "SD of the same"),
    *(
        column
        for name, words in RATIOS.items()
        for column in (
            _column(f"{name}_mean", f"{words} ratio", "float64", "mean over tasks"),
            _column(f"{name}_sd", f"{words} ratio, SD", "float64", "over tasks, of the population; missing for one"),
            _column(f"{name}_tasks", f"{words} ratio, tasks", "Int64", "with this ratio"),
        )
    ),
)

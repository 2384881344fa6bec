"""Which configurations are compared: those that differ in the curriculum and in nothing else that decides a result.

Method and baseline are named by scheme (the column `method`: by stage table, not by the name a trial started from) or
by id. By scheme, two configurations match if dataset, plans, configuration, budget and training settings agree. The
share of foreground-centred samples may differ, because its default follows the scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from analysis.comparison.numbers import budget_words, percent
from analysis.tables.columns import BY_NAME
from analysis.tables.methods import METHOD_LABELS, OTHER
from study.common.errors import InvalidInputError
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

"""Points: trials of one configuration averaged, in a fold over seeds, then over folds.

A configuration is the dataset, plans, resolved curriculum and training settings. Only finished trials count: the cost
so far of one that is not finished would look like a bargain. A trial that two of the studies ran is averaged first. The
columns are documented in `columns.POINT_COLUMNS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import pandas as pd
from pandas.api.typing import DataFrameGroupBy

from analysis.tables.columns import CIRCUMSTANCE_NAMES, MEASURED_NAMES, POINT_COLUMNS, SETTING_NAMES, dtypes
from analysis.tables.frame import FINISHED
from analysis.tables.methods import (
    BESIDE_SCHEME,
    CONSTANT_PATCH,
    IMPORTED,
    METHOD_LABELS,
    OTHER,
    PDL,
    with_data_curriculum,
)
from study.common.setting import settings_of
from study.curriculum.schemes import Axes
from study.store.specification import PLANS, TrainingSettings

Groups: TypeAlias = "DataFrameGroupBy[Any, Any]"

# Settings worth a word in a point's summary when they differ between the points of a dataset, and how they read.
_TOLD = {
    name: each.told for record in (Axes, TrainingSettings) for name, each in settings_of(record).items() if each.told
}
_TOLD_IF_DIFFERENT = {
    PLANS.name: PLANS.told,
    "configuration": "{}",
    **{name: words for name, words in _TOLD.items() if not name.startswith("pdl_")},
}
# Those that the name of a scheme says.
_OF_SCHEME = set(settings_of(Axes)) - set(BESIDE_SCHEME)
_SEARCHED = (OTHER, with_data_curriculum(OTHER))
# The same of the data curriculum, where there is one.
_TOLD_OF_PDL = {
    "pdl_fraction": _TOLD["pdl_fraction"],
    "pdl_iterations": "for {} iterations",
    "pdl_metric": _TOLD["pdl_metric"],
}
# Its default follows from whether the patch size is constant, so it is told only where it differs within a method.
_FOLLOWS_METHOD = "foreground_oversampling"


def average_points(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per configuration that has a finished trial, in the order of the trials.

    Args:
        trials: a frame as `frame.read_studies` gives it.

    Returns:
        Columns of `columns.POINT_COLUMNS`. A cost that is missing in one of the averaged trials is missing in the mean.
        The intervals are missing; `intervals.with_intervals` fills them in.
    """
    finished = trials[trials["state"] == FINISHED]
    if finished.empty:
        return pd.DataFrame(columns=[c.name for c in POINT_COLUMNS]).astype(dtypes(POINT_COLUMNS))
    key = ["dataset", "point_id"]
    groups = finished.groupby(key, sort=False)
    settings = finished.drop_duplicates(key)[["point_id", *SETTING_NAMES]].set_index(key)
    points = pd.concat(
        [settings, _means(finished, key), _counts(groups), _origins(finished, groups)], axis=1
    ).reset_index()
    points["summary"] = summaries(points)
    return points.reindex(columns=[c.name for c in POINT_COLUMNS]).astype(dtypes(POINT_COLUMNS))


def axes_of(point: Mapping[str, Any] | pd.Series[Any]) -> dict[str, Any]:
    """A point's axes as plain JSON, named as in `study.curriculum.schemes.Axes`."""
    return _settings(point, Axes)


def training_of(point: Mapping[str, Any] | pd.Series[Any]) -> dict[str, Any]:
    """A point's training settings as plain JSON, named as in `study.store.specification.TrainingSettings`."""
    return _settings(point, TrainingSettings)


def _settings(point: Mapping[str, Any] | pd.Series[Any], record: type) -> dict[str, Any]:
    # Reports from before a setting was a choice do not have it: its default is what it was.
    return {
        name: each.default if pd.isna(value := point[name]) else each.kind.read(value)
        for name, each in settings_of(record).items()
    }


def summaries(points: pd.DataFrame) -> list[str]:
    """Each configuration in a few words: its curriculum, and the settings in which a dataset's points differ."""
    told = {dataset: _differing(rows) for dataset, rows in points.groupby("dataset")}
    names = ["dataset", "method", "trainer", "stage_table", "order", *_TOLD_IF_DIFFERENT, *_TOLD_OF_PDL]
    return [
        ", ".join([_curriculum_words(row), *_setting_words(row, told[row["dataset"]])])
        for row in points[names].to_dict("records")
    ]


def _means(finished: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Copies of a training (same fold and seed) first, then seeds of a fold, then folds."""
    means = finished
    for level in ([*key, "fold", "seed"], [*key, "fold"], key):
        means = means.groupby(level, sort=False)[list(MEASURED_NAMES)].mean(skipna=False).reset_index()
    groups = finished.groupby(key, sort=False)
    extremes = {f"{name}_{end}": groups[name].agg(end) for name in ("dice", "pace") for end in ("min", "max")}
    return pd.concat([means.set_index(key), pd.DataFrame(extremes)], axis=1)


def _counts(groups: Groups) -> pd.DataFrame:
    counts = {"n_trials": groups.size(), "n_folds": groups["fold"].nunique(), "n_seeds": groups["seed"].nunique()}
    return pd.DataFrame(counts)


def _origins(finished: pd.DataFrame, groups: Groups) -> pd.DataFrame:
    number, index = groups.ngroup().tolist(), groups.size().index

    def of(name: str) -> list[list[Any]]:
        """The values of each group in order, without missing ones."""
        found: list[list[Any]] = [[] for _ in index]
        values, gaps = finished[name].to_numpy(dtype=object), finished[name].isna().to_numpy()
        for group, value, missing in zip(number, values, gaps, strict=True):
            if not missing:
                found[group].append(value)
        return found

    columns = {name: [_words(values) for values in of(name)] for name in CIRCUMSTANCE_NAMES}
    columns |= {f"{name}s": [" ".join(map(str, sorted(set(v)))) for v in of(name)] for name in ("fold", "seed")}
    columns |= {"trial_ids": list(map(" ".join, of("trial_id"))), "studies": list(map(_words, of("study")))}
    return pd.DataFrame(columns, index=index)


def _words(values: Iterable[Any]) -> str:
    return " | ".join(dict.fromkeys(f"{value:g}" if isinstance(value, float) else str(value) for value in values))


def _differing(points: pd.DataFrame) -> list[str]:
    """Names of the settings that differ between the points of a dataset."""
    differing = [name for name in _TOLD_IF_DIFFERENT if points[name].nunique(dropna=False) > 1]
    ordered = points[points["pdl_iterations"].notna()]
    differing += [name for name in _TOLD_OF_PDL if ordered[name].nunique() > 1]
    constant = points["method"].isin(CONSTANT_PATCH)
    follows = all(part[_FOLLOWS_METHOD].nunique() == 1 for _, part in points.groupby(constant))
    return [name for name in differing if name != _FOLLOWS_METHOD or not follows]


def _setting_words(point: Mapping[Any, Any], names: Iterable[str]) -> list[str]:
    words = {**_TOLD_IF_DIFFERENT, **({} if pd.isna(point["pdl_iterations"]) else _TOLD_OF_PDL)}
    if point["method"] not in _SEARCHED:
        words = {name: said for name, said in words.items() if name not in _OF_SCHEME}
    return [words[name].format(point[name]) for name in names if name in words and not pd.isna(point[name])]


def _curriculum_words(point: Mapping[Any, Any]) -> str:
    if point["method"] == IMPORTED:
        return f"{point['trainer']} (imported)"
    if point["method"] not in _SEARCHED:
        return METHOD_LABELS[point["method"]]
    stages = json.loads(point["stage_table"])
    first, batches = stages[0]["patch_size"], [stage["batch_size"] for stage in stages]
    words = "" if point["method"] == OTHER else f"{METHOD_LABELS[PDL]} × "
    words += f"{len(stages)} stage{'s' * (len(stages) > 1)} from {'×'.join(map(str, first))}"
    if point["order"] != "growing":
        words += f" {point['order']}"
    return words if len(set(batches)) == 1 else f"{words}, batch {batches[0]}–{batches[-1]}"

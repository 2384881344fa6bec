"""The axes of a dataset's points that vary: what a study turned, whether it searched it or named schemes.

An axis is read from what was trained, not from the search space, so schemes and searched curricula share axes. Axes
that split the points in the very same way cannot be told apart by any analysis: they are one axis with several names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.tables.columns import BY_NAME
from analysis.tables.methods import CONSTANT_PATCH
from study.common.setting import Count, Switch, Words, settings_of
from study.curriculum.schemes import Axes
from study.store.specification import TrainingSettings

# Numbers first: an axis of words that splits the points alike is named after them. Stages are told as resolved.
_CURRICULUM = sorted(
    ("n_stages" if name == "stages" else name for name in settings_of(Axes)),
    key=lambda name: isinstance(settings_of(Axes).get(name, Count()), Words | Switch),
)
_TRAINING = ("plans", "configuration", *settings_of(TrainingSettings))
_LOGARITHMIC = [name for name, each in settings_of(TrainingSettings).items() if each.logarithmic]
_LOG_FROM = 10.0
# Different numbers beside words that are still told one by one.
_MOST_NUMBERS = 4


@dataclass(frozen=True, kw_only=True)
class VaryingAxis:
    """One axis on which points differ.

    Attributes:
        name: of its column.
        values: one per point, in the points' index: numbers, or words of a category.
        numeric: whether the values are numbers with an order; otherwise they are words.
        logarithmic: whether a ratio means more than a difference.
        together: names of further columns that split the points alike.
    """

    name: str
    values: pd.Series[Any]
    numeric: bool
    logarithmic: bool = False
    together: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """For people: `Smallest patch`, or `Smallest patch = Stages` where both are one axis."""
        return " = ".join(BY_NAME[name].label for name in (self.name, *self.together))

    @property
    def categories(self) -> list[str]:
        """The words in use, sorted; empty for numbers."""
        return [] if self.numeric else sorted(set(self.values))

    def positions(self, points: pd.DataFrame) -> NDArray[np.float64]:
        """Where points stand on the axis: at their number, or at their category's."""
        values = self.values.reindex(points.index)
        if not self.numeric:
            values = values.map({word: number for number, word in enumerate(self.categories)})
        return values.to_numpy(dtype=float)


def varying_axes(points: pd.DataFrame) -> list[VaryingAxis]:
    """The axes of one dataset's points that have more than one value, each distinguishable once.

    Args:
        points: as `points.average_points` gives them.
    """
    found: list[VaryingAxis] = []
    for axis in _candidates(points):
        twin = next((place for place, other in enumerate(found) if _same(axis, other)), None)
        if twin is None:
            found.append(axis)
        else:
            found[twin] = replace(found[twin], together=(*found[twin].together, axis.name))
    return found


def _same(one: VaryingAxis, other: VaryingAxis) -> bool:
    """Whether two axes split the points alike; numbers that never repeat must also rise or fall together."""
    split, codes = pd.factorize(one.values)[0], pd.factorize(other.values)[0]
    if (split != codes).any():
        return False
    if split.max() + 1 < len(split) or not (one.numeric and other.numeric):
        return True
    steps = other.values.iloc[one.values.argsort()].diff().dropna()
    return bool((steps > 0).all() or (steps < 0).all())


def _candidates(points: pd.DataFrame) -> Iterator[VaryingAxis]:
    by_patch = points.groupby(points["method"].isin(CONSTANT_PATCH))
    for name in (*_CURRICULUM, *_TRAINING):
        column = points[name]
        # The oversampling follows from whether the patch size is constant, unless somebody set it.
        follows = name == "foreground_oversampling" and by_patch[name].nunique().le(1).all()
        if column.isna().any() or column.nunique() < 2 or follows:
            continue
        values, numeric = _values(column)
        low, high = (values.min(), values.max()) if numeric else (0.0, 0.0)
        logarithmic = name in _LOGARITHMIC and low > 0 and high / low >= _LOG_FROM
        yield VaryingAxis(name=name, values=values, numeric=numeric, logarithmic=logarithmic)


def _values(column: pd.Series[Any]) -> tuple[pd.Series[Any], bool]:
    """Numbers where all are, else words: few numbers among them as they are, of many the half of 0 to 1 they are in."""
    if column.dtype == "boolean":
        return column.map({True: "yes", False: "no"}).astype("str"), False
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    if numbers.notna().all():
        return numbers, True
    words = column.astype("str")
    if numbers.nunique() <= _MOST_NUMBERS:
        return words, False
    halves = numbers.map(lambda number: f"{number:g}" if number in (0, 1) else "0–0.5" if number <= 0.5 else "0.5–1")
    return words.where(numbers.isna(), halves.astype("str")), False

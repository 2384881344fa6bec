"""All points axis by axis: slices, which show one axis each and hide the others.

The axes of a dataset's points that vary: what a study turned, whether it searched it or named schemes.

An axis is read from what was trained, not from the search space, so schemes and searched curricula share axes. Axes
that split the points in the very same way cannot be told apart by any analysis: they are one axis with several names.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray

from analysis.figures.display_items import DisplayItem
from analysis.figures.sheet import Sheet
from analysis.figures.style import (
    INK,
    METHOD_STYLES,
    SURFACE,
    Layout,
    dice_floor,
    each_of,
    limit_dice,
    method_entries,
    short_ticks,
)
from analysis.fronts.captions import subject
from analysis.fronts.front import Front
from analysis.tables.columns import BY_NAME
from analysis.tables.format import counted, label_with_unit, reading_scale
from analysis.tables.methods import CONSTANT_PATCH
from study.common.setting import Count, Switch, Words, settings_of
from study.curriculum import schemes
from study.store.specification import TrainingSettings

MOST_AXES = 8
"""More are not drawn; the report says so."""
_ACROSS = 4
_FEW_VALUES = 7
_LABEL_LETTERS = 24
# So many pale points become a picture within the drawing, which would take megabytes otherwise.
_RASTERIZE_FROM = 400
_MANY_POINTS = 200


def slices(front: Front, axes: Sequence[VaryingAxis], caveats: Sequence[str]) -> DisplayItem:
    """Dice and a cost against every axis that varies, one panel each, points of the front in a ring.

    Args:
        front: of one dataset, with at least one point; Dice first, one cost second.
        axes: that vary between its points.
        caveats: about them.
    """
    shown, cost = axes[:MOST_AXES], front.objectives[1].label.lower()
    notes = [
        "Each panel shows one axis and hides the others: points above each other differ in those.",
        f"In a ring: on the front of Dice and {cost}.",
    ]
    if len(axes) > len(shown):
        notes.append(f"{len(axes) - len(shown)} more axes vary and are not drawn.")
    notes += caveats
    return DisplayItem(
        stem="dice_and_cost_by_setting",
        folded=True,
        heading="Dice and cost along each axis",
        draw=lambda layout: _draw_slices(front, shown, notes, layout),
        alt=f"Scatter plots of Dice and {cost} of {counted(len(front.points), 'point')} against "
        f"{', '.join(axis.label.lower() for axis in shown)}; {len(front.best)} of them are on the front.",
        notes=notes,
    )


def _draw_slices(front: Front, axes: Sequence[VaryingAxis], notes: Sequence[str], layout: Layout) -> Figure:
    """On a narrow page a row of two panels per axis, else columns of two panels."""
    blocks = -(-len(axes) // _ACROSS) if layout.rail else 1
    columns = -(-len(axes) // blocks) if layout.rail else 2
    ring = Line2D([], [], ls="", marker="o", mfc="none", mec=INK.light, markersize=8.5)
    sheet = Sheet(
        layout=layout,
        title="Dice and cost along each axis",
        subject=subject(front.points),
        notes=notes,
        rows=2 * blocks if layout.rail else len(axes),
        columns=columns,
        panel_height=1.75 if layout.rail else 1.35,
        left=0.75,
        gap_across=0.6 if layout.rail else 0.72,
        gap_down=0.68,
        legend=[*method_entries(front.points["method"]), ("on the front", (ring,))],
    )
    with sheet.drawn() as (figure, panels):
        for index, axis in enumerate(axes):
            block, column = divmod(index, columns)
            first = 2 * block * columns + column if layout.rail else 2 * index
            pair = (panels[first], panels[first + (columns if layout.rail else 1)])
            _draw_slice(pair, front, axis, words=not layout.rail or column == 0)
        for panel in panels:
            if not panel.has_data():
                panel.remove()
    return figure


def _draw_slice(pair: tuple[Axes, Axes], front: Front, axis: VaryingAxis, *, words: bool) -> None:
    """Dice in the first panel, the cost in the second."""
    dice, cost = (objective.name for objective in front.objectives)
    scale = reading_scale(front.objectives[1].unit, front.points[cost].max())
    points = front.points.assign(**{cost: front.points[cost] * scale.factor}, place=axis.positions(front.points))
    for panel, name in zip(pair, (dice, cost), strict=True):
        _scatter(panel, points, name)
        _mark_axis(panel, axis)
    limit_dice(pair[0], dice_floor(points), float(points["dice_max"].max()), most_ticks=5)
    pair[1].set_ylim(0, float(points[cost].max()) * 1.1 or 1.0)
    pair[1].yaxis.set_major_locator(short_ticks())
    if words:
        pair[0].set_ylabel("Dice")
        pair[1].set_ylabel(label_with_unit(front.objectives[1].label, scale.unit))


def _scatter(panel: Axes, points: pd.DataFrame, name: str) -> None:
    small, pale = (24, 0.55) if len(points) < _MANY_POINTS else (16, 0.3)
    many = len(points) >= _RASTERIZE_FROM
    for _, part in points.groupby(["method", points["non_dominated"], points["n_folds"] == 1], sort=False):
        best, hollow, style = (
            part["non_dominated"].all(),
            part["n_folds"].eq(1).all(),
            METHOD_STYLES[part["method"].iloc[0]],
        )
        panel.scatter(
            part["place"],
            part[name],
            s=(32 if best else small) * style.area,
            marker=style.marker,
            facecolor=SURFACE.light if hollow else style.paint.light,
            edgecolor=style.paint.light if hollow else SURFACE.light,
            linewidth=1.2 if hollow else 0.3,
            alpha=1.0 if best else pale,
            zorder=5 if best else 3,
            clip_on=False,
            rasterized=many and not best,
            gid=each_of(part["point_id"]),
        )
    ringed = points[points["non_dominated"]]
    ring: dict[str, Any] = {"marker": "o", "facecolor": "none", "edgecolor": INK.light, "linewidth": 0.9}
    panel.scatter(ringed["place"], ringed[name], s=92, zorder=6, clip_on=False, gid=each_of(ringed["point_id"]), **ring)


def _mark_axis(panel: Axes, axis: VaryingAxis) -> None:
    panel.set_xlabel("\n".join(textwrap.wrap(axis.label, _LABEL_LETTERS)))
    if not axis.numeric:
        panel.set_xticks(range(len(axis.categories)), axis.categories)
        panel.set_xlim(-0.5, len(axis.categories) - 0.5)
        return
    low, high = float(axis.values.min()), float(axis.values.max())
    if axis.logarithmic:
        panel.set_xscale("log")
        panel.set_xlim(low / 1.3, high * 1.3)
        panel.xaxis.set_major_locator(LogLocator(numticks=5))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.minorticks_off()
        return
    panel.set_xlim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    values = sorted(set(axis.values))
    if len(values) <= _FEW_VALUES and min(np.diff(values)) > 0.12 * (high - low):
        panel.set_xticks(values, [f"{value:g}" for value in values])
    else:
        panel.xaxis.set_major_locator(short_ticks(integer=bool((axis.values % 1 == 0).all())))


# Numbers first: an axis of words that splits the points alike is named after them. Stages are told as resolved.
_CURRICULUM = sorted(
    ("n_stages" if name == "stages" else name for name in settings_of(schemes.Axes)),
    key=lambda name: isinstance(settings_of(schemes.Axes).get(name, Count()), Words | Switch),
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

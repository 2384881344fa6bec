"""How a point of a figure is drawn: colour and marker of its method, and how much evidence stands behind it.

Hollow: one fold. Filled: several. Filled, with a ring around it: five folds or more, a whole cross-validation. A thin
bar: the interval of its Dice. A point on the front is large, one that something beats small and pale.

Every point is an SVG group of its own, `point-ID`, so that a page can answer to it.

Axes that do not mislead: costs start at 0 or say that they are logarithmic, a cut Dice axis carries a mark.

Numbers beside the points of a front, which never overlap: neighbours too close to each other share one label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from analysis.figures.style import METHOD_STYLES, MUTED, RULE, SURFACE, MethodStyle
from analysis.statistics.intervals import dice_bars
from analysis.tables.methods import METHOD_LABELS

# Costs that differ by more than this factor are drawn on a logarithmic axis.
_LOG_FROM = 25
# A Dice axis whose foot would stand below this starts at 0.
_NEAR_ZERO = 0.15


def dice_floor(points: pd.DataFrame) -> float:
    """Where the Dice axis of some points starts: 0, or close below the lowest of their folds and seeds."""
    low, high = float(points["dice_min"].min()), float(points["dice_max"].max())
    floor = low - max(0.1 * (high - low), 0.01)
    return 0.0 if floor < _NEAR_ZERO else floor


def limit_dice(axes: Axes, floor: float, high: float) -> None:
    """Draw Dice from `floor` to a little above `high`, with ticks up to 1 and a mark when the floor is not 0."""
    axes.set_ylim(floor, max(high + 0.12 * (high - floor), floor + 0.01))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    ticks = axes.get_yticks()
    decimals = max(2, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    # No tick above 1, and none where the mark stands.
    lowest = floor + 0.045 * (high - floor) if floor > 0 else 0.0
    axes.set_yticks([dice for dice in ticks if lowest <= dice <= min(1 + 1e-9, axes.get_ylim()[1])])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda dice, _: f"{dice:.{decimals}f}"))
    if floor > 0:
        _mark_cut(axes)


def limit_cost(axes: Axes, cost: pd.Series[float]) -> None:
    """Draw a cost from 0, or on a logarithmic axis when it spans more than a factor of 25."""
    low, high = float(cost.min()), float(cost.max())
    if low > 0 and high / low > _LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.minorticks_off()
        axes.set_xlim(low / 1.35, high * 1.25)
    else:
        axes.set_xlim(0, high * 1.07 or 1.0)


def _mark_cut(axes: Axes) -> None:
    """Two strokes across the foot of the Dice axis: it does not start at 0."""
    style: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False, "zorder": 10}
    axes.plot([0, 0], [0.021, 0.039], color=SURFACE.light, lw=3, **style)
    for stroke, height in enumerate((0.013, 0.033)):
        ends = ([-0.011, 0.011], [height, height + 0.014])
        axes.plot(*ends, color=MUTED.light, lw=1.1, gid=f"axis-cut-{stroke}", **style)


# Size of the label's font, of a digit in it, and distance from point to label, in typographic points.
FONT_SIZE = 8.0
_DIGIT, _HEIGHT, _AWAY = 5.6, 9.5, 5.0


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label whose right lower corner stands at (x, y), in typographic points; it names `first` to `last`."""

    first: int
    last: int
    x: float
    y: float

    @property
    def text(self) -> str:
        """`3`, or `3–5`."""
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"

    def overlaps(self, other: Label) -> bool:
        """Whether the boxes of two labels meet."""
        apart_x = self.x < other.x - other._width or other.x < self.x - self._width
        return not apart_x and abs(self.y - other.y) < _HEIGHT

    def joined(self, other: Label) -> Label:
        """One label for both, at the place of the one more to the left, above both."""
        return Label(
            first=min(self.first, other.first),
            last=max(self.last, other.last),
            x=min(self.x, other.x),
            y=max(self.y, other.y),
        )

    @property
    def _width(self) -> float:
        return _DIGIT * len(self.text)


def place(positions: Sequence[tuple[float, float]]) -> list[Label]:
    """Labels 1 … n for points numbered along a front, up and to the left of them, where a front has no points.

    Args:
        positions: of the points in typographic points, by number.
    """
    labels: list[Label] = []
    for index, (x, y) in enumerate(positions, start=1):
        label = Label(first=index, last=index, x=x - _AWAY, y=y + _AWAY)
        while labels and any(label.overlaps(earlier) for earlier in labels):
            label = label.joined(labels.pop())
        labels.append(label)
    return labels


Entry: TypeAlias = tuple[str, tuple[Line2D, ...]]
"""An entry of a legend: its text, and the marks drawn over each other before it."""

MANY_FOLDS = 5
"""From here on a point is confirmed by a whole cross-validation, and has a ring."""

_LARGE, _SMALL = 62.0, 30.0
_RING = 2.6
# Areas of the smallest and the largest mark where the area means an amount.
_LEAST, _MOST = 26.0, 160.0


def draw_points(axes: Axes, points: pd.DataFrame, *, cost: str, size: str | None = None) -> None:
    """Draw points, their bars and rings onto axes whose limits stand.

    Args:
        axes: with the cost to the right and Dice upwards.
        points: with `non_dominated`, costs in the unit of the axes.
        cost: column to the right.
        size: column that the area of a mark stands for; None: large on the front, small off it.
    """
    _draw_bars(axes, points, cost)
    areas = _areas(points, size)
    columns = [points[name] for name in (cost, "dice", "method", "n_folds", "non_dominated", "point_id")]
    for area, x, y, method, folds, best, point_id in zip(areas, *columns, strict=True):
        style = METHOD_STYLES[method]
        line = Line2D([x], [y], ls="", gid=f"point-{point_id}", **_look(style, area, folds == 1))
        line.set(alpha=1.0 if best else 0.5 if size else 0.65, zorder=5 if best else 4, clip_on=False)
        axes.add_artist(line)
    _draw_rings(axes, points, areas, cost)


def belongs_to(*point_ids: str) -> str:
    """The name in a figure of what is hidden with the last of some points: their bars, rings, labels and key."""
    return f"of-{'-'.join(point_ids)}"


def area_of(value: float, largest: float) -> float:
    """Area of a mark that stands for an amount, in square points."""
    return max(_LEAST, _MOST * value / largest) if largest > 0 else _LEAST


def method_entries(points: pd.DataFrame) -> list[Entry]:
    """A legend's entry for every method among the points."""
    present = [method for method in METHOD_STYLES if (points["method"] == method).any()]
    return [(METHOD_LABELS[method], (_method_handle(METHOD_STYLES[method]),)) for method in present]


def fold_entries(points: pd.DataFrame) -> list[Entry]:
    """A legend's entry for every look that tells folds apart; none when all points look alike and have no ring."""
    single, many = points["n_folds"] == 1, points["n_folds"] >= MANY_FOLDS
    filled, ring = _handle(MUTED.light, SURFACE.light), _handle("none", MUTED.light, size=7.5 * np.sqrt(_RING))
    entries: list[Entry] = []
    if (~single & ~many).any():
        entries.append(("several folds", (filled,)))
    if single.any():
        entries.append(("one fold", (_handle(SURFACE.light, MUTED.light),)))
    if many.any():
        entries.append((f"{MANY_FOLDS} folds or more", (ring, filled)))
    return entries if len(entries) > 1 or many.any() else []


def size_entries(labels: Sequence[tuple[str, float]]) -> list[Entry]:
    """A legend's entries for areas: text, and area in square points."""
    return [(text, (_handle(RULE.light, RULE.light, size=float(np.sqrt(area))),)) for text, area in labels]


def _draw_bars(axes: Axes, points: pd.DataFrame, cost: str) -> None:
    low, high = dice_bars(points)
    shown = high > low
    columns = (points[shown][cost], low[shown], high[shown], points[shown]["method"], points[shown]["point_id"])
    for x, least, most, method, point_id in zip(*columns, strict=True):
        look: dict[str, Any] = {"color": METHOD_STYLES[method].paint.light, "alpha": 0.45, "lw": 1}
        axes.add_artist(Line2D([x, x], [least, most], zorder=3, gid=belongs_to(point_id), **look))


def _draw_rings(axes: Axes, points: pd.DataFrame, areas: Sequence[float], cost: str) -> None:
    for at in np.flatnonzero((points["n_folds"] >= MANY_FOLDS).to_numpy()):
        point = points.iloc[at]
        style = METHOD_STYLES[point["method"]]
        ring = Line2D([point[cost]], [point["dice"]], ls="", marker="o", mfc="none", mec=style.paint.light, mew=0.9)
        ring.set(markersize=np.sqrt(_RING * areas[int(at)]), clip_on=False, zorder=4)
        ring.set_alpha(1.0 if point["non_dominated"] else 0.65)
        ring.set_gid(belongs_to(point["point_id"]))
        axes.add_artist(ring)


def _areas(points: pd.DataFrame, size: str | None) -> list[float]:
    if size is None:
        return [_LARGE if best else _SMALL for best in points["non_dominated"]]
    largest = float(points[size].max())
    return [area_of(value, largest) for value in points[size]]


def _look(style: MethodStyle, area: float, hollow: bool) -> dict[str, Any]:
    color = style.paint.light
    return {
        "marker": style.marker,
        "markersize": np.sqrt(style.area * area),
        "markerfacecolor": SURFACE.light if hollow else color,
        "markeredgecolor": color if hollow else SURFACE.light,
        "markeredgewidth": 1.6 if hollow else 0.7,
    }


def _method_handle(style: MethodStyle) -> Line2D:
    handle = _handle(style.paint.light, SURFACE.light, size=7.5 * float(np.sqrt(style.area)))
    handle.set_marker(style.marker)
    return handle


def _handle(face: str, edge: str, *, size: float = 7.5) -> Line2D:
    return Line2D([], [], ls="", marker="o", mfc=face, mec=edge, markersize=size)

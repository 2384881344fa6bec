"""How a point of a figure is drawn: colour and marker of its method, and how much evidence stands behind it.

Hollow: one fold. Filled: several. Filled, with a ring around it: five folds or more, a whole cross-validation. A thin
bar: the interval of its Dice. A point on the front is large, one that something beats small and pale.

The group of a point in an SVG is named `point-ID`; of what is hidden with the last of some points, such as their bars,
labels and keys, `of-ID-ID`; and of a cloud of marks, one per point, `each-ID-ID`: a page answers to them.

Axes do not mislead: costs start at 0 or say that they are logarithmic, a cut Dice axis carries a mark. Numbers beside
the points of a front never overlap: neighbours too close to each other share one label.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from analysis.figures.sheet import Entry
from analysis.figures.style import METHOD_STYLES, MUTED, SURFACE
from analysis.statistics.intervals import dice_bars
from analysis.tables.methods import METHOD_LABELS

MANY_FOLDS = 5
"""From here on a point is confirmed by a whole cross-validation, and has a ring."""
# Costs that differ by more than this factor are drawn on a logarithmic axis.
_LOG_FROM = 25
# A Dice axis whose foot would stand below this starts at 0.
_NEAR_ZERO = 0.15
# Areas in square points: of any mark, of one on the front and off it; a ring's as a multiple.
_USUAL, _LARGE, _SMALL, _RING = 56.0, 62.0, 30.0, 2.6


def belongs_to(*point_ids: str) -> str:
    """The name in a figure of what is hidden with the last of some points."""
    return f"of-{'-'.join(point_ids)}"


def each_of(point_ids: Iterable[str]) -> str:
    """The name in a figure of a scatter with a mark per point."""
    return f"each-{'-'.join(point_ids)}"


def short_ticks(most: int = 5, *, integer: bool = False) -> MaxNLocator:
    """At most so many ticks at round values."""
    return MaxNLocator(nbins=most, steps=[1, 2, 5, 10], integer=integer)


def dice_floor(points: pd.DataFrame) -> float:
    """Where the Dice axis of some points starts: 0, or close below the lowest of their folds and seeds."""
    low, high = float(points["dice_min"].min()), float(points["dice_max"].max())
    floor = low - max(0.1 * (high - low), 0.01)
    return 0.0 if floor < _NEAR_ZERO else floor


def limit_dice(axes: Axes, floor: float, high: float, *, most_ticks: int = 8) -> None:
    """Draw Dice from `floor` to a little above `high`, with ticks up to 1 and a mark when the floor is not 0."""
    axes.set_ylim(floor, max(high + 0.12 * (high - floor), floor + 0.01))
    axes.yaxis.set_major_locator(short_ticks(most_ticks))
    ticks = axes.get_yticks()
    decimals = max(2, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    # No tick above 1, and none where the mark stands.
    lowest = floor + 0.055 * (high - floor) if floor > 0 else 0.0
    axes.set_yticks([dice for dice in ticks if lowest <= dice <= min(1 + 1e-9, axes.get_ylim()[1])])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda dice, _: f"{dice:.{decimals}f}"))
    if floor > 0:
        style: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False, "zorder": 10}
        axes.plot([0, 0], [0.021, 0.039], color=SURFACE.light, lw=3, **style)
        for stroke, height in enumerate((0.013, 0.033)):
            ends = ([-0.011, 0.011], [height, height + 0.014])
            axes.plot(*ends, color=MUTED.light, lw=1.1, gid=f"axis-cut-{stroke}", **style)


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


def label_cost(axes: Axes, label: str) -> None:
    """Name the axis of a cost whose limits stand."""
    axes.set_xlabel(label + (", logarithmic" if axes.get_xscale() == "log" else ""), labelpad=6)


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
        left, right = sorted((self, other), key=lambda label: label.x)
        return right.x - _DIGIT * len(right.text) <= left.x and abs(self.y - other.y) < _HEIGHT


def place(positions: Sequence[tuple[float, float]]) -> list[Label]:
    """Labels 1 … n for points numbered along a front, up and to the left of them, where a front has no points.

    Args:
        positions: of the points in typographic points, by number.
    """
    labels: list[Label] = []
    for index, (x, y) in enumerate(positions, start=1):
        label = Label(first=index, last=index, x=x - _AWAY, y=y + _AWAY)
        while labels and any(label.overlaps(earlier) for earlier in labels):
            # One for both, at the place of the one more to the left, above both.
            last = labels.pop()
            label = Label(first=last.first, last=index, x=min(label.x, last.x), y=max(label.y, last.y))
        labels.append(label)
    return labels


def marker(method: str, *, hollow: bool = False, area: float = _USUAL) -> dict[str, Any]:
    """Keywords of `Axes.plot` for a point of a method; hollow if it rests on one fold."""
    style = METHOD_STYLES[method]
    color = style.paint.light
    return {
        "linestyle": "",
        "marker": style.marker,
        "markersize": math.sqrt(style.area * area),
        "markerfacecolor": SURFACE.light if hollow else color,
        "markeredgecolor": color if hollow else SURFACE.light,
        "markeredgewidth": 1.6 if hollow else 0.7,
    }


def draw_points(axes: Axes, points: pd.DataFrame, *, cost: str) -> None:
    """Draw points, their bars and rings onto axes whose limits stand.

    Args:
        axes: with the cost to the right and Dice upwards.
        points: with `non_dominated`, costs in the unit of the axes.
        cost: column to the right.
    """
    for point, low, high in zip(points.to_dict("records"), *dice_bars(points), strict=True):
        x, dice, best, name = point[cost], point["dice"], point["non_dominated"], belongs_to(point["point_id"])
        area = _LARGE if best else _SMALL
        color = METHOD_STYLES[point["method"]].paint.light
        if high > low:
            axes.add_artist(Line2D([x, x], [low, high], color=color, alpha=0.45, lw=1, zorder=3, gid=name))
        if point["n_folds"] >= MANY_FOLDS:
            look: dict[str, Any] = {"mfc": "none", "mec": color, "mew": 0.9, "markersize": math.sqrt(_RING * area)}
            ring = Line2D([x], [dice], ls="", marker="o", gid=name, clip_on=False, zorder=4, **look)
            ring.set_alpha(1.0 if best else 0.65)
            axes.add_artist(ring)
        mark = Line2D([x], [dice], **marker(point["method"], hollow=point["n_folds"] == 1, area=area))
        mark.set(alpha=1.0 if best else 0.65, zorder=5 if best else 4, clip_on=False)
        mark.set_gid(f"point-{point['point_id']}")
        axes.add_artist(mark)


def method_entries(methods: Iterable[str]) -> list[Entry]:
    """A legend's entry for every method in use, in the order of legends."""
    used = set(methods)
    return [(METHOD_LABELS[one], (Line2D([], [], **marker(one)),)) for one in METHOD_STYLES if one in used]


def fold_entries(n_folds: pd.Series[int]) -> list[Entry]:
    """A legend's entry for every look that tells folds apart; none when all points look alike and have no ring."""
    single, many = n_folds == 1, n_folds >= MANY_FOLDS
    filled = _round(MUTED.light, SURFACE.light)
    entries: list[Entry] = []
    if (~single & ~many).any():
        entries.append(("several folds", (filled,)))
    if single.any():
        entries.append(("one fold", (_round(SURFACE.light, MUTED.light),)))
    if many.any():
        entries.append((f"{MANY_FOLDS} folds or more", (_round("none", MUTED.light, area=_RING * _USUAL), filled)))
    return entries if len(entries) > 1 or many.any() else []


def _round(face: str, edge: str, *, area: float = _USUAL) -> Line2D:
    return Line2D([], [], ls="", marker="o", mfc=face, mec=edge, markersize=np.sqrt(area))

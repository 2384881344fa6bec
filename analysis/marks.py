"""How a point of a figure is drawn: colour and marker of its method, and how much evidence stands behind it.

Hollow: one fold. Filled: several. Filled, with a ring around it: five folds or more, a whole cross-validation. A thin
bar: the interval of its Dice. A point on the front is large, one that something beats small and pale.

Every point is an SVG group of its own, `point-ID`, so that a page can answer to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.intervals import dice_bars
from analysis.methods import METHOD_LABELS
from analysis.style import METHOD_STYLES, MUTED, RULE, SURFACE, MethodStyle

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

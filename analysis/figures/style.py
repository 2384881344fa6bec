"""How things look, the same everywhere: colour and marker of each method, inks, sizes of figures.

The colours of methods are Okabe and Ito's; those of PDL and its combinations are chosen to stay apart from them and
from each other for people with the common colour-blindnesses, too. The markers all differ. Files get the light colours;
a page replaces each by a CSS variable of the same name, so that it follows light and dark.

How a point of a figure is drawn: colour and marker of its method, and how much evidence stands behind it.

Hollow: one fold. Filled: several. Filled, with a ring around it: five folds or more, a whole cross-validation. A thin
bar: the interval of its Dice. A point on the front is large, one that something beats small and pale.

The group of a point in an SVG is named `point-ID`; of what is hidden with the last of some points, such as their bars,
labels and keys, `of-ID-ID`; and of a cloud of marks, one per point, `each-ID-ID`: a page answers to them.

Axes do not mislead: costs start at 0 or say that they are logarithmic, a cut Dice axis carries a mark. Numbers beside
the points of a front never overlap: neighbours too close to each other share one label.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from analysis.statistics.intervals import dice_bars
from analysis.tables.methods import METHOD_LABELS, OTHER

Entry: TypeAlias = tuple[str, tuple[Artist, ...]]
"""An entry of a legend: its text, and the marks drawn over each other before it."""


@dataclass(frozen=True, kw_only=True)
class Paint:
    """A colour of files (`light`) with its counterpart on dark pages; `name` is that of its CSS variable."""

    name: str
    light: str
    dark: str


INK = Paint(name="ink", light="#1f2328", dark="#e8ebef")
MUTED = Paint(name="muted", light="#59626d", dark="#a3adb8")
RULE = Paint(name="rule", light="#c9ced4", dark="#4a525c")
GRID = Paint(name="grid", light="#e7eaed", dark="#2b3138")
SHADE = Paint(name="shade", light="#f4f6f8", dark="#1d2228")
SURFACE = Paint(name="surface", light="#ffffff", dark="#14181d")

_LIGHT = ("#4f576c", "#666970", "#7d7c78", "#948e77", "#aea371", "#c8b866")
_DARK = ("#7d7c78", "#948e77", "#aea371", "#c8b866", "#e5cf52", "#fee838")
LINES = tuple(
    Paint(name=f"line-{number}", light=light, dark=dark)
    for number, (light, dark) in enumerate(zip(_LIGHT, _DARK, strict=True))
)
"""Of several fronts in one figure, from dark to light: matplotlib's cividis, which any eyes tell apart."""


Marker: TypeAlias = str | tuple[int, Literal[1], int]
"""Of matplotlib: a letter, or a star by its number of points."""


@dataclass(frozen=True, kw_only=True)
class MethodStyle:
    """Colour, matplotlib marker and relative area of a method's points."""

    paint: Paint
    marker: Marker
    area: float = 1.0


_STYLES: Mapping[str, MethodStyle] = {
    "cps": MethodStyle(paint=Paint(name="cps", light="#3f4650", dark="#d0d5db"), marker="s", area=0.85),
    "pgps": MethodStyle(paint=Paint(name="pgps", light="#0072b2", dark="#4a9be0"), marker="o"),
    "pgps+": MethodStyle(paint=Paint(name="pgps-plus", light="#d55e00", dark="#f28a3d"), marker="P", area=1.15),
    "rpss": MethodStyle(paint=Paint(name="rpss", light="#009e73", dark="#2cc398"), marker="*", area=1.7),
    "efficiency": MethodStyle(paint=Paint(name="efficiency", light="#cc79a7", dark="#e39ac3"), marker="v", area=1.1),
    "performance": MethodStyle(paint=Paint(name="performance", light="#e69f00", dark="#f5b92e"), marker="^", area=1.1),
    "other": MethodStyle(paint=Paint(name="searched", light="#56b4e9", dark="#9fd8fb"), marker="D", area=0.7),
    "pdl": MethodStyle(paint=Paint(name="pdl", light="#9700fc", dark="#8823fe"), marker="X", area=1.1),
    "pdl+pgps": MethodStyle(paint=Paint(name="pdl-pgps", light="#6f2304", dark="#c9093e"), marker="p", area=1.2),
    "pdl+pgps+": MethodStyle(paint=Paint(name="pdl-pgps-plus", light="#41055b", dark="#8c5081"), marker="d", area=1.1),
    "pdl+rpss": MethodStyle(paint=Paint(name="pdl-rpss", light="#9772fe", dark="#5955ce"), marker="h", area=1.2),
    "pdl+efficiency": MethodStyle(paint=Paint(name="pdl-efficiency", light="#411305", dark="#f1e27b"), marker="<"),
    "pdl+performance": MethodStyle(paint=Paint(name="pdl-performance", light="#ed0c46", dark="#b34b02"), marker=">"),
    "pdl+other": MethodStyle(paint=Paint(name="pdl-searched", light="#5a02b2", dark="#29ffad"), marker="8", area=0.9),
    "imported": MethodStyle(paint=Paint(name="imported", light="#9c3c00", dark="#f030b4"), marker=(8, 1, 0), area=1.4),
}
SPARE_STYLES = (
    MethodStyle(paint=Paint(name="spare-1", light="#000078", dark="#488460"), marker=(4, 1, 0), area=1.6),
    MethodStyle(paint=Paint(name="spare-2", light="#a80090", dark="#901890"), marker=(6, 1, 0), area=1.4),
    MethodStyle(paint=Paint(name="spare-3", light="#54783c", dark="#78b46c"), marker=(3, 1, 0), area=1.6),
)
"""For methods that have no style of their own."""


def styles_of(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """The style of each method: its own, the next spare one, or when those are used up that of searched curricula."""
    spare = iter(SPARE_STYLES)
    return {method: _STYLES.get(method) or next(spare, _STYLES[OTHER]) for method in methods}


METHOD_STYLES: Mapping[str, MethodStyle] = styles_of(METHOD_LABELS)
"""Style of each method, in the order of legends."""

_METHOD_PAINTS = dict.fromkeys(style.paint for style in METHOD_STYLES.values())
PAINTS: tuple[Paint, ...] = (INK, MUTED, RULE, GRID, SHADE, SURFACE, *LINES, *_METHOD_PAINTS)
"""Every colour in use; no two are the same."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a figure is seen: its width in inches, and what there is room for.

    Attributes:
        width: of the figure.
        left: from its edge to the plot.
        rail: whether panels stand side by side, and legend and key in a rail to the right; otherwise below each other.
        line_letters: letters that a line of title and footnote holds.
        alone: whether title, subject and footnote are in the figure; a page has them as text around it.
    """

    width: float
    left: float
    rail: bool
    line_letters: int
    alone: bool = True


FILE = Layout(width=10.3, left=0.8, rail=True, line_letters=180)
WIDE = replace(FILE, alone=False)
NARROW = Layout(width=4.3, left=0.72, rail=False, line_letters=58, alone=False)
"""`FILE` for pictures on their own, `WIDE` and `NARROW` for pages."""

# What a figure does not look like by: how it gets to a screen.
_NOT_LOOKS = ("backend", "interactive", "toolbar", "timezone", "tk.", "webagg.", "savefig.directory", "date.epoch")

RC: dict[Any, Any] = {
    # matplotlib's own defaults, whatever a user's settings or another library (nnU-Net's seaborn) have made of them.
    **{name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith(_NOT_LOOKS)},
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK.light,
    # A dollar sign in a name is a dollar sign.
    "text.parse_math": False,
    "axes.edgecolor": RULE.light,
    "axes.labelcolor": INK.light,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID.light,
    "grid.linewidth": 0.8,
    "xtick.color": RULE.light,
    "ytick.color": RULE.light,
    "xtick.labelcolor": MUTED.light,
    "ytick.labelcolor": MUTED.light,
    "legend.frameon": False,
    "figure.facecolor": SURFACE.light,
    "axes.facecolor": SURFACE.light,
    "savefig.facecolor": SURFACE.light,
    "svg.hashsalt": "pgps-study",
}
"""matplotlib's settings for every figure."""


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

"""Pareto figures: Dice against a cost, the front as steps, one colour and marker per method.

How a point looks is told in `marks`. Points on the front are numbered. With a third objective, the area of a mark
stands for it, and there is no line: a front of three objectives is a surface. The Dice axis is cut only with a mark at
its foot. Nothing here touches matplotlib's global state or needs a display.
"""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from analysis.figures import encodings as labels
from analysis.figures.encodings import (
    Entry,
    area_of,
    belongs_to,
    draw_points,
    fold_entries,
    limit_cost,
    limit_dice,
    method_entries,
    size_entries,
)
from analysis.figures.style import FILE, INK, LINES, MUTED, RC, RULE, SHADE, Layout
from analysis.fronts.captions import amount_of, drawn_floor, notes, scale_of, subject, title
from analysis.fronts.front import Front
from analysis.statistics.intervals import dice_bars
from analysis.tables.columns import BY_NAME
from analysis.tables.units import Scale, label_with_unit, number

# Heights of a line in inches; letters that fit a line of the key.
_NOTE_LINE, _KEY_LINE, _KEY_LETTERS = 0.155, 0.165, 29
_POINTS_PER_INCH = 72
# Letters in a line of the title, as a share of those in a line of the footnote.
_TITLE_SHARE = 0.56
# One pattern per group's line; there is no figure of more groups than these.
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (2, 2)), (0, (8, 2, 1, 2, 1, 2)))
MOST_GROUPS = len(_DASHES)
# Letters of a legend's entry beside others in a row; longer ones stand below each other, in lines of so many.
_SHORT, _LEGEND_LETTERS = 18, 44


def pareto_figure(front: Front, *, layout: Layout = FILE) -> Figure:
    """The figure of one dataset's front.

    Args:
        front: with at least one point; Dice first, one cost second, perhaps another one third. With `by`, each of
            at most MOST_GROUPS groups has a line of its own, and points are not numbered.
        layout: size and arrangement.
    """
    with mpl.rc_context(RC):
        return _Drawing(front, layout).figure()


class _Drawing:
    """One figure in the making: the points in reading units, and where things stand in inches."""

    def __init__(self, front: Front, layout: Layout) -> None:
        self.front, self.layout = front, layout
        self.dice, self.cost, *more = (objective.name for objective in front.objectives)
        self.size = more[0] if more else None
        self.scale: Scale = scale_of(front.objectives[1], front.points[self.cost].max())
        self.points = front.points.assign(**{self.cost: front.points[self.cost] * self.scale.factor})
        self.best = self.points[self.points["non_dominated"]].sort_values("number")
        self.floor = drawn_floor(front.points)
        self.notes = textwrap.wrap(" ".join(notes(front)), layout.line_letters) if layout.notes else []
        self.subject = textwrap.wrap(subject(self.points), layout.line_letters)
        self.entries = self._legend_entries()
        self.legend_columns, self.legend_rows = self._legend_shape()
        self.below = 0.66 + _NOTE_LINE * len(self.notes) + (0.0 if layout.rail else 0.2 * self.legend_rows + 0.1)
        self.title = textwrap.wrap(title(front), round(_TITLE_SHARE * layout.line_letters))
        self.above = 0.6 + 0.2 * (len(self.title) - 1) + 0.16 * len(self.subject)
        self.height = self.above + layout.plot_height + self.below

    def figure(self) -> Figure:
        """Everything, drawn."""
        self.fig = Figure(figsize=(self.layout.width, self.height))
        self.axes = self._axes()
        if self.size is None:
            self._draw_front_lines()
        draw_points(self.axes, self.points, cost=self.cost, size=self.size)
        self._write_titles()
        self._write_notes()
        self._draw_legend()
        if self.front.by is None:
            self._draw_labels()
            if self.layout.rail:
                self._write_key()
        return self.fig

    def _axes(self) -> Axes:
        layout = self.layout
        box = (layout.left, self.below, layout.plot_width, layout.plot_height)
        across, up = layout.width, self.height
        axes = self.fig.add_axes((box[0] / across, box[1] / up, box[2] / across, box[3] / up))
        axes.tick_params(length=0, pad=5)
        limit_dice(axes, self.floor, float(dice_bars(self.points)[1].max()))
        limit_cost(axes, self.points[self.cost])
        label = label_with_unit(self.front.objectives[1].label, self.scale.unit)
        axes.set_xlabel(label + (", logarithmic" if axes.get_xscale() == "log" else ""), labelpad=6)
        axes.set_ylabel("Dice (mean over foreground)", labelpad=8)
        return axes

    def _draw_front_lines(self) -> None:
        right, floor = self.axes.get_xlim()[1], self.axes.get_ylim()[0]
        groups = self._groups()
        for dashes, color, (_, group) in zip(_DASHES, _colors(len(groups)), groups, strict=False):
            x = [*group[self.cost].iloc[:1], *group[self.cost], right]
            y = [floor, *group[self.dice], group[self.dice].max()]
            self.axes.plot(x, y, drawstyle="steps-post", color=color, lw=1.2, ls=dashes, zorder=2)
            if self.front.by is None:
                self.axes.fill_between(x, y, floor, step="post", color=SHADE.light, lw=0, zorder=0)

    def _groups(self) -> list[tuple[str, pd.DataFrame]]:
        """The lines to draw: name in the legend, and the points it runs through."""
        by = self.front.by
        if by is None:
            return [("", self.best)]
        return [(_group_words(by, name), group) for name, group in self.best.groupby(by)]

    def _draw_labels(self) -> None:
        pixels = self.axes.transData.transform(self.best[[self.cost, self.dice]].to_numpy(dtype=float))
        numbered = self.best["point_id"].tolist()
        inches = self.fig.dpi_scale_trans.inverted().transform(pixels)
        for label in labels.place([(x, y) for x, y in inches * _POINTS_PER_INCH]):
            self.fig.text(
                label.x / _POINTS_PER_INCH / self.layout.width,
                label.y / _POINTS_PER_INCH / self.height,
                label.text,
                ha="right",
                va="bottom",
                fontsize=labels.FONT_SIZE,
                color=INK.light,
                gid=f"front-label-{belongs_to(*numbered[label.first - 1 : label.last])}",
            )

    def _write(self, x: float, from_top: float, text: str, **style: Any) -> None:
        self.fig.text(x / self.layout.width, 1 - from_top / self.height, text, **{"va": "top", **style})

    def _write_titles(self) -> None:
        self._write(0.22, 0.16, "\n".join(self.title), fontsize=12.5, fontweight="bold", linespacing=1.15)
        self._write(
            0.22,
            0.43 + 0.2 * (len(self.title) - 1),
            "\n".join(self.subject),
            fontsize=8.3,
            color=MUTED.light,
            linespacing=1.35,
        )

    def _write_notes(self) -> None:
        top = self.height - _NOTE_LINE * len(self.notes) - 0.08
        self._write(0.22, top, "\n".join(self.notes), fontsize=7.4, color=MUTED.light, linespacing=1.4)

    def _draw_legend(self) -> None:
        rail = self.layout.rail
        left = self._rail_left - 0.06 if rail else 0.12
        top = self.below + self.layout.plot_height if rail else self.below - 0.5
        self.fig.legend(
            handles=[marks for _, marks in self.entries],
            labels=[label for label, _ in self.entries],
            handler_map={tuple: HandlerTuple(ndivide=1)},
            loc="upper left",
            bbox_to_anchor=(left / self.layout.width, top / self.height),
            ncols=self.legend_columns,
            fontsize=8.3,
            handletextpad=0.3,
            columnspacing=1.2,
            borderpad=0,
            labelspacing=0.45,
        )

    def _legend_entries(self) -> list[Entry]:
        names = [textwrap.fill(name, _LEGEND_LETTERS) for name, _ in self._groups() if name]
        lines: list[Entry] = [
            (name, (Line2D([], [], color=color, lw=1.2, ls=dashes),))
            for dashes, color, name in zip(_DASHES, _colors(len(names)), names, strict=False)
        ]
        sizes = size_entries(self._sizes()) if self.size else []
        return [*method_entries(self.points), *fold_entries(self.points), *sizes, *lines]

    def _legend_shape(self) -> tuple[int, int]:
        """Columns of the legend, and its height in lines."""
        labels = [label for label, _ in self.entries]
        if max(map(len, labels)) > _SHORT:
            return 1, sum(1 + label.count("\n") for label in labels)
        columns = 2 if self.layout.rail else 3
        return columns, -(-len(labels) // columns)

    def _sizes(self) -> list[tuple[str, float]]:
        """Two amounts of the third objective in words, with the areas that stand for them."""
        third = self.front.objectives[2]
        largest = float(self.points[third.name].max())
        return [(amount_of(third, part * largest), area_of(part * largest, largest)) for part in (1.0, 0.25)]

    @property
    def _rail_left(self) -> float:
        return self.layout.left + self.layout.plot_width + 0.3

    def _write_key(self) -> None:
        top = self.above + 0.2 * self.legend_rows + 0.35
        self._key_row(top, ("", "On the front", "Dice", self.scale.unit or "share"), color=MUTED.light, fontsize=7.6)
        ends = (self._rail_left / self.layout.width, 1 - 0.22 / self.layout.width)
        self.fig.add_artist(Line2D(ends, [1 - (top + 0.07) / self.height] * 2, color=RULE.light, lw=0.8))
        top += 0.26
        bottom = self.above + self.layout.plot_height + 0.25
        for written, (_, row) in enumerate(self.best.iterrows()):
            lines = textwrap.wrap(row["summary"], _KEY_LETTERS)
            if top + _KEY_LINE * len(lines) > bottom - _KEY_LINE * (written + 1 < len(self.best)):
                more = f"and {len(self.best) - written} more: see the table of the front"
                self._key_row(top, ("", more, "", ""), color=MUTED.light, fontsize=7.6)
                break
            cells = (str(row["number"]), lines[0], number(row[self.dice], 4), number(row[self.cost]))
            gid = belongs_to(row["point_id"])
            self._key_row(top, cells, fontsize=8, gid=gid)
            for line in lines[1:]:
                top += _KEY_LINE
                self._key_row(top, ("", line, "", ""), fontsize=8, gid=gid)
            top += _KEY_LINE + 0.035

    def _key_row(self, top: float, cells: tuple[str, str, str, str], **style: Any) -> None:
        left, right = self._rail_left, self.layout.width - 0.22
        numeral, summary, dice, cost = cells
        style["va"] = "baseline"
        self._write(left + 0.14, top, numeral, ha="right", **style)
        self._write(left + 0.22, top, summary, **style)
        self._write(right - 0.52, top, dice, ha="right", **style)
        self._write(right, top, cost, ha="right", **style)


def _colors(lines: int) -> list[str]:
    """A colour for every line of a front, as far apart as they go."""
    if lines < 2:
        return [MUTED.light] * lines
    return [LINES[round((len(LINES) - 1) * min(1, line / (lines - 1)))].light for line in range(lines)]


def _group_words(by: str, value: object) -> str:
    words = f"{value:.0%}" if by == "budget" else str(value)
    return f"{BY_NAME[by].label.lower()} {words}"

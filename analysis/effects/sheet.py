"""A sheet: panels in a grid under a title, notes and a legend below, measured in inches so that nothing overlaps."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.style import INK, METHOD_STYLES, MUTED, SURFACE, Layout
from analysis.tables.methods import METHOD_LABELS

_NOTE_LINE, _LEGEND_LINE, _EDGE = 0.155, 0.215, 0.22
# Inches that a letter of the legend takes, and what stands before it.
_LEGEND_LETTER, _LEGEND_HANDLE = 0.07, 0.45


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What a figure of panels is made of; lengths are in inches.

    Attributes:
        layout: its width and whether notes are in it.
        title: of the figure.
        subject: what it rests on, in a line.
        notes: sentences below, where the layout has room for them.
        rows, columns: of panels.
        panel_height: of each.
        left: for the tick labels of the first column; gap_across, gap_down: between panels.
        foot: for the tick labels of the last row.
        legend: handles, in order.
    """

    layout: Layout
    title: str
    subject: str
    notes: Sequence[str] = ()
    rows: int = 1
    columns: int = 1
    panel_height: float = 2.2
    left: float = 0.85
    gap_across: float = 0.7
    gap_down: float = 0.75
    foot: float = 0.6
    legend: Sequence[Any] = ()

    def build(self) -> tuple[Figure, list[Axes]]:
        """The figure and its panels, row by row; call within `mpl.rc_context(style.RC)`."""
        figure = Figure(figsize=(self.layout.width, self.height))
        panels = [self._panel(figure, row, column) for row in range(self.rows) for column in range(self.columns)]
        self._write(figure, 0.16, self.title, fontsize=12.5, fontweight="bold")
        self._write(figure, 0.43, "\n".join(self._subject), fontsize=8.3, color=MUTED.light, linespacing=1.35)
        note_top = self.height - _NOTE_LINE * len(self._notes) - 0.08
        self._write(figure, note_top, "\n".join(self._notes), fontsize=7.5, color=MUTED.light, linespacing=1.4)
        if self.legend:
            place = (0.12 / self.layout.width, (self._below - self.foot) / self.height)
            figure.legend(
                handles=list(self.legend),
                loc="upper left",
                bbox_to_anchor=place,
                ncols=self._legend_columns,
                fontsize=8.3,
                handletextpad=0.4,
                columnspacing=1.4,
                borderpad=0,
                labelspacing=0.45,
            )
        return figure, panels

    @property
    def height(self) -> float:
        """Of the figure."""
        return self._above + self.rows * self.panel_height + (self.rows - 1) * self.gap_down + self._below

    @property
    def panel_width(self) -> float:
        """Of each panel."""
        free = self.layout.width - self.left - _EDGE - (self.columns - 1) * self.gap_across
        return free / self.columns

    @property
    def _subject(self) -> list[str]:
        return textwrap.wrap(self.subject, self.layout.line_letters)

    @property
    def _notes(self) -> list[str]:
        return textwrap.wrap(" ".join(self.notes), self.layout.line_letters - 4) if self.layout.notes else []

    @property
    def _above(self) -> float:
        return 0.78 + 0.16 * len(self._subject)

    @property
    def _below(self) -> float:
        legend = _LEGEND_LINE * -(-len(self.legend) // self._legend_columns) + 0.1 if self.legend else 0.0
        return self.foot + legend + _NOTE_LINE * len(self._notes) + 0.1

    @property
    def _legend_columns(self) -> int:
        """All in one row if they fit, else as many equally wide columns as fill the fewest rows."""
        widths = [_LEGEND_HANDLE + _LEGEND_LETTER * len(str(handle.get_label())) for handle in self.legend]
        room = self.layout.width - _EDGE
        if sum(widths) <= room:
            return max(1, len(widths))
        rows = -(-len(widths) // max(1, int(room / max(widths))))
        return -(-len(widths) // rows)

    def _panel(self, figure: Figure, row: int, column: int) -> Axes:
        left = self.left + column * (self.panel_width + self.gap_across)
        top = self._above + row * (self.panel_height + self.gap_down)
        across, up = self.layout.width, self.height
        bottom = up - top - self.panel_height
        axes = figure.add_axes((left / across, bottom / up, self.panel_width / across, self.panel_height / up))
        axes.tick_params(length=0, pad=4, labelsize=8)
        axes.xaxis.label.set_fontsize(8.8)
        axes.yaxis.label.set_fontsize(8.8)
        return axes

    def _write(self, figure: Figure, from_top: float, text: str, **style: Any) -> None:
        figure.text(_EDGE / self.layout.width, 1 - from_top / self.height, text, **{"va": "top", **style})


def method_handles(methods: Sequence[str]) -> list[Line2D]:
    """Legend entries of the methods in use, in the order of legends."""
    return [marker_handle(method, METHOD_LABELS[method]) for method in METHOD_STYLES if method in set(methods)]


def marker_handle(method: str, label: str, **style: Any) -> Line2D:
    """A legend entry in a method's colour and marker."""
    look = METHOD_STYLES[method]
    usual: dict[str, Any] = {"linestyle": "", "markeredgecolor": SURFACE.light}
    return Line2D(
        [],
        [],
        color=look.paint.light,
        marker=look.marker,
        markersize=7.5 * look.area**0.5,
        label=label,
        **{**usual, **style},
    )


def front_handle() -> Line2D:
    """The legend entry of points on the front: a ring."""
    return Line2D(
        [],
        [],
        linestyle="",
        marker="o",
        markerfacecolor="none",
        markeredgecolor=INK.light,
        markersize=8.5,
        label="on the front",
    )

"""The frame of every figure: panels in a grid under a title, a legend and notes, in inches so that none overlap."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple

from analysis.figures.style import MUTED, RC, Entry, Layout

EDGE = 0.22
_NOTE_LINE, _LEGEND_LINE, _RAIL_GAP = 0.155, 0.215, 0.3
# Inches that a letter of the legend takes, and what stands before it; letters of the title for those of a footnote.
_LEGEND_LETTER, _LEGEND_HANDLE, _TITLE_SHARE = 0.07, 0.45, 0.56


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What a figure is made of; lengths are in inches.

    Attributes:
        layout: its width, and whether words are in it.
        title, subject: of the figure, and what it rests on, where it stands alone.
        notes: sentences below, likewise.
        legend: entries, in order; below the panels, or in the rail where there is one.
        rows, columns: of panels, each of `panel_height`.
        left: for the tick labels of the first column; by default the layout's.
        gap_across, gap_down: between panels; `head` above the first row, `foot` below the last one.
        rail: width of a column to the right of the panels.
    """

    layout: Layout
    title: str
    subject: str
    notes: Sequence[str] = ()
    legend: Sequence[Entry] = ()
    rows: int = 1
    columns: int = 1
    panel_height: float = 2.2
    left: float | None = None
    gap_across: float = 0.7
    gap_down: float = 0.75
    head: float = 0.0
    foot: float = 0.6
    rail: float = 0.0

    @contextmanager
    def drawn(self) -> Iterator[tuple[Figure, list[Axes]]]:
        """The figure with its empty panels, row by row, to be drawn on in our style."""
        with mpl.rc_context(RC):
            figure = Figure(figsize=(self.layout.width, self.height))
            title, subject, notes = map("\n".join, (self._title, self._subject, self._notes))
            self.write(figure, EDGE, 0.16, title, fontsize=12.5, fontweight="bold", linespacing=1.15)
            muted: dict[str, Any] = {"color": MUTED.light}
            self.write(figure, EDGE, 0.23 + 0.2 * len(self._title), subject, fontsize=8.3, linespacing=1.35, **muted)
            note_top = self.height - _NOTE_LINE * len(self._notes) - 0.08
            self.write(figure, EDGE, note_top, notes, fontsize=7.5, linespacing=1.4, **muted)
            self._draw_legend(figure)
            places = [(row, column) for row in range(self.rows) for column in range(self.columns)]
            yield figure, [self._panel(figure, *place) for place in places]

    def write(self, figure: Figure, x: float, from_top: float, text: str, **style: Any) -> None:
        """Text at a place of the sheet."""
        figure.text(x / self.layout.width, 1 - from_top / self.height, text, **{"va": "top", **style})

    @property
    def height(self) -> float:
        """Of the figure."""
        return self.above + self.rows * self.panel_height + (self.rows - 1) * self.gap_down + self._below

    @property
    def above(self) -> float:
        """From the upper edge to the first panel."""
        words = 0.35 + 0.2 * len(self._title) + 0.16 * len(self._subject) if self.layout.alone else 0.0
        return 0.12 + words + self.head

    @property
    def panel_width(self) -> float:
        """Of each panel."""
        free = self.layout.width - self._left - EDGE - self.rail - (self.columns - 1) * self.gap_across
        return free / self.columns

    @property
    def rail_left(self) -> float:
        """Where what stands in the rail begins."""
        return self.layout.width - EDGE - self.rail + _RAIL_GAP

    @property
    def legend_height(self) -> float:
        """Of the legend, wherever it stands."""
        if not self.legend:
            return 0.0
        columns = self._legend_columns
        lines = [1 + text.count("\n") for text, _ in self.legend]
        return _LEGEND_LINE * (sum(lines) if columns == 1 else -(-len(lines) // columns)) + 0.1

    @property
    def _left(self) -> float:
        return self.layout.left if self.left is None else self.left

    @property
    def _title(self) -> list[str]:
        return textwrap.wrap(self.title, round(_TITLE_SHARE * self.layout.line_letters)) if self.layout.alone else []

    @property
    def _subject(self) -> list[str]:
        return textwrap.wrap(self.subject, self.layout.line_letters) if self.layout.alone else []

    @property
    def _notes(self) -> list[str]:
        return textwrap.wrap(" ".join(self.notes), self.layout.line_letters - 4) if self.layout.alone else []

    @property
    def _below(self) -> float:
        return self.foot + (0.0 if self.rail else self.legend_height) + _NOTE_LINE * len(self._notes) + 0.1

    @property
    def _legend_columns(self) -> int:
        """All in one row if they fit, else as many equally wide columns as fill the fewest rows."""
        longest = [max(map(len, text.split("\n"))) for text, _ in self.legend]
        widths = [_LEGEND_HANDLE + _LEGEND_LETTER * letters for letters in longest]
        room = self.rail - _RAIL_GAP if self.rail else self.layout.width - EDGE
        if sum(widths) <= room:
            return len(widths)
        rows = -(-len(widths) // max(1, int(room / max(widths))))
        return -(-len(widths) // rows)

    def _draw_legend(self, figure: Figure) -> None:
        if not self.legend:
            return
        left = self.rail_left - 0.06 if self.rail else 0.12
        top = self.height - self.above if self.rail else self._below - self.foot
        figure.legend(
            handles=[marks for _, marks in self.legend],
            labels=[text for text, _ in self.legend],
            handler_map={tuple: HandlerTuple(ndivide=1)},
            loc="upper left",
            bbox_to_anchor=(left / self.layout.width, top / self.height),
            ncols=self._legend_columns,
            fontsize=8.3,
            handletextpad=0.4,
            columnspacing=1.3,
            borderpad=0,
            labelspacing=0.45,
        )

    def _panel(self, figure: Figure, row: int, column: int) -> Axes:
        left = self._left + column * (self.panel_width + self.gap_across)
        bottom = self.height - self.above - row * (self.panel_height + self.gap_down) - self.panel_height
        across, up = self.layout.width, self.height
        axes = figure.add_axes((left / across, bottom / up, self.panel_width / across, self.panel_height / up))
        axes.tick_params(length=0, pad=4.5)
        if self.rows * self.columns > 1:
            axes.tick_params(labelsize=8)
            axes.xaxis.label.set_fontsize(8.8)
            axes.yaxis.label.set_fontsize(8.8)
        return axes

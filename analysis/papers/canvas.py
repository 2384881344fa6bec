"""The frame of these figures: title, what it rests on, panels, a legend below, notes. Places are in inches.

Panels stand side by side where there is room and below each other on narrow pages.

Sentences about the machines behind some points, wherever their seconds, energy or CO₂ are shown side by side.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.style import METHOD_STYLES, MUTED, SURFACE, Layout, Marker
from analysis.fronts.caveats import estimated_parts, words_of
from analysis.tables.contention import sentences as contention
from analysis.tables.methods import METHOD_LABELS

_MARGIN, _LINE, _NOTE_LINE, _GAP = 0.22, 0.16, 0.155, 0.3
_TITLE, _AXIS_LABEL, _LEGEND_ROW, _ABOVE_PANEL = 0.5, 0.62, 0.22, 0.17
# Points of one fold are hollow.
_HOLLOW_WIDTH = 1.6


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What stands around the panels.

    Attributes:
        title: of the figure.
        subject: what it rests on, a line below the title.
        notes: sentences at its foot, in files only.
        handles: of the legend.
        columns: of the legend on a narrow page.
    """

    title: str
    subject: str
    notes: Sequence[str]
    handles: Sequence[Line2D]
    columns: int = 3


def draw_frame(layout: Layout, frame: Frame, *, count: int, panel_height: float) -> tuple[Figure, list[Axes]]:
    """A figure with empty panels of a height in inches; inside `mpl.rc_context(RC)`."""
    title = textwrap.wrap(frame.title, layout.line_letters // 2 + 2)
    subject = textwrap.wrap(frame.subject, layout.line_letters)
    notes = textwrap.wrap(" ".join(frame.notes), layout.line_letters) if layout.notes else []
    columns = len(frame.handles) if layout.rail else frame.columns
    legend = _LEGEND_ROW * -(-len(frame.handles) // max(1, columns)) + 0.05
    rows = 1 if layout.rail else count
    above = _TITLE + 0.21 * (len(title) - 1) + _LINE * len(subject) + _ABOVE_PANEL
    below = _AXIS_LABEL + legend + _NOTE_LINE * len(notes) + 0.12
    height = above + rows * panel_height + (rows - 1) * (_AXIS_LABEL + _ABOVE_PANEL) + below
    figure = Figure(figsize=(layout.width, height))
    _write(figure, 0.16, "\n".join(title), fontsize=12.5, fontweight="bold", linespacing=1.25)
    _write(figure, 0.43 + 0.21 * (len(title) - 1), "\n".join(subject), fontsize=8.3, color=MUTED.light)
    _write(figure, height - _NOTE_LINE * len(notes) - 0.08, "\n".join(notes), fontsize=7.5, color=MUTED.light)
    figure.legend(
        handles=list(frame.handles),
        loc="upper left",
        bbox_to_anchor=(0.12 / layout.width, (below - _AXIS_LABEL + 0.06) / height),
        ncols=columns,
        fontsize=8.3,
        handletextpad=0.3,
        columnspacing=1.2,
        borderpad=0,
    )
    return figure, [_panel(figure, layout, index, count, above, panel_height) for index in range(count)]


def method_handle(method: str) -> Line2D:
    """The legend's entry of a scheme, in its colour and marker."""
    style = METHOD_STYLES[method]
    size = 7.5 * np.sqrt(style.area)
    return _handle(style.marker, style.paint.light, SURFACE.light, METHOD_LABELS[method], float(size))


def fold_handles(single: Sequence[bool]) -> list[Line2D]:
    """What a hollow point is, if there is one."""
    return [_handle("o", SURFACE.light, MUTED.light, "one fold", 7.0)] if any(single) else []


def marker_style(method: str, *, single: bool) -> dict[str, Any]:
    """Keywords of `Axes.plot` for a point of a scheme; hollow if it rests on one fold."""
    style = METHOD_STYLES[method]
    color = style.paint.light
    return {
        "marker": style.marker,
        "markersize": 7.5 * float(np.sqrt(style.area)),
        "markerfacecolor": SURFACE.light if single else color,
        "markeredgecolor": color if single else SURFACE.light,
        "markeredgewidth": _HOLLOW_WIDTH if single else 0.7,
        "linestyle": "",
    }


def short_names(datasets: Sequence[str]) -> dict[str, str]:
    """`Hippocampus` for `Dataset004_Hippocampus`; the whole name where two would be the same."""
    short = {name: name.partition("_")[2] or name for name in datasets}
    return {name: word if list(short.values()).count(word) == 1 else name for name, word in short.items()}


def _panel(figure: Figure, layout: Layout, index: int, count: int, above: float, panel_height: float) -> Axes:
    width, height = figure.get_size_inches()
    if layout.rail:
        panel_width = (width - layout.left - _MARGIN - (count - 1) * _GAP) / count
        left, top = layout.left + index * (panel_width + _GAP), above
    else:
        panel_width, left = layout.plot_width, layout.left
        top = above + index * (panel_height + _AXIS_LABEL + _ABOVE_PANEL)
    box = (left / width, 1 - (top + panel_height) / height, panel_width / width, panel_height / height)
    axes = figure.add_axes(box)
    axes.tick_params(length=0, pad=5)
    return axes


def _write(figure: Figure, from_top: float, text: str, **style: Any) -> None:
    width, height = figure.get_size_inches()
    figure.text(_MARGIN / width, 1 - from_top / height, text, va="top", **{"linespacing": 1.35, **style})


def _handle(marker: Marker, face: str, edge: str, label: str, size: float) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker=marker, markerfacecolor=face, markeredgecolor=edge, markersize=size, label=label
    )


_SHARES = {"cpus": "CPUs", "gpus": "GPUs"}


def about_machines(points: pd.DataFrame, *, energy: bool = True) -> list[str]:
    """What keeps costs of these points from being compared, and, with `energy`, which energy is estimated."""
    sentences = []
    hardware = sorted(words_of(points["hardware"]))
    if len(hardware) > 1:
        sentences.append(
            f"Different hardware, whose runtime, energy and CO₂ do not compare as they stand: {', '.join(hardware)}."
        )
    shares = [words for name, words in _SHARES.items() if len(words_of(points[name])) > 1]
    if shares:
        sentences.append(f"Trials had different shares of the {' and '.join(shares)}, which changes their runtime.")
    if len(words_of(points["concurrent_trials"])) > 1:
        sentences.append("Different numbers of trials ran at once on the machine, which changes their runtime.")
    sentences += contention(points)
    parts = estimated_parts(points["energy_methods"]) if energy else []
    if parts and points["energy_kwh"].notna().any():
        sentences.append(f"Energy of {' and '.join(parts)} is estimated, not measured.")
    return sentences

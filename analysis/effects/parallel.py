"""Parallel coordinates: a line per point through all axes, its Dice and its costs; lines of the front are strong."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.effects.sheet import Sheet, method_handles
from analysis.effects.slices import positions
from analysis.effects.varying import VaryingAxis
from analysis.figures.style import INK, METHOD_STYLES, MUTED, RC, RULE, SURFACE, Layout
from analysis.fronts.front import Front
from analysis.tables.columns import BY_NAME
from analysis.tables.units import counted, label_with_unit, number, reading_scale

MANY_LINES = 150
_STEP_DOWN = 0.68
# How much of the spread of slices lines of one category keep.
_SPREAD = 0.3
# Words over lines stay readable.
_HALO = {"facecolor": SURFACE.light, "edgecolor": "none", "alpha": 0.8, "pad": 0.6}


@dataclass(frozen=True, kw_only=True)
class Coordinate:
    """One coordinate: places of the points from 0 to 1, and words at some places."""

    label: str
    places: NDArray[np.float64]
    ticks: Sequence[tuple[float, str]]


def parallel_coordinates(
    front: Front, axes: Sequence[VaryingAxis], *, subject: str, notes: Sequence[str], layout: Layout
) -> Figure:
    """The figure; on a narrow page coordinates lie below each other, else side by side.

    Args:
        front: of one dataset, with at least one point; Dice first, then costs.
        axes: that vary between its points.
        subject: what it rests on.
        notes: sentences below.
        layout: size and arrangement.
    """
    scales = [_axis_scale(axis, front) for axis in axes]
    scales += [_result_scale(front, objective.name) for objective in front.objectives]
    strong = Line2D([], [], color=INK.light, lw=2, label="on the front")
    sheet = Sheet(
        layout=layout,
        title="All points, axis by axis",
        subject=subject,
        notes=notes,
        panel_height=3.3 if layout.rail else _STEP_DOWN * len(scales),
        left=0.75 if layout.rail else 0.35,
        foot=0.95 if layout.rail else 0.25,
        legend=[*method_handles(front.points["method"].tolist()), strong],
    )
    with mpl.rc_context(RC):
        figure, [panel] = sheet.build()
        _draw_lines(panel, front, scales, across=layout.rail)
        for place, scale in enumerate(scales):
            _draw_scale(panel, place, scale, across=layout.rail, letters=_letters(sheet, scales))
        _frame(panel, len(scales), across=layout.rail)
    return figure


def _letters(sheet: Sheet, scales: Sequence[Coordinate]) -> int:
    """How many letters fit between two coordinates side by side."""
    return max(8, int(sheet.panel_width / max(1, len(scales) - 0.4) / 0.072))


def _axis_scale(axis: VaryingAxis, front: Front) -> Coordinate:
    places = positions(axis, front.points)
    if axis.numeric:
        scaled = np.log10(places) if axis.logarithmic else places
        return _numeric(axis.label, scaled, [f"{float(v):.3g}" for v in (places.min(), places.max())])
    words = axis.categories
    span = max(1, len(words) - 1)
    within = np.round(places)
    return Coordinate(
        label=axis.label,
        places=np.clip((within + _SPREAD * (places - within)) / span, 0, 1),
        ticks=[(place / span, word) for place, word in enumerate(words)],
    )


def _result_scale(front: Front, name: str) -> Coordinate:
    column = BY_NAME[name]
    scale = reading_scale(column.unit, front.points[name].max())
    values = front.points[name].to_numpy(dtype=float) * scale.factor
    decimals = 3 if name == "dice" else None
    ends = [_short(value, decimals) for value in (values.min(), values.max())]
    return _numeric(label_with_unit(column.label, scale.unit), values, ends)


def _short(value: float, decimals: int | None) -> str:
    return f"{value / 1e6:.3g} M" if decimals is None and value >= 1e6 else number(value, decimals)


def _numeric(label: str, values: NDArray[np.float64], ends: Sequence[str]) -> Coordinate:
    low, high = float(values.min()), float(values.max())
    if high == low:
        return Coordinate(label=label, places=np.full(len(values), 0.5), ticks=[(0.5, ends[0])])
    return Coordinate(label=label, places=(values - low) / (high - low), ticks=[(0.0, ends[0]), (1.0, ends[1])])


def _draw_lines(panel: Axes, front: Front, scales: Sequence[Coordinate], *, across: bool) -> None:
    steps = np.arange(len(scales), dtype=float)
    table = np.stack([scale.places for scale in scales], axis=1)
    best = front.points["non_dominated"].to_numpy(dtype=bool)
    methods = front.points["method"].to_numpy()
    many = len(table) > MANY_LINES
    for strong in (False, True):
        for method, style in METHOD_STYLES.items():
            rows = table[(best == strong) & (methods == method)]
            lines = [np.column_stack((steps, row) if across else (row, -steps)) for row in rows]
            width, alpha = (1.9, 1.0) if strong else ((0.5, 0.22) if many else (0.9, 0.5))
            panel.add_collection(
                LineCollection(lines, colors=style.paint.light, linewidths=width, alpha=alpha, zorder=4 + strong)
            )


def _draw_scale(panel: Axes, place: int, scale: Coordinate, *, across: bool, letters: int) -> None:
    if across:
        panel.plot([place, place], [0, 1], color=RULE.light, lw=1.2, zorder=2)
        label = textwrap.fill(scale.label.replace(" [", "\u00a0["), letters)
        panel.text(place, -0.16, label, ha="center", va="top", fontsize=8.3, color=INK.light)
        for height, word in scale.ticks:
            if 0 < height < 1:
                _tick(panel, place + 0.04, height, word, ha="left", va="center")
            else:
                _tick(
                    panel,
                    place,
                    height + (0.03 if height else -0.03),
                    word,
                    ha="center",
                    va="bottom" if height else "top",
                )
        return
    panel.plot([0, 1], [-place, -place], color=RULE.light, lw=1.2, zorder=2)
    panel.text(
        0, 0.16 - place, scale.label, ha="left", va="bottom", fontsize=8.3, color=INK.light, zorder=7, bbox=_HALO
    )
    for along, word in scale.ticks:
        side = "left" if along < 0.1 else "right" if along > 0.9 else "center"
        _tick(panel, along, -place - 0.1, word, ha=side, va="top")


def _tick(panel: Axes, x: float, y: float, word: str, **style: Any) -> None:
    panel.text(x, y, word, fontsize=7.6, color=MUTED.light, zorder=7, bbox=_HALO, **style)


def _frame(panel: Axes, count: int, *, across: bool) -> None:
    panel.set_axis_off()
    if across:
        panel.set_xlim(-0.15, count - 1 + 0.45)
        panel.set_ylim(0, 1)
    else:
        panel.set_xlim(-0.02, 1.02)
        panel.set_ylim(-count + 0.55, 0.7)


def about_parallel(front: Front) -> list[str]:
    """How to read parallel coordinates."""
    names = [objective.label for objective in front.objectives]
    return [
        "Each line is one point, through its settings and what came of them; larger values are further up, on a "
        "narrow screen further to the right.",
        f"Strong lines are on the front of {', '.join(names[:-1])} and {names[-1]}.",
    ]


def parallel_in_words(front: Front, shown: Sequence[VaryingAxis]) -> str:
    """The figure of parallel coordinates in words."""
    best = front.best.iloc[[0, -1]] if len(front.best) else front.best
    ends = " and ".join(f"{row['summary']} with Dice {row['dice']:.3f}" for _, row in best.iterrows())
    return (
        f"Parallel coordinates of {counted(len(front.points), 'point')} over "
        f"{', '.join(axis.label.lower() for axis in shown)}, Dice and costs. At the ends of the front: {ends}."
    )

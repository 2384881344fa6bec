"""All points axis by axis: slices, which show one axis each and hide the others, and parallel coordinates."""

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
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray

from analysis.effects.varying import VaryingAxis
from analysis.figures.encodings import belongs_to, dice_floor, each_of, limit_dice, method_entries, short_ticks
from analysis.figures.exhibits import Exhibit
from analysis.figures.sheet import Sheet
from analysis.figures.style import INK, METHOD_STYLES, MUTED, RULE, SURFACE, Layout
from analysis.fronts.captions import subject
from analysis.fronts.front import Front
from analysis.tables.columns import BY_NAME
from analysis.tables.units import counted, label_with_unit, number, reading_scale

MOST_AXES = 8
"""More are not drawn; the report says so."""
_ACROSS = 4
_FEW_VALUES = 7
_LABEL_LETTERS = 24
# So many pale points become a picture within the drawing, which would take megabytes otherwise.
_RASTERIZE_FROM = 400
_MANY_POINTS, _MANY_LINES = 200, 150
_STEP_DOWN = 0.68
# Words over lines stay readable.
_HALO = {"facecolor": SURFACE.light, "edgecolor": "none", "alpha": 0.8, "pad": 0.6}


def slices(front: Front, axes: Sequence[VaryingAxis], caveats: Sequence[str]) -> Exhibit:
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
    return Exhibit(
        stem="slices",
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


@dataclass(frozen=True, kw_only=True)
class Coordinate:
    """One coordinate: places of the points from 0 to 1, and words at some places."""

    label: str
    places: NDArray[np.float64]
    ticks: Sequence[tuple[float, str]]


def parallel(front: Front, axes: Sequence[VaryingAxis], caveats: Sequence[str]) -> Exhibit:
    """Parallel coordinates: a line per point through all axes, its Dice and its costs; lines of the front are strong.

    Args:
        front: of one dataset, with at least one point; Dice first, then costs.
        axes: that vary between its points.
        caveats: about them.
    """
    shown = axes[:MOST_AXES]
    names = [objective.label for objective in front.objectives]
    notes = [
        "Each line is one point, through its settings and what came of them; larger values are further up, on a "
        "narrow screen further to the right.",
        f"Strong lines are on the front of {', '.join(names[:-1])} and {names[-1]}.",
        *caveats,
    ]
    best = front.best.iloc[[0, -1]].to_dict("records") if len(front.best) else []
    ends = " and ".join(f"{row['summary']} with Dice {row['dice']:.3f}" for row in best)
    return Exhibit(
        stem="parallel",
        heading="All points, axis by axis",
        draw=lambda layout: _draw_parallel(front, shown, notes, layout),
        alt=f"Parallel coordinates of {counted(len(front.points), 'point')} over "
        f"{', '.join(axis.label.lower() for axis in shown)}, Dice and costs. At the ends of the front: {ends}.",
        notes=notes,
    )


def _draw_parallel(front: Front, axes: Sequence[VaryingAxis], notes: Sequence[str], layout: Layout) -> Figure:
    """On a narrow page coordinates lie below each other, else side by side."""
    coordinates = [_of_axis(axis, front) for axis in axes]
    coordinates += [_of_result(front, objective.name) for objective in front.objectives]
    count, strong = len(coordinates), Line2D([], [], color=INK.light, lw=2)
    sheet = Sheet(
        layout=layout,
        title="All points, axis by axis",
        subject=subject(front.points),
        notes=notes,
        panel_height=3.3 if layout.rail else _STEP_DOWN * count,
        left=0.75 if layout.rail else 0.35,
        head=0.2 if layout.rail else 0.0,
        foot=1.05 if layout.rail else 0.25,
        legend=[*method_entries(front.points["method"]), ("on the front", (strong,))],
    )
    with sheet.drawn() as (figure, [panel]):
        panel.set_axis_off()
        panel.set_xlim(*((-0.15, count - 0.55) if layout.rail else (-0.02, 1.02)))
        panel.set_ylim(*((0, 1) if layout.rail else (-count + 0.55, 0.7)))
        _draw_lines(panel, front, coordinates, across=layout.rail)
        letters = max(8, int(sheet.panel_width / max(1, count - 0.4) / 0.072))
        for place, coordinate in enumerate(coordinates):
            if layout.rail:
                _draw_upright(panel, place, coordinate, letters)
            else:
                _draw_level(panel, -place, coordinate)
    return figure


def _of_axis(axis: VaryingAxis, front: Front) -> Coordinate:
    places = axis.positions(front.points)
    if axis.numeric:
        scaled = np.log10(places) if axis.logarithmic else places
        return _numeric(axis.label, scaled, [f"{value:.3g}" for value in (places.min(), places.max())])
    span = max(1, len(axis.categories) - 1)
    ticks = [(place / span, word) for place, word in enumerate(axis.categories)]
    return Coordinate(label=axis.label, places=places / span, ticks=ticks)


def _of_result(front: Front, name: str) -> Coordinate:
    scale = reading_scale(BY_NAME[name].unit, front.points[name].max())
    values = front.points[name].to_numpy(dtype=float) * scale.factor
    ends = [
        f"{end / 1e6:.3g} M" if name != "dice" and end >= 1e6 else number(end, 3 if name == "dice" else None)
        for end in (values.min(), values.max())
    ]
    return _numeric(label_with_unit(BY_NAME[name].label, scale.unit), values, ends)


def _numeric(label: str, values: NDArray[np.float64], ends: Sequence[str]) -> Coordinate:
    low, high = float(values.min()), float(values.max())
    if high == low:
        return Coordinate(label=label, places=np.full(len(values), 0.5), ticks=[(0.5, ends[0])])
    return Coordinate(label=label, places=(values - low) / (high - low), ticks=[(0.0, ends[0]), (1.0, ends[1])])


def _draw_lines(panel: Axes, front: Front, coordinates: Sequence[Coordinate], *, across: bool) -> None:
    steps = np.arange(len(coordinates), dtype=float)
    width, alpha = (0.5, 0.22) if len(front.points) > _MANY_LINES else (0.9, 0.5)
    table = np.stack([coordinate.places for coordinate in coordinates], axis=1)
    columns = (front.points[name] for name in ("method", "non_dominated", "point_id"))
    for row, method, best, identity in zip(table, *columns, strict=True):
        look: dict[str, Any] = {"lw": 1.9, "alpha": 1.0, "zorder": 5} if best else {"lw": width, "alpha": alpha}
        ends = (steps, row) if across else (row, -steps)
        color = METHOD_STYLES[method].paint.light
        panel.add_artist(Line2D(*ends, color=color, **{"zorder": 4, **look}, gid=belongs_to(identity)))


def _draw_upright(panel: Axes, x: float, coordinate: Coordinate, letters: int) -> None:
    panel.plot([x, x], [0, 1], color=RULE.light, lw=1.2, zorder=2)
    label = textwrap.fill(coordinate.label.replace(" [", "\u00a0["), letters)
    panel.text(x, -0.16, label, ha="center", va="top", fontsize=8.3, color=INK.light)
    for height, word in coordinate.ticks:
        if 0 < height < 1:
            _write(panel, x + 0.04, height, word, ha="left", va="center")
        else:
            away, side = (0.03, "bottom") if height else (-0.03, "top")
            _write(panel, x, height + away, word, ha="center", va=side)


def _draw_level(panel: Axes, y: float, coordinate: Coordinate) -> None:
    panel.plot([0, 1], [y, y], color=RULE.light, lw=1.2, zorder=2)
    _write(panel, 0, y + 0.16, coordinate.label, ha="left", va="bottom", fontsize=8.3, color=INK.light)
    for along, word in coordinate.ticks:
        side = "left" if along < 0.1 else "right" if along > 0.9 else "center"
        _write(panel, along, y - 0.1, word, ha=side, va="top")


def _write(panel: Axes, x: float, y: float, word: str, **style: Any) -> None:
    panel.text(x, y, word, **{"fontsize": 7.6, "color": MUTED.light, "zorder": 7, "bbox": _HALO, **style})

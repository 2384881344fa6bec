"""All points axis by axis: slices, which show one axis each and hide the others."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from analysis.effects.varying import VaryingAxis
from analysis.figures.encodings import dice_floor, each_of, limit_dice, method_entries, short_ticks
from analysis.figures.exhibits import Exhibit
from analysis.figures.sheet import Sheet
from analysis.figures.style import INK, METHOD_STYLES, SURFACE, Layout
from analysis.fronts.captions import subject
from analysis.fronts.front import Front
from analysis.tables.units import counted, label_with_unit, reading_scale

MOST_AXES = 8
"""More are not drawn; the report says so."""
_ACROSS = 4
_FEW_VALUES = 7
_LABEL_LETTERS = 24
# So many pale points become a picture within the drawing, which would take megabytes otherwise.
_RASTERIZE_FROM = 400
_MANY_POINTS = 200


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
        stem="dice_and_cost_by_setting",
        folded=True,
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

"""Slices: Dice and a cost against every axis that varies, one panel each, points of the front in a ring.

A slice shows one axis and hides the others: points above each other differ in those.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from analysis.effects.sheet import Sheet, front_handle, method_handles
from analysis.effects.varying import VaryingAxis
from analysis.figures.encodings import dice_floor, limit_dice
from analysis.figures.style import INK, METHOD_STYLES, RC, SURFACE, Layout, MethodStyle
from analysis.fronts.front import Front
from analysis.tables.units import Scale, counted, label_with_unit, reading_scale

MOST_AXES = 8
"""More are not drawn; the report says so."""
_ACROSS = 4
_FEW_VALUES = 7
_LABEL_LETTERS = 24
# So many pale points become a picture within the drawing, which would take megabytes otherwise.
_RASTERIZE_FROM = 400
_MANY = 200


def slices(front: Front, axes: Sequence[VaryingAxis], *, subject: str, notes: Sequence[str], layout: Layout) -> Figure:
    """The figure.

    Args:
        front: of one dataset, with at least one point; Dice first, one cost second.
        axes: that vary between its points, at most MOST_AXES.
        subject: what it rests on.
        notes: sentences below.
        layout: size and arrangement; on a narrow page a row per axis, else columns of two panels.
    """
    blocks = -(-len(axes) // _ACROSS) if layout.rail else 1
    columns = -(-len(axes) // blocks) if layout.rail else 2
    sheet = Sheet(
        layout=layout,
        title="Dice and cost along each axis",
        subject=subject,
        notes=notes,
        rows=2 * blocks if layout.rail else len(axes),
        columns=columns,
        panel_height=1.75 if layout.rail else 1.35,
        left=0.75,
        gap_across=0.6 if layout.rail else 0.72,
        gap_down=0.68,
        legend=[*method_handles(front.points["method"].tolist()), front_handle()],
    )
    with mpl.rc_context(RC):
        figure, panels = sheet.build()
        drawing = _Slices(front)
        for index, axis in enumerate(axes):
            block, column = divmod(index, columns)
            first = 2 * block * columns + column if layout.rail else 2 * index
            pair = (panels[first], panels[first + (columns if layout.rail else 1)])
            drawing.draw(pair, axis, words=not layout.rail or column == 0)
        for panel in panels:
            if not panel.has_data():
                panel.remove()
    return figure


class _Slices:
    def __init__(self, front: Front) -> None:
        self.dice, cost = (objective.name for objective in front.objectives)
        self.scale: Scale = reading_scale(front.objectives[1].unit, front.points[cost].max())
        self.points = front.points.assign(_cost=front.points[cost] * self.scale.factor)
        self.cost_label = label_with_unit(front.objectives[1].label, self.scale.unit)
        self.floor, self.top = dice_floor(self.points), float(self.points["dice_max"].max())

    def draw(self, pair: tuple[Axes, Axes], axis: VaryingAxis, *, words: bool) -> None:
        """One axis: Dice in the first panel, cost in the second."""
        places = positions(axis, self.points)
        for panel, name in zip(pair, ("dice", "_cost"), strict=True):
            self._scatter(panel, places, name)
            _mark_axis(panel, axis)
        limit_dice(pair[0], self.floor, self.top)
        pair[0].yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        _hide_ticks_below(pair[0], self.floor)
        pair[1].set_ylim(0, float(self.points["_cost"].max()) * 1.1 or 1.0)
        pair[1].yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        if words:
            pair[0].set_ylabel("Dice")
            pair[1].set_ylabel(self.cost_label)

    def _scatter(self, panel: Axes, places: NDArray[np.float64], name: str) -> None:
        values = self.points[name].to_numpy(dtype=float)
        best = self.points["non_dominated"].to_numpy(dtype=bool)
        single = (self.points["n_folds"] == 1).to_numpy(dtype=bool)
        for method, style in METHOD_STYLES.items():
            own = (self.points["method"] == method).to_numpy()
            for on_front, hollow in itertools.product((False, True), repeat=2):
                chosen = own & (best == on_front) & (single == hollow)
                if chosen.any():
                    self._markers(panel, places[chosen], values[chosen], style, on_front=on_front, hollow=hollow)
        ring: dict[str, Any] = {"marker": "o", "facecolor": "none", "edgecolor": INK.light, "linewidth": 0.9}
        panel.scatter(places[best], values[best], s=92, zorder=6, clip_on=False, **ring)

    def _markers(
        self,
        panel: Axes,
        places: NDArray[np.float64],
        values: NDArray[np.float64],
        style: MethodStyle,
        *,
        on_front: bool,
        hollow: bool,
    ) -> None:
        small, pale = (24, 0.55) if len(self.points) < _MANY else (16, 0.3)
        panel.scatter(
            places,
            values,
            s=(32 if on_front else small) * style.area,
            marker=style.marker,
            facecolor=SURFACE.light if hollow else style.paint.light,
            edgecolor=style.paint.light if hollow else SURFACE.light,
            linewidth=1.2 if hollow else 0.3,
            alpha=1.0 if on_front else pale,
            zorder=5 if on_front else 3,
            clip_on=False,
            rasterized=not on_front and len(self.points) >= _RASTERIZE_FROM,
        )


def positions(axis: VaryingAxis, points: pd.DataFrame) -> NDArray[np.float64]:
    """Where points stand on an axis: at their number, or at their category's."""
    values = axis.values.reindex(points.index)
    if axis.numeric:
        return values.to_numpy(dtype=float)
    places = values.map({word: n for n, word in enumerate(axis.categories)})
    return np.asarray(places.to_numpy(dtype=float))


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
        panel.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=(axis.values % 1 == 0).all()))


def _hide_ticks_below(panel: Axes, floor: float) -> None:
    low, high = panel.get_ylim()
    least = floor + 0.06 * (high - low) if floor > 0 else 0.0
    panel.set_yticks([tick for tick in panel.get_yticks() if least <= tick <= min(1.0, high)])
    panel.set_ylim(low, high)


def about_slices(front: Front, shown: Sequence[VaryingAxis], n_axes: int) -> list[str]:
    """How to read slices."""
    sentences = [
        "Each panel shows one axis and hides the others: points above each other differ in those.",
        f"In a ring: on the front of Dice and {front.objectives[1].label.lower()}.",
    ]
    if any(not axis.numeric for axis in shown):
        sentences.append("Points of a category are spread sideways so that none hides another.")
    if n_axes > len(shown):
        sentences.append(f"{n_axes - len(shown)} more axes vary and are not drawn.")
    return sentences


def slices_in_words(front: Front, shown: Sequence[VaryingAxis]) -> str:
    """The figure of slices in words."""
    names = ", ".join(axis.label.lower() for axis in shown)
    return (
        f"Scatter plots of Dice and {front.objectives[1].label.lower()} of {counted(len(front.points), 'point')} "
        f"against {names}; {int(front.points['non_dominated'].sum())} of them are on the front."
    )

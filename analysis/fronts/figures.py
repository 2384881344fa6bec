"""Pareto figures: Dice against a cost, the front as steps, one colour and marker per method; and attainment.

Points on a front are numbered. The Dice axis is cut only with a mark at its foot.

Attainment: a panel per scheme, with what its best run, half of its runs and all attain. The band between the best and
the worst surface is the scatter between folds and seeds. The medians (with two runs, the worst surfaces) of the other
schemes stand behind, in grey.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.figures import style
from analysis.figures.sheet import EDGE, Sheet
from analysis.figures.style import (
    FILE,
    INK,
    LINES,
    METHOD_STYLES,
    MUTED,
    RULE,
    SHADE,
    Layout,
    belongs_to,
    dice_floor,
    draw_points,
    label_cost,
    limit_cost,
    limit_dice,
)
from analysis.fronts.attainment import Attainment
from analysis.fronts.captions import drawn_floor, notes, scale_of, subject, title
from analysis.fronts.front import Front
from analysis.statistics.intervals import dice_bars
from analysis.tables.columns import BY_NAME, Objective
from analysis.tables.format import counted, label_with_unit, number
from analysis.tables.methods import METHOD_LABELS

# Of the rail and a line of the key in it, in inches, and letters that fit such a line and the legend's.
_RAIL, _KEY_LINE, _KEY_LETTERS, _LEGEND_LETTERS = 3.53, 0.165, 29, 44
_POINTS_PER_INCH = 72
# One pattern per group's line; there is no figure of more groups than these.
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (2, 2)), (0, (8, 2, 1, 2, 1, 2)))
MOST_GROUPS = len(_DASHES)


def pareto_figure(front: Front, *, layout: Layout = FILE) -> Figure:
    """The figure of one dataset's front.

    Args:
        front: with at least one point; Dice and one cost. With `by`, each of at most MOST_GROUPS groups has a line of
            its own, and points are not numbered.
        layout: size and arrangement.
    """
    cost = front.objectives[1]
    scale = scale_of(cost, float(front.points[cost.name].max()))
    points = front.points.assign(cost=front.points[cost.name] * scale.factor)
    best = points[points["non_dominated"]].sort_values("number")
    groups = [("", best)]
    if front.by is not None:
        groups = [(_words(front.by, name), part) for name, part in best.groupby(front.by)]
    looks = _looks(len(groups))
    named = [(textwrap.fill(name, _LEGEND_LETTERS), look) for (name, _), look in zip(groups, looks, strict=True)]
    sheet = Sheet(
        layout=layout,
        title=title(front),
        subject=subject(points),
        notes=notes(front),
        legend=[
            *style.method_entries(points["method"]),
            *style.fold_entries(points["n_folds"]),
            *((name, (Line2D([], [], **look),)) for name, look in named if name),
        ],
        panel_height=(3.85 if layout.alone else 3.5) if layout.rail else 2.9,
        rail=_RAIL if layout.rail else 0.0,
    )
    with sheet.drawn() as (figure, [axes]):
        limit_dice(axes, drawn_floor(front.points), float(dice_bars(points)[1].max()))
        limit_cost(axes, points["cost"])
        label_cost(axes, label_with_unit(cost.label, scale.unit))
        axes.set_ylabel("Dice (mean over foreground)", labelpad=8)
        for (_, group), look in zip(groups, looks, strict=True):
            _draw_steps(axes, group, look, shaded=front.by is None)
        draw_points(axes, points, cost="cost")
        if front.by is None:
            _number_points(figure, axes, best)
            if layout.rail:
                _write_key(figure, sheet, best, scale.unit or "share")
    return figure


def _words(by: str, value: object) -> str:
    words = f"{value:.0%}" if by == "budget" else str(value)
    return f"{BY_NAME[by].label.lower()} {words}"


def _looks(lines: int) -> list[dict[str, Any]]:
    """Colour and pattern for every line of a front, colours as far apart as they go."""
    shades = [round((len(LINES) - 1) * line / max(1, lines - 1)) for line in range(lines)]
    colors = [LINES[shade].light for shade in shades] if lines > 1 else [MUTED.light]
    return [{"color": color, "ls": dashes, "lw": 1.2} for color, dashes in zip(colors, _DASHES, strict=False)]


def _draw_steps(axes: Axes, group: pd.DataFrame, look: dict[str, Any], *, shaded: bool) -> None:
    right, floor = axes.get_xlim()[1], axes.get_ylim()[0]
    x = [*group["cost"].iloc[:1], *group["cost"], right]
    y = [floor, *group["dice"], group["dice"].max()]
    axes.plot(x, y, drawstyle="steps-post", zorder=2, **look)
    if shaded:
        axes.fill_between(x, y, floor, step="post", color=SHADE.light, lw=0, zorder=0)


def _number_points(figure: Figure, axes: Axes, best: pd.DataFrame) -> None:
    pixels = axes.transData.transform(best[["cost", "dice"]].to_numpy(dtype=float))
    inches = figure.dpi_scale_trans.inverted().transform(pixels)
    width, height = figure.get_size_inches() * _POINTS_PER_INCH
    for label in style.place([(x, y) for x, y in inches * _POINTS_PER_INCH]):
        named = best["point_id"].tolist()[label.first - 1 : label.last]
        look: dict[str, Any] = {"fontsize": style.FONT_SIZE, "color": INK.light, "gid": belongs_to(*named)}
        figure.text(label.x / width, label.y / height, label.text, ha="right", va="bottom", **look)


def _write_key(figure: Figure, sheet: Sheet, best: pd.DataFrame, unit: str) -> None:
    """A table of the front in the rail, as far as there is room."""
    muted: dict[str, Any] = {"color": MUTED.light, "fontsize": 7.6}
    top, width = sheet.above + sheet.legend_height + 0.25, sheet.layout.width
    _key_row(figure, sheet, top, ("", "On the front", "Dice", unit), **muted)
    rule = 1 - (top + 0.07) / sheet.height
    figure.add_artist(Line2D([sheet.rail_left / width, 1 - EDGE / width], [rule, rule], color=RULE.light, lw=0.8))
    top += 0.26
    bottom = sheet.above + sheet.panel_height + 0.25
    for written, row in enumerate(best.to_dict("records")):
        lines, left = textwrap.wrap(row["summary"], _KEY_LETTERS), len(best) - written
        if top + _KEY_LINE * len(lines) > bottom - _KEY_LINE * (left > 1):
            _key_row(figure, sheet, top, ("", f"and {left} more: see the table of the front", "", ""), **muted)
            return
        cells = (str(row["number"]), lines[0], number(row["dice"], 4), number(row["cost"]))
        for line in (cells, *(("", words, "", "") for words in lines[1:])):
            _key_row(figure, sheet, top, line, fontsize=8, gid=belongs_to(row["point_id"]))
            top += _KEY_LINE
        top += 0.035


def _key_row(figure: Figure, sheet: Sheet, top: float, cells: Sequence[str], **style: Any) -> None:
    left, right = sheet.rail_left, sheet.layout.width - EDGE
    places = {left + 0.14: "right", left + 0.22: "left", right - 0.52: "right", right: "right"}
    for (x, side), cell in zip(places.items(), cells, strict=True):
        sheet.write(figure, x, top, cell, ha=side, va="baseline", **style)


_LEVELS: dict[str, tuple[str, dict[str, Any]]] = {
    "best": ("best run", {"ls": "-", "lw": 0.9}),
    "median": ("half of the runs", {"ls": "-", "lw": 1.8}),
    "worst": ("every run", {"ls": (0, (4, 1.6)), "lw": 1.2}),
}


def attainment_figure(
    found: Sequence[Attainment], cost: Objective, *, subject: str, notes: Sequence[str], layout: Layout = FILE
) -> Figure:
    """The figure of one dataset.

    Args:
        found: the schemes, at least one.
        cost: the objective to the right of Dice.
        subject: the line below the title.
        notes: printed below in layouts that have room for them.
        layout: size and arrangement.
    """
    corners = pd.concat([surface for one in found for surface in one.surfaces.values()])
    scale = scale_of(cost, float(corners[cost.name].max()))
    corners = corners.assign(dice_min=corners["dice"], dice_max=corners["dice"], cost=corners[cost.name] * scale.factor)
    columns = min(len(found), 4 if layout.rail else 2)
    drawn = [said for level, said in _LEVELS.items() if any(level in one.surfaces for one in found)]
    sheet = Sheet(
        layout=layout,
        title="What each scheme attains over its runs",
        subject=subject,
        notes=notes,
        legend=[(words, (Line2D([], [], color=MUTED.light, **look),)) for words, look in drawn],
        rows=-(-len(found) // columns),
        columns=columns,
        panel_height=1.75,
        gap_across=0.2,
        gap_down=0.3,
        head=0.2,
    )
    with sheet.drawn() as (figure, panels):
        for index, (panel, one) in enumerate(zip(panels, found, strict=False)):
            limit_dice(panel, dice_floor(corners), float(corners["dice"].max()), most_ticks=6)
            limit_cost(panel, corners["cost"])
            others = [other for other in found if other is not one]
            _draw_attainment(panel, one, others, cost.name, scale.factor)
            panel.tick_params(labelleft=index % columns == 0, labelbottom=index + columns >= len(found))
            heading = f"{METHOD_LABELS[one.method]}, {counted(one.runs, 'run')} × {one.configurations}"
            panel.set_title(heading, loc="left", fontsize=8.6, pad=5, color=METHOD_STYLES[one.method].paint.light)
            if index % columns == 0:
                panel.set_ylabel("Dice")
            if index + columns >= len(found):
                label_cost(panel, label_with_unit(cost.label, scale.unit))
        for panel in panels[len(found) :]:
            panel.remove()
    return figure


def _draw_attainment(panel: Axes, one: Attainment, others: Sequence[Attainment], cost: str, factor: float) -> None:
    def steps(surface: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of a step line: up from the floor at the cheapest goal, and on to the right edge."""
        x, dice = surface[cost].to_numpy(dtype=float) * factor, surface["dice"].to_numpy()
        return np.array([x[0], *x, panel.get_xlim()[1]]), np.array([panel.get_ylim()[0], *dice, dice[-1]])

    for other in others:
        middle = other.surfaces.get("median", other.surfaces["worst"])
        panel.plot(*steps(middle), color=RULE.light, lw=0.6, ds="steps-post", zorder=1)
    color = METHOD_STYLES[one.method].paint.light
    for level, surface in one.surfaces.items():
        look: dict[str, Any] = {**_LEVELS[level][1], "gid": f"attainment-{one.method}-{level}"}
        panel.plot(*steps(surface), color=color, ds="steps-post", zorder=3, **look)
    best, worst = (steps(one.surfaces[level]) for level in ("best", "worst"))
    grid = np.union1d(best[0], worst[0])
    panel.fill_between(grid, _at(grid, *worst), _at(grid, *best), step="post", color=color, alpha=0.16, lw=0, zorder=2)


def _at(grid: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A step function on a grid; before its first step it is its first value."""
    return np.asarray(y[np.maximum(np.searchsorted(x, grid, side="right") - 1, 0)])

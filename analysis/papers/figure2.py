"""Fig. 2 of the MICCAI paper: Dice against iterations, voxels and training time, one line per scheme over its budgets.

A line joins configurations that differ in the budget alone. It needs two budgets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.comparison.numbers import budget_words
from analysis.comparison.pairs import MATCHED
from analysis.figures.encodings import dice_floor, limit_cost, limit_dice
from analysis.figures.sections import Exhibit
from analysis.figures.style import METHOD_STYLES, MUTED, RC, Layout
from analysis.papers.canvas import Frame, about_machines, draw_frame, fold_handles, marker_style, method_handle
from analysis.statistics.evidence import Evidence
from analysis.tables.columns import BY_NAME
from analysis.tables.methods import METHOD_LABELS, OTHER
from analysis.tables.units import amount, counted, label_with_unit, reading_scale

STEM = "figure2"
FEWEST_BUDGETS = 2
_PANEL_INCHES = 2.9
_COSTS = ("iterations", "voxels", "runtime_seconds")
_SETTING = [name for name in MATCHED if name not in ("dataset", "budget")]
# Budgets closer than this share of the axis share a label.
_LABEL_ROOM = 0.1


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """Points of one dataset and setting, one per scheme and budget, with sentences about what is not among them."""

    points: pd.DataFrame
    notes: Sequence[str]

    @property
    def methods(self) -> list[str]:
        return [method for method in METHOD_STYLES if (self.points["method"] == method).any()]


def figure2(evidence: Evidence, dataset: str, *, stem: str = STEM) -> Exhibit | None:
    """The exhibit of a dataset; None if no two budgets have a published scheme."""
    lines = _lines(evidence.of(dataset).points)
    if lines.points["budget"].nunique() < FEWEST_BUDGETS:
        return None
    return Exhibit(
        stem=stem,
        heading=f"Dice against iterations, voxels and training time: {dataset} (MICCAI 2024, Fig. 2)",
        draw=lambda layout: _figure(lines, dataset, layout),
        alt=_alt(lines, dataset),
        notes=lines.notes,
    )


def _lines(points: pd.DataFrame) -> _Lines:
    """The setting with the most points; a scheme that two configurations are at one budget has no line there."""
    named = points[points["method"] != OTHER]
    groups = [rows for _, rows in named.groupby(_SETTING, sort=False, dropna=False)]
    if not groups:
        return _Lines(points=named, notes=[])
    chosen = max(groups, key=len)
    twice = chosen.duplicated(["method", "budget"], keep=False)
    notes = [
        "Points of a line differ in the budget alone, as a share of the iterations per epoch.",
        *_left_out(len(named) - len(chosen), "with other training settings"),
        *_left_out(int(twice.sum()), "of schemes that several configurations are at one budget"),
    ]
    kept = chosen[~twice].sort_values("budget")
    if (kept["dice_max"] > kept["dice_min"]).any():
        notes.append("Thin bars: lowest to highest of the averaged folds and seeds.")
    if (kept["n_folds"] == 1).any():
        notes.append("Hollow: one fold.")
    if kept["folds"].nunique() > 1:
        notes.append("Points rest on different folds, whose Dice differ by themselves.")
    if len(kept) and dice_floor(kept) > 0:
        notes.append("The Dice axis does not start at 0.")
    return _Lines(points=kept, notes=[*notes, *about_machines(kept, energy=False)])


def _left_out(count: int, which: str) -> list[str]:
    return [f"{counted(count, 'point')} {which} left out."] if count else []


def _figure(lines: _Lines, dataset: str, layout: Layout) -> Figure:
    points = lines.points
    singles = list(points["n_folds"] == 1)
    frame = Frame(
        title=f"Dice by budget: {dataset}",
        subject=f"{counted(len(points), 'point')} · {points['n_folds'].max()} folds at most · "
        f"{' and '.join(sorted(set(points['hardware'].dropna()))) or 'hardware unknown'}",
        notes=lines.notes,
        handles=[*map(method_handle, lines.methods), *(fold_handles(singles) if not all(singles) else [])],
    )
    # Nobody sees an empty panel: a cost that no point has is left out.
    costs = [cost for cost in _COSTS if points[cost].notna().any()]
    with mpl.rc_context(RC):
        figure, panels = draw_frame(layout, frame, count=len(costs), panel_height=_PANEL_INCHES)
        for index, (axes, cost) in enumerate(zip(panels, costs, strict=True)):
            _draw(axes, points, cost)
            if index and layout.rail:
                axes.tick_params(labelleft=False)
            else:
                axes.set_ylabel("Dice (mean over foreground)", labelpad=8)
        _label_budgets(panels[0], points)
    return figure


def _draw(axes: Axes, points: pd.DataFrame, cost: str) -> None:
    factor, label = _scale(points[cost], cost)
    scaled = points.assign(**{cost: points[cost].astype(float) * factor})
    limit_dice(axes, dice_floor(points), float(points["dice_max"].max()))
    limit_cost(axes, scaled[cost])
    axes.set_xlabel(label + (", logarithmic" if axes.get_xscale() == "log" else ""), labelpad=6)
    for method, style in METHOD_STYLES.items():
        line = scaled[(scaled["method"] == method) & scaled[cost].notna()]
        axes.plot(line[cost], line["dice"], color=style.paint.light, lw=1.3, alpha=0.8, zorder=3)
        axes.vlines(line[cost], line["dice_min"], line["dice_max"], color=style.paint.light, alpha=0.45, lw=1, zorder=3)
        for _, point in line.iterrows():
            single = point["n_folds"] == 1
            axes.plot([point[cost]], [point["dice"]], zorder=4, clip_on=False, **marker_style(method, single=single))


def _scale(values: pd.Series[Any], cost: str) -> tuple[float, str]:
    """Factor and axis label: time in its reading unit, counts in thousands, millions … so that ticks stay short."""
    column, largest = BY_NAME[cost], float(values.max())
    if column.unit:
        scale = reading_scale(column.unit, largest)
        return scale.factor, label_with_unit(column.label, scale.unit)
    power = 3 * int(math.log10(largest) // 3) if largest >= 1e4 else 0
    unit = {0: "", 3: "thousands", 6: "millions", 9: "billions", 12: "trillions"}.get(power, f"1e{power}")
    return 10.0**-power, label_with_unit(column.label, unit)


def _label_budgets(axes: Axes, points: pd.DataFrame) -> None:
    """Each budget above its iterations, which all schemes share."""
    factor, _ = _scale(points["iterations"], "iterations")
    last = -math.inf
    pairs = points[["iterations", "budget"]].drop_duplicates().sort_values("iterations")
    for iterations, budget in zip(pairs["iterations"].astype(float) * factor, pairs["budget"], strict=True):
        place = axes.transAxes.inverted().transform(axes.transData.transform((iterations, 0)))[0]
        if place - last >= _LABEL_ROOM:
            axes.text(
                *(place, 1.02),
                budget_words(budget),
                transform=axes.transAxes,
                ha="center",
                va="bottom",
                fontsize=7.6,
                color=MUTED.light,
            )
            last = place


def _alt(lines: _Lines, dataset: str) -> str:
    best = lines.points.sort_values("dice", kind="stable").iloc[-1]
    schemes = ", ".join(METHOD_LABELS[method] for method in lines.methods)
    where = f"{METHOD_LABELS[best['method']]} at {budget_words(best['budget'])}"
    time = "" if pd.isna(best["runtime_seconds"]) else f" after {amount(best['runtime_seconds'], 's')}"
    return (
        f"Three panels, Dice on {dataset} against iterations, voxels and training time, one line each for {schemes}; "
        f"the highest Dice is {best['dice']:.3f}, {where}{time}."
    )

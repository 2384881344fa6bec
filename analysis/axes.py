"""Axes that do not mislead: costs start at 0 or say that they are logarithmic, a cut Dice axis carries a mark."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from analysis.style import MUTED, SURFACE

# Costs that differ by more than this factor are drawn on a logarithmic axis.
_LOG_FROM = 25
# A Dice axis whose foot would stand below this starts at 0.
_NEAR_ZERO = 0.15


def dice_floor(points: pd.DataFrame) -> float:
    """Where the Dice axis of some points starts: 0, or close below the lowest of their folds and seeds."""
    low, high = float(points["dice_min"].min()), float(points["dice_max"].max())
    floor = low - max(0.1 * (high - low), 0.01)
    return 0.0 if floor < _NEAR_ZERO else floor


def limit_dice(axes: Axes, floor: float, high: float) -> None:
    """Draw Dice from `floor` to a little above `high`, with ticks up to 1 and a mark when the floor is not 0."""
    axes.set_ylim(floor, max(high + 0.12 * (high - floor), floor + 0.01))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    ticks = axes.get_yticks()
    decimals = max(2, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    # No tick above 1, and none where the mark stands.
    lowest = floor + 0.045 * (high - floor) if floor > 0 else 0.0
    axes.set_yticks([dice for dice in ticks if lowest <= dice <= min(1 + 1e-9, axes.get_ylim()[1])])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda dice, _: f"{dice:.{decimals}f}"))
    if floor > 0:
        _mark_cut(axes)


def limit_cost(axes: Axes, cost: pd.Series[float]) -> None:
    """Draw a cost from 0, or on a logarithmic axis when it spans more than a factor of 25."""
    low, high = float(cost.min()), float(cost.max())
    if low > 0 and high / low > _LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.minorticks_off()
        axes.set_xlim(low / 1.35, high * 1.25)
    else:
        axes.set_xlim(0, high * 1.07 or 1.0)


def _mark_cut(axes: Axes) -> None:
    """Two strokes across the foot of the Dice axis: it does not start at 0."""
    style: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False, "zorder": 10}
    axes.plot([0, 0], [0.021, 0.039], color=SURFACE.light, lw=3, **style)
    for stroke, height in enumerate((0.013, 0.033)):
        ends = ([-0.011, 0.011], [height, height + 0.014])
        axes.plot(*ends, color=MUTED.light, lw=1.1, gid=f"axis-cut-{stroke}", **style)

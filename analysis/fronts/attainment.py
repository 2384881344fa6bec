"""The figure of empirical attainment: a panel per scheme, with what its best run, half of its runs and all attain.

The band between the best and the worst surface is the scatter between folds and seeds. The medians (with two runs, the
worst surfaces) of the other schemes stand behind, in grey.

Empirical attainment: which trade-offs a scheme reaches in its best run, in half of its runs, in all of them.

A run of a scheme is one fold with one seed: the trials of all its configurations there. A run attains a goal (a Dice at
a cost) if one of its trials is at least as good in both. The surface of k runs is the edge of what at least k of the
runs attain: k = 1 is the best surface, half of them the median, all of them the worst.

Only configurations that finished in every run take part: a run that lacks one would look worse for it. Where they did
not all finish everywhere, those runs and configurations are taken that leave out the fewest trials.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.figures.encodings import dice_floor, limit_cost, limit_dice
from analysis.figures.style import FILE, METHOD_STYLES, MUTED, RC, RULE, Layout
from analysis.fronts.captions import scale_of
from analysis.fronts.dominance import attained_by
from analysis.tables.frame import FINISHED
from analysis.tables.methods import METHOD_LABELS
from analysis.tables.objectives import Objective
from analysis.tables.units import counted, label_with_unit

_RUN = ["fold", "seed"]
Run: TypeAlias = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Attainment:
    """What one scheme attains.

    Attributes:
        method: of the trials.
        runs: number of (fold, seed) pairs.
        configurations: how many took part, each in all of these runs.
        left_out: finished trials that did not take part.
        surfaces: `best`, `median` and `worst` to its corners, a frame with a column per objective, by rising cost.
            The median is of half of the runs, rounded up; with two runs it is the best and is left out.
    """

    method: str
    runs: int
    configurations: int
    left_out: int
    surfaces: Mapping[str, pd.DataFrame]


def attainments(trials: pd.DataFrame, objectives: Sequence[Objective]) -> list[Attainment]:
    """The surfaces of every scheme with at least two runs, in the order of legends.

    Args:
        trials: of one dataset; only finished ones with a finite value for every objective count.
        objectives: the axes, Dice first.
    """
    names = [objective.name for objective in objectives]
    finished = trials[trials["state"] == FINISHED]
    finished = finished[np.isfinite(finished[names].to_numpy(dtype=float)).all(axis=1)]
    found = (_attainment(method, finished[finished["method"] == method], objectives) for method in METHOD_LABELS)
    return [attainment for attainment in found if attainment is not None]


def _attainment(method: str, trials: pd.DataFrame, objectives: Sequence[Objective]) -> Attainment | None:
    runs, configurations = _complete_block(trials)
    if len(runs) < 2:
        return None
    complete = pd.MultiIndex.from_frame(trials[_RUN]).isin(runs) & trials["point_id"].isin(configurations)
    taking_part = trials[complete]
    return Attainment(
        method=method,
        runs=len(runs),
        configurations=len(configurations),
        left_out=len(trials) - len(taking_part),
        surfaces={level: _surface(taking_part, objectives, k) for level, k in levels(len(runs)).items()},
    )


def _complete_block(trials: pd.DataFrame) -> tuple[list[Run], list[str]]:
    """Runs (at least two) and configurations that finished in all of them, with as many trials as possible."""
    done: dict[str, set[Run]] = {}
    for name, fold, seed in zip(trials["point_id"], trials["fold"], trials["seed"], strict=True):
        done.setdefault(str(name), set()).add((int(fold), int(seed)))
    possible = {frozenset(runs) for runs in done.values() if len(runs) > 1}
    blocks = [(runs, [name for name, mine in done.items() if runs <= mine]) for runs in possible]
    if not blocks:
        return [], []
    runs, configurations = max(blocks, key=lambda one: (len(one[0]) * len(one[1]), len(one[0]), sorted(one[0])))
    return sorted(runs), configurations


def levels(runs: int) -> dict[str, int]:
    """Name of each surface, and how many of the runs attain it."""
    named = {"best": 1, "median": -(-runs // 2), "worst": runs}
    if named["median"] == named["best"]:
        del named["median"]
    return named


def _surface(trials: pd.DataFrame, objectives: Sequence[Objective], at_least: int) -> pd.DataFrame:
    names = [objective.name for objective in objectives]
    corners = attained_by(
        trials[names].to_numpy(dtype=float),
        trials.groupby(_RUN).ngroup().to_numpy(),
        at_least=at_least,
        maximise=[objective.maximise for objective in objectives],
    )
    return pd.DataFrame(corners, columns=names).sort_values(names[1], ignore_index=True)


_LINES = {"best": ("-", 0.9), "median": ("-", 1.8), "worst": ((0, (4, 1.6)), 1.2)}
# In inches: a panel's height with its heading, above the panels, and from a panel to the next or the figure's edge.
_PANEL, _HEADING, _ABOVE, _BELOW, _GAP, _NOTE_LINE = 1.75, 0.3, 0.8, 0.55, 0.2, 0.155


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
    with mpl.rc_context(RC):
        return _Panels(found, cost, subject, notes, layout).figure()


class _Panels:
    """The figure in the making; lengths in inches."""

    def __init__(
        self, found: Sequence[Attainment], cost: Objective, subject: str, notes: Sequence[str], layout: Layout
    ) -> None:
        self.found, self.cost, self.layout = found, cost, layout
        corners = pd.concat([surface for one in found for surface in one.surfaces.values()])
        self.scale = scale_of(cost, float(corners[cost.name].max()))
        self.costs = corners[cost.name] * self.scale.factor
        self.high = float(corners["dice"].max())
        self.floor = dice_floor(corners.assign(dice_min=corners["dice"], dice_max=corners["dice"]))
        self.columns = min(len(found), 4 if layout.rail else 2)
        self.rows = -(-len(found) // self.columns)
        self.subject = textwrap.wrap(subject, layout.line_letters)
        self.notes = textwrap.wrap(" ".join(notes), layout.line_letters) if layout.notes else []
        self.above = _ABOVE + 0.16 * len(self.subject)
        self.height = self.above + self.rows * (_PANEL + _HEADING) + _BELOW + _NOTE_LINE * len(self.notes) + 0.12

    def figure(self) -> Figure:
        """Everything, drawn."""
        self.fig = Figure(figsize=(self.layout.width, self.height))
        for index, one in enumerate(self.found):
            axes = self._axes(index)
            for other in self.found:
                if other is not one:
                    axes.plot(*self._steps(_middle(other), axes), color=RULE.light, lw=0.6, ds="steps-post", zorder=1)
            self._draw_surfaces(axes, one)
        self._write_words()
        return self.fig

    def _axes(self, index: int) -> Axes:
        row, column = divmod(index, self.columns)
        width = (self.layout.width - self.layout.left - 0.2 + _GAP) / self.columns - _GAP
        left = self.layout.left + column * (width + _GAP)
        top = self.above + row * (_PANEL + _HEADING) + _HEADING
        across, up = self.layout.width, self.height
        axes = self.fig.add_axes((left / across, 1 - (top + _PANEL) / up, width / across, _PANEL / up))
        axes.tick_params(length=0, pad=4, labelsize=8)
        limit_dice(axes, self.floor, self.high)
        limit_cost(axes, self.costs)
        axes.tick_params(labelleft=column == 0, labelbottom=index + self.columns >= len(self.found))
        one = self.found[index]
        heading = f"{METHOD_LABELS[one.method]}, {counted(one.runs, 'run')} × {one.configurations}"
        axes.set_title(heading, loc="left", fontsize=8.6, pad=5, color=METHOD_STYLES[one.method].paint.light)
        return axes

    def _draw_surfaces(self, axes: Axes, one: Attainment) -> None:
        color = METHOD_STYLES[one.method].paint.light
        for level, surface in one.surfaces.items():
            dashes, width = _LINES[level]
            line = axes.plot(*self._steps(surface, axes), color=color, ls=dashes, lw=width, ds="steps-post", zorder=3)
            line[0].set_gid(f"attainment-{one.method}-{level}")
        best, worst = (self._steps(one.surfaces[level], axes) for level in ("best", "worst"))
        grid = np.union1d(best[0], worst[0])
        ends = (_at(grid, *worst), _at(grid, *best))
        axes.fill_between(grid, *ends, step="post", color=color, alpha=0.16, lw=0, zorder=2)

    def _steps(self, surface: pd.DataFrame, axes: Axes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of a step line: up from the floor at the cheapest goal, and on to the right edge."""
        cost, dice = surface[self.cost.name].to_numpy(dtype=float) * self.scale.factor, surface["dice"].to_numpy()
        right = axes.get_xlim()[1]
        return np.array([cost[0], *cost, right]), np.array([self.floor, *dice, dice[-1]])

    def _write_words(self) -> None:
        label = label_with_unit(self.cost.label, self.scale.unit)
        log = ", logarithmic" if self.fig.axes[0].get_xscale() == "log" else ""
        muted = {"color": MUTED.light, "va": "top"}
        title = "What each scheme attains over its runs" if self.layout.rail else "What the schemes attain"
        self._write(0.22, 0.16, title, fontsize=12.5, fontweight="bold", va="top")
        self._write(0.22, 0.43, "\n".join(self.subject), fontsize=8.3, linespacing=1.35, **muted)
        middle = self.layout.left + (self.layout.width - self.layout.left - 0.2) / 2
        bottom = self.above + self.rows * (_PANEL + _HEADING)
        self._write(middle, bottom + 0.26, label + log, fontsize=9.5, ha="center", va="top")
        panels = (self.above + _HEADING + bottom) / 2
        dice = "Dice" if self.rows == 1 else "Dice (mean over foreground)"
        self._write(0.16, panels, dice, fontsize=9.5, rotation=90, ha="center", va="center")
        self._write(0.22, bottom + _BELOW + 0.02, "\n".join(self.notes), fontsize=7.4, linespacing=1.4, **muted)
        self._draw_legend()

    def _draw_legend(self) -> None:
        levels = [level for level in _LINES if any(level in one.surfaces for one in self.found)]
        words = {"best": "best run", "median": "half of the runs", "worst": "every run"}
        lines = [Line2D([], [], color=MUTED.light, ls=_LINES[one][0], lw=_LINES[one][1]) for one in levels]
        top = 1 - (0.46 + 0.16 * len(self.subject)) / self.height
        self.fig.legend(
            lines,
            [words[level] for level in levels],
            loc="upper left",
            bbox_to_anchor=(0.16 / self.layout.width, top),
            ncols=3,
            fontsize=8,
            borderpad=0,
            handletextpad=0.5,
            columnspacing=1.3,
        )

    def _write(self, x: float, from_top: float, text: str, **style: object) -> None:
        self.fig.text(x / self.layout.width, 1 - from_top / self.height, text, **style)  # type: ignore[arg-type]


def _middle(one: Attainment) -> pd.DataFrame:
    return one.surfaces.get("median", one.surfaces["worst"])


def _at(grid: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A step function on a grid; before its first step it is its first value."""
    index = np.searchsorted(x, grid, side="right") - 1
    return np.asarray(np.where(index < 0, y[0], y[index]))

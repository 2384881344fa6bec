"""Made-up response surfaces over real curricula: what a search is tried on when the truth must be known.

The points are every distinct curriculum of a grid on the plan of a small data set (patch 40×56×40, batch 9). The time
of a point is a set-up and its iterations, each the time of its shape: a floor that any iteration costs (0.3 to 32 % of
a full one, by surface), the rest by voxels, and 5 % of scatter by shape. Its Dice is

    0.8 − gap · (loss of a short training, stretched exponential in the budget)
        + 1 to 3 bumps over smallest patch, stages and batch growth (one in four of them a dip)
        + an offset for each rule of batch growth + a slope in voxels per iteration + budget × smallest patch,

every third surface cut off at a plateau. The ranges hold what is published and what was measured: 1 to 15 points of
Dice between a tenth and all of the iterations, 0.3 to 4 points between curricula (MICCAI 2024, table 1; this project's
Hippocampus rows); in about half of them the published schemes are no good start. An observed Dice has a noise of 0.001
to 0.004 SD (a training's, and the mean of sixteen), in every second surface up to twice as much at small budgets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.curriculum.chain import Geometry
from study.curriculum.curriculum import Curriculum, resolve
from study.curriculum.schemes import STEPWISE, Axes
from study.search.space import Point

Array = NDArray[np.float64]
GEOMETRY = Geometry(patch_size=(40, 56, 40), divisors=(8, 8, 8), batch_size=9)
EPOCHS, ITERATIONS_PER_EPOCH = 100, 50
AXES: dict[str, list[Any]] = {
    "min_patch": [0, 0.25, 0.5, 0.75, 1],
    "stages": [1, 2, 3, 5, 9],
    "batch_growth": [0, 0.5, 1, STEPWISE],
    "budget": [0.1, 0.25, 0.5, 1],
}
# Where a rule of batch growth stands among the exponents, for the bumps.
_STEPWISE_AS = 0.9


def curriculum_of(point: Point) -> Curriculum:
    """The stage table of a point."""
    values: dict[str, Any] = {name.removeprefix("curriculum."): value for name, value in point.items()}
    return resolve(GEOMETRY, Axes(**values), epochs=EPOCHS, iterations_per_epoch=ITERATIONS_PER_EPOCH)


def grid() -> list[Point]:
    """One point for each distinct curriculum of the grid."""
    found: dict[object, Point] = {}
    for values in product(*AXES.values()):
        point = {f"curriculum.{name}": value for name, value in zip(AXES, values, strict=True)}
        found.setdefault(curriculum_of(point).stages, point)
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class Surface:
    """One truth over the grid.

    Attributes:
        seconds, dice: of each point, true.
        observed: Dice as one training would show it.
    """

    seconds: Array
    dice: Array
    observed: Array

    def hypervolume(self, trained: Sequence[int]) -> float:
        """True hypervolume of the points that look undominated among some, as a share of the true front's."""
        looks = list(trained)
        front = [looks[i] for i in _front(self.seconds[looks], self.observed[looks])]
        everything = self._volume(_front(self.seconds, self.dice))
        return self._volume(front) / everything

    def front(self) -> list[int]:
        """The true front, the cheapest first."""
        return _front(self.seconds, self.dice)

    def _volume(self, points: Sequence[int]) -> float:
        """Up to a reference a tenth of the range beyond the worst of the whole grid."""
        floor, most = self.dice.min() - 0.1 * np.ptp(self.dice), 1.1 * self.seconds.max()
        kept = [list(points)[i] for i in _front(self.seconds[points], self.dice[points])]
        until = np.append(self.seconds[kept][1:], most)
        return float(((until - self.seconds[kept]) * (self.dice[kept] - floor)).sum())


def _front(costs: Array, dice: Array) -> list[int]:
    best, front = -math.inf, []
    for place in np.lexsort((-dice, costs)):
        if dice[place] > best:
            front.append(int(place))
            best = dice[place]
    return front


def surface(points: Sequence[Point], seed: int) -> Surface:
    """The surface of a seed over the points of `grid`."""
    draw = np.random.default_rng(seed)
    curricula = [curriculum_of(point) for point in points]
    seconds = _seconds(curricula, draw)
    dice = _dice(points, curricula, draw)
    budget = _column(points, "budget")
    deviation = 10 ** draw.uniform(-3, -2.4) * (1 + draw.integers(0, 2) * (1 - budget))
    return Surface(seconds=seconds, dice=dice, observed=dice + deviation * draw.normal(size=len(dice)))


def _seconds(curricula: Sequence[Curriculum], draw: np.random.Generator) -> Array:
    full = GEOMETRY.patch_voxels * GEOMETRY.batch_size
    floor, setup = 10 ** draw.uniform(-2.5, -0.5), draw.uniform(0, 0.03) * EPOCHS * ITERATIONS_PER_EPOCH
    shapes = sorted({(stage.patch_size, stage.batch_size) for table in curricula for stage in table.stages})
    scatter = dict(zip(shapes, draw.lognormal(0, 0.05, len(shapes)), strict=True))

    def of(table: Curriculum) -> float:
        shares = (floor + (1 - floor) * stage.voxels_per_iteration / full for stage in table.stages)
        each = (scatter[stage.patch_size, stage.batch_size] * stage.iterations for stage in table.stages)
        return math.fsum(share * iterations for share, iterations in zip(shares, each, strict=True))

    return np.array([setup + of(table) for table in curricula])


def _dice(points: Sequence[Point], curricula: Sequence[Curriculum], draw: np.random.Generator) -> Array:
    budget, smallest = _column(points, "budget"), _column(points, "min_patch")
    settings = np.stack([smallest, np.log(_column(points, "stages")) / np.log(9), _column(points, "batch_growth")], 1)
    gap, lasting, stretch = draw.uniform(0.01, 0.15), draw.uniform(0.03, 0.4), draw.uniform(0.5, 1.2)
    short = np.exp((0.1**stretch - budget**stretch) / lasting)
    size = draw.uniform(0.003, 0.04)
    dice = 0.8 - gap * short
    for _ in range(draw.integers(1, 4)):
        centre, width = draw.uniform(0, 1, 3), draw.uniform(0.2, 0.8, 3)
        sign = draw.choice([1, 1, 1, -0.7])
        dice += sign * size * np.exp(-(((settings - centre) / width) ** 2).sum(axis=1) / 2)
    offsets = dict(zip(AXES["batch_growth"], draw.normal(0, 0.3 * size, 4), strict=True))
    dice += np.array([offsets[point["curriculum.batch_growth"]] for point in points])
    voxels = np.array([table.voxels / table.total_iterations for table in curricula])
    dice += draw.integers(0, 2) * draw.uniform(-0.3, 1) * size * voxels / voxels.max()
    dice += draw.normal(0, 0.5) * size * (np.log10(budget) + 0.5) * (smallest - 0.5)
    if draw.random() < 1 / 3:
        dice = np.minimum(dice, np.quantile(dice, draw.uniform(0.7, 0.95)))
    return np.asarray(dice)


def _column(points: Sequence[Point], name: str) -> Array:
    values = [point[f"curriculum.{name}"] for point in points]
    return np.array([_STEPWISE_AS if value == STEPWISE else value for value in values], dtype=float)

"""The strategy for Pareto fronts of Dice against costs that are known before a point is trained.

First the published schemes at the smallest budget, with each plan that is searched, then cheap points far from each
other, so that every setting has been seen at little cost; from then on, the point with the largest expected hypervolume
improvement by its cost. Points that are being trained count as believed. Everything is made anew from what it has been
told for every proposal, with no draw beyond the pool of candidates, which depends on the space's seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product

import numpy as np

from study.common.errors import InvalidInputError
from study.curriculum.curriculum import Curriculum
from study.curriculum.schemes import SCHEMES
from study.search.algorithms import draws, every, size_of
from study.search.domains import DEFAULTS, PLANS, SCHEME, Domain, Interval, Scalar
from study.search.samplers import Strategy
from study.search.space import Point, SearchSpace
from study.search.surrogate import Array, DiceModel, Encoding, expected_improvement, predicted_costs, scaled_costs
from study.store.outcomes import Outcome
from study.store.preview import Preview

# Candidates: all points of a space of at most so many, else so many draws.
MOST_CANDIDATES = 1000
# Finished points from which on the model decides.
LEAST_KNOWN = 8
# Cheap points are those of the cheapest third.
_CHEAP_SHARE = 1 / 3
# How far beyond the worst value a reference lies, as a share of the range; that of reports (`analysis.fronts`).
_MARGIN = 0.1
BUDGET, STAGES = "curriculum.budget", "curriculum.stages"
DICE, VOXEL_SHARE = "dice", "voxel_share"
# Costs in the order of a preview's amounts.
PREVIEWED = ("runtime_seconds", "energy_kwh", "co2_kg")


class Pareto(Strategy):
    """Expected hypervolume improvement per cost.

    Attributes:
        points: the candidates, and every point that has begun.
        told: place in `points` -> what it came to; None while it is being trained.
    """

    def __init__(self, space: SearchSpace, curriculum_of: Callable[[Point], Curriculum]) -> None:
        self._objectives = tuple(name for name in space.objectives if name != DICE)
        self._curriculum_of, self._encoding = curriculum_of, Encoding(space.searched)
        self.points: list[Point] = []
        self.told: dict[int, Outcome | None] = {}
        self._places: dict[tuple[object, ...], int] = {}
        self._numbers: dict[int, int] = {}
        self._work: list[tuple[float, float, float]] = []
        self._shares: list[float] = []
        self._cost_of: Callable[[Point], Preview | None] = lambda _: None
        self._amounts: list[tuple[float | None, float | None, float | None]] = []
        self._published = [place for point in published(space) if (place := self._add(point)) is not None]
        for point in _pool(space):
            self._add(point)

    def know_costs(self, cost_of: Callable[[Point], Preview | None]) -> None:
        """Take costs from the study's preview, for as long as nothing is known of one that it has not."""
        self._cost_of = cost_of

    def begin(self, number: int, point: Point) -> None:
        """Count the point as being trained."""
        place = self._add(point)
        if place is None:
            raise ValueError(f"{point!r} is no point of this space")
        self._numbers[number] = place
        self.told[place] = None

    def tell(self, number: int, reached: Outcome) -> None:
        """Take what it came to: Dice and costs, or the Dice that one stopped late was heading for; else nothing."""
        self.told[self._numbers[number]] = reached

    def candidates(self, number: int) -> Iterator[Point]:
        """All points of the pool, the best first."""
        yield from (self.points[place] for place in self._published if place not in self.told)
        known = [place for place in self.told if self._dice(place) is not None]
        costs = self._costs(known)
        ranked = self._by_improvement(known, costs) if len(known) >= LEAST_KNOWN else self._by_distance(costs)
        yield from (self.points[place] for place in ranked)

    def _add(self, point: Point) -> int | None:
        """The place of a point among the candidates, None if it is not legal.

        Points that are one training have one place: else what is known of it would be unknown under its other names.
        """
        try:
            curriculum = self._curriculum_of(point)
        except InvalidInputError:
            return None
        key = curriculum, *((name, value) for name, value in sorted(point.items()) if not _is_resolved(name))
        if key not in self._places:
            self._places[key] = len(self.points)
            self.points.append(dict(point))
            self._work.append((1.0, float(curriculum.total_iterations), float(curriculum.voxels)))
            self._shares.append(curriculum.voxel_share)
        return self._places[key]

    def _costs(self, known: Sequence[int]) -> Array:
        """Of each candidate, (candidates, costs)."""
        return np.column_stack([self._cost(name, known) for name in self._objectives])

    def _cost(self, name: str, known: Sequence[int]) -> Array:
        if name == VOXEL_SHARE:
            return np.array(self._shares)
        values = {place: self._value(place, name) for place in known}
        measured = {place: value for place, value in values.items() if value is not None and value > 0}
        previewed = self._previewed(name)
        costs = self._expected(measured, previewed)
        plans = [point.get(PLANS) for point in self.points]
        for plan in dict.fromkeys(plans[place] for place in measured):
            # Networks of other plans say nothing once one of its own has finished.
            own = np.array([other == plan for other in plans])
            costs[own] = self._expected({k: v for k, v in measured.items() if own[k]}, previewed)[own]
        return costs

    def _expected(self, measured: Mapping[int, float], previewed: Array | None) -> Array:
        places, costs = list(measured), np.array(list(measured.values()), dtype=float)
        if previewed is None:
            return predicted_costs(np.array(self._work), places, costs)
        return scaled_costs(previewed, places, costs)

    def _previewed(self, name: str) -> Array | None:
        """Of each candidate by the preview, None where it has not all of them."""
        kind = PREVIEWED.index(name)
        for place in range(len(self._amounts), len(self.points)):
            found = self._cost_of(self.points[place])
            self._amounts.append((None, None, None) if found is None else found.amounts)
        column = [amounts[kind] for amounts in self._amounts]
        return None if None in column else np.array(column, dtype=float)

    def _value(self, place: int, name: str) -> float | None:
        reached = self.told[place]
        return None if reached is None else reached.values.get(name)

    def _dice(self, place: int) -> float | None:
        """As measured; of a point that was stopped late, as projected then."""
        reached = self.told[place]
        return None if reached is None else reached.values.get(DICE, reached.projected)

    def _rows(self, costs: Array) -> Array:
        """What the model of Dice is given: the settings, and the first cost in the logarithm."""
        logarithm = np.log(costs[:, 0])
        return np.column_stack([self._encoding.rows(self.points), _unit(logarithm)])

    def _by_distance(self, costs: Array) -> list[int]:
        """The cheapest third, the farthest from all that has begun first; then the others, the cheapest first."""
        rows, order = self._rows(costs), np.argsort(costs[:, 0], kind="stable")
        cheap = order[: max(1, round(_CHEAP_SHARE * len(order)))]
        distance = np.full(len(cheap), math.inf)
        for place in self.told:
            distance = np.minimum(distance, ((rows[cheap] - rows[place]) ** 2).sum(axis=1))
        return [*cheap[np.argsort(-distance, kind="stable")], *order[len(cheap) :]]

    def _by_improvement(self, known: Sequence[int], costs: Array) -> list[int]:
        rows = self._rows(costs)
        dice = np.array([self._dice(place) for place in known], dtype=float)
        running = [place for place, reached in self.told.items() if reached is None]
        mean, deviation = DiceModel(rows[list(known)], dice, rows[running])(rows)
        begun = [*known, *running]
        lowest = min(mean.min(), dice.min()) - _MARGIN * (np.ptp(dice) or 1.0)
        gained = expected_improvement(
            mean,
            deviation,
            costs,
            front_dice=mean[begun],
            front_costs=costs[begun],
            reference=np.array([lowest, *((1 + _MARGIN) * costs.max(axis=0))]),
        )
        return list(np.argsort(-gained / costs[:, 0], kind="stable"))


def published(space: SearchSpace) -> Iterator[Point]:
    """The named schemes as points of a space at its smallest budget, those that it holds, with each of its plans.

    All sizes of the chain are as many stages as the space has at most.
    """
    for (name, scheme), plans in product(SCHEMES.items(), space.axes[PLANS].probes()):
        wanted = {f"curriculum.{field}": value for field, value in vars(scheme.axes).items()} | {SCHEME: name}
        wanted[PLANS] = plans
        point = {axis: _held(domain, axis, wanted) for axis, domain in space.searched.items()}
        axes = space.settings(point).axes
        if replace(scheme.axes, budget=axes.budget, stages=axes.stages, cycles=axes.cycles) == axes:
            yield point


def _held(domain: Domain, axis: str, wanted: Mapping[str, Scalar]) -> Scalar:
    """The value of an axis for a scheme, or another one of the domain's if it has none."""
    value = wanted.get(axis, DEFAULTS.get(axis))
    ends = domain.probes()
    if axis == BUDGET:
        return min(ends)  # type: ignore[type-var]
    if value is None and axis == STAGES and None not in ends:
        return max(ends)  # type: ignore[type-var]
    if isinstance(domain, Interval):
        return value if isinstance(value, int | float) and domain.low <= value <= domain.high else domain.low
    return value if value in ends else ends[0]


def _pool(space: SearchSpace) -> Iterator[Point]:
    """All points of a space that is small enough, else so many draws."""
    points = every if size_of(space.searched) <= MOST_CANDIDATES else draws
    return islice(points(space.searched, space.seed), MOST_CANDIDATES)


def _is_resolved(name: str) -> bool:
    """Whether an axis decides the stage table and nothing else."""
    return name.startswith("curriculum.") and not name.startswith("curriculum.pdl_")


def _unit(values: Array) -> Array:
    return np.asarray((values - values.min()) / (np.ptp(values) or 1.0))

"""How much of a grid's cost a searcher spends before it has nearly all of the front: known truths, noisy data.

Each searcher runs by itself on each surface, a point at a time, and every figure is the true hypervolume of the points
that look undominated in what it has seen, against the share of the grid's cost that it has spent. `oracle` trains the
true front, the cheapest point first, sees it without noise, and is what a search could do at best. Surfaces whose seed
is a multiple of three are held out: nothing of the searcher was chosen on them.

The stored grid (`benchmarks.grid`) is searched likewise, with its own results for the truth and seeds for surfaces.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna

from benchmarks.grid import load as load_grid
from benchmarks.surfaces import AXES, Surface, curriculum_of, grid, surface
from study.curriculum.curriculum import Curriculum
from study.search.document import space_from
from study.search.optuna_study import Tpe, directions, distributions, silence_optuna
from study.search.pareto import Pareto, published
from study.search.samplers import Strategy
from study.search.space import Point, SearchSpace
from study.store.outcomes import Outcome
from study.store.trial_folder import TrialState

GOALS = (0.95, 0.98)
HELD_OUT = 3
# Where a search is given up, as a share of the grid's cost.
MOST_SPENT = 0.6
KNOWN_POINTS = 500
OBJECTIVES = ["dice", "runtime_seconds"]


@dataclass(frozen=True, kw_only=True)
class Spending:
    """Share of the grid's cost until a share of the true hypervolume was reached, over surfaces.

    Attributes:
        searcher, goal: whose, and the share of the hypervolume.
        surfaces: how many; held_out: whether those that nothing was chosen on.
        median, p90, worst: of the share; infinite where it was not reached.
    """

    searcher: str
    goal: float
    surfaces: int
    held_out: bool
    median: float
    p90: float
    worst: float

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, null for what was not reached."""
        return {name: None if value == math.inf else value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class SearchBench:
    """Figures of one run.

    Attributes:
        spendings: of each searcher and goal, on all surfaces and on those held out.
        grid_points: of the grid, each a curriculum of its own.
        proposal_seconds: of `pareto` with 500 points known; None where it was not measured.
        over: what the spendings are over.
    """

    spendings: tuple[Spending, ...]
    grid_points: int
    proposal_seconds: float | None
    over: str = "surfaces"

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        return asdict(self) | {"spendings": [spending.to_json() for spending in self.spendings]}

    def as_text(self) -> str:
        """A line per searcher, goal and set of surfaces."""
        lines = [f"share of the cost of a grid of {self.grid_points} points until the front was found"]
        for each in self.spendings:
            shares = ", ".join(f"{word} {_percent(getattr(each, word))}" for word in ("median", "p90", "worst"))
            over = f"{each.surfaces} {'held-out ' if each.held_out else ''}{self.over}"
            lines.append(f"{each.searcher:8}{each.goal:4.0%} of its hypervolume: {shares} ({over})")
        if self.proposal_seconds is not None:
            lines.append(f"a proposal of pareto with {KNOWN_POINTS} points known: {self.proposal_seconds:.2f} s")
        return "\n".join(lines)


def _percent(share: float) -> str:
    return f"not within {MOST_SPENT:.0%}" if share == math.inf else f"{share:.1%}"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A grid to search.

    Attributes:
        space: its axes; its seed is the searcher's.
        points: each with a curriculum of its own.
        curriculum_of: the stage table of a point.
        truth: what each point costs and reaches.
    """

    space: SearchSpace
    points: Sequence[Point]
    curriculum_of: Callable[[Point], Curriculum]
    truth: Surface

    def places(self) -> dict[object, int]:
        """Of the points, by their stages."""
        return {self.curriculum_of(point).stages: place for place, point in enumerate(self.points)}


Order = Callable[[Problem], Iterator[int]]


def _grid(problem: Problem) -> Iterator[int]:
    yield from range(len(problem.points))


def _random(problem: Problem) -> Iterator[int]:
    count = len(problem.points)
    yield from random.Random(problem.space.seed).sample(range(count), count)


def _oracle(problem: Problem) -> Iterator[int]:
    yield from problem.truth.front()


def _strategy(kind: type[Strategy]) -> Order:
    def order(problem: Problem) -> Iterator[int]:
        strategy, places, points = kind(problem.space, problem.curriculum_of), problem.places(), problem.points
        left = set(range(len(points)))
        spare = [points[place] for place in _random(problem)]
        for number in range(len(points)):
            # As in a study, a point is told under the settings that it was proposed with.
            found = ((places[problem.curriculum_of(p).stages], p) for p in chain(strategy.candidates(number), spare))
            place, point = next(each for each in found if each[0] in left)
            left.remove(place)
            strategy.begin(number, point)
            strategy.tell(number, _outcome(problem.truth, place))
            yield place

    return order


def _nsga2(problem: Problem) -> Iterator[int]:
    silence_optuna()
    sampler = optuna.samplers.NSGAIISampler(population_size=20, seed=problem.space.seed)
    study = optuna.create_study(directions=directions(OBJECTIVES), sampler=sampler)
    settings, places = distributions(problem.space), problem.places()
    for _ in range(10 * len(problem.points)):
        trial = study.ask(settings)
        place = places[problem.curriculum_of(trial.params).stages]
        study.tell(trial, [problem.truth.observed[place], problem.truth.seconds[place]])
        yield place


SEARCHERS: dict[str, Order] = {
    "pareto": _strategy(Pareto),
    "optuna": _strategy(Tpe),
    "nsga2": _nsga2,
    "random": _random,
    "grid": _grid,
    "oracle": _oracle,
}
UNSEEDED = ("grid", "oracle")


def measure(*, surfaces: int, searchers: Sequence[str], jobs: int) -> SearchBench:
    """Run searchers on the surfaces of seeds from 0.

    Args:
        surfaces: how many, at least 3.
        searchers: keys of `SEARCHERS`.
        jobs: processes side by side.
    """
    pairs = [(name, seed) for name in searchers for seed in range(surfaces)]
    spent = joblib.Parallel(n_jobs=jobs)(joblib.delayed(_spent)(name, _made_up, seed) for name, seed in pairs)
    found = dict(zip(pairs, spent, strict=True))
    spendings = (
        _reduced(name, goal, held_out, [found[name, seed][k] for seed in seeds])
        for name in searchers
        for k, goal in enumerate(GOALS)
        for held_out, seeds in ((False, range(surfaces)), (True, range(0, surfaces, HELD_OUT)))
    )
    return SearchBench(
        spendings=tuple(spendings), grid_points=len(grid()), proposal_seconds=proposal_seconds(KNOWN_POINTS)
    )


def proposal_seconds(points: int) -> float:
    """How long `pareto` takes for a proposal when so many points are known, the first one's preparation left out."""
    space, draw = _space(0, continuous=True), random.Random(0)
    strategy = Pareto(space, curriculum_of)
    drawn = ({name: domain.sample(draw) for name, domain in space.searched.items()} for _ in range(points))
    for number, point in enumerate([*published(space), *drawn]):
        strategy.begin(number, point)
        table = curriculum_of(point)
        values = {"dice": draw.gauss(0.8, 0.02), "runtime_seconds": 1e-3 * table.voxels}
        strategy.tell(number, Outcome(state=TrialState.FINISHED, values=values))
    began = time.perf_counter()
    next(strategy.candidates(points))
    return time.perf_counter() - began


def measure_stored(path: Path, *, seeds: int, searchers: Sequence[str], jobs: int) -> SearchBench:
    """Run searchers on a stored grid, see `grid.load`, with seeds from 0; what has none runs once."""
    load = partial(_stored, path)
    pairs = [(name, seed) for name in searchers for seed in range(1 if name in UNSEEDED else seeds)]
    spent = joblib.Parallel(n_jobs=jobs)(joblib.delayed(_spent)(name, load, seed) for name, seed in pairs)
    found: dict[str, list[list[float]]] = {name: [] for name in searchers}
    for (name, _), shares in zip(pairs, spent, strict=True):
        found[name].append(shares)
    spendings = (
        _reduced(name, goal, False, [shares[k] for shares in found[name]])
        for name in searchers
        for k, goal in enumerate(GOALS)
    )
    return SearchBench(spendings=tuple(spendings), grid_points=len(load(0).points), proposal_seconds=None, over="seeds")


def _space(seed: int, *, continuous: bool = False) -> SearchSpace:
    return _space_of(AXES | ({"min_patch": {"uniform": [0, 1]}} if continuous else {}), seed)


def _space_of(axes: Mapping[str, Any], seed: int) -> SearchSpace:
    written = {"name": Path(__file__).stem, "searcher": "pareto", "trials": 1, "seed": seed, "objectives": OBJECTIVES}
    return space_from({**written, "datasets": [1], "curriculum": axes})


def _made_up(seed: int) -> Problem:
    points = grid()
    return Problem(space=_space(seed), points=points, curriculum_of=curriculum_of, truth=surface(points, seed))


def _stored(path: Path, seed: int) -> Problem:
    stored = load_grid(path)
    dice = np.array(stored.dice)
    return Problem(
        space=_space_of(stored.axes, seed),
        points=stored.points,
        curriculum_of=stored.curriculum_of,
        truth=Surface(seconds=np.array(stored.own_cpu_seconds), dice=dice, observed=dice),
    )


def _outcome(truth: Surface, place: int) -> Outcome:
    values = {"dice": float(truth.observed[place]), "runtime_seconds": float(truth.seconds[place])}
    return Outcome(state=TrialState.FINISHED, values=values)


def _spent(searcher: str, problem_of: Callable[[int], Problem], seed: int) -> list[float]:
    """For each goal, the share of the grid's cost when it was first reached."""
    problem, trained, spent = problem_of(seed), list[int](), 0.0
    truth = problem.truth
    reached = dict.fromkeys(GOALS, math.inf)
    for place in SEARCHERS[searcher](problem):
        if place not in trained:
            trained.append(place)
            spent += float(truth.seconds[place] / truth.seconds.sum())
            seen = truth if searcher != "oracle" else replace(truth, observed=truth.dice)
            volume = seen.hypervolume(trained)
            reached |= {goal: spent for goal, before in reached.items() if before == math.inf and volume >= goal}
        if spent > MOST_SPENT or all(math.isfinite(share) for share in reached.values()):
            break
    return list(reached.values())


def _reduced(searcher: str, goal: float, held_out: bool, shares: Sequence[float]) -> Spending:
    ordered = np.sort(shares)
    median, p90 = (float(np.quantile(ordered, q, method="higher")) for q in (0.5, 0.9))
    return Spending(
        searcher=searcher,
        goal=goal,
        surfaces=len(ordered),
        held_out=held_out,
        median=median,
        p90=p90,
        worst=float(ordered[-1]),
    )

"""The searchers: how a study comes by its points.

One more is an entry of `SEARCHERS`: with a function that lists its points, or where they depend on results with a
subclass of `study.search.samplers.Strategy`. What is recorded, proposed again or never twice is not its business.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from study.search.domains import Domain, Scalar

Domains = Mapping[str, Domain]
Points = Iterator[dict[str, Scalar]]


@dataclass(frozen=True, kw_only=True)
class Searcher:
    """A way to search.

    Attributes:
        meaning: in a few words, for the documentation.
        points: from axes and seed its points, none twice; None where they depend on results.
        strategy: `module:class` of the `Strategy` of one without `points`, loaded when a study begins.
        whole: whether it goes through every combination: axes must be finite, and the number of trials may be left out.
        seeded: whether its points depend on the seed.
        libraries: distributions on whose version its points depend.
        costs: objectives that it can take beside Dice, one or two of them; empty if it takes any.
    """

    meaning: str
    points: Callable[[Domains, int], Points] | None = None
    strategy: str = ""
    whole: bool = False
    seeded: bool = True
    libraries: tuple[str, ...] = ()
    costs: tuple[str, ...] = ()


def size_of(axes: Domains) -> float:
    """How many points there are."""
    values = [domain.values() for domain in axes.values()]
    return math.prod(math.inf if listed is None else len(listed) for listed in values)


def every(axes: Domains, seed: int) -> Points:
    """All combinations in order."""
    for values in itertools.product(*(domain.values() or () for domain in axes.values())):
        yield dict(zip(axes, values, strict=True))


def draws(axes: Domains, seed: int) -> Points:
    """Points drawn evenly, none twice, until there are no more."""
    generator = random.Random(seed)
    size = size_of(axes)
    seen: set[tuple[Scalar, ...]] = set()
    while len(seen) < size:
        point = {name: domain.sample(generator) for name, domain in axes.items()}
        key = tuple(point.values())
        if key not in seen:
            seen.add(key)
            yield point


SEARCHERS: Mapping[str, Searcher] = {
    "grid": Searcher(meaning="every combination", points=every, whole=True, seeded=False),
    "random": Searcher(meaning="seeded draws", points=draws),
    "optuna": Searcher(meaning="multi-objective TPE", strategy="study.search.optuna_study:Tpe", libraries=("optuna",)),
    "pareto": Searcher(
        meaning="expected hypervolume improvement over costs that are known before training",
        strategy="study.search.pareto:Pareto",
        libraries=("scikit-learn", "scipy"),
        costs=("runtime_seconds", "co2_kg", "energy_kwh", "voxel_share"),
    ),
}
"""By the name that a space file gives."""
LISTED = tuple(name for name, searcher in SEARCHERS.items() if searcher.points)
"""Those whose points are known in advance."""
ADAPTIVE = tuple(name for name, searcher in SEARCHERS.items() if not searcher.points)
"""Those whose points depend on results, and which therefore have objectives."""

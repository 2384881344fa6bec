"""`run --dry-run`: the trials of a study before anything is trained, and what they will cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from study.common.tables import PlainConsole
from study.common.terminal import time_left
from study.curriculum.table import data_words, rich_table, shortfalls, summary
from study.search.algorithms import draws
from study.search.space import Point, SearchSpace
from study.search.trials import Lookup, specs
from study.store.ledger import Ledger
from study.store.preview import Amounts, Trained, preview, trained_in, trust
from study.store.specification import TrialSpec

# Draws that stand for the points of a search that decides as it goes.
PROBES = 100


def show(space: SearchSpace, lookup: Lookup, studies: Sequence[Path]) -> int:
    """Print every trial of points known in advance, once; of others, the domains they will be drawn from.

    Args:
        space: of the study.
        lookup: finds its data.
        studies: whose finished trials say what the trials will cost; none, and no cost is told.
    """
    console = PlainConsole()
    costs = Costs([Ledger.open(study) for study in studies])
    if space.method.points is None:
        console.print(f"{space.trials} points proposed by {space.searcher} as results come in, from")
        for name, domain in space.searched.items():
            console.print(f"  {name}: {domain.to_json()}")
        if studies:
            drawn = list(islice(draws(space.searched, space.seed), PROBES))
            for point in drawn:
                costs.add(specs(space, point, lookup))
            costs.tell(console, draws=len(drawn), of=space.trials or 0)
        return 0
    seen: set[str] = set()
    for point in space.points():
        for spec in specs(space, point, lookup):
            known = spec.trial_id in seen
            _show_trial(console, point, spec, known=known, cost=costs.add([spec]) if studies and not known else "")
            seen.add(spec.trial_id)
    console.print(f"{len(seen)} trials")
    costs.tell(console)
    return 0


class Costs:
    """What trials will cost, one after another, by those of some studies.

    Args:
        ledgers: of studies with finished trials; none: nothing is told.
    """

    def __init__(self, ledgers: Sequence[Ledger]) -> None:
        self._ledgers = ledgers
        self._known: dict[str, list[Trained]] = {}
        self._amounts: list[Amounts] = []
        self._placed = 0

    def add(self, specs: Sequence[TrialSpec]) -> str:
        """Count these trials; what the last of them takes, in words."""
        for spec in specs:
            if spec.dataset not in self._known:
                self._known[spec.dataset] = trained_in(self._ledgers, spec)
            found = preview(spec, self._known[spec.dataset])
            self._amounts.append(found.amounts)
            self._placed += found.placed > 0
        return _amounts_words(self._amounts[-1])

    def tell(self, console: PlainConsole, *, draws: int = 1, of: int = 1) -> None:
        """Print what they take together, or so many points if the trials are those of some draws, and the basis."""
        if not self._amounts:
            return
        columns = list(zip(*self._amounts, strict=True))
        seconds, energy, carbon = (None if None in part else math.fsum(part) * of / draws for part in columns)
        drawn = "" if draws == of == 1 else f" if points were drawn evenly (mean of {draws} draws)"
        console.print(f"together about {_amounts_words((seconds or 0.0, energy, carbon))}{drawn}; training loops alone")
        for dataset, known in self._known.items():
            console.print(f"  {dataset}: {trust(known)}")
        if self._placed:
            console.print(f"  {self._placed} trials have sizes that none of these trained: placed by their voxels")


def _amounts_words(amounts: Amounts) -> str:
    seconds, energy, carbon = amounts
    told = [time_left(seconds)]
    told.append("energy not measured" if energy is None else f"{energy:.3g} kWh")
    told.append("CO2 not measured" if carbon is None else f"{carbon:.3g} kg CO2")
    return ", ".join(told)


def _show_trial(console: PlainConsole, point: Point, spec: TrialSpec, *, known: bool, cost: str) -> None:
    searched = ", ".join(f"{name.split('.')[-1]} {value}" for name, value in point.items())
    title = f"trial {spec.trial_id}  {spec.dataset}  fold {spec.fold}  seed {spec.seed}  {searched}"
    if known:
        console.print(f"{title}: the same trial as above")
        return
    console.print(title, rich_table(spec.curriculum), summary(spec.curriculum), sep="\n")
    if spec.data is not None:
        console.print(f"data: {data_words(spec.axes, spec.data)}")
    for note in shortfalls(spec.curriculum, spec.axes):
        console.print(f"note: {note}")
    if cost:
        console.print(f"cost: about {cost}")
    console.print()

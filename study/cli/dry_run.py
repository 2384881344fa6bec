"""`run --dry-run`: the trials of a study before anything is trained, and what they will cost."""

from __future__ import annotations

from itertools import islice

from study.cli.costs import Costs, Sources, at_a_time, memory_lines
from study.common.tables import PlainConsole
from study.curriculum.table import data_words, rich_table, shortfalls, summary
from study.search.algorithms import draws
from study.search.space import Point, SearchSpace
from study.search.trials import Lookup, specs
from study.store.specification import TrialSpec

# Draws that stand for the points of a search that decides as it goes.
PROBES = 100


def show(space: SearchSpace, lookup: Lookup, sources: Sources) -> int:
    """Print every trial of points known in advance, once; of others, the domains they will be drawn from.

    Args:
        space: of the study.
        lookup: finds its data.
        sources: say what the trials will cost.
    """
    console, costs = PlainConsole(), Costs(sources)
    if space.method.points is None:
        console.print(f"{space.trials} points proposed by {space.searcher} as results come in, from")
        for name, domain in space.searched.items():
            console.print(f"  {name}: {domain.to_json()}")
        drawn = list(islice(draws(space.searched, space.seed), PROBES))
        shown = [spec for point in drawn for spec in specs(space, point, lookup)]
        for spec in shown:
            costs.add(spec)
        costs.stand_for(draws=len(drawn), of=space.trials or 0)
    else:
        shown, seen = list[TrialSpec](), set[str]()
        for point in space.points():
            for spec in specs(space, point, lookup):
                known = spec.trial_id in seen
                _show_trial(console, point, spec, known=known, cost="" if known else costs.add(spec))
                seen.add(spec.trial_id)
                shown.append(spec)
        console.print(f"{len(seen)} trials")
    beside = at_a_time(space) if sources.hardware else None
    for line in (*costs.lines(beside), *memory_lines(space, shown, sources)):
        console.print(line)
    return 0


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

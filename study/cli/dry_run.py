"""What a study would train: its points, trials and stage tables, from plans alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.curriculum.table import data_words, rich_table, shortfalls, summary
from study.search.space import Point, SearchSpace
from study.search.trials import Lookup, specs
from study.store.specification import TrialSpec

if TYPE_CHECKING:
    from study.common.tables import PlainConsole


def show(space: SearchSpace, lookup: Lookup) -> int:
    """Print every trial of points known in advance, once; of others, the domains they will be drawn from."""
    from study.common.tables import PlainConsole

    console = PlainConsole()
    if space.method.points is None:
        console.print(f"{space.trials} points proposed by {space.searcher} as results come in, from")
        for name, domain in space.searched.items():
            console.print(f"  {name}: {domain.to_json()}")
        return 0
    seen: set[str] = set()
    for point in space.points():
        for spec in specs(space, point, lookup):
            _show_trial(console, point, spec, known=spec.trial_id in seen)
            seen.add(spec.trial_id)
    console.print(f"{len(seen)} trials")
    return 0


def _show_trial(console: PlainConsole, point: Point, spec: TrialSpec, *, known: bool) -> None:
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
    console.print()

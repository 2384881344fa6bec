"""Section: what it costs. By cause and stage, what the study's hours bought, and where the machine was busy."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.effects.costs import costs_exhibits
from analysis.effects.progress import load_of_the_machine, progress
from analysis.figures.exhibits import Part, Section, by_dataset
from analysis.fronts.captions import caveats, states, subject
from analysis.fronts.front import pareto_front
from analysis.statistics.evidence import Evidence


def costs(evidence: Evidence) -> Section:
    """The section: exhibits of every dataset, and sentences about those that cannot be shown."""
    none = f"No cost of a result yet: it takes a finished trial ({states(evidence.tables.trials)})."
    return by_dataset(evidence, _of_dataset, none=none, anchor="costs", heading="What does it cost?")


def _of_dataset(evidence: Evidence) -> Iterator[Part]:
    front = pareto_front(evidence.points, ("dice", "runtime_seconds"))
    cautions = [sentence.replace(" (hollow)", "") for sentence in caveats(front)]
    yield from costs_exhibits(evidence.tables, subject(front.points) if len(front.points) else "", cautions)
    yield progress(evidence, front)
    yield from load_of_the_machine(evidence)

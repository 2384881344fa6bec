"""Section: effects. What matters on the way to Dice and cost, how trainings went, and where their cost went."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.effects.axes import parallel, slices
from analysis.effects.costs import costs_exhibits
from analysis.effects.curves import learning_curves
from analysis.effects.importances import importances_exhibit
from analysis.effects.varying import varying_axes
from analysis.figures.exhibits import Part, Section, by_dataset
from analysis.fronts.captions import caveats, states, subject
from analysis.fronts.front import pareto_front
from analysis.statistics.evidence import Evidence

_INTRO = (
    "Which settings move Dice and cost, how the trainings got there, and what their time went into. Importances and "
    "slices describe the points of this study; they are not evidence of causes beyond it."
)


def effects(evidence: Evidence) -> Section:
    """The section: exhibits of every dataset, and sentences about those that cannot be shown."""
    none = f"Nothing can be explained yet: it takes a finished trial ({states(evidence.tables.trials)})."
    return by_dataset(evidence, _of_dataset, none=none, anchor="why", heading="Why", intro=_INTRO)


def _of_dataset(evidence: Evidence) -> Iterator[Part]:
    measured = bool(evidence.points["co2_kg"].notna().all())
    objectives = ("dice", "runtime_seconds", "co2_kg" if measured else "voxels")
    front, pair = (pareto_front(evidence.points, names) for names in (objectives, objectives[:2]))
    points, axes = front.points, varying_axes(front.points)
    # Most of these figures have no hollow points.
    cautions = [sentence.replace(" (hollow)", "") for sentence in caveats(front)]
    if points.empty:
        yield "Importances, slices and curves: no finished trial has both Dice and its costs."
    else:
        yield importances_exhibit(points, axes, objectives, cautions)
        if axes:
            yield slices(pair, axes, caveats(pair))
            yield parallel(front, axes, cautions)
        else:
            yield "Slices and parallel coordinates: they need an axis on which configurations differ."
        yield learning_curves(front, evidence.tables, cautions)
    yield from costs_exhibits(evidence.tables, subject(points) if len(points) else "", cautions)

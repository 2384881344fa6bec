"""Section: which settings matter on the way to Dice and cost."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.effects.axes import slices
from analysis.effects.importances import importances_exhibit
from analysis.effects.varying import varying_axes
from analysis.figures.exhibits import Part, Section, by_dataset
from analysis.fronts.captions import caveats, states
from analysis.fronts.front import pareto_front
from analysis.statistics.evidence import Evidence

_INTRO = (
    "Importances and slices describe the points of this study; they are not evidence of causes beyond it. Settings "
    "that vary together cannot be told apart."
)


def effects(evidence: Evidence) -> Section:
    """The section: exhibits of every dataset, and sentences about those that cannot be shown."""
    none = f"Nothing can be explained yet: it takes a finished trial ({states(evidence.tables.trials)})."
    return by_dataset(evidence, _of_dataset, none=none, anchor="why", heading="Which settings matter?", intro=_INTRO)


def _of_dataset(evidence: Evidence) -> Iterator[Part]:
    measured = bool(evidence.points["co2_kg"].notna().all())
    objectives = ("dice", "runtime_seconds", "co2_kg" if measured else "voxels")
    front, pair = (pareto_front(evidence.points, names) for names in (objectives, objectives[:2]))
    points, axes = front.points, varying_axes(front.points)
    if points.empty:
        yield "Importances and slices: no finished trial has both Dice and its costs."
    else:
        # These figures have no hollow points.
        cautions = [sentence.replace(" (hollow)", "") for sentence in caveats(front)]
        yield importances_exhibit(points, axes, objectives, cautions)
        yield slices(pair, axes, caveats(pair)) if axes else "Slices: they need an axis on which configurations differ."

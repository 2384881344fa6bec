"""Section: how sure it is. What every run of a scheme attains, and whether its trainings had come to rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.effects.curves import learning_curves
from analysis.figures.exhibits import Exhibit, Part, Section, by_dataset
from analysis.fronts.attainment import Attainment, attainments
from analysis.fronts.captions import caveats, states, subject
from analysis.fronts.figures import attainment_figure
from analysis.fronts.front import Front, pareto_front
from analysis.statistics.evidence import Evidence
from analysis.tables.contention import sentences as contention
from analysis.tables.methods import METHOD_LABELS
from analysis.tables.objectives import OBJECTIVES

_INTRO = (
    "Intervals are over validation cases, and over trainings where there are several seeds. P(on front) in the numbers "
    "of a front says how often a point stays on it when cases are drawn again."
)


def certainty(evidence: Evidence) -> Section:
    """The section: exhibits of every dataset, and sentences about those that cannot be shown."""
    none = f"Nothing can be said yet: it takes a finished trial ({states(evidence.tables.trials)})."
    return by_dataset(evidence, _of_dataset, none=none, anchor="sure", heading="How sure is this?", intro=_INTRO)


def _of_dataset(evidence: Evidence) -> Iterator[Part]:
    front = pareto_front(evidence.points, ("dice", "runtime_seconds"))
    yield _attainment(evidence)
    if len(front.points):
        # These figures have no hollow points.
        cautions = [sentence.replace(" (hollow)", "") for sentence in caveats(front)]
        yield learning_curves(front, evidence.tables, cautions)


def _attainment(evidence: Evidence) -> Part:
    cost, trials = OBJECTIVES["runtime_seconds"], evidence.tables.trials
    found = attainments(trials, (OBJECTIVES["dice"], cost))
    if not found:
        return "No figure of attainment: no scheme has configurations that finished on two folds or seeds."
    front = pareto_front(evidence.points, ("dice", cost.name))
    about, said = subject(front.points), tuple(_about_attainment(found, front, trials))
    each = [
        f"{METHOD_LABELS[one.method]} over {one.runs} runs reaches Dice {one.surfaces['best']['dice'].max():.3f} in "
        f"its best run and {one.surfaces['worst']['dice'].max():.3f} in every run"
        for one in found
    ]
    corners = [
        surface.assign(method=one.method, runs=one.runs, surface=level)
        for one in found
        for level, surface in one.surfaces.items()
    ]
    return Exhibit(
        stem="attainment_dice_runtime",
        folded=True,
        heading="What each scheme attains over its runs",
        draw=lambda layout: attainment_figure(found, cost, subject=about, notes=said, layout=layout),
        alt=f"Step lines of Dice against training time, a panel per scheme: {'; '.join(each)}.",
        notes=said,
        data=pd.concat(corners, ignore_index=True)[["method", "runs", "surface", "dice", "runtime_seconds"]],
    )


def _about_attainment(found: Sequence[Attainment], front: Front, trials: pd.DataFrame) -> Iterator[str]:
    yield (
        "A run is one fold with one seed. Right of and below a line lies what the best run, at least half of the runs, "
        "or every run attains; grey: the other schemes."
    )
    yield "Heading of a panel: runs × configurations that finished in all of them."
    lacking = [f"{one.left_out} of {METHOD_LABELS[one.method]}" for one in found if one.left_out]
    if lacking:
        yield f"Trials left out, because not every run has their configuration: {', '.join(lacking)}."
    shown = {one.method for one in found}
    present = set(trials["method"])
    absent = [label for method, label in METHOD_LABELS.items() if method in present - shown]
    if absent:
        yield f"Without two runs of a same configuration: {', '.join(absent)}."
    yield from (sentence for sentence in caveats(front) if sentence.startswith("Measured on"))
    yield from contention(front.points)
    yield "The Dice axis may start above 0, which a mark at its foot says."

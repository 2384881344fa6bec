"""Sections of a report: costs, failures, certainty, which settings matter, and what was confirmed.

Each has the exhibits of every dataset, and sentences about those that cannot be shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from analysis.advice.advice import knee
from analysis.effects.axes import slices
from analysis.effects.costs import costs_exhibits
from analysis.effects.curves import learning_curves
from analysis.effects.failures import failures
from analysis.effects.importances import importances_exhibit
from analysis.effects.progress import load_of_the_machine, progress
from analysis.effects.varying import varying_axes
from analysis.figures.exhibits import Exhibit, Part, Section, by_dataset, stem_of
from analysis.fronts.attainment import Attainment, attainments
from analysis.fronts.captions import caveats, states, subject
from analysis.fronts.figures import attainment_figure
from analysis.fronts.front import Front, pareto_front
from analysis.statistics.evidence import Evidence
from analysis.tables.contention import sentences as contention
from analysis.tables.format import MISSING, Table, readable, without_empty
from analysis.tables.methods import METHOD_LABELS
from analysis.tables.objectives import OBJECTIVES
from study.common.files import name_of
from study.store.confirmation import OFF, Confirmation, Confirmed
from study.store.ledger import Ledger

_SURE = (
    "Intervals are over validation cases, and over trainings where there are several seeds. P(on front) in the numbers "
    "of a front says how often a point stays on it when cases are drawn again."
)
_WHY = (
    "Importances and slices describe the points of this study; they are not evidence of causes beyond it. Settings "
    "that vary together cannot be told apart."
)
_CONFIRMED = (
    "Whether the points that the search found are on the front, judged by trainings on folds, or with seeds, that it "
    "did not see. P(on front) is of the posterior of Dice by those, with costs taken as exact; the probability beside "
    "a front is a bootstrap over the cases and trainings of all folds, those that chose the points included."
)
_RUNTIME = ("dice", "runtime_seconds")


def _cautions(front: Front) -> list[str]:
    """Of figures without hollow points."""
    return [sentence.replace(" (hollow)", "") for sentence in caveats(front)]


def costs(evidence: Evidence) -> Section:
    """What it costs: by cause and stage, what the study's hours bought, and where the machine was busy."""
    none = f"No cost of a result yet: it takes a finished trial ({states(evidence.tables.trials)})."
    return by_dataset(evidence, _costs, none=none, anchor="costs", heading="What does it cost?")


def _costs(evidence: Evidence) -> Iterator[Part]:
    front = pareto_front(evidence.points, _RUNTIME)
    yield from costs_exhibits(evidence.tables, subject(front.points) if len(front.points) else "", _cautions(front))
    yield progress(evidence, front)
    yield from load_of_the_machine(evidence)


def weaknesses(evidence: Evidence) -> Section:
    """Where it fails: the worst cases of the recommended configuration, and the fronts of single classes."""
    none = f"No case was validated: it takes a finished trial ({states(evidence.tables.trials)})."
    return by_dataset(evidence, _weaknesses, none=none, anchor="fails", heading="Where does it fail?")


def _weaknesses(evidence: Evidence) -> Iterator[Part]:
    front = pareto_front(evidence.points, _RUNTIME)
    best = evidence.points.sort_values("dice", ascending=False).iloc[0]
    exhibit, why = failures(evidence, knee(front.best, front.objectives[1])[0] if len(front.points) else best)
    yield from (part for part in (exhibit, why) if part)
    yield from _by_class(evidence)


def _by_class(evidence: Evidence) -> Iterator[Exhibit]:
    """Of several classes the front of each, in a table."""
    labels = evidence.classes
    if len(labels) < 2:
        return
    best = [pareto_front(evidence.of_class(label).points, _RUNTIME).best.assign(label=label) for label in labels]
    rows = pd.concat(best, ignore_index=True)
    if rows.empty:
        return
    text = readable(rows, ["number", "summary", *without_empty(rows, ["dice", "dice_low", "dice_high"]), _RUNTIME[1]])
    yield Exhibit(
        stem="front_by_class",
        heading="Dice against training time, by class",
        folded=True,
        notes=("Each class has a front of its own; `front --class LABEL` says how sure it is.",),
        data=rows[["label", "number", "point_id", "summary", "dice", "dice_low", "dice_high", _RUNTIME[1]]],
        table=Table(
            headings=("Class", *text.headings),
            numeric=(False, *text.numeric),
            rows=tuple((label, *row) for label, row in zip(rows["label"], text.rows, strict=True)),
        ),
        caption="Points on the front of each class",
    )


def certainty(evidence: Evidence) -> Section:
    """How sure it is: what every run of a scheme attains, and whether its trainings had come to rest."""
    none = f"Nothing can be said yet: it takes a finished trial ({states(evidence.tables.trials)})."
    return by_dataset(evidence, _certainty, none=none, anchor="sure", heading="How sure is this?", intro=_SURE)


def _certainty(evidence: Evidence) -> Iterator[Part]:
    front = pareto_front(evidence.points, _RUNTIME)
    yield _attainment(evidence, front)
    if len(front.points):
        yield learning_curves(front, evidence.tables, _cautions(front))


def _attainment(evidence: Evidence, front: Front) -> Part:
    cost, trials = OBJECTIVES["runtime_seconds"], evidence.tables.trials
    found = attainments(trials, (OBJECTIVES["dice"], cost))
    if not found:
        return "No figure of attainment: no scheme has configurations that finished on two folds or seeds."
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


def effects(evidence: Evidence) -> Section:
    """Which settings matter on the way to Dice and cost."""
    none = f"Nothing can be explained yet: it takes a finished trial ({states(evidence.tables.trials)})."
    return by_dataset(evidence, _effects, none=none, anchor="why", heading="Which settings matter?", intro=_WHY)


def _effects(evidence: Evidence) -> Iterator[Part]:
    measured = bool(evidence.points["co2_kg"].notna().all())
    objectives = (*_RUNTIME, "co2_kg" if measured else "voxels")
    front, pair = (pareto_front(evidence.points, names) for names in (objectives, _RUNTIME))
    points, axes = front.points, varying_axes(front.points)
    if points.empty:
        yield "Importances and slices: no finished trial has both Dice and its costs."
    else:
        yield importances_exhibit(points, axes, objectives, _cautions(front))
        yield slices(pair, axes, caveats(pair)) if axes else "Slices: they need an axis on which configurations differ."


_HEADINGS = ("Point", "Settings", "Verdict", "P(on front)", "Dice, judged", "Dice, search", "Folds", "Seeds", "Hours")
_NUMERIC = (True, False, False, True, True, True, False, False, True)


def confirmation(studies: Sequence[Path]) -> list[Section]:
    """What confirming the front came to, by point, as `python -m study confirm` left it; none where nothing was.

    Args:
        studies: folders of studies; reports and folders of tables have no confirmation.

    Raises:
        LedgerError: what is stored of it is damaged.
    """
    found = {root: each for root in dict.fromkeys(studies) if (each := Ledger(root).confirmation()) is not None}
    exhibits = [_exhibit(root, each, several=len(studies) > 1) for root, each in found.items()]
    return [Section(anchor="confirmed", heading="Confirmed", intro=_CONFIRMED, exhibits=exhibits)] if found else []


def _exhibit(root: Path, found: Confirmation, *, several: bool) -> Exhibit:
    name = name_of(root.resolve())
    points = sorted(found.points, key=lambda point: (point.dataset, *point.costs.values()))
    shown = [point for point in points if point.verdict != OFF or point.trainings]
    return Exhibit(
        stem=f"confirmation_{stem_of(name)}" if several else "confirmation",
        heading=f"Who is on the front of {name}" if several else "Who is on the front",
        notes=_about(found, len(points) - len(shown)),
        data=_tidy(points),
        table=Table(headings=_HEADINGS, numeric=_NUMERIC, rows=tuple(map(_cells, shown))),
        caption=f"Verdicts over {', '.join(found.objectives)}",
    )


def _about(found: Confirmation, others: int) -> list[str]:
    told = [f"{found.words()[0].upper()}{found.words()[1:]}."]
    if others:
        told.append(
            f"{others} points that the search's own folds leave no chance of being on the front are not listed."
        )
    return told


def _cells(point: Confirmed) -> tuple[str, ...]:
    return (
        str(point.number),
        ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in point.settings.items()),
        point.verdict,
        f"{point.probability:.2f}",
        MISSING if point.dice is None else f"{point.dice:.4f}",
        f"{point.dice_of_search:.4f}",
        " ".join(map(str, point.folds)) or MISSING,
        " ".join(map(str, point.seeds)) or MISSING,
        f"{point.gpu_hours:.3g}",
    )


def _tidy(points: Sequence[Confirmed]) -> pd.DataFrame:
    """A row a point, in words, GPU-hours and the units of the costs' names."""
    lists = ("folds", "seeds", "trial_ids")
    plain = ("number", "dataset", "verdict", "probability", "dice", "dice_of_search", "trainings", "gpu_hours")
    rows = [
        {
            **{name: getattr(point, name) for name in plain},
            **point.settings,
            **point.costs,
            **{name: " ".join(map(str, getattr(point, name))) for name in lists},
        }
        for point in points
    ]
    return pd.DataFrame(rows)

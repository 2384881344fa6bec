"""Sections of a report: which configuration is worth its cost, costs, failures, certainty, and which settings matter.

Each has the items of every dataset, and sentences about those that cannot be shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.advice.advice import knee
from analysis.effects.axes import slices, varying_axes
from analysis.effects.costs import costs_items
from analysis.effects.curves import learning_curves, load_of_the_machine, progress
from analysis.effects.failures import failures
from analysis.effects.importances import importances_item
from analysis.figures.display_items import DisplayItem, Part, Section, by_dataset
from analysis.fronts.attainment import Attainment, attainments
from analysis.fronts.captions import (
    caveats,
    description,
    energy_source,
    lowered,
    notes,
    over_seeds,
    states,
    subject,
    title,
)
from analysis.fronts.figures import MOST_GROUPS, attainment_figure, pareto_figure
from analysis.fronts.front import Front, pareto_front
from analysis.fronts.hypervolume import (
    LIKELY,
    MARGIN,
    box_of,
    data_of,
    hypervolume_rows,
    judged,
    rows_to_read,
    table_of,
)
from analysis.fronts.resampling import REPLICATES, CaseDraws
from analysis.statistics.study_results import StudyResults
from analysis.tables.columns import OBJECTIVES
from analysis.tables.contention import sentences as contention
from analysis.tables.format import MISSING, Table, counted, number, readable, without_empty
from analysis.tables.frame import FINISHED
from analysis.tables.methods import METHOD_LABELS

_SURE = (
    "Intervals are over validation cases, and over trainings where there are several seeds. P(on front) in the numbers "
    "of a front says how often a point stays on it when cases are drawn again."
)
_WHY = (
    "Importances and slices describe the points of this study; they are not evidence of causes beyond it. Settings "
    "that vary together cannot be told apart."
)
_RUNTIME = ("dice", "runtime_seconds")
_KINDS = {"runtime": "runtime_seconds", "energy": "energy_kwh", "co2": "co2_kg", "voxels": "voxels"}
# Two costs whose ratio differs by no more than this between the points are one.
_PROPORTIONAL = 1.02
_INTRO = (
    "Each point of the figure above is a curriculum with its settings, averaged over its folds and seeds. It is on the "
    "front if no other is at least as good in everything and better in something."
)


def _cautions(front: Front) -> list[str]:
    """Of figures without hollow points."""
    return [sentence.replace(" (hollow)", "") for sentence in caveats(front)]


def costs(results: StudyResults) -> Section:
    """What it costs: by cause and stage, what the study's hours bought, and where the machine was busy."""
    none = f"No cost of a result yet: it takes a finished trial ({states(results.tables.trials)})."
    return by_dataset(results, _costs, none=none, anchor="costs", heading="What does it cost?")


def _costs(results: StudyResults) -> Iterator[Part]:
    front = pareto_front(results.points, _RUNTIME)
    yield from costs_items(results.tables, subject(front.points) if len(front.points) else "", _cautions(front))
    yield progress(results, front)
    yield from load_of_the_machine(results)


def weaknesses(results: StudyResults) -> Section:
    """Where it fails: the worst cases of the recommended configuration, and the fronts of single classes."""
    none = f"No case was validated: it takes a finished trial ({states(results.tables.trials)})."
    return by_dataset(results, _weaknesses, none=none, anchor="fails", heading="Where does it fail?")


def _weaknesses(results: StudyResults) -> Iterator[Part]:
    front = pareto_front(results.points, _RUNTIME)
    best = results.points.sort_values("dice", ascending=False).iloc[0]
    item, why = failures(results, knee(front.best, front.objectives[1])[0] if len(front.points) else best)
    yield from (part for part in (item, why) if part)
    yield from _by_class(results)


def _by_class(results: StudyResults) -> Iterator[DisplayItem]:
    """Of several classes the front of each, in a table."""
    labels = results.classes
    if len(labels) < 2:
        return
    best = [pareto_front(results.of_class(label).points, _RUNTIME).best.assign(label=label) for label in labels]
    rows = pd.concat(best, ignore_index=True)
    if rows.empty:
        return
    text = readable(rows, ["number", "summary", *without_empty(rows, ["dice", "dice_low", "dice_high"]), _RUNTIME[1]])
    yield DisplayItem(
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


def certainty(results: StudyResults) -> Section:
    """How sure it is: what every run of a scheme attains, and whether its trainings had come to rest."""
    none = f"Nothing can be said yet: it takes a finished trial ({states(results.tables.trials)})."
    return by_dataset(results, _certainty, none=none, anchor="sure", heading="How sure is this?", intro=_SURE)


def _certainty(results: StudyResults) -> Iterator[Part]:
    front = pareto_front(results.points, _RUNTIME)
    yield _attainment(results, front)
    if len(front.points):
        yield learning_curves(front, results.tables, _cautions(front))


def _attainment(results: StudyResults, front: Front) -> Part:
    cost, trials = OBJECTIVES["runtime_seconds"], results.tables.trials
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
    return DisplayItem(
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


def effects(results: StudyResults) -> Section:
    """Which settings matter on the way to Dice and cost."""
    none = f"Nothing can be explained yet: it takes a finished trial ({states(results.tables.trials)})."
    return by_dataset(results, _effects, none=none, anchor="why", heading="Which settings matter?", intro=_WHY)


def _effects(results: StudyResults) -> Iterator[Part]:
    measured = bool(results.points["co2_kg"].notna().all())
    objectives = (*_RUNTIME, "co2_kg" if measured else "voxels")
    front, pair = (pareto_front(results.points, names) for names in (objectives, _RUNTIME))
    points, axes = front.points, varying_axes(front.points)
    if points.empty:
        yield "Importances and slices: no finished trial has both Dice and its costs."
    else:
        yield importances_item(points, axes, objectives, _cautions(front))
        yield slices(pair, axes, caveats(pair)) if axes else "Slices: they need an axis on which configurations differ."


def fronts(results: StudyResults) -> Section:
    """The section, with items for every dataset that has a finished trial."""
    none = f"No front: it needs a finished trial ({states(results.tables.trials)})."
    heading = "Which configuration is worth its cost?"
    return by_dataset(results, _of_dataset, none=none, anchor="fronts", heading=heading, intro=_INTRO)


def _of_dataset(results: StudyResults) -> Iterator[Part]:
    draws, points = CaseDraws(results.tables), results.points
    pooled = {kind: pareto_front(points, ("dice", cost)) for kind, cost in _KINDS.items()}
    drawn: dict[str, Front] = {}
    for kind, front in pooled.items():
        same = next((other for other in drawn.values() if _proportional(front.points, front, other)), None)
        if front.points.empty:
            yield _why_missing(front, results.tables.trials)
        elif same is not None:
            one, other = (lowered(each.objectives[1].label) for each in (front, same))
            yield f"{title(front)} is not drawn: {one} is {other} in other units here, their ratio is the same for all."
        else:
            drawn[kind] = front
    for kind, front in drawn.items():
        yield from _plots(f"pareto_dice_{kind}", front, points, draws)
    if drawn:
        yield _hypervolume(list(drawn.values()), points)


def _proportional(points: pd.DataFrame, front: Front, other: Front) -> bool:
    """Whether all points, three or more, have the same ratio of two costs."""
    ratio = points[front.objectives[1].name] / points[other.objectives[1].name]
    return len(ratio) > 2 and bool(ratio.notna().all() and ratio.max() <= _PROPORTIONAL * ratio.min())


def _plots(stem: str, front: Front, points: pd.DataFrame, draws: CaseDraws) -> Iterator[Part]:
    cost, machines = front.objectives[1], front.points["hardware"].nunique()
    yield _plot(stem, front, draws)
    if not cost.machine_bound or machines < 2:
        return
    if machines <= MOST_GROUPS:
        yield _plot(f"{stem}_by_hardware", pareto_front(points, ("dice", cost.name), by="hardware"), draws)
    else:
        yield (
            f"No figure of {cost.label} by hardware: {machines} kinds are more than the {MOST_GROUPS} that one "
            "figure holds; `front --by hardware` lists their fronts."
        )


def _plot(stem: str, front: Front, draws: CaseDraws) -> DisplayItem:
    points = judged(front, draws)
    rows, best = rows_to_read(points), int(points["non_dominated"].sum())
    caption = f"On the front of {title(front)}: {best} of {counted(len(points), 'point')}"
    if len(rows) > best:
        caption += f", and below them {len(rows) - best} that are on it in at least {LIKELY:.0%} of the replicates"
    return DisplayItem(
        stem=stem,
        heading=title(front),
        choice=title(front).removeprefix("Dice against "),
        draw=lambda layout: pareto_figure(front, layout=layout),
        alt=description(front),
        notes=(
            *notes(front),
            f"P(on front): share of {REPLICATES} replicates, with validation cases{over_seeds(front.points)}, drawn "
            "again, in which a point is not dominated.",
            "Own share: of the hypervolume, lost without the point; reference point "
            f"{box_of(front.points, front.objectives).words}.",
        ),
        data=data_of(points),
        table=table_of(rows, front),
        caption=caption,
    )


def _why_missing(front: Front, trials: pd.DataFrame) -> str:
    dice, cost = front.objectives
    if front.dropped[dice.name] == front.n_dropped:
        return f"No figure of {cost.label}: no finished trial has a Dice."
    source = energy_source(trials[trials["state"] == FINISHED])
    because = f" ({source})" if cost.is_energy and source else ""
    return f"No figure of {cost.label}: it was not measured completely in any finished configuration{because}."


def _hypervolume(drawn: Sequence[Front], points: pd.DataFrame) -> DisplayItem:
    rows = pd.concat([hypervolume_rows(front) for front in drawn], ignore_index=True)
    costs = [lowered(front.objectives[1].label) for front in drawn]
    boxes = [box_of(front.points, front.objectives).words for front in drawn]
    reference = "; ".join(f"Dice and {cost}: {box}" for cost, box in zip(costs, boxes, strict=True))
    mixed = points["hardware"].nunique() > 1
    return DisplayItem(
        stem="hypervolume",
        heading="Hypervolume by scheme and budget",
        folded=True,
        notes=(
            f"Reference points, {MARGIN:.0%} of the range beyond the worst value and not below 0: {reference}.",
            "A set with more configurations never covers less, so compare sets that tried as many.",
            "Shares hold for this set of points alone: another trial can move the reference point.",
            *(["Points were measured on different hardware: shares of time and CO₂ mix it."] if mixed else []),
            *contention(points),
        ),
        data=rows,
        table=_hypervolume_table(rows, costs),
        caption="Share of the box between reference and ideal point that each set of points dominates",
    )


def _hypervolume_table(rows: pd.DataFrame, costs: Sequence[str]) -> Table:
    """A row per set of points, its share of each box."""
    shares = rows.pivot(index=["group", "name"], columns="objectives", values="share")[rows["objectives"].unique()]
    cells = shares.map(lambda share: MISSING if pd.isna(share) else number(share, 4))
    sets = rows.drop_duplicates(["group", "name"])[["group", "name", "points"]].itertuples(index=False)
    return Table(
        headings=("Set", "Of", "Points", *(f"Share, Dice and {cost}" for cost in costs)),
        numeric=(False, False, *([True] * (1 + len(costs)))),
        rows=tuple((name, group, str(count), *cells.loc[(group, name)]) for group, name, count in sets),
    )

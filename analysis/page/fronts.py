"""Section: which configuration is worth its cost. The front of Dice against each cost, and what each set covers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.figures.exhibits import Exhibit, Part, Section, by_dataset
from analysis.fronts.captions import description, energy_source, lowered, notes, over_seeds, states, title
from analysis.fronts.figures import MOST_GROUPS, pareto_figure
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
from analysis.statistics.evidence import Evidence
from analysis.tables.contention import sentences as contention
from analysis.tables.format import MISSING, Table
from analysis.tables.frame import FINISHED
from analysis.tables.units import counted, number

_KINDS = {"runtime": "runtime_seconds", "energy": "energy_kwh", "co2": "co2_kg", "voxels": "voxels"}
# Two costs whose ratio differs by no more than this between the points are one.
_PROPORTIONAL = 1.02
_INTRO = (
    "Each point of the figure above is a curriculum with its settings, averaged over its folds and seeds. It is on the "
    "front if no other is at least as good in everything and better in something."
)


def fronts(evidence: Evidence) -> Section:
    """The section, with exhibits for every dataset that has a finished trial."""
    none = f"No front: it needs a finished trial ({states(evidence.tables.trials)})."
    heading = "Which configuration is worth its cost?"
    return by_dataset(evidence, _of_dataset, none=none, anchor="fronts", heading=heading, intro=_INTRO)


def _of_dataset(evidence: Evidence) -> Iterator[Part]:
    draws, points = CaseDraws(evidence.tables), evidence.points
    pooled = {kind: pareto_front(points, ("dice", cost)) for kind, cost in _KINDS.items()}
    drawn: dict[str, Front] = {}
    for kind, front in pooled.items():
        same = next((other for other in drawn.values() if _proportional(front.points, front, other)), None)
        if front.points.empty:
            yield _why_missing(front, evidence.tables.trials)
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


def _plot(stem: str, front: Front, draws: CaseDraws) -> Exhibit:
    points = judged(front, draws)
    rows, best = rows_to_read(points), int(points["non_dominated"].sum())
    caption = f"On the front of {title(front)}: {best} of {counted(len(points), 'point')}"
    if len(rows) > best:
        caption += f", and below them {len(rows) - best} that are on it in at least {LIKELY:.0%} of the replicates"
    return Exhibit(
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


def _hypervolume(drawn: Sequence[Front], points: pd.DataFrame) -> Exhibit:
    rows = pd.concat([hypervolume_rows(front) for front in drawn], ignore_index=True)
    costs = [lowered(front.objectives[1].label) for front in drawn]
    boxes = [box_of(front.points, front.objectives).words for front in drawn]
    reference = "; ".join(f"Dice and {cost}: {box}" for cost, box in zip(costs, boxes, strict=True))
    mixed = points["hardware"].nunique() > 1
    return Exhibit(
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

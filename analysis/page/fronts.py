"""Section: what Dice costs. Fronts of Dice against time, CO₂ and voxels, how sure they are, and what they cover."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.sections import Exhibit, Section, stem_of
from analysis.figures.style import Layout
from analysis.fronts.attainment import Attainment, attainment_figure, attainments
from analysis.fronts.captions import description, lowered, notes, over_seeds, subject, title
from analysis.fronts.caveats import caveats, energy_source, states
from analysis.fronts.figures import MOST_GROUPS, pareto_figure
from analysis.fronts.front import Front, pareto_front
from analysis.fronts.hypervolume import (
    LIKELY,
    MARGIN,
    Box,
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
from analysis.tables.format import Table, readable, without_empty
from analysis.tables.frame import FINISHED
from analysis.tables.methods import METHOD_LABELS
from analysis.tables.objectives import OBJECTIVES
from analysis.tables.units import counted, number

_KINDS = {"runtime": "runtime_seconds", "co2": "co2_kg", "voxels": "voxels"}
_INTRO = (
    "Each point is a curriculum with its settings, averaged over its folds and seeds. A point is on the front if no "
    "other is at least as good in everything and better in something."
)


def fronts(evidence: Evidence) -> Section:
    """The section, with exhibits for every dataset that has a finished trial."""
    exhibits: list[Exhibit] = []
    missing: list[str] = []
    several = len(evidence.datasets) > 1
    for dataset in evidence.datasets:
        of_dataset = _Dataset(evidence.of(dataset), suffix=f"_{stem_of(dataset)}" if several else "", name=dataset)
        exhibits += of_dataset.exhibits()
        missing += [f"{dataset}: {sentence}" if several else sentence for sentence in of_dataset.missing]
    if not evidence.datasets:
        missing.append(f"No front: it needs a finished trial ({states(evidence.tables.trials)}).")
    return Section(
        anchor="fronts", heading="What Dice costs", intro=_INTRO, exhibits=tuple(exhibits), missing=tuple(missing)
    )


class _Dataset:
    """The exhibits of one dataset in the making; what is missing is collected on the way."""

    def __init__(self, evidence: Evidence, *, suffix: str, name: str) -> None:
        self.evidence, self.suffix = evidence, suffix
        self.ending = f", {name}" if suffix else ""
        self.draws = CaseDraws(evidence.tables)
        self.missing: list[str] = []

    def exhibits(self) -> list[Exhibit]:
        """All of them, in order."""
        pooled = {kind: self._front("dice", cost) for kind, cost in _KINDS.items()}
        drawn = {kind: front for kind, front in pooled.items() if not front.points.empty}
        self.missing += [self._why_missing(front) for front in pooled.values() if front.points.empty]
        plots = [exhibit for kind, front in drawn.items() for exhibit in self._plots(kind, front)]
        return [
            *plots,
            *self._three(),
            *self._by_class(),
            *self._attainment(),
            *self._hypervolume(list(drawn.values())),
        ]

    def _front(self, *objectives: str, by: str | None = None) -> Front:
        return pareto_front(self.evidence.points, objectives, by=by)

    def _plots(self, kind: str, front: Front) -> Iterator[Exhibit]:
        stem, cost = f"pareto_dice_{kind}{self.suffix}", front.objectives[1]
        yield self._plot(stem, front)
        if budgets_compare(front.points):
            yield self._plot(f"{stem}_by_budget", self._front("dice", cost.name, by="budget"))
        machines = front.points["hardware"].nunique()
        if cost.machine_bound and 1 < machines <= MOST_GROUPS:
            yield self._plot(f"{stem}_by_hardware", self._front("dice", cost.name, by="hardware"))
        elif cost.machine_bound and machines > 1:
            self.missing.append(
                f"No figure of {cost.label} by hardware: {machines} kinds are more than the {MOST_GROUPS} that one "
                "figure holds; `front --by hardware` lists their fronts."
            )

    def _plot(self, stem: str, front: Front) -> Exhibit:
        points = judged(front, self.draws)
        rows, best = rows_to_read(points), int(points["non_dominated"].sum())
        caption = f"On the front of {title(front)}: {best} of {counted(len(points), 'point')}"
        if len(rows) > best:
            caption += f", and below them {len(rows) - best} that are on it in at least {LIKELY:.0%} of the replicates"
        return Exhibit(
            stem=stem,
            heading=title(front) + self.ending,
            draw=partial(_draw_front, front),
            alt=description(front),
            notes=(*notes(front), *_about_judgement(front)),
            data=data_of(points),
            table=table_of(rows, front),
            caption=caption,
        )

    def _three(self) -> Iterator[Exhibit]:
        """Dice, time and CO₂; voxels where CO₂ was not measured."""
        for third in ("co2_kg", "voxels"):
            front = self._front("dice", "runtime_seconds", third)
            if not front.points.empty:
                yield self._plot(f"pareto_three_objectives{self.suffix}", front)
                return
        self.missing.append("No figure of three objectives: no configuration has Dice, training time and a third one.")

    def _by_class(self) -> Iterator[Exhibit]:
        """Of several classes the front of each, in a table."""
        labels = self.evidence.classes
        if len(labels) < 2:
            return
        names = ("dice", "runtime_seconds")
        best = [pareto_front(self.evidence.of_class(label).points, names).best.assign(label=label) for label in labels]
        rows = pd.concat(best, ignore_index=True)
        if rows.empty:
            return
        text = readable(rows, ["number", "summary", *without_empty(rows, ["dice", "dice_low", "dice_high"]), names[1]])
        yield Exhibit(
            stem=f"front_by_class{self.suffix}",
            heading=f"Dice against training time, by class{self.ending}",
            notes=("Each class has a front of its own; `front --class LABEL` says how sure it is.",),
            data=rows[["label", "number", "point_id", "summary", "dice", "dice_low", "dice_high", names[1]]],
            table=Table(
                headings=("Class", *text.headings),
                numeric=(False, *text.numeric),
                rows=tuple((label, *row) for label, row in zip(rows["label"], text.rows, strict=True)),
            ),
            caption="Points on the front of each class",
        )

    def _attainment(self) -> Iterator[Exhibit]:
        cost = OBJECTIVES["runtime_seconds"]
        trials = self.evidence.tables.trials
        found = attainments(trials, (OBJECTIVES["dice"], cost))
        if not found:
            self.missing.append(
                "No figure of attainment: no scheme has configurations that finished on two folds or seeds."
            )
            return
        front = self._front("dice", cost.name)
        said = _about_attainment(found, front, trials)
        yield Exhibit(
            stem=f"attainment_dice_runtime{self.suffix}",
            heading=f"What each scheme attains{self.ending}",
            draw=partial(_draw_attainment, found, subject(front.points), said),
            alt=_describe(found),
            notes=said,
            data=_corners(found),
        )

    def _hypervolume(self, drawn: Sequence[Front]) -> Iterator[Exhibit]:
        if not drawn:
            return
        rows = [hypervolume_rows(front) for front in drawn]
        boxes = [box_of(front.points, front.objectives) for front in drawn]
        mixed = self.evidence.points["hardware"].nunique() > 1
        hardware = ["Points were measured on different hardware: shares of time and CO₂ mix it."] if mixed else []
        yield Exhibit(
            stem=f"hypervolume{self.suffix}",
            heading=f"Hypervolume by scheme and budget{self.ending}",
            notes=(*_about_hypervolume(boxes), *hardware, *contention(self.evidence.points)),
            data=pd.concat(rows, ignore_index=True),
            table=_hypervolume_table(drawn, rows),
            caption="Share of the box between reference and ideal point that each set of points dominates",
        )

    def _why_missing(self, front: Front) -> str:
        dice, cost = front.objectives
        if front.dropped[dice.name] == front.n_dropped:
            return f"No figure of {cost.label}: no finished trial has a Dice."
        trials = self.evidence.tables.trials
        source = energy_source(trials[trials["state"] == FINISHED])
        because = f" ({source})" if cost.is_energy and source else ""
        return f"No figure of {cost.label}: it was not measured completely in any finished configuration{because}."


def budgets_compare(points: pd.DataFrame) -> bool:
    """Whether there are a few budgets, and several points at most of them."""
    counts = points["budget"].value_counts()
    return 2 <= len(counts) <= MOST_GROUPS and bool(counts.median() >= 2)


def _draw_front(front: Front, layout: Layout) -> Figure:
    return pareto_figure(front, layout=layout)


def _draw_attainment(found: Sequence[Attainment], about: str, said: Sequence[str], layout: Layout) -> Figure:
    return attainment_figure(found, OBJECTIVES["runtime_seconds"], subject=about, notes=said, layout=layout)


def _about_judgement(front: Front) -> Iterator[str]:
    yield (
        f"P(on front): share of {REPLICATES} replicates, with validation cases{over_seeds(front.points)}, drawn again, "
        "in which a point is not dominated."
    )
    box = box_of(front.points, front.objectives)
    yield f"Own share: of the hypervolume, lost without the point; reference point {box.words}."


def _about_attainment(found: Sequence[Attainment], front: Front, trials: pd.DataFrame) -> tuple[str, ...]:
    sentences = [
        "A run is one fold with one seed. Right of and below a line lies what the best run, at least half of the runs, "
        "or every run attains; grey: the other schemes.",
        "Heading of a panel: runs × configurations that finished in all of them.",
    ]
    lacking = [f"{one.left_out} of {METHOD_LABELS[one.method]}" for one in found if one.left_out]
    if lacking:
        sentences.append(f"Trials left out, because not every run has their configuration: {', '.join(lacking)}.")
    present = [method for method in METHOD_LABELS if (trials["method"] == method).any()]
    absent = [METHOD_LABELS[method] for method in present if method not in {one.method for one in found}]
    if absent:
        sentences.append(f"Without two runs of a same configuration: {', '.join(absent)}.")
    sentences += [sentence for sentence in caveats(front) if sentence.startswith("Measured on")]
    sentences += contention(front.points)
    return (*sentences, "The Dice axis may start above 0, which a mark at its foot says.")


def _about_hypervolume(boxes: Sequence[Box]) -> list[str]:
    points = [f"{box.objectives[0].label} and {lowered(box.objectives[1].label)}: {box.words}" for box in boxes]
    return [
        f"Reference points, {MARGIN:.0%} of the range beyond the worst value and not below 0: {'; '.join(points)}.",
        "A set with more configurations never covers less, so compare sets that tried as many.",
        "Shares hold for this set of points alone: another trial can move the reference point.",
    ]


def _hypervolume_table(drawn: Sequence[Front], rows: Sequence[pd.DataFrame]) -> Table:
    merged: dict[tuple[str, str], list[str]] = {}
    counts: dict[tuple[str, str], str] = {}
    for column, frame in enumerate(rows):
        for row in frame.to_dict("records"):
            key = (str(row["group"]), str(row["name"]))
            cells = merged.setdefault(key, ["–"] * len(rows))
            cells[column] = number(row["share"], 4)
            counts.setdefault(key, str(row["points"]))
    costs = [lowered(front.objectives[1].label) for front in drawn]
    return Table(
        headings=("Set", "Of", "Points", *(f"Share, Dice and {cost}" for cost in costs)),
        numeric=(False, False, *([True] * (1 + len(costs)))),
        rows=tuple((name, group, counts[group, name], *cells) for (group, name), cells in merged.items()),
    )


def _describe(found: Sequence[Attainment]) -> str:
    parts = [
        f"{METHOD_LABELS[one.method]} over {one.runs} runs reaches Dice {one.surfaces['best']['dice'].max():.3f} in "
        f"its best run and {one.surfaces['worst']['dice'].max():.3f} in every run"
        for one in found
    ]
    return f"Step lines of Dice against training time, a panel per scheme: {'; '.join(parts)}."


def _corners(found: Sequence[Attainment]) -> pd.DataFrame:
    parts = [
        surface.assign(method=one.method, runs=one.runs, surface=level)
        for one in found
        for level, surface in one.surfaces.items()
    ]
    return pd.concat(parts, ignore_index=True)[["method", "runs", "surface", "dice", "runtime_seconds"]]

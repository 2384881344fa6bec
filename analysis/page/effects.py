"""Section: effects. What matters on the way to Dice and cost, how trainings went, and where their cost went."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.effects.cost_bars import (
    about_costs,
    about_stages,
    cause_table,
    cost_bars,
    cost_parts,
    costs_in_words,
    stage_table,
)
from analysis.effects.curves import (
    about_curves,
    choose_points,
    curves_in_words,
    curves_of,
    learning_curves,
    trial_curves,
)
from analysis.effects.importances import (
    FEWEST_POINTS,
    about_importances,
    importance_bars,
    importances,
    importances_in_words,
    target_label,
)
from analysis.effects.parallel import about_parallel, parallel_coordinates, parallel_in_words
from analysis.effects.slices import MOST_AXES, about_slices, slices, slices_in_words
from analysis.effects.varying import varying_axes
from analysis.figures.sections import Exhibit, Section, stem_of
from analysis.fronts.captions import subject
from analysis.fronts.caveats import caveats, states
from analysis.fronts.front import pareto_front
from analysis.statistics.evidence import Evidence
from analysis.tables.format import Table
from analysis.tables.frame import FINISHED
from analysis.tables.units import amount, counted

INTRO = (
    "Which settings move Dice and cost, how the trainings got there, and what their time went into. Importances and "
    "slices describe the points of this study; they are not evidence of causes beyond it."
)


def effects(evidence: Evidence) -> Section:
    """The section: exhibits of every dataset, and sentences about those that cannot be shown."""
    sections = [_Dataset(evidence.of(name), name, several=len(evidence.datasets) > 1) for name in evidence.datasets]
    exhibits = [exhibit for one in sections for exhibit in one.exhibits()]
    missing = [sentence for one in sections for sentence in one.missing]
    if not sections:
        missing = [f"Nothing can be explained yet: it takes a finished trial ({states(evidence.tables.trials)})."]
    return Section(anchor="why", heading="Why", intro=INTRO, exhibits=tuple(exhibits), missing=tuple(missing))


class _Dataset:
    """The exhibits of one dataset; `missing` is filled while they are made."""

    def __init__(self, evidence: Evidence, name: str, *, several: bool) -> None:
        self.evidence, self.tables = evidence, evidence.tables
        self.suffix, self.where = (f"_{stem_of(name)}", f" ({name})") if several else ("", "")
        self.missing: list[str] = []
        measured = bool(evidence.points["co2_kg"].notna().all())
        self.objectives = ("dice", "runtime_seconds", "co2_kg" if measured else "voxels")
        self.front = pareto_front(evidence.points, self.objectives)
        self.pair = pareto_front(evidence.points, self.objectives[:2])
        self.subject = subject(self.front.points) if len(self.front.points) else ""
        self.axes = varying_axes(self.front.points)

    def exhibits(self) -> Iterator[Exhibit]:
        """In the order of the section."""
        if self.front.points.empty:
            self._miss("Importances, slices and curves", "no finished trial has both Dice and its costs")
        else:
            yield from self._importances()
            yield from self._axes()
            yield from self._curves()
        yield from self._costs()

    def _caveats(self) -> list[str]:
        """What to beware of, for figures without hollow points."""
        return [sentence.replace(" (hollow)", "") for sentence in caveats(self.front)]

    def _miss(self, what: str, reason: str) -> None:
        self.missing.append(f"{what}{self.where}: {reason}.")

    def _importances(self) -> Iterator[Exhibit]:
        points = self.front.points
        if not self.axes or len(points) < FEWEST_POINTS:
            reason = f"they take at least {FEWEST_POINTS} configurations that differ in an axis; there "
            self._miss("Importances", reason + ("is 1" if len(points) == 1 else f"are {len(points)}") + self._alike())
            return
        shares = importances(points, self.axes, self.objectives)
        labels = {axis.name: axis.label for axis in self.axes}
        notes = [*about_importances(len(points), self.axes), *self._caveats()]
        yield Exhibit(
            stem=f"importances{self.suffix}",
            heading=f"Which axis matters{self.where}",
            draw=lambda layout: importance_bars(shares, labels, subject=self.subject, notes=notes, layout=layout),
            alt=importances_in_words(shares, labels),
            notes=notes,
            data=shares.assign(label=shares["axis"].map(labels)),
            table=_importance_table(shares, labels),
            caption=f"Importance of each axis, over {counted(len(points), 'configuration')}",
        )

    def _alike(self) -> str:
        return "" if self.axes else ", all with the same settings"

    def _axes(self) -> Iterator[Exhibit]:
        if not self.axes:
            self._miss("Slices and parallel coordinates", "they need an axis on which configurations differ")
            return
        shown = self.axes[:MOST_AXES]
        about = [*about_slices(self.pair, shown, len(self.axes)), *caveats(self.pair)]
        yield Exhibit(
            stem=f"slices{self.suffix}",
            heading=f"Dice and cost along each axis{self.where}",
            draw=lambda layout: slices(self.pair, shown, subject=self.subject, notes=about, layout=layout),
            alt=slices_in_words(self.pair, shown),
            notes=about,
        )
        notes = [*about_parallel(self.front), *self._caveats()]
        yield Exhibit(
            stem=f"parallel{self.suffix}",
            heading=f"All points, axis by axis{self.where}",
            draw=lambda layout: parallel_coordinates(
                self.front, shown, subject=self.subject, notes=notes, layout=layout
            ),
            alt=parallel_in_words(self.front, shown),
            notes=notes,
        )

    def _curves(self) -> Iterator[Exhibit]:
        trials, epochs = self.tables.trials, self.tables.epochs
        points = choose_points(self.front, epochs)
        if points.empty:
            self._miss("Learning curves", "no finished trial recorded its epochs with an online validation")
            return
        means, singles = curves_of(points, trials, epochs), trial_curves(points, trials, epochs)
        notes = [*about_curves(points, means), *self._caveats()]
        yield Exhibit(
            stem=f"learning_curves{self.suffix}",
            heading=f"Learning curves{self.where}",
            draw=lambda layout: learning_curves(
                points, means, singles, subject=self.subject, notes=notes, layout=layout
            ),
            alt=curves_in_words(points, means),
            notes=notes,
            data=means.merge(points[["point_id", "summary"]], on="point_id"),
        )

    def _costs(self) -> Iterator[Exhibit]:
        parts = cost_parts(self.tables.trials, self.tables.costs)
        if parts.causes["seconds"].sum() == 0:
            self._miss("Cost by cause", "no finished trial recorded its costs")
            return
        if parts.causes["co2_kg"].isna().any():
            self._miss("CO₂ by cause", "energy was not measured in every finished trial")
        notes = [*about_costs(parts), *self._unfinished(), *self._caveats()]
        yield Exhibit(
            stem=f"costs{self.suffix}",
            heading=f"Where the cost went{self.where}",
            draw=lambda layout: cost_bars(parts, subject=self.subject, notes=notes, layout=layout),
            alt=costs_in_words(parts),
            notes=notes,
            data=parts.causes,
            table=cause_table(parts),
            caption="Mean cost of a finished trial by cause",
        )
        if len(parts.stages):
            yield Exhibit(
                stem=f"costs_by_stage{self.suffix}",
                heading=f"Cost by stage{self.where}",
                notes=about_stages(parts),
                data=parts.stages,
                table=stage_table(parts),
                caption="Mean cost of the training iterations of a finished trial by stage",
            )

    def _unfinished(self) -> list[str]:
        others = self.tables.trials[self.tables.trials["state"] != FINISHED]
        spent = float(others["total_seconds"].sum())
        if not spent:
            return []
        return [f"Not in the bars: {counted(len(others), 'trial')} that did not finish, {amount(spent, 's')} in all."]


def _importance_table(shares: pd.DataFrame, labels: dict[str, str]) -> Table:
    wide = shares.pivot_table(index="axis", columns=["target", "evaluator"], values="importance", sort=False)
    order = wide.mean(axis=1).sort_values(ascending=False, kind="stable").index
    pairs = shares[["target", "evaluator"]].drop_duplicates().to_numpy()
    headings = [f"{target_label(target)}, {evaluator}" for target, evaluator in pairs]
    return Table(
        headings=("Axis", *headings),
        numeric=(False, *(True for _ in headings)),
        rows=tuple((labels[str(axis)], *(f"{share:.2f}" for share in wide.loc[axis])) for axis in order),
    )

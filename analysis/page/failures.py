"""Section: where it fails. The worst cases of the recommended configuration, and the fronts of single classes."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.advice.advice import knee
from analysis.effects.failures import failures
from analysis.figures.exhibits import Exhibit, Part, Section, by_dataset
from analysis.fronts.captions import states
from analysis.fronts.front import pareto_front
from analysis.statistics.evidence import Evidence
from analysis.tables.format import Table, readable, without_empty


def weaknesses(evidence: Evidence) -> Section:
    """The section: exhibits of every dataset, and sentences about those that cannot be shown."""
    none = f"No case was validated: it takes a finished trial ({states(evidence.tables.trials)})."
    return by_dataset(evidence, _of_dataset, none=none, anchor="fails", heading="Where does it fail?")


def _of_dataset(evidence: Evidence) -> Iterator[Part]:
    front = pareto_front(evidence.points, ("dice", "runtime_seconds"))
    best = evidence.points.sort_values("dice", ascending=False).iloc[0]
    exhibit, why = failures(evidence, knee(front.best, front.objectives[1])[0] if len(front.points) else best)
    yield from (part for part in (exhibit, why) if part)
    yield from _by_class(evidence)


def _by_class(evidence: Evidence) -> Iterator[Exhibit]:
    """Of several classes the front of each, in a table."""
    labels, names = evidence.classes, ("dice", "runtime_seconds")
    if len(labels) < 2:
        return
    best = [pareto_front(evidence.of_class(label).points, names).best.assign(label=label) for label in labels]
    rows = pd.concat(best, ignore_index=True)
    if rows.empty:
        return
    text = readable(rows, ["number", "summary", *without_empty(rows, ["dice", "dice_low", "dice_high"]), names[1]])
    yield Exhibit(
        stem="front_by_class",
        heading="Dice against training time, by class",
        folded=True,
        notes=("Each class has a front of its own; `front --class LABEL` says how sure it is.",),
        data=rows[["label", "number", "point_id", "summary", "dice", "dice_low", "dice_high", names[1]]],
        table=Table(
            headings=("Class", *text.headings),
            numeric=(False, *text.numeric),
            rows=tuple((label, *row) for label, row in zip(rows["label"], text.rows, strict=True)),
        ),
        caption="Points on the front of each class",
    )

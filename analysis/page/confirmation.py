"""Section: what confirming the front came to, by point, as `python -m study confirm` left it in the study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from analysis.figures.exhibits import Exhibit, Section, stem_of
from analysis.statistics.evidence import Evidence
from analysis.tables.format import MISSING, Table
from study.common.files import name_of
from study.store.confirmation import OFF, Confirmation, Confirmed
from study.store.ledger import Ledger

_INTRO = (
    "Whether the points that the search found are on the front, judged by trainings on folds, or with seeds, that it did "
    "not see. P(on front) is the posterior of a point's Dice over all of those against costs taken as exact: another "
    "question than the bootstrap's, which draws the cases and trainings of all folds anew."
)
_HEADINGS = ("Point", "Settings", "Verdict", "P(on front)", "Dice, judged", "Dice, search", "Folds", "Seeds", "Hours")
_NUMERIC = (True, False, False, True, True, True, False, False, True)


def confirmation(evidence: Evidence, *, studies: Sequence[Path] = ()) -> Section:
    """The section; it has nothing to show of studies that nobody confirmed, and is then left out.

    Args:
        evidence: of the studies.
        studies: their folders; those of tables have no confirmation.
    """
    return Section(
        anchor="confirmed", heading="Confirmed", intro=_INTRO, exhibits=tuple(_exhibits(dict.fromkeys(studies)))
    )


def _exhibits(studies: dict[Path, None]) -> Iterator[Exhibit]:
    found = {root: each for root in studies if (each := Ledger(root).confirmation()) is not None}
    for root, each in found.items():
        ending = f"_{stem_of(name_of(root.resolve()))}" if len(studies) > 1 else ""
        points = sorted(each.points, key=lambda point: (point.dataset, *point.costs.values()))
        shown = [point for point in points if point.verdict != OFF or point.trainings]
        yield Exhibit(
            stem=f"confirmation{ending}",
            heading="Who is on the front" + (f", {name_of(root.resolve())}" if ending else ""),
            notes=_notes(each, len(points) - len(shown)),
            data=_tidy(points),
            table=Table(headings=_HEADINGS, numeric=_NUMERIC, rows=tuple(map(_cells, shown))),
            caption=f"Verdicts over {', '.join(each.objectives)}",
        )


def _notes(found: Confirmation, others: int) -> list[str]:
    told = [f"{found.words().capitalize()}."]
    if others:
        told.append(f"{others} points that the search's own folds leave no chance of being on the front are not listed.")
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

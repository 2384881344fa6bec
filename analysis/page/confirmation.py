"""Section: what confirming the front came to, by point, as `python -m study confirm` left it in the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.figures.exhibits import Exhibit, Section, stem_of
from analysis.tables.format import MISSING, Table
from study.common.files import name_of
from study.store.confirmation import OFF, Confirmation, Confirmed
from study.store.ledger import Ledger

_INTRO = (
    "Whether the points that the search found are on the front, judged by trainings on folds, or with seeds, that it "
    "did not see. P(on front) is of the posterior of Dice by those, with costs taken as exact; the probability beside "
    "a front is a bootstrap over the cases and trainings of all folds, those that chose the points included."
)
_HEADINGS = ("Point", "Settings", "Verdict", "P(on front)", "Dice, judged", "Dice, search", "Folds", "Seeds", "Hours")
_NUMERIC = (True, False, False, True, True, True, False, False, True)


def confirmation(studies: Sequence[Path]) -> list[Section]:
    """The section; none where no study was confirmed.

    Args:
        studies: folders of studies; reports and folders of tables have no confirmation.

    Raises:
        LedgerError: what is stored of it is damaged.
    """
    found = {root: each for root in dict.fromkeys(studies) if (each := Ledger(root).confirmation()) is not None}
    exhibits = [_exhibit(root, each, several=len(studies) > 1) for root, each in found.items()]
    return [Section(anchor="confirmed", heading="Confirmed", intro=_INTRO, exhibits=exhibits)] if found else []


def _exhibit(root: Path, found: Confirmation, *, several: bool) -> Exhibit:
    name = name_of(root.resolve())
    points = sorted(found.points, key=lambda point: (point.dataset, *point.costs.values()))
    shown = [point for point in points if point.verdict != OFF or point.trainings]
    return Exhibit(
        stem=f"confirmation_{stem_of(name)}" if several else "confirmation",
        heading=f"Who is on the front of {name}" if several else "Who is on the front",
        notes=_notes(found, len(points) - len(shown)),
        data=_tidy(points),
        table=Table(headings=_HEADINGS, numeric=_NUMERIC, rows=tuple(map(_cells, shown))),
        caption=f"Verdicts over {', '.join(found.objectives)}",
    )


def _notes(found: Confirmation, others: int) -> list[str]:
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

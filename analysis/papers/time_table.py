"""The table of the PDL poster: time and Dice at which each scheme reaches fixed Dice, and the ratio to conventional
training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from analysis.captions import amount_of
from analysis.comparison.numbers import percent
from analysis.evidence import Evidence
from analysis.exhibits import Exhibit
from analysis.methods import METHOD_LABELS
from analysis.objectives import OBJECTIVES
from analysis.papers.machines import about_machines
from analysis.tables import MISSING, Table
from analysis.time_to_dice import time_to_dice
from analysis.units import amount

STEM = "time_to_dice"
_OBJECTIVES = {"training_seconds": "runtime_seconds"}
Cell = tuple[str, bool, Callable[["pd.Series[Any]"], str]]
_NOTES = (
    "Dice here is the pseudo Dice of the fixed validation batches, mean of the last three evaluations, as "
    "--stop-at-dice watches it; it is not the Dice of the final validation.",
    "A crossing is linear between two evaluations, whose distance is in the last column; Dice: at the evaluation that "
    "reached it. Conventional: constant patch size on all cases, same settings, fold and seed.",
    "Reached: k of n trainings, folds and seeds of both. Ratios: geometric mean over all pairs, in brackets the 95 % "
    "Student t interval of their logarithms, from three pairs on.",
    "Restricted: some trainings ended without reaching it; ratio of restricted means up to the horizon in brackets, "
    "with which those count. None where a side has no training that reached it.",
)


def time_table(evidence: Evidence, thresholds: Sequence[float] | None = None) -> Exhibit | None:
    """The exhibit; None without a pair of a scheme and conventional training whose curves are long enough.

    Args:
        evidence: any study.
        thresholds: of Dice; None chooses the poster's and, in trainings that reach few of them, lower ones.
    """
    rows = time_to_dice(evidence, thresholds)
    if rows.empty:
        return None
    return Exhibit(
        stem=STEM,
        heading="Time to a fixed Dice (PDL poster, tables 1 and 2)",
        notes=[*_NOTES, *about_machines(evidence.points)],
        data=rows,
        table=_table(rows),
        caption="Time to a fixed Dice, relative to conventional training",
    )


def _table(rows: pd.DataFrame) -> Table:
    cells = _cells(rows)
    return Table(
        headings=tuple(heading for heading, _, _ in cells),
        numeric=tuple(numeric for _, numeric, _ in cells),
        rows=tuple(tuple(write(row) for _, _, write in cells) for _, row in rows.iterrows()),
    )


def _cells(rows: pd.DataFrame) -> list[Cell]:
    several = rows["dataset"].nunique() > 1
    dataset: list[Cell] = [("Dataset", False, lambda row: str(row["dataset"]))]
    return [
        *(dataset if several else []),
        ("Threshold", True, lambda row: f"{row['threshold']:.2f}"),
        ("Scheme", False, lambda row: METHOD_LABELS[row["method"]]),
        ("Reached", False, lambda row: _reached(row, "n_reached", "best")),
        ("Time", True, lambda row: _amount(row["training_seconds"], "s")),
        ("Dice", True, lambda row: _dice(row["dice"])),
        ("Conventional", False, lambda row: _reached(row, "n_baseline", "baseline_best")),
        ("Time, conventional", True, lambda row: _amount(row["baseline_training_seconds"], "s")),
        ("Dice, conventional", True, lambda row: _dice(row["baseline_dice"])),
        ("Ratio of time", True, lambda row: _ratio(row, "training_seconds")),
        ("Ratio of CO₂", True, lambda row: _ratio(row, "co2_kg")),
        ("Ratio of voxels", True, lambda row: _ratio(row, "voxels")),
        ("Evaluated every", True, _interval),
    ]


def _reached(row: pd.Series[Any], count: str, best: str) -> str:
    told = f"{row[count]} of {row['n_pairs']}"
    return told if row[count] else f"{told} (best {_dice(row[best])})"


def _amount(value: float, unit: str) -> str:
    return MISSING if pd.isna(value) else amount(value, unit)


def _dice(value: float) -> str:
    return MISSING if pd.isna(value) else f"{value:.4f}"


def _ratio(row: pd.Series[Any], spent: str) -> str:
    low, high = row[f"low_{spent}"], row[f"high_{spent}"]
    interval = "" if pd.isna(low) else f" ({percent(low, 0)} to {percent(high, 0)})"
    if not pd.isna(horizon := row[f"horizon_{spent}"]):
        interval = f" (restricted to {amount_of(OBJECTIVES[_OBJECTIVES.get(spent, spent)], horizon)})"
    return f"{percent(row[f'ratio_{spent}'], 0)}{interval}"


def _interval(row: pd.Series[Any]) -> str:
    gaps = sorted({round(v) for v in (row["interval_iterations"], row["baseline_interval_iterations"]) if v == v})
    return f"{' and '.join(map(str, gaps))} iterations" if gaps else MISSING

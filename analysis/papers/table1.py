"""Table 1 of the MICCAI paper: Dice, training time, voxels and CO₂ per task and scheme, its mean ratios as notes.

On request the published rows stand below ours, marked as published and measured on other hardware.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.comparison import Comparison
from analysis.comparison.numbers import budget_words, dice, percent
from analysis.comparison.words import summary_sentences
from analysis.exhibits import Exhibit
from analysis.methods import METHOD_LABELS, OTHER
from analysis.papers.machines import about_machines
from analysis.reference import is_published
from analysis.tables import MISSING, Table
from analysis.units import amount, label_with_unit, number, reading_scale

STEM = "table1"
_NAMES = (
    *("dataset", "plans", "configuration", "budget", "method", "summary", "dice", "runtime_seconds", "voxel_share"),
    *("energy_kwh", "co2_kg", "n_folds", "folds", "n_seeds", "hardware", "country", "studies", "point_id"),
)
_KEY = ["dataset", "budget", "method"]


def table1(points: pd.DataFrame, comparison: Comparison, *, published: pd.DataFrame | None = None) -> Exhibit | None:
    """The exhibit; None without a finished trial of a published scheme.

    Args:
        points: of the studies.
        comparison: of the same, whose means over tasks become notes.
        published: points of a publication, of which those of our datasets are shown.
    """
    ours = points[points["method"] != OTHER]
    if ours.empty:
        return None
    theirs = _theirs(ours, published)
    rows = _sorted(pd.concat([ours, theirs], ignore_index=True) if len(theirs) else ours)
    return Exhibit(
        stem=STEM,
        heading="Dice, runtime, voxels and CO₂ by task and scheme (MICCAI 2024, Table 1)",
        notes=[*_notes(ours, theirs), *_means(comparison)],
        data=rows[list(_NAMES)].reset_index(drop=True),
        table=_table(rows, overlaid=len(theirs) > 0),
        caption="Dice, runtime, voxels and CO₂ by task and scheme",
    )


def _theirs(ours: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    if published is None:
        return ours.iloc[:0]
    return published[published["dataset"].isin(ours["dataset"])]


def _sorted(rows: pd.DataFrame) -> pd.DataFrame:
    order = {method: index for index, method in enumerate(METHOD_LABELS)}
    keys = rows.assign(_order=rows["method"].map(order), _budget=-rows["budget"], _published=is_published(rows))
    return rows.loc[keys.sort_values(["dataset", "_budget", "_order", "_published"], kind="stable").index]


def _notes(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[str]:
    hardware = sorted(set(ours["hardware"].dropna()))
    return [
        "Runtime and CO₂ are of the training, mean per fold; voxels are relative to as many iterations of CPS.",
        *([f"Hardware: {hardware[0]}."] if len(hardware) == 1 else []),
        *about_machines(ours),
        *(_published_note(theirs) if len(theirs) else []),
    ]


def _means(comparison: Comparison) -> list[str]:
    """Means over tasks at the largest budget, as the paper's text gives them."""
    summary = comparison.summary
    return summary_sentences(replace(comparison, summary=summary[summary["budget"] == summary["budget"].max()]))


def _published_note(theirs: pd.DataFrame) -> list[str]:
    hardware = ", ".join(sorted(set(theirs["hardware"])))
    return [f"Published rows were measured on other hardware ({hardware}): their costs do not compare with ours."]


def _table(rows: pd.DataFrame, *, overlaid: bool) -> Table:
    cells = _cells(rows, overlaid)
    return Table(
        headings=tuple(heading for heading, _, _ in cells),
        numeric=tuple(numeric for _, numeric, _ in cells),
        rows=tuple(tuple(write(row) for _, _, write in cells) for _, row in rows.iterrows()),
    )


def _cells(rows: pd.DataFrame, overlaid: bool) -> list[tuple[str, bool, Callable[[pd.Series[Any]], str]]]:
    several = rows[~is_published(rows)].duplicated(_KEY).any()
    mixed = rows["hardware"].nunique() > 1
    return [
        ("Task", False, lambda row: str(row["dataset"])),
        ("Budget", True, lambda row: budget_words(row["budget"])),
        ("Scheme", False, lambda row: _scheme(row, several=bool(several))),
        ("Dice", True, lambda row: dice(row["dice"])),
        _amounts(rows, "runtime_seconds", "Runtime", "s", overlaid),
        ("Voxels", True, lambda row: percent(row["voxel_share"], 2)),
        _amounts(rows, "energy_kwh", "Energy", "kWh", overlaid),
        _amounts(rows, "co2_kg", "CO₂", "kg", overlaid),
        ("Folds", True, lambda row: str(row["n_folds"])),
        *([("Hardware", False, lambda row: _text(row["hardware"]))] if mixed else []),
    ]


def _scheme(row: pd.Series[Any], *, several: bool) -> str:
    if row["studies"].endswith("(published)"):
        return f"{METHOD_LABELS[row['method']]}, {row['studies']}"
    return str(row["summary"]) if several else METHOD_LABELS[row["method"]]


def _amounts(
    rows: pd.DataFrame, name: str, label: str, unit: str, overlaid: bool
) -> tuple[str, bool, Callable[[pd.Series[Any]], str]]:
    """One unit for the column; beside published rows, which may be a thousand times more, a unit per cell."""
    if overlaid or rows[name].isna().all():
        return label, True, lambda row: MISSING if pd.isna(row[name]) else amount(row[name], unit)
    scale = reading_scale(unit, float(rows[name].max()))
    heading = label_with_unit(label, scale.unit)
    return heading, True, lambda row: MISSING if pd.isna(row[name]) else number(row[name] * scale.factor)


def _text(value: Any) -> str:
    return MISSING if pd.isna(value) else str(value)

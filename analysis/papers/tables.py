"""Table 1 of the MICCAI paper: Dice, training time, voxels and CO₂ per task and scheme, its mean ratios as notes.

On request the published rows stand below ours, marked as published and measured on other hardware.

The supplement's Table 2 of the MICCAI paper: patch sizes of each task, and the batch size of each scheme there.

They are read from the trials' resolved stage tables, of the largest budget that a scheme was trained at: a short
training may have merged stages.

The table of the PDL poster: time and Dice at which each scheme reaches fixed Dice, and the ratio to conventional
training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.comparison.compare import Comparison
from analysis.comparison.numbers import budget_words, dice, percent
from analysis.comparison.pairs import methods_of
from analysis.comparison.reference import is_published
from analysis.comparison.text import summary_sentences
from analysis.comparison.time_to_dice import time_to_dice
from analysis.figures.sections import Exhibit
from analysis.fronts.captions import amount_of
from analysis.papers.canvas import about_machines
from analysis.statistics.evidence import Evidence
from analysis.tables.format import MISSING, Table
from analysis.tables.methods import METHOD_LABELS, OTHER
from analysis.tables.objectives import OBJECTIVES
from analysis.tables.units import amount, label_with_unit, number, reading_scale

STEM = "patch_batch_sizes"
_PLAN = ["dataset", "plans", "configuration"]


def patch_batch_sizes(points: pd.DataFrame) -> Exhibit | None:
    """The exhibit; None without a finished trial of a published scheme. Points without a stage table are left out."""
    known = points[points["stage_table"].notna() & points["method"].isin(methods_of(points))]
    if known.empty:
        return None
    methods = methods_of(known)
    chosen = known.sort_values(["budget", "n_stages"], ascending=False, kind="stable")
    chosen = chosen.drop_duplicates([*_PLAN, "method"])
    data = pd.DataFrame([row for plan, rows in chosen.groupby(_PLAN) for row in _sizes(list(plan), rows, methods)])
    return Exhibit(
        stem=STEM,
        heading="Patch and batch sizes by scheme (MICCAI 2024, supplement)",
        notes=_notes(chosen),
        data=data,
        table=_table(data, methods),
        caption="Batch size of each scheme at each of its patch sizes",
    )


def _sizes(plan: Sequence[Any], rows: pd.DataFrame, methods: list[str]) -> list[dict[str, Any]]:
    """A row per patch size, smallest first: batch size and iterations by scheme."""
    stages: dict[tuple[int, ...], dict[str, Any]] = {}
    for _, row in rows.iterrows():
        for stage in json.loads(row["stage_table"]):
            size = stages.setdefault(tuple(stage["patch_size"]), {})
            size[f"batch_size_{row['method']}"] = stage["batch_size"]
            # Draws differ from seed to seed.
            size[f"iterations_{row['method']}"] = stage["iterations"] if row["order"] != "random" else pd.NA
    largest = max(map(math.prod, stages))
    columns = [f"{kind}_{method}" for method in methods for kind in ("batch_size", "iterations")]
    return [
        {
            **dict(zip(_PLAN, plan, strict=True)),
            "patch_size": "×".join(map(str, size)),
            "patch_voxels": math.prod(size),
            "share_of_full_patch": math.prod(size) / largest,
            **{name: stages[size].get(name, pd.NA) for name in columns},
        }
        for size in sorted(stages, key=lambda size: (math.prod(size), size))
    ]


def _table(data: pd.DataFrame, methods: list[str]) -> Table:
    several = len(data.drop_duplicates(["plans", "configuration"])) > 1
    plan = _PLAN if several else _PLAN[:1]
    return Table(
        headings=(
            *("Task", "Plans", "Configuration")[: len(plan)],
            *("Patch size [voxels]", "of the full patch"),
            *(f"Batch {METHOD_LABELS[method]}" for method in methods),
        ),
        numeric=(*(False,) * len(plan), False, True, *(True,) * len(methods)),
        rows=tuple(
            (
                *(row[name] for name in plan),
                *(row["patch_size"], percent(row["share_of_full_patch"])),
                *(_count(row[f"batch_size_{method}"]) for method in methods),
            )
            for _, row in data.iterrows()
        ),
    )


def _count(value: Any) -> str:
    return MISSING if pd.isna(value) else str(int(value))


def _notes(chosen: pd.DataFrame) -> list[str]:
    budgets = ", ".join(budget_words(budget) for budget in sorted(set(chosen["budget"]), reverse=True))
    notes = [
        "Voxels per axis in the axis order of the plan, smallest patch first. "
        f"A dash: the scheme does not use that size. Read at budget {budgets}."
    ]
    if (chosen["method"] == "rpss").any():
        notes.append("RPSS draws one of its sizes at random in every iteration; the others go from top to bottom.")
    return notes


TABLE1_STEM = "table1"
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
        stem=TABLE1_STEM,
        heading="Dice, runtime, voxels and CO₂ by task and scheme (MICCAI 2024, Table 1)",
        notes=[*_table1_notes(ours, theirs), *_means(comparison)],
        data=rows[list(_NAMES)].reset_index(drop=True),
        table=_table1_table(rows, overlaid=len(theirs) > 0),
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


def _table1_notes(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[str]:
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


def _table1_table(rows: pd.DataFrame, *, overlaid: bool) -> Table:
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


TIME_TABLE_STEM = "time_to_dice"
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
        stem=TIME_TABLE_STEM,
        heading="Time to a fixed Dice (PDL poster, tables 1 and 2)",
        notes=[*_NOTES, *about_machines(evidence.points)],
        data=rows,
        table=_time_table_table(rows),
        caption="Time to a fixed Dice, relative to conventional training",
    )


def _time_table_table(rows: pd.DataFrame) -> Table:
    cells = _time_table_cells(rows)
    return Table(
        headings=tuple(heading for heading, _, _ in cells),
        numeric=tuple(numeric for _, numeric, _ in cells),
        rows=tuple(tuple(write(row) for _, _, write in cells) for _, row in rows.iterrows()),
    )


def _time_table_cells(rows: pd.DataFrame) -> list[Cell]:
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

"""The tables of the papers, from our trials.

Table 1 of the MICCAI paper: Dice, training time, voxels and CO₂ per task and scheme, its mean ratios as notes. On
request the published rows stand below ours, marked as published and measured on other hardware.

Its supplement's Table 2: patch sizes of each task, and the batch size of each scheme there. They are read from the
trials' resolved stage tables, of the largest budget that a scheme was trained at: a short training may have merged
stages.

The PDL poster's: time and Dice at which each scheme reaches fixed Dice, and the ratio to conventional training.

Dice case by case, a scheme against constant patch size: which cases gain, which lose, whatever the means say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import pandas as pd
from matplotlib.figure import Figure

from analysis.comparison.compare import Comparison
from analysis.comparison.equal_cost import time_to_dice
from analysis.comparison.measure import Finished
from analysis.comparison.pairs import budget_words, dice, methods_of, percent, several_of
from analysis.comparison.reference import is_published
from analysis.comparison.text import summary_sentences
from analysis.figures.display_items import DisplayItem
from analysis.figures.sheet import Sheet
from analysis.figures.style import METHOD_STYLES, RULE, Layout, belongs_to, dice_floor, short_ticks
from analysis.fronts.captions import amount_of, estimated_parts, words_of
from analysis.statistics.study_results import StudyResults
from analysis.tables.columns import BY_NAME, OBJECTIVES
from analysis.tables.contention import sentences as contention
from analysis.tables.format import MISSING, Table, amount, counted, label_with_unit, number, reading_scale
from analysis.tables.methods import METHOD_LABELS, OTHER

Row: TypeAlias = dict[Any, Any]
Cell: TypeAlias = tuple[str, bool, Callable[[Row], str]]
"""A column of a table: its heading, whether it holds numbers, and what is written of a row."""

_PLAN = ["dataset", "plans", "configuration"]
_TABLE1 = (
    *("dataset", "plans", "configuration", "budget", "method", "summary", "dice", "runtime_seconds", "voxel_share"),
    *("energy_kwh", "co2_kg", "n_folds", "folds", "n_seeds", "hardware", "country", "studies", "point_id"),
)
_TIME_NOTES = (
    "Dice here is the pseudo Dice of the fixed validation batches, mean of the last three evaluations, as "
    "--stop-at-dice watches it; it is not the Dice of the final validation.",
    "A crossing is linear between two evaluations, whose distance is in the last column; Dice: at the evaluation that "
    "reached it. Conventional: constant patch size on all cases, same settings, fold and seed.",
    "Reached: k of n trainings, folds and seeds of both. Ratios: geometric mean over all pairs, in brackets the 95 % "
    "Student t interval of their logarithms, from three pairs on.",
    "Restricted: some trainings ended without reaching it; ratio of restricted means up to the horizon in brackets, "
    "with which those count. None where a side has no training that reached it.",
)


def about_machines(points: pd.DataFrame, *, energy: bool = True) -> Iterator[str]:
    """What keeps costs of these points from being compared, and, with `energy`, which energy is estimated."""
    hardware = sorted(words_of(points["hardware"]))
    if len(hardware) > 1:
        yield f"Different hardware, whose runtime, energy and CO₂ do not compare as they stand: {', '.join(hardware)}."
    shares = [words for name, words in (("cpus", "CPUs"), ("gpus", "GPUs")) if len(words_of(points[name])) > 1]
    if shares:
        yield f"Trials had different shares of the {' and '.join(shares)}, which changes their runtime."
    if len(words_of(points["concurrent_trials"])) > 1:
        yield "Different numbers of trials ran at once on the machine, which changes their runtime."
    yield from contention(points)
    parts = estimated_parts(points["energy_methods"]) if energy else []
    if parts and points["energy_kwh"].notna().any():
        yield f"Energy of {' and '.join(parts)} is estimated, not measured."


def _set(rows: pd.DataFrame, cells: Sequence[Cell]) -> Table:
    return Table(
        headings=tuple(heading for heading, _, _ in cells),
        numeric=tuple(numeric for _, numeric, _ in cells),
        rows=tuple(tuple(write(row) for _, _, write in cells) for row in rows.to_dict("records")),
    )


def _amount(value: float, unit: str) -> str:
    return MISSING if pd.isna(value) else amount(value, unit)


def patch_batch_sizes(points: pd.DataFrame) -> DisplayItem | None:
    """The item; None without a finished trial of a published scheme. Points without a stage table are left out."""
    known = points[points["stage_table"].notna() & points["method"].isin(methods_of(points))]
    if known.empty:
        return None
    chosen = known.sort_values(["budget", "n_stages"], ascending=False, kind="stable")
    chosen = chosen.drop_duplicates([*_PLAN, "method"])
    methods = methods_of(known)
    data = pd.DataFrame([row for plan, rows in chosen.groupby(_PLAN) for row in _sizes(plan, rows, methods)])
    budgets = ", ".join(budget_words(budget) for budget in sorted(set(chosen["budget"]), reverse=True))
    notes = [
        "Voxels per axis in the axis order of the plan, smallest patch first. "
        f"A dash: the scheme does not use that size. Read at budget {budgets}."
    ]
    if (chosen["method"] == "rpss").any():
        notes.append("RPSS draws one of its sizes at random in every iteration; the others go from top to bottom.")
    return DisplayItem(
        stem="patch_batch_sizes",
        folded=True,
        heading="Patch and batch sizes by scheme (MICCAI 2024, supplement)",
        notes=notes,
        data=data,
        table=_set(data, list(_size_cells(data, methods))),
        caption="Batch size of each scheme at each of its patch sizes",
    )


def _sizes(plan: Sequence[Any], rows: pd.DataFrame, methods: list[str]) -> Iterator[Row]:
    """A row per patch size, smallest first: batch size and iterations by scheme."""
    stages: dict[tuple[int, ...], Row] = {}
    for row in rows.to_dict("records"):
        for stage in json.loads(row["stage_table"]):
            told = stages.setdefault(tuple(stage["patch_size"]), {})
            told[f"batch_size_{row['method']}"] = stage["batch_size"]
            # Draws differ from seed to seed.
            told[f"iterations_{row['method']}"] = stage["iterations"] if row["order"] != "random" else pd.NA
    largest = max(map(math.prod, stages))
    columns = [f"{kind}_{method}" for method in methods for kind in ("batch_size", "iterations")]
    for size in sorted(stages, key=lambda size: (math.prod(size), size)):
        yield {
            **dict(zip(_PLAN, plan, strict=True)),
            "patch_size": "×".join(map(str, size)),
            "patch_voxels": math.prod(size),
            "share_of_full_patch": math.prod(size) / largest,
            **{name: stages[size].get(name, pd.NA) for name in columns},
        }


def _size_cells(data: pd.DataFrame, methods: list[str]) -> Iterator[Cell]:
    several = len(data.drop_duplicates(["plans", "configuration"])) > 1
    for heading, name in zip(("Task", "Plans", "Configuration")[: 3 if several else 1], _PLAN, strict=False):
        yield heading, False, partial(_cell_of, name)
    yield "Patch size [voxels]", False, lambda row: row["patch_size"]
    yield "of the full patch", True, lambda row: percent(row["share_of_full_patch"])
    for method in methods:
        yield f"Batch {METHOD_LABELS[method]}", True, partial(_cell_of, f"batch_size_{method}")


def _cell_of(name: str, row: Row) -> str:
    return MISSING if pd.isna(row[name]) else str(row[name])


def table1(
    points: pd.DataFrame, comparison: Comparison, *, published: pd.DataFrame | None = None
) -> DisplayItem | None:
    """The item; None without a finished trial of a published scheme.

    Args:
        points: of the studies.
        comparison: of the same, whose means over tasks, at the largest budget, become notes.
        published: points of a publication, of which those of our datasets are shown.
    """
    ours = points[points["method"] != OTHER]
    if ours.empty:
        return None
    theirs = ours.iloc[:0] if published is None else published[published["dataset"].isin(ours["dataset"])]
    both = pd.concat([ours, theirs], ignore_index=True) if len(theirs) else ours
    order = both["method"].map(list(METHOD_LABELS).index)
    keys = both.assign(_order=order, _budget=-both["budget"], _published=is_published(both))
    rows = both.loc[keys.sort_values(["dataset", "_budget", "_order", "_published"], kind="stable").index]
    summary = comparison.summary
    largest = replace(comparison, summary=summary[summary["budget"] == summary["budget"].max()])
    return DisplayItem(
        stem="results_by_scheme",
        folded=True,
        heading="Dice, runtime, voxels and CO₂ by task and scheme (MICCAI 2024, Table 1)",
        notes=[*_about_table1(ours, theirs), *summary_sentences(largest)],
        data=rows[list(_TABLE1)].reset_index(drop=True),
        table=_set(rows, _table1_cells(rows, overlaid=len(theirs) > 0)),
        caption="Dice, runtime, voxels and CO₂ by task and scheme",
    )


def _about_table1(ours: pd.DataFrame, theirs: pd.DataFrame) -> Iterator[str]:
    yield "Runtime and CO₂ are of the training, mean per fold; voxels are relative to as many iterations of CPS."
    hardware = sorted(set(ours["hardware"].dropna()))
    if len(hardware) == 1:
        yield f"Hardware: {hardware[0]}."
    yield from about_machines(ours)
    if len(theirs):
        other = ", ".join(sorted(set(theirs["hardware"])))
        yield f"Published rows were measured on other hardware ({other}): their costs do not compare with ours."


def _table1_cells(rows: pd.DataFrame, *, overlaid: bool) -> list[Cell]:
    several = bool(rows[~is_published(rows)].duplicated(["dataset", "budget", "method"]).any())
    hardware: Cell = ("Hardware", False, lambda row: MISSING if pd.isna(row["hardware"]) else str(row["hardware"]))
    return [
        ("Task", False, lambda row: str(row["dataset"])),
        ("Budget", True, lambda row: budget_words(row["budget"])),
        ("Scheme", False, lambda row: _scheme(row, several=several)),
        ("Dice", True, lambda row: dice(row["dice"])),
        _amounts(rows, "runtime_seconds", "Runtime", "s", overlaid),
        ("Voxels", True, lambda row: percent(row["voxel_share"], 2)),
        _amounts(rows, "energy_kwh", "Energy", "kWh", overlaid),
        _amounts(rows, "co2_kg", "CO₂", "kg", overlaid),
        ("Folds", True, lambda row: str(row["n_folds"])),
        *([hardware] if rows["hardware"].nunique() > 1 else []),
    ]


def _scheme(row: Row, *, several: bool) -> str:
    if row["studies"].endswith("(published)"):
        return f"{METHOD_LABELS[row['method']]}, {row['studies']}"
    return str(row["summary"]) if several else METHOD_LABELS[row["method"]]


def _amounts(rows: pd.DataFrame, name: str, label: str, unit: str, overlaid: bool) -> Cell:
    """One unit for the column; beside published rows, which may be a thousand times more, a unit per cell."""
    if overlaid or rows[name].isna().all():
        return label, True, lambda row: _amount(row[name], unit)
    scale = reading_scale(unit, float(rows[name].max()))
    heading = label_with_unit(label, scale.unit)
    return heading, True, lambda row: MISSING if pd.isna(row[name]) else number(row[name] * scale.factor)


def time_table(results: StudyResults, thresholds: Sequence[float] | None = None) -> DisplayItem | None:
    """The item; None without a pair of a scheme and conventional training whose curves are long enough.

    Args:
        results: any study.
        thresholds: of Dice; None chooses the poster's and, in trainings that reach few of them, lower ones.
    """
    rows = time_to_dice(results, thresholds)
    if rows.empty:
        return None
    return DisplayItem(
        stem="time_to_dice",
        folded=True,
        heading="Time to a fixed Dice (PDL poster, tables 1 and 2)",
        notes=[*_TIME_NOTES, *about_machines(results.points)],
        data=rows,
        table=_set(rows, _time_cells(several_of(rows, "dataset", "plans"))),
        caption="Time to a fixed Dice, relative to conventional training",
    )


def _time_cells(places: Sequence[str]) -> list[Cell]:
    return [
        *((BY_NAME[name].label, False, partial(_cell_of, name)) for name in places),
        ("Threshold", True, lambda row: f"{row['threshold']:.2f}"),
        ("Scheme", False, lambda row: METHOD_LABELS[row["method"]]),
        ("Reached", False, lambda row: _reached(row, "n_reached", "best")),
        ("Time", True, lambda row: _amount(row["training_seconds"], "s")),
        ("Dice", True, lambda row: dice(row["dice"])),
        ("Conventional", False, lambda row: _reached(row, "n_baseline", "baseline_best")),
        ("Time, conventional", True, lambda row: _amount(row["baseline_training_seconds"], "s")),
        ("Dice, conventional", True, lambda row: dice(row["baseline_dice"])),
        ("Ratio of time", True, lambda row: _ratio(row, "training_seconds", "runtime_seconds")),
        ("Ratio of CO₂", True, lambda row: _ratio(row, "co2_kg", "co2_kg")),
        ("Ratio of voxels", True, lambda row: _ratio(row, "voxels", "voxels")),
        ("Evaluated every", True, _interval),
    ]


def _reached(row: Row, count: str, best: str) -> str:
    told = f"{row[count]} of {row['n_pairs']}"
    return told if row[count] else f"{told} (best {dice(row[best])})"


def _ratio(row: Row, spent: str, objective: str) -> str:
    low, high, horizon = (row[f"{end}_{spent}"] for end in ("low", "high", "horizon"))
    interval = "" if pd.isna(low) else f" ({percent(low, 0)} to {percent(high, 0)})"
    if not pd.isna(horizon):
        interval = f" (restricted to {amount_of(OBJECTIVES[objective], horizon)})"
    return f"{percent(row[f'ratio_{spent}'], 0)}{interval}"


def _interval(row: Row) -> str:
    gaps = sorted({round(v) for v in (row["interval_iterations"], row["baseline_interval_iterations"]) if v == v})
    return f"{' and '.join(map(str, gaps))} iterations" if gaps else MISSING


_MOST_ROWS, _MOST_PANELS = 10, 8
# So many marks become a picture within the drawing.
_RASTERIZE_FROM = 400


def paired_cases(results: StudyResults, comparison: Comparison, dataset: str) -> pd.DataFrame:
    """The cases of a dataset that a scheme and the baseline share, at the largest budget, seeds averaged.

    Returns:
        A row per scheme and case: `method`, `scheme` (in words, with its plans where they differ), `point_id`, `case`,
        `baseline_dice`, `dice` and `difference`.
    """
    rows, points = comparison.rows, {str(point["point_id"]): point for _, point in results.points.iterrows()}
    rows = rows[(rows["dataset"] == dataset) & (rows["n_cases"] > 1)]
    finished, several = Finished(results), several_of(rows, "plans")
    parts = []
    for row in rows[rows["budget"] == rows["budget"].max()].to_dict("records"):
        folds = {int(fold) for fold in row["folds"].split()}
        sides = [finished.side(points[row[name]], folds).cases for name in ("baseline_id", "against_id")]
        pairs = pd.concat(sides, axis=1, keys=["baseline_dice", "dice"]).dropna().rename_axis("case").reset_index()
        words = ", ".join([METHOD_LABELS[row["against_method"]], *(row[name] for name in several)])
        parts.append(pairs.assign(method=row["against_method"], scheme=words, point_id=row["against_id"]))
    columns = ["method", "scheme", "point_id", "case", "baseline_dice", "dice"]
    found = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
    return found.assign(difference=found["dice"] - found["baseline_dice"])


def dice_per_case(results: StudyResults, comparison: Comparison, dataset: str, *, stem: str) -> DisplayItem | None:
    """The item of a dataset; None without two shared cases."""
    found, baseline = paired_cases(results, comparison, dataset), comparison.baseline
    if found.empty:
        return None
    lower = [
        f"{scheme} {int((part['difference'] < 0).sum())} of {counted(len(part), 'case')}"
        for scheme, part in found.groupby("scheme", sort=False)
    ]
    worst = found.sort_values(["difference", "case"]).head(_MOST_ROWS)
    return DisplayItem(
        stem=stem,
        heading=f"Dice of each case, against {baseline}: {dataset}",
        draw=lambda layout: _draw(found, baseline, dataset, layout),
        alt=f"Scatter plots of the Dice of each validation case against that of {baseline}, a panel for each scheme. "
        f"Lower than {baseline}: {'; '.join(lower)}.",
        notes=(f"Below the line: worse than {baseline}. At the largest budget, seeds averaged.",),
        data=found,
        table=_table(worst, baseline),
        caption=f"Cases that lose most against {baseline}",
    )


def _table(worst: pd.DataFrame, baseline: str) -> Table:
    rows = worst[["case", "scheme", "baseline_dice", "dice", "difference"]].itertuples(index=False)
    return Table(
        headings=("Case", "Scheme", f"Dice {baseline}", "Dice", "Difference"),
        numeric=(False, False, True, True, True),
        rows=tuple((c, m, f"{a:.4f}", f"{b:.4f}", f"{d:+.4f}") for c, m, a, b, d in rows),
        points=tuple((point,) for point in worst["point_id"]),
    )


def _draw(found: pd.DataFrame, baseline: str, dataset: str, layout: Layout) -> Figure:
    groups: Sequence[tuple[Any, pd.DataFrame]] = list(found.groupby("point_id", sort=False))[:_MOST_PANELS]
    columns = min(len(groups), 4) if layout.rail else 2
    both = found[["baseline_dice", "dice"]]
    low = dice_floor(pd.DataFrame({"dice_min": both.min(axis=1), "dice_max": both.max(axis=1)}))
    high = min(1.0, float(both.max().max()) + 0.02)
    sheet = Sheet(
        layout=layout,
        title=f"Dice of each case, against {baseline}",
        subject=dataset,
        rows=-(-len(groups) // columns),
        columns=columns,
        panel_height=1.7,
        gap_across=0.35,
        gap_down=0.85,
        head=0.2,
    )
    with sheet.drawn() as (figure, panels):
        for place, (panel, (point, part)) in enumerate(zip(panels, groups, strict=False)):
            style = METHOD_STYLES[part["method"].iloc[0]]
            panel.plot([low, high], [low, high], color=RULE.light, lw=1, zorder=1)
            look: dict[str, Any] = {"color": style.paint.light, "alpha": 0.6, "markeredgewidth": 0, "clip_on": False}
            many = len(part) >= _RASTERIZE_FROM
            marks = panel.plot(part["baseline_dice"], part["dice"], style.marker, ms=3.6, rasterized=many, **look)
            marks[0].set_gid(belongs_to(str(point)))
            panel.set(xlim=(low, high), ylim=(low, high))
            panel.xaxis.set_major_locator(short_ticks(4))
            panel.yaxis.set_major_locator(short_ticks(4))
            panel.set_title(part["scheme"].iloc[0], loc="left", fontsize=8.6, pad=5, color=style.paint.light)
            panel.set_xlabel(f"Dice, {baseline}")
            panel.set_ylabel("Dice" if place % columns == 0 else "")
        for panel in panels[len(groups) :]:
            panel.remove()
    return figure

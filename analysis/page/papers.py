"""Section: whether schemes are as good as constant patch size, case by case, and the papers' own tables and figures.

The figures of the MICCAI paper, from our trials.

Fig. 2: Dice against iterations, voxels and training time, one line per scheme over its budgets. A line joins
configurations that differ in the budget alone. It needs two budgets.

Fig. 3: difference of Dice, paired by case, with its standard error, per task and scheme. A star marks p below 0.05 over
cases and trainings, after Holm's correction; with one seed there is none. Bars go to the right where the scheme is
above the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from analysis.comparison.compare import Comparison, compare, joined_with, significant
from analysis.comparison.equal_cost import equal_cost_sentences, equal_cost_table
from analysis.comparison.pairs import BASELINE, MATCHED, budget_words, methods_of, several_of, signed
from analysis.comparison.reference import load
from analysis.comparison.text import dropped, how_to_read, notes, whole_table
from analysis.figures.display_items import DisplayItem, Section, stem_of
from analysis.figures.sheet import EDGE, Sheet
from analysis.figures.style import (
    INK,
    METHOD_STYLES,
    MUTED,
    SURFACE,
    Layout,
    belongs_to,
    dice_floor,
    fold_entries,
    label_cost,
    limit_cost,
    limit_dice,
    marker,
    method_entries,
    short_ticks,
)
from analysis.papers.tables import about_machines, dice_per_case, patch_batch_sizes, table1, time_table
from analysis.statistics.study_results import StudyResults
from analysis.statistics.tests import SIGNIFICANT
from analysis.tables.columns import BY_NAME
from analysis.tables.format import amount, counted, label_with_unit, reading_scale
from analysis.tables.methods import METHOD_LABELS, OTHER

_MOST_NAMES = 3


def _question(points: pd.DataFrame) -> str:
    """`Are PGPS and PGPS+ as good as CPS?`."""
    names = [METHOD_LABELS[method] for method in methods_of(points) if method != BASELINE]
    if not 1 <= len(names) <= _MOST_NAMES:
        return f"Are the schemes as good as {METHOD_LABELS[BASELINE]}?"
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{'Is' if len(names) == 1 else 'Are'} {listed} as good as {METHOD_LABELS[BASELINE]}?"


def papers(results: StudyResults, *, reference: str | None = None) -> Section:
    """Table 1, Fig. 2, Fig. 3, the supplement's table of the MICCAI paper, the PDL poster's table, and the statistics.

    Args:
        results: any study; what lacks its trials is named in `Section.missing`.
        reference: name of a publication whose numbers are shown beside ours.

    Raises:
        InvalidInputError: an unknown publication.
    """
    comparison = compare(results)
    published = load(reference) if reference else None
    theirs = None if published is None else compare(published)
    whole = comparison if theirs is None or comparison.rows.empty else joined_with(comparison, theirs)
    endings = {name: f"_{stem_of(name)}" if len(results.datasets) > 1 else "" for name in results.datasets}
    lines = [figure2(results, dataset, stem=f"dice_by_budget{ending}") for dataset, ending in endings.items()]
    items = [
        figure3(comparison, published=theirs),
        *(dice_per_case(results, comparison, name, stem=f"dice_per_case{end}") for name, end in endings.items()),
        *_comparisons(whole, comparison.equal_cost),
        *lines,
        table1(results.points, comparison, published=None if published is None else published.points),
        time_table(results),
        patch_batch_sizes(results.points),
    ]
    without_budgets = [line for line in lines if isinstance(line, str)]
    missing = list(_missing(results.points, comparison, without_budgets))
    return Section(
        anchor="papers",
        heading=_question(results.points),
        intro=f"Schemes against {METHOD_LABELS[BASELINE]}: what is gained or lost in Dice, tested case by case, and "
        "what is saved. Not told apart is not the same as equal: see the smallest difference that would be found.",
        items=[item for item in items if isinstance(item, DisplayItem)],
        missing=missing,
    )


def _comparisons(whole: Comparison, equal: pd.DataFrame) -> Iterator[DisplayItem]:
    against = f"Every scheme against {whole.baseline}"
    if len(whole.rows):
        yield DisplayItem(
            stem="comparison",
            folded=True,
            heading=against,
            notes=notes(replace(whole, ambiguous=(), missing=())),
            data=whole.rows,
            table=whole_table(whole),
            caption=f"{against}: Dice, statistics over cases, ratios of training cost",
        )
    if len(equal):
        yield DisplayItem(
            stem="equal_cost",
            folded=True,
            heading=f"{against} at equal cost",
            notes=equal_cost_sentences(equal),
            data=equal,
            table=equal_cost_table(equal),
            caption=f"Dice of the schemes and of {whole.baseline} for the same training time, energy or voxels",
        )


def _missing(points: pd.DataFrame, comparison: Comparison, without_budgets: Sequence[str]) -> Iterator[str]:
    """Why tables and figures are not there."""
    methods, baseline = methods_of(points), METHOD_LABELS[BASELINE]
    if not methods:
        yield "Table 1, Fig. 3 and the patch sizes need a finished trial of a published scheme; there is none."
    elif BASELINE not in methods:
        yield f"Fig. 3 and the comparison need finished trials of {baseline}; there is none."
    elif methods == [BASELINE]:
        yield f"Fig. 3 and the comparison need a finished trial of a scheme other than {baseline}; there is none."
    else:
        if comparison.rows["standard_error"].isna().all():
            yield f"Fig. 3 needs {baseline} and another scheme with the same settings on a common fold."
        yield from (*comparison.ambiguous, *comparison.missing)
    if without_budgets:
        yield f"Fig. 2 needs published schemes at two budgets or more: not on {', '.join(without_budgets)}."


_COSTS = ("iterations", "voxels", "runtime_seconds")
_SETTING = [name for name in MATCHED if name not in ("dataset", "budget")]
# Budgets closer than this share of the axis share a label.
_LABEL_ROOM = 0.1


def figure2(results: StudyResults, dataset: str, *, stem: str) -> DisplayItem | str:
    """The item of a dataset, or its name if no two budgets have a published scheme.

    Drawn is the setting with the most points; a scheme that two configurations are at one budget has no line there.
    """
    points = results.of(dataset).points
    named = points[points["method"] != OTHER]
    chosen = max((rows for _, rows in named.groupby(_SETTING, sort=False, dropna=False)), key=len, default=named)
    twice = chosen.duplicated(["method", "budget"], keep=False)
    lines = chosen[~twice].sort_values("budget")
    if lines["budget"].nunique() < 2:
        return dataset
    notes = [
        "Points of a line differ in the budget alone, as a share of the iterations per epoch.",
        *_left_out(len(named) - len(chosen), "with other plans or training settings"),
        *_left_out(int(twice.sum()), "of schemes that several configurations are at one budget"),
        *_about_lines(lines),
        *about_machines(lines, energy=False),
    ]
    best = lines.sort_values("dice", kind="stable").iloc[-1]
    time = "" if pd.isna(best["runtime_seconds"]) else f" after {amount(best['runtime_seconds'], 's')}"
    return DisplayItem(
        stem=stem,
        folded=True,
        heading=f"Dice against iterations, voxels and training time: {dataset} (MICCAI 2024, Fig. 2)",
        draw=lambda layout: _draw_figure2(lines, dataset, notes, layout),
        alt=f"Three panels, Dice on {dataset} against iterations, voxels and training time, one line each for "
        f"{', '.join(label for name, label in METHOD_LABELS.items() if (lines['method'] == name).any())}; the highest "
        f"Dice is {best['dice']:.3f}, {METHOD_LABELS[best['method']]} at {budget_words(best['budget'])}{time}.",
        notes=notes,
    )


def _left_out(count: int, which: str) -> list[str]:
    return [f"{counted(count, 'point')} {which} left out."] if count else []


def _about_lines(points: pd.DataFrame) -> Iterator[str]:
    if (points["dice_max"] > points["dice_min"]).any():
        yield "Thin bars: lowest to highest of the averaged folds and seeds."
    if (points["n_folds"] == 1).any():
        yield "Hollow: one fold."
    if points["folds"].nunique() > 1:
        yield "Points rest on different folds, whose Dice differ by themselves."
    if dice_floor(points) > 0:
        yield "The Dice axis does not start at 0."


def _draw_figure2(points: pd.DataFrame, dataset: str, notes: Sequence[str], layout: Layout) -> Figure:
    # Nobody sees an empty panel: a cost that no point has is left out.
    costs = [cost for cost in _COSTS if points[cost].notna().any()]
    hardware = " and ".join(sorted(set(points["hardware"].dropna()))) or "hardware unknown"
    sheet = Sheet(
        layout=layout,
        title=f"Dice by budget: {dataset}",
        subject=f"{counted(len(points), 'point')} · {points['n_folds'].max()} folds at most · {hardware}",
        notes=notes,
        legend=[*method_entries(points["method"]), *fold_entries(points["n_folds"])],
        rows=1 if layout.rail else len(costs),
        columns=len(costs) if layout.rail else 1,
        panel_height=2.9,
        gap_across=0.3,
        head=0.15,
    )
    with sheet.drawn() as (figure, panels):
        for index, (panel, cost) in enumerate(zip(panels, costs, strict=True)):
            _draw_lines(panel, points, cost)
            if index and layout.rail:
                panel.tick_params(labelleft=False)
            else:
                panel.set_ylabel("Dice (mean over foreground)", labelpad=8)
        _label_budgets(panels[0], points)
    return figure


def _draw_lines(panel: Axes, points: pd.DataFrame, cost: str) -> None:
    factor, label = _scale(points[cost], cost)
    scaled = points.assign(cost=points[cost].astype(float) * factor)
    limit_dice(panel, dice_floor(points), float(points["dice_max"].max()))
    limit_cost(panel, scaled["cost"])
    label_cost(panel, label)
    for method, line in scaled.dropna(subset="cost").groupby("method"):
        look: dict[str, Any] = {"color": METHOD_STYLES[str(method)].paint.light, "zorder": 3}
        panel.plot(line["cost"], line["dice"], lw=1.3, alpha=0.8, gid=belongs_to(*line["point_id"]), **look)
        for point in line.to_dict("records"):
            x, gid = [point["cost"]], belongs_to(point["point_id"])
            panel.plot(x * 2, [point["dice_min"], point["dice_max"]], alpha=0.45, lw=1, gid=gid, **look)
            mark = marker(str(method), hollow=point["n_folds"] == 1)
            panel.plot(x, [point["dice"]], zorder=4, clip_on=False, gid=gid, **mark)


def _scale(values: pd.Series[Any], cost: str) -> tuple[float, str]:
    """Factor and axis label: time in its reading unit, counts in thousands, millions … so that ticks stay short."""
    column, largest = BY_NAME[cost], float(values.max())
    if column.unit:
        scale = reading_scale(column.unit, largest)
        return scale.factor, label_with_unit(column.label, scale.unit)
    power = 3 * int(math.log10(largest) // 3) if largest >= 1e4 else 0
    unit = {0: "", 3: "thousands", 6: "millions", 9: "billions", 12: "trillions"}.get(power, f"1e{power}")
    return 10.0**-power, label_with_unit(column.label, unit)


def _label_budgets(panel: Axes, points: pd.DataFrame) -> None:
    """Each budget above its iterations, which all schemes share."""
    factor, _ = _scale(points["iterations"], "iterations")
    last = -math.inf
    pairs = points[["iterations", "budget"]].drop_duplicates().sort_values("iterations")
    for iterations, budget in zip(pairs["iterations"].astype(float) * factor, pairs["budget"], strict=True):
        place = panel.transAxes.inverted().transform(panel.transData.transform((iterations, 0)))[0]
        if place - last >= _LABEL_ROOM:
            style: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 7.6, "color": MUTED.light}
            panel.text(place, 1.02, budget_words(budget), transform=panel.transAxes, **style)
            last = place


# More bars than these do not fit: the largest budget of each dataset is drawn alone.
_MOST_BARS = 40
_BAR, _HEADING, _STAR_ROOM = 0.2, 0.33, 0.14
_DIAMOND: dict[str, Any] = {
    "marker": "d",
    "markersize": 7,
    "markerfacecolor": SURFACE.light,
    "markeredgecolor": INK.light,
    "markeredgewidth": 1.1,
    "linestyle": "",
}


def figure3(comparison: Comparison, *, published: Comparison | None = None) -> DisplayItem | None:
    """The item; None if no pair has cases.

    Args:
        comparison: of schemes with a baseline.
        published: differences of fold means of a publication, drawn as open diamonds.
    """
    every = comparison.rows[comparison.rows["standard_error"].notna()]
    if every.empty:
        return None
    fit = len(every) <= _MOST_BARS or every["budget"].nunique() == 1
    largest = every["budget"] == every.groupby("dataset")["budget"].transform("max")
    rows = every if fit else every[largest]
    rows = _with_published(rows.assign(starred=significant(rows)), published)
    notes = [
        "Bars: standard error.",
        *how_to_read(comparison)[:2],
        dropped(rows),
        "Hollow: one fold." if (rows["n_folds"] == 1).any() else "",
        "" if fit else f"Largest budget of each dataset; the table has all {len(every)} comparisons.",
        "Open diamond: published difference of fold means, without cases." if rows["published"].notna().any() else "",
    ]
    baseline, best = comparison.baseline, rows.sort_values("dice_difference", kind="stable").iloc[-1]
    return DisplayItem(
        stem="dice_difference",
        heading=f"Difference of Dice from {baseline}, per case (MICCAI 2024, Fig. 3)",
        draw=lambda layout: _draw_figure3(rows, baseline, [note for note in notes if note], layout),
        alt=f"Bars of the mean difference of Dice per case from {baseline}, {counted(len(rows), 'comparison')}, "
        f"{int(rows['starred'].sum())} with a star, p below {SIGNIFICANT:g}; the largest is "
        f"{signed(best['dice_difference'])}, {best['against']} on {best['dataset']} at {budget_words(best['budget'])}.",
        notes=[note for note in notes if note],
    )


def _with_published(rows: pd.DataFrame, published: Comparison | None) -> pd.DataFrame:
    """Rows with the published difference, where there is one."""
    if published is None:
        return rows.assign(published=float("nan"))
    key = ["dataset", "budget", "against_method"]
    theirs = published.rows[[*key, "dice_difference"]].rename(columns={"dice_difference": "published"})
    return rows.merge(theirs.drop_duplicates(key), on=key, how="left")


def _draw_figure3(rows: pd.DataFrame, baseline: str, notes: Sequence[str], layout: Layout) -> Figure:
    groups = list(rows.groupby(["dataset", *several_of(rows, "plans"), "budget"], sort=False))
    folds = sorted({fold for cell in rows["folds"] for fold in cell.split()}, key=int)
    diamond = [("published", (Line2D([], [], **_DIAMOND),))] if rows["published"].notna().any() else []
    sheet = Sheet(
        layout=layout,
        title=f"Difference of Dice from {baseline}, per case",
        subject=f"{counted(int(rows['n_cases'].max()), 'case')} at most per task · folds {', '.join(folds)} · "
        f"right of 0: above {baseline}",
        notes=notes,
        legend=[*method_entries(rows["against_method"]), *fold_entries(rows["n_folds"]), *diamond],
        panel_height=0.15 + _HEADING * len(groups) + _BAR * len(rows),
        # There is no vertical scale, so the plot starts at the margin.
        left=EDGE + 0.08,
    )
    with sheet.drawn() as (figure, [panel]):
        panel.set_ylim(sheet.panel_height, 0)
        panel.set_yticks([])
        panel.grid(False, axis="y")
        panel.spines["left"].set_visible(False)
        _limit(panel, rows)
        panel.set_xlabel(f"ΔDice, paired by case, method minus {baseline}", labelpad=6)
        panel.xaxis.set_major_locator(short_ticks(9 if layout.rail else 5))
        panel.axvline(0, color=MUTED.light, lw=1.1, zorder=1)
        _draw_groups(panel, groups)
    return figure


def _draw_groups(panel: Axes, groups: Sequence[tuple[Any, pd.DataFrame]]) -> None:
    """Rows from the top down; the vertical axis is in inches."""
    # `Hippocampus` for `Dataset004_Hippocampus`; the whole name where two would be the same.
    short = {dataset: dataset.partition("_")[2] or dataset for (dataset, *_), _ in groups}
    names = {name: word if list(short.values()).count(word) == 1 else name for name, word in short.items()}
    y = 0.0
    for (dataset, *plans, budget), rows in groups:
        whose = ", ".join([names[dataset], *plans])
        heading = f"{whose}, {budget_words(budget)} of the iterations" if budget < 1 else whose
        box = {"facecolor": SURFACE.light, "edgecolor": "none", "pad": 1.0}
        style: dict[str, Any] = {"fontsize": 8.3, "fontweight": "bold", "color": INK.light, "bbox": box}
        panel.text(0, y + 0.15, heading, transform=panel.get_yaxis_transform(), va="center", **style)
        y += _HEADING
        for row in rows.to_dict("records"):
            _draw_bar(panel, row, y + 0.08)
            y += _BAR


def _limit(panel: Axes, rows: pd.DataFrame) -> None:
    mean, error = rows["dice_difference"], rows["standard_error"]
    ends = pd.concat([mean - error, mean + error, rows["published"].dropna(), pd.Series([0.0])])
    low, high = float(ends.min()), float(ends.max())
    room = _STAR_ROOM * ((high - low) or 0.01)
    panel.set_xlim(low - room, high + room)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if abs(value) > 1e-12 else "0"))


def _draw_bar(panel: Axes, row: dict[Any, Any], y: float) -> None:
    look: dict[str, Any] = {"gid": belongs_to(row["against_id"])}
    color = METHOD_STYLES[row["against_method"]].paint.light
    mean, error = row["dice_difference"], row["standard_error"]
    panel.plot([0, mean], [y, y], color=color, alpha=0.3, lw=5, solid_capstyle="butt", zorder=2, **look)
    panel.plot([mean - error, mean + error], [y, y], color=color, lw=1.4, zorder=3, **look)
    panel.plot([mean], [y], zorder=4, **marker(row["against_method"], hollow=row["n_folds"] == 1), **look)
    if row["starred"]:
        place: dict[str, Any] = {"xytext": (6, -2.5), "textcoords": "offset points", "va": "center", "ha": "left"}
        panel.annotate("*", (max(mean + error, 0), y), fontsize=12, **place, **look)
    if not pd.isna(row["published"]):
        panel.plot([row["published"]], [y], zorder=5, **_DIAMOND, **look)

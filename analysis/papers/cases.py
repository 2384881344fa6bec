"""Dice case by case, a scheme against constant patch size: which cases gain, which lose, whatever the means say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.comparison.compare import Comparison
from analysis.comparison.measure import Finished
from analysis.comparison.numbers import several_of
from analysis.figures.encodings import belongs_to, dice_floor, short_ticks
from analysis.figures.exhibits import Exhibit
from analysis.figures.sheet import Sheet
from analysis.figures.style import METHOD_STYLES, RULE, Layout
from analysis.statistics.evidence import Evidence
from analysis.tables.format import Table
from analysis.tables.methods import METHOD_LABELS
from analysis.tables.units import counted

_MOST_ROWS, _MOST_PANELS = 10, 8
# So many marks become a picture within the drawing.
_RASTERIZE_FROM = 400


def paired_cases(evidence: Evidence, comparison: Comparison, dataset: str) -> pd.DataFrame:
    """The cases of a dataset that a scheme and the baseline share, at the largest budget, seeds averaged.

    Returns:
        A row per scheme and case: `method`, `scheme` (in words, with its plans where they differ), `point_id`, `case`,
        `baseline_dice`, `dice` and `difference`.
    """
    rows, points = comparison.rows, {str(point["point_id"]): point for _, point in evidence.points.iterrows()}
    rows = rows[(rows["dataset"] == dataset) & (rows["n_cases"] > 1)]
    finished, several = Finished(evidence), several_of(rows, "plans")
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


def dice_per_case(evidence: Evidence, comparison: Comparison, dataset: str, *, stem: str) -> Exhibit | None:
    """The exhibit of a dataset; None without two shared cases."""
    found, baseline = paired_cases(evidence, comparison, dataset), comparison.baseline
    if found.empty:
        return None
    lower = [
        f"{scheme} {int((part['difference'] < 0).sum())} of {counted(len(part), 'case')}"
        for scheme, part in found.groupby("scheme", sort=False)
    ]
    worst = found.sort_values(["difference", "case"]).head(_MOST_ROWS)
    return Exhibit(
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

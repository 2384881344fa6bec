"""Fig. 3 of the MICCAI paper: difference of Dice, paired by case, with its standard error, per task and scheme.

A star marks p below 0.05 over cases and trainings, after Holm's correction; with one seed there is none. Bars go to the
right where the scheme is above the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.comparison.compare import Comparison, significant
from analysis.comparison.numbers import budget_words, signed
from analysis.comparison.text import dropped, how_to_read
from analysis.figures.sections import Exhibit
from analysis.figures.style import INK, METHOD_STYLES, MUTED, RC, SURFACE, Layout
from analysis.papers.canvas import Frame, draw_frame, fold_handles, marker_style, method_handle, short_names
from analysis.statistics.tests import SIGNIFICANT
from analysis.tables.units import counted

STEM = "figure3"
# More bars than these do not fit: the largest budget of each dataset is drawn alone.
_MOST_BARS = 40
_BAR_INCHES, _HEADING_INCHES = 0.2, 0.33
_STAR_ROOM = 0.14


@dataclass(frozen=True, kw_only=True)
class _Bars:
    """What is drawn: rows of a comparison that have cases, and published differences of fold means."""

    rows: pd.DataFrame
    published: pd.DataFrame
    baseline: str
    notes: Sequence[str]

    @property
    def methods(self) -> list[str]:
        return [method for method in METHOD_STYLES if (self.rows["against_method"] == method).any()]


def figure3(comparison: Comparison, *, published: Comparison | None = None) -> Exhibit | None:
    """The exhibit; None if no pair has cases.

    Args:
        comparison: of schemes with a baseline.
        published: differences of fold means of a publication, drawn as open diamonds.
    """
    bars = _bars(comparison, published)
    if bars.rows.empty:
        return None
    return Exhibit(
        stem=STEM,
        heading=f"Difference of Dice from {bars.baseline}, per case (MICCAI 2024, Fig. 3)",
        draw=lambda layout: _figure(bars, layout),
        alt=_alt(bars),
        notes=bars.notes,
    )


def _bars(comparison: Comparison, published: Comparison | None) -> _Bars:
    rows = comparison.rows[comparison.rows["standard_error"].notna()]
    left_out = []
    if len(rows) > _MOST_BARS and rows["budget"].nunique() > 1:
        largest = rows.groupby("dataset")["budget"].transform("max")
        left_out = [f"Largest budget of each dataset; the table has all {len(rows)} comparisons."]
        rows = rows[rows["budget"] == largest]
    rows = rows.assign(starred=significant(rows))
    notes = [
        "Bars: standard error.",
        *how_to_read(comparison)[:2],
        dropped(rows) if len(rows) else "",
        "Hollow: one fold." if (rows["n_folds"] == 1).any() else "",
        *left_out,
    ]
    theirs = _published_rows(rows, published)
    if len(theirs):
        notes.append("Open diamond: published difference of fold means, without cases.")
    return _Bars(rows=rows, published=theirs, baseline=comparison.baseline, notes=[note for note in notes if note])


def _published_rows(rows: pd.DataFrame, published: Comparison | None) -> pd.DataFrame:
    if published is None:
        return rows.iloc[:0]
    key = ["dataset", "budget", "against_method"]
    return published.rows.merge(rows[key].drop_duplicates(), on=key)


def _figure(bars: _Bars, layout: Layout) -> Figure:
    groups = list(bars.rows.groupby(["dataset", "budget"], sort=False))
    height = 0.15 + _HEADING_INCHES * len(groups) + _BAR_INCHES * len(bars.rows)
    folds = sorted({fold for cell in bars.rows["folds"] for fold in cell.split()}, key=int)
    frame = Frame(
        title=f"Difference of Dice from {bars.baseline}, per case",
        subject=f"{counted(int(bars.rows['n_cases'].max()), 'case')} at most per task · folds {', '.join(folds)} · "
        f"right of 0: above {bars.baseline}",
        notes=bars.notes,
        handles=_handles(bars),
    )
    with mpl.rc_context(RC):
        figure, (axes,) = draw_frame(layout, frame, count=1, panel_height=height)
        _move_left(figure, axes)
        _draw(axes, groups, bars, height)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9 if layout.rail else 5, steps=[1, 2, 5, 10]))
    return figure


def _move_left(figure: Figure, axes: Axes) -> None:
    """There is no vertical scale, so the plot starts at the margin."""
    box = axes.get_position()
    left = 0.3 / figure.get_size_inches()[0]
    axes.set_position((left, box.y0, box.x1 - left, box.height))


def _draw(axes: Axes, groups: Sequence[tuple[Any, pd.DataFrame]], bars: _Bars, height: float) -> None:
    """Rows from the top down; the vertical axis is in inches."""
    names = short_names(sorted(set(bars.rows["dataset"])))
    axes.set_ylim(height, 0)
    axes.set_yticks([])
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    _limit(axes, bars)
    axes.axvline(0, color=MUTED.light, lw=1.1, zorder=1)
    y = 0.0
    for (dataset, budget), rows in groups:
        heading = f"{names[dataset]}, {budget_words(budget)} of the iterations" if budget < 1 else names[dataset]
        axes.text(
            *(0, y + 0.15),
            heading,
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8.3,
            fontweight="bold",
            color=INK.light,
            bbox={"facecolor": SURFACE.light, "edgecolor": "none", "pad": 1.0},
        )
        y += _HEADING_INCHES
        for _, row in rows.iterrows():
            _draw_bar(axes, row, y + 0.08)
            _draw_published(axes, bars.published, row, y + 0.08)
            y += _BAR_INCHES


def _limit(axes: Axes, bars: _Bars) -> None:
    error = bars.rows["standard_error"].fillna(0)
    ends = [bars.rows["dice_difference"] - error, bars.rows["dice_difference"] + error]
    low = min(0.0, float(ends[0].min()), float(bars.published["dice_difference"].min() if len(bars.published) else 0))
    high = max(0.0, float(ends[1].max()), float(bars.published["dice_difference"].max() if len(bars.published) else 0))
    room = _STAR_ROOM * ((high - low) or 0.01)
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if abs(value) > 1e-12 else "0"))
    axes.set_xlabel(f"ΔDice, paired by case, method minus {bars.baseline}", labelpad=6)


def _draw_bar(axes: Axes, row: pd.Series[Any], y: float) -> None:
    color = METHOD_STYLES[row["against_method"]].paint.light
    mean, error = row["dice_difference"], row["standard_error"]
    axes.plot([0, mean], [y, y], color=color, alpha=0.3, lw=5, solid_capstyle="butt", zorder=2)
    if not pd.isna(error):
        axes.plot([mean - error, mean + error], [y, y], color=color, lw=1.4, zorder=3)
    axes.plot([mean], [y], zorder=4, **marker_style(row["against_method"], single=row["n_folds"] == 1))
    if row["starred"]:
        end = max(mean + (0 if pd.isna(error) else error), 0)
        axes.annotate("*", (end, y), xytext=(6, -2.5), textcoords="offset points", va="center", ha="left", fontsize=12)


def _draw_published(axes: Axes, published: pd.DataFrame, row: pd.Series[Any], y: float) -> None:
    same = published[
        (published["dataset"] == row["dataset"])
        & (published["budget"] == row["budget"])
        & (published["against_method"] == row["against_method"])
    ]
    if len(same):
        axes.plot(same["dice_difference"], [y] * len(same), **_DIAMOND, zorder=5)


_DIAMOND: dict[str, Any] = {
    "marker": "d",
    "markersize": 7,
    "markerfacecolor": SURFACE.light,
    "markeredgecolor": INK.light,
    "markeredgewidth": 1.1,
    "linestyle": "",
}


def _handles(bars: _Bars) -> list[Line2D]:
    diamond = [Line2D([], [], label="published", **_DIAMOND)] if len(bars.published) else []
    singles = list(bars.rows["n_folds"] == 1)
    return [*map(method_handle, bars.methods), *(fold_handles(singles) if not all(singles) else []), *diamond]


def _alt(bars: _Bars) -> str:
    starred = int(bars.rows["starred"].sum())
    best = bars.rows.sort_values("dice_difference", kind="stable").iloc[-1]
    return (
        f"Bars of the mean difference of Dice per case from {bars.baseline}, {counted(len(bars.rows), 'comparison')}, "
        f"{starred} with a star, p below {SIGNIFICANT:g}; the largest is {signed(best['dice_difference'])}, "
        f"{best['against']} on {best['dataset']} at {budget_words(best['budget'])}."
    )

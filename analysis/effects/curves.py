"""Learning curves: pseudo Dice while a training went on, against iterations, voxels, time and CO₂.

Pseudo Dice is that of a few fixed validation batches at the full patch, made once per epoch; it orders trainings while
they go on and is not the Dice of the final validation. A curve is the mean over a point's folds and seeds at the same
epoch; thin lines are those of the single trials. Strokes on a curve are where a stage begins.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.effects.sheet import Sheet, marker_handle
from analysis.figures.encodings import belongs_to
from analysis.figures.style import METHOD_STYLES, RC, Layout
from analysis.fronts.front import Front
from analysis.tables.columns import EPOCH_COLUMNS
from analysis.tables.frame import FINISHED, KEY
from analysis.tables.methods import METHOD_LABELS
from analysis.tables.units import label_with_unit, reading_scale

MOST_CURVES = 8
NEAR = 0.9
"""Share of the largest budget from which on a budget counts as large."""
AGAINST = ("iteration", "voxels", "training_seconds", "co2_kg")
_LABELS = {"iteration": "Iterations", "voxels": "Voxels"}
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.3)), (0, (6, 1.5, 1, 1.5)))
_COLUMNS = {column.name: column for column in EPOCH_COLUMNS}


def choose_points(front: Front, epochs: pd.DataFrame) -> pd.DataFrame:
    """The points whose curves are drawn: near the largest budget, the best of each method, then others of the front.

    Args:
        front: of one dataset.
        epochs: of the same studies.

    Returns:
        At most MOST_CURVES rows of the front's points that have a curve, in the order of the methods' legend.
    """
    curved = set(epochs.dropna(subset=["pseudo_dice"])["trial_id"])
    has_curve = front.points["trial_ids"].map(lambda ids: bool(curved.intersection(ids.split())))
    largest = front.points.loc[has_curve, "budget"].max()
    points = front.points[has_curve & (front.points["budget"] >= NEAR * largest)]
    ranked = points.sort_values(["dice", "point_id"], ascending=[False, True])
    first = ranked.drop_duplicates("method")
    others = ranked.drop(first.index)
    chosen = pd.concat([first, others[others["non_dominated"]]]).head(MOST_CURVES)
    order = {method: place for place, method in enumerate(METHOD_LABELS)}
    in_order: pd.DataFrame = chosen.iloc[chosen["method"].map(order).to_numpy().argsort(kind="stable")]
    return in_order


def curves_of(points: pd.DataFrame, trials: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """Mean curves of points.

    Args:
        points: whose curves are wanted.
        trials: as in `frame.Tables`.
        epochs: likewise.

    Returns:
        A row per point and epoch that all its finished trials with a curve have: point_id, epoch, iteration, stage,
        voxels, training_seconds, co2_kg, pseudo_dice (means; a cost missing in one is missing) and n_trials.
    """
    rows = trial_curves(points, trials, epochs)
    groups = rows.groupby(["point_id", "epoch"], sort=False)
    means: pd.DataFrame = groups[[*AGAINST, "pseudo_dice"]].mean(skipna=False)
    means["stage"] = groups["stage"].first()
    means["n_trials"] = groups.size()
    means = means.reset_index()
    whole = means.groupby("point_id")["n_trials"].transform("max")
    return means[means["n_trials"] == whole].sort_values(["point_id", "epoch"]).reset_index(drop=True)


def trial_curves(points: pd.DataFrame, trials: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """Rows of `epochs` of the points' finished trials, with their `point_id`."""
    finished = trials[(trials["state"] == FINISHED) & trials["point_id"].isin(points["point_id"])]
    return epochs.dropna(subset=["pseudo_dice"]).merge(finished[[*KEY, "point_id"]], on=KEY)


def short_names(points: pd.DataFrame) -> list[str]:
    """Summaries of points, without the budget where it is the same for all of them."""
    if points["budget"].nunique() > 1:
        return [str(summary) for summary in points["summary"]]
    budget = f", budget {float(points['budget'].iloc[0]):.0%}"
    return [str(summary).replace(budget, "") for summary in points["summary"]]


def learning_curves(
    points: pd.DataFrame,
    means: pd.DataFrame,
    singles: pd.DataFrame,
    *,
    subject: str,
    notes: Sequence[str],
    layout: Layout,
) -> Figure:
    """The figure: a panel per cost that was measured.

    Args:
        points: as `choose_points` gives them, not empty.
        means: as `curves_of` gives them.
        singles: as `trial_curves` gives them.
        subject: what it rests on.
        notes: sentences below.
        layout: size and arrangement.
    """
    against = [name for name in AGAINST if means[name].notna().any()]
    dashes = _dashes(points)
    letters = 60 if layout.rail else 46
    names = [textwrap.shorten(name, letters, placeholder="…") for name in short_names(points)]
    handles = [
        marker_handle(method, name, linestyle=dashes[point])
        for method, name, point in zip(points["method"], names, points["point_id"], strict=True)
    ]
    columns = 2 if layout.rail else 1
    sheet = Sheet(
        layout=layout,
        title="Learning curves",
        subject=subject,
        notes=notes,
        rows=-(-len(against) // columns),
        columns=columns,
        panel_height=2.3 if layout.rail else 2.0,
        legend=handles,
    )
    with mpl.rc_context(RC):
        figure, panels = sheet.build()
        top = float(singles["pseudo_dice"].max())
        for place, (panel, name) in enumerate(zip(panels, against, strict=False)):
            _draw(panel, name, points, means, singles, dashes)
            panel.set_ylim(0, min(1.0, 1.08 * top) or 1.0)
            if place % columns == 0:
                panel.set_ylabel("Pseudo Dice")
        for panel in panels[len(against) :]:
            panel.remove()
    return figure


def _dashes(points: pd.DataFrame) -> dict[str, Any]:
    """One pattern per point; points of one method differ in it."""
    turn = points.groupby("method", sort=False).cumcount()
    return {point: _DASHES[n % len(_DASHES)] for point, n in zip(points["point_id"], turn, strict=True)}


def _draw(
    panel: Axes,
    name: str,
    points: pd.DataFrame,
    means: pd.DataFrame,
    singles: pd.DataFrame,
    dashes: dict[str, Any],
) -> None:
    column = _COLUMNS[name]
    scale = reading_scale(column.unit, float(means[name].max()))
    for _, point in points.iterrows():
        identity, style = str(point["point_id"]), METHOD_STYLES[str(point["method"])]
        mean, own = means[means["point_id"] == identity], singles[singles["point_id"] == identity]
        look: dict[str, Any] = {"color": style.paint.light, "gid": belongs_to(identity)}
        if own["trial_id"].nunique() > 1:
            for _, single in own.groupby("trial_id"):
                panel.plot(single[name] * scale.factor, single["pseudo_dice"], lw=0.6, alpha=0.35, **look)
        x, y = mean[name] * scale.factor, mean["pseudo_dice"]
        panel.plot(x, y, lw=1.7, ls=dashes[identity], zorder=4, **look)
        panel.plot(x.tail(1), y.tail(1), marker=style.marker, ms=5, zorder=5, clip_on=False, **look)
        if point["order"] == "random":
            continue  # a stage of one epoch follows another, which says nothing
        starts = mean["stage"].ne(mean["stage"].shift()) & (mean["stage"] != mean["stage"].iloc[0])
        panel.plot(x[starts], y[starts], ls="", marker="|", ms=8, mew=1.4, zorder=5, **look)
    panel.set_xlim(left=0)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    panel.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M" if value >= 1e6 else f"{value:g}")
    panel.set_xlabel(label_with_unit(_LABELS.get(name, column.label), scale.unit))


def about_curves(points: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """How to read learning curves, and whose they are."""
    budget = float(points["budget"].max())
    sentences = [
        f"Drawn are the best configuration of each scheme at a budget of {budget:.0%} or little less, then others of "
        f"the front there, at most {MOST_CURVES}: {'; '.join(short_names(points))}.",
        "Pseudo Dice is that of a few fixed validation batches at the full patch, not of whole cases: it is not the "
        "Dice of the final validation.",
    ]
    if (means["n_trials"] > 1).any():
        sentences.append("Thick lines are means over folds and seeds, thin lines single trials.")
    if means.groupby("point_id")["stage"].nunique().gt(1).any():
        sentences.append("Strokes on a line: the first epoch that ends in a new stage; none for random orders.")
    if means["co2_kg"].isna().all():
        sentences.append("Not drawn against CO₂, because energy was not measured.")
    return sentences


def curves_in_words(points: pd.DataFrame, means: pd.DataFrame) -> str:
    """The figure of learning curves in words."""
    last = means.groupby("point_id")["pseudo_dice"].last()
    ends = [f"{n} {last[p]:.3f}" for n, p in zip(short_names(points), points["point_id"], strict=True)]
    return f"Pseudo Dice while trainings went on, at the end: {'; '.join(ends)}."

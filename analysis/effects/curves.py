"""Learning curves: pseudo Dice while a training went on, against iterations and time, and both losses.

Pseudo Dice is that of a few fixed validation batches at the full patch, made once per epoch; it orders trainings while
they go on and is not the Dice of the final validation. A curve is the mean over a point's folds and seeds at the same
epoch; thin lines are those of the single trials. Strokes on a curve are where a stage begins.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.encodings import belongs_to, marker, short_ticks
from analysis.figures.exhibits import Exhibit
from analysis.figures.sheet import Entry, Sheet
from analysis.figures.style import METHOD_STYLES, Layout
from analysis.fronts.captions import subject
from analysis.fronts.front import Front
from analysis.tables.columns import EPOCH_COLUMNS
from analysis.tables.frame import FINISHED, KEY, Tables
from analysis.tables.methods import METHOD_LABELS
from analysis.tables.units import label_with_unit, reading_scale

MOST_CURVES = 8
NEAR = 0.9
"""Share of the largest budget from which on a budget counts as large."""
PANELS = (
    ("iteration", "pseudo_dice"),
    ("training_seconds", "pseudo_dice"),
    ("iteration", "training_loss"),
    ("iteration", "validation_loss"),
)
"""What is drawn: to the right, and upwards."""
_MEANS = ("iteration", "voxels", "training_seconds", "co2_kg", "pseudo_dice", "training_loss", "validation_loss")
_LABELS = {"iteration": "Iterations"}
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.3)), (0, (6, 1.5, 1, 1.5)))
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
    with_curve = front.points[front.points["trial_ids"].map(lambda ids: bool(curved.intersection(ids.split())))]
    points = with_curve[with_curve["budget"] >= NEAR * with_curve["budget"].max()]
    ranked = points.sort_values(["dice", "point_id"], ascending=[False, True])
    first = ranked.drop_duplicates("method")
    others = ranked.drop(first.index)
    chosen = pd.concat([first, others[others["non_dominated"]]]).head(MOST_CURVES)
    in_order: pd.DataFrame = chosen.sort_values(
        "method", key=lambda names: names.map(list(METHOD_LABELS).index), kind="stable"
    )
    return in_order


def curves_of(points: pd.DataFrame, tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The curves of points.

    Returns:
        Means: a row per point and epoch that all its finished trials with a curve have: point_id, epoch, iteration,
        stage, n_trials, and means of _MEANS; one that is missing in a trial is missing.
        Singles: the rows of `epochs` of these trials, with their `point_id`.
    """
    trials = tables.trials
    finished = trials[(trials["state"] == FINISHED) & trials["point_id"].isin(points["point_id"])]
    singles = tables.epochs.dropna(subset=["pseudo_dice"]).merge(finished[[*KEY, "point_id"]], on=KEY)
    groups = singles.groupby(["point_id", "epoch"])
    means: pd.DataFrame = groups[list(_MEANS)].mean(skipna=False)
    means = means.assign(stage=groups["stage"].first(), n_trials=groups.size()).reset_index()
    whole = means.groupby("point_id")["n_trials"].transform("max")
    return means[means["n_trials"] == whole].reset_index(drop=True), singles


def learning_curves(front: Front, tables: Tables, caveats: Sequence[str]) -> Exhibit | str:
    """A panel per cost that was measured, or why there is none."""
    points = choose_points(front, tables.epochs)
    if points.empty:
        return "Learning curves: no finished trial recorded its epochs with an online validation."
    means, singles = curves_of(points, tables)
    # Without the budget where it is the same for all of them.
    same = "" if points["budget"].nunique() > 1 else f", budget {float(points['budget'].iloc[0]):.0%}"
    points = points.assign(short=points["summary"].str.replace(same, "", regex=False))
    notes = [*_how_to_read(points, means), *caveats]
    last = means.groupby("point_id")["pseudo_dice"].last()
    ends = [f"{name} {last[point]:.3f}" for name, point in zip(points["short"], points["point_id"], strict=True)]
    return Exhibit(
        stem="learning_curves",
        heading="Learning curves and losses",
        draw=lambda layout: _figure(points, means, singles, subject(front.points), notes, layout),
        alt=f"Pseudo Dice while trainings went on, at the end: {'; '.join(ends)}.",
        notes=notes,
        data=means.merge(points[["point_id", "summary"]], on="point_id"),
        folded=True,
    )


def _how_to_read(points: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    budget = float(points["budget"].max())
    sentences = [
        f"Drawn are the best configuration of each scheme at a budget of {budget:.0%} or little less, then others of "
        f"the front there, at most {MOST_CURVES}: {'; '.join(points['short'])}.",
        "Pseudo Dice is that of a few fixed validation batches at the full patch, not of whole cases: it is not the "
        "Dice of the final validation.",
    ]
    if (means["n_trials"] > 1).any():
        sentences.append("Thick lines are means over folds and seeds, thin lines single trials.")
    if means.groupby("point_id")["stage"].nunique().gt(1).any():
        sentences.append("Strokes on a line: the first epoch that ends in a new stage; none for random orders.")
    sentences.append(
        "The validation loss is that of the same fixed batches; one that still falls at the "
        "end says that a longer training may give more."
    )
    return sentences


def _figure(
    points: pd.DataFrame, means: pd.DataFrame, singles: pd.DataFrame, about: str, notes: Sequence[str], layout: Layout
) -> Figure:
    drawn = [(x, y) for x, y in PANELS if means[[x, y]].notna().all(axis=None)]
    # One pattern per point; points of one method differ in it.
    rows = points.assign(turn=points.groupby("method", sort=False).cumcount() % len(_DASHES)).to_dict("records")
    columns, letters = (2, 60) if layout.rail else (1, 46)
    legend: list[Entry] = []
    for row in rows:
        look = {"color": METHOD_STYLES[row["method"]].paint.light, "linestyle": _DASHES[row["turn"]]}
        name = textwrap.shorten(row["short"], letters, placeholder="…")
        legend.append((name, (Line2D([], [], **{**marker(row["method"]), **look}),)))
    sheet = Sheet(
        layout=layout,
        title="Learning curves and losses",
        subject=about,
        notes=notes,
        rows=-(-len(drawn) // columns),
        columns=columns,
        panel_height=2.3 if layout.rail else 2.0,
        legend=legend,
    )
    with sheet.drawn() as (figure, panels):
        for panel, (name, height) in zip(panels, drawn, strict=False):
            column = _COLUMNS[name]
            scale = reading_scale(column.unit, float(means[name].max()))
            for row in rows:
                of_point = (frame[frame["point_id"] == row["point_id"]] for frame in (means, singles))
                _draw(panel, row, *(part.assign(x=part[name] * scale.factor, y=part[height]) for part in of_point))
            panel.set_xlim(left=0)
            if height == "pseudo_dice":
                panel.set_ylim(0, min(1.0, 1.08 * float(singles[height].max())) or 1.0)
            panel.xaxis.set_major_locator(short_ticks(6))
            panel.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M" if value >= 1e6 else f"{value:g}")
            panel.set_xlabel(label_with_unit(_LABELS.get(name, column.label), scale.unit))
            panel.set_ylabel(_COLUMNS[height].label)
        for panel in panels[len(drawn) :]:
            panel.remove()
    return figure


def _draw(panel: Axes, row: dict[Any, Any], mean: pd.DataFrame, singles: pd.DataFrame) -> None:
    """One point's curve, in the columns `x` and `y`."""
    style = METHOD_STYLES[row["method"]]
    look: dict[str, Any] = {"color": style.paint.light, "gid": belongs_to(row["point_id"])}
    for _, single in singles.groupby("trial_id") if singles["trial_id"].nunique() > 1 else ():
        panel.plot(single["x"], single["y"], lw=0.6, alpha=0.35, **look)
    x, y = mean["x"], mean["y"]
    panel.plot(x, y, lw=1.7, ls=_DASHES[row["turn"]], zorder=4, **look)
    panel.plot(x.tail(1), y.tail(1), marker=style.marker, ms=5, zorder=5, clip_on=False, **look)
    if row["order"] != "random":  # a stage of one epoch follows another there, which says nothing
        starts = mean["stage"].ne(mean["stage"].shift()) & (mean["stage"] != mean["stage"].iloc[0])
        panel.plot(x[starts], y[starts], ls="", marker="|", ms=8, mew=1.4, zorder=5, **look)

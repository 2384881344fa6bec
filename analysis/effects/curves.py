"""Learning curves: pseudo Dice while a training went on, against iterations and time, and both losses.

Pseudo Dice is that of a few fixed validation batches at the full patch, made once per epoch; it orders trainings while
they go on and is not the Dice of the final validation. A curve is the mean over a point's folds and seeds at the same
epoch; thin lines are those of the single trials. Strokes on a curve are where a stage begins.

What the hours of a study bought, trial by trial, and how busy the machine was where that changed the times.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.display_items import DisplayItem, Part
from analysis.figures.sheet import Sheet
from analysis.figures.style import (
    INK,
    METHOD_STYLES,
    MUTED,
    RULE,
    SHADE,
    Entry,
    Layout,
    belongs_to,
    marker,
    method_entries,
    short_ticks,
)
from analysis.fronts.captions import subject
from analysis.fronts.front import Front
from analysis.fronts.hypervolume import box_of, volume_share
from analysis.statistics.study_results import StudyResults
from analysis.tables.columns import BY_NAME, EPOCH_COLUMNS
from analysis.tables.contention import sentences as contention
from analysis.tables.format import counted, label_with_unit, number, reading_scale
from analysis.tables.frame import FINISHED, KEY, Tables
from analysis.tables.methods import METHOD_LABELS

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


def learning_curves(front: Front, tables: Tables, caveats: Sequence[str]) -> DisplayItem | str:
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
    return DisplayItem(
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


_HOUR = 3600
_LOADS = ("busy_cores", "trials_on_node")


def incumbents(results: StudyResults, front: Front) -> pd.DataFrame:
    """The hypervolume of what was known, after each configuration of one dataset.

    Args:
        results: of the dataset.
        front: its points, without groups.

    Returns:
        A row per point in the order in which the last of its trials ended: `point_id`, `method`, `hours` (of all trials
        that had ended by then, whatever became of them; of GPUs where they trained on one) and `share` (of the box of
        the hypervolume, which all points span).
    """
    costs, trials = results.tables.costs, results.tables.trials
    ends = (costs["started_at"] + costs["seconds"]).groupby([costs[name] for name in KEY]).max()
    ended = trials.join(ends.rename("ended"), on=KEY).sort_values("ended", kind="stable")
    devices = ended["gpus"].where(ended["device"] == "cuda").fillna(1.0)
    ended["hours"] = (ended["total_seconds"].fillna(0.0) * devices).cumsum() / _HOUR
    known = ended[ended["point_id"].isin(front.points["point_id"])].groupby("point_id", sort=False)["hours"].max()
    points = front.points.assign(hours=front.points["point_id"].map(known)).sort_values("hours", kind="stable")
    box = box_of(points, front.objectives)
    shares = [volume_share(points.iloc[: count + 1], box) for count in range(len(points))]
    return points[["point_id", "method", "hours"]].assign(share=shares).reset_index(drop=True)


def progress(results: StudyResults, front: Front) -> Part:
    """The item of one dataset, or why there is none."""
    if len(front.points) < 2 or results.tables.costs.empty:
        return "Hypervolume against hours: it takes two finished configurations with their costs."
    found = incumbents(results, front)
    on_gpu = bool((results.tables.trials["device"].dropna() == "cuda").all())
    hours, last = "GPU hours" if on_gpu else "hours of trials", found.iloc[-1]
    half = found.loc[found["share"] >= last["share"] / 2, "hours"].iloc[0]
    return DisplayItem(
        stem="hypervolume_over_hours",
        heading=f"What the study's {hours} bought",
        draw=lambda layout: _draw_progress(found, hours, subject(front.points), layout),
        alt=f"Step line of the hypervolume of all finished configurations against {hours}: half of what "
        f"{number(last['hours'])} h reached was there after {number(half)} h.",
        notes=(
            "Share of the box between reference and ideal point of Dice and training time that the configurations "
            "finished so far dominate; each mark is one of them, where its last trial ended.",
            "Hours are those of all trials that had ended by then, failed ones and validation included.",
        ),
        data=found,
    )


def _draw_progress(found: pd.DataFrame, hours: str, about: str, layout: Layout) -> Figure:
    legend = method_entries(found["method"])
    title = "What the study's hours bought"
    sheet = Sheet(layout=layout, title=title, subject=about, panel_height=2.1, legend=legend)
    with sheet.drawn() as (figure, [panel]):
        panel.step(found["hours"], found["share"], where="post", color=MUTED.light, lw=1.2, zorder=2)
        panel.fill_between(found["hours"], found["share"], step="post", color=SHADE.light, lw=0, zorder=0)
        for point in found.to_dict("records"):
            look = marker(point["method"], area=30)
            panel.plot([point["hours"]], [point["share"]], gid=belongs_to(point["point_id"]), zorder=3, **look)
        panel.set_xlim(0, float(found["hours"].max()) * 1.03 or 1.0)
        panel.set_ylim(0, float(found["share"].max()) * 1.1 or 1.0)
        panel.set_xlabel(f"{hours[0].upper()}{hours[1:]}", labelpad=6)
        panel.set_ylabel("Hypervolume, share")
    return figure


def load_of_the_machine(results: StudyResults) -> Iterator[DisplayItem]:
    """The item of one dataset; none where the same work took the same time, or its machine's load is not known."""
    trials = results.tables.trials
    load = next((name for name in _LOADS if trials[name].notna().any()), None)
    said = contention(results.points)
    if load is None or not said:
        return
    known = trials.dropna(subset=["pace", load])
    slowest = known.sort_values("pace").iloc[-1]
    words = BY_NAME[load].label
    yield DisplayItem(
        stem="pace_against_load",
        heading="The machine's load and the pace of trials",
        draw=lambda layout: _draw_load(known, load, subject(results.points), layout),
        alt=f"Pace of {counted(len(known), 'trial')} against {words.lower()}; the slowest took "
        f"{slowest['pace']:.2f} times the median for the same iterations.",
        notes=(*said, f"Pace: {BY_NAME['pace'].meaning}. {words}: {BY_NAME[load].meaning}."),
        data=known[[*KEY, "method", load, "pace"]],
    )


def _draw_load(known: pd.DataFrame, load: str, about: str, layout: Layout) -> Figure:
    legend = method_entries(known["method"])
    sheet = Sheet(layout=layout, title="Pace of trials", subject=about, panel_height=2.1, legend=legend)
    with sheet.drawn() as (figure, [panel]):
        low, high = float(known[load].min()), float(known[load].max())
        panel.set_xlim(low - 0.1 * (high - low) - 0.1, high + 0.1 * (high - low) + 0.1)
        panel.axhline(1, color=RULE.light, lw=1)
        for trial in known.to_dict("records"):
            gid: dict[str, Any] = {} if pd.isna(trial["point_id"]) else {"gid": belongs_to(trial["point_id"])}
            panel.plot([trial[load]], [trial["pace"]], zorder=3, **marker(trial["method"], area=30), **gid)
        panel.set_ylim(0, float(known["pace"].max()) * 1.1)
        panel.set_xlabel(BY_NAME[load].label, labelpad=6)
        panel.set_ylabel("Time, of the median", color=INK.light)
    return figure

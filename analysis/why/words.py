"""The words beside the figures of the chapter `why`: how to read each, what to beware of, and what it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.fronts.front import Front
from analysis.tables.format import MISSING, Table
from analysis.tables.units import Scale, amount, counted, label_with_unit, number, reading_scale
from analysis.why.cost_bars import AMOUNTS, CAUSES, CostParts
from analysis.why.curves import MOST_CURVES, short_names
from analysis.why.importances import FANOVA, PED_ANOVA, best_share, target_label
from analysis.why.varying import VaryingAxis

# Below this, importances are named as weak.
_ENOUGH_POINTS = 50


def about_importances(n_points: int, axes: Sequence[VaryingAxis]) -> list[str]:
    """How to read importances."""
    best = math.ceil(best_share(n_points) * n_points)
    sentences = [
        f"{FANOVA}: share of the variance over all points that an axis explains by itself. {PED_ANOVA}: how much the "
        f"values of the best {best} of {n_points} points differ from those of all; for the front, of the points "
        "nearest to it. They answer different questions, so they may disagree.",
        "Each sums to 1, so an importance says nothing of how large the effect is; see the slices.",
    ]
    if n_points < _ENOUGH_POINTS:
        sentences.append(f"{n_points} points are few: small importances, and their order, may be chance.")
    joint = [axis.label for axis in axes if axis.together]
    if joint:
        sentences.append(f"Always changed together, so told apart by nothing here: {'; '.join(joint)}.")
    return sentences


def importances_in_words(shares: pd.DataFrame, labels: Mapping[str, str]) -> str:
    """The figure of importances in words."""
    parts = []
    for (target, evaluator), rows in shares.groupby(["target", "evaluator"], sort=False):
        top = rows.iloc[int(rows["importance"].to_numpy().argmax())]
        parts.append(f"{target_label(str(target))} by {evaluator}: {labels[top['axis']]} {top['importance']:.2f}")
    axes = "1 axis" if len(labels) == 1 else f"{len(labels)} axes"
    return f"Bar chart, importance of {axes}. Largest: {'; '.join(parts)}."


def about_slices(front: Front, shown: Sequence[VaryingAxis], n_axes: int) -> list[str]:
    """How to read slices."""
    sentences = [
        "Each panel shows one axis and hides the others: points above each other differ in those.",
        f"In a ring: on the front of Dice and {front.objectives[1].label.lower()}.",
    ]
    if any(not axis.numeric for axis in shown):
        sentences.append("Points of a category are spread sideways so that none hides another.")
    if n_axes > len(shown):
        sentences.append(f"{n_axes - len(shown)} more axes vary and are not drawn.")
    return sentences


def slices_in_words(front: Front, shown: Sequence[VaryingAxis]) -> str:
    """The figure of slices in words."""
    names = ", ".join(axis.label.lower() for axis in shown)
    return (
        f"Scatter plots of Dice and {front.objectives[1].label.lower()} of {counted(len(front.points), 'point')} "
        f"against {names}; {int(front.points['non_dominated'].sum())} of them are on the front."
    )


def about_parallel(front: Front) -> list[str]:
    """How to read parallel coordinates."""
    names = [objective.label for objective in front.objectives]
    return [
        "Each line is one point, through its settings and what came of them; larger values are further up, on a "
        "narrow screen further to the right.",
        f"Strong lines are on the front of {', '.join(names[:-1])} and {names[-1]}.",
    ]


def parallel_in_words(front: Front, shown: Sequence[VaryingAxis]) -> str:
    """The figure of parallel coordinates in words."""
    best = front.best.iloc[[0, -1]] if len(front.best) else front.best
    ends = " and ".join(f"{row['summary']} with Dice {row['dice']:.3f}" for _, row in best.iterrows())
    return (
        f"Parallel coordinates of {counted(len(front.points), 'point')} over "
        f"{', '.join(axis.label.lower() for axis in shown)}, Dice and costs. At the ends of the front: {ends}."
    )


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


def about_costs(parts: CostParts) -> list[str]:
    """How to read costs by cause."""
    sentences = [
        "Means over the finished trials of a scheme; Dice and cost of the fronts count training and online "
        "validation alone."
    ]
    if parts.causes["budget"].isna().any():
        sentences.append("Trials of all budgets are averaged.")
    waste = parts.causes.loc[parts.causes["cause"] == "waste", "seconds"].sum()
    if waste:
        sentences.append("Waste is work that was lost to an interruption and done again.")
    else:
        sentences.append("No finished trial had to do work again.")
    return sentences


def costs_in_words(parts: CostParts) -> str:
    """The figure of costs in words."""
    totals = parts.causes.groupby("group", sort=False)["seconds"].sum()
    trained = parts.causes[parts.causes["cause"] == "training"].set_index("group")["seconds"]
    each = [f"{group} {amount(t, 's')}, {trained[str(group)] / t:.0%} training" for group, t in totals.items() if t]
    return f"Stacked bars, mean time of a finished trial: {'; '.join(each)}."


def about_stages(parts: CostParts) -> list[str]:
    """How to read costs by stage."""
    left_out = [group for group in parts.groups if group not in set(parts.stages["group"])]
    sentences = [
        "Training iterations alone, each counted once: no validation, set-up or waste. The table has the largest "
        "budget of each scheme, its CSV file all of them."
    ]
    if left_out:
        why = "several stage tables, or random orders in ledgers of before"
        sentences.append(f"Not listed, because of {why}: {', '.join(left_out)}.")
    return sentences


def cause_table(parts: CostParts) -> Table:
    """Costs by cause for people: a row per group."""
    wide = parts.causes.pivot(index="group", columns="cause", values="seconds").loc[parts.groups, list(CAUSES)]
    scale = _scale("s", parts.causes["seconds"])
    carbon = parts.causes.groupby("group", sort=False)["co2_kg"].agg(lambda values: values.sum(skipna=False))
    trials = parts.causes.groupby("group", sort=False)["n_trials"].first()
    kilograms = _scale("kg", carbon)
    headings = [label_with_unit(label, scale.unit) for label in (*CAUSES.values(), "Total time")]
    rows = [
        (
            group,
            str(trials[group]),
            *(number(value * scale.factor) for value in (*wide.loc[group], wide.loc[group].sum())),
            MISSING if pd.isna(carbon[group]) else number(carbon[group] * kilograms.factor),
        )
        for group in parts.groups
    ]
    return Table(
        headings=("Scheme", "Trials", *headings, label_with_unit("Total CO₂", kilograms.unit)),
        numeric=(False, *(True for _ in range(len(headings) + 2))),
        rows=tuple(rows),
        points=tuple(parts.points[group] for group in parts.groups),
    )


def stage_table(parts: CostParts) -> Table:
    """Costs by stage for people: a row per stage of each scheme, at its largest budget."""
    largest = parts.stages.groupby("method")["budget"].transform("max")
    stages = parts.stages[(parts.stages["budget"] == largest) | largest.isna()]
    scales = {name: _scale(unit, stages[name]) for name, unit in AMOUNTS.items()}
    labels = {"seconds": "Time", "energy_kwh": "Energy", "co2_kg": "CO₂"}
    names = [name for name in AMOUNTS if stages[name].notna().any()]
    rows = [
        (
            row["group"],
            str(row["stage"] + 1),
            row["patch_size"],
            str(row["batch_size"]),
            str(row["iterations"]),
            *(MISSING if pd.isna(row[name]) else number(row[name] * scales[name].factor) for name in names),
            number(row["seconds"] / row["iterations"] * 1000),
        )
        for _, row in stages.iterrows()
    ]
    amounts = [label_with_unit(labels[name], scales[name].unit) for name in names]
    return Table(
        headings=("Scheme", "Stage", "Patch size", "Batch size", "Iterations", *amounts, "Time per iteration [ms]"),
        numeric=(False, True, False, *(True for _ in range(len(amounts) + 3))),
        rows=tuple(rows),
        points=tuple(parts.points[group] for group in stages["group"]),
    )


def _scale(unit: str, amounts: pd.Series[float]) -> Scale:
    """The unit for a table whose amounts differ much: that of the middle one."""
    known = amounts[amounts > 0]
    return reading_scale(unit, float(known.median()) if len(known) else 0.0)

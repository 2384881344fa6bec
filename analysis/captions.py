"""The words of a figure: its title, what it rests on, what belongs below it, and a description."""

from __future__ import annotations

import pandas as pd

from analysis.axes import dice_floor
from analysis.caveats import caveats, left_out
from analysis.columns import BY_NAME
from analysis.front import Front
from analysis.units import amount, counted


def title(front: Front) -> str:
    """`Dice against training time, by budget`."""
    cost = front.objectives[1].label
    by = f", by {BY_NAME[front.by].label.lower()}" if front.by else ""
    return f"Dice against {cost[0].lower()}{cost[1:]}{by}"


def subject(points: pd.DataFrame) -> str:
    """What a figure is about and rests on, in a line: dataset, points, trials, folds, seeds, hardware."""
    trials = int(points["n_trials"].sum())
    folds = _number_of(points["folds"])
    seeds = _number_of(points["seeds"])
    return " · ".join(
        [
            str(points["dataset"].iloc[0]),
            " and ".join(sorted(set(points["configuration"]))),
            f"{counted(len(points), 'point')} from {counted(trials, 'trial')}",
            f"{counted(folds, 'fold')}, {counted(seeds, 'seed')}",
            " and ".join(sorted(set(points["hardware"].dropna()))) or "hardware unknown",
        ]
    )


def notes(front: Front) -> list[str]:
    """Sentences that belong below the figure: what to beware of, and how to read it."""
    sentences = [*caveats(front), *left_out(front)]
    if (front.points["dice_max"] > front.points["dice_min"]).any():
        sentences.append("Bars: lowest to highest of the averaged folds and seeds.")
    if dice_floor(front.points) > 0:
        sentences.append("The Dice axis does not start at 0.")
    return sentences


def description(front: Front) -> str:
    """The figure in words, for those who do not see it."""
    dice, cost = front.objectives
    best = front.best
    ends = [
        f"{row['summary']} with Dice {row[dice.name]:.3f} at {amount(row[cost.name], cost.unit)}"
        for _, row in best.iloc[[0, -1]].iterrows()
    ]
    reach = ends[0] if len(best) == 1 else f"from {ends[0]} to {ends[1]}"
    return (
        f"Scatter plot, {title(front)}: {counted(len(front.points), 'point')}, "
        f"{len(best)} of them on the Pareto front, {reach}."
    )


def _number_of(cells: pd.Series[str]) -> int:
    return len({word for cell in cells for word in cell.split()})

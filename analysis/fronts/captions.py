"""The words of a figure: its title, what it rests on, what belongs below it, and a description."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.fronts.caveats import caveats, left_out
from analysis.fronts.front import Front
from analysis.statistics.intervals import cautions, dice_bars, unseen_failures
from analysis.tables.columns import BY_NAME
from analysis.tables.objectives import Objective
from analysis.tables.units import Scale, counted, number, reading_scale

# Counts get a word instead of a unit, largest first.
_COUNT_WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


def title(front: Front) -> str:
    """`Dice against training time, by budget`."""
    costs = " and ".join(lowered(objective.label) for objective in front.objectives[1:])
    by = f", by {lowered(BY_NAME[front.by].label)}" if front.by else ""
    return f"Dice against {costs}{by}"


def lowered(label: str) -> str:
    """A label within a sentence."""
    return f"{label[0].lower()}{label[1:]}"


def scale_of(objective: Objective, largest: float) -> Scale:
    """The scale in which values of an objective up to `largest` are read: `min` for seconds, `million` for voxels."""
    if not objective.unit:
        for size, word in _COUNT_WORDS:
            if largest >= size:
                return Scale(factor=1 / size, unit=word)
    return reading_scale(objective.unit, largest)


def amount_of(objective: Objective, value: float) -> str:
    """A value of an objective for people: `94.0 s`, `38.1 mg`, `207 million`."""
    scale = scale_of(objective, abs(value))
    return f"{number(value * scale.factor)} {scale.unit}".strip()


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
    from analysis.figures.encodings import MANY_FOLDS

    sentences = [*caveats(front), *left_out(front), *_about_bars(front.points)]
    if front.by == "hardware":
        sentences.append("Each line is the front of one kind of hardware: compare costs within it.")
    if len(front.objectives) > 2:
        sentences.append(f"The larger a mark, the more {lowered(front.objectives[2].label)}.")
    if (front.points["n_folds"] >= MANY_FOLDS).any():
        sentences.append(f"A ring: {MANY_FOLDS} folds or more.")
    if drawn_floor(front.points) > 0:
        sentences.append("The Dice axis does not start at 0.")
    return sentences


def drawn_floor(points: pd.DataFrame) -> float:
    """Where the Dice axis of some points with their bars starts."""
    from analysis.figures.encodings import dice_floor  # with matplotlib, which words do without

    low, high = dice_bars(points)
    return dice_floor(points.assign(dice_min=low, dice_max=high))


def description(front: Front) -> str:
    """The figure in words, for those who do not see it."""
    dice, cost = front.objectives[:2]
    best = front.best
    if front.by is not None:
        fronts = best.groupby(front.by, dropna=False).size()
        reach = f"on {counted(len(fronts), 'front')}, one for each {lowered(BY_NAME[front.by].label)}"
    else:
        ends = [
            f"{row['summary']} with Dice {row[dice.name]:.3f} at {amount_of(cost, row[cost.name])}"
            for _, row in best.iloc[[0, -1]].iterrows()
        ]
        reach = "on the Pareto front, " + (ends[0] if len(best) == 1 else f"from {ends[0]} to {ends[1]}")
    return f"Scatter plot, {title(front)}: {counted(len(front.points), 'point')}, {len(best)} of them {reach}."


def _about_bars(points: pd.DataFrame) -> Iterator[str]:
    with_interval = points["dice_low"].notna()
    low, high = dice_bars(points)
    if with_interval.any():
        others = ", where there are cases; else lowest to highest trial" if (high > low)[~with_interval].any() else ""
        yield f"Bars: 95 % interval of Dice over validation cases{over_seeds(points[with_interval])}{others}."
        yield from interval_cautions(points[with_interval])
    elif (high > low).any():
        yield "Bars: lowest to highest of the averaged folds and seeds."


def over_seeds(points: pd.DataFrame) -> str:
    """Whether intervals know of other trainings: `, not over seeds` after what they are over."""
    several = int(points["training_sd"].notna().sum())
    if several == len(points):
        return " and over seeds"
    return f", and over seeds of {several} of {len(points)} points" if several else ", not over seeds"


def interval_cautions(points: pd.DataFrame) -> Iterator[str]:
    """Whose intervals hold the truth less often than 95 % of the time, by the cases at hand; else what they rest on."""
    reasons = [
        cautions(int(row["n_cases"]), float(row["case_skewness"]), int(row["n_zero_cases"]))
        for _, row in points.iterrows()
    ]
    first = next((found for found in reasons if found), None)
    if first:
        number = sum(map(bool, reasons))
        yield f"Less than 95 % is covered by {number} of {counted(len(points), 'interval')}: {'; '.join(first)}."
    spared = points[points["n_zero_cases"] == 0]
    if len(spared):
        fewest = int(spared["n_cases"].min())
        yield (
            f"Without a case of Dice 0 among {fewest}, up to {unseen_failures(fewest):.1%} of cases may still fail "
            "(95 % bound): no interval knows of those."
        )


def _number_of(cells: pd.Series[str]) -> int:
    return len({word for cell in cells for word in cell.split()})

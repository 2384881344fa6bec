"""The words of fronts and reports: titles, what they rest on, what to beware of, how to read them.

What a report rests on: how many trials in which state, folds, seeds, hardware, versions, what is estimated. What a
reader must know before trusting a front: mixed hardware, estimated energy, unequal folds, points left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.fronts.front import Front
from analysis.statistics.intervals import cautions, dice_bars, unseen_failures
from analysis.tables.columns import BY_NAME, Objective
from analysis.tables.contention import sentences as contention
from analysis.tables.format import Scale, amount, counted, number, reading_scale
from analysis.tables.frame import FINISHED
from analysis.tables.methods import IMPORTED
from analysis.tables.sources import NO_EMBODIED_CARBON, carbon_range

_MOSTLY = 0.5
# What makes seconds and energy of two trials comparable, and how to say that it differs.
_SAME_MACHINE = {
    "hardware": "different hardware",
    "cpus": "different shares of the CPUs",
    "gpus": "different shares of the GPUs",
    "concurrent_trials": "different numbers of trials on the machine at once",
}


def caveats(front: Front) -> list[str]:
    """Sentences about the points that a front compares; none when there is nothing to say."""
    sentences: dict[str, None] = {}
    for _, points in front.points.groupby("dataset"):
        sentences |= dict.fromkeys(_about_imports(points, front.objectives))
        sentences |= dict.fromkeys(_about_machines(points, front.objectives))
        sentences |= dict.fromkeys(contention(points) if any(o.machine_bound for o in front.objectives) else ())
        sentences |= dict.fromkeys(_about_energy(points, front.objectives))
        sentences |= dict.fromkeys(_about_folds(points))
        sentences |= dict.fromkeys(_about_plans(points, front.objectives))
    return list(sentences)


def left_out(front: Front) -> list[str]:
    """Sentences about the points that have no place on this front, by objective."""
    missing = {name: count for name, count in front.dropped.items() if count}
    return [f"{counted(count, 'point')} left out, without a value for {name}." for name, count in missing.items()]


def _about_imports(points: pd.DataFrame, objectives: Sequence[Objective]) -> Iterator[str]:
    imported = points[points["method"] == IMPORTED]
    if len(imported) and any(o.machine_bound for o in objectives):
        summaries = ", ".join(imported["summary"])
        yield f"Not trained here: {summaries}. Time is by nnU-Net's log, what else ran there is not known."


def _about_machines(points: pd.DataFrame, objectives: Sequence[Objective]) -> Iterator[str]:
    mixed = [words for name, words in _SAME_MACHINE.items() if _values(points, name) > 1]
    if mixed and any(o.machine_bound for o in objectives):
        yield f"Measured on {', '.join(mixed)}: seconds and energy of such points cannot be compared as they stand."
    rates = _values(points, "carbon_rate")
    if rates > 1 and any(o.is_carbon for o in objectives):
        yield f"CO₂ rests on {rates} different grid intensities."


def _about_energy(points: pd.DataFrame, objectives: Sequence[Objective]) -> Iterator[str]:
    if any(o.is_energy for o in objectives):
        parts = estimated_parts(points["energy_methods"])
        if parts:
            meters = ", ".join(sorted(words_of(points["meter"])))
            yield f"Energy of {' and '.join(parts)} is estimated, not measured ({meters})."

        yield from constant_share(points)
        yield from _unmeasured(points)


def constant_share(points: pd.DataFrame) -> Iterator[str]:
    """Said where most of the energy is a model of a constant wattage: it then tells no more than the time does."""
    known = points.dropna(subset=["energy_kwh", "constant_energy_kwh"])
    share = known["constant_energy_kwh"].sum() / known["energy_kwh"].sum() if known["energy_kwh"].sum() else 0.0
    if share <= _MOSTLY:
        return
    enough = len(known) > 2 and known["runtime_seconds"].nunique() > 1
    correlation = known["runtime_seconds"].corr(known["energy_kwh"]) if enough else float("nan")
    with_time = "" if pd.isna(correlation) else f" (correlation with the runtime over the points: {correlation:.2f})"
    yield (
        f"{share:.0%} of the energy is modelled as a constant wattage (RAM, idle CPU), so CO₂ is runtime in other units"
        f"{with_time}; gpu_energy_kwh is the GPU's alone."
    )


def _unmeasured(points: pd.DataFrame) -> Iterator[str]:
    for reason in sorted(words_of(points["unmeasured"])):
        yield f"Energy not measured in some trials: {reason}."


def _about_folds(points: pd.DataFrame) -> Iterator[str]:
    single = int((points["n_folds"] == 1).sum())
    if single == len(points) and single:
        yield "Every point rests on one fold (hollow): differences may be chance."
    elif single:
        yield f"Resting on one fold (hollow): {single} of {len(points)} points, whose differences may be chance."
    if points["folds"].nunique() > 1:
        yield "Points rest on different folds, whose Dice differ by themselves."


def _about_plans(points: pd.DataFrame, objectives: Sequence[Objective]) -> Iterator[str]:
    if points["plans"].nunique() > 1 and any(o.name == "voxel_share" for o in objectives):
        yield "A voxel share is of the plan's own constant patch size: those of different plans do not compare."


def estimated_parts(methods: pd.Series[str]) -> list[str]:
    """Parts of the machine whose energy is estimated, out of the `energy_methods` column."""
    parts = {part for words in words_of(methods) for part in words.split(", ")}
    return sorted(part.split()[0].upper() for part in parts if " estimated" in part)


def _values(points: pd.DataFrame, name: str) -> int:
    return len(words_of(points[name]))


def words_of(column: pd.Series[str]) -> set[str]:
    """The different values of a column in which a cell may hold several, separated by ` | `."""
    return {word for cell in column.dropna() for word in cell.split(" | ") if word}


# Order of states in sentences.
_STATES = ("finished", "running", "interrupted", "stopped", "infeasible", "failed", "unreadable", "new")


def basis(trials: pd.DataFrame, points: pd.DataFrame) -> list[tuple[str, str]]:
    """Facts about the trials of a report, as pairs of heading and sentence; those without an answer are left out."""
    facts = [
        ("Studies", ", ".join(sorted(set(trials["study"])))),
        ("Trials", states(trials)),
        ("Configurations", f"{len(points)} with a finished trial" if len(points) else ""),
        ("Datasets", ", ".join(sorted(words_of(trials["dataset"])))),
        ("Remarks", "; ".join(sorted(words_of(trials["remarks"])))),
        ("Folds", _folds(trials, points)),
        ("Seeds", _numbers(trials["seed"])),
        ("Hardware", ", ".join(sorted(words_of(trials["hardware"])))),
        ("Energy", _energy(trials)),
        ("Grid", _grid(trials)),
        ("Cost of everything", _whole_cost(trials)),
        ("CO₂ elsewhere", _elsewhere(trials)),
        ("Attempts", _attempts(trials)),
        ("Versions", "; ".join(sorted(words_of(trials["versions"])))),
    ]
    return [(heading, sentence) for heading, sentence in facts if sentence]


def states(trials: pd.DataFrame) -> str:
    """`12 trials: 10 finished, 2 failed`."""
    counts = trials["state"].value_counts()
    parts = [f"{counts[state]} {state}" for state in _STATES if state in counts]
    return f"{counted(len(trials), 'trial')}: {', '.join(parts)}" if parts else "no trials"


def energy_source(trials: pd.DataFrame) -> str:
    """How energy was read: `codecarbon 3.3.2: cpu estimated, gpu absent, ram estimated`; empty when nothing ran."""
    pairs = trials[["meter", "energy_methods"]].dropna().drop_duplicates()
    return "; ".join(
        f"{'no meter' if meter == 'none' else meter}: {methods}" for meter, methods in pairs.itertuples(index=False)
    )


def _energy(trials: pd.DataFrame) -> str:
    source = energy_source(trials)
    parts = estimated_parts(trials["energy_methods"])
    return f"{source}. Estimated parts are models, not readings: {', '.join(parts)}." if parts else source


def _grid(trials: pd.DataFrame) -> str:
    measured = trials[trials["total_co2_kg"].notna()]
    pairs = measured[["country", "carbon_rate"]].dropna().drop_duplicates()
    return "; ".join(f"{country} grid: {rate}" for country, rate in pairs.itertuples(index=False))


def _whole_cost(trials: pd.DataFrame) -> str:
    seconds = trials["total_seconds"].sum()
    if not seconds:
        return ""
    waste = trials["waste_seconds"].sum()
    lost = f", of which {amount(waste, 's')} lost to interruptions" if waste else ""
    energies = [_sum(trials, name, unit) for name, unit in (("total_energy_kwh", "kWh"), ("total_co2_kg", "kg"))]
    unfinished = trials.loc[trials["state"] != FINISHED, "total_seconds"].sum()
    vain = f", {amount(unfinished, 's')} in trials without a result" if unfinished else ""
    return f"{amount(seconds, 's')} of trials{lost}{vain}; energy {energies[0]}; CO₂ {energies[1]}"


def _elsewhere(trials: pd.DataFrame) -> str:
    energy = trials["total_energy_kwh"].sum()
    return f"{carbon_range(energy)} for the same energy. {NO_EMBODIED_CARBON}" if energy else ""


def _sum(trials: pd.DataFrame, name: str, unit: str) -> str:
    ran = trials[trials["total_seconds"].notna()]
    missing = int(ran[name].isna().sum())
    if missing == len(ran):
        return "not measured"
    total = amount(ran[name].sum(), unit)
    return f"more than {total} (not measured in {counted(missing, 'trial')})" if missing else total


def _folds(trials: pd.DataFrame, points: pd.DataFrame) -> str:
    """The folds of all trials, and of how many configurations some are not finished."""
    told = _numbers(trials["fold"])
    lacking = 0
    for dataset, part in points.groupby("dataset"):
        folds = trials.loc[trials["dataset"] == dataset, "fold"].nunique()
        lacking += int((part["n_folds"] < folds).sum())
    return f"{told}; {counted(lacking, 'configuration')} not finished on all of them" if lacking else told


def _attempts(trials: pd.DataFrame) -> str:
    """Said where a trial took several."""
    several = int((trials["attempts"] > 1).sum())
    if not several:
        return ""
    return f"{int(trials['attempts'].sum())} for {counted(len(trials), 'trial')}: {several} resumed or tried again"


def _numbers(values: pd.Series[int]) -> str:
    numbers: Sequence[int] = sorted(set(values.dropna()))
    return ", ".join(map(str, numbers))


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
    from analysis.figures.style import MANY_FOLDS

    sentences = [*caveats(front), *left_out(front), *_about_bars(front.points)]
    if front.by == "hardware":
        sentences.append("Each line is the front of one kind of hardware: compare costs within it.")
    if (front.points["n_folds"] >= MANY_FOLDS).any():
        sentences.append(f"A ring: {MANY_FOLDS} folds or more.")
    if drawn_floor(front.points) > 0:
        sentences.append("The Dice axis does not start at 0.")
    return sentences


def drawn_floor(points: pd.DataFrame) -> float:
    """Where the Dice axis of some points with their bars starts."""
    from analysis.figures.style import dice_floor  # with matplotlib, which words do without

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
    # The most skewed of those with the fewest cases last: what is said of all is true at worst of that one.
    skew = points["case_skewness"].abs().fillna(0.0)
    ordered = points.assign(skew=skew).sort_values(["n_cases", "skew"], ascending=[False, True])
    cells = zip(ordered["n_cases"], ordered["case_skewness"], ordered["n_zero_cases"], strict=True)
    reasons = [found for count, skew, zeros in cells if (found := cautions(int(count), float(skew), int(zeros)))]
    if reasons:
        told = f"{len(reasons)} of {counted(len(points), 'interval')}"
        yield f"Less than 95 % is covered by {told}, at worst: {'; '.join(reasons[-1])}."
    spared = points[points["n_zero_cases"] == 0]
    if len(spared):
        fewest = int(spared["n_cases"].min())
        yield (
            f"Without a case of Dice 0 among {fewest}, up to {unseen_failures(fewest):.1%} of cases may still fail "
            "(95 % bound): no interval knows of those."
        )


def _number_of(cells: pd.Series[str]) -> int:
    return len({word for cell in cells for word in cell.split()})

"""What a reader must know before trusting a front: mixed hardware, estimated energy, unequal folds, points left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.contention import sentences as contention
from analysis.front import Front
from analysis.objectives import Objective
from analysis.units import counted

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
        sentences |= dict.fromkeys(_about_machines(points, front.objectives))
        sentences |= dict.fromkeys(contention(points) if any(o.machine_bound for o in front.objectives) else ())
        sentences |= dict.fromkeys(_about_energy(points, front.objectives))
        sentences |= dict.fromkeys(_about_folds(points))
    return list(sentences)


def left_out(front: Front) -> list[str]:
    """Sentences about the points that have no place on this front, by objective."""
    missing = {name: count for name, count in front.dropped.items() if count}
    return [f"{counted(count, 'point')} left out, without a value for {name}." for name, count in missing.items()]


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


def estimated_parts(methods: pd.Series[str]) -> list[str]:
    """Parts of the machine whose energy is estimated, out of the `energy_methods` column."""
    parts = {part for words in words_of(methods) for part in words.split(", ")}
    return sorted(part.split()[0].upper() for part in parts if " estimated" in part)


def _values(points: pd.DataFrame, name: str) -> int:
    return len(words_of(points[name]))


def words_of(column: pd.Series[str]) -> set[str]:
    """The different values of a column in which a cell may hold several, separated by ` | `."""
    return {word for cell in column.dropna() for word in cell.split(" | ") if word}

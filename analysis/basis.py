"""What a report rests on: how many trials in which state, folds, seeds, hardware, versions, what is estimated."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.caveats import estimated_parts, words_of
from analysis.frame import FINISHED
from analysis.grid import NO_EMBODIED_CARBON, carbon_range
from analysis.units import amount, counted

# Order of states in sentences.
_STATES = ("finished", "running", "interrupted", "infeasible", "failed", "unreadable", "new")


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
    return "; ".join(f"{_meter(meter)}: {methods}" for meter, methods in pairs.itertuples(index=False))


def _meter(name: str) -> str:
    return "no meter" if name == "none" else name


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

"""Sentences about the machines behind some points, wherever their seconds, energy or CO₂ are shown side by side."""

from __future__ import annotations

import pandas as pd

from analysis.caveats import estimated_parts, words_of
from analysis.contention import sentences as contention

_SHARES = {"cpus": "CPUs", "gpus": "GPUs"}


def about_machines(points: pd.DataFrame, *, energy: bool = True) -> list[str]:
    """What keeps costs of these points from being compared, and, with `energy`, which energy is estimated."""
    sentences = []
    hardware = sorted(words_of(points["hardware"]))
    if len(hardware) > 1:
        sentences.append(
            f"Different hardware, whose runtime, energy and CO₂ do not compare as they stand: {', '.join(hardware)}."
        )
    shares = [words for name, words in _SHARES.items() if len(words_of(points[name])) > 1]
    if shares:
        sentences.append(f"Trials had different shares of the {' and '.join(shares)}, which changes their runtime.")
    if len(words_of(points["concurrent_trials"])) > 1:
        sentences.append("Different numbers of trials ran at once on the machine, which changes their runtime.")
    sentences += contention(points)
    parts = estimated_parts(points["energy_methods"]) if energy else []
    if parts and points["energy_kwh"].notna().any():
        sentences.append(f"Energy of {' and '.join(parts)} is estimated, not measured.")
    return sentences

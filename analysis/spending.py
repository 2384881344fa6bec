"""What a training had spent when it reached an iteration, without work done again: the cost axis of its curve."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from study.costs import Entry
from study.records import TRAINING_PHASES


def spent_by(iterations: Sequence[int], priced: Sequence[Entry]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Energy in kWh and CO₂ in kg of the training loop up to each of some iterations; NaN where it was not measured.

    Args:
        iterations: of the whole training.
        priced: a trial's cost intervals. One that an iteration cuts counts by the share of its iterations before it.
    """
    kept = sorted(_kept(entry) for entry in priced if entry.interval.phase in TRAINING_PHASES and _share(entry) > 0)
    return _sums(iterations, kept, 2), _sums(iterations, kept, 3)


def _kept(entry: Entry) -> tuple[float, float, float, float]:
    """The part that was not done again: iteration after its last, its first, kWh, kg."""
    share, interval = _share(entry), entry.interval
    stop = interval.iteration_start + share * (interval.iteration_stop - interval.iteration_start)
    kwh, kg = (share * _amount(amount) for amount in (entry.charge.energy_kwh, entry.charge.co2_kg))
    return stop, interval.iteration_start, kwh, kg


def _sums(iterations: Sequence[int], kept: Sequence[tuple[float, ...]], column: int) -> NDArray[np.float64]:
    if not kept:
        return np.full(len(iterations), np.nan)
    stops = np.array([row[0] for row in kept])
    before = np.array([0.0, *accumulate(row[column] for row in kept)])
    whole = np.searchsorted(stops, iterations, side="right")
    sums = before[whole]
    for position, (index, iteration) in enumerate(zip(whole, iterations, strict=True)):
        if index < len(kept):
            stop, start = kept[index][:2]
            sums[position] += kept[index][column] * max(0.0, iteration - start) / max(1.0, stop - start)
    return sums


def _share(entry: Entry) -> float:
    seconds = entry.charge.seconds
    return 1.0 - entry.waste.seconds / seconds if seconds else 1.0


def _amount(value: float | None) -> float:
    return float("nan") if value is None else value

"""Whether the same work took the same time: seconds of the iterations of one shape, in the trials that trained it.

A shape is what makes an iteration the same work on the same machine: dataset, plans, configuration, patch and batch
size, hardware, device. The pace of a trial is its time over what the same iterations take at the median over the
trials. The analysis says the same of its tables (`analysis.tables.contention`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from study.store.records import AttemptHeader, CostInterval, Phase
from study.store.specification import TrialSpec

NOTED_SPREAD = 0.15
"""From this spread between trials of the same work on, every comparison of times says so."""
LEAST_ITERATIONS = 10
"""Of a shape, that a trial must have trained for its time to count: the first ones of a process take longer."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Iterations of one shape in one trial, done again ones included, and the seconds they took."""

    seconds: float = 0.0
    iterations: int = 0


def works(
    spec: TrialSpec, attempts: Sequence[AttemptHeader], intervals: Iterable[CostInterval]
) -> dict[tuple[object, ...], Work]:
    """Shape -> what a trial trained of it; a curriculum that draws a size for each iteration has one shape."""
    hardware = frozenset((header.cpu_name, header.gpu_names, header.device) for header in attempts)
    sizes = [(stage.patch_size, stage.batch_size) for stage in spec.curriculum.stages]
    place = (spec.dataset, spec.plans, spec.configuration, hardware)
    parts: dict[object, list[CostInterval]] = defaultdict(list)
    for interval in intervals:
        if interval.phase is Phase.TRAINING:
            parts[tuple(sizes) if interval.stage is None else sizes[interval.stage]].append(interval)
    found = {(*place, shape): _work(mine) for shape, mine in parts.items()}
    return {key: work for key, work in found.items() if work.iterations >= LEAST_ITERATIONS}


def _work(intervals: Sequence[CostInterval]) -> Work:
    iterations = sum(interval.iteration_stop - interval.iteration_start for interval in intervals)
    return Work(seconds=sum((interval.seconds for interval in intervals), start=0.0), iterations=iterations)


def spread(trials: Iterable[Mapping[tuple[object, ...], Work]]) -> float:
    """How much longer the slowest of some trials took for the same work than the fastest; 0 where it is not known."""
    trials = list(trials)
    rates: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for trial in trials:
        for shape, work in trial.items():
            rates[shape].append(work.seconds / work.iterations)
    usual = {shape: median(found) for shape, found in rates.items() if len(found) > 1}
    paces: list[float] = []
    for trial in trials:
        shared = {shape: work for shape, work in trial.items() if shape in usual}
        if expected := sum(work.iterations * usual[shape] for shape, work in shared.items()):
            paces.append(sum(work.seconds for work in shared.values()) / expected)
    slowest, fastest = max(paces, default=0.0), min(paces, default=0.0)
    return slowest / fastest - 1 if fastest else 0.0


def words(spread: float) -> str:
    """What to say beside times of such a spread, nothing while the same work took the same time."""
    if spread <= NOTED_SPREAD:
        return ""
    return (
        f"The same work (patch, batch, hardware) took up to {1 + spread:.2f} times as long in one trial as in another, "
        "so times, ratios and CO₂ are no surer than that"
    )

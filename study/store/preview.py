"""What a trial will cost, from what others of the same network took on the same hardware.

An iteration of a shape (patch, batch) takes what it took over all trials that trained it. Shapes that were trained for
a few seconds lean on a curve through all of them, and one that nobody trained lies on it: a constant, so much a sample
and so much a voxel, all at least 0. Validation batches, the set-up and the final validation count by themselves.

A training on one core is as slow as its neighbours make it, but its own CPU seconds are not: there a shape is known by
those, and all of them are stretched alike, by the median of seconds over CPU seconds. With more cores, and on a GPU,
the seconds themselves are taken.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from study.common.terminal import time_left
from study.store.specification import TrialSpec
from study.store.taken import Part, Shape, Trained, sum_of, validation_batches, voxels_of

Amounts = tuple[float, float | None, float | None]
"""Seconds, kWh, kg CO2; None is unmeasured."""
# A shape that was trained for so long is half its own, half the curve's.
_OWN_SECONDS = 10.0
_SHRINKAGE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a trial will take; None is unmeasured.

    Attributes:
        amounts: seconds, kWh and kg CO2 of the training loop.
        around: of set-up and final validation, None where nothing says.
        placed: how many of its shapes nothing has trained, so that they are placed by the curve.
    """

    amounts: Amounts
    around: Amounts | None
    placed: int

    @property
    def total(self) -> Amounts:
        """The training loop, and what is known of the rest."""
        return self.amounts if self.around is None else sum_of_amounts([(self.amounts, 1), (self.around, 1)])


class Rates:
    """What a unit of each kind of work takes.

    Args:
        known: what counts, at least one.
        filling: gives what none of them has, at the pace of `known` where they share shapes.

    Attributes:
        stretch: seconds that a CPU second takes, None where CPU seconds do not count.
        parts: what iterations of each shape took.
        validation, setup, final: a validation batch, a set-up, a final validation with and without mirroring.
    """

    def __init__(self, known: Sequence[Trained], filling: Sequence[Trained] = ()) -> None:
        stretches = [w.seconds / w.cpu_seconds for each in known if (w := each.whole) is not None and w.cpu_seconds]
        stretch = self.stretch = median(stretches) if stretches else None
        own, others = _pooled(known, stretch), _pooled(filling, None)
        pace = median([_each(own[shape]) / _each(others[shape]) for shape in own.keys() & others.keys()] or [1.0])
        self.parts = {**{shape: _times(part, pace) for shape, part in others.items()}, **own}
        self._lines = [_line(self.parts, kind) for kind in range(3)]
        both = [*known, *filling]
        self.validation = _median(each.validation and each.validation.stretched(stretch) for each in both)
        self.setup = _median(each.setup for each in both)
        self.final = {how: _median(each.final for each in both if each.mirroring is how) for how in (True, False)}

    def preview(self, spec: TrialSpec) -> Preview:
        """Of a trial of the same network."""
        shapes = [((s.patch_size, s.batch_size), s.iterations) for s in spec.curriculum.stages if s.iterations]
        rows = [(self._rate(shape), iterations) for shape, iterations in shapes]
        batches = validation_batches(spec)
        if batches and self.validation is not None:
            rows.append((self.validation, batches))
        ends = [end for end in (self.setup, self.final[spec.training.predicts_mirrored]) if end is not None]
        return Preview(
            amounts=sum_of_amounts(rows),
            around=sum_of_amounts([(end, 1) for end in ends]) if len(ends) == 2 else None,
            placed=sum(shape not in self.parts for shape, _ in shapes),
        )

    def _rate(self, shape: Shape) -> Amounts:
        """Of an iteration: its own rates and the curve's, by how long it was trained."""
        part = self.parts.get(shape)
        seconds, energy, carbon = (line(shape) for line in self._lines)
        if part is None:
            return seconds or 0.0, energy, carbon
        weight = part.seconds / (part.seconds + _OWN_SECONDS)
        own = _of_one(part)
        seconds, energy, carbon = map(partial(_between, weight), own, (seconds, energy, carbon))
        return seconds or 0.0, energy, carbon


def _pooled(known: Sequence[Trained], stretch: float | None) -> dict[Shape, Part]:
    parts: dict[Shape, list[Part]] = defaultdict(list)
    for each in known:
        for shape, part in each.shapes.items():
            parts[shape].append(part.stretched(stretch))
    return {shape: sum_of(mine) for shape, mine in parts.items()}


def _each(part: Part) -> float:
    return part.seconds / part.count


def _of_one(part: Part) -> Amounts:
    energy, carbon = (None if value is None else value / part.count for value in (part.energy_kwh, part.co2_kg))
    return _each(part), energy, carbon


def _times(part: Part, factor: float) -> Part:
    energy, carbon = (None if value is None else value * factor for value in (part.energy_kwh, part.co2_kg))
    return replace(part, seconds=part.seconds * factor, energy_kwh=energy, co2_kg=carbon)


def _median(parts: Iterable[Part | None]) -> Amounts | None:
    """Of one unit, the median over trials; None where none has it."""
    columns = list(zip(*(_of_one(part) for part in parts if part is not None), strict=True))
    if not columns:
        return None
    seconds, energy, carbon = (
        median(measured) if (measured := [value for value in column if value is not None]) else None
        for column in columns
    )
    return seconds or 0.0, energy, carbon


def sum_of_amounts(rows: Sequence[tuple[Amounts, float]]) -> Amounts:
    """Rates times counts; a part unmeasured in one is unmeasured in the sum."""
    columns = zip(*(amounts for amounts, _ in rows), strict=True)
    counts = [count for _, count in rows]
    seconds, energy, carbon = (
        None if None in column else math.fsum((value or 0.0) * n for value, n in zip(column, counts, strict=True))
        for column in columns
    )
    return seconds or 0.0, energy, carbon


def _between(weight: float, own: float | None, curve: float | None) -> float | None:
    if not own or not curve:
        return own if own is not None else curve
    return math.exp(weight * math.log(own) + (1 - weight) * math.log(curve))


def _line(parts: Mapping[Shape, Part], kind: int) -> Callable[[Shape], float | None]:
    """A constant, a rate by samples and one by voxels through what iterations took, by relative errors.

    Shapes count by the time they were trained. What too few of them leave open goes to the voxels, and of samples
    nothing is known while all have as many.
    """
    import numpy as np
    from scipy.optimize import nnls

    rows = [(shape, rate, part.seconds) for shape, part in parts.items() if (rate := _of_one(part)[kind])]
    if not rows:
        return lambda shape: None
    work = np.array([_work(shape) for shape, _, _ in rows])
    work[:, 1] *= np.ptp(work[:, 1]) > 0
    scale, rates = np.maximum(work.max(axis=0), 1.0), np.array([rate for _, rate, _ in rows])
    weights = np.sqrt([seconds / (seconds + _OWN_SECONDS) for _, _, seconds in rows])
    scaled_work = work / scale / rates[:, None] * weights[:, None]
    weak = _SHRINKAGE * np.diag(scaled_work.max(axis=0))
    found, _ = nnls(np.vstack([scaled_work, weak]), np.append(weights, [0.0, 0.0, _SHRINKAGE]))
    return lambda shape: float(np.array(_work(shape)) / scale @ found)


def _work(shape: Shape) -> tuple[float, float, float]:
    return 1.0, float(shape[1]), float(voxels_of(shape))


def amounts_words(amounts: Amounts, interval: tuple[float, float] | None = None) -> str:
    """Seconds, kWh and kg CO2, and between what the seconds lie."""
    seconds, energy, carbon = amounts
    between = "" if interval is None else " ({} to {})".format(*(time_left(seconds * factor) for factor in interval))
    told = [f"{time_left(seconds)}{between}"]
    told.append("energy not measured" if energy is None else f"{energy:.3g} kWh")
    told.append("CO2 not measured" if carbon is None else f"{carbon:.3g} kg CO2")
    return ", ".join(told)

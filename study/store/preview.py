"""What a trial will cost, from what others of the same network took on the same hardware.

An iteration of a shape (patch, batch) takes what it took over all trials that trained it. Shapes that were trained for
a few seconds lean on a curve through all of them, and one that nobody trained lies on it: a constant, so much a sample
and so much a voxel, all at least 0. Validation batches, the set-up and the final validation count by themselves.

A training on one core is as slow as its neighbours make it, but its own CPU seconds are not: there a shape is known by
those, and all of them are stretched alike, by the median of seconds over CPU seconds. With more cores, and on a GPU,
the seconds themselves are taken.

What previews of a network rest on: finished trials, a calibration, or both; and how far they may be off.

From `LEAST_FOR_ERRORS` finished trials on they count, and a calibration gives the sizes that none of them trained; with
fewer it is the other way round. How far to trust it is measured, not assumed: each finished trial is predicted from the
others. Hardware and plans must be the same: no number is carried from one kind of card to another.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from statistics import median, quantiles

from study.common.errors import InvalidInputError
from study.common.terminal import time_left
from study.store.audit import read_trial
from study.store.calibration import Calibration, network_of
from study.store.ledger import Ledger
from study.store.specification import TrialSpec
from study.store.taken import LEAST_ITERATIONS, Part, Shape, Trained, sum_of, validation_batches, voxels_of
from study.store.trial_folder import TrialState

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


# From so many trials on they count before a calibration, and their errors say how far a prediction may be off.
LEAST_FOR_ERRORS = 4
# More trials say no more; each of them is read, and predicted from all the others.
MOST_TRIALS = 100


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What previews of one network on one kind of hardware rest on: at least one finished trial, or a calibration.

    Attributes:
        trained: finished trials; calibrated: a calibration, as one.
        spread: of that, how much quicker and slower its stretches were than their median, as factors.
    """

    trained: tuple[Trained, ...] = ()
    calibrated: Trained | None = None
    spread: tuple[float, float] = (1.0, 1.0)

    @property
    def by_trials(self) -> bool:
        """Whether finished trials count, and the calibration fills in."""
        return self.calibrated is None or len(self.trained) >= LEAST_FOR_ERRORS

    @property
    def hardware(self) -> str:
        return (self.calibrated or self.trained[0]).hardware

    @cached_property
    def rates(self) -> Rates:
        return self._rates(self.trained)

    def preview(self, spec: TrialSpec) -> Preview:
        """Of a trial of this network."""
        return self.rates.preview(spec)

    def _rates(self, trained: Sequence[Trained]) -> Rates:
        calibrated = [] if self.calibrated is None else [self.calibrated]
        return Rates(trained, calibrated) if self.by_trials else Rates(calibrated, trained)

    @cached_property
    def factors(self) -> list[tuple[float, float | None, float | None]]:
        """What each finished trial took over what the others predict of it: seconds of the loop, kWh, CPU seconds."""
        found = []
        for place, each in enumerate(self.trained):
            others = [*self.trained[:place], *self.trained[place + 1 :]]
            timed = self.calibrated or any(other.shapes for other in others)
            if each.spec is not None and each.whole is not None and timed:
                rates = self._rates(others)
                seconds, energy, _ = rates.preview(each.spec).amounts
                taken = each.whole.energy_kwh, each.whole.cpu_seconds
                predicted = energy, rates.stretch and seconds / rates.stretch
                of_energy, of_cpu = (a / b if a and b else None for a, b in zip(taken, predicted, strict=True))
                found.append((each.whole.seconds / seconds, of_energy, of_cpu))
        return found

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Factors between which eight in ten predictions are off, None while too little is known to say."""
        found = [seconds for seconds, *_ in self.factors]
        if len(found) >= LEAST_FOR_ERRORS:
            tenths = quantiles(found, n=10, method="inclusive")
            return min(1.0, tenths[0]), max(1.0, tenths[-1])
        return None if self.by_trials else self.spread

    def words(self) -> str:
        """What previews rest on and how far they may be off, as a sentence."""
        number = f"{len(self.trained)} finished trial{'' if len(self.trained) == 1 else 's'}"
        basis = number if self.by_trials else "a calibration (one training alone on the machine)"
        if self.by_trials and self.calibrated is not None:
            basis += " and, for sizes they lack, a calibration"
        told = f"by {basis} on {self.hardware}"
        if len(self.factors) < LEAST_FOR_ERRORS:
            return f"{told}; too few finished trials to say how far it is off (from {LEAST_FOR_ERRORS} on)"
        columns = zip(("seconds", "kWh", "its own CPU seconds"), zip(*self.factors, strict=True), strict=True)
        off = [f"{_off(column)} in {name}" for name, column in columns if None not in column]
        return f"{told}; each of them predicted from the others was off by {', '.join(off)}"


def _off(factors: Iterable[float | None]) -> str:
    shares = sorted(abs(1 / factor - 1) for factor in factors if factor)
    return f"{median(shares):.1%} (median) and {quantiles(shares, n=10, method='inclusive')[-1]:.1%} (p90)"


def trained_in(ledgers: Iterable[Ledger], network: Sequence[str]) -> list[Trained]:
    """Finished trials of a network, the first `MOST_TRIALS`.

    Raises:
        LedgerError: a trial is unreadable.
    """
    folders = (folder for ledger in ledgers for folder in ledger.trials() if folder.state() is TrialState.FINISHED)
    found = (Trained.of(read_trial(folder)) for folder in folders)
    return list(islice((each for each in found if each and each.network == tuple(network)), MOST_TRIALS))


def basis_for(
    spec: TrialSpec,
    trained: Sequence[Trained],
    calibrations: Sequence[Calibration],
    *,
    hardware: str | None,
    remedy: str,
    kg_per_kwh: float | None = None,
) -> Basis:
    """What previews of a trial rest on.

    Args:
        spec: of the trial.
        trained: finished trials, of any network and hardware.
        calibrations: likewise.
        hardware: that it would be trained on; None where that is not known here, and one kind alone is taken.
        remedy: what to run where nothing is left.
        kg_per_kwh: of its grid and data centre, for what was calibrated.

    Raises:
        InvalidInputError: nothing is left, in one line why.
    """
    network = network_of(spec)
    ready = [(Trained.calibrated(each, kg_per_kwh=kg_per_kwh), each) for each in calibrations]
    found = [each for each in (*trained, *(timed for timed, _ in ready)) if each.network == network]
    same = [each for each in found if each.plans_sha256 == spec.plans_sha256]
    kinds = sorted({each.hardware for each in same})
    fitting = [each for each in same if hardware in (None, each.hardware)]
    if not same:
        received = "those of other plans of that name" if found else "none"
        legal = f"finished trials or a calibration of {' '.join(network)}"
        raise InvalidInputError(field="costs", received=received, legal=legal, remedy=remedy)
    if not fitting or (hardware is None and len(kinds) > 1):
        legal = f"those of {hardware or 'one kind of hardware'}"
        raise InvalidInputError(field="costs", received=f"those of {'; '.join(kinds)}", legal=legal, remedy=remedy)
    if not any(each.shapes for each in fitting):
        received, legal = "trials that are too short", f"{LEAST_ITERATIONS} iterations of a size in one of them"
        raise InvalidInputError(field="costs", received=received, legal=legal, remedy=remedy)
    timed = [(timed, each) for timed, each in ready if timed in fitting]
    newest, measured = max(timed, key=lambda pair: pair[1].taken_at, default=(None, None))
    return Basis(
        trained=tuple(each for each in fitting if each.spec is not None),
        calibrated=newest,
        spread=(1.0, 1.0) if measured is None else _spread(measured),
    )


def _spread(found: Calibration) -> tuple[float, float]:
    """Of the stretches of a shape, over its shapes at the median."""
    low, high = zip(*((s.low_seconds / s.seconds, s.high_seconds / s.seconds) for s in found.shapes), strict=True)
    return median(low), median(high)

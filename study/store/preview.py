"""What trainings will cost before they are begun, from what trainings of the same plan on the same hardware did cost.

An iteration of a shape (patch, batch) takes the median of the seconds, kWh and kg CO2 that finished trials took for it.
A shape that none has trained is placed by its voxels: a constant and a rate, both at least 0, through all shapes that
were. Validation batches of an epoch are counted by themselves. How far to trust it is measured, not assumed: each
finished trial is predicted from the others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median, quantiles

from study.common.errors import InvalidInputError
from study.curriculum.chain import Size
from study.store.audit import Records, read_trial
from study.store.costs import Charge, bill, total
from study.store.ledger import Ledger
from study.store.pace import LEAST_ITERATIONS
from study.store.records import Phase
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialState

Shape = tuple[Size, int]
Amounts = tuple[float, float | None, float | None]
"""Seconds, kWh, kg CO2; None is unmeasured."""
# From so many trials on their errors say how far a prediction may be off.
LEAST_FOR_ERRORS = 4
# More trials say no more; each of them is read, and predicted from all the others.
MOST_TRIALS = 100


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a finished trial took.

    Attributes:
        spec: what it trained; hardware: on what, in words.
        shapes: of an iteration, for each shape trained often enough to tell.
        validation: of a validation batch.
        whole: of its training loop.
    """

    spec: TrialSpec
    hardware: str
    shapes: dict[Shape, Amounts]
    validation: Amounts | None
    whole: Amounts

    @classmethod
    def of(cls, records: Records) -> Trained | None:
        """Of a trial that has finished on one kind of hardware, else None."""
        hardware = {f"{h.device}: {', '.join(h.gpu_names) or h.cpu_name}, {h.cpus:g} CPUs" for h in records.attempts}
        if records.result is None or len(hardware) != 1:
            return None
        found = bill(records.attempts, records.intervals)
        parts: dict[Shape, list[tuple[Charge, int]]] = defaultdict(list)
        for entry in found.entries:
            interval = entry.interval
            if interval.phase is Phase.TRAINING and interval.stage is not None:
                stage = records.spec.curriculum.stages[interval.stage]
                iterations = interval.iteration_stop - interval.iteration_start
                parts[stage.patch_size, stage.batch_size].append((entry.charge, iterations))
        validating = [entry.charge for entry in found.entries if entry.interval.phase is Phase.ONLINE_VALIDATION]
        batches = records.spec.training.epochs * records.spec.training.validation_batches
        return cls(
            spec=records.spec,
            hardware=hardware.pop(),
            shapes={shape: _rate(rows) for shape, rows in parts.items() if sum(n for _, n in rows) >= LEAST_ITERATIONS},
            validation=_rate([(total(validating), batches)]) if validating and batches else None,
            whole=_amounts(found.training),
        )


def trained_in(ledgers: Iterable[Ledger], like: TrialSpec) -> list[Trained]:
    """Finished trials of a specification's dataset, plans and configuration, the first `MOST_TRIALS`.

    Raises:
        InvalidInputError: there is none, or they ran on several kinds of hardware.
        LedgerError: a trial is unreadable.
    """
    folders = (folder for ledger in ledgers for folder in ledger.trials() if folder.state() is TrialState.FINISHED)
    found = (Trained.of(read_trial(folder)) for folder in folders)
    same = list(islice((each for each in found if each and _place(each.spec) == _place(like)), MOST_TRIALS))
    kinds = sorted({each.hardware for each in same})
    if len(kinds) != 1:
        received = "; ".join(kinds) or "no finished trial of them"
        legal = f"studies of one kind of hardware with finished trials of {' '.join(map(str, _place(like)))}"
        raise InvalidInputError(field="--costs-from", received=received, legal=legal)
    return same


def _place(spec: TrialSpec) -> tuple[str, str, str]:
    return spec.dataset, spec.plans, spec.configuration


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What the training loop of a specification will take; None is unmeasured.

    Attributes:
        amounts: seconds, kWh and kg CO2.
        placed: how many of its shapes nothing has trained, so that they are placed by their voxels.
    """

    amounts: Amounts
    placed: int


def preview(spec: TrialSpec, known: Sequence[Trained]) -> Preview:
    """The cost of a specification's training, without set-up and final validation.

    Args:
        spec: what is to be trained, of the same plan as `known`.
        known: at least one, see `trained_in`.
    """
    pooled: dict[Shape, list[Amounts]] = defaultdict(list)
    for each in known:
        for shape, amounts in each.shapes.items():
            pooled[shape].append(amounts)
    rates = {shape: _median(rows) for shape, rows in pooled.items()}
    lines = [_line({shape: rate[k] for shape, rate in rates.items()}) for k in range(3)]
    validation = _median([each.validation for each in known if each.validation] or [(0.0, None, None)])
    batches = spec.training.epochs * spec.training.validation_batches
    shapes = [((stage.patch_size, stage.batch_size), stage.iterations) for stage in spec.curriculum.stages]
    totals = []
    for k, line in enumerate(lines):
        rows = [(rates[shape][k] if shape in rates else line(shape), iterations) for shape, iterations in shapes]
        rows.append((validation[k] if batches else 0.0, batches))
        measured = [rate * count for rate, count in rows if rate is not None]
        totals.append(math.fsum(measured) if len(measured) == len(rows) else None)
    seconds, energy, carbon = totals
    placed = sum(shape not in rates for shape, iterations in shapes if iterations)
    return Preview(amounts=(seconds or 0.0, energy, carbon), placed=placed)


def errors(known: Sequence[Trained]) -> list[float]:
    """How far off the seconds of each trial are, predicted from the others, as shares of what it took, in order."""
    found = []
    for place, each in enumerate(known):
        others = [*known[:place], *known[place + 1 :]]
        if others and each.whole[0]:
            found.append(abs(preview(each.spec, others).amounts[0] / each.whole[0] - 1))
    return sorted(found)


def trust(known: Sequence[Trained]) -> str:
    """What a preview rests on, as a sentence."""
    basis = f"by {len(known)} finished trials on {known[0].hardware}"
    found = errors(known)
    if len(found) < LEAST_FOR_ERRORS:
        return f"{basis}; too few to say how far it is off (from {LEAST_FOR_ERRORS} on)"
    worst = quantiles(found, n=10, method="inclusive")[-1]
    return f"{basis}; each of them predicted from the others was off by {median(found):.1%} (median), {worst:.1%} (p90)"


def _rate(rows: Sequence[tuple[Charge, int]]) -> Amounts:
    count = sum(number for _, number in rows)
    parts = zip(*(_amounts(charge) for charge, _ in rows), strict=True)
    seconds, energy, carbon = (None if None in part else math.fsum(part) / count for part in parts)
    return seconds or 0.0, energy, carbon


def _amounts(charge: Charge) -> Amounts:
    return charge.seconds, charge.energy_kwh, charge.co2_kg


def _median(rows: Sequence[Amounts]) -> Amounts:
    seconds, energy, carbon = (
        median(measured) if (measured := [value for value in part if value is not None]) else None
        for part in zip(*rows, strict=True)
    )
    return seconds or 0.0, energy, carbon


def _line(rates: Mapping[Shape, float | None]) -> Callable[[Shape], float | None]:
    """A constant and a rate by voxels through what shapes took, by relative errors; None where nothing was measured."""
    points = [(_voxels(shape), rate) for shape, rate in rates.items() if rate]
    if not points:
        return lambda shape: None
    weights = [rate**-2 for _, rate in points]

    def mean(values: Iterable[float]) -> float:
        return math.fsum(w * value for w, value in zip(weights, values, strict=True)) / math.fsum(weights)

    x, y = mean(voxels for voxels, _ in points), mean(rate for _, rate in points)
    spread = mean((voxels - x) ** 2 for voxels, _ in points)
    slope = max(0.0, mean((voxels - x) * (rate - y) for voxels, rate in points) / spread) if spread else y / x
    if y < slope * x:
        slope = mean(voxels * rate for voxels, rate in points) / mean(voxels**2 for voxels, _ in points)
        return lambda shape: slope * _voxels(shape)
    return lambda shape: y + slope * (_voxels(shape) - x)


def _voxels(shape: Shape) -> int:
    return math.prod(shape[0]) * shape[1]

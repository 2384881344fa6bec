"""The bill of a trial, summed from its ledger: seconds, energy and carbon, by phase, with waste apart.

Intervals say what of the energy is the trial's own. In ledgers of before they do not: there the node's CPU and RAM are
charged by the trial's share of the node's cores, a GPU by the fraction the trial was allotted. Carbon is energy ×
intensity of the grid × PUE, computed here so that it can be drawn again for another country. A
sum with an unmeasured part is unmeasured (None), never too small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

from study.common.serialize import made_of
from study.store.readings import OwnEnergy
from study.store.records import TRAINING_PHASES, AttemptHeader, CostInterval, Phase

_UNNAMED_GPU = "NVML did not name the trial's card"


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What some stretches of work cost. None is unmeasured.

    Attributes:
        seconds: wall time.
        cpu_kwh, gpu_kwh, ram_kwh: the trial's share of the energy; energy_kwh: their sum.
        co2_kg: kg CO2 equivalent.
        idle_cpu_kwh: the part of cpu_kwh that an idle CPU would have drawn, too; None in ledgers of before.
    """

    seconds: float
    cpu_kwh: float | None
    gpu_kwh: float | None
    ram_kwh: float | None
    co2_kg: float | None
    idle_cpu_kwh: float | None = 0.0

    @property
    def energy_kwh(self) -> float | None:
        """Sum of the three parts."""
        return _sum((self.cpu_kwh, self.gpu_kwh, self.ram_kwh))


_NOTHING = Charge(seconds=0.0, cpu_kwh=0.0, gpu_kwh=0.0, ram_kwh=0.0, co2_kg=0.0)


@dataclass(frozen=True, kw_only=True)
class CostSegment:
    """One attempt's part of the bill.

    Attributes:
        header: who worked, on what, measured how.
        charge: everything the attempt did; by_phase: the same by phase.
        waste: the part that the next attempt had to do again.
        iteration_start, iteration_stop: training iterations covered, half open.
        started_at, ended_at: seconds since the epoch.
    """

    header: AttemptHeader
    charge: Charge
    by_phase: dict[Phase, Charge]
    waste: Charge
    iteration_start: int
    iteration_stop: int
    started_at: float
    ended_at: float


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One interval with its price.

    Attributes:
        interval: what was done; header: by which attempt.
        charge: what it cost; waste: the part of it that a later attempt had to do again.
    """

    interval: CostInterval
    header: AttemptHeader
    charge: Charge
    waste: Charge


def entries(
    attempts: Sequence[AttemptHeader],
    intervals: Sequence[CostInterval],
    *,
    carbon_intensity_kg_per_kwh: float | None = None,
    pue: float | None = None,
) -> tuple[Entry, ...]:
    """A trial's intervals, priced; the arguments are those of `bill`."""
    known = {a.attempt: (a, _rate(a, carbon_intensity_kg_per_kwh, pue), _lost_from(a, attempts)) for a in attempts}
    return tuple(_entry(i, *known[i.attempt]) for i in intervals if i.attempt in known)


@dataclass(frozen=True, kw_only=True)
class Bill:
    """The whole cost of a trial over all attempts, each sum taken when it is asked for.

    Attributes:
        attempts: headers by attempt.
        entries: what they did, priced.
        unmeasured: part (`cpu`, `gpu`, `ram`) -> why its energy is not known, where it is not.
    """

    attempts: tuple[AttemptHeader, ...]
    entries: tuple[Entry, ...]
    unmeasured: Mapping[str, str]

    @cached_property
    def training(self) -> Charge:
        """The training loop with its validation batches, waste included: runtime in the papers' sense."""
        return total(row.charge for row in self.entries if row.interval.phase in TRAINING_PHASES)

    @cached_property
    def total(self) -> Charge:
        """All phases."""
        return total(row.charge for row in self.entries)

    @cached_property
    def waste(self) -> Charge:
        """Work done again after an interruption, contained in both."""
        return total(row.waste for row in self.entries)

    @cached_property
    def by_phase(self) -> dict[Phase, Charge]:
        """The total by phase."""
        return _by_phase(self.entries)

    @cached_property
    def segments(self) -> tuple[CostSegment, ...]:
        """One per attempt."""
        return tuple(
            _segment(header, [row for row in self.entries if row.header is header]) for header in self.attempts
        )


def bill(
    attempts: Sequence[AttemptHeader],
    intervals: Sequence[CostInterval],
    *,
    carbon_intensity_kg_per_kwh: float | None = None,
    pue: float | None = None,
) -> Bill:
    """Sum a trial's intervals.

    Args:
        attempts: headers by attempt.
        intervals: what they did; those of an attempt without a header are passed over.
        carbon_intensity_kg_per_kwh: used instead of the recorded one, to redraw for another grid.
        pue: likewise.
    """
    rows = entries(attempts, intervals, carbon_intensity_kg_per_kwh=carbon_intensity_kg_per_kwh, pue=pue)
    return Bill(attempts=tuple(attempts), entries=rows, unmeasured=unmeasured_reasons(attempts, intervals))


def total(charges: Iterable[Charge]) -> Charge:
    """Sum of charges; a part unmeasured in one is unmeasured in the sum."""
    rows = [vars(charge) for charge in charges if charge is not _NOTHING]
    if len(rows) < 2:
        return made_of(Charge, rows[0]) if rows else _NOTHING
    # Each has the fields in their order.
    columns = zip(*[row.values() for row in rows], strict=True)
    return made_of(Charge, dict(zip(Charge.__dataclass_fields__, map(_sum, columns), strict=True)))


def _entry(interval: CostInterval, header: AttemptHeader, rate: float, lost_from: int | None) -> Entry:
    charge = _charge(interval, header, rate)
    waste = _NOTHING if lost_from is None else scaled(charge, _lost_share(interval, lost_from))
    return made_of(Entry, {"interval": interval, "header": header, "charge": charge, "waste": waste})


def _segment(header: AttemptHeader, rows: Sequence[Entry]) -> CostSegment:
    trained = [row.interval for row in rows if row.interval.phase is Phase.TRAINING]
    return CostSegment(
        header=header,
        charge=total(row.charge for row in rows),
        by_phase=_by_phase(rows),
        waste=total(row.waste for row in rows),
        iteration_start=header.resumed_from_iteration,
        iteration_stop=max((i.iteration_stop for i in trained), default=header.resumed_from_iteration),
        started_at=header.started_at,
        ended_at=max((r.interval.started_at + r.interval.seconds for r in rows), default=header.started_at),
    )


def _by_phase(rows: Sequence[Entry]) -> dict[Phase, Charge]:
    return {phase: total(row.charge for row in rows if row.interval.phase is phase) for phase in Phase}


def _lost_from(header: AttemptHeader, attempts: Sequence[AttemptHeader]) -> int | None:
    """First iteration that a later attempt trained again, None when there is no later attempt."""
    later = [a.resumed_from_iteration for a in attempts if a.attempt > header.attempt]
    return min(later, default=None)


def _lost_share(interval: CostInterval, lost_from: int) -> float:
    if interval.phase is Phase.SETUP:
        return 0.0
    if interval.phase is Phase.FINAL_VALIDATION:
        return 1.0
    length = interval.iteration_stop - interval.iteration_start
    if length == 0:
        return float(interval.iteration_stop > lost_from)
    return min(length, max(0, interval.iteration_stop - lost_from)) / length


def unmeasured_reasons(attempts: Sequence[AttemptHeader], intervals: Sequence[CostInterval]) -> dict[str, str]:
    """Why parts of the energy (`cpu`, `gpu`, `ram`) are unmeasured, as far as the ledger says."""
    told = [{"gpu": _UNNAMED_GPU} for header in attempts if _is_unnamed(header)]
    told += [dict(header.meter.reasons) for header in attempts]
    told += [dict(interval.reasons) for interval in intervals if interval.reasons]
    return {part: reason for reasons in reversed(told) for part, reason in reasons.items()}


def _charge(interval: CostInterval, header: AttemptHeader, rate: float) -> Charge:
    own = interval.own or _by_share(interval, header)
    cpu = _sum((own.cpu_kwh, own.idle_cpu_kwh)) if interval.own else own.cpu_kwh
    gpu = None if _is_unnamed(header) else own.gpu_kwh
    energy = _sum((cpu, gpu, own.ram_kwh))
    charge = {
        "seconds": interval.seconds,
        "cpu_kwh": cpu,
        "gpu_kwh": gpu,
        "ram_kwh": own.ram_kwh,
        "co2_kg": _times(energy, rate),
        "idle_cpu_kwh": own.idle_cpu_kwh,
    }
    return made_of(Charge, charge)


def _by_share(interval: CostInterval, header: AttemptHeader) -> OwnEnergy:
    return OwnEnergy(
        cpu_kwh=_times(interval.cpu_kwh, header.cpu_share),
        idle_cpu_kwh=None,
        gpu_kwh=_times(interval.gpu_kwh, header.gpu_share),
        ram_kwh=_times(interval.ram_kwh, header.cpu_share),
    )


def _is_unnamed(header: AttemptHeader) -> bool:
    """Whether it is of a GPU that the meter could not name: once it was charged as if there were none."""
    return header.device == "cuda" and not header.gpu_ids and header.meter.methods.get("gpu") == "absent"


def scaled(charge: Charge, share: float) -> Charge:
    """A share of a charge."""
    if share == 1:
        return charge
    if share == 0:
        return _NOTHING
    return made_of(Charge, {name: _times(amount, share) for name, amount in vars(charge).items()})


def _rate(header: AttemptHeader, intensity: float | None, pue: float | None) -> float:
    meter = header.meter
    return (meter.carbon_intensity_kg_per_kwh if intensity is None else intensity) * (meter.pue if pue is None else pue)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _sum(values: Sequence[float | None]) -> float | None:
    return None if None in values else reduce(add, values, 0.0)

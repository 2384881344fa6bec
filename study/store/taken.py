"""What trainings took, as previews need it: the iterations of each shape, and all that comes around them.

Of a finished trial it follows from its records, of a calibration it was measured. What torch reserved on a card says
whether several trainings fit on it side by side; the driver takes some hundred MiB more for each process.

Whether the same work took the same time: seconds of the iterations of one shape, in the trials that trained it.

A shape is what makes an iteration the same work on the same machine: dataset, plans, configuration, patch and batch
size, hardware, device. The pace of a trial is its time over what the same iterations take at the median over the
trials. The analysis says the same of its tables (`analysis.tables.contention`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from study.curriculum.chain import Size
from study.store.audit import Records
from study.store.calibration import Calibration, Timing, hardware_of, network_of
from study.store.costs import Charge, Entry, bill, scaled
from study.store.records import TRAINING_PHASES, AttemptHeader, CostInterval, Phase
from study.store.specification import TrialSpec
from study.store.stored import Stored

Shape = tuple[Size, int]
"""Patch in voxels per axis, samples per batch."""


@dataclass(frozen=True, kw_only=True)
class Part(Stored):
    """Units of work of one kind, and what they took together; None is unmeasured.

    Attributes:
        cpu_seconds: of the processes that did it, where they decide how long it takes.
        cpu_kwh: the part of the energy that goes with them.
    """

    count: int
    seconds: float
    energy_kwh: float | None
    co2_kg: float | None
    cpu_seconds: float | None = None
    cpu_kwh: float | None = None

    def stretched(self, stretch: float | None) -> Part:
        """The same work where a CPU second takes so many seconds; power that does not go with CPU time stays."""
        if stretch is None or not self.cpu_seconds or not self.seconds:
            return self
        seconds = self.cpu_seconds * stretch
        energy, carbon = self.energy_kwh, self.co2_kg
        if energy is not None and self.cpu_kwh is not None:
            energy = self.cpu_kwh + (energy - self.cpu_kwh) * seconds / self.seconds
            carbon = None if carbon is None or not self.energy_kwh else carbon * energy / self.energy_kwh
        return replace(self, seconds=seconds, energy_kwh=energy, co2_kg=carbon)


def sum_of(parts: Sequence[Part]) -> Part:
    """Together; what is unmeasured in one is unmeasured in the sum."""

    def whole(values: Sequence[float | None]) -> float | None:
        measured = [value for value in values if value is not None]
        return math.fsum(measured) if len(measured) == len(values) else None

    return Part(
        count=sum(part.count for part in parts),
        seconds=math.fsum(part.seconds for part in parts),
        **{
            name: whole([getattr(part, name) for part in parts])
            for name in ("energy_kwh", "co2_kg", "cpu_seconds", "cpu_kwh")
        },
    )


@dataclass(frozen=True, kw_only=True, order=True)
class Peak:
    """Voxels of an iteration, the most bytes that torch reserved on the card for it, and what the card has."""

    voxels: int
    reserved_bytes: int
    card_bytes: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a finished trial took, or a calibration.

    Attributes:
        network: see `network_of`; plans_sha256: of its plans.
        hardware: on what, in words.
        shapes: iterations, for each shape trained often enough to tell.
        validation: batches of the online validation; setup, final: set-up and final validation.
        mirroring: whether the final validation predicted with test-time mirroring.
        spec: what was trained; None of a calibration.
        whole: of the training loop, what was done again left out; None where it ended early, and of a calibration.
        memory: what was reserved on a card, none where nobody said.
    """

    network: tuple[str, ...]
    plans_sha256: str
    hardware: str
    shapes: Mapping[Shape, Part]
    validation: Part | None
    setup: Part | None
    final: Part | None
    mirroring: bool
    spec: TrialSpec | None = None
    whole: Part | None = None
    memory: tuple[Peak, ...] = ()

    @classmethod
    def of(cls, records: Records) -> Trained | None:
        """Of a trial that has finished on one kind of hardware, else None."""
        spec, headers = records.spec, records.attempts
        hardware = {hardware_of(header) for header in headers}
        if records.result is None or len(hardware) != 1:
            return None
        rows = bill(headers, records.intervals).entries
        on_one_core = headers[0].device == "cpu" and headers[0].cpus <= 1
        of_phase = {phase: [row for row in rows if row.interval.phase is phase] for phase in Phase}
        batches = validation_batches(spec)

        def part(phase: Phase, count: int) -> Part | None:
            found = [_part(row, count=0, by_cpu=on_one_core) for row in of_phase[phase]]
            return replace(sum_of(found), count=count) if found and count else None

        trained = [
            _part(row, count=0, by_cpu=on_one_core, kept=True) for row in rows if row.interval.phase in TRAINING_PHASES
        ]
        ended_early = spec.stopped_at(records.result.iterations) is not None
        return cls(
            network=network_of(spec),
            plans_sha256=spec.plans_sha256,
            hardware=hardware.pop(),
            shapes=_shapes(spec, of_phase[Phase.TRAINING], by_cpu=on_one_core),
            validation=part(Phase.ONLINE_VALIDATION, batches),
            setup=part(Phase.SETUP, len(headers)),
            final=part(Phase.FINAL_VALIDATION, 1),
            mirroring=spec.training.predicts_mirrored,
            spec=spec,
            whole=None if ended_early or not trained else sum_of(trained),
            memory=tuple(
                Peak(
                    voxels=max(stage.voxels_per_iteration for stage in spec.curriculum.stages),
                    reserved_bytes=header.peak_memory_bytes,
                    card_bytes=header.card_memory_bytes,
                )
                for header in headers
                if header.peak_memory_bytes and header.card_memory_bytes
            ),
        )

    @classmethod
    def calibrated(cls, found: Calibration, *, kg_per_kwh: float | None = None) -> Trained:
        """Of a calibration, with the carbon of another grid if one is given."""
        rate = found.kg_per_kwh if kg_per_kwh is None else kg_per_kwh

        def part(timing: Timing | None, *, one: bool = False) -> Part | None:
            if timing is None:
                return None
            count = 1 if one else timing.count
            energy = None if timing.energy_kwh is None else count * timing.energy_kwh
            carbon = None if energy is None else energy * rate
            return Part(count=count, seconds=count * timing.seconds, energy_kwh=energy, co2_kg=carbon)

        timed = ((((shape.patch_size, shape.batch_size)), part(shape)) for shape in found.shapes)
        return cls(
            network=found.network,
            plans_sha256=found.plans_sha256,
            hardware=found.hardware,
            shapes={shape: each for shape, each in timed if each is not None},
            validation=part(found.validation),
            setup=part(found.setup),
            final=part(found.final, one=True),
            mirroring=found.mirroring,
            memory=tuple(
                Peak(
                    voxels=voxels_of((shape.patch_size, shape.batch_size)),
                    reserved_bytes=shape.peak_memory_bytes,
                    card_bytes=found.card_memory_bytes,
                )
                for shape in found.shapes
                if shape.peak_memory_bytes and found.card_memory_bytes
            ),
        )


def validation_batches(spec: TrialSpec) -> int:
    """Batches of all online validations of a training, those for statistics of its layers among them."""
    rounds = math.ceil(spec.training.epochs / spec.training.validation_every_epochs)
    return rounds * spec.training.full_patch_batches


def voxels_of(shape: Shape) -> int:
    """Voxels of a batch."""
    return math.prod(shape[0]) * shape[1]


def _part(row: Entry, *, count: int, by_cpu: bool, share: float = 1.0, kept: bool = False) -> Part:
    """A share of what an interval took; `kept` leaves out what was done again."""
    charge, use = row.charge, row.interval.use
    share *= 1 - row.waste.seconds / charge.seconds if kept and charge.seconds else 1.0
    charge = scaled(charge, share)
    by_cpu = by_cpu and use is not None
    return Part(
        count=count,
        seconds=charge.seconds,
        energy_kwh=charge.energy_kwh,
        co2_kg=charge.co2_kg,
        cpu_seconds=share * use.own_cpu_seconds if by_cpu and use is not None else None,
        cpu_kwh=_own_kwh(charge) if by_cpu else None,
    )


def _own_kwh(charge: Charge) -> float | None:
    whole, idle = charge.cpu_kwh, charge.idle_cpu_kwh
    return None if whole is None or idle is None else whole - idle


def _shapes(spec: TrialSpec, rows: Iterable[Entry], *, by_cpu: bool) -> dict[Shape, Part]:
    parts: dict[Shape, list[Part]] = defaultdict(list)
    for row in rows:
        for index, iterations, share in row.interval.by_stage():
            if index is not None:
                stage = spec.curriculum.stages[index]
                part = _part(row, count=iterations, by_cpu=by_cpu, share=share)
                parts[stage.patch_size, stage.batch_size].append(part)
    pooled = {shape: sum_of(mine) for shape, mine in parts.items()}
    return {shape: part for shape, part in pooled.items() if part.count >= LEAST_ITERATIONS}


_GIB = 2**30


def needed_bytes(voxels: int, known: Sequence[Peak]) -> int:
    """What a training whose largest iteration has so many voxels will reserve: as much as the next larger one that is
    known, or the largest in the ratio of the voxels.

    Args:
        voxels: of its largest iteration.
        known: at least one.
    """
    enough = [peak.reserved_bytes for peak in known if peak.voxels >= voxels]
    largest = max(known)
    return min(enough) if enough else round(largest.reserved_bytes * voxels / largest.voxels)


def too_large(voxels: Iterable[int], known: Sequence[Peak], *, on_a_card: int) -> str:
    """A line for trainings that do not fit on a card together, empty where they do, or where nothing says.

    Args:
        voxels: of the largest iteration of each.
        known: what others of the network reserved, all on cards of one kind.
        on_a_card: how many run side by side.
    """
    largest = max(voxels, default=0)
    if on_a_card < 2 or not known or not largest:
        return ""
    each, card = needed_bytes(largest, known), known[0].card_bytes
    if on_a_card * each <= card:
        return ""
    return (
        f"{on_a_card} trainings on one card need about {on_a_card * each / _GIB:.1f} GiB for their largest size, "
        f"{each / _GIB:.1f} GiB each, and it has {card / _GIB:.1f} GiB: the last to come will run out of memory; "
        f"give each a larger share with --gpus {min(1.0, each / card * 1.05):.2g} or more"
    )


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

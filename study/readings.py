"""What a meter says: how it measures, and cumulative readings of the node, of the trial's own part, and of its load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class OwnEnergy:
    """The part of a node's energy that a trial is charged; None is unmeasured, never 0.

    Attributes:
        cpu_kwh: what its own processes drew beyond the idle CPU, see `cpu_energy`.
        idle_cpu_kwh: what an idle CPU draws, by the trial's share of the cores.
        gpu_kwh: of its card, or its part of a shared one.
        ram_kwh: by its share of the cores, of the node or of the Slurm job, whichever the reading is of.
    """

    cpu_kwh: float | None
    idle_cpu_kwh: float | None
    gpu_kwh: float | None
    ram_kwh: float | None


@dataclass(frozen=True, kw_only=True)
class NodeUse:
    """Who used a node's cores; see `process_tree` for how it is counted.

    Attributes:
        own_cpu_seconds: CPU time of the trial's processes.
        cpu_seconds: CPU time of all processes of the node.
        trials: how many trials ran on the node at the end of the stretch, this one included; None if not known.
    """

    own_cpu_seconds: float
    cpu_seconds: float
    trials: int | None


@dataclass(frozen=True, kw_only=True)
class StagePart:
    """What a stage had of a stretch whose iterations drew their stages: how many iterations, how many seconds."""

    stage: int
    iterations: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class MeterReading:
    """Cumulative energy since a meter started; None is unmeasured.

    Attributes:
        cpu_kwh, gpu_kwh, ram_kwh: of the node and the trial's cards, before sharing.
        own: what of it is the trial's.
        reasons: part -> why it is unmeasured.
    """

    cpu_kwh: float | None
    gpu_kwh: float | None
    ram_kwh: float | None
    own: OwnEnergy
    reasons: Mapping[str, str] = field(default_factory=dict)


def _reading(value: float | None) -> MeterReading:
    own = OwnEnergy(cpu_kwh=value, idle_cpu_kwh=value, gpu_kwh=value, ram_kwh=value)
    return MeterReading(cpu_kwh=value, gpu_kwh=value, ram_kwh=value, own=own)


UNMEASURED = _reading(None)
AT_START = _reading(0.0)


@dataclass(frozen=True, kw_only=True)
class MeterInfo:
    """How energy was measured and what its carbon is.

    Attributes:
        name: `codecarbon` or `none`; version: of that library.
        methods: per part (`cpu`, `gpu`, `ram`): how, in words that begin with `measured` or `estimated`, or `absent` or
            `unmeasured`. A bare `measured` or `estimated` CPU, in ledgers of before, is the node's by share of cores.
        country: ISO 3166 alpha-3 code, or `world` for the average.
        carbon_intensity_kg_per_kwh: of that grid.
        pue: power usage effectiveness of the data centre.
        reasons: part -> why it is unmeasured.
        cpu_tdp_watts: of the node's CPU, as CodeCarbon knows it.
    """

    name: str
    version: str
    methods: Mapping[str, str]
    country: str
    carbon_intensity_kg_per_kwh: float
    pue: float
    reasons: Mapping[str, str] = field(default_factory=dict)
    cpu_tdp_watts: float | None = None


def own_from_json(data: Mapping[str, Any] | None) -> OwnEnergy | None:
    """What a record says of the trial's own energy; ledgers of before say nothing."""
    return None if data is None else OwnEnergy(**data)


def use_from_json(data: Mapping[str, Any] | None) -> NodeUse | None:
    """Likewise of the node's use."""
    return None if data is None else NodeUse(**data)

"""How the steps of a stage are run on a device, as data: eagerly, captured, compiled; and when compiling pays.

*Eager* is nnU-Net's own step, launched kernel by kernel. *Captured* steps are recorded once as a CUDA graph and
replayed: below about 96³ voxels a GPU waits for launches, not for arithmetic. *Compiled* ones go through torch.compile
first, which pays in long stages of large patches alone. `steps` does all this; here is what is said of it.

What a meter says: how it measures, and cumulative readings of the node, of the trial's own part, and of its load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from study.store.stored import Amount, Stored, Whole

# What no stretch of a training, and no grid, comes near to.
Kwh = Annotated[float, Ge(0), Le(1e6)]
Seconds = Annotated[float, Ge(0), Le(1e8)]
KgPerKwh = Annotated[float, Ge(0), Le(100)]


@dataclass(frozen=True, kw_only=True)
class OwnEnergy(Stored):
    """The part of a node's energy that a trial is charged; None is unmeasured, never 0.

    Attributes:
        cpu_kwh: what its own processes drew beyond the idle CPU, see `own_energy`.
        idle_cpu_kwh: what an idle CPU draws, by the trial's share of the cores.
        gpu_kwh: of its card, or its part of a shared one.
        ram_kwh: by its share of the cores, of the node or of the Slurm job, whichever the reading is of.
    """

    cpu_kwh: Kwh | None
    idle_cpu_kwh: Kwh | None
    gpu_kwh: Kwh | None
    ram_kwh: Kwh | None


@dataclass(frozen=True, kw_only=True)
class NodeUse(Stored):
    """Who used a node's cores; see `process_tree` for how it is counted.

    Attributes:
        own_cpu_seconds: CPU time of the trial's processes.
        cpu_seconds: CPU time of all processes of the node.
        trials: how many trials ran on the node at the end of the stretch, this one included; None if not known.
    """

    own_cpu_seconds: Amount
    cpu_seconds: Amount
    trials: Annotated[Whole, Ge(1)] | None


@dataclass(frozen=True, kw_only=True)
class StagePart(Stored):
    """What a stage had of a stretch whose iterations drew their stages: how many iterations, how many seconds."""

    stage: Whole
    iterations: Whole
    seconds: Seconds


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


UNMEASURED, AT_START = (
    MeterReading(
        cpu_kwh=value,
        gpu_kwh=value,
        ram_kwh=value,
        own=OwnEnergy(cpu_kwh=value, idle_cpu_kwh=value, gpu_kwh=value, ram_kwh=value),
    )
    for value in (None, 0.0)
)


@dataclass(frozen=True, kw_only=True)
class MeterInfo(Stored):
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
    carbon_intensity_kg_per_kwh: KgPerKwh
    pue: Annotated[float, Ge(1)]
    reasons: Mapping[str, str] = field(default_factory=dict)
    cpu_tdp_watts: Amount | None = None


CompileChoice = Literal["auto", "always", "never"]
COMPILE_CHOICES: tuple[CompileChoice, ...] = ("auto", "always", "never")
AUTO, ALWAYS, NEVER = COMPILE_CHOICES
# torch's own name of the folder of compiled kernels: whoever sets it has chosen.
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
# Of a training iteration's arithmetic, a forward pass is a third.
FORWARD_SHARE = 1 / 3


@dataclass(frozen=True, kw_only=True)
class StageExecution(Stored):
    """How one stage's steps were run in one attempt.

    Attributes:
        stage: index in the curriculum's table; None for the validation batches.
        captured: whether they were replayed from a CUDA graph; compiled: whether torch.compile made their kernels.
        autotuned: whether cuDNN timed its algorithms for this shape (`cudnn.benchmark`).
        prepared_seconds: what compiling, warming up and capturing took.
        reason: why they were not run as intended, empty if they were.
    """

    stage: Whole | None
    captured: bool = False
    compiled: bool = False
    autotuned: bool = False
    prepared_seconds: Amount = 0.0
    reason: str = ""

    @property
    def mode(self) -> str:
        """`eager`, `captured`, `compiled` or `compiled and captured`."""
        names = [name for name, on in (("compiled", self.compiled), ("captured", self.captured)) if on]
        return " and ".join(names) or "eager"


def fallback_lines(executions: Sequence[StageExecution]) -> list[str]:
    """What was not run as intended, a line per reason: which stages, how they ran instead, and why."""
    stages: dict[tuple[str, str], list[str]] = {}
    for execution in executions:
        if execution.reason:
            name = "validation batches" if execution.stage is None else f"stage {execution.stage + 1}"
            stages.setdefault((execution.mode, execution.reason), []).append(name)
    return [f"{', '.join(dict.fromkeys(names))} ran {mode}: {why}" for (mode, why), names in stages.items()]


def worth_compiling(*, voxels_per_iteration: int, iterations_left: int, gpu: str, share: float = 1.0) -> bool:
    """Whether compiling saves more time than it takes.

    It saves `saved_ns_per_voxel` × voxels of what is left, against the captured steps without it, and takes
    `compile_seconds` with nothing in the compiler's cache. Both were measured (`compile_costs.json`, by GPU); for any
    other GPU the first entry counts, which is the fastest: on a slower one compiling saves more.

    Args:
        voxels_per_iteration: of the stage.
        iterations_left: that will run at this shape.
        gpu: its name as CUDA gives it.
        share: of a training iteration's arithmetic that one of these iterations is.
    """
    costs = compile_costs()
    found = next((entry for entry in costs if entry["gpu"] == gpu), costs[0])
    saved_seconds = 1e-9 * saved_ns_per_voxel(found) * share * voxels_per_iteration * iterations_left
    return bool(saved_seconds > found["compile_seconds"])


def saved_ns_per_voxel(entry: Mapping[str, Any]) -> float:
    """Nanoseconds that compiling saves per voxel of a training iteration: the least over the measured shapes."""
    return float(
        min(1e6 * (row["captured_ms"] - row["compiled_ms"]) / row["voxels_per_iteration"] for row in entry["rows"])
    )


@cache
def compile_costs() -> list[dict[str, Any]]:
    """What compiling took and saved where it was measured, as `bench gpu --json` prints it; one entry per GPU."""
    costs: list[dict[str, Any]] = json.loads(
        resources.files("study.store").joinpath("compile_costs.json").read_text(encoding="utf-8")
    )
    return costs

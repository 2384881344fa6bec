"""How the steps of a stage are run on a device, as data: eagerly, captured, compiled; and when compiling pays.

*Eager* is nnU-Net's own step, launched kernel by kernel. *Captured* steps are recorded once as a CUDA graph and
replayed: below about 96³ voxels a GPU waits for launches, not for arithmetic. *Compiled* ones go through torch.compile
first, which pays in long stages of large patches alone. `steps` does all this; here is what is said of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

CompileChoice = Literal["auto", "always", "never"]
COMPILE_CHOICES: tuple[CompileChoice, ...] = ("auto", "always", "never")
AUTO, ALWAYS, NEVER = COMPILE_CHOICES
# torch's own name of the folder of compiled kernels: whoever sets it has chosen.
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
# Of a training iteration's arithmetic, a forward pass is a third.
FORWARD_SHARE = 1 / 3


@dataclass(frozen=True, kw_only=True)
class StageExecution:
    """How one stage's steps were run in one attempt.

    Attributes:
        stage: index in the curriculum's table; None for the validation batches.
        captured: whether they were replayed from a CUDA graph; compiled: whether torch.compile made their kernels.
        autotuned: whether cuDNN timed its algorithms for this shape (`cudnn.benchmark`).
        prepared_seconds: what compiling, warming up and capturing took.
        reason: why they were not run as intended, empty if they were.
    """

    stage: int | None
    captured: bool = False
    compiled: bool = False
    autotuned: bool = False
    prepared_seconds: float = 0.0
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
        resources.files("study").joinpath("compile_costs.json").read_text(encoding="utf-8")
    )
    return costs

"""What an iteration costs on this machine's GPU, stage by stage, as nnU-Net runs it and as we do: figures of one run.

Two processes measure (`gpu_measurement`): the first everything, compiling from nothing, the second compiles again from
what the first left in the compiler's cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import MachineError
from study.common.serialize import record_to_json, with_tuples
from study.nnunet.datasets import DataPaths
from study.store.readings import CACHE_VARIABLE, worth_compiling
from study.store.specification import TrialSpec

EVERYTHING, COMPILING = "everything", "compiling"
CPS = "cps"
# Of the table: head and unit.
COLUMNS = (
    *(("patch", ""), ("batch", ""), ("eager", "ms"), ("captured", "ms"), ("compiled", "ms"), ("1st eager", "s")),
    *(("capture", "s"), ("compile", "s"), ("again", "s"), ("CPU", "ms/batch"), ("GiB", "peak")),
)


@dataclass(frozen=True, kw_only=True)
class StageFigures:
    """One shape, in milliseconds per training iteration; None is not measured or not possible here.

    Attributes:
        eager_ms: nnU-Net's own step; captured_ms: replayed from a CUDA graph; compiled_ms: compiled and captured.
        first_eager_seconds: its first iteration at this shape, cuDNN's autotuning in it.
        capture_seconds: from a new shape to its first captured iteration, nothing compiled.
        compile_seconds, compile_again_seconds: to the first compiled one, with the compiler's cache empty, and in a
            new process with what the first left there.
        batch_cpu_ms: process time of one core to draw a batch.
        peak_gib: most memory allocated on the GPU, captured; compiled_peak_gib: compiled and captured.
        notes: what did not run as intended, and why.
    """

    patch_size: tuple[int, ...]
    batch_size: int
    iterations: int
    batch_cpu_ms: float
    eager_ms: float
    captured_ms: float
    compiled_ms: float | None
    first_eager_seconds: float
    capture_seconds: float
    compile_seconds: float | None
    compile_again_seconds: float | None
    eager_peak_gib: float
    peak_gib: float
    compiled_peak_gib: float | None
    notes: tuple[str, ...] = ()

    @property
    def voxels(self) -> int:
        """Voxels of an iteration."""
        size = self.batch_size
        for n in self.patch_size:
            size *= n
        return size


@dataclass(frozen=True, kw_only=True)
class GpuBench:
    """Figures of one run.

    Attributes:
        gpu, torch: name of the device, version of torch.
        stages: of the curriculum; cps: of conventional training, at the full patch throughout.
        stock_ms: nnU-Net's own trainer, compiled as is its default; stock_peak_gib: its memory on the GPU.
        stock_note: why it could not be compiled, if it could not.
    """

    gpu: str
    torch: str
    stages: tuple[StageFigures, ...]
    cps: StageFigures
    stock_ms: float
    stock_peak_gib: float
    stock_note: str = ""

    @property
    def ratios(self) -> dict[str, float]:
        """Mean iteration of the curriculum and of CPS, as `auto` runs nnU-Net's full length, by name."""
        total = sum(stage.iterations for stage in self.stages)
        chain = sum(stage.iterations * self.as_run(stage) for stage in self.stages) / total
        eager = sum(stage.iterations * stage.eager_ms for stage in self.stages) / total
        cps, peak_gib = self.as_run(self.cps), (self.cps.compiled_peak_gib if self._pays(self.cps) else None)
        return {
            "curriculum_ms": chain,
            "cps_ms": cps,
            "curriculum_to_cps": chain / cps,
            "curriculum_to_stock": chain / self.stock_ms,
            "cps_to_stock": cps / self.stock_ms,
            "eager_curriculum_to_stock": eager / self.stock_ms,
            "voxel_share": sum(s.iterations * s.voxels for s in self.stages) / (total * self.cps.voxels),
            "cps_peak_to_stock": (peak_gib or self.cps.peak_gib) / self.stock_peak_gib,
        }

    def as_run(self, stage: StageFigures) -> float:
        """Milliseconds of an iteration as `compile_network: auto` would run the stage."""
        return (stage.compiled_ms if self._pays(stage) else None) or stage.captured_ms

    def _pays(self, stage: StageFigures) -> bool:
        return worth_compiling(voxels_per_iteration=stage.voxels, iterations_left=stage.iterations, gpu=self.gpu)

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON; `compile_costs` is an entry of `compile_costs.json`."""
        return {**record_to_json(self), "ratios": self.ratios, "compile_costs": self._compile_costs()}

    def _compile_costs(self) -> dict[str, Any]:
        compiled = [stage for stage in (*self.stages, self.cps) if stage.compiled_ms and stage.compile_seconds]
        rows = [
            {"voxels_per_iteration": s.voxels, "captured_ms": s.captured_ms, "compiled_ms": s.compiled_ms}
            for s in compiled
        ]
        seconds = max((stage.compile_seconds or 0.0 for stage in compiled), default=None)
        return {"gpu": self.gpu, "torch": self.torch, "compile_seconds": seconds, "rows": rows}


def measure(spec: TrialSpec, paths: DataPaths, folder: Path, *, compiles: bool = True) -> GpuBench:
    """Measure every stage of a trial's curriculum, and nnU-Net's own trainer on the same plan.

    Args:
        spec: a growing curriculum at the length that the ratios are for.
        paths: folders of prepared data.
        folder: for what the processes write.
        compiles: whether compiled steps are measured, which takes minutes.

    Raises:
        MachineError: a process failed; its last line says why.
    """
    order = {
        "spec": spec.to_json(),
        "raw": None if paths.raw is None else str(paths.raw),
        "preprocessed": str(paths.preprocessed),
        "compiles": compiles,
    }
    found = _in_process(EVERYTHING, order, folder)
    again = _in_process(COMPILING, order, folder)["seconds"] if compiles else [None] * len(found["stages"])
    pairs = zip(found.pop("stages"), again, strict=True)
    rows = [StageFigures(**with_tuples({**row, "compile_again_seconds": seconds})) for row, seconds in pairs]
    # The full patch at the plan's batch, which is the last stage of most curricula or was measured behind them.
    cps = replace(rows[-1], iterations=spec.curriculum.total_iterations)
    return GpuBench(stages=tuple(rows[: len(spec.curriculum.stages)]), cps=cps, **found)


def as_text(figures: GpuBench) -> str:
    """A table of the stages and the ratios that matter."""
    rows = [*zip(*COLUMNS, strict=True), *(_cells(stage) for stage in (*figures.stages, figures.cps))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    ratios = figures.ratios
    notes = [note for stage in (*figures.stages, figures.cps) for note in stage.notes]
    return "\n".join(
        [
            f"{figures.gpu}, torch {figures.torch}; the last row is CPS, conventional training at the full patch",
            *lines,
            f"stock nnU-Net      {figures.stock_ms:.1f} ms an iteration, {figures.stock_peak_gib:.2f} GiB"
            + (f" (not compiled: {figures.stock_note})" if figures.stock_note else ", compiled"),
            f"our CPS            {ratios['cps_ms']:.1f} ms, {ratios['cps_to_stock']:.2f} of stock; "
            f"memory {ratios['cps_peak_to_stock']:.2f} of stock",
            f"the curriculum     {ratios['curriculum_ms']:.1f} ms in the mean, {ratios['curriculum_to_cps']:.2f} of "
            f"our CPS, {ratios['curriculum_to_stock']:.2f} of stock; {ratios['voxel_share']:.2f} of the voxels",
            f"run eagerly        {ratios['eager_curriculum_to_stock']:.2f} of stock",
            *(f"note: {note}" for note in dict.fromkeys(notes)),
        ]
    )


def _cells(stage: StageFigures) -> tuple[str, ...]:
    def shown(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return (
        "x".join(map(str, stage.patch_size)),
        str(stage.batch_size),
        *(shown(value, 1) for value in (stage.eager_ms, stage.captured_ms, stage.compiled_ms)),
        *(shown(value, 2) for value in (stage.first_eager_seconds, stage.capture_seconds)),
        *(shown(value, 1) for value in (stage.compile_seconds, stage.compile_again_seconds)),
        shown(stage.batch_cpu_ms, 1),
        shown(stage.compiled_peak_gib or stage.peak_gib, 2),
    )


def _in_process(part: str, order: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    output, log = folder / f"{part}.json", folder / f"{part}.log"
    environment = {**os.environ, "nnUNet_raw": order["raw"] or str(folder), "nnUNet_results": str(folder / "results")}
    environment |= {"nnUNet_preprocessed": order["preprocessed"], CACHE_VARIABLE: str(folder / "kernels")}
    # nnU-Net's default is what is measured.
    environment.pop("nnUNet_compile", None)
    command = [sys.executable, "-m", "benchmarks.gpu_measurement", part, json.dumps(order), str(output)]
    with log.open("wb") as stream:
        code = subprocess.run(command, stdout=stream, stderr=stream, env=environment, check=False).returncode
    if code or not output.exists():
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise MachineError(f"the measuring process failed (code {code}): {last}")
    found: dict[str, Any] = files.read_json(output)
    return found

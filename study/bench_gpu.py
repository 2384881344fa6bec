"""What an iteration costs on this machine's GPU, stage by stage, as nnU-Net runs it and as we do: figures of one run.

`python -m study.bench_gpu PART ORDER OUTPUT` is a process of its own that measures on one GPU. `measure` starts it
twice: the first measures everything and compiles from nothing, the second compiles again from what the first left in
the compiler's cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from study import files
from study.datasets import DataPaths, PreparedDataset, find_dataset
from study.errors import MachineError
from study.execution import (
    ALWAYS,
    CACHE_VARIABLE,
    NEVER,
    CompileChoice,
    StageExecution,
    fallback_lines,
    worth_compiling,
)
from study.plain import record_to_json, with_tuples
from study.records import TrialSpec

ITERATIONS, BLOCKS, WARM_UPS = 20, 3, 3
BATCHES_TIMED = 5
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
        cps = self.as_run(self.cps)
        return {
            "curriculum_ms": chain,
            "cps_ms": cps,
            "curriculum_to_cps": chain / cps,
            "curriculum_to_stock": chain / self.stock_ms,
            "cps_to_stock": cps / self.stock_ms,
            "eager_curriculum_to_stock": eager / self.stock_ms,
            "voxel_share": sum(s.iterations * s.voxels for s in self.stages) / (total * self.cps.voxels),
            "cps_peak_to_stock": (self.cps.compiled_peak_gib or self.cps.peak_gib) / self.stock_peak_gib,
        }

    def as_run(self, stage: StageFigures) -> float:
        """Milliseconds of an iteration as `compile_network: auto` would run the stage."""
        pays = worth_compiling(voxels_per_iteration=stage.voxels, iterations_left=stage.iterations, gpu=self.gpu)
        return stage.compiled_ms if pays and stage.compiled_ms is not None else stage.captured_ms

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
    command = [sys.executable, "-m", "study.bench_gpu", part, json.dumps(order), str(output)]
    with log.open("wb") as stream:
        code = subprocess.run(command, stdout=stream, stderr=stream, env=environment, check=False).returncode
    if code or not output.exists():
        last = log.read_text("utf-8", errors="replace").strip().rpartition("\n")[2]
        raise MachineError(f"the measuring process failed (code {code}): {last}")
    found: dict[str, Any] = files.read_json(output)
    return found


# ------------------------------------------------------------------------------------------- in the measuring process


def main() -> None:
    """Measure what the command line orders."""
    part, order, output = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
    bench = _Measurement(order)
    files.write_json(output, bench.everything() if part == EVERYTHING else bench.compiling())


class _Measurement:
    def __init__(self, order: Mapping[str, Any]) -> None:
        import torch

        self._torch = torch
        self._compiles = bool(order["compiles"])
        self._spec = TrialSpec.from_json(order["spec"])
        raw = order["raw"]
        paths = DataPaths(raw=None if raw is None else Path(raw), preprocessed=Path(order["preprocessed"]))
        self._dataset = find_dataset(paths, self._spec.dataset)
        self._trainers: dict[str, Any] = {}

    def everything(self) -> dict[str, Any]:
        torch = self._torch
        stages = [self._stage(*which) for which in self._shapes()]
        self._trainers.clear()
        stock_ms, peak, note = self._stock()
        return {
            "gpu": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "stages": [asdict(stage) for stage in stages],
            "stock_ms": stock_ms,
            "stock_peak_gib": peak,
            "stock_note": note,
        }

    def compiling(self) -> dict[str, Any]:
        return {"seconds": [self._compiled(scheme, stage)[1] for scheme, stage in self._shapes()]}

    def _shapes(self) -> list[tuple[str, int]]:
        """(scheme, stage) of every row: the trial's curriculum, then CPS unless the last stage is the same."""
        curriculum = self._spec.curriculum
        last, full = curriculum.stages[-1], (curriculum.geometry.patch_size, curriculum.geometry.batch_size)
        rest = [] if (last.patch_size, last.batch_size) == full else [(CPS, 0)]
        return [*((self._spec.scheme, index) for index in range(len(curriculum.stages))), *rest]

    def _stage(self, scheme: str, index: int) -> StageFigures:
        trainer = self._trainer(scheme)
        stage = trainer.task.curriculum.stages[index]
        batch, batch_cpu_ms = self._batch(trainer, stage)
        eager_ms, first_eager, eager_peak, _ = self._timed(trainer, index, batch, compiles=None)
        captured_ms, capture, peak, notes = self._timed(trainer, index, batch, compiles=NEVER)
        compiled_ms, compile_seconds, compiled_peak, more = (
            self._compiled(scheme, index) if self._compiles else (None, None, None, [])
        )
        return StageFigures(
            patch_size=stage.patch_size,
            batch_size=stage.batch_size,
            iterations=stage.iterations,
            batch_cpu_ms=batch_cpu_ms,
            eager_ms=eager_ms,
            captured_ms=captured_ms,
            compiled_ms=compiled_ms,
            first_eager_seconds=first_eager,
            capture_seconds=capture,
            compile_seconds=compile_seconds,
            compile_again_seconds=None,
            eager_peak_gib=eager_peak,
            peak_gib=peak,
            compiled_peak_gib=compiled_peak,
            notes=(*notes, *more),
        )

    def _compiled(self, scheme: str, index: int) -> tuple[float | None, float | None, float | None, list[str]]:
        trainer = self._trainer(scheme)
        batch, _ = self._batch(trainer, trainer.task.curriculum.stages[index])
        ms, seconds, peak, notes = self._timed(trainer, index, batch, compiles=ALWAYS)
        broken = any("not compiled" in note for note in notes)
        return (None, None, None, notes) if broken else (ms, seconds, peak, notes)

    def _timed(
        self, trainer: Any, index: int, batch: Any, *, compiles: CompileChoice | None
    ) -> tuple[float, float, float, list[str]]:
        """(ms of an iteration, seconds to the first one at this shape, peak GiB, notes); None is nnU-Net's own step."""
        from study.steps import StockSteps, make_steps

        torch, executions = self._torch, list[StageExecution]()
        torch.backends.cudnn.benchmark = compiles is None
        if compiles is not None:
            settings = replace(trainer.task.settings, compile_network=compiles)
            trainer.task = replace(trainer.task, settings=settings)
        steps = StockSteps(trainer) if compiles is None else make_steps(trainer, executions.append)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        started = time.perf_counter()
        first_iteration = trainer.task.curriculum.stages[index].first_iteration

        def iterate() -> None:
            steps.train(index, batch)

        steps.ready(index, batch, first_iteration)
        iterate()
        torch.cuda.synchronize()
        first_seconds = time.perf_counter() - started
        ms = self._median_ms(iterate)
        peak = torch.cuda.max_memory_allocated() / 2**30
        steps.close()
        return ms, first_seconds, peak, fallback_lines(executions)

    def _median_ms(self, iterate: Callable[[], None]) -> float:
        for _ in range(WARM_UPS):
            iterate()
        blocks = []
        for _ in range(BLOCKS):
            self._torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(ITERATIONS):
                iterate()
            self._torch.cuda.synchronize()
            blocks.append(1000 * (time.perf_counter() - started) / ITERATIONS)
        return median(blocks)

    def _batch(self, trainer: Any, stage: Any) -> tuple[Any, float]:
        """A pinned batch of a stage, and the median process time that one takes."""
        from study.batches import Item

        batches, spent = trainer.make_batches(), []
        for index in range(BATCHES_TIMED + 1):
            started = time.process_time()
            batch = batches[Item(index=stage.first_iteration + min(index, stage.iterations - 1))]
            spent.append(1000 * (time.process_time() - started))
        pinned = {"data": batch["data"].pin_memory(), "target": [t.pin_memory() for t in _listed(batch["target"])]}
        if not isinstance(batch["target"], list):
            pinned["target"] = pinned["target"][0]
        return pinned, median(spent[1:])

    def _trainer(self, scheme: str) -> Any:
        if scheme not in self._trainers:
            # One at a time on the GPU.
            self._trainers = {scheme: _make_trainer(self._spec, self._dataset, scheme)}
        return self._trainers[scheme]

    def _stock(self) -> tuple[float, float, str]:
        """nnU-Net's own trainer at the full patch: (ms of an iteration, peak GiB, why it is not compiled)."""
        from study.causes import one_line

        torch, ours = self._torch, self._trainer(CPS)
        batch, _ = self._batch(ours, ours.task.curriculum.stages[0])
        del ours
        self._trainers.clear()
        torch._dynamo.reset()
        torch.backends.cudnn.benchmark = True
        try:
            return *self._stock_step(batch, compiles=True), ""
        except Exception as error:  # the compiler's own exceptions have no common class
            return *self._stock_step(batch, compiles=False), one_line(error)

    def _stock_step(self, batch: Any, *, compiles: bool) -> tuple[float, float]:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        torch = self._torch
        os.environ["nnUNet_compile"] = "t" if compiles else "f"  # noqa: SIM112 - nnU-Net's own name
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        trainer = nnUNetTrainer(*_arguments(self._spec, self._dataset))
        trainer.initialize()
        trainer.network.train()
        ms = self._median_ms(lambda: trainer.train_step(batch))
        return ms, torch.cuda.max_memory_allocated() / 2**30


def _make_trainer(spec: TrialSpec, dataset: PreparedDataset, scheme: str) -> Any:
    from study.curriculum import named_axes, resolve
    from study.task import Task
    from study.trainer import nnUNetTrainerPGPS

    curriculum, settings = spec.curriculum, spec.training
    if scheme != spec.scheme:
        length = {"epochs": settings.epochs, "iterations_per_epoch": spec.iterations_per_epoch}
        curriculum = resolve(spec.curriculum.geometry, named_axes(scheme), **length)
    trainer = nnUNetTrainerPGPS(*_arguments(spec, dataset))
    trainer.attach(Task(curriculum=curriculum, settings=settings, seed=0))
    trainer.initialize()
    trainer.network.train()
    return trainer


def _arguments(spec: TrialSpec, dataset: PreparedDataset) -> Sequence[Any]:
    """What a trainer of nnU-Net is made of."""
    import torch

    plans = {**files.read_json(dataset.folder / f"{spec.plans}.json"), "continue_training": False}
    return plans, spec.configuration, spec.fold, dataset.description, torch.device("cuda")


def _listed(target: Any) -> list[Any]:
    return target if isinstance(target, list) else [target]


if __name__ == "__main__":
    main()

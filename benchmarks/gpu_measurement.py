"""The process that measures a GPU's steps: `python -m benchmarks.gpu_measurement PART ORDER OUTPUT`.

`everything` measures eager, captured and compiled steps of every stage, compiling from nothing, then nnU-Net's own
trainer; `compiling` compiles again what an earlier process left in the compiler's cache.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gpu import CPS, EVERYTHING, StageFigures
from study.common import files
from study.nnunet.datasets import DataPaths, PreparedDataset, find_dataset
from study.nnunet.training_job import make_trainer
from study.store.readings import ALWAYS, NEVER, CompileChoice, StageExecution, fallback_lines
from study.store.specification import TrialSpec

ITERATIONS, BLOCKS, WARM_UPS = 20, 3, 3
BATCHES_TIMED = 5


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
        stage = trainer.job.curriculum.stages[index]
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
        batch, _ = self._batch(trainer, trainer.job.curriculum.stages[index])
        ms, seconds, peak, notes = self._timed(trainer, index, batch, compiles=ALWAYS)
        broken = any("not compiled" in note for note in notes)
        return (None, None, None, notes) if broken else (ms, seconds, peak, notes)

    def _timed(
        self, trainer: Any, index: int, batch: Any, *, compiles: CompileChoice | None
    ) -> tuple[float, float, float, list[str]]:
        """(ms of an iteration, seconds to the first one at this shape, peak GiB, notes); None is nnU-Net's own step."""
        from study.nnunet.cuda_steps import make_steps
        from study.nnunet.steps import StockSteps

        torch, executions = self._torch, list[StageExecution]()
        torch.backends.cudnn.benchmark = compiles is None
        if compiles is not None:
            settings = replace(trainer.job.settings, compile_network=compiles)
            trainer.job = replace(trainer.job, settings=settings)
        steps = StockSteps(trainer) if compiles is None else make_steps(trainer, executions.append)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        started = time.perf_counter()
        first_iteration = trainer.job.curriculum.stages[index].first_iteration

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
        from study.nnunet.batches import Item

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
        from study.common.errors import one_line

        torch, ours = self._torch, self._trainer(CPS)
        batch, _ = self._batch(ours, ours.job.curriculum.stages[0])
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
        spec, torch_device = self._spec, torch.device("cuda")
        plans = {**files.read_json(self._dataset.folder / f"{spec.plans}.json"), "continue_training": False}
        trainer = nnUNetTrainer(plans, spec.configuration, spec.fold, self._dataset.description, torch_device)
        trainer.initialize()
        trainer.network.train()
        ms = self._median_ms(lambda: trainer.train_step(batch))
        return ms, torch.cuda.max_memory_allocated() / 2**30


def _make_trainer(spec: TrialSpec, dataset: PreparedDataset, scheme: str) -> Any:
    from study.curriculum.curriculum import resolve
    from study.curriculum.schemes import named_axes

    if scheme != spec.scheme:
        length = {"epochs": spec.training.epochs, "iterations_per_epoch": spec.iterations_per_epoch}
        spec = replace(spec, curriculum=resolve(spec.curriculum.geometry, named_axes(scheme), **length))
    trainer = make_trainer(spec, dataset, device="cuda")
    trainer.initialize()
    trainer.network.train()
    return trainer


def _listed(target: Any) -> list[Any]:
    return target if isinstance(target, list) else [target]


if __name__ == "__main__":
    main()

"""Iterations on a GPU: captured once per stage as CUDA graphs, compiled first where that pays.

Forward pass, loss and scaled backward pass of a stage are captured over static input and target buffers and replayed;
unscaling, clipping, the fused optimizer's step and the scaler's update follow outside. Validation batches (forward
only, full patch) are captured likewise. Nothing in between waits for the GPU: batches are copied on a stream of their
own while the one before is trained on, and losses stay on the GPU until somebody reads them.

A stage that cannot be captured or compiled runs without, and says why; it never fails a training. Out of memory does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from study.common.errors import one_line, out_of_memory
from study.nnunet.steps import Batch, Compiler, StockSteps, hits, without_branches
from study.store.readings import ALWAYS, AUTO, FORWARD_SHARE, StageExecution, worth_compiling

Tensors = Sequence[torch.Tensor]
# nnU-Net's.
LARGEST_GRADIENT_NORM = 12
# Before a capture, so that libraries set themselves up outside of it.
WARM_UPS = 2
# Iterations handed to the GPU and not finished: one that runs and one that waits.
MOST_IN_FLIGHT = 2


@dataclass(frozen=True, kw_only=True)
class GpuProgram:
    """GPU work on tensors of fixed shapes, run as it is or, with a graph, replayed over static inputs and outputs."""

    work: Callable[..., Tensors]
    graph: Any = None
    inputs: Tensors = ()
    outputs: Tensors = ()

    def run(self, fresh: Tensors) -> Tensors:
        """Its outputs for these inputs; the next run of a graph overwrites them."""
        if self.graph is None or any(a.shape != b.shape for a, b in zip(fresh, self.inputs, strict=True)):
            return self.work(*fresh)
        for static, tensor in zip(self.inputs, fresh, strict=True):
            static.copy_(tensor, non_blocking=True)
        self.graph.replay()
        return self.outputs


class CudaSteps(StockSteps):
    """Steps of one training on one GPU; see the module's text and `StockSteps`.

    Growing stages free what they leave behind. In random order all stages are made at once, the largest first, so that
    the smaller ones fit into its memory.

    Args:
        trainer: an initialised nnU-Net trainer with its job.
        announce: told how a stage is run, once it is made.
    """

    def __init__(self, trainer: Any, announce: Callable[[StageExecution], None]) -> None:
        super().__init__(trainer)
        self._announce = announce
        self._curriculum, self._settings = trainer.job.curriculum, trainer.job.settings
        self._parameters = list(trainer.network.parameters())
        # Those that the loss reaches; the others keep none, and the optimizer passes them by.
        self._gradients: list[torch.Tensor] = []
        self._compiler = Compiler(trainer.network, trainer._build_loss, shapes=len(self._curriculum.stages))
        self._loss = without_branches(trainer.loss)
        self._capturing, self._copying = torch.cuda.Stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._programs: dict[int | None, GpuProgram] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._in_flight: deque[torch.cuda.Event] = deque()

    def ready(self, stage: int, batch: Batch, iteration: int) -> None:
        if stage in self._programs:
            return
        if not self._curriculum.random_draws:
            self._drop()
            self._programs[stage] = self._training_program(stage, self._uploaded(batch), iteration)
            return
        stages = self._curriculum.stages
        for index in sorted(range(len(stages)), key=lambda index: -stages[index].voxels_per_iteration):
            self._programs[index] = self._training_program(index, self._blank(index, batch), iteration)

    def train(self, stage: int, batch: Batch) -> torch.Tensor:
        fresh = self._uploaded(batch)
        self._wait_for_room()
        (loss,) = self._programs[stage].run(fresh)
        loss = loss.clone()
        self._update()
        self._mark()
        return loss

    def validate(self, batch: Batch, iteration: int) -> Tensors:
        """Loss, true positives, false positives and false negatives by channel, on the GPU."""
        fresh = self._uploaded(batch)
        if None not in self._programs:
            self._programs[None] = self._validation_program(fresh, iteration)
        self._wait_for_room()
        outputs = [output.clone() for output in self._programs[None].run(fresh)]
        self._mark()
        return outputs

    @torch.no_grad()
    def observe(self, batch: Batch) -> None:
        """Without a graph, whose layers would take statistics as in training."""
        data, *_ = self._uploaded(batch)
        self._wait_for_room()
        with torch.autocast("cuda"):
            self._trainer.network(data)
        self._mark()

    def outputs(self, validated: list[Tensors]) -> list[dict[str, Any]]:
        """nnU-Net's dictionaries of numpy arrays, copied from the GPU at once."""
        names = ("loss", "tp_hard", "fp_hard", "fn_hard")
        columns = [torch.stack(column).cpu().numpy() for column in zip(*validated, strict=True)]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def settle(self) -> None:
        torch.cuda.synchronize()
        self._in_flight.clear()

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds_between(self, first: Any, second: Any) -> float:
        return float(first.elapsed_time(second)) / 1000

    def close(self) -> None:
        """Free graphs, buffers and gradients, and have cuDNN tune the final validation as nnU-Net does."""
        self.settle()
        self._drop()
        self._gradients = []
        self._trainer.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        torch.backends.cudnn.benchmark = True

    # --- what runs on the GPU --------------------------------------------------------------------------------------

    def _training_work(self, network: Any, loss_of: Any) -> Callable[..., Tensors]:
        scaler = self._trainer.grad_scaler

        def work(data: torch.Tensor, *targets: torch.Tensor) -> Tensors:
            if self._gradients:
                torch._foreach_zero_(self._gradients)
            with torch.autocast("cuda"):
                loss = loss_of(network(data), self._as_nnunet_takes_it(targets))
            scaler.scale(loss).backward()
            return (loss.detach(),)

        return work

    def _validation_work(self, network: Any, loss_of: Any) -> Callable[..., Tensors]:
        labels = self._trainer.label_manager

        @torch.no_grad()
        def work(data: torch.Tensor, *targets: torch.Tensor) -> Tensors:
            with torch.autocast("cuda"):
                output = network(data)
                loss = loss_of(output, self._as_nnunet_takes_it(targets))
            return loss, *hits(output[0] if isinstance(output, list | tuple) else output, targets[0], labels)

        return work

    def _as_nnunet_takes_it(self, targets: Tensors) -> Any:
        return list(targets) if self._trainer.enable_deep_supervision else targets[0]

    def _update(self) -> None:
        scaler, optimizer = self._trainer.grad_scaler, self._trainer.optimizer
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(self._parameters, LARGEST_GRADIENT_NORM)
        scaler.step(optimizer)
        scaler.update()

    # --- programs --------------------------------------------------------------------------------------------------

    def _training_program(self, stage: int, inputs: Tensors, iteration: int) -> GpuProgram:
        row = self._curriculum.stages[stage]
        if self._curriculum.random_draws:
            left = row.iterations * (1 - iteration / self._curriculum.total_iterations)
        else:
            left = row.first_iteration + row.iterations - iteration
        compiles = self._compiles(row.voxels_per_iteration, int(left))
        return self._program(stage, self._training_work, inputs, compiles=compiles)

    def _validation_program(self, inputs: Tensors, iteration: int) -> GpuProgram:
        geometry, settings = self._curriculum.geometry, self._settings
        rounds = settings.epochs * (1 - iteration / self._curriculum.total_iterations)
        left = int(rounds / settings.validation_every_epochs * settings.validation_batches)
        compiles = self._compiles(geometry.patch_voxels * geometry.batch_size, left, FORWARD_SHARE)
        return self._program(None, self._validation_work, inputs, compiles=compiles)

    def _compiles(self, voxels: int, left: int, share: float = 1.0) -> bool:
        choice = self._settings.compile_network
        gpu = torch.cuda.get_device_name()
        pays = choice == AUTO and worth_compiling(
            voxels_per_iteration=voxels, iterations_left=left, gpu=gpu, share=share
        )
        return choice == ALWAYS or pays

    def _program(self, stage: int | None, work_of: Any, inputs: Tensors, *, compiles: bool) -> GpuProgram:
        """Compile if that is wished and possible, capture if possible, and announce what came of it."""
        started = time.perf_counter()
        torch.backends.cudnn.benchmark = False
        reasons: list[str] = []

        def warmed(network: Any, loss: Any) -> Callable[..., Tensors]:
            work: Callable[..., Tensors] = work_of(network, loss)
            self._warm_up(work, inputs)
            return work

        work = self._compiler.tried(warmed) if compiles else None
        compiled = work is not None
        if compiles and not compiled:
            reasons.append(f"not compiled: {self._compiler.broken}")
        if work is None:
            work = warmed(self._trainer.network, self._loss)
        program = self._captured(work, inputs, reasons)
        # Without a graph cuDNN is free to choose as it does in nnU-Net.
        torch.backends.cudnn.benchmark = program.graph is None
        self._announce(
            StageExecution(
                stage=stage,
                captured=program.graph is not None,
                compiled=compiled,
                autotuned=program.graph is None,
                prepared_seconds=time.perf_counter() - started,
                reason="; ".join(reasons),
            )
        )
        return program

    def _captured(self, work: Any, inputs: Tensors, reasons: list[str]) -> GpuProgram:
        graph = torch.cuda.CUDAGraph()
        # A loader's thread pins memory meanwhile: that is its own affair.
        recording = torch.cuda.graph(graph, pool=self._pool, stream=self._capturing, capture_error_mode="thread_local")
        current = torch.cuda.current_stream()
        try:
            with recording:
                outputs = work(*inputs)
        except Exception as error:  # whatever an operation says that cannot be captured
            # Left where it was when the end of the capture, too, raises.
            torch.cuda.set_stream(current)
            if out_of_memory(error):
                raise
            torch.cuda.synchronize()
            reasons.append(f"not captured: {one_line(error)}")
            return GpuProgram(work=work)
        return GpuProgram(work=work, graph=graph, inputs=inputs, outputs=outputs)

    def _warm_up(self, work: Callable[..., Tensors], inputs: Tensors) -> None:
        """Run it on the capturing stream, leaving no trace in running statistics."""
        self._capturing.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._capturing), _unchanged(list(self._trainer.network.buffers())):
            for _ in range(WARM_UPS):
                work(*inputs)
                self._keep_gradients()
        torch.cuda.current_stream().wait_stream(self._capturing)

    def _keep_gradients(self) -> None:
        """From the first backward pass on every stage writes to the same gradients."""
        reached = [parameter for parameter in self._parameters if parameter.grad is not None]
        if self._gradients or not reached:
            return
        self._gradients = [parameter.grad for parameter in reached if parameter.grad is not None]
        optimizer = self._trainer.optimizer
        if isinstance(optimizer, torch.optim.SGD) and optimizer.param_groups[0]["momentum"]:
            # A fused first step that the scaler skips would leave momentum uninitialised; zeros mean the same.
            for parameter in reached:
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def _drop(self) -> None:
        if self._programs:
            self.settle()
            self._programs.clear()
            self._pool = torch.cuda.graph_pool_handle()

    # --- batches and time ------------------------------------------------------------------------------------------

    def _uploaded(self, batch: Batch) -> Tensors:
        """Data and targets on the GPU, copied while it still works on what came before."""
        current = torch.cuda.current_stream()
        with torch.cuda.stream(self._copying):
            fresh = [tensor.to(self._trainer.device, non_blocking=True) for tensor in _tensors(batch)]
        current.wait_stream(self._copying)
        for tensor in fresh:
            tensor.record_stream(current)
        return fresh

    def _blank(self, stage: int, batch: Batch) -> Tensors:
        """Zeros in the shapes of another stage than the batch's."""
        row, tensors = self._curriculum.stages[stage], _tensors(batch)
        whole = [1] * len(row.patch_size)
        scales = [whole, *(self._trainer._get_deep_supervision_scales() or [whole])]
        return [
            torch.zeros(
                (row.batch_size, tensor.shape[1], *(round(n * s) for n, s in zip(row.patch_size, scale, strict=True))),
                dtype=tensor.dtype,
                device=self._trainer.device,
            )
            for tensor, scale in zip(tensors, scales, strict=True)
        ]

    def _wait_for_room(self) -> None:
        while len(self._in_flight) >= MOST_IN_FLIGHT:
            self._in_flight.popleft().synchronize()

    def _mark(self) -> None:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._in_flight.append(event)


def make_steps(trainer: Any, announce: Callable[[StageExecution], None]) -> StockSteps:
    """The steps of an initialised trainer on its device."""
    return CudaSteps(trainer, announce) if trainer.device.type == "cuda" else StockSteps(trainer)


def _tensors(batch: Batch) -> list[torch.Tensor]:
    target = batch["target"]
    return [batch["data"], *(target if isinstance(target, list) else [target])]


@contextmanager
def _unchanged(buffers: list[torch.Tensor]) -> Iterator[None]:
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)

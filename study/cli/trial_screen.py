"""A trial's progress on the terminal: iterations, stage, patch, batch, loss, pseudo Dice and time left.

Time left counts voxels, not iterations: with growing patches the last iterations are the dearest.

A finished trial for people and for programs: Dice, cost, model. All figures come from the ledger.
"""

from __future__ import annotations

import time
from itertools import accumulate
from typing import IO, Any

from study.common.serialize import record_to_json
from study.common.terminal import time_left
from study.curriculum.table import data_words, size_text
from study.run.progress import Progress
from study.run.trial import FinishedTrial
from study.store.costs import Charge, CostSegment
from study.store.prediction import predict_command
from study.store.records import EpochReport, Phase
from study.store.results import HD95, NSD
from study.store.specification import TrialSpec

# Without a terminal one line per so many seconds is printed instead of a bar.
LINE_INTERVAL_SECONDS = 10.0
# The bar is not drawn for each of hundreds of iterations a second: their losses would have to be waited for.
BAR_INTERVAL_SECONDS = 0.1


class TerminalProgress(Progress):
    """A rich progress bar, or plain lines where there is no terminal. Use as a context manager.

    Args:
        stream: what it is written to.
        cases: of the final validation.
    """

    wants_forecast = True

    def __init__(self, stream: IO[str], cases: int = 0) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from study.common.tables import PlainConsole

        console = PlainConsole(stream)
        self._plain = None if console.is_terminal else stream
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task: Any = None
        self._spec: TrialSpec | None = None
        self._dice: float | None = None
        self._printed = 0.0
        self.cases, self._validation_started = cases, 0.0

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, spec: TrialSpec, first_iteration: int) -> None:
        """Show the bar at the iteration the training starts or resumes."""
        self._spec = spec
        self._clock = _VoxelClock(spec, first_iteration)
        total = spec.curriculum.total_iterations
        self._task = self._bar.add_task("training", total=total, completed=first_iteration, state="")
        if first_iteration:
            self._line(f"resuming at iteration {first_iteration} of {total}")

    def iteration_done(self, report: Any) -> None:
        """Advance the bar."""
        now = time.monotonic()
        if now - self._printed < (LINE_INTERVAL_SECONDS if self._plain else BAR_INTERVAL_SECONDS):
            return
        self._printed = now
        state = self._state(report)
        self._bar.update(self._task, completed=report.iteration + 1, state=state)
        total = self._spec.curriculum.total_iterations if self._spec else 0
        self._line(f"iteration {report.iteration + 1}/{total}  {state}")

    def epoch_done(self, report: EpochReport) -> None:
        """Remember the pseudo Dice."""
        self._dice = report.pseudo_dice if report.pseudo_dice is not None else self._dice

    def phase(self, phase: Phase) -> None:
        """Name what is being done."""
        words = phase.value.replace("_", " ")
        if self._task is not None:
            self._bar.update(self._task, description=words)
        self._line(words)

    def remark(self, text: str) -> None:
        """Print it, above the bar."""
        self._line(f"note: {text}")
        if self._plain is None:
            self._bar.console.print(f"note: {text}", markup=False, highlight=False)

    def validating(self, number: int) -> None:
        """Count the cases, with the time left at the rate so far."""
        now = time.monotonic()
        self._validation_started = now if number == 1 else self._validation_started
        seconds = (now - self._validation_started) / max(1, number - 1) * (self.cases - number + 1)
        state = f"validating case {number} of {self.cases}" + (f", left {time_left(seconds)}" if number > 1 else "")
        if self._plain is None:
            self._bar.update(self._task, description=state, completed=number, total=self.cases, state="")
        elif now - self._printed >= LINE_INTERVAL_SECONDS or number in (1, self.cases):
            self._printed = now
            self._line(state)

    def _line(self, text: str) -> None:
        if self._plain is not None:
            print(text, file=self._plain, flush=True)

    def _state(self, report: Any) -> str:
        if self._spec is None:
            return ""
        curriculum = self._spec.curriculum
        stage = curriculum.stages[report.stage]
        dice = "-" if self._dice is None else f"{self._dice:.3f}"
        return (
            f"stage {report.stage + 1}/{len(curriculum.stages)}  {size_text(stage.patch_size)} x{stage.batch_size}  "
            f"loss {float(report.loss):.3f}  pseudo Dice {dice}  left {self._clock.left(report.iteration + 1)}"
        )


class _VoxelClock:
    """Time left, from the rate of voxels since the start."""

    def __init__(self, spec: TrialSpec, first_iteration: int) -> None:
        self._curriculum = spec.curriculum
        self._before = [0, *accumulate(stage.voxels for stage in spec.curriculum.stages)]
        self._first = self._voxels(first_iteration)
        self._started = time.monotonic()

    def left(self, iteration: int) -> str:
        done = self._voxels(iteration) - self._first
        if done <= 0:
            return "?"
        rate = done / max(1e-9, time.monotonic() - self._started)
        return time_left((self._before[-1] - self._voxels(iteration)) / rate)

    def _voxels(self, iteration: int) -> float:
        curriculum = self._curriculum
        if curriculum.random_draws or iteration >= curriculum.total_iterations:
            return self._before[-1] * iteration / curriculum.total_iterations
        index = curriculum.stage_index(iteration)
        stage = curriculum.stages[index]
        return self._before[index] + (iteration - stage.first_iteration) * stage.voxels_per_iteration


def as_json(trial: FinishedTrial) -> dict[str, Any]:
    """One object: result, cost of training, total cost, waste, attempts, model.

    `runtime_seconds`, `energy_kwh` and `co2_kg` are of the training loop with its validation batches, over all
    attempts; `total` adds set-up and the final validation. None is unmeasured.
    """
    bill, result = trial.bill, trial.result
    return {
        "trial_id": trial.folder.trial_id,
        "scheme": trial.spec.scheme,
        "dice": result.dice,
        "dice_per_class": dict(result.dice_per_class),
        "dice_per_case": dict(result.dice_per_case),
        "metrics": {name: record_to_json(one) for name, one in result.metrics.items()},
        "runtime_seconds": bill.training.seconds,
        "energy_kwh": bill.training.energy_kwh,
        "co2_kg": bill.training.co2_kg,
        "voxels": result.voxels,
        "voxel_share": result.voxel_share,
        "weights_sha256": result.weights_sha256,
        "iterations": result.iterations,
        "stopped_at_iteration": trial.spec.stopped_at(result.iterations),
        "total": _charge(bill.total),
        "waste": _charge(bill.waste),
        "unmeasured": dict(bill.unmeasured),
        "seconds_by_phase": {phase.value: charge.seconds for phase, charge in bill.by_phase.items()},
        "attempts": [_segment(segment) for segment in bill.segments],
        "folder": str(trial.folder.path),
        "predict": predict_command(trial.folder, trial.spec),
    }


def as_text(trial: FinishedTrial) -> str:
    """The same in a few lines."""
    bill, result = trial.bill, trial.result
    classes = ", ".join(f"{label}: {_dice(dice)}" for label, dice in result.dice_per_class.items())
    nsd, hd95 = result.metrics.get(NSD), result.metrics.get(HD95)
    validation_seconds = bill.by_phase[Phase.FINAL_VALIDATION].seconds
    lines = [
        f"trial {trial.folder.trial_id} ({trial.spec.scheme}) is finished",
        f"Dice      {result.dice:.4f}   ({classes})",
        *([f"NSD       {_dice(nsd.mean)}   (tolerance {nsd.tolerance_mm:g} mm)"] if nsd else []),
        *([f"HD95      {'-' if hd95.mean is None else f'{hd95.mean:.2f} mm'}"] if hd95 else []),
        f"training  {bill.training.seconds:.1f} s, {_energy(bill.training.energy_kwh, bill.training.co2_kg)}",
        f"total     {bill.total.seconds:.1f} s with {validation_seconds:.1f} s of validation, "
        f"{_energy(bill.total.energy_kwh, bill.total.co2_kg)}; {len(bill.segments)} attempt(s), "
        f"{bill.waste.seconds:.1f} s wasted",
        *(f"unknown   energy of {part}: {reason}" for part, reason in bill.unmeasured.items()),
        f"voxels    {result.voxels:.4g}, {100 * result.voxel_share:.2f} % of constant patch size",
        *_notes(trial),
        f"weights   sha256 {result.weights_sha256}",
        f"predict   {predict_command(trial.folder, trial.spec)}",
    ]
    return "\n".join(lines)


def _notes(trial: FinishedTrial) -> list[str]:
    """Lines of trials that start on some of the cases, or that stopped before their end."""
    spec, stopped = trial.spec, trial.spec.stopped_at(trial.result.iterations)
    lines = [f"note      {remark}" for remark in trial.result.remarks]
    lines += [] if spec.data is None else [f"data      {data_words(spec.axes, spec.data)}"]
    if stopped is not None:
        reached = f"validation Dice {spec.training.stop_at_dice:g} reached"
        lines.append(f"stopped   at iteration {stopped} of {spec.curriculum.total_iterations}: {reached}")
    return lines


def _charge(charge: Charge) -> dict[str, Any]:
    return {"seconds": charge.seconds, "energy_kwh": charge.energy_kwh, "co2_kg": charge.co2_kg}


def _segment(segment: CostSegment) -> dict[str, Any]:
    header, own = segment.header, ("started_at", "ended_at", "iteration_start", "iteration_stop")
    return {
        **{name: getattr(segment, name) for name in own},
        **_charge(segment.charge),
        "waste_seconds": segment.waste.seconds,
        "hardware": {"host": header.hostname, "cpu": header.cpu_name, "gpus": list(header.gpu_names)},
        "gpu_ids": list(header.gpu_ids),
        "cpu_share": header.cpu_share,
        "concurrent_trials": header.concurrent_trials,
        "meter": record_to_json(header.meter),
    }


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _energy(energy_kwh: float | None, co2_kg: float | None) -> str:
    if energy_kwh is None or co2_kg is None:
        return "energy unmeasured"
    return f"{1000 * energy_kwh:.3f} Wh, {1000 * co2_kg:.3f} g CO2"

"""A trial's progress on the terminal: iterations, stage, patch, batch, loss, pseudo Dice and time left.

Time left counts voxels, not iterations: with growing patches the last iterations are the dearest.
"""

from __future__ import annotations

import time
from itertools import accumulate
from typing import IO, Any

from study.progress import Progress
from study.records import EpochReport, Phase, TrialSpec
from study.stage_table import size_text
from study.terminal import time_left

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

        from study.console import PlainConsole

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
        if self._plain and first_iteration:
            print(f"resuming at iteration {first_iteration} of {total}", file=self._plain, flush=True)

    def iteration_done(self, report: Any) -> None:
        """Advance the bar."""
        now = time.monotonic()
        if now - self._printed < (LINE_INTERVAL_SECONDS if self._plain else BAR_INTERVAL_SECONDS):
            return
        self._printed = now
        state = self._state(report)
        self._bar.update(self._task, completed=report.iteration + 1, state=state)
        if self._plain:
            total = self._spec.curriculum.total_iterations if self._spec else 0
            print(f"iteration {report.iteration + 1}/{total}  {state}", file=self._plain, flush=True)

    def epoch_done(self, report: EpochReport) -> None:
        """Remember the pseudo Dice."""
        self._dice = report.pseudo_dice if report.pseudo_dice is not None else self._dice

    def phase(self, phase: Phase) -> None:
        """Name what is being done."""
        words = phase.value.replace("_", " ")
        if self._task is not None:
            self._bar.update(self._task, description=words)
        if self._plain:
            print(words, file=self._plain, flush=True)

    def remark(self, text: str) -> None:
        """Print it, above the bar."""
        if self._plain:
            print(f"note: {text}", file=self._plain, flush=True)
        else:
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
            print(state, file=self._plain, flush=True)

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

"""`trial`: one training without Ray. The same command resumes it, or prints the stored result when it has finished.

Time left counts voxels, not iterations: with growing patches the last iterations are the dearest. All figures of a
finished trial come from the ledger.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import IO, Any

from study.buckets.storage import local, place
from study.cli.options import (
    absolute,
    add_curriculum_options,
    add_data_curriculum_options,
    add_data_option,
    add_stall_option,
    add_training_options,
    axes_from,
    need_whole,
    stall_seconds_of,
    training_from,
)
from study.common.machine import MachineShare, resolve_device
from study.common.serialize import record_to_json
from study.common.setting import number, whole
from study.common.terminal import output_to, say, time_left
from study.curriculum.table import data_words, size_text
from study.nnunet.datasets import data_paths, find_dataset
from study.nnunet.identity import check_neighbours
from study.nnunet.paths import previous_stage_folder
from study.run.meter import check_country
from study.run.progress import Progress, StopRequest
from study.run.provenance import Workplace, inputs_of
from study.run.trial import FinishedTrial, run_trial
from study.store.costs import Charge, CostSegment
from study.store.ledger import Ledger
from study.store.prediction import predict_command
from study.store.records import EpochReport, Phase
from study.store.results import DEFAULT_TOLERANCE_MM, HD95, METRICS, NSD, Metrics
from study.store.specification import METERS, Energy, TrialSpec

EXAMPLES = """\
  python -m study trial --data data --dataset 4 --scheme pgps --out trials
  python -m study trial --data data --dataset 4 --scheme pgps --optimizer adamw --epochs 10 \\
      --iterations-per-epoch 40 --validation-batches 2 --no-mirroring --device cpu --out trials
  python -m study trial --data data --dataset 4 --scheme cps --budget 0.25 --out trials --json
  python -m study trial --data data --dataset 4 --scheme pgps --pdl-fraction 0.25 --pdl-epochs 100 \\
      --stop-at-dice 0.85 --out trials
  python -m study trial --data data --dataset 4 --scheme pgps --metrics nsd hd95_mm --nsd-tolerance-mm 1 --out trials
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `trial`."""
    add_data_option(parser)
    parser.add_argument("--dataset", required=True, metavar="ID|NAME", help="4 or Dataset004_Hippocampus")
    parser.add_argument("--plans", metavar="NAME", help="default: the dataset's only plans, or nnUNetPlans")
    parser.add_argument("--configuration", default="3d_fullres", help="default: 3d_fullres")
    parser.add_argument("--fold", type=whole, default=0, metavar="N", help="default: 0")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of weights and batches (default: 0)")
    parser.add_argument(
        "--previous-stage",
        type=local,
        metavar="DIR",
        help="for a cascade: a study (or one of its trials) with all folds of the stage before, or nnU-Net's folder",
    )
    parser.add_argument("--out", type=place, required=True, metavar="DIR|URL", help="study folder, made if absent")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    add_curriculum_options(parser)
    add_data_curriculum_options(parser)
    add_training_options(parser)
    metrics = parser.add_argument_group("metrics beside Dice (of a finished trial, from its stored predictions)")
    metrics.add_argument("--metrics", nargs="+", default=[], metavar="NAME", help=f"of {', '.join(METRICS)}")
    metrics.add_argument(
        "--nsd-tolerance-mm",
        type=number,
        default=DEFAULT_TOLERANCE_MM,
        metavar="X",
        help=f"of nsd; take the dataset's (default: {DEFAULT_TOLERANCE_MM:g})",
    )
    machine = parser.add_argument_group("machine (does not change the result)")
    machine.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    machine.add_argument("--cpus", type=number, metavar="X", help="threads (default: all cores)")
    machine.add_argument("--data-workers", type=whole, metavar="N", help="processes that make batches")
    machine.add_argument(
        "--compile-cache", type=absolute, metavar="DIR", help="for compiled kernels (default: the user's cache folder)"
    )
    add_stall_option(machine, "write a checkpoint and end when no batch comes for so long")
    machine.add_argument("--meter", default="codecarbon", help=f"{' or '.join(METERS)} (default: codecarbon)")
    machine.add_argument("--country", metavar="ISO3", help="grid of the CO2 figure (default: world average)")
    machine.add_argument("--pue", type=number, default=1.0, metavar="X", help="of the data centre (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Train, resume, or show what is stored."""
    energy = Energy(meter=args.meter, country=args.country, pue=args.pue)
    check_country(args.country)
    metrics = Metrics(names=tuple(args.metrics), nsd_tolerance_mm=args.nsd_tolerance_mm)
    return _train(args, _spec(args), energy, metrics)


def _train(args: argparse.Namespace, spec: TrialSpec, energy: Energy, metrics: Metrics) -> int:
    from study.buckets.checkout import checkout_of_one

    paths = data_paths(args.data)
    dataset = find_dataset(paths, args.dataset)
    workplace = Workplace(
        data=paths,
        resources=MachineShare(
            device=args.device, cpus=args.cpus, data_workers=args.data_workers, compile_cache=args.compile_cache
        ),
        energy=energy,
        previous_stage=previous_stage_folder(dataset, spec.plans, spec.configuration, args.previous_stage),
        metrics=metrics,
        stall_seconds=stall_seconds_of(args),
    )
    resolve_device(args.device)
    checkout = checkout_of_one(args.out)
    ledger = Ledger(checkout.study)
    check_neighbours(ledger, ledger.trials(), inputs_of(spec, workplace))
    folder, cases = ledger.add(spec, by_hand=True), len(dataset.split(spec.fold).validation)
    stop = StopRequest()
    with (
        checkout.checked_out(folder, metrics),
        _stopping_on_signals(stop),
        output_to(folder.log_path) as terminal,
        TerminalProgress(terminal, cases) as progress,
    ):
        trial = run_trial(spec, ledger, workplace, progress=progress, stop=stop)
    say(checkout.named(json.dumps(as_json(trial)) if args.json else as_text(trial), folder))
    return 0


def _spec(args: argparse.Namespace) -> TrialSpec:
    from study.search.trials import make_spec, prepared_lookup, ranked_cases

    axes, training, fold = axes_from(args), training_from(args), need_whole("fold", args.fold)
    lookup = prepared_lookup(data_paths(args.data))
    plan, split_sha256 = lookup(args.dataset, args.plans, args.configuration, fold)
    return make_spec(
        plan=plan,
        split_sha256=split_sha256,
        fold=fold,
        seed=args.seed,
        scheme=args.scheme,
        axes=axes,
        training=training,
        ranked=ranked_cases(lookup, args.dataset, fold, axes),
    )


@contextmanager
def _stopping_on_signals(stop: StopRequest) -> Iterator[None]:
    before = {number: signal.signal(number, stop.signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        # Once it is stopping, more of them change nothing.
        if not stop.requested:
            for number_, action in before.items():
                signal.signal(number_, action)


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
    bill, result = trial.bill, record_to_json(trial.result)
    return {
        "trial_id": trial.folder.trial_id,
        "scheme": trial.spec.scheme,
        **{name: result[name] for name in ("dice", "dice_per_class", "dice_per_case", "metrics")},
        "runtime_seconds": bill.training.seconds,
        "energy_kwh": bill.training.energy_kwh,
        "co2_kg": bill.training.co2_kg,
        **{name: result[name] for name in ("voxels", "voxel_share", "weights_sha256", "iterations")},
        "stopped_at_iteration": trial.spec.stopped_at(trial.result.iterations),
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
    header, known = segment.header, record_to_json(segment.header)
    return {
        **{name: getattr(segment, name) for name in ("started_at", "ended_at", "iteration_start", "iteration_stop")},
        **_charge(segment.charge),
        "waste_seconds": segment.waste.seconds,
        "hardware": {"host": header.hostname, "cpu": header.cpu_name, "gpus": list(header.gpu_names)},
        "cpu_share": header.cpu_share,
        **{name: known[name] for name in ("gpu_ids", "concurrent_trials", "meter")},
    }


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _energy(energy_kwh: float | None, co2_kg: float | None) -> str:
    if energy_kwh is None or co2_kg is None:
        return "energy unmeasured"
    return f"{1000 * energy_kwh:.3f} Wh, {1000 * co2_kg:.3f} g CO2"

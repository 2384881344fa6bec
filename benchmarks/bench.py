"""`bench`: what a trial, or a study, costs besides the training itself, measured on this machine in one run."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from study.cli.options import add_curriculum_options, add_data_option, axes_from, need_whole
from study.common.setting import whole

if TYPE_CHECKING:
    from benchmarks.confirm import ConfirmBench
    from benchmarks.gpu import GpuBench
    from benchmarks.scheduler import SchedulerBench
    from benchmarks.search import SearchBench
    from benchmarks.trial import TrialBench
    from study.nnunet.datasets import DataPaths

    Bench = TrialBench | GpuBench | SchedulerBench | SearchBench | ConfirmBench

EXAMPLES = """\
  python -m study bench trial
  python -m study bench trial --data data --dataset 4 --scheme pgps --data-workers 2 --json
  python -m study bench gpu --data data --dataset 4 --json
  python -m study bench scheduler
  python -m study bench scheduler --trials 200 --searcher random
  python -m study bench search --surfaces 200
  python -m study bench confirm --races 200
  python -m study bench search --table
"""
SEARCHERS = ("optuna", "random")
FEWEST_TRIALS, MOST_TRIALS = 8, 100_000
FEWEST_SURFACES, MOST_SURFACES = 3, 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bench`."""
    parser.add_argument("benchmark", choices=tuple(MEASURES), help="what to measure")
    add_data_option(parser)
    parser.add_argument("--dataset", metavar="ID|NAME", help="default: the embedded data, made for the purpose")
    parser.add_argument("--plans", metavar="NAME", help="default: the dataset's only plans, or nnUNetPlans")
    parser.add_argument("--configuration", default="3d_fullres", help="default: 3d_fullres")
    parser.add_argument("--epochs", type=whole, default=4, metavar="N", help="default: 4")
    parser.add_argument("--iterations-per-epoch", type=whole, default=60, metavar="N", help="default: 60")
    parser.add_argument("--data-workers", type=whole, default=2, metavar="N", help="default: 2")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--trials", type=whole, default=1000, metavar="N", help="of scheduler (default: 1000)")
    parser.add_argument("--searcher", default="optuna", help="of scheduler: optuna or random (default: optuna)")
    parser.add_argument("--surfaces", type=whole, default=30, metavar="N", help="of search (default: 30)")
    parser.add_argument("--races", type=whole, default=200, metavar="N", help="of confirm (default: 200)")
    parser.add_argument("--table", action="store_true", help="of search: a stored grid, --surfaces are seeds then")
    parser.add_argument("--no-compile", action="store_true", help="of gpu: no compiled steps, which take minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_curriculum_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from study.common.machine import resolve_device

    with tempfile.TemporaryDirectory(prefix="pgps-bench-") as folder:
        figures = MEASURES[args.benchmark](args, Path(folder))
    print(json.dumps(figures.to_json()) if args.json else _text(figures))
    if args.benchmark == "trial" and not args.json and resolve_device("auto") == "cpu":
        print("no CUDA device here: these are the CPU's; `bench gpu` measures the steps of a GPU")
    return 0


def _text(figures: Bench) -> str:
    from benchmarks.confirm import ConfirmBench
    from benchmarks.gpu import GpuBench, as_text
    from benchmarks.search import SearchBench
    from benchmarks.trial import TrialBench

    if isinstance(figures, SearchBench | ConfirmBench):
        return figures.as_text()

    if isinstance(figures, GpuBench):
        return as_text(figures)
    return _trial_text(figures) if isinstance(figures, TrialBench) else _scheduler_text(figures)


def _scheduler_text(figures: SchedulerBench) -> str:
    return (
        f"per trial       {figures.seconds_per_trial:.3f} s over {figures.trials}, {figures.at_a_time} at a time\n"
        f"first quarter   {figures.first_quarter_seconds:.3f} s, last quarter {figures.last_quarter_seconds:.3f} s "
        f"(ratio {figures.growth:.2f})\n"
        f"start           {figures.start_seconds:.1f} s until the first trial began\n"
        f"driver's memory {figures.peak_memory_mib:.0f} MiB at most"
    )


def _trial_text(figures: TrialBench) -> str:
    return (
        f"start to first iteration   {figures.start_seconds:.1f} s\n"
        f"not forward/backward/step  {100 * figures.overhead_share:.1f} % of training time "
        f"({100 * figures.fetch_share:.1f} % waiting for batches)\n"
        f"stage change               {figures.stage_change_iterations:+.2f} ordinary iterations (median of "
        f"{figures.stage_changes}, largest {figures.largest_stage_change_iterations:+.2f})\n"
        f"ordinary iteration         {1000 * figures.iteration_seconds[0]:.0f} ms in the first stage, "
        f"{1000 * figures.iteration_seconds[-1]:.0f} ms in the last\n"
        f"CPU time of a batch        {figures.batch_cpu_ms[0]:.1f} ms in the first stage, "
        f"{figures.batch_cpu_ms[-1]:.1f} ms in the last\n"
        f"between iterations         {figures.between_ms:.2f} ms of seeds, reports, books and clocks (median)\n"
        f"peak memory                {figures.peak_memory_mib:.0f} MiB\n"
        f"start in a study           {figures.first_of_worker_seconds:.1f} s for a worker's first trial, "
        f"{figures.next_of_worker_seconds:.1f} s for its next "
        f"(ratio {figures.first_of_worker_seconds / figures.next_of_worker_seconds:.1f})"
    )


def _measure_scheduler(args: argparse.Namespace, folder: Path) -> SchedulerBench:
    from study.cli.demo import prepare_phantoms
    from study.common.errors import check_choice, check_count
    from study.nnunet.phantom import NAME

    check_count("--trials", args.trials, least=FEWEST_TRIALS, most=MOST_TRIALS)
    check_choice("--searcher", args.searcher, SEARCHERS)
    paths = prepare_phantoms(folder / "data")
    from study.cluster.local import configure_ray

    configure_ray(address=None)
    from benchmarks.scheduler import measure

    return measure(paths, NAME, folder, trials=args.trials, searcher=args.searcher)


def _measure_gpu(args: argparse.Namespace, folder: Path) -> GpuBench:
    from benchmarks.gpu import measure
    from study.common.errors import InvalidInputError
    from study.common.machine import resolve_device
    from study.search.trials import make_spec, prepared_lookup
    from study.store.specification import TrainingSettings

    instead = "measure a CPU with `bench trial`"
    if args.device == "cpu":
        raise InvalidInputError(
            field="--device", received=args.device, legal=f"auto or cuda for `bench gpu`; {instead}"
        )
    resolve_device("cuda", instead=instead)
    axes, paths, name = axes_from(args), *_data(args, folder)
    if axes.order == "random":
        raise InvalidInputError(field="--order", received=axes.order, legal="growing or shrinking: stages one by one")
    plan, split = prepared_lookup(paths)(name, args.plans, args.configuration, 0)
    spec = make_spec(
        plan=plan, split_sha256=split, fold=0, seed=0, scheme=args.scheme, axes=axes, training=TrainingSettings()
    )
    return measure(spec, paths, folder, compiles=not args.no_compile)


def _data(args: argparse.Namespace, folder: Path) -> tuple[DataPaths, str]:
    """What is measured on, and the dataset's id or name: the user's, or the embedded one."""
    from study.cli.demo import prepare_phantoms
    from study.common.errors import MissingDataError
    from study.nnunet.datasets import data_paths
    from study.nnunet.phantom import NAME

    if args.data and not args.dataset:
        raise MissingDataError(f"--data {args.data} holds no dataset by itself: give --dataset too, or neither")
    return (data_paths(args.data), args.dataset) if args.dataset else (prepare_phantoms(folder / "data"), NAME)


def _measure(args: argparse.Namespace, folder: Path) -> TrialBench:
    from benchmarks.trial import measure
    from study.common.machine import MachineShare, resolve_device
    from study.run.provenance import Workplace
    from study.run.trial_process import TrialJob
    from study.search.trials import make_spec, prepared_lookup
    from study.store.ledger import Ledger
    from study.store.specification import TrainingSettings

    axes = axes_from(args)
    resolve_device(args.device)
    training = TrainingSettings(
        optimizer="adamw",
        epochs=need_whole("--epochs", args.epochs),
        iterations_per_epoch=args.iterations_per_epoch,
        validation_batches=2,
        test_time_mirroring=False,
    )
    resources = MachineShare(device=args.device, data_workers=args.data_workers)
    paths, name = _data(args, folder)
    plan, split = prepared_lookup(paths)(name, args.plans, args.configuration, 0)
    spec = make_spec(plan=plan, split_sha256=split, fold=0, seed=0, scheme=args.scheme, axes=axes, training=training)
    ledger = Ledger.create(folder / "study")
    workplace = Workplace(data=paths, resources=resources)
    job = TrialJob(study=ledger.root, trial_id=spec.trial_id, workplace=workplace, stop_file=folder / "stop")
    return measure(spec, ledger, job, folder / "iterations.json")


def _measure_search(args: argparse.Namespace, folder: Path) -> SearchBench:
    from benchmarks.grid import STORED
    from benchmarks.search import SEARCHERS, measure, measure_stored
    from study.common.errors import check_count
    from study.common.machine import usable_cores

    check_count("--surfaces", args.surfaces, least=FEWEST_SURFACES, most=MOST_SURFACES)
    if args.table:
        return measure_stored(STORED, seeds=args.surfaces, searchers=tuple(SEARCHERS), jobs=usable_cores())
    return measure(surfaces=args.surfaces, searchers=tuple(SEARCHERS), jobs=usable_cores())


def _measure_confirm(args: argparse.Namespace, folder: Path) -> ConfirmBench:
    from benchmarks.confirm import measure
    from study.common.errors import check_count
    from study.common.machine import usable_cores

    check_count("--races", args.races, least=FEWEST_SURFACES, most=MOST_SURFACES)
    return measure(races=args.races, jobs=usable_cores())


MEASURES: Mapping[str, Callable[[argparse.Namespace, Path], Bench]] = {
    "trial": _measure,
    "gpu": _measure_gpu,
    "scheduler": _measure_scheduler,
    "search": _measure_search,
    "confirm": _measure_confirm,
}

"""`trial`: one training without Ray. The same command resumes it, or prints the stored result when it has finished."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from study.buckets.storage import place
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
from study.common.setting import number, whole
from study.store.results import DEFAULT_TOLERANCE_MM, METRICS, Metrics
from study.store.specification import METERS, Energy, TrialSpec

if TYPE_CHECKING:
    from study.run.progress import StopRequest

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
        type=Path,
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
    from study.run.meter import check_country

    energy = Energy(meter=args.meter, country=args.country, pue=args.pue)
    check_country(args.country)
    metrics = Metrics(names=tuple(args.metrics), nsd_tolerance_mm=args.nsd_tolerance_mm)
    spec = _spec(args)
    return _train(args, spec, energy, metrics)


def _train(args: argparse.Namespace, spec: TrialSpec, energy: Energy, metrics: Metrics) -> int:
    from study.buckets.checkout import checkout_of_one
    from study.cli.trial_screen import TerminalProgress, as_json, as_text
    from study.common.machine import MachineShare, resolve_device
    from study.common.terminal import output_to, say
    from study.nnunet.datasets import data_paths, find_dataset
    from study.nnunet.identity import check_neighbours
    from study.nnunet.paths import previous_stage_folder
    from study.run.progress import StopRequest
    from study.run.trial import run_trial
    from study.run.workplace import Workplace, inputs_of
    from study.store.ledger import Ledger

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
    from study.nnunet.datasets import data_paths
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

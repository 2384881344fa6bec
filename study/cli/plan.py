"""`plan`: the stage table of a curriculum and its voxel share, without data, network or training."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from study.cli.costs import Sources, add_costs_option, opened
from study.cli.options import (
    LEARNING_RATE,
    add_curriculum_options,
    add_data_curriculum_options,
    add_learning_rate_options,
    axes_from,
    training_from,
)
from study.common.errors import InvalidInputError
from study.common.setting import whole
from study.common.terminal import python
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import Curriculum, resolve
from study.curriculum.data_curriculum import phase_iterations
from study.curriculum.schemes import Axes
from study.curriculum.table import curriculum_as_json, first_phase_words, rich_table, shortfalls, size_text, summary
from study.nnunet.plans import read_plan
from study.store.specification import TrainingSettings
from study.store.training_settings import LearningRates

EXAMPLES = """\
  python -m study plan --patch-size 128 128 128 --divisors 32 32 32 --batch-size 2 --scheme pgps
  python -m study plan --patch-size 40 56 40 --divisors 8 8 8 --batch-size 9 --scheme pgps+ --allocation reference
  python -m study plan --patch-size 40 56 40 --divisors 8 8 8 --batch-size 9 --scheme cps --pdl-fraction 0.25
  python -m study plan --patch-size 40 56 40 --divisors 8 8 8 --batch-size 9 --learning-rate-schedule warmup
  python -m study plan --plans data/nnUNet_preprocessed/Dataset004_Hippocampus/nnUNetPlans.json --stages 3 --json
"""
DEFAULT_CONFIGURATION = "3d_fullres"
NUMBERS = ("--patch-size", "--divisors", "--batch-size")
FROM_FILE = ("--plans", "--configuration")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `plan`."""
    network = parser.add_argument_group("network (three numbers, or a plans file)")
    network.add_argument(
        "--patch-size", nargs="+", type=whole, metavar="N", help="full patch, voxels per axis, one to three axes"
    )
    network.add_argument("--divisors", nargs="+", type=whole, metavar="N", help="product of the strides of each axis")
    network.add_argument("--batch-size", type=whole, metavar="N", help="samples per batch at the full patch")
    network.add_argument("--plans", type=Path, metavar="FILE", help="nnU-Net plans file, instead of the three above")
    network.add_argument("--configuration", help=f"of the plans file (default: {DEFAULT_CONFIGURATION})")
    add_curriculum_options(parser)
    add_data_curriculum_options(parser)
    add_learning_rate_options(parser)
    length = parser.add_argument_group("length")
    length.add_argument("--epochs", type=whole, default=1000, metavar="N", help="default: 1000")
    length.add_argument("--iterations-per-epoch", type=whole, default=250, metavar="N", help="default: 250")
    length.add_argument("--seed", type=whole, default=0, metavar="N", help="of the draws of a random order; default: 0")
    add_costs_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Resolve the curriculum and print its table."""
    geometry, axes = _geometry(args), axes_from(args)
    curriculum = resolve(
        geometry, axes, epochs=args.epochs, iterations_per_epoch=args.iterations_per_epoch, seed=args.seed
    )
    until_iteration = _first_phase(axes, curriculum, args.epochs)
    rates = _rates(curriculum, args)
    costs = _costs(args, axes) if args.costs_from or (args.plans and not args.json) else []
    if args.json:
        phase = {"fraction": axes.pdl_fraction, "metric": axes.pdl_metric, "until_iteration": until_iteration}
        pdl = None if until_iteration is None else phase
        shown = {**curriculum_as_json(curriculum, axes), "learning_rates": rates, "pdl": pdl, "costs": costs}
        print(json.dumps({"scheme": args.scheme, **shown}))
        return 0
    from study.common.tables import PlainConsole

    console = PlainConsole()
    asked = any(getattr(args, name) is not None for name in LEARNING_RATE)
    table = rich_table(curriculum, rates if asked else ())
    console.print(f"{args.scheme}: {_described(geometry)}", table, summary(curriculum), sep="\n")
    if until_iteration is not None:
        console.print(f"data: {first_phase_words(axes, until_iteration)}")
    for note in shortfalls(curriculum, axes):
        console.print(f"note: {note}")
    for line in costs:
        console.print(line)
    return 0


def _costs(args: argparse.Namespace, axes: Axes) -> list[str]:
    """What one training will cost, on each kind of hardware that is known of."""
    from study.buckets.view import readings
    from study.search.trials import make_spec

    if args.plans is None:
        legal = "left out without --plans FILE: costs are those of a network"
        raise InvalidInputError(field="--costs-from", received=str(args.costs_from[0]), legal=legal)
    spec = make_spec(
        plan=read_plan(args.plans, args.configuration or DEFAULT_CONFIGURATION),
        split_sha256="",
        fold=0,
        seed=args.seed,
        scheme=args.scheme,
        axes=replace(axes, pdl_fraction=0.0),
        training=TrainingSettings(epochs=args.epochs, iterations_per_epoch=args.iterations_per_epoch),
    )
    with readings(args.costs_from or ()) as found:
        ledgers, files = opened(found)
        sources = Sources(
            ledgers=ledgers,
            calibrations=files,
            datasets={spec.dataset: args.plans.parent},
            command=f"{python()} -m study calibrate --dataset {spec.dataset} --plans {spec.plans}",
            strict=bool(args.costs_from),
        )
        return sources.lines(spec)


def _rates(curriculum: Curriculum, args: argparse.Namespace) -> list[tuple[float, float]]:
    """First and last learning rate of each stage; in random order of its first draw and of the training's end."""
    rate = LearningRates(training_from(args).resolved(constant_patch_size=curriculum.is_constant), curriculum)
    last = curriculum.total_iterations - 1
    ends = [
        (stage.first_iteration, last if curriculum.random_draws else stage.first_iteration + stage.iterations - 1)
        for stage in curriculum.stages
    ]
    return [(rate(min(first, last)), rate(end)) for first, end in ends]


def _first_phase(axes: Axes, curriculum: Curriculum, epochs: int) -> int | None:
    """Iterations that draw some of the cases alone; None when all are drawn throughout."""
    if not axes.needs_ranking:
        return None
    per_epoch = curriculum.total_iterations // epochs
    return phase_iterations(axes.pdl_epochs, epochs=epochs, iterations_per_epoch=per_epoch)


def _geometry(args: argparse.Namespace) -> Geometry:
    given = [option for option in (*NUMBERS, *FROM_FILE) if _value(args, option) is not None]
    if args.plans is not None and set(given) <= set(FROM_FILE):
        return read_plan(args.plans, args.configuration or DEFAULT_CONFIGURATION).geometry
    if given == list(NUMBERS):
        return Geometry(patch_size=args.patch_size, divisors=args.divisors, batch_size=args.batch_size)
    raise InvalidInputError(
        field="network options",
        received=" ".join(given) or "none",
        legal=f"{' '.join(NUMBERS)}, or {' '.join(FROM_FILE)}",
        remedy="give all of one group and none of the other",
    )


def _value(args: argparse.Namespace, option: str) -> object:
    return getattr(args, option.removeprefix("--").replace("-", "_"))


def _described(geometry: Geometry) -> str:
    return (
        f"patch {size_text(geometry.patch_size)}, divisors {size_text(geometry.divisors)}, "
        f"batch size {geometry.batch_size}"
    )

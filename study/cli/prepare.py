"""`prepare`: convert, verify, plan and preprocess a dataset with nnU-Net, once."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.cli.options import add_data_option, need_whole
from study.common.errors import InvalidInputError
from study.common.setting import whole
from study.common.terminal import say
from study.nnunet.datasets import data_paths, dataset_id
from study.nnunet.plans import DEFAULT_BATCH_SIZE, DEFAULT_PLANNER, SmallPlan, planner_named

if TYPE_CHECKING:
    from study.nnunet.prepare import Preparation
    from study.nnunet.prepare.sources import PlansRecipe, RawFolder

EXAMPLES = """\
  # a task of the Medical Segmentation Decathlon, nnU-Net's default plan
  python -m study prepare --msd Task04_Hippocampus --id 4 --data data
  # the same images, with a plan that a CPU can train
  python -m study prepare --msd Task04_Hippocampus --id 4 --data data --max-features 64
  # an nnU-Net raw dataset, used where it lies; folders from nnU-Net's variables
  python -m study prepare --raw Dataset007_Pancreas --planner nnUNetPlannerResEncL
  # several plans, whose cases are preprocessed once where they share them
  python -m study prepare --msd Task04_Hippocampus --id 4 --data data --planner ExperimentPlanner ResEncM ResEncL
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--msd", type=Path, metavar="FOLDER", help="a Medical Segmentation Decathlon task, Task04_…")
    source.add_argument("--raw", type=Path, metavar="FOLDER", help="an nnU-Net raw dataset, Dataset004_…")
    parser.add_argument("--id", type=whole, metavar="N", help="nnU-Net's number of the dataset (default: the folder's)")
    add_data_option(parser)
    planner = "nnU-Net's, one or more: ResEncM, ResEncL, ResEncXL, another's name (default: ExperimentPlanner)"
    parser.add_argument("--planner", nargs="+", metavar="NAME", help=planner)
    parser.add_argument("--configurations", nargs="+", metavar="NAME", help="preprocessed ones (default: 3d_fullres)")
    parser.add_argument("--plans-name", metavar="NAME", help="name of the plans (default: the planner's)")
    parser.add_argument("--workers", type=whole, metavar="N", help="processes (default: one per core, at most 8)")
    small = parser.add_argument_group("small plan (saved under its own name; the planner's own plan is not altered)")
    small.add_argument("--max-features", type=whole, metavar="N", help="features of the deepest stage, halved upwards")
    small.add_argument("--patch-size", type=whole, nargs="+", metavar="N", help="voxels per axis, in the plan's order")
    small.add_argument("--batch-size", type=whole, metavar="N", help=f"samples (default: {DEFAULT_BATCH_SIZE})")


def run(args: argparse.Namespace) -> int:
    """Prepare the dataset, or say that it is prepared."""
    from study.cli.live import preparation_bar
    from study.nnunet.prepare import prepare

    source, recipes = _source(args), _recipes(args)
    workers = None if args.workers is None else need_whole("--workers", args.workers)
    for recipe in recipes:
        with preparation_bar(recipe) as report:
            done = prepare(source, data_paths(args.data), recipe, workers=workers, report=report)
        _print(done, recipe)
    say(f"next: {_next_command(done, recipe, args.data)}")
    return 0


def _source(args: argparse.Namespace) -> RawFolder:
    from study.nnunet.prepare.sources import msd_source, raw_source

    number = None if args.id is None else need_whole("--id", args.id)
    return msd_source(args.msd, number) if args.msd is not None else raw_source(args.raw, number)


def _recipes(args: argparse.Namespace) -> list[PlansRecipe]:
    """One for each planner."""
    from study.nnunet.prepare.sources import PlansRecipe

    planners = list(dict.fromkeys(map(planner_named, args.planner or [DEFAULT_PLANNER])))
    if len(planners) > 1 and args.plans_name is not None:
        legal = f"left out for {len(planners)} planners, whose plans have a name each"
        raise InvalidInputError(field="--plans-name", received=args.plans_name, legal=legal)
    given: dict[str, Any] = {"plans_name": args.plans_name, "small": _small_plan(args)}
    if args.configurations is not None:
        given["configurations"] = tuple(dict.fromkeys(args.configurations))
    return [PlansRecipe(planner=planner, **given) for planner in planners]


def _small_plan(args: argparse.Namespace) -> SmallPlan | None:
    if args.max_features is args.patch_size is args.batch_size is None:
        return None
    return SmallPlan(
        max_features=args.max_features,
        patch_size=tuple(args.patch_size) if args.patch_size else None,
        batch_size=DEFAULT_BATCH_SIZE if args.batch_size is None else args.batch_size,
    )


def _print(done: Preparation, recipe: PlansRecipe) -> None:
    dataset = done.dataset
    print(f"{dataset.name} was already prepared" if done.already_done else f"{dataset.name} is prepared", end="")
    print(", nothing to do" if done.already_done else f", in {done.seconds:.0f} s")
    say(f"  folder         {dataset.folder}")
    print(f"  plans          {done.plans}")
    for configuration in recipe.configurations:
        geometry = dataset.plan(done.plans, configuration).geometry
        sizes = f"patch {_words(geometry.patch_size)}, divisors {_words(geometry.divisors)}"
        print(f"  {configuration:14} {sizes}, batch {geometry.batch_size}")
    for note in done.notes:
        say(f"  note           {note}")


def _next_command(done: Preparation, recipe: PlansRecipe, data: Path | None) -> str:
    # nnU-Net's 250,000 iterations of SGD would take weeks on a CPU.
    from study.common.machine import resolve_device
    from study.run.progress import FOR_A_CPU

    words = ["python -m study trial", *([f"--data {shlex.quote(str(data))}"] if data is not None else [])]
    words.append(f"--dataset {dataset_id(done.dataset.name)} --configuration {recipe.configurations[0]}")
    if len(done.dataset.plans_names()) > 1:
        words.append(f"--plans {done.plans}")
    words.append("--fold 0 --scheme pgps --out studies/first")
    return " ".join([*words, *([] if resolve_device("auto") == "cuda" else [f"--device cpu {FOR_A_CPU}"])])


def _words(size: tuple[int, ...]) -> str:
    return " ".join(str(n) for n in size)

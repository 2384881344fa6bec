"""`python -m analysis recommend`: one configuration within a limit or at the knee, and the commands that use it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.cli.options import add_source_options, reading
from study.buckets.storage import place
from study.common.errors import InvalidInputError, MissingDataError
from study.common.setting import number

if TYPE_CHECKING:
    from analysis.advice.advice import Recommendation
    from analysis.statistics.study_results import StudyResults

EXAMPLES = """  python -m analysis recommend studies/hippo --max-runtime-seconds 600
  python -m analysis recommend studies/hippo --max-co2-kg 0.05 --country FRA
  python -m analysis recommend studies/hippo --knee
  python -m analysis recommend studies/hippo --knee --cost energy_kwh --data data --json"""
LIMITS = ("runtime_seconds", "co2_kg", "energy_kwh")
_MODES = "one of --max-runtime-seconds, --max-co2-kg, --max-energy-kwh, --knee"
_DEFAULT_COST = "runtime_seconds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_source_options(parser)
    modes = parser.add_argument_group("what to look for (exactly one)")
    for name in LIMITS:
        unit = name.rpartition("_")[2]
        help_ = f"the best Dice whose training took at most so many {unit} per fold"
        modes.add_argument(f"--max-{name.replace('_', '-')}", type=number, metavar="X", help=help_)
    modes.add_argument("--knee", action="store_true", help="the knee of the front of Dice against a cost")
    parser.add_argument("--cost", metavar="NAME", help=f"of the knee (default: {_DEFAULT_COST})")
    parser.add_argument("--dataset", metavar="NAME", help="which one, if the studies have several")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="put this --data into the training commands (default: what the trial was trained with)",
    )
    parser.add_argument(
        "--out",
        type=place,
        default=Path("recommended"),
        metavar="DIR|URL",
        help="put this --out into the training commands (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the recommendation."""
    from analysis.advice.advice import advice
    from analysis.advice.text import print_advice

    mode = _mode(args)
    with reading(args) as (whole, folders):
        results = _of_dataset(whole, args.dataset)
        chosen = _choose(results, mode, args)
        found = advice(chosen, results, folders, out=args.out, data=args.data)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        print_advice(found, chosen.front.objectives[1])
    return 0


def _mode(args: argparse.Namespace) -> str:
    """`knee`, or the name of the limited cost."""
    given = [name for name in LIMITS if getattr(args, f"max_{name}") is not None]
    modes = [*given, *(["knee"] if args.knee else [])]
    if len(modes) != 1:
        words = [f"--max-{name.replace('_', '-')}" for name in given] + ["--knee"] * args.knee
        raise InvalidInputError(field="what to look for", received=" and ".join(words) or "nothing", legal=_MODES)
    if args.cost is not None and modes != ["knee"]:
        raise InvalidInputError(field="--cost", received=args.cost, legal="an option of --knee alone")
    return modes[0]


def _of_dataset(results: StudyResults, name: str | None) -> StudyResults:
    """The part about the one dataset that is meant."""
    from analysis.fronts.captions import states

    names = results.datasets
    if not names:
        raise MissingDataError(f"nothing to recommend: no trial has finished ({states(results.tables.trials)})")
    if (name or names[0]) not in names or (name is None and len(names) > 1):
        raise InvalidInputError(field="--dataset", received=name or "none", legal=f"one of {', '.join(names)}")
    return results.of(name or names[0])


def _choose(results: StudyResults, mode: str, args: argparse.Namespace) -> Recommendation:
    from analysis.advice.advice import at_knee, best_within
    from analysis.tables.columns import OBJECTIVES

    if mode != "knee":
        return best_within(results, OBJECTIVES[mode], getattr(args, f"max_{mode}"))
    cost = args.cost or _DEFAULT_COST
    costs = [name for name, objective in OBJECTIVES.items() if not objective.maximise]
    if cost not in costs:
        raise InvalidInputError(field="--cost", received=cost, legal=f"one of {', '.join(costs)}")
    return at_knee(results, OBJECTIVES[cost])

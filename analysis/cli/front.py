"""`python -m analysis front`: the non-dominated configurations of one or several studies."""

from __future__ import annotations

import argparse
import json
import math
import numbers
import sys
from typing import TYPE_CHECKING, Any

from analysis.cli.options import add_source_options, print_table, results_from

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fronts.front import Front

EXAMPLES = """  python -m analysis front studies/hippo
  python -m analysis front studies/hippo --objectives dice,co2_kg --by budget
  python -m analysis front studies/hippo --by hardware
  python -m analysis front studies/hippo --class 2
  python -m analysis front studies/hippo --objectives dice,runtime_seconds,co2_kg --json"""

# Columns that are shown however narrow the terminal is, beside the objectives and what tells fronts apart.
KEPT = ("summary", "dice", "trial_ids")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_source_options(parser)
    parser.add_argument(
        "--objectives",
        default="dice,runtime_seconds",
        metavar="A,B,…",
        help="what to compare (default: %(default)s); a wrong name lists the legal ones",
    )
    parser.add_argument("--by", metavar="COLUMN", help="a front for each value of a column, for example budget")
    parser.add_argument("--class", dest="label", metavar="LABEL", help="with Dice, NSD and HD95 of one class alone")
    parser.add_argument("--json", action="store_true", help="print a JSON list, remarks on standard error")


def run(args: argparse.Namespace) -> int:
    """Print the front."""
    from analysis.fronts.captions import caveats, left_out, states
    from analysis.fronts.front import pareto_front
    from analysis.fronts.hypervolume import judged
    from analysis.fronts.resampling import CaseDraws
    from analysis.statistics.intervals import with_intervals
    from analysis.tables.sources import about_carbon

    results = results_from(args, with_details=False)
    results = results if args.label is None else results.of_class(args.label)
    front = pareto_front(results.points, args.objectives.split(","), by=args.by)
    judgement = judged(front, CaseDraws(results.tables))
    best = with_intervals(judgement[judgement["non_dominated"]], results.tables)
    if args.json:
        print(json.dumps([point_as_json(point, front) for _, point in best.iterrows()], indent=1))
    elif not best.empty:
        _print_table(best, front, of_class=_of_class(args.label, front))
    nothing = [f"nothing on the front: {states(results.tables.trials)}"] if best.empty else []
    for sentence in [*nothing, *left_out(front), *caveats(front), *about_carbon(front.objectives)]:
        print(sentence, file=sys.stderr)
    return 0


def point_as_json(point: pd.Series[Any], front: Front) -> dict[str, Any]:
    """One point: its trials, what it is (axes, stage table, training settings), its objectives, how sure they are.

    Args:
        point: a row of `hypervolume.judged`.
        front: that it is on.
    """
    from analysis.tables.points import axes_of, training_of

    return {
        "point_id": point["point_id"],
        "dataset": point["dataset"],
        "plans": point["plans"],
        "configuration": point["configuration"],
        "summary": point["summary"],
        "scheme": point["scheme"],
        "method": point["method"],
        "axes": axes_of(point),
        "stages": json.loads(point["stage_table"]),
        "training": training_of(point),
        "objectives": {objective.name: float(point[objective.name]) for objective in front.objectives},
        "dice_interval": {
            "low": _number(point["dice_low"]),
            "high": _number(point["dice_high"]),
            "cases": _whole(point["n_cases"]),
        },
        "probability_on_front": _number(point["probability"]),
        "hypervolume_contribution": _number(point["contribution"]),
        "hardware": point["hardware"],
        "trial_ids": point["trial_ids"].split(),
        "folds": [int(fold) for fold in point["folds"].split()],
        "seeds": [int(seed) for seed in point["seeds"].split()],
        "studies": point["studies"].split(" | "),
    }


def _of_class(label: str | None, front: Front) -> str:
    """Which of the values are one class' alone."""
    from analysis.statistics.study_results import BY_CLASS

    labels = {objective.name: objective.label for objective in front.objectives}
    named = [labels.get(name, "Dice") for name in BY_CLASS if name in ("dice", *labels)]
    return "" if label is None else f", {' and '.join(named)} of class {label}"


def _number(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, numbers.Integral) else None


def _print_table(best: pd.DataFrame, front: Front, *, of_class: str) -> None:
    from analysis.tables.format import readable, without_empty

    groups = [*(["dataset"] if front.points["dataset"].nunique() > 1 else []), *([front.by] if front.by else [])]
    objectives = [objective.name for objective in front.objectives]
    interval = without_empty(best, ["dice_low", "dice_high"]) if "dice" in objectives else []
    values = [name for o in objectives for name in ([o, *interval] if o == "dice" else [o])]
    names = ["number", *groups, "summary", *values, "probability", "folds", "n_seeds", "trial_ids"]
    title = f"{len(best)} of {len(front.points)} points are on the front{of_class}"
    print_table(title, readable(best, names), keep=[name in (*KEPT, *groups, *objectives) for name in names])

"""`python -m analysis power`: the smallest difference of Dice that a study can show, and what more seeds would.

A one-sided test at 5 % finds the smallest difference in 80 % of studies like this one. Its error has three sources that
are told apart: cases, trainings (seeds), and folds, whose differences scatter by both.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import pandas as pd

from analysis.cli.options import add_source_options, print_table, results_from
from analysis.comparison.pairs import budget_words, dice
from analysis.statistics.tests import error_of_difference, smallest_difference
from analysis.tables.format import Table
from analysis.tables.methods import METHOD_LABELS
from study.common.errors import check_range

EXAMPLES = """  python -m analysis power studies/hippo
  python -m analysis power studies/hippo --training-sd 0.002
  python -m analysis power studies/hippo --baseline pgps --json"""

SEEDS = (1, 2, 3, 5)
ASSUMED_TRAINING_SD = 0.004
_HEADINGS = {
    "case_sd": "SD of cases",
    "fold_sd": "SD of folds",
    "baseline_training_sd": "SD of seeds, {}",
    "against_training_sd": "SD of seeds",
    "from_cases": "From cases alone",
    "detectable": "This study",
    **{f"with_{seeds}": f"{seeds} seed{'s' * (seeds > 1)}" for seeds in SEEDS},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_source_options(parser)
    parser.add_argument("--baseline", default="cps", metavar="SCHEME|ID", help="as of compare (default: %(default)s)")
    parser.add_argument(
        "--training-sd",
        type=float,
        default=ASSUMED_TRAINING_SD,
        metavar="SD",
        help="of a fold's Dice between seeds, where a study has one seed (default: %(default)s, an assumption)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from analysis.comparison.compare import compare

    check_range("training-sd", args.training_sd, 0, 1)
    rows = power(compare(results_from(args), baseline=args.baseline).with_rows().rows, training_sd=args.training_sd)
    if args.json:
        print(json.dumps(json.loads(rows.to_json(orient="records", double_precision=15)), indent=1, ensure_ascii=False))
        return 0
    title = "Smallest difference of Dice that can be shown"
    print_table(title, power_table(rows, METHOD_LABELS.get(args.baseline, args.baseline)))
    for sentence in power_sentences(rows):
        print(sentence)
    return 0


def power(rows: pd.DataFrame, *, training_sd: float = ASSUMED_TRAINING_SD) -> pd.DataFrame:
    """The rows of a comparison that have cases, with what they can show.

    Args:
        rows: of a `Comparison`.
        training_sd: SD of a fold's Dice between seeds, taken where it was not measured.

    Returns:
        The rows with `from_cases`, `training_sd`, `assumed` (whether that was not measured) and `with_1`, `with_2`, …:
        the smallest difference with so many seeds in each of the folds.
    """
    rows = rows[rows["case_sd"].notna()].copy()
    measured = np.sqrt((rows["baseline_training_sd"] ** 2 + rows["against_training_sd"] ** 2) / 2)
    rows["assumed"] = measured.isna()
    rows["training_sd"] = measured.fillna(training_sd)
    rows["from_cases"] = [_smallest(row, trainings=None) for _, row in rows.iterrows()]
    for seeds in SEEDS:
        found = [_smallest(row, trainings=seeds * int(row["n_folds"])) for _, row in rows.iterrows()]
        rows[f"with_{seeds}"] = found
    return rows


def power_table(rows: pd.DataFrame, baseline: str) -> Table:
    """What `power` gives, for people."""
    names = [name for name in _HEADINGS if rows[name].notna().any()]
    identity = ("Dataset", "Budget", "Method", "Cases", "Folds")
    return Table(
        headings=(*identity, *(_HEADINGS[name].format(baseline) for name in names)),
        numeric=(False, True, False, *(True for _ in (*identity[3:], *names))),
        rows=tuple(
            (
                *(
                    row["dataset"],
                    budget_words(row["budget"]),
                    row["against"],
                    str(row["n_cases"]),
                    str(row["n_folds"]),
                ),
                *(dice(row[name]) for name in names),
            )
            for _, row in rows.iterrows()
        ),
    )


def power_sentences(rows: pd.DataFrame) -> list[str]:
    """How to read the table."""
    sentences = [
        "Smallest true ΔDice that a one-sided test at 5 % finds in 80 % of such studies. "
        "From cases alone: if trainings of a configuration did not scatter at all. This study: with the error that its "
        "comparisons use, which with one seed is that of cases alone.",
        "With 1, 2, … seeds in each of these folds: (1.645 + 0.842) · √(SD of cases² / cases + 2 · SD of seeds² / "
        "trainings), both SDs as if known.",
    ]
    assumed = rows[rows["assumed"]]
    if len(assumed):
        sentences.append(
            f"SD of seeds {assumed['training_sd'].iloc[0]:g} is assumed in {len(assumed)} of {len(rows)} rows, where a "
            "method has one training per fold: --training-sd sets another, a second seed measures it."
        )
    return sentences


def _smallest(row: pd.Series[Any], *, trainings: int | None) -> float:
    error = error_of_difference(
        case_sd=row["case_sd"],
        cases=int(row["n_cases"]),
        training_sd=0.0 if trainings is None else row["training_sd"],
        trainings=trainings or 1,
    )
    return smallest_difference(error)

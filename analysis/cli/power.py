"""`python -m analysis power`: the smallest difference of Dice that a study can show, and what more seeds would."""

from __future__ import annotations

import argparse
import json

from analysis.cli.options import add_source_options, evidence_from
from study.common.checks import check_range

EXAMPLES = """  python -m analysis power studies/hippo
  python -m analysis power studies/hippo --training-sd 0.002
  python -m analysis power studies/hippo --baseline pgps --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    from analysis.comparison.power import ASSUMED_TRAINING_SD

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
    from analysis.cli.compare import print_table, something
    from analysis.comparison.compare import compare
    from analysis.comparison.power import power, power_sentences, power_table
    from analysis.tables.methods import METHOD_LABELS

    check_range("training-sd", args.training_sd, 0, 1)
    rows = power(something(compare(evidence_from(args), baseline=args.baseline)).rows, training_sd=args.training_sd)
    if args.json:
        print(json.dumps(json.loads(rows.to_json(orient="records", double_precision=15)), indent=1, ensure_ascii=False))
        return 0
    title = "Smallest difference of Dice that can be shown"
    print_table(title, power_table(rows, METHOD_LABELS.get(args.baseline, args.baseline)))
    for sentence in power_sentences(rows):
        print(sentence)
    return 0

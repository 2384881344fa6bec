"""`python -m analysis compare`: schemes against a baseline, case by case, in trials or in published numbers."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from analysis.cli.options import add_source_options, print_table, results_from
from study.common.errors import InvalidInputError

if TYPE_CHECKING:
    from analysis.comparison.compare import Comparison
    from analysis.comparison.reference import Publication

EXAMPLES = """  python -m analysis compare studies/hippo --baseline cps --against pgps,pgps+
  python -m analysis compare studies/hippo --reference miccai2024
  python -m analysis compare --reference miccai2024 --baseline cps --against pgps
  python -m analysis compare studies/hippo --against 1f0c2ab4 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_source_options(parser, optional=True)
    parser.add_argument(
        "--baseline",
        default="cps",
        metavar="SCHEME|ID",
        help="what is compared with: a scheme, or the id of a configuration or trial (default: %(default)s)",
    )
    parser.add_argument(
        "--against", metavar="A,B,…", help="schemes or ids to compare (default: every published scheme that is there)"
    )
    parser.add_argument(
        "--alternative",
        choices=("greater", "less"),
        default="greater",
        help="of the one-sided test: the method is above (greater) or below (less) the baseline",
    )
    parser.add_argument("--reference", metavar="NAME", help="published numbers, alone or beside the trials: miccai2024")
    parser.add_argument("--json", action="store_true", help="print JSON: rows, means over tasks, notes")


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    from analysis.comparison.reference import contradictions, source

    comparison = _compared(args)
    remarks = []
    if args.reference:
        remarks = _about(source(args.reference), contradictions(args.reference))
    if args.reference and args.country:
        remarks.append("CO₂ of published numbers stays as it was printed, whatever --country says.")
    if args.json:
        print(json.dumps(as_json(comparison, remarks), indent=1, ensure_ascii=False))
    else:
        _print(comparison, remarks)
    return 0


def as_json(comparison: Comparison, remarks: list[str]) -> dict[str, Any]:
    """Rows and means over tasks in the columns of `analysis.comparison`, missing values as null, and every note."""
    from analysis.comparison.text import notes

    return {
        "baseline": comparison.baseline,
        "alternative": comparison.alternative,
        "rows": json.loads(comparison.rows.to_json(orient="records", double_precision=15)),
        "summary": json.loads(comparison.summary.to_json(orient="records", double_precision=15)),
        "equal_cost": json.loads(comparison.equal_cost.to_json(orient="records", double_precision=15)),
        "notes": [*notes(comparison), *remarks],
    }


def _compared(args: argparse.Namespace) -> Comparison:
    """Trials, published numbers, or trials with the published numbers of their datasets below.

    Raises:
        InvalidInputError: neither a study nor a publication is named.
        MissingDataError: there is nothing to compare.
    """
    from analysis.comparison.compare import compare, joined_with
    from analysis.comparison.reference import load

    against = args.against.split(",") if args.against else None
    if not args.studies and not args.reference:
        raise InvalidInputError(field="studies", received="none", legal="a study's folder, --reference NAME, or both")
    published = load(args.reference) if args.reference else None
    results = results_from(args) if args.studies or published is None else published
    comparison = compare(results, baseline=args.baseline, against=against, alternative=args.alternative).with_rows()
    # Ids of trials mean nothing in a publication, which is compared by the schemes that they are.
    schemes = _schemes(comparison)
    if published is None or published is results or not schemes:
        return comparison
    theirs = compare(published, baseline=schemes[0], against=schemes[1:], alternative=args.alternative)
    return joined_with(comparison, theirs)


def _schemes(comparison: Comparison) -> list[str]:
    rows = comparison.rows
    baselines, methods = set(rows["baseline_method"]), list(dict.fromkeys(rows["against_method"]))
    return [*baselines, *methods] if len(baselines) == 1 and "other" not in {*baselines, *methods} else []


def _about(source: Publication, contradictions: list[str]) -> list[str]:
    return [
        f"{source.name}: {source.citation}. {'; '.join(source.files.values())}. Measured on {source.hardware}.",
        *source.remarks,
        *contradictions,
    ]


def _print(comparison: Comparison, remarks: list[str]) -> None:
    from analysis.comparison.equal_cost import equal_cost_sentences, equal_cost_table
    from analysis.comparison.text import cost_table, dice_table, notes, summary_sentences
    from analysis.tables.columns import OBJECTIVES
    from analysis.tables.sources import about_carbon

    print_table(f"Dice against {comparison.baseline}", dice_table(comparison))
    print_table(f"Training cost relative to {comparison.baseline}", cost_table(comparison))
    if len(comparison.equal_cost):
        print_table("Dice at equal cost", equal_cost_table(comparison.equal_cost))
    carbon = about_carbon([OBJECTIVES["co2_kg"]]) if comparison.rows["break_even"].notna().any() else []
    equal = equal_cost_sentences(comparison.equal_cost)
    for sentence in [*summary_sentences(comparison), *equal, *notes(comparison), *carbon, *remarks]:
        print(sentence)

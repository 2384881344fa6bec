"""`python -m analysis report`: Pareto fronts, tables and a page from one or several studies."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = """  python -m analysis report studies/hippo
  python -m analysis report studies/hippo studies/lung --out comparison"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("studies", nargs="+", type=Path, metavar="DIR", help="study folder")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder to write to (default: report inside the study, or ./report for several studies)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from rich.console import Console

    with Console(file=sys.stderr).status("Reading trials, drawing figures"):
        from analysis.basis import states
        from analysis.report import write_report

        report = write_report(args.studies, args.out)
    print(states(report.trials))
    for reason in report.missing:
        print(reason)
    for path in (*report.figures, report.page):
        print(path)
    return 0

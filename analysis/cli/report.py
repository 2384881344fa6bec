"""`python -m analysis report`: figures, tables, data and a page from one or several studies."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.cli.options import add_source_options
from study.buckets.storage import is_url, local
from study.common.terminal import say

EXAMPLES = """  python -m analysis report studies/hippo
  python -m analysis report studies/hippo --country FRA --reference miccai2024
  python -m analysis report studies/hippo studies/lung --out comparison"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_source_options(parser)
    parser.add_argument("--reference", metavar="NAME", help="show published numbers beside the study's: miccai2024")
    parser.add_argument(
        "--out",
        type=local,
        metavar="DIR",
        help="folder to write to (default: report inside the study, or ./report for several studies or a URL)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from study.common.tables import PlainConsole

    with PlainConsole(stderr=True).status("Reading trials, drawing figures"):
        from analysis.fronts.captions import states
        from analysis.page.report import FOLDER, write_report
        from analysis.tables.format import counted
        from study.buckets.view import readings

        # What is read from object storage is gone afterwards.
        out = args.out or (Path(FOLDER) if any(map(is_url, args.studies)) else None)
        with readings(args.studies) as folders:
            report = write_report(folders, out, args.country, reference=args.reference)
    print(states(report.trials))
    for reason in report.missing:
        say(reason)
    say(f"{counted(len(report.figures), 'figure')}, tables and data in {report.folder}; among them")
    for path in (*report.pareto_figures, report.page):
        say(path)
    return 0

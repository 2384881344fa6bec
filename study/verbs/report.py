"""`python -m study report`: Pareto fronts, tables and a page from a study; the work is `analysis.report`'s."""

from __future__ import annotations

import argparse

EXAMPLES = """  python -m study report studies/hippo
  python -m study report studies/hippo studies/lung --out comparison"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    from analysis.verbs import report

    report.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from analysis.verbs import report

    return report.run(args)

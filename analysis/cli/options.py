"""Options that the verbs share: which studies, and on whose grid."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from study.buckets.storage import place

if TYPE_CHECKING:
    from analysis.statistics.evidence import Evidence


def add_source_options(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """The studies and the grid; with `optional`, none need be named."""
    parser.add_argument(
        "studies",
        nargs="*" if optional else "+",
        type=place,
        metavar="DIR|URL",
        help="study folder, report folder or folder of its tables, or the URL of a study",
    )
    parser.add_argument("--country", metavar="ISO3", help="draw CO₂ again for another grid, for example FRA")


def evidence_from(args: argparse.Namespace, *, with_epochs: bool = True) -> Evidence:
    """Read what `add_source_options` named; of each trial that is unreadable a line on standard error.

    Raises:
        LedgerError: a place is none of these, or cannot be read.
        InvalidInputError: an unknown country.
    """
    from analysis.statistics.evidence import gather
    from analysis.tables.grid import Grid
    from study.buckets.view import readings

    grid = Grid(country=args.country) if args.country else None
    with readings(args.studies) as folders:
        return told(gather(folders, grid=grid, with_epochs=with_epochs))


def told(evidence: Evidence) -> Evidence:
    """The same, its unreadable trials named on standard error: they are in no figure of any verb."""
    from analysis.tables.rows import UNREADABLE

    trials = evidence.tables.trials
    for _, row in trials[trials["state"] == UNREADABLE].iterrows():
        print(f"{row['trial_id']} unreadable: {row['failure']}", file=sys.stderr)
    return evidence

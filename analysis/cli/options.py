"""What the verbs share: which studies, on whose grid, and tables in the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from study.buckets.storage import place

if TYPE_CHECKING:
    from analysis.statistics.study_results import StudyResults
    from analysis.tables.format import Table


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


def results_from(args: argparse.Namespace, *, with_details: bool = True) -> StudyResults:
    """Read what `add_source_options` named; see `reading`."""
    with reading(args, with_details=with_details) as (results, _):
        return results


@contextmanager
def reading(args: argparse.Namespace, *, with_details: bool = True) -> Iterator[tuple[StudyResults, list[Path]]]:
    """What `add_source_options` named, with its folders, of which those of a URL are gone afterwards.

    Of each trial that is unreadable, and so in no figure of any verb, a line on standard error.

    Raises:
        LedgerError: a place is none of these, or cannot be read.
        InvalidInputError: an unknown country.
    """
    from analysis.statistics.study_results import gather
    from analysis.tables.rows import UNREADABLE
    from analysis.tables.sources import Grid
    from study.buckets.view import readings

    grid = Grid(country=args.country) if args.country else None
    with readings(args.studies) as folders:
        results = gather(folders, grid=grid, with_details=with_details)
        trials = results.tables.trials
        for _, row in trials[trials["state"] == UNREADABLE].iterrows():
            print(f"{row['trial_id']} unreadable: {row['failure']}", file=sys.stderr)
        yield results, folders


def print_table(title: str, text: Table, *, keep: Sequence[bool] | None = None) -> None:
    """Print a table as wide as the terminal allows, in blocks where it does not fit.

    Args:
        title: above it.
        text: the table.
        keep: for each column whether it always stays, in several lines if need be; others may go. None keeps them all
            in one line.
    """
    from study.common import tables

    console = tables.wide_console()
    columns = [
        tables.TextColumn(heading=heading, cells=cells, right=right, keep=stays)
        for heading, cells, right, stays in zip(
            text.headings, zip(*text.rows, strict=True), text.numeric, keep or [False] * len(text.headings), strict=True
        )
    ]
    if tables.fits([one for one in columns if one.keep or not keep], console.width, full=not keep):
        tables.print_table(console, columns, title)
    else:
        print(title, *tables.blocks(columns), sep="\n")

"""Showing how a study stands again and again, until Ctrl-C or until nobody reads it."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Group
from rich.live import Live

from study.console import PlainConsole
from study.status import StatusBoard, counts, last_ones, print_table, rich_table


def watch(board: StatusBoard, console: PlainConsole, seconds: float, refresh: Callable[[], None]) -> None:
    """Draw the table every so many seconds; without a terminal, print it whenever the counts have changed.

    Args:
        board: of the study.
        console: to draw on.
        seconds: between two looks.
        refresh: fetches what is not on this disk.
    """
    said = ""
    with Live(console=console, auto_refresh=False) as live:
        while not console.quiet:
            rows = board.rows()
            if console.is_terminal:
                live.update(
                    Group(rich_table(last_ones(rows, console.height), console.width), counts(rows)), refresh=True
                )
            elif counts(rows) != said:
                said = counts(rows)
                print_table(console, rows)
                console.print(said)
            time.sleep(seconds)
            refresh()

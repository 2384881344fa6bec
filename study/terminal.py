"""Keeping the terminal for people: nnU-Net's and its processes' output goes to a log file, progress to the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Columns of a table that goes to a file or pipe, where there is no width to fit.
FILE_WIDTH = 200


@contextmanager
def output_to(log: Path) -> Iterator[IO[str]]:
    """Send standard output and error of this process and its children to the end of a log file within the block.

    Yields:
        A text file on what was standard error, for progress.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with log.open("ab", buffering=0) as handle, os.fdopen(os.dup(2), "w") as terminal:
        try:
            for descriptor in (1, 2):
                os.dup2(handle.fileno(), descriptor)
            yield terminal
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


def wide_console() -> Console:
    """A console on standard output whose tables are cut to a terminal's width, but not in a file or pipe."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=FILE_WIDTH)

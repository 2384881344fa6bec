"""Keeping the terminal for people: nnU-Net's and its processes' output goes to a log file, progress to the terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# Where standard error went before it was sent to a log file.
_terminal: int | None = None


def last_words(text: str) -> None:
    """Say a line on standard error, the log and the terminal, whatever state the rest of the process is in."""
    for descriptor in dict.fromkeys((2, _terminal)):
        with suppress(OSError):
            if descriptor is not None:
                os.write(descriptor, f"{text}\n".encode())


@contextmanager
def output_to(log: Path) -> Iterator[IO[str]]:
    """Send standard output and error of this process and its children to the end of a log file within the block.

    Yields:
        A text file on what was standard error, for progress.
    """
    global _terminal
    log.parent.mkdir(parents=True, exist_ok=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with log.open("ab", buffering=0) as handle, os.fdopen(os.dup(2), "w", encoding="utf-8") as terminal:
        before, _terminal = _terminal, kept[1]
        try:
            for descriptor in (1, 2):
                os.dup2(handle.fileno(), descriptor)
            yield terminal
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            _terminal = before
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


def time_left(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def python() -> str:
    """The word that starts this very Python from here: `python` where a shell finds it so, else its path."""
    here, found = Path(sys.executable), shutil.which("python")
    if found and Path(found) == here:
        return "python"
    return shlex.quote(str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here))

"""Keeping the terminal for people: nnU-Net's and its processes' output goes to a log file, progress to the terminal."""

from __future__ import annotations

import codecs
import io
import locale
import os
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

FAILED_OUTPUT = 2
UTF8_VARIABLE = "PYTHONUTF8"
# Of control and format characters those that text is written with: ends of lines, tabs, joiners.
_KEPT = "\n\t\u200c\u200d"


def use_utf8() -> None:
    """Start this Python again in its UTF-8 mode where the locale has another encoding.

    File names, standard streams, and what nnU-Net and other libraries open without naming an encoding then are UTF-8.
    """
    if codecs.lookup(locale.getencoding()).name == "utf-8" or os.environ.get(UTF8_VARIABLE) == "1":
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, UTF8_VARIABLE: "1"})


def mend_streams() -> None:
    """Standard streams that were closed lead nowhere, and print what an encoding lacks escaped.

    Otherwise the next file that is opened, a record say, would be standard output.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flushed() -> int:
    """Write out what was printed; an exit code. What nobody reads any more is no error, a full disk is."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        unread(sys.stdout)
    except OSError as error:
        unread(sys.stdout)
        complain(f"error: standard output cannot be written: {error.strerror}")
        return FAILED_OUTPUT
    return 0


def complain(text: str) -> None:
    """Print a line to standard error, if anybody reads it."""
    with suppress(OSError):
        print(visible(text), file=sys.stderr, flush=True)


def say(text: object) -> None:
    """Print to standard output what may hold paths, names and reasons."""
    print(visible(str(text)))


def visible(text: str) -> str:
    """A text with what a terminal would obey, or UTF-8 does not have, escaped; lines stay lines."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(letter: str) -> str:
    kept = letter in _KEPT or unicodedata.category(letter)[0] != "C"
    return letter if kept else letter.encode("unicode_escape").decode()


def unread(stream: IO[str]) -> None:
    """Let what is still written to a stream that nobody reads go nowhere, or Python would complain at its end."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


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

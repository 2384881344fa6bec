"""Temporary folders: one of this user's alone whose path leaves room for sockets, whose addresses end at 107 bytes.

And requests to stop that come as signals, one of which is often sent twice: to a process and to its group.
"""

from __future__ import annotations

import os
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from study.common.errors import MachineError
from study.common.terminal import last_words

# `timeout`, a terminal and a batch system send one request so close together.
REPEAT_SECONDS = 1.0
INTERRUPTED = 130
"""Exit code of what a signal ended."""


class Requests:
    """Tells a request from the repetition of the last one.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None

    def is_new(self) -> bool:
        """Whether the signal that has just come is a request of its own."""
        now = self._clock()
        if self._last is not None and now - self._last < REPEAT_SECONDS:
            return False
        self._last = now
        return True


def leave(text: str) -> NoReturn:
    """End the process at once, as a kill does, with a line and the exit code of what was interrupted."""
    last_words(text)
    os._exit(INTERRUPTED)


def leave_on_signals(code: int) -> None:
    """From here on, where nothing is left to do but to end, a signal ends the process with its exit code."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(code))


@contextmanager
def interrupts() -> Iterator[None]:
    """Within the block SIGTERM is as Ctrl-C is, a KeyboardInterrupt; a second request ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    requests, received = Requests(), False

    def interrupt(*_: object) -> None:
        nonlocal received
        if not requests.is_new():
            return
        if received:
            leave("stopped at once; the same command resumes")
        received = True
        raise KeyboardInterrupt

    # One that is ignored, as in the background of a script, stays so.
    taken = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in taken}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action or signal.SIG_DFL)


# Ray adds 70 bytes to it with its own folder, multiprocessing 33 to TMPDIR.
LONGEST_FOR_RAY, LONGEST_FOR_PROCESSES = 36, 70
# What TMPDIR was before it was made shorter: large files still go there.
LONG_VARIABLE = "PGPS_LONG_TMPDIR"
BASES = ("/tmp", "/dev/shm", "/var/tmp")


def short_folder(*, longest: int = LONGEST_FOR_RAY) -> Path:
    """A folder that nobody else can enter, with a path of at most so many bytes, in ASCII because Ray asks for it.

    Raises:
        MachineError: there is none.
    """
    for folder in _candidates():
        if len(os.fsencode(folder)) <= longest and str(folder).isascii() and _is_ours(folder):
            return folder
    raise MachineError(
        f"TMPDIR: received {tempfile.gettempdir()!r}, legal is a folder you may write to with a path of at most "
        f"{longest} bytes, because sockets are made in it; none of {', '.join(BASES)} is one either"
    )


def temporary_variables() -> Mapping[str, str]:
    """What to set in the environment so that processes can make sockets in TMPDIR; nothing where they can."""
    given = tempfile.gettempdir()
    if len(os.fsencode(given)) <= LONGEST_FOR_PROCESSES:
        return {}
    return {"TMPDIR": str(short_folder(longest=LONGEST_FOR_PROCESSES)), LONG_VARIABLE: given}


def use_short_temporary_folder() -> None:
    """Have this process and those it starts make their sockets where their addresses are legal.

    Raises:
        MachineError: there is no such place.
    """
    variables = temporary_variables()
    if variables:
        os.environ.update(variables)
        tempfile.tempdir = None


def large_folder() -> Path:
    """Where large temporary files go: TMPDIR as the user set it."""
    return Path(os.environ.get(LONG_VARIABLE) or tempfile.gettempdir())


def _candidates() -> Iterator[Path]:
    bases, name = dict.fromkeys((tempfile.gettempdir(), *BASES)), f"pgps-{os.getuid()}"
    yield from (Path(base) if Path(base).name == name else Path(base, name) for base in bases)
    # Where somebody else has made them all.
    for base in bases:
        with suppress(OSError):
            yield Path(tempfile.mkdtemp(prefix="pgps-", dir=base))


def _is_ours(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        folder.chmod(0o700)
        return os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False

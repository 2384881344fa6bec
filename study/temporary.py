"""Temporary folders: one of this user's alone whose path leaves room for sockets, whose addresses end at 107 bytes."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from study.errors import MachineError

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

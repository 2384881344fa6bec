"""Why something broke, read off an exception and what it came from: no memory, or no room on the disk."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator

from study.common.errors import DiskFullError
from study.common.files import DISK_FULL_CODES

REASON_LENGTH = 300
# Each library has its own words for it, on the CPU none has a class of its own.
_MEMORY_WORDS = ("can't allocate memory", "cannot allocate memory", "out of memory", "unable to allocate")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory of the host or of a GPU ran out."""
    torch = sys.modules.get("torch")
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    for cause in _causes(error):
        of_host = isinstance(cause, OSError) and cause.errno == errno.ENOMEM
        in_words = isinstance(cause, RuntimeError) and any(words in str(cause).lower() for words in _MEMORY_WORDS)
        if isinstance(cause, kinds) or of_host or in_words:
            return True
    return False


def disk_full(error: BaseException) -> DiskFullError | None:
    """The error that says so, when a disk ran full."""
    for cause in _causes(error):
        if isinstance(cause, DiskFullError):
            return cause
        if isinstance(cause, OSError) and cause.errno in DISK_FULL_CODES:
            return DiskFullError(str(cause.filename or "the disk"))
    return None


def one_line(error: BaseException) -> str:
    """Kind and words of an exception in one line, cut where it gets long."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:REASON_LENGTH]


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__

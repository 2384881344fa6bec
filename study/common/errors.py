"""One tree of errors: every error a user can cause or cure derives from `StudyError`.

A message says what was received, what is legal and what to do about it, on one line. The command line prints that line
and exits with code 2; `--debug` adds the traceback.

Range checks whose failures name the field, the value received and what is legal. Standard library only.

Why something broke, read off an exception and what it came from: no memory, or no room on the disk.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

# Of what was received, in a message.
MOST_CHARACTERS = 400


class StudyError(Exception):
    """Root of the tree: catch this to catch everything the study raises on purpose."""


class InvalidInputError(StudyError):
    """A value the caller gave is not legal.

    Args:
        field: name of the option, key or argument, as the user wrote it.
        received: the offending value.
        legal: what would have been accepted, in words.
        remedy: what to do, if `legal` does not say it already.
    """

    def __init__(self, *, field: str, received: object, legal: str, remedy: str = "") -> None:
        self.field = field
        self.received = received
        self.legal = legal
        self.remedy = remedy
        message = f"{field}: received {_shortened(repr(received))}, legal is {legal}"
        super().__init__(f"{message}; {remedy}" if remedy else message)

    def __reduce__(self) -> tuple[Any, ...]:
        # By field, because this travels from process to process and exceptions are rebuilt from positions otherwise.
        return partial(type(self), **{name: vars(self)[name] for name in ("field", "received", "legal", "remedy")}), ()


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}… ({len(text)} characters)"


class MissingDataError(StudyError):
    """A dataset, plan, split or folder that the work needs is not there or not readable."""


class DataIntegrityError(StudyError):
    """A dataset is there and contradicts itself: unknown labels, shapes that differ, wrong case count."""


class MachineError(StudyError):
    """The machine cannot do what was asked: no CUDA, no write permission, a missing package."""


class LedgerError(StudyError):
    """A study folder belongs to another study, is in use, or was written by a newer version."""


class LockedError(LedgerError):
    """Another process holds a lock; the message is who, where and since when."""


class TrialBusyError(LedgerError):
    """Another process works on the trial."""


class DiskFullError(StudyError):
    """There is no room to write; what was written before is whole, and the same command resumes.

    Args:
        where: the file or folder that could not be written.
    """

    def __init__(self, where: str) -> None:
        super().__init__(f"no space is left to write {where}; free some, then the same command resumes")
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.where,)


class TrialInterrupted(StudyError):
    """A trial was asked to stop; its checkpoint and costs are on disk and the same command resumes it."""


class TrialFailedError(StudyError):
    """A trial's training broke; the ledger holds the reason and the log."""


class NoBatchError(TrialFailedError):
    """A training got no batch: a stop was requested meanwhile, none came for too long, or a data worker died."""


class InfeasibleTrialError(TrialFailedError):
    """A trial cannot be trained as specified, out of memory or its numbers not finite: a result, not a fault."""


# Of a file's name; endings are added.
LONGEST_NAME = 200
# Of a count or seed: tables have 64 bits for it.
LARGEST = 2**63 - 1


def is_whole(value: object) -> bool:
    """Whether a value is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_count(field: str, value: object, *, least: int = 1, most: int = LARGEST) -> None:
    """Raise InvalidInputError unless the value is a whole number of at least `least` and at most `most`."""
    if not (is_whole(value) and least <= value <= most):  # type: ignore[operator]
        is_small = most == LARGEST and not (is_whole(value) and value > most)  # type: ignore[operator]
        legal = f"of at least {least}" if is_small else f"from {least} to {most}"
        raise InvalidInputError(field=field, received=value, legal=f"a whole number {legal}")


def is_name(value: object) -> bool:
    """Whether this is a word that is safe as a part of a path and of a command."""
    if not isinstance(value, str) or not 0 < len(value.encode(errors="replace")) <= LONGEST_NAME:
        return False
    return value[0] not in ".-" and "/" not in value and value.isprintable()


def check_name(field: str, value: object) -> None:
    """Raise InvalidInputError unless the value is a name; see `is_name`."""
    if not is_name(value):
        legal = (
            f"a name of at most {LONGEST_NAME} bytes without slashes or control characters, not beginning with . or -"
        )
        raise InvalidInputError(field=field, received=value, legal=legal)


def check_path(field: str, value: str) -> None:
    """Raise InvalidInputError for nothing, which is this folder, for what no file system takes, and for half a URL."""
    try:
        is_one = bool(value.strip()) and b"\0" not in value.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a letter
        is_one = False
    if not is_one or re.match(r"[A-Za-z][\w+.-]+:(/|$)", value):
        raise InvalidInputError(
            field=field, received=value, legal="a path; object storage is SCHEME://BUCKET/KEY, for studies alone"
        )


def check_choice(field: str, value: object, legal: Sequence[str]) -> None:
    """Raise InvalidInputError unless the value is one of the legal words."""
    if value not in legal:
        raise InvalidInputError(field=field, received=value, legal="one of " + ", ".join(legal))


def check_range(field: str, value: object, low: float, high: float, *, also: str = "", above_low: bool = False) -> None:
    """Raise InvalidInputError unless low <= value <= high (low < value with `above_low`); NaN is outside."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    inside = number and low <= value <= high and not (above_low and value == low)  # type: ignore[operator]
    if not inside:
        start = f"above {low:g} up to" if above_low else f"from {low:g} to"
        legal = f"a number {start} {high:g}" + (f", or {also}" if also else "")
        raise InvalidInputError(field=field, received=value, legal=legal)


DISK_FULL_CODES = (errno.ENOSPC, errno.EDQUOT)
_LONGEST_LINE = 300
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
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_LINE]


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__

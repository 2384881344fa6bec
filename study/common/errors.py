"""One tree of errors: every error a user can cause or cure derives from `StudyError`.

A message says what was received, what is legal and what to do about it, on one line. The command line prints that line
and exits with code 2; `--debug` adds the traceback.
"""

from __future__ import annotations

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

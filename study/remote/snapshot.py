"""What a folder of the ledger holds at one moment, while another process writes to it.

Costs, epochs and checkpoints of a trial name each other, and each of them is a file of its own. So everything is looked
at, read, and looked at again: when nothing has changed in between, it fits together. Model files are too large to be
read then; they are opened, and because they are only ever replaced whole, what is open stays as it was.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from study.files import is_temporary

# Records of the ledger, by the road from the trial's or study's folder. Nothing else becomes part of a commit.
RECORD = re.compile(
    r"study\.json|points\.jsonl|spec\.json|by_hand|result\.json|(costs|epochs|events)\.jsonl|attempts/\d{3,}\.json"
)
RESULTS, RESULT = "results", "result.json"
# Written bit by bit until the trial has finished, and not needed to resume it.
UNTIL_FINISHED = re.compile(r".*/validation/.*|.*\.(txt|png)")
TRIES, PAUSE_SECONDS = 40, 0.02

Stamp = tuple[int, int, int]
"""Inode, time and size: another one, another content."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A record file: its content, and when it was written, nanoseconds since the epoch."""

    content: bytes
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A folder's content; all by relative path. The model files are open."""

    stamps: Mapping[str, Stamp]
    documents: Mapping[str, Document]
    models: Mapping[str, tuple[IO[bytes], Stamp]]

    @property
    def is_finished(self) -> bool:
        """Whether it is that of a trial with a result."""
        return RESULT in self.documents


@contextmanager
def snapshot(folder: Path) -> Iterator[Snapshot | None]:
    """The folder's content; None when it changed each time it was looked at."""
    with ExitStack() as stack:
        yield next((found for _ in range(TRIES) if (found := _try(folder, stack)) is not None), None)


def stamps(folder: Path) -> dict[str, Stamp]:
    """Everything worth keeping in a folder, by relative path."""
    found = dict(_files(folder))
    if RESULT not in found:
        found = {name: stamp for name, stamp in found.items() if not UNTIL_FINISHED.fullmatch(name)}
    return found


def _try(folder: Path, stack: ExitStack) -> Snapshot | None:
    with ExitStack() as opened:
        before = stamps(folder)
        try:
            documents = {
                name: Document(content=(folder / name).read_bytes(), mtime_ns=stamp[1])
                for name, stamp in before.items()
                if RECORD.fullmatch(name)
            }
            models = {
                name: (opened.enter_context((folder / name).open("rb")), stamp)
                for name, stamp in before.items()
                if name not in documents
            }
        except FileNotFoundError:
            return None
        if stamps(folder) != before:
            time.sleep(PAUSE_SECONDS)
            return None
        stack.enter_context(opened.pop_all())
        return Snapshot(stamps=before, documents=documents, models=models)


def _files(folder: Path) -> Iterator[tuple[str, Stamp]]:
    for place, below, names in os.walk(folder):
        if Path(place) == folder:
            below[:] = [name for name in below if name in ("attempts", RESULTS)]
        for name in names:
            path = Path(place, name)
            relative = path.relative_to(folder).as_posix()
            if _is_kept(relative, name) and not path.is_symlink():
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                yield relative, (found.st_ino, found.st_mtime_ns, found.st_size)


def _is_kept(relative: str, name: str) -> bool:
    if relative.startswith(f"{RESULTS}/"):
        return not name.startswith(".") and not is_temporary(name)
    return RECORD.fullmatch(relative) is not None

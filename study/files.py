"""Files that survive a crash at any byte: whole JSON documents replaced atomically, JSON lines appended durably."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Replace a file by what `write` puts into the handle it is given; a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_json(path: Path, data: Any) -> None:
    """Write a JSON document atomically."""
    text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda handle: _write_all(handle, text.encode()))


def read_json(path: Path) -> Any:
    """Read a JSON document."""
    return json.loads(path.read_text())


def append_line(path: Path, data: Any) -> None:
    """Append one JSON record as a line and wait until it is on disk."""
    line = json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n"
    with path.open("ab") as handle:
        if handle.tell() and not _ends_with_newline(path):
            handle.write(b"\n")
        handle.write(line.encode())
        handle.flush()
        os.fsync(handle.fileno())


def read_lines(path: Path) -> Iterator[Any]:
    """The records of a JSON lines file; a line cut short by a crash is passed over, an absent file is empty."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _write_all(handle: IO[bytes], data: bytes) -> None:
    handle.write(data)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

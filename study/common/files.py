"""Files that survive a crash at any byte: whole JSON documents replaced atomically, JSON lines appended durably.

A line is there when its newline is. What a crash cut short was never reported as written: readers pass it over and the
next writer removes it. Anything else that cannot be read is damage, and an error.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from study.common.errors import DISK_FULL_CODES, DiskFullError, InvalidInputError, LedgerError

_T = TypeVar("_T")

# Our lines are ASCII; after a power cut a file system may give back what had no time to arrive as zeros.
_CUT_SHORT = re.compile(rb"\{[ -~]*\x00*|\x00+")
DAMAGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, InvalidInputError)
"""What reading a document and making a record of it may raise when it is not what was written."""
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], *, durable: bool = True) -> None:
    """Replace a file by what `write` puts into the handle it is given; a crash leaves the old file or the new one.

    Args:
        path: of the file; folders are made.
        write: writes.
        durable: whether to wait until it is on disk.

    Raises:
        DiskFullError: there is no room; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _full_disk_named(path.parent):
        make_folder(path.parent, durable=durable)
        try:
            with temporary.open("wb") as handle:
                write(handle)
                handle.flush()
                if durable:
                    os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        if durable:
            sync_folder(path.parent)


def write_bytes(path: Path, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Replace a file by some content; see `write_atomically`."""
    write_atomically(path, lambda handle: handle.write(content), durable=durable)


def write_json(path: Path, data: Any) -> None:
    """Write a JSON document atomically.

    Raises:
        DiskFullError: there is no room; the old file is as it was.
    """
    write_bytes(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path | str) -> Any:
    """Read a JSON document.

    Raises:
        ValueError: it is none, or nested without end.
    """
    return parsed(read_whole(path))


def parsed(content: bytes) -> Any:
    """What a JSON document holds; see `read_json`."""
    try:
        # UTF-8 alone, as nnU-Net reads it: from bytes Python would take other encodings, too.
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def members(content: bytes) -> dict[str, str]:
    """The members of a JSON object by name, each in its own words, which are still to be parsed.

    Raises:
        ValueError: it is not laid out as `write_json` does.
    """
    text = content.decode()
    if not (text.startswith('{\n "') and text.endswith("\n}\n")):
        raise ValueError("it is laid out in another way")
    # No word of JSON goes over the end of a line: where the members are JSON, so is the whole.
    return dict(member.split('": ', 1) for member in text[4:-3].split(',\n "'))


def read_whole(path: Path | str, *, most: int = -1) -> bytes:
    """The content of a file; of a pipe or device, which a reader would wait for without end, an error.

    Args:
        path: of the file.
        most: bytes to read, all by default.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        wanted, content = found.st_size if most < 0 else most, b""
        # Thousands of trials are read at a time, each file in one call; what grows meanwhile is read as it was.
        while len(content) < wanted and (more := os.read(descriptor, wanted - len(content))):
            content += more
        return content
    finally:
        os.close(descriptor)


def append_line(path: Path, data: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> None:
    """Append one JSON record as a line and wait until it is on disk; all of it or, on any error, nothing.

    Args:
        path: of the file.
        data: the record.
        check: raises when nothing may be written; asked with the file open, see `locks`.

    Raises:
        DiskFullError: there is no room.
        ValueError: the file is damaged.
    """
    line = (json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n").encode()
    with _full_disk_named(path.parent), path.open("a+b", buffering=0) as handle:
        check()
        end = os.fstat(handle.fileno()).st_size
        if end:
            end = _end_repaired(handle, end)
        else:
            sync_folder(path.parent)
        try:
            _write_all(handle, line)
            os.fsync(handle.fileno())
        except BaseException:
            with suppress(OSError):
                handle.truncate(end)
            raise


def whole_lines(path: Path | str) -> list[bytes]:
    """The lines of a JSON lines file, without one that a crash cut short; an absent file is empty."""
    try:
        *lines, rest = read_whole(path).split(b"\n")
    except FileNotFoundError:
        return []
    return lines if _was_cut_short(rest) else [*lines, rest]


def read_lines(path: Path | str) -> list[dict[str, Any]]:
    """The records of a JSON lines file; see `whole_lines`.

    Raises:
        ValueError: a line is no JSON object; the message starts with its number.
    """
    return [_record(line, number) for number, line in enumerate(whole_lines(path), start=1)]


def load_lines(path: Path | str, make: Callable[[dict[str, Any]], _T], remedy: str) -> list[_T]:
    """What the lines of a study's file hold.

    Args:
        path: of the file.
        make: what a record becomes.
        remedy: what to do when it is damaged.

    Raises:
        LedgerError: it is not what it should be.
    """
    made: list[_T] = []
    with damage_named(path, remedy):
        records = read_lines(path)
        try:
            for record in records:
                made.append(make(record))
        except DAMAGE as error:
            raise ValueError(f"line {len(made) + 1} is no record of this file ({_in_words(error)})") from error
    return made


def append_record(path: Path, data: Mapping[str, Any], remedy: str, check: Callable[[], None] = lambda: None) -> None:
    """`append_line` to a study's file, whose damage is a LedgerError with a remedy."""
    with damage_named(path, remedy, OSError):
        append_line(path, data, check)


def renew(path: Path) -> None:
    """Replace a file by a copy: who has it open still writes to the old one, which nobody sees any more."""
    with path.open("rb") as old:
        write_atomically(path, lambda handle: shutil.copyfileobj(old, handle))


def sweep(folder: Path, *, below: bool = True) -> None:
    """Delete what killed writers left unfinished in a folder that nobody else writes to now, and in those below it."""
    for place, _, names in os.walk(folder):
        for name in filter(is_temporary, names):
            Path(place, name).unlink(missing_ok=True)
        if not below:
            return


def name_of(path: Path) -> str:
    """A path's name as text, whatever the locale; bytes that are no UTF-8 are escaped."""
    return os.fsencode(path.name).decode(errors="backslashreplace")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that `write_atomically` had not finished."""
    return _TEMPORARY.fullmatch(name) is not None


def stamp(path: Path | str) -> tuple[int, int] | None:
    """Time and size, which a change changes; None for what is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116 (a path is a third slower)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def is_there(path: str) -> bool:
    """As `Path.exists`, for the many of a study."""
    try:
        os.stat(path)  # noqa: PTH116
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    return True


def make_folder(folder: Path, *, durable: bool = True) -> None:
    """Make a folder, and those above it, so that a crash does not take them away with what is written into them."""
    if folder.is_dir():
        return
    make_folder(folder.parent, durable=durable)
    folder.mkdir(exist_ok=True)
    if durable:
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def damage_named(path: Path | str, remedy: str, *passed: type[Exception]) -> Iterator[None]:
    """What is wrong with a file of a study is a LedgerError, in one line, with a remedy; some errors are passed on."""
    try:
        yield
    except passed:
        raise
    except FileNotFoundError as error:
        raise LedgerError(f"{path} is not there; {remedy}") from error
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}") from error
    except DAMAGE as error:
        raise LedgerError(f"{path} is damaged: {_in_words(error)}; {remedy}") from error


def _in_words(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return " ".join(str(error).split())[:200]


@contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL_CODES:
            raise DiskFullError(str(folder)) from error
        raise


def _write_all(handle: IO[bytes], data: bytes) -> None:
    """Unbuffered, so that nothing is left to be written behind the back of whoever handles the error."""
    rest = memoryview(data)
    while rest:
        rest = rest[handle.write(rest) :]


def _end_repaired(handle: IO[bytes], end: int) -> int:
    """Where the next line begins, after one that was cut short is removed or one that lacks its newline given it."""
    handle.seek(end - 1)
    if handle.read(1) == b"\n":
        return end
    handle.seek(0)
    content = handle.read()
    whole = content.rfind(b"\n") + 1
    if _was_cut_short(content[whole:]):
        handle.truncate(whole)
        return whole
    _record(content[whole:], content.count(b"\n") + 1)
    _write_all(handle, b"\n")
    return len(content) + 1


def _was_cut_short(rest: bytes) -> bool:
    """Whether what follows the last newline is nothing, or the beginning of a record and no whole one."""
    return not rest or (_CUT_SHORT.fullmatch(rest) is not None and _parsed(rest) is None)


def _record(line: bytes, number: int) -> dict[str, Any]:
    record = _parsed(line)
    if record is None:
        raise ValueError(f"line {number} is not a JSON object")
    return record


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None

"""Files that a crash at any byte leaves readable: the old content, or the new, never half of either."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from study.common import files
from study.common.errors import DiskFullError

FULL_DISK = Path("/dev/full")
needs_full_disk = pytest.mark.skipif(not FULL_DISK.exists(), reason="no /dev/full on this machine")


def records(path: Path) -> list[dict[str, Any]]:
    return list(files.read_lines(path))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whoever_reads_the_old_file_goes_on_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    files.write_json(path, "old")
    with path.open() as reader:
        files.write_json(path, "new")
        assert reader.read() == '"old"\n'
    assert files.read_json(path) == "new"


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    files.write_json(path, "old")

    def fail(handle: IO[bytes]) -> None:
        handle.write(b"half of the n")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        files.write_atomically(path, fail)
    assert files.read_json(path) == "old"
    assert names(tmp_path) == ["document.json"]


def test_what_json_cannot_hold_is_refused_before_the_old_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    files.write_json(path, "old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, math.nan)
    assert files.read_json(path) == "old"


# A process that stops in the middle of writing, says so, and waits to be killed.
SLOW_WRITER = """
import sys, time
from pathlib import Path
from study.common import files
def slow(handle):
    handle.write(b"half")
    handle.flush()
    print("writing", flush=True)
    time.sleep(600)
files.write_atomically(Path(sys.argv[1]), slow)
"""


def kill_while_writing(path: Path) -> None:
    command = [sys.executable, "-c", SLOW_WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        os.kill(child.pid, signal.SIGKILL)


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    files.write_json(path, "old")
    kill_while_writing(path)
    assert files.read_json(path) == "old"
    files.write_json(path, "new")
    assert files.read_json(path) == "new"


def test_what_a_killed_writer_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    deep = tmp_path / "results" / "fold_0"
    kill_while_writing(deep / "checkpoint.pth")
    (left,) = names(deep)
    assert files.is_temporary(left)
    kept = ["checkpoint.pth", ".hidden", "notes.tmp", ".5b1c.tmp", "a.12.tmp", ".checkpoint.pth.new"]
    for name in kept:
        (deep / name).write_text("kept")
    files.sweep(tmp_path)
    assert names(deep) == sorted(kept)


def test_a_record_that_json_cannot_hold_is_not_appended(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_line(path, {"n": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.append_line(path, {"n": math.inf})
    assert records(path) == [{"n": 1}]


@pytest.mark.parametrize("length", range(31))
@pytest.mark.parametrize("zeros", [0, 5])
def test_a_crash_at_any_byte_loses_at_most_the_record_being_written(tmp_path: Path, length: int, zeros: int) -> None:
    path, whole = tmp_path / "lines.jsonl", [{"n": 1}, {"n": 2, "text": "ü"}]
    for record in whole:
        files.append_line(path, record)
    path.write_bytes(path.read_bytes()[:length] + b"\0" * zeros)
    survivors = records(path)
    # Without zeros behind it, a record is whole a byte before its newline.
    complete = sum(length >= end + (zeros > 0) for end in (len('{"n":1}'), len('{"n":1}\n{"n":2,"text":"\\u00fc"}')))
    assert survivors == whole[:complete]
    files.append_line(path, {"n": 3})
    assert records(path) == [*survivors, {"n": 3}]
    assert path.read_bytes().count(b"\n") == len(survivors) + 1


DAMAGED = {
    "garbage": (b"\x80\x04\x95garbage", 1),
    "text": (b"no checkpoint, and no end of the line", 1),
    "blank": (b'{"n":1}\n\n{"n":2}\n', 2),
    "cut in the middle": (b'{"n":1}\n{"n":\n{"n":3}\n', 2),
    "zeros in the middle": (b'{"n":1}\n\0\0\0\n', 2),
    "list": (b"[1]\n", 1),
    "number": (b'{"n":1}\n7\n', 2),
    "number without newline": (b'{"n":1}\n7', 2),
    "garbage at the end": (b'{"n":1}\n{"n":2}\n\xff\xfe', 3),
    "garbage in the last line": (b'{"n":1}\n{"n":\xff\xfe', 2),
    "nested beyond reason": (b'{"n":' + b"[" * 200_000 + b"\n", 1),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_an_error_that_names_the_line(tmp_path: Path, damage: str) -> None:
    path, (content, line) = tmp_path / "lines.jsonl", DAMAGED[damage]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^line {line} is not a JSON object$"):
        records(path)
    if not content.endswith(b"\n"):
        with pytest.raises(ValueError, match=f"^line {line} is not a JSON object$"):
            files.append_line(path, {"n": 9})
        assert path.read_bytes() == content


@given(
    content=some.binary(max_size=60)
    | some.lists(some.sampled_from([b'{"n":1}', b"\n", b"\0", b"{", b"x"])).map(b"".join)
)
def test_whatever_is_in_a_file_appending_loses_no_record(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "lines.jsonl"
    path.write_bytes(content)
    try:
        before = records(path)
    except ValueError:
        return
    files.append_line(path, {"n": 9})
    assert records(path) == [*before, {"n": 9}]


@needs_full_disk
def test_a_line_that_finds_no_room_says_where_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.symlink_to(FULL_DISK)
    with pytest.raises(DiskFullError, match=f"{tmp_path}; free some, then the same command resumes"):
        files.append_line(path, {"n": 1})


@needs_full_disk
def test_a_document_that_finds_no_room_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    files.write_json(path, "old")
    (tmp_path / f".{path.name}.{os.getpid()}.tmp").symlink_to(FULL_DISK)
    with pytest.raises(DiskFullError, match=f"{tmp_path}; free some"):
        files.write_json(path, "new")
    assert files.read_json(path) == "old"
    assert names(tmp_path) == ["document.json"]


def test_a_line_of_which_only_a_part_finds_room_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_line(path, {"n": 1})
    # Writing beyond this size of a file is an error, as it is beyond the end of a disk: a part goes in before.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            files.append_line(path, {"text": "more than ten bytes"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b'{"n":1}\n'

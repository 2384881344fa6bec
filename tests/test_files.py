"""Files that a crash at any byte leaves readable: the old content, or the new, never half of either."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from study import files


def test_json_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "document.json"
    files.write_json(path, {"a": [1, None], "b": "ü"})
    assert files.read_json(path) == {"a": [1, None], "b": "ü"}
    assert [p.name for p in path.parent.iterdir()] == ["document.json"]


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
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        files.write_atomically(path, fail)
    assert files.read_json(path) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["document.json"]


def test_what_json_cannot_hold_is_refused_before_the_old_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    files.write_json(path, "old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, math.nan)
    assert files.read_json(path) == "old"


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    files.write_json(path, "old")
    script = (
        "import sys, time; from pathlib import Path; from study import files\n"
        "def slow(handle):\n"
        "    handle.write(b'half'); handle.flush(); print('writing', flush=True); time.sleep(600)\n"
        "files.write_atomically(Path(sys.argv[1]), slow)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        os.kill(child.pid, signal.SIGKILL)
    assert files.read_json(path) == "old"
    files.write_json(path, "new")
    assert files.read_json(path) == "new"


def test_lines_are_read_in_the_order_they_were_appended(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert list(files.read_lines(path)) == []
    for record in ({"n": 1}, {"n": 2, "text": "two\nlines"}, [3]):
        files.append_line(path, record)
    assert list(files.read_lines(path)) == [{"n": 1}, {"n": 2, "text": "two\nlines"}, [3]]


def test_a_torn_last_line_is_passed_over_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_line(path, {"n": 1})
    with path.open("ab") as handle:
        handle.write(b'{"n": 2, "te')
    assert list(files.read_lines(path)) == [{"n": 1}]
    files.append_line(path, {"n": 3})
    assert list(files.read_lines(path)) == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize("length", range(1, 30))
def test_a_crash_at_any_byte_loses_at_most_the_record_being_written(tmp_path: Path, length: int) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_line(path, {"n": 1})
    files.append_line(path, {"n": 2, "text": "ü"})
    path.write_bytes(path.read_bytes()[:length])
    files.append_line(path, {"n": 3})
    whole = [{"n": 1}, {"n": 2, "text": "ü"}]
    survivors = [record for record in files.read_lines(path) if record != {"n": 3}]
    assert survivors == whole[: len(survivors)]
    assert list(files.read_lines(path))[-1] == {"n": 3}
    complete = (length >= len('{"n":1}')) + (length >= len('{"n":1}\n{"n":2,"text":"\\u00fc"}'))
    assert len(survivors) == complete


def test_a_record_that_json_cannot_hold_is_not_appended(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_line(path, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.append_line(path, math.inf)
    assert list(files.read_lines(path)) == [1]

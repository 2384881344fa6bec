"""Temporary folders of machines that have too long ones, or only other people's."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.common import process as temporary
from study.common.errors import MachineError
from study.common.process import (
    LONGEST_FOR_PROCESSES,
    large_folder,
    short_folder,
    temporary_variables,
    use_short_temporary_folder,
)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def bases(short: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two folders that stand for /tmp and /dev/shm, and a TMPDIR below none of them."""
    made = [short / name for name in ("a", "b")]
    for folder in made:
        folder.mkdir()
    monkeypatch.setattr(temporary, "BASES", tuple(map(str, made)))
    return made


def set_temporary(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.parametrize("length", [71, 76, 107, 108, 200])
def test_a_long_one_is_replaced_by_a_private_short_one(
    bases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    deep = tmp_path / ("d" * max(1, length - len(str(tmp_path)) - 1))
    set_temporary(monkeypatch, deep)
    monkeypatch.delenv("PGPS_LONG_TMPDIR", raising=False)
    monkeypatch.setenv("PGPS_LONG_TMPDIR", "")
    use_short_temporary_folder()
    ours = Path(tempfile.gettempdir())
    assert ours == bases[0] / f"pgps-{os.getuid()}"
    assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    assert large_folder() == deep
    # What fails otherwise: a socket, as multiprocessing makes it.
    code = "from multiprocessing.connection import Listener; print(Listener(family='AF_UNIX').address)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.startswith(f"{ours}/")


@pytest.mark.parametrize("name", ["t", "t" * 20, "ü [x] y"])
def test_a_short_one_stays(short: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    set_temporary(monkeypatch, short / name)
    assert len(tempfile.gettempdir()) < LONGEST_FOR_PROCESSES
    assert temporary_variables() == {}


@pytest.mark.parametrize(("name", "used"), [("ü", False), ("x y", True), ("[b]", True), ("文", False)])
def test_ray_is_given_a_path_in_ascii(
    short: Path, bases: list[Path], monkeypatch: pytest.MonkeyPatch, name: str, used: bool
) -> None:
    """It encodes it so; processes may use any."""
    folder = short / name
    set_temporary(monkeypatch, folder)
    assert short_folder() == (folder if used else bases[0]) / f"pgps-{os.getuid()}"
    assert temporary_variables() == {}


@pytest.mark.parametrize("trouble", ["somebody else's", "a file", "a link", "open to all"])
def test_a_folder_that_is_not_ours_is_not_used(
    bases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    set_temporary(monkeypatch, tmp_path / ("d" * 100))
    theirs = bases[0] / f"pgps-{os.getuid()}"
    if trouble == "a file":
        theirs.touch()
    elif trouble == "a link":
        theirs.symlink_to(tmp_path)
    else:
        theirs.mkdir(mode=0o777)
        theirs.chmod(0o777)
    if trouble == "somebody else's":
        if os.getuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(theirs, 65534, 65534)
    found = short_folder()
    if trouble == "open to all":
        assert found == theirs
        assert stat.S_IMODE(theirs.stat().st_mode) == 0o700
    else:
        assert found == bases[1] / f"pgps-{os.getuid()}"


def test_where_all_are_taken_a_new_one_is_made(
    bases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_temporary(monkeypatch, tmp_path / ("d" * 100))
    for base in bases:
        (base / f"pgps-{os.getuid()}").touch()
    found = short_folder()
    assert found.parent in bases
    assert stat.S_IMODE(found.stat().st_mode) == 0o700


def test_where_there_is_none_it_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_temporary(monkeypatch, tmp_path / ("d" * 100))
    monkeypatch.setattr(temporary, "BASES", ("/nowhere",))
    with pytest.raises(MachineError, match=r"^TMPDIR: received '.*', legal is a folder .* at most 70 bytes"):
        temporary_variables()

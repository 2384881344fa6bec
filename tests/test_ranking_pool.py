"""Processes of a ranking: all items are done, an error arrives, a dead process is told, none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from study.common.errors import MachineError, MissingDataError
from study.ranking.work import run_all

REPOSITORY = Path(__file__).resolve().parent.parent


def touch(folder: Path, name: str) -> None:
    (folder / name).touch()


def fail_at(bad: str, name: str) -> None:
    if name == bad:
        raise MissingDataError(f"{name} is missing")


def die(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("items", "workers"), [(7, 1), (7, 3), (0, 4)])
def test_every_item_is_done_and_counted(tmp_path: Path, items: int, workers: int) -> None:
    names, counts = [f"item{index}" for index in range(items)], list[int]()
    run_all(partial(touch, tmp_path), names, counts.append, workers=workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert counts == list(range(items + 1))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives_as_it_was(workers: int) -> None:
    with pytest.raises(MissingDataError, match=r"^b is missing$"):
        run_all(partial(fail_at, "b"), ["a", "b", "c"], lambda _: None, workers=workers)


def test_a_dead_process_is_told() -> None:
    with pytest.raises(MachineError, match=r"a ranking process died, .* the same command goes on from here"):
        run_all(die, ["a", "b"], lambda _: None, workers=2)


SCRIPT = """
import time
from study.ranking.work import run_all

if __name__ == "__main__":
    run_all(time.sleep, [300.0, 300.0], lambda _: print("looking", flush=True), workers=2)
"""


def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "sleep.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        workers: list[psutil.Process] = []
        while len(workers) < 3:  # two that sleep, and what looks after their files
            workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(workers, timeout=600)
        assert alive == []

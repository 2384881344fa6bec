"""Studies run in processes of their own, to be stopped and killed by id, and what can be seen of them meanwhile.

Nothing here waits for a fixed time: WAIT_SECONDS only ends a hang.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from prepared import CUBE, NUMBER

from study.store.ledger import Ledger
from study.store.trial_folder import TrialFolder, TrialState

WAIT_SECONDS = 600.0
SOME_FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130
# They look for their dead cluster for a minute, then go.
RAY_AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
TRAINING: dict[str, Any] = {
    "optimizer": "adamw",
    # Long enough to be interrupted three times on a busy machine.
    "epochs": 16,
    "iterations_per_epoch": 10,
    "validation_batches": 1,
    "test_time_mirroring": False,
}
SPACE: dict[str, Any] = {
    "name": "interrupted",
    "searcher": "optuna",
    "trials": 2,
    "objectives": ["dice", "runtime_seconds", "co2_kg"],
    "datasets": [NUMBER],
    "plans": CUBE,
    # Half a core each, so that two run at a time on any machine; they are given a thread each.
    "resources": {"cpus": 0.5, "gpus": 0, "concurrent": 2, "data_workers": 0},
    "energy": {"country": "FRA"},
    "curriculum": {"min_patch": {"uniform": [0.3, 0.7]}, "batch_growth": [0, "stepwise"]},
    # The learning rate keeps two points from being one trial.
    "training": {**TRAINING, "initial_learning_rate": {"log_uniform": [1e-3, 5e-3]}},
}


def write_space(folder: Path, **changes: Any) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({**SPACE, **changes}))
    return path


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A driver that has ended: exit code, what it printed, and what its trials looked like then."""

    code: int
    output: str
    errors: str
    trials: list[dict[str, Any]]


@dataclass
class Driver:
    """`python -m study run` in a process of its own, its output in files: a pipe would be kept open by Ray's."""

    space: Path
    data: Path
    out: Path
    more: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        command = [sys.executable, "-m", "study", "run", str(self.space), "--data", str(self.data)]
        with self._file("out").open("wb") as output, self._file("err").open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, "--out", str(self.out), *self.more],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def family(self) -> list[psutil.Process]:
        """The process and everything it started, Ray and the trainings included."""
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def wait_until(self, condition: Callable[[], Any]) -> Any:
        """What the condition gives once it gives something, while the driver runs."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not (given := condition()):
            assert self.process.poll() is None, self._read("out") + self._read("err")
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return given

    def end(self) -> Ended:
        """Wait for the driver to end by itself, and for a training that was about to begin to notice it."""
        code = self.process.wait(WAIT_SECONDS)
        deadline = time.monotonic() + WAIT_SECONDS
        while any(trial.state() is TrialState.RUNNING for trial in Ledger(self.out).trials()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return Ended(code=code, output=self._read("out"), errors=self._read("err"), trials=status(self.out))

    def _file(self, kind: str) -> Path:
        return self.space.with_suffix(f".{kind}")

    def _read(self, kind: str) -> str:
        return self._file(kind).read_text()


@contextmanager
def running(space: Path, data: Path, out: Path, *more: str) -> Iterator[Driver]:
    """A driver that is gone afterwards, whatever happens."""
    driver = Driver(space, data, out, more)
    driver.start()
    try:
        yield driver
    finally:
        driver.process.kill()
        driver.process.wait()


def run_to_end(space: Path, data: Path, out: Path, *more: str) -> Ended:
    with running(space, data, out, *more) as driver:
        return driver.end()


def status(out: Path) -> list[dict[str, Any]]:
    """What `status --json` says."""
    command = [sys.executable, "-m", "study", "status", str(out), "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(answer.stdout)
    return rows


def trained(folder: TrialFolder) -> int:
    """Iterations done at the end of the last epoch reported."""
    return max((epoch.iteration for epoch in folder.epochs()), default=0)


def attempts(out: Path) -> Counter[str]:
    """How many times the training of each trial has begun."""
    return Counter({folder.trial_id: len(folder.attempts()) for folder in Ledger(out).trials()})


def training(out: Path, before: Counter[str]) -> list[TrialFolder]:
    """Trials that have been begun since and are being trained, and have finished an epoch or two in this attempt."""
    begun = [folder for folder in Ledger(out).trials() if len(folder.attempts()) > before[folder.trial_id]]
    running = [folder for folder in begun if folder.state() is TrialState.RUNNING]
    return [folder for folder in running if trained(folder) > folder.attempts()[-1].resumed_from_iteration + 10]


def those_that_stay(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that do not end by themselves."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (left := [process for process in processes if _alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def listening(processes: list[psutil.Process]) -> set[str]:
    """Addresses on which any of the processes accepts connections."""
    found = set()
    for process in processes:
        try:
            connections = process.net_connections("inet")
        except psutil.NoSuchProcess:
            continue
        found |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    return found

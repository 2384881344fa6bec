"""Studies on Ray Tune, end to end: real processes that train, are stopped, killed, and go on where they were.

Two studies tell the whole story, each in one fixture that keeps what it saw; the tests look at one thing each. The
first is Optuna's and is interrupted in every way; the second is a grid that trains one of its trials again without
interruption. Whoever is killed is killed by its id. Nothing here waits for a fixed time: WAIT_SECONDS only ends a hang.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from examples import RESULT, make_spec
from prepared import CUBE, NUMBER

from study.costs import bill
from study.errors import TrialInterrupted
from study.ledger import Ledger, TrialFolder, TrialState
from study.machine import Resources
from study.records import Energy
from study.spaces import load_space
from study.trial_process import Job

WAIT_SECONDS = 600.0
SOME_FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130
# They look for their dead cluster for a minute, then go.
RAY_AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
TRAINING = {
    "optimizer": "adamw",
    "epochs": 18,
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
    "training": TRAINING,
}


def write_space(folder: Path, **changes: Any) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({**SPACE, **changes}))
    return path


# ---------------------------------------------------------------------------------------------------- running a study


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
            time.sleep(0.05)
        return given

    def end(self) -> Ended:
        """Wait for the driver to end by itself."""
        code = self.process.wait(WAIT_SECONDS)
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


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


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


# ------------------------------------------------------------------------------------------ a study that is interrupted


@dataclass
class Interrupted:
    """What was seen of a study that was stopped, one of whose trainings was killed, whose driver was killed.

    Attributes:
        victim, other: the trial whose training was killed, and the one that went on.
        stopped, finished, repeated: ends of the first, third and fourth run; the second was killed.
        listening: addresses on which Ray and the study accepted connections.
        iterations_at_stop: of both trials, when the first run had ended.
        after_kill: state and events of the victim, when its training had been killed.
        left_over: processes that outlived the killed driver.
    """

    out: Path
    space: Path
    victim: str = ""
    other: str = ""
    stopped: Any = None
    finished: Any = None
    repeated: Any = None
    listening: set[str] = field(default_factory=set)
    events_at_stop: dict[str, list[str]] = field(default_factory=dict)
    victims_state: TrialState | None = None
    victims_reason: str | None = None
    others_last_event: dict[str, Any] = field(default_factory=dict)
    left_over: list[psutil.Process] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(self.out)


@pytest.fixture(scope="module")
def interrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    folder = tmp_path_factory.mktemp("interrupted")
    seen = Interrupted(out=folder / "study", space=write_space(folder))
    _stop(seen, data)
    _kill(seen, data)
    seen.finished = run_to_end(seen.space, data, seen.out)
    seen.repeated = run_to_end(seen.space, data, seen.out)
    return seen


def _stop(seen: Interrupted, data: Path) -> None:
    """Ctrl-C as soon as one trial has trained two epochs."""
    with running(seen.space, data, seen.out) as driver:
        driver.wait_until(lambda: training(seen.out, Counter()))
        seen.listening = listening(driver.family())
        driver.process.send_signal(signal.SIGINT)
        seen.stopped = driver.end()
    seen.events_at_stop = {f.trial_id: [e["event"] for e in f.events()] for f in seen.ledger.trials()}


def _kill(seen: Interrupted, data: Path) -> None:
    """Kill the training of the first trial that has resumed, then the driver while it trains the other one."""
    before = attempts(seen.out)
    with running(seen.space, data, seen.out) as driver:
        victim = driver.wait_until(lambda: training(seen.out, before))[0]
        [other] = (folder for folder in seen.ledger.trials() if folder != victim)
        seen.victim, seen.other = victim.trial_id, other.trial_id
        os.kill(victim.attempts()[-1].pid, signal.SIGKILL)
        driver.wait_until(lambda: victim.state() is TrialState.FAILED)
        seen.victims_state, seen.victims_reason = victim.state(), victim.failure_reason()
        driver.wait_until(lambda: other in training(seen.out, before))
        family = driver.family()
        driver.process.kill()
        driver.process.wait()
        ours = [process for process in family if process.is_running() and process.name() not in RAY_AGENTS]
        psutil.wait_procs([p for p in ours if not gone([p])], timeout=60)
        seen.left_over = [process for process in ours if not gone([process])]
    seen.others_last_event = other.events()[-1]


def test_ctrl_c_stops_a_study_with_its_checkpoints_written(interrupted: Interrupted) -> None:
    assert interrupted.stopped.code == INTERRUPTED
    assert interrupted.stopped.errors == "the study was stopped; the same command resumes it\n"
    assert {row["state"] for row in interrupted.stopped.trials} <= {"interrupted", "new"}
    trial_id, events = next((i, events) for i, events in interrupted.events_at_stop.items() if len(events) == 2)
    assert events == ["started", "interrupted"]
    [row] = [row for row in interrupted.stopped.trials if row["trial_id"] == trial_id]
    assert 20 <= row["iteration"] < row["total_iterations"] == 180
    # Stopped within an epoch as well as at its end, and nothing of it is lost.
    assert interrupted.ledger.trial(trial_id).attempts()[1].resumed_from_iteration == row["iteration"]
    assert f"{trial_id}   interrupted" in interrupted.stopped.output


def test_a_ray_of_our_own_is_reached_from_this_machine_alone(interrupted: Interrupted) -> None:
    assert interrupted.listening
    addresses = {ipaddress.ip_address(text.removeprefix("::ffff:")) for text in interrupted.listening}
    assert all(address.is_loopback for address in addresses), addresses


def test_a_killed_training_is_a_failure_with_a_reason(interrupted: Interrupted) -> None:
    assert interrupted.victims_state is TrialState.FAILED
    assert interrupted.victims_reason == ("its process was killed, by somebody or by the system when memory ran out")


def test_a_killed_driver_leaves_checkpoints_and_no_processes(interrupted: Interrupted) -> None:
    assert interrupted.left_over == []
    other = interrupted.ledger.trial(interrupted.other)
    assert interrupted.others_last_event["event"] == "interrupted"
    attempt = interrupted.others_last_event["attempt"]
    stopped_at = int(interrupted.others_last_event["reason"].split()[3])
    assert other.attempts()[attempt + 1].resumed_from_iteration == stopped_at > 0


def test_the_same_command_resumes_to_the_end(interrupted: Interrupted) -> None:
    assert interrupted.finished.code == 0
    assert interrupted.finished.errors == ""
    first_line = interrupted.finished.output.splitlines()[0]
    assert first_line.startswith("found 0 finished, 2 resumable (")
    assert f"{interrupted.out}: 2 finished" in interrupted.finished.output
    assert [row["state"] for row in interrupted.finished.trials] == ["finished", "finished"]
    victim = interrupted.ledger.trial(interrupted.victim)
    starts = [header.resumed_from_iteration for header in victim.attempts()]
    assert starts[0] == 0
    assert 0 < starts[1] <= starts[2]
    assert victim.epochs()[-1].iteration == 180


def test_what_was_trained_twice_is_paid_twice_and_shown_as_waste(interrupted: Interrupted) -> None:
    victim = interrupted.ledger.trial(interrupted.victim)
    costs = bill(victim.attempts(), victim.cost_intervals())
    assert [segment.header.attempt for segment in costs.segments] == [0, 1, 2]
    redone = sum(i.iteration_stop - i.iteration_start for i in victim.cost_intervals() if i.phase == "training") - 180
    assert redone >= 0
    assert (costs.waste.seconds > 0) is (redone > 0)
    [row] = [row for row in interrupted.finished.trials if row["trial_id"] == interrupted.victim]
    assert row["attempts"] == 3
    assert row["runtime_seconds"] == pytest.approx(costs.training.seconds)
    assert row["co2_kg"] == pytest.approx(costs.training.co2_kg)


def test_a_finished_study_trains_nothing_and_says_what_it_found(interrupted: Interrupted) -> None:
    assert interrupted.repeated.code == 0
    assert interrupted.repeated.output.startswith("found 2 finished, 0 resumable; ")
    assert interrupted.repeated.trials == interrupted.finished.trials


def test_optuna_proposed_each_point_once(interrupted: Interrupted) -> None:
    records = interrupted.ledger.points()
    assert len(records) == 2
    assert sorted(i for record in records for i in record["trial_ids"]) == sorted(
        [interrupted.victim, interrupted.other]
    )
    space = load_space(interrupted.space)
    for record in records:
        assert set(record["point"]) == set(space.searched)
        assert 0.3 <= record["point"]["curriculum.min_patch"] <= 0.7


def test_a_finished_search_goes_on_with_more_trials_but_not_with_fewer(interrupted: Interrupted, data: Path) -> None:
    ended = run_to_end(interrupted.space, data, interrupted.out, "--trials", "1")
    assert ended.code == USER_ERROR
    assert ended.errors == "error: trials: received 1, legal is at least 2, which have finished in this study\n"


def test_the_study_can_be_reported(interrupted: Interrupted, tmp_path: Path) -> None:
    from analysis.report import write_report

    report = write_report([interrupted.out], tmp_path / "report")
    assert sorted(report.trials["trial_id"]) == sorted([interrupted.victim, interrupted.other])
    assert report.trials["co2_kg"].gt(0).all()
    assert report.page.is_file()
    assert len(report.figures) >= 2


# -------------------------------------------------------------------------------------- a grid, one trial of which dies


@dataclass(frozen=True)
class Grid:
    """A grid of four points and two trials; the training of the shorter one was killed."""

    ledger: Ledger
    ended: Ended
    whole: str
    killed: str


@pytest.fixture(scope="module")
def grid(interrupted: Interrupted, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    folder = tmp_path_factory.mktemp("grid")
    spec = interrupted.ledger.trial(interrupted.victim).spec()
    # More stages than there are sizes: both numbers mean all of them.
    axes = {"stages": [90, 91], "budget": [0.5, 1.0], "min_patch": spec.axes.min_patch}
    axes["batch_growth"] = spec.axes.batch_growth
    space = write_space(folder, searcher="grid", trials=None, objectives=None, curriculum=axes)
    with running(space, data, folder / "study") as driver:
        [half] = driver.wait_until(
            lambda: [f for f in training(folder / "study", Counter()) if f.trial_id != spec.trial_id]
        )
        os.kill(half.attempts()[-1].pid, signal.SIGKILL)
        ended = driver.end()
    return Grid(ledger=Ledger.open(folder / "study"), ended=ended, whole=spec.trial_id, killed=half.trial_id)


def test_a_failed_trial_is_told_and_the_others_go_on(grid: Grid) -> None:
    assert grid.ended.code == SOME_FAILED
    assert grid.ended.errors == ""
    assert {row["trial_id"]: row["state"] for row in grid.ended.trials} == {
        grid.whole: "finished",
        grid.killed: "failed",
    }
    log = grid.ledger.trial(grid.killed).log_path
    told = [line for line in grid.ended.output.splitlines() if "failed: " in line]
    assert told == [
        f"{grid.killed} failed: its process was killed, by somebody or by the system when memory ran out; log: {log}"
    ]


def test_points_that_resolve_to_one_trial_train_it_once(grid: Grid) -> None:
    trials = {record["point"]["curriculum.stages"]: set() for record in grid.ledger.points()}
    for record in grid.ledger.points():
        trials[record["point"]["curriculum.stages"]].update(record["trial_ids"])
    assert trials == {90: {grid.whole, grid.killed}, 91: {grid.whole, grid.killed}}
    assert len(grid.ledger.points()) == 4
    assert [len(folder.attempts()) for folder in grid.ledger.trials()] == [1, 1]


def test_interruptions_do_not_change_a_weight(grid: Grid, interrupted: Interrupted) -> None:
    """Stopped, killed and resumed against trained at one go: the same bytes."""
    torn, whole = interrupted.ledger.trial(interrupted.victim).result(), grid.ledger.trial(grid.whole).result()
    assert torn is not None
    assert whole is not None
    assert torn.weights_sha256 == whole.weights_sha256
    assert torn.dice_per_case == whole.dice_per_case
    assert torn.voxels == whole.voxels


# ------------------------------------------------------------------------------------------------------- without Ray


@pytest.fixture
def waiting(tmp_path: Path) -> tuple[TrialFolder, Job]:
    """A trial that cannot be trained, because its data is not there."""
    folder = Ledger.create(tmp_path / "study").add(make_spec())
    job = Job(
        study=str(tmp_path / "study"),
        trial_id=folder.trial_id,
        raw=None,
        preprocessed=str(tmp_path / "nowhere"),
        resources=Resources(device="cpu", cpus=1),
        energy=Energy(meter="none"),
        previous_stage=None,
        stop_file=str(tmp_path / "stop"),
    )
    return folder, job


class Worker(threading.Thread):
    """`work.train` in a thread."""

    def __init__(self, folder: TrialFolder, job: Job) -> None:
        super().__init__(daemon=True)
        self._folder, self._job = folder, job
        self.ends: list[BaseException | None] = []

    def run(self) -> None:
        from study.cluster.work import train

        try:
            train(self._folder, self._job)
            self.ends.append(None)
        except Exception as error:
            self.ends.append(error)


def test_a_worker_waits_for_a_trial_that_another_one_trains(waiting: tuple[TrialFolder, Job]) -> None:
    folder, job = waiting
    worker = Worker(folder, job)
    with folder.locked():
        worker.start()
        # Long enough for it to do something wrong.
        worker.join(0.5)
        assert worker.ends == []
        folder.finish(RESULT, attempt=0)
    worker.join(WAIT_SECONDS)
    assert worker.ends == [None]
    assert not folder.log_path.exists()


def test_a_worker_that_waits_can_be_stopped(waiting: tuple[TrialFolder, Job]) -> None:
    folder, job = waiting
    worker = Worker(folder, job)
    with folder.locked():
        worker.start()
        Path(job.stop_file).touch()
        worker.join(WAIT_SECONDS)
    assert [type(end) for end in worker.ends] == [TrialInterrupted]
    assert not folder.log_path.exists()

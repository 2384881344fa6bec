"""A study in an S3 bucket, end to end: its training and its driver are killed, the disk of its machine is lost, and the
same command goes on elsewhere from what is in the bucket.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket, environment, needs_moto, s3_server
from prepared import checkpoint_weights, final_weights, train, workplace
from studies import RAY_AGENTS, TRAINING, WAIT_SECONDS, Driver, running, status, those_that_stay, trained, write_space

from study.buckets.storage import Storage
from study.buckets.view import SCRATCH_VARIABLE, View, viewed
from study.nnunet.datasets import data_paths
from study.store.audit import audit_trial
from study.store.ledger import Ledger
from study.store.trial_folder import TrialFolder, TrialState

pytestmark = [needs_moto, pytest.mark.torture]
REPOSITORY = Path(__file__).resolve().parent.parent
# Long enough to be killed twice, on whatever machine.
EPOCHS = 20
ITERATIONS = EPOCHS * TRAINING["iterations_per_epoch"]
SPACE: dict[str, Any] = {
    "searcher": "grid",
    "trials": None,
    "objectives": None,
    "curriculum": {"min_patch": 0.5},
    "training": {**TRAINING, "epochs": EPOCHS},
}


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A study whose machine was lost, and what became of it.

    Attributes:
        url: of the study; before, after: its only trial as the bucket had it after the loss and in the end.
        shown: what `status --json` said after the loss.
        output: what the second run printed; code: its exit code.
        keys: of all objects in the end; scratch: of the second run.
    """

    url: str
    before: TrialFolder
    shown: list[dict[str, Any]]
    output: str
    code: int
    after: TrialFolder
    keys: list[str]
    scratch: Path


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log.txt") as made, environment(made.environment):
        yield made


@pytest.fixture(scope="module")
def lost(bucket: Bucket, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lost]:
    folder = tmp_path_factory.mktemp("remote")
    space, url = write_space(folder, **SPACE), bucket.url("some/study")
    with environment({SCRATCH_VARIABLE: str(folder / "first")}):
        _lose(Driver(space, data, url))
    shutil.rmtree(folder / "first")
    with environment({SCRATCH_VARIABLE: str(folder / "second")}), viewed(url) as early, ExitStack() as stack:
        shown = status(url)
        with environment({SCRATCH_VARIABLE: str(folder / "third")}):
            driver = stack.enter_context(running(space, data, url))
            code = driver.process.wait(WAIT_SECONDS)
        with viewed(url) as late:
            yield Lost(
                url=url,
                before=early.ledger.trials()[0],
                shown=shown,
                output=space.with_suffix(".out").read_text() + space.with_suffix(".err").read_text(),
                code=code,
                after=late.ledger.trials()[0],
                keys=sorted(Storage(url).entries("")),
                scratch=folder / "third",
            )


def _lose(driver: Driver) -> None:
    """Kill the first training in its middle; when the next one has gone on for a while, kill everything."""
    driver.start()
    try:
        driver.wait_until(lambda: _begun(driver.out))
        with viewed(str(driver.out)) as view:
            first = driver.wait_until(lambda: _training(view, attempt=0))
            os.kill(first.attempts()[0].pid, signal.SIGKILL)
            driver.wait_until(lambda: _training(view, attempt=1))
            family = [process for process in driver.family() if process.name() not in RAY_AGENTS]
    finally:
        driver.process.kill()
        driver.process.wait()
    assert those_that_stay(family) == []


def _begun(url: Any) -> bool:
    return any(key.startswith("records/") for key in Storage(url).entries(""))


def _training(view: View, *, attempt: int) -> TrialFolder | None:
    """The trial, once its attempt has trained some epochs that are in the bucket together with a checkpoint."""
    view.refresh()
    for trial in view.ledger.trials():
        attempts = trial.attempts()
        start = attempts[attempt].resumed_from_iteration if len(attempts) > attempt else ITERATIONS
        models = Storage(view.storage.url).entries(f"models/{trial.trial_id}")
        if trained(trial) > start and any(".pth" in key for key in models):
            return trial
    return None


def test_what_a_lost_machine_leaves_in_the_bucket_is_whole(lost: Lost) -> None:
    audit_trial(lost.before)
    assert lost.before.state() is TrialState.INTERRUPTED
    assert len(lost.before.attempts()) == 2
    assert 0 < trained(lost.before) < ITERATIONS


def test_status_tells_from_another_machine_where_it_stands(lost: Lost) -> None:
    [row] = lost.shown
    assert row["state"] == "interrupted"
    assert 0 < row["iteration"] < ITERATIONS
    assert row["log"] == f"{lost.url}/logs/{row['trial_id']}.txt"


def test_the_same_command_goes_on_from_the_bucket(lost: Lost) -> None:
    assert lost.code == 0, lost.output
    assert "Traceback" not in lost.output
    taken, found, *_ = lost.output.splitlines()
    assert taken.startswith("took over from process ")
    assert taken.endswith(", which has ended")
    assert found.startswith("found 0 finished, 1 resumable (")
    assert f"{lost.url}: 1 finished" in lost.output
    starts = [header.resumed_from_iteration for header in lost.after.attempts()]
    assert len(starts) == 3
    assert starts[0] == 0 < starts[1] <= starts[2]
    audit_trial(lost.after)


def test_losing_a_machine_does_not_change_a_weight(lost: Lost, data: Path, tmp_path: Path) -> None:
    result = lost.after.result()
    assert result is not None
    whole = train(lost.after.spec(), Ledger.create(tmp_path / "study"), workplace(data_paths(data)))
    [model] = [key for key in lost.keys if key.startswith("models/") and key.endswith("checkpoint_final.pth")]
    fetched = tmp_path / "checkpoint_final.pth"
    fetched.write_bytes(Storage(lost.url).read(model) or b"")
    assert checkpoint_weights(fetched) == final_weights(whole)


def test_a_bucket_holds_one_commit_and_one_model_of_a_finished_trial(lost: Lost) -> None:
    trial = lost.after.trial_id
    assert len([key for key in lost.keys if key.startswith(f"models/{trial}/") and ".pth" in key]) == 1
    assert not [key for key in lost.keys if key.startswith(("locks/", "probe/", "clock/", "stop/"))]


def test_a_finished_trial_leaves_no_model_on_the_machine_that_trained_it(lost: Lost) -> None:
    assert list(lost.scratch.rglob("spec.json"))
    assert not list(lost.scratch.rglob("*.pth"))


def test_a_study_in_a_bucket_can_be_reported(lost: Lost, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis", "report", lost.url, "--out", str(tmp_path / "report")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert ended.returncode == 0, ended.stderr
    assert lost.after.trial_id in (tmp_path / "report" / "tables" / "trials.csv").read_text()

"""The process of one trial: how it ends, and what it leaves in the ledger, by exit code.

That a training in full swing writes its checkpoint when it is stopped is tested with the studies, in test_run.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from examples import RESULT, make_spec
from prepared import spec_of

from study import trial_process
from study.datasets import data_paths
from study.ledger import Ledger, TrialFolder, TrialState
from study.machine import Resources
from study.records import Energy, TrialSpec
from study.trial_process import Job

JOB = Job(
    study="/studies/one",
    trial_id="0123456789ab",
    raw="/data/raw",
    preprocessed="/data/preprocessed",
    resources=Resources(device="cuda", cpus=2.5, gpus=0.5, data_workers=3, concurrent_trials=4),
    energy=Energy(country="FRA", pue=1.2),
    previous_stage="/data/previous",
    stop_file="/studies/one/.stop",
)


def trial_for(spec: TrialSpec, root: Path) -> tuple[TrialFolder, Job]:
    """A trial that is still to be trained, on data that is not there."""
    folder = Ledger.create(root / "study").add(spec)
    job = Job(
        study=str(root / "study"),
        trial_id=spec.trial_id,
        raw=None,
        preprocessed=str(root / "nowhere"),
        resources=Resources(device="cpu", cpus=1, data_workers=0),
        energy=Energy(meter="none"),
        previous_stage=None,
        stop_file=str(root / "stop"),
    )
    return folder, job


def start(job: Job) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "study.trial_process", job.to_json()], stdin=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a process whose pipe is held until it ends by itself."""
    with process:
        return process.wait()


@pytest.mark.parametrize("job", [JOB, replace(JOB, raw=None, previous_stage=None, resources=Resources())])
def test_a_job_travels_as_a_line(job: Job) -> None:
    text = job.to_json()
    assert "\n" not in text
    assert Job.from_json(text) == job


def test_a_job_names_its_workplace() -> None:
    workplace = JOB.workplace()
    assert (workplace.data.raw, workplace.data.preprocessed) == (Path("/data/raw"), Path("/data/preprocessed"))
    assert (workplace.resources, workplace.energy) == (JOB.resources, JOB.energy)
    assert workplace.previous_stage == Path("/data/previous")


def test_a_trial_that_has_finished_is_left_alone(tmp_path: Path) -> None:
    folder, job = trial_for(make_spec(), tmp_path)
    folder.finish(RESULT, attempt=0)
    assert ended(start(job)) == trial_process.FINISHED
    assert folder.attempts() == []


def test_a_trial_that_another_process_trains_is_left_alone(tmp_path: Path) -> None:
    folder, job = trial_for(make_spec(), tmp_path)
    with folder.locked():
        assert ended(start(job)) == trial_process.BUSY
    assert folder.events() == []
    assert "is being trained by another process" in folder.log_path.read_text()


def test_what_is_refused_before_it_starts_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    folder, job = trial_for(make_spec(), tmp_path)
    assert ended(start(job)) == trial_process.FAILED
    reason = folder.failure_reason()
    assert reason is not None
    assert reason.startswith("dataset: received 'Dataset001_BrainTumour', found nothing in ")
    assert folder.log_path.read_text() == f"{reason}\n"
    assert folder.attempts() == []


@pytest.mark.parametrize("how", ["its input closes", "its stop file appears"])
def test_a_process_that_nobody_wants_any_more_ends(how: str, data: Path, tmp_path: Path) -> None:
    """Long before its first iteration: torch alone takes longer to import than a closed pipe to be seen."""
    folder, job = trial_for(spec_of(data_paths(data)), tmp_path)
    paths = data_paths(data)
    process = start(replace(job, raw=str(paths.raw), preprocessed=str(paths.preprocessed)))
    if how == "its input closes":
        assert process.stdin is not None
        process.stdin.close()
    else:
        (tmp_path / "stop").touch()
    assert ended(process) == trial_process.INTERRUPTED
    assert folder.state() is not TrialState.FINISHED
    assert folder.epochs() == []
    assert "stopped outside the training loop" in folder.log_path.read_text()

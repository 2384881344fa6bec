"""`ray job submit` on a cluster of our own: refused without its token, stopped in mid-training, submitted again until
done. One fixture keeps what it saw; the tests look at one thing each.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from clusters import Cluster, cluster, reached, until
from studies import TRAINING, listening, status, training, write_space

from study.store.ledger import Ledger
from study.store.records import Phase
from study.store.trial_folder import TrialState

pytestmark = pytest.mark.torture

EPOCHS = 12
ITERATIONS = EPOCHS * TRAINING["iterations_per_epoch"]
WAITING = {"PENDING", "RUNNING"}


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """A job that is stopped and the same one submitted again.

    Attributes:
        refused: what was said to somebody without the token; jobs_then: the jobs that the cluster knew afterwards.
        listening: addresses on which the cluster accepted connections while it trained.
        stopped_at: iteration at which each trial was stopped.
        states: how the jobs ended; logs: what they printed.
    """

    ledger: Ledger
    refused: str
    jobs_then: dict[str, str]
    listening: set[str]
    stopped_at: dict[str, int]
    states: dict[str, str]
    logs: dict[str, str]


@pytest.fixture(scope="module")
def jobs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    folder = tmp_path_factory.mktemp("jobs")
    out = folder / "study"
    space = write_space(folder, training={**TRAINING, "epochs": EPOCHS, "initial_learning_rate": [1e-3, 2e-3]})
    command = [sys.executable, "-m", "study", "run", str(space), "--data", str(data), "--out", str(out)]
    with cluster() as ray:
        refused = ray.submit("stranger", command, token=False)
        jobs_then = ray.jobs()
        ray.submit("first", command)
        until(lambda: ray.jobs()["first"] not in WAITING or training(out, Counter()), ray.head)
        addresses = listening(ray.head.family())
        stopped_at = _stop(ray, "first", out)
        ray.submit("second", command)
        until(lambda: ray.jobs()["second"] not in WAITING, ray.head)
        states = ray.jobs()
        logs = {name: ray.log(name) for name in states}
    return Jobs(
        ledger=Ledger.open(out),
        refused=refused,
        jobs_then=jobs_then,
        listening=addresses,
        stopped_at=stopped_at,
        states=states,
        logs=logs,
    )


def _stop(ray: Cluster, name: str, out: Path) -> dict[str, int]:
    """`ray job stop`: SIGTERM, and SIGKILL 3 s later. Where each trial stood when the last training had ended."""
    assert ray.jobs()[name] == "RUNNING", ray.log(name)
    ended = ray.ray("job", "stop", name)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    until(lambda: not any(trial.state() is TrialState.RUNNING for trial in Ledger(out).trials()))
    return {trial.trial_id: reached(trial) for trial in Ledger(out).trials() if trial.attempts()}


def test_nothing_is_done_for_somebody_without_the_token(jobs: Jobs) -> None:
    assert "Unauthorized: Missing authentication token" in jobs.refused
    assert jobs.jobs_then == {}


def test_the_cluster_is_reached_from_this_machine_alone(jobs: Jobs) -> None:
    assert jobs.listening == {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_stopped_job_leaves_checkpoints_even_when_its_driver_is_killed_3_s_later(jobs: Jobs) -> None:
    assert jobs.states["first"] == "STOPPED"
    assert any(0 < iteration < ITERATIONS for iteration in jobs.stopped_at.values())
    assert "Traceback" not in jobs.logs["first"]


def test_submitted_again_it_goes_on_and_finishes(jobs: Jobs) -> None:
    assert jobs.states["second"] == "SUCCEEDED", jobs.logs["second"]
    assert "found 0 finished, " in jobs.logs["second"]
    assert f"{jobs.ledger.root}: 2 finished" in jobs.logs["second"]
    assert [row["state"] for row in status(jobs.ledger.root)] == ["finished", "finished"]


def test_nothing_was_trained_twice(jobs: Jobs) -> None:
    for trial in jobs.ledger.trials():
        starts = [header.resumed_from_iteration for header in trial.attempts()]
        stopped_at = jobs.stopped_at.get(trial.trial_id, 0)
        assert starts == [0, stopped_at] if stopped_at else [0]
        trained = [i.iteration_stop - i.iteration_start for i in trial.cost_intervals() if i.phase is Phase.TRAINING]
        assert sum(trained) == ITERATIONS
    assert len(jobs.ledger.points()) == 2

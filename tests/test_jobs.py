"""`ray job submit` on a cluster of our own: refused without its token, stopped in mid-training, submitted again."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from clusters import cluster, reached, until
from studies import TRAINING, listening, status, training, write_space

from study.store.ledger import Ledger
from study.store.records import Phase
from study.store.trial_folder import TrialState

EPOCHS = 12
ITERATIONS = EPOCHS * TRAINING["iterations_per_epoch"]
WAITING = {"PENDING", "RUNNING"}


@pytest.mark.torture
def test_a_stopped_job_leaves_checkpoints_and_submitted_again_it_goes_on(data: Path, tmp_path: Path) -> None:
    out, ledger = tmp_path / "study", Ledger(tmp_path / "study")
    space = write_space(tmp_path, training={**TRAINING, "epochs": EPOCHS, "initial_learning_rate": [1e-3, 2e-3]})
    command = [sys.executable, "-m", "study", "run", str(space), "--data", str(data), "--out", str(out)]
    with cluster() as ray:
        # Nothing is done for somebody without the token, or on another machine.
        assert "Unauthorized: Missing authentication token" in ray.submit("stranger", command, token=False)
        assert ray.jobs() == {}
        ray.submit("first", command)
        until(lambda: ray.jobs()["first"] not in WAITING or training(out, Counter()), ray.head)
        assert listening(ray.head.family()) == {"127.0.0.1", "::ffff:127.0.0.1"}
        # SIGTERM, and SIGKILL 3 s later.
        assert ray.jobs()["first"] == "RUNNING", ray.log("first")
        ended = ray.ray("job", "stop", "first")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        until(lambda: not any(trial.state() is TrialState.RUNNING for trial in ledger.trials()))
        stopped_at = {trial.trial_id: reached(trial) for trial in ledger.trials() if trial.attempts()}
        assert any(0 < iteration < ITERATIONS for iteration in stopped_at.values())
        ray.submit("second", command)
        until(lambda: ray.jobs()["second"] not in WAITING, ray.head)
        first, second = ray.log("first"), ray.log("second")
        assert ray.jobs() == {"first": "STOPPED", "second": "SUCCEEDED"}, second
    assert "Traceback" not in first
    assert "found 0 finished, " in second and f"{out}: 2 finished" in second
    assert [row["state"] for row in status(out)] == ["finished", "finished"]
    assert len(ledger.points()) == 2
    # Nothing was trained twice.
    for trial in ledger.trials():
        starts = [header.resumed_from_iteration for header in trial.attempts()]
        assert starts == [0, *filter(None, [stopped_at.get(trial.trial_id)])]
        trained = [i.iteration_stop - i.iteration_start for i in trial.cost_intervals() if i.phase is Phase.TRAINING]
        assert sum(trained) == ITERATIONS

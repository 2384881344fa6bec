"""A study that is confirmed on Ray: killed while it trains, gone on with, told of by status and report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from studies import TRAINING, WAIT_SECONDS, run_to_end, write_space

from analysis.page.sections import confirmation
from study.__main__ import main
from study.store.audit import audit
from study.store.ledger import Ledger
from study.store.trial_folder import TrialState

pytestmark = pytest.mark.torture

GRID = {
    "searcher": "grid",
    "trials": None,
    "objectives": None,
    "curriculum": {"scheme": "pgps", "stages": 2, "budget": [0.5, 1.0]},
    "training": {**TRAINING, "epochs": 6, "initial_learning_rate": 3e-3},
}


def test_a_confirmation_that_is_killed_goes_on(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study"
    assert run_to_end(write_space(tmp_path, **GRID), data, out).code == 0
    ledger = Ledger(out)
    command = [sys.executable, "-m", "study", "confirm", str(out), "--data", str(data), "--folds", "1", "2"]
    first = subprocess.Popen([*command, "--concurrent", "1"], start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_SECONDS
    while not any(folder.spec().fold and folder.epochs() for folder in ledger.trials()):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    [begun] = ledger.confirmations()
    ended = subprocess.run([*command, "--concurrent", "1"], capture_output=True, text=True, check=True)
    audit(ledger)
    assert "confirmed: " in ended.stdout and "point " in ended.stdout
    assert ledger.confirmations()[0] == begun
    assert ledger.trial(begun["trial_ids"][0]).state() is TrialState.FINISHED
    found = ledger.confirmation()
    assert found is not None and found.trainings == len(ledger.confirmations()) >= 2
    assert {fold for point in found.points for fold in point.folds} <= {1, 2}
    assert found.gpu_hours > 0 and found.words() in ended.stdout
    assert main(["status", str(out)]) == 0
    assert found.words() in capsys.readouterr().out
    [section] = confirmation([out])
    assert section.exhibits[0].data is not None and len(section.exhibits[0].data) == 2

"""Late stopping for real: stopped on Ray, killed as soon as that is decided, resumed, and finished by hand."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from studies import TRAINING, run_to_end, running, write_space
from test_late_stopping import train

from study.nnunet.checkpoints import newest_readable
from study.nnunet.datasets import data_paths
from study.search.document import load_space
from study.search.space import resolved_space
from study.search.trials import prepared_lookup, specs
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.specification import TrialSpec
from study.store.stopping import is_kept
from study.store.trial_folder import TrialFolder, TrialState

pytestmark = pytest.mark.torture

EPOCHS, EACH = TRAINING["epochs"], TRAINING["iterations_per_epoch"]
# Of twelve finished trainings that cost less than the one to come; no untrained network gets near the best of them.


def candidates(data: Path, folder: Path, growths: Sequence[float], **axes: float) -> tuple[Path, list[TrialSpec]]:
    """A space of one training for each growth, and their specifications."""
    path = write_space(
        folder,
        **dict.fromkeys(("trials", "objectives")),
        searcher="grid",
        stopping="late",
        curriculum={"growth": list(growths), "min_patch": 0.5, **axes},
        training={**TRAINING, "initial_learning_rate": 1e-5},
    )
    space = resolved_space(load_space(path), data_paths(data), {})
    return path, [spec for point in space.points() for spec in specs(space, point, prepared_lookup(data_paths(data)))]


def kinds(folder: TrialFolder) -> list[str]:
    return [event["event"] for event in folder.events()]


def test_a_stop_outlives_a_kill_and_can_be_undone_by_hand(data: Path, tmp_path: Path) -> None:
    _, drawn = candidates(data, tmp_path, [n / 10 for n in range(20)])
    growth = next(spec.axes.growth for spec in drawn if not is_kept(spec.trial_id))
    others = candidates(data, tmp_path, [n / 10 - 2 for n in range(12)], budget=0.5)[1]
    path, (spec,) = candidates(data, tmp_path, [growth])
    out = tmp_path / "study"
    ledger = Ledger.create(out, space=resolved_space(load_space(path), data_paths(data), {}).identity())
    for n, other in enumerate(others):
        dice = 0.95 if n == 0 else 0.6
        train(ledger, other, dice - 0.05, dice=dice, epochs=EPOCHS)
    folder = ledger.trial(spec.trial_id)
    with running(path, data, out) as driver:
        driver.wait_until(lambda: folder.path.exists() and "stopped" in kinds(folder))
        driver.process.kill()
        driver.end()
    (verdict,) = [event for event in folder.events() if event["event"] == "stopped"]
    assert (verdict["iteration"], verdict["curves"]) == (EPOCHS // 2 * EACH, 12)
    assert verdict["beaten_by"] == others[0].trial_id
    attempts, paid = len(folder.attempts()), bill(folder.attempts(), folder.cost_intervals()).total.seconds
    assert paid > 0

    ended = run_to_end(path, data, out)
    assert (ended.code, folder.state(), len(folder.attempts())) == (0, TrialState.STOPPED, attempts)
    assert "12 finished, 1 stopped" in ended.output and "1 stopped late" in ended.output
    assert f"{spec.trial_id} stopped: late: at 50%" in ended.output
    results = next(folder.results_path.rglob("checkpoint_latest.pth")).parent
    assert newest_readable(results, folder.note, inside=folder.path) is not None

    (command,) = re.findall(rf"{spec.trial_id} to its end all the same: \S+ (.*)", ended.output)
    subprocess.run([sys.executable, *shlex.split(command)], check=True, capture_output=True)
    assert folder.state() is TrialState.FINISHED
    assert folder.attempts()[-1].resumed_from_iteration >= verdict["iteration"]
    assert kinds(folder).count("stopped") == 1

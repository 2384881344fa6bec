"""Studies on Ray Tune, end to end: real processes that train, are stopped, killed, and go on where they were.

Two studies tell the whole story, each in one fixture that keeps what it saw; the tests look at one thing each. The
first is Optuna's and is interrupted in every way; the second is a grid that trains one of its trials again without
interruption.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from studies import (
    INTERRUPTED,
    RAY_AGENTS,
    SOME_FAILED,
    TRAINING,
    Ended,
    attempts,
    listening,
    run_to_end,
    running,
    status,
    those_that_stay,
    training,
    write_space,
)
from terminals import in_terminal

from study.search.document import load_space
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.records import TRAINING_PHASES as PAID
from study.store.records import Phase
from study.store.trial_folder import TrialFolder

pytestmark = pytest.mark.cluster

ITERATIONS = TRAINING["epochs"] * TRAINING["iterations_per_epoch"]


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A run that was ended by Ctrl-C.

    Attributes:
        listening: addresses on which Ray and the study accepted connections before.
        trial: one that was being trained; iteration: where it stood when the run had ended.
    """

    ended: Ended
    listening: set[str]
    trial: TrialFolder
    iteration: int


@dataclass(frozen=True, kw_only=True)
class Killed:
    """A run that was ended by killing it, after one of its trainings.

    Attributes:
        victim: the trial whose training was killed; reason: why it failed, by the ledger.
        other: the one that was being trained when the driver was killed; iteration: where it stood afterwards.
        left_over: processes of the run that did not end by themselves.
    """

    victim: TrialFolder
    reason: str | None
    other: TrialFolder
    iteration: int
    left_over: list[psutil.Process]


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """Three runs of one study of two trials."""

    ledger: Ledger
    space: Path
    stopped: Stopped
    killed: Killed
    finished: Ended


@pytest.fixture(scope="module")
def interrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    folder = tmp_path_factory.mktemp("interrupted")
    space, out = write_space(folder), folder / "study"
    return Interrupted(
        stopped=_stop(space, data, out),
        killed=_kill(space, data, out),
        finished=run_to_end(space, data, out),
        space=space,
        ledger=Ledger.open(out),
    )


def _stop(space: Path, data: Path, out: Path) -> Stopped:
    """Ctrl-C as soon as a trial has trained some epochs."""
    with running(space, data, out) as driver:
        trial = driver.wait_until(lambda: training(out, Counter()))[0]
        addresses = listening(driver.family())
        driver.process.send_signal(signal.SIGINT)
        ended = driver.end()
    return Stopped(ended=ended, listening=addresses, trial=trial, iteration=_reached(trial))


def _kill(space: Path, data: Path, out: Path) -> Killed:
    """Kill the training of the first trial that is going on, then the driver while it trains the other one."""
    before, ledger = attempts(out), Ledger(out)
    with running(space, data, out) as driver:
        driver.wait_until(lambda: len(ledger.trials()) == 2)
        victim = driver.wait_until(lambda: training(out, before))[0]
        [other] = (trial for trial in ledger.trials() if trial != victim)
        os.kill(victim.attempts()[-1].pid, signal.SIGKILL)
        reason = driver.wait_until(lambda: _reason(victim))
        driver.wait_until(lambda: other in training(out, before))
        family = [process for process in driver.family() if process.name() not in RAY_AGENTS]
        driver.process.kill()
        driver.process.wait()
        left_over = those_that_stay(family)
    return Killed(victim=victim, reason=reason, other=other, iteration=_reached(other), left_over=left_over)


def _reason(trial: TrialFolder) -> str | None:
    """Why the trial failed last, though it may be trained again by now."""
    return next((event["reason"] for event in reversed(trial.events()) if event["event"] == "failed"), None)


def _reached(trial: TrialFolder) -> int:
    """The iteration after which the trial says that it was interrupted."""
    event = trial.events()[-1]
    assert event["event"] == "interrupted"
    return int(event["reason"].removeprefix("stopped after iteration ").split()[0])


def test_ctrl_c_stops_a_study_with_its_checkpoints_written(interrupted: Interrupted) -> None:
    stopped = interrupted.stopped
    assert stopped.ended.code == INTERRUPTED
    assert stopped.ended.errors.splitlines()[-1] == "the study was stopped; the same command resumes it"
    assert "Traceback" not in stopped.ended.errors
    assert f"{stopped.trial.trial_id}   interrupted" in stopped.ended.output
    # The second one may not have come to its training yet.
    assert {row["state"] for row in stopped.ended.trials} <= {"interrupted", "new"}
    assert 20 <= stopped.iteration < ITERATIONS
    assert stopped.trial.attempts()[1].resumed_from_iteration == stopped.iteration


def test_a_ray_of_our_own_is_reached_from_this_machine_alone(interrupted: Interrupted) -> None:
    assert interrupted.stopped.listening
    addresses = {ipaddress.ip_address(text.removeprefix("::ffff:")) for text in interrupted.stopped.listening}
    assert all(address.is_loopback for address in addresses), addresses


def test_a_killed_training_is_a_failure_with_a_reason(interrupted: Interrupted) -> None:
    assert interrupted.killed.reason == "its process was killed"


def test_a_killed_driver_leaves_checkpoints_and_no_processes(interrupted: Interrupted) -> None:
    killed = interrupted.killed
    assert killed.left_over == []
    assert killed.other.attempts()[-1].resumed_from_iteration == killed.iteration > 0


def test_the_same_command_resumes_to_the_end(interrupted: Interrupted) -> None:
    finished, victim = interrupted.finished, interrupted.killed.victim
    assert finished.code == 0
    assert "Traceback" not in finished.errors
    took_over, found, *_ = finished.output.splitlines()
    assert took_over.startswith("took over from process ")
    assert took_over.endswith(", which has ended")
    assert found.startswith("found 0 finished, 2 resumable (")
    *lines, counts, best, way = finished.output.splitlines()
    for row in finished.trials:
        [line] = [line for line in lines if line.startswith(f"{row['trial_id']}  pgps ")]
        assert f"  Dice {row['dice']:.4f}  {row['runtime_seconds']:.1f} s  (" in line
    assert counts == f"{interrupted.ledger.root}: 2 finished"
    assert best.startswith("best    ")
    assert way.endswith(f"-m analysis report {interrupted.ledger.root}")
    assert [row["state"] for row in finished.trials] == ["finished", "finished"]
    starts = [header.resumed_from_iteration for header in victim.attempts()]
    assert starts[0] == 0 < starts[-1]
    assert starts == sorted(starts)
    assert [epoch.iteration for epoch in victim.epochs()] == list(range(10, ITERATIONS + 1, 10))


def test_what_was_trained_twice_is_paid_twice_and_shown_as_waste(interrupted: Interrupted) -> None:
    victim = interrupted.killed.victim
    costs = bill(victim.attempts(), victim.cost_intervals())
    trained = [i.iteration_stop - i.iteration_start for i in victim.cost_intervals() if i.phase is Phase.TRAINING]
    redone = sum(trained) - ITERATIONS
    assert redone >= 0
    assert (costs.waste.seconds > 0) is (redone > 0)
    [row] = [row for row in interrupted.finished.trials if row["trial_id"] == victim.trial_id]
    assert row["attempts"] == len(costs.segments) >= 2
    assert row["runtime_seconds"] == pytest.approx(sum(s.by_phase[p].seconds for s in costs.segments for p in PAID))
    assert row["waste_seconds"] == pytest.approx(costs.waste.seconds)
    assert row["co2_kg"] > 0


def test_a_finished_study_trains_nothing_and_says_what_it_found_and_a_terminal_shows_the_table(
    interrupted: Interrupted, data: Path
) -> None:
    command = [sys.executable, "-m", "study", "run", str(interrupted.space), "--data", str(data)]
    with in_terminal([*command, "--out", str(interrupted.ledger.root)]) as terminal:
        assert terminal.read_to_end() == 0
    assert "found 2 finished, 0 resumable, 0 new; " in terminal.screen
    assert status(interrupted.ledger.root) == interrupted.finished.trials
    green, one_line_up = "\x1b[32m", "\x1b[1A"
    for row in interrupted.finished.trials:
        assert f"{row['trial_id']}   {green}finished" in terminal.screen
    # Drawn again in the same place.
    assert one_line_up in terminal.screen


def trial_ids(study: Interrupted) -> list[str]:
    return sorted([study.killed.victim.trial_id, study.killed.other.trial_id])


def test_optuna_proposed_each_point_once(interrupted: Interrupted) -> None:
    records = interrupted.ledger.points()
    assert len(records) == 2
    assert sorted(i for record in records for i in record["trial_ids"]) == trial_ids(interrupted)
    space = load_space(interrupted.space)
    for record in records:
        assert set(record["point"]) == set(space.searched)
        assert 0.3 <= record["point"]["curriculum.min_patch"] <= 0.7


def test_the_study_can_be_reported(interrupted: Interrupted, tmp_path: Path) -> None:
    from analysis.page.report import write_report
    from analysis.page.sections import fronts

    report = write_report([interrupted.ledger.root], tmp_path / "report", sections=[fronts])
    assert sorted(report.trials["trial_id"]) == trial_ids(interrupted)
    assert report.trials["co2_kg"].gt(0).all()
    assert report.page.is_file()
    assert len(report.figures) >= 2


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
    spec = interrupted.killed.victim.spec()
    # More stages than there are sizes: both numbers mean all of them.
    axes = {"min_patch": spec.axes.min_patch, "batch_growth": spec.axes.batch_growth}
    axes |= {"stages": [90, 91], "budget": [0.5, 1.0]}
    settings = {**TRAINING, "initial_learning_rate": spec.training.initial_learning_rate}
    space = write_space(folder, searcher="grid", trials=None, objectives=None, curriculum=axes, training=settings)
    with running(space, data, folder / "study", "--retries", "0") as driver:
        [half] = driver.wait_until(
            lambda: [f for f in training(folder / "study", Counter()) if f.trial_id != spec.trial_id]
        )
        os.kill(half.attempts()[-1].pid, signal.SIGKILL)
        ended = driver.end()
    return Grid(ledger=Ledger.open(folder / "study"), ended=ended, whole=spec.trial_id, killed=half.trial_id)


def test_a_failed_trial_is_told_and_the_others_go_on(grid: Grid) -> None:
    assert grid.ended.code == SOME_FAILED
    assert "Traceback" not in grid.ended.errors
    assert {row["trial_id"]: row["state"] for row in grid.ended.trials} == {
        grid.whole: "finished",
        grid.killed: "failed",
    }
    log = grid.ledger.trial(grid.killed).log_path
    told = [line for line in grid.ended.output.splitlines() if "failed: " in line]
    assert told == [f"{grid.killed} failed: its process was killed; log: {log}"]


def test_points_that_resolve_to_one_trial_train_it_once(grid: Grid) -> None:
    records = [
        (record["point"]["curriculum.stages"], record["point"]["curriculum.budget"], record["trial_ids"])
        for record in grid.ledger.points()
    ]
    assert sorted(records) == [
        (90, 0.5, [grid.killed]),
        (90, 1.0, [grid.whole]),
        (91, 0.5, [grid.killed]),
        (91, 1.0, [grid.whole]),
    ]
    assert [len(folder.attempts()) for folder in grid.ledger.trials()] == [1, 1]


def test_interruptions_do_not_change_a_weight(grid: Grid, interrupted: Interrupted) -> None:
    """Stopped, killed and resumed against trained at one go: the same bytes."""
    torn, whole = interrupted.killed.victim.result(), grid.ledger.trial(grid.whole).result()
    assert torn is not None
    assert whole is not None
    assert torn.weights_sha256 == whole.weights_sha256
    assert torn.dice_per_case == whole.dice_per_case
    assert torn.voxels == whole.voxels

"""What a worker does with a trial that breaks, stalls, is infeasible, or that somebody else is training.

The attempts here are made by functions that write what a training would have left; real trainings are in
test_trial_host and test_interrupted_studies.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples import HEADER, complete, finish, make_interval, make_spec, result_of
from studies import WAIT_SECONDS

from study.cluster import tuning as work
from study.cluster.tuning import Assignment, Patience, bring_to_end
from study.common.errors import DiskFullError, TrialInterrupted
from study.nnunet.datasets import DataPaths
from study.run.trial_host import Ending
from study.run.trial_process import BUSY, DISK_FULL, FAILED, FINISHED, INFEASIBLE, LOST, TrialJob
from study.run.workplace import Workplace
from study.store.ledger import Ledger
from study.store.results import Metrics, measured
from study.store.trial_folder import TrialFolder, TrialState

Step = Callable[[TrialFolder], Ending]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialFolder:
    monkeypatch.setattr(work, "FIRST_PAUSE_SECONDS", 0.0)
    return Ledger.create(tmp_path / "study").add(make_spec())


class Script:
    """Makes one attempt after the other; the last one again and again."""

    def __init__(self, *steps: Step) -> None:
        self._steps = steps
        self.made = 0

    def __call__(self, folder: TrialFolder, job: TrialJob, patience: Patience) -> Ending:
        step = self._steps[min(self.made, len(self._steps) - 1)]
        self.made += 1
        return step(folder)


def fails_at(iteration: int) -> Step:
    """A fault after an iteration, recorded by the training itself."""

    def step(folder: TrialFolder) -> Ending:
        number = _begin(folder, iteration)
        folder.fail(attempt=number, reason="something broke")
        return Ending(code=FAILED)

    return step


def is_killed_at(iteration: int) -> Step:
    """A kill after an iteration, of which the training could not say anything."""

    def step(folder: TrialFolder) -> Ending:
        _begin(folder, iteration)
        return Ending(code=-signal.SIGKILL, reason="its process was killed")

    return step


def is_infeasible(folder: TrialFolder) -> Ending:
    folder.fail(attempt=_begin(folder, 5), reason="out of memory: 2 GiB", state=TrialState.INFEASIBLE)
    return Ending(code=INFEASIBLE)


def finishes(folder: TrialFolder) -> Ending:
    complete(folder, attempt=_begin(folder, folder.spec().curriculum.total_iterations))
    return Ending(code=FINISHED)


def _begin(folder: TrialFolder, iteration: int) -> int:
    number = len(folder.attempts())
    folder.begin_attempt(replace(HEADER, attempt=number))
    folder.append_cost(make_interval(0, iteration, attempt=number))
    return number


def assignment(script: Script, **patience: Any) -> Assignment:
    # Neither space nor data are asked for by a single trial.
    nothing: Any = None
    return Assignment(space=nothing, template=nothing, patience=Patience(**patience), attempt=script)


def job_for(folder: TrialFolder) -> TrialJob:
    study = folder.path.parent.parent
    place = Workplace(data=DataPaths(raw=None, preprocessed=Path("/nowhere")))
    return TrialJob(study=study, trial_id=folder.trial_id, workplace=place, stop_file=study / "stop")


def test_a_finished_trial_is_attempted_once_more_to_measure_what_it_lacks(folder: TrialFolder) -> None:
    finishes(folder)
    job = job_for(folder)
    job = replace(job, workplace=replace(job.workplace, metrics=Metrics(names=("nsd",))))

    def measures(trial: TrialFolder) -> Ending:
        trial.complete(replace(result_of(trial.spec()), metrics={"nsd": measured({"a": {"1": 0.5}}, 1.0)}))
        return Ending(code=FINISHED)

    measuring, breaking = Script(measures), Script(lambda _: Ending(code=FAILED))
    # One that does not succeed leaves the trial finished, and is not repeated in this run.
    assert bring_to_end(folder, job, assignment(breaking)) is TrialState.FINISHED
    assert breaking.made == 1
    for _ in range(2):
        assert bring_to_end(folder, job, assignment(measuring)) is TrialState.FINISHED
    assert measuring.made == 1


def outcome_of(folder: TrialFolder, script: Script, **patience: Any) -> TrialState:
    return bring_to_end(folder, job_for(folder), assignment(script, **patience))


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_trial_that_breaks_at_the_same_place_is_given_up_after_its_retries(folder: TrialFolder, retries: int) -> None:
    script = Script(fails_at(10))
    assert outcome_of(folder, script, retries=retries) is TrialState.FAILED
    assert script.made == retries + 1
    assert folder.failure_reason() == "something broke"


def test_faults_between_which_it_gets_on_are_not_counted_together(folder: TrialFolder) -> None:
    script = Script(*(is_killed_at(iteration) for iteration in (10, 20, 30, 40)), finishes)
    assert outcome_of(folder, script, retries=1) is TrialState.FINISHED
    assert script.made == 5
    assert [event["event"] for event in folder.events()] == [*["started", "failed"] * 4, "started", "finished"]


def test_a_kill_before_the_first_iteration_is_a_fault_too(folder: TrialFolder) -> None:
    script = Script(is_killed_at(0))
    assert outcome_of(folder, script, retries=2) is TrialState.FAILED
    assert script.made == 3


def test_the_next_run_tries_a_failed_trial_again(folder: TrialFolder) -> None:
    assert outcome_of(folder, Script(fails_at(10)), retries=0) is TrialState.FAILED
    assert outcome_of(folder, Script(finishes), retries=0) is TrialState.FINISHED


def test_an_infeasible_trial_is_a_result_and_not_tried_again(folder: TrialFolder) -> None:
    script = Script(is_infeasible)
    assert outcome_of(folder, script) is TrialState.INFEASIBLE
    assert outcome_of(folder, script) is TrialState.INFEASIBLE
    assert script.made == 1
    assert folder.failure_reason() == "out of memory: 2 GiB"


def test_an_infeasible_trial_is_tried_again_once_when_asked_for(folder: TrialFolder) -> None:
    script = Script(is_infeasible)
    outcome_of(folder, script)
    assert outcome_of(folder, script, retry_infeasible=True) is TrialState.INFEASIBLE
    assert script.made == 2


def test_a_training_that_the_system_killed_for_memory_is_infeasible(folder: TrialFolder) -> None:
    def step(folder: TrialFolder) -> Ending:
        _begin(folder, 5)
        return Ending(code=INFEASIBLE, reason="out of memory: the system killed a process of the training")

    assert outcome_of(folder, Script(step)) is TrialState.INFEASIBLE
    assert str(folder.failure_reason()).startswith("out of memory: the system killed")


def test_a_full_disk_is_neither_a_fault_nor_a_result(folder: TrialFolder) -> None:
    with pytest.raises(DiskFullError, match="no space is left to write"):
        outcome_of(folder, Script(lambda _: Ending(code=DISK_FULL)))
    assert folder.state() is TrialState.NEW


@pytest.mark.parametrize("code", [BUSY, LOST])
def test_a_trial_that_somebody_else_has_is_asked_for_again(folder: TrialFolder, code: int) -> None:
    script = Script(lambda _: Ending(code=code), finishes)
    assert outcome_of(folder, script, retries=0) is TrialState.FINISHED


def test_a_study_that_is_being_stopped_starts_nothing(folder: TrialFolder) -> None:
    job_for(folder).stop_file.touch()
    script = Script(finishes)
    with pytest.raises(TrialInterrupted):
        outcome_of(folder, script)
    assert script.made == 0


def test_pauses_between_faults_grow_to_minutes_and_no_further() -> None:
    pauses = [work.pause_seconds(faults) for faults in range(1, 1001)]
    assert pauses[:9] == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert set(pauses[9:]) == {300}


class Worker(threading.Thread):
    """`bring_to_end` in a thread."""

    def __init__(self, folder: TrialFolder, script: Script) -> None:
        super().__init__(daemon=True)
        self._folder, self._script = folder, script
        self.ends: list[object] = []

    def run(self) -> None:
        try:
            self.ends.append(outcome_of(self._folder, self._script))
        except Exception as error:
            self.ends.append(type(error))


def test_a_worker_waits_for_a_trial_that_another_one_trains(folder: TrialFolder) -> None:
    script = Script(finishes)
    worker = Worker(folder, script)
    with folder.locked():
        worker.start()
        # Long enough for it to do something wrong.
        worker.join(0.5)
        assert worker.ends == []
        finish(folder)
    worker.join(WAIT_SECONDS)
    assert worker.ends == [TrialState.FINISHED]
    assert script.made == 0


def test_a_worker_that_waits_can_be_stopped(folder: TrialFolder) -> None:
    worker = Worker(folder, Script(finishes))
    with folder.locked():
        worker.start()
        job_for(folder).stop_file.touch()
        worker.join(WAIT_SECONDS)
    assert worker.ends == [TrialInterrupted]

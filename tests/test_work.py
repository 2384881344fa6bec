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

from study.cluster import tuning
from study.cluster.tuning import Assignment, Patience, bring_to_end, pause_seconds
from study.common.errors import DiskFullError, TrialInterrupted
from study.nnunet.datasets import DataPaths
from study.run.provenance import Workplace
from study.run.trial_host import Ending
from study.run.trial_process import BUSY, DISK_FULL, FAILED, FINISHED, INFEASIBLE, LOST, TrialJob
from study.store.ledger import Ledger
from study.store.results import Metrics, measured
from study.store.trial_folder import TrialFolder, TrialState

Step = Callable[[TrialFolder], Ending]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialFolder:
    monkeypatch.setattr(tuning, "FIRST_PAUSE_SECONDS", 0.0)
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


def begin(folder: TrialFolder, iteration: int) -> int:
    number = len(folder.attempts())
    folder.begin_attempt(replace(HEADER, attempt=number))
    folder.append_cost(make_interval(0, iteration, attempt=number))
    return number


def fails(folder: TrialFolder) -> Ending:
    """A fault after ten iterations, recorded by the training itself."""
    folder.fail(attempt=begin(folder, 10), reason="something broke")
    return Ending(code=FAILED)


def is_killed_at(iteration: int) -> Step:
    """A kill after an iteration, of which the training could not say anything."""

    def step(folder: TrialFolder) -> Ending:
        begin(folder, iteration)
        return Ending(code=-signal.SIGKILL, reason="its process was killed")

    return step


def is_infeasible(folder: TrialFolder) -> Ending:
    folder.fail(attempt=begin(folder, 5), reason="out of memory: 2 GiB", state=TrialState.INFEASIBLE)
    return Ending(code=INFEASIBLE)


def is_out_of_memory(folder: TrialFolder) -> Ending:
    begin(folder, 5)
    return Ending(code=INFEASIBLE, reason="out of memory: the system killed a process of the training")


def finishes(folder: TrialFolder) -> Ending:
    complete(folder, attempt=begin(folder, folder.spec().curriculum.total_iterations))
    return Ending(code=FINISHED)


def job_for(folder: TrialFolder, **place: Any) -> TrialJob:
    study = folder.path.parent.parent
    workplace = Workplace(data=DataPaths(raw=None, preprocessed=Path("/nowhere")), **place)
    return TrialJob(study=study, trial_id=folder.trial_id, workplace=workplace, stop_file=study / "stop")


def outcome_of(folder: TrialFolder, script: Script, job: TrialJob | None = None, **patience: Any) -> TrialState:
    # Neither space nor template are asked for by a single trial.
    nothing: Any = None
    assignment = Assignment(space=nothing, template=nothing, patience=Patience(**patience), attempt=script)
    return bring_to_end(folder, job or job_for(folder), assignment)


def test_a_finished_trial_is_attempted_once_more_to_measure_what_it_lacks(folder: TrialFolder) -> None:
    finishes(folder)
    job = job_for(folder, metrics=Metrics(names=("nsd",)))

    def measures(trial: TrialFolder) -> Ending:
        trial.complete(replace(result_of(trial.spec()), metrics={"nsd": measured({"a": {"1": 0.5}}, 1.0)}))
        return Ending(code=FINISHED)

    measuring, breaking = Script(measures), Script(lambda _: Ending(code=FAILED))
    # One that does not succeed leaves the trial finished, and is not repeated in this run.
    assert outcome_of(folder, breaking, job) is TrialState.FINISHED
    assert breaking.made == 1
    for _ in range(2):
        assert outcome_of(folder, measuring, job) is TrialState.FINISHED
    assert measuring.made == 1


@pytest.mark.parametrize(("step", "retries"), [(fails, 0), (fails, 1), (fails, 3), (is_killed_at(0), 2)])
def test_a_trial_that_breaks_at_the_same_place_is_given_up_after_its_retries_until_the_next_run(
    folder: TrialFolder, step: Step, retries: int
) -> None:
    script = Script(step)
    assert outcome_of(folder, script, retries=retries) is TrialState.FAILED
    assert script.made == retries + 1
    assert folder.failure_reason() in ("something broke", "its process was killed")
    assert outcome_of(folder, Script(finishes), retries=0) is TrialState.FINISHED


def test_faults_between_which_it_gets_on_are_not_counted_together(folder: TrialFolder) -> None:
    script = Script(*(is_killed_at(iteration) for iteration in (10, 20, 30, 40)), finishes)
    assert outcome_of(folder, script, retries=1) is TrialState.FINISHED
    assert script.made == 5
    assert [event["event"] for event in folder.events()] == [*["started", "failed"] * 4, "started", "finished"]


@pytest.mark.parametrize("step", [is_infeasible, is_out_of_memory])
def test_an_infeasible_trial_is_a_result_and_tried_again_once_when_asked_for(folder: TrialFolder, step: Step) -> None:
    script = Script(step)
    for made, again in ((1, False), (1, False), (2, True)):
        assert outcome_of(folder, script, retry_infeasible=again) is TrialState.INFEASIBLE
        assert script.made == made
    assert str(folder.failure_reason()).startswith("out of memory: ")


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
    pauses = [pause_seconds(faults) for faults in range(1, 1001)]
    assert pauses[:9] == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert set(pauses[9:]) == {300}


@pytest.mark.parametrize("stopped", [False, True])
def test_a_worker_waits_for_a_trial_that_another_one_trains_and_can_be_stopped(
    folder: TrialFolder, stopped: bool
) -> None:
    script, ends = Script(finishes), list[object]()

    def work() -> None:
        try:
            ends.append(outcome_of(folder, script))
        except TrialInterrupted as error:
            ends.append(type(error))

    worker = threading.Thread(target=work, daemon=True)
    with folder.locked():
        worker.start()
        # Long enough for it to do something wrong.
        worker.join(0.5)
        assert ends == []
        if stopped:
            job_for(folder).stop_file.touch()
            worker.join(WAIT_SECONDS)
        else:
            finish(folder)
    worker.join(WAIT_SECONDS)
    assert ends == [TrialInterrupted if stopped else TrialState.FINISHED]
    assert script.made == 0

"""Trainings in processes of their own: how they end, what is said of it, what they leave in the ledger."""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from examples import finish, make_spec
from prepared import CUBE, FULL, NAME, final_weights, plans_document, spec_of, train, workplace

from study.common import files
from study.nnunet.datasets import DataPaths, data_paths
from study.nnunet.paths import nnunet_environment
from study.run import trial_host
from study.run.trial_host import Ending, TrialHost
from study.run.trial_process import BUSY, FINISHED, INFEASIBLE, INTERRUPTED, REFUSED, TrialJob
from study.store.ledger import Ledger
from study.store.records import Phase
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder, TrialState

LONG = {"optimizer": "adamw", "epochs": 40, "iterations_per_epoch": 20, "validation_batches": 1}


@pytest.fixture(scope="module")
def host() -> Iterator[TrialHost]:
    with TrialHost(stall_seconds=600) as host:
        yield host


def trial_for(spec: TrialSpec, root: Path, data: Path | None = None) -> tuple[TrialFolder, TrialJob]:
    """A trial that is still to be trained; without `data` on data that is not there."""
    folder = Ledger.create(root / "study").add(spec)
    place = workplace(data_paths(root / "nowhere" if data is None else data))
    return folder, TrialJob(study=root / "study", trial_id=spec.trial_id, workplace=place, stop_file=root / "stop")


class Told:
    """What a training says; the first time it is inside the training loop, something is done about it."""

    def __init__(self, then: Callable[[int], None] = lambda _: None) -> None:
        self.said: list[dict[str, Any]] = []
        self._then: Callable[[int], None] | None = then

    def __call__(self, said: dict[str, Any]) -> None:
        self.said.append(said)
        if self._then and said.get("iteration", 0) > 0:
            then, self._then = self._then, None
            then(self.pid)

    @property
    def pid(self) -> int:
        return int(self.said[0]["started"])


def test_a_trial_that_has_finished_is_left_alone(host: TrialHost, tmp_path: Path) -> None:
    folder, job = trial_for(make_spec(), tmp_path)
    finish(folder)
    assert host.run(job, folder.log_path) == Ending(code=FINISHED)
    assert len(folder.attempts()) == 1


def test_a_trial_that_another_process_trains_is_left_alone(host: TrialHost, tmp_path: Path) -> None:
    folder, job = trial_for(make_spec(), tmp_path)
    with folder.locked():
        assert host.run(job, folder.log_path) == Ending(code=BUSY)
    assert folder.events() == []
    assert f"is being trained by process {os.getpid()} on " in folder.log_path.read_text()


def test_what_is_refused_before_it_starts_is_a_failure_with_a_reason(host: TrialHost, tmp_path: Path) -> None:
    folder, job = trial_for(make_spec(), tmp_path)
    assert host.run(job, folder.log_path) == Ending(code=REFUSED)
    reason = folder.failure_reason()
    assert reason is not None
    assert reason.startswith("dataset: received 'Dataset001_BrainTumour', found nothing in ")
    assert folder.log_path.read_text() == f"{reason}\n"


@pytest.mark.cluster
def test_a_forked_training_ends_with_the_weights_of_one_that_was_not(
    host: TrialHost, data: Path, tmp_path: Path
) -> None:
    spec = spec_of(data_paths(data))
    folder, job = trial_for(spec, tmp_path / "forked", data)
    told = Told()
    assert host.run(job, folder.log_path, told) == Ending(code=FINISHED)
    alone = train(spec, Ledger.create(tmp_path / "alone"), workplace(data_paths(data)))
    assert final_weights(folder) == final_weights(alone)
    assert folder.state() is TrialState.FINISHED
    phases = [said["phase"] for said in told.said if "phase" in said]
    assert phases[-1] == Phase.FINAL_VALIDATION.value
    assert max(said.get("iteration", 0) for said in told.said) == spec.curriculum.total_iterations


@pytest.mark.parametrize("how", ["its stop file appears", "SIGTERM"])
def test_a_training_that_is_asked_to_end_writes_its_checkpoint(
    how: str, host: TrialHost, data: Path, tmp_path: Path
) -> None:
    folder, job = trial_for(spec_of(data_paths(data), training=LONG), tmp_path, data)

    def ask(pid: int) -> None:
        if how == "SIGTERM":
            os.kill(pid, signal.SIGTERM)
        else:
            job.stop_file.touch()

    assert host.run(job, folder.log_path, Told(ask)) == Ending(code=INTERRUPTED)
    assert folder.state() is TrialState.INTERRUPTED
    assert folder.events()[-1]["reason"].startswith("stopped after iteration ")
    assert list(folder.path.rglob("checkpoint_latest.pth"))


def test_a_killed_training_is_said_to_have_been_killed(host: TrialHost, data: Path, tmp_path: Path) -> None:
    folder, job = trial_for(spec_of(data_paths(data), training=LONG), tmp_path, data)
    ending = host.run(job, folder.log_path, Told(lambda pid: os.kill(pid, signal.SIGKILL)))
    assert ending == Ending(code=-signal.SIGKILL, reason="its process was killed")
    assert folder.state() is TrialState.INTERRUPTED


@pytest.mark.cluster
def test_a_training_that_makes_no_progress_is_ended(data: Path, tmp_path: Path) -> None:
    folder, job = trial_for(spec_of(data_paths(data), training=LONG), tmp_path, data)
    stalled = Told(lambda pid: os.kill(pid, signal.SIGSTOP))
    with TrialHost(stall_seconds=60) as host:
        # Generous while everything is loaded, short for the rest.
        ending = host.run(job, folder.log_path, _then_impatient(host, stalled))
        assert ending.code == -signal.SIGKILL
        assert ending.reason.startswith("no progress for ")
        assert is_gone(stalled.pid)
        # The host starts another server for the next trial.
        host._stall_seconds = 600.0
        finished, next_job = trial_for(make_spec(), tmp_path / "next")
        finish(finished)
        assert host.run(next_job, finished.log_path) == Ending(code=FINISHED)


def _then_impatient(host: TrialHost, told: Told) -> Callable[[dict[str, Any]], None]:
    def relay(said: dict[str, Any]) -> None:
        told(said)
        if said.get("iteration", 0) > 0:
            host._stall_seconds = 3.0

    return relay


@pytest.mark.cluster
def test_a_training_whose_server_is_killed_goes_on(data: Path, tmp_path: Path) -> None:
    folder, job = trial_for(spec_of(data_paths(data)), tmp_path, data)

    def kill_server(pid: int) -> None:
        os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)

    with TrialHost(stall_seconds=600) as host:
        ending = host.run(job, folder.log_path, Told(kill_server))
    assert ending.code is None
    assert folder.state() is TrialState.FINISHED


def is_gone(pid: int) -> bool:
    """Whether the process has ended, or does within a minute."""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(60)
    return not psutil.pid_exists(pid)


def test_closing_the_host_ends_its_training_with_a_checkpoint(data: Path, tmp_path: Path) -> None:
    folder, job = trial_for(spec_of(data_paths(data), training=LONG), tmp_path, data)
    host, training = TrialHost(stall_seconds=600), threading.Event()
    endings: list[Ending] = []
    worker = threading.Thread(
        target=lambda: endings.append(host.run(job, folder.log_path, Told(lambda _: training.set())))
    )
    worker.start()
    assert training.wait(300)
    host.close()
    worker.join(300)
    assert endings[0].code in (INTERRUPTED, None)
    assert folder.events()[-1]["reason"].startswith("stopped after iteration ")


def test_a_training_without_memory_is_infeasible(host: TrialHost, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    plans = plans_document(copy, CUBE)
    plans["configurations"][FULL]["batch_size"] = 10**6
    files.write_json(data_paths(copy).preprocessed / NAME / f"{CUBE}.json", plans)
    folder, job = trial_for(spec_of(data_paths(copy), "cps"), tmp_path, copy)

    def limit(said: dict[str, Any]) -> None:
        # A batch of 122 GiB would fit some machines.
        if "started" in said:
            resource.prlimit(said["started"], resource.RLIMIT_AS, (2**36, 2**36))

    assert host.run(job, folder.log_path, limit) == Ending(code=INFEASIBLE)
    assert folder.state() is TrialState.INFEASIBLE
    assert str(folder.failure_reason()).startswith("out of memory: ")


OURS = {"nnUNet_preprocessed", "nnUNet_results", "nnUNet_raw", "nnUNet_def_n_proc", "nnUNet_n_proc_DA"}


def switches() -> set[str]:
    """Every word of this form in the installed nnU-Net, those that it reads from the environment among them."""
    spec = importlib.util.find_spec("nnunetv2")
    assert spec is not None
    assert spec.submodule_search_locations
    sources = Path(spec.submodule_search_locations[0]).rglob("*.py")
    return {name for path in sources for name in re.findall(r"\bnnUNet_\w+", path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("value", ["1", "true", "abc", ""])
def test_a_trial_sees_only_what_we_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    found = switches()
    assert {"nnUNet_compile", "nnUNet_wandb_enabled", "nnUNet_extTrainer", "nnUNet_keep_files_open", *OURS} <= found
    for name in (*found, "nnUNet_added_later"):
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    folder = Ledger.create(tmp_path / "study").add(make_spec())
    data = DataPaths(raw=tmp_path / "raw", preprocessed=tmp_path / "prepared")
    with nnunet_environment(folder, data, processes=3):
        seen = {name: text for name, text in os.environ.items() if name.startswith("nnUNet_")}
        monkeypatch.setenv("nnUNet_set_by_itself", "1")
    assert seen == {
        "nnUNet_raw": str(data.raw),
        "nnUNet_preprocessed": str(data.preprocessed),
        "nnUNet_results": str(folder.results_path),
        "nnUNet_def_n_proc": "3",
        "nnUNet_n_proc_DA": "1",
    }
    assert dict(os.environ) == before


def test_the_server_of_trainings_is_started_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It imports nnU-Net, which then reads some of them, before it knows of a trial."""
    monkeypatch.setenv("nnUNet_def_n_proc", "many")
    assert [name for name in trial_host.own_environment() if name.startswith("nnUNet_")] == []

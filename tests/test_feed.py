"""Batches reach a training in order, and a training that gets none ends: on request, or when it has waited too long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from prepared import NAME, MakeTrainer
from test_batches import same

from study.common.errors import NoBatchError, TrialInterrupted
from study.nnunet.batches import Schedule
from study.nnunet.feed import Feed
from study.nnunet.torch_tools import cpu_threads
from study.nnunet.trainer import nnUNetTrainerPGPS
from study.nnunet.training_job import IterationReport, SilentObserver
from study.store.ledger import Ledger
from study.store.trial_folder import TrialState

LENGTH = {"epochs": 3, "iterations_per_epoch": 8, "validation_every_epochs": 3, "validation_batches": 1}
SCHEDULE = Schedule(start_epoch=0, start_iteration=0, **LENGTH)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with cpu_threads(1):
        yield


@pytest.fixture
def stopped() -> Iterator[Callable[[list[Any]], None]]:
    """Stops processes, and lets none of them outlive the test."""
    pids: list[int] = []

    def stop(workers: list[Any]) -> None:
        for worker in workers:
            pids.append(worker.pid)
            os.kill(worker.pid, signal.SIGSTOP)

    yield stop
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_worker_leaves_signals_to_the_trial(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("pgps")
    expected = list(Feed(trainer.make_batches(), SCHEDULE, workers=0))
    feed = Feed(trainer.make_batches(), SCHEDULE, workers=1)
    drawn = [next(feed)]
    (worker,) = feed.workers
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    drawn += list(feed)
    assert all(same(one, other) for one, other in zip(drawn, expected, strict=True))


def test_a_dead_worker_is_named(make_trainer: MakeTrainer) -> None:
    feed = Feed(make_trainer("pgps").make_batches(), SCHEDULE, workers=2)
    next(feed)
    victim = feed.workers[1].pid
    os.kill(victim, signal.SIGSEGV)
    for _ in range(2):
        with pytest.raises(NoBatchError, match=f"data worker {victim} was killed or has died"):
            list(feed)


def test_errors_of_drawing_arrive_as_they_are(make_trainer: MakeTrainer) -> None:
    class Broken(nnUNetTrainerPGPS):
        def get_tr_and_val_datasets(self) -> Any:
            training, validation = super().get_tr_and_val_datasets()
            training.identifiers = ["missing"]
            return training, validation

    for workers in (0, 1):
        feed = Feed(make_trainer("pgps", trainer=Broken).make_batches(), SCHEDULE, workers=workers)
        with pytest.raises(FileNotFoundError, match="missing"):
            next(feed)


def test_processes_end_with_the_feed(make_trainer: MakeTrainer, stopped: Any) -> None:
    feed = Feed(make_trainer("pgps").make_batches(), SCHEDULE, workers=2)
    next(feed)
    workers = [psutil.Process(worker.pid) for worker in feed.workers]
    stopped(workers)
    del feed
    _, alive = psutil.wait_procs(workers, timeout=600)
    assert not alive


class Watcher(SilentObserver):
    """Does something after an iteration, and asks for a stop once the training waits, if it is to."""

    def __init__(self, *, after: int, then: Callable[[], None], stops: bool) -> None:
        self._after, self._then, self._stops = after, then, stops
        self._asked_at: list[int] = []
        self.iteration = 0

    def iteration_done(self, report: IterationReport) -> None:
        self.iteration = report.iteration + 1
        self._asked_at.clear()
        if self.iteration == self._after:
            self._then()

    def stop_requested(self) -> bool:
        # After every iteration it is asked once, around a validation thrice.
        self._asked_at.append(self.iteration)
        return self._stops and len(self._asked_at) > 4


def train_until_it_waits(
    make_trainer: MakeTrainer,
    then: Callable[[Any], None],
    *,
    workers: int,
    stall_seconds: float = float("inf"),
    **settings: Any,
) -> Any:
    """A trainer whose data workers something happens to after iteration 3, and how its training ended."""
    watcher = Watcher(after=3, then=lambda: then(trainer), stops=stall_seconds == float("inf"))
    trainer = make_trainer("pgps", observer=watcher, training=LENGTH, **settings)
    trainer.job = replace(trainer.job, data_workers=workers, stall_seconds=stall_seconds)
    with pytest.raises((NoBatchError, TrialInterrupted)) as ending:
        trainer.run_training()
    return trainer, ending.value


def resumed_at(trainer: Any) -> int:
    (checkpoint,) = Path(trainer.output_folder).glob("checkpoint_latest.pth")
    trainer.load_checkpoint(str(checkpoint))
    return int(trainer.iteration)


@pytest.mark.parametrize(
    ("kills", "stall_seconds", "words"),
    [
        (False, float("inf"), "stopped after iteration"),
        (False, 0.6, "no batch has come for 0.01 minutes, from 2 data workers"),
        (True, 600, "was killed or has died"),
    ],
)
def test_a_training_whose_workers_are_stopped_or_killed_ends_with_a_checkpoint(
    make_trainer: MakeTrainer, stopped: Any, kills: bool, stall_seconds: float, words: str
) -> None:
    """On request where it would wait for good, or when it has waited too long."""

    def harm(trainer: Any) -> None:
        workers = trainer.dataloader_train.workers
        if kills:
            workers[0].kill()
        else:
            stopped(workers)

    trainer, ending = train_until_it_waits(make_trainer, harm, workers=2, stall_seconds=stall_seconds)
    assert words in str(ending)
    assert isinstance(ending, TrialInterrupted) is (stall_seconds == float("inf"))
    assert 3 <= resumed_at(trainer) < 24


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("which", ["training", "validation"])
def test_a_stop_is_heeded_while_a_file_server_hangs(make_trainer: MakeTrainer, workers: int, which: str) -> None:
    pipe, _keeps_it_open = os.pipe()

    class Hanging(nnUNetTrainerPGPS):
        """A case of one kind is read from where nothing ever comes, from the sixth on."""

        def get_tr_and_val_datasets(self) -> Any:
            training, validation = super().get_tr_and_val_datasets()
            cases = training if which == "training" else validation
            load, loaded = cases.load_case, []

            def load_case(case: str) -> Any:
                loaded.append(case)
                if len(loaded) > 6 or which == "validation":
                    os.read(pipe, 1)
                return load(case)

            cases.load_case = load_case
            return training, validation

    trainer, ending = train_until_it_waits(make_trainer, lambda _: None, workers=workers, trainer=Hanging)
    assert isinstance(ending, TrialInterrupted)
    assert resumed_at(trainer) == (24 if which == "validation" else trainer.iteration)
    assert trainer.iteration < 24 or which == "validation"


@pytest.mark.cluster
def test_a_trial_ends_within_its_stall_minutes_though_workers_are_stopped(data: Path, tmp_path: Path) -> None:
    where = f"--data {data} --dataset {NAME} --plans CubePlans --out {tmp_path / 'trials'}"
    length = "--optimizer adamw --epochs 1 --iterations-per-epoch 20000"
    machine = "--device cpu --cpus 1 --data-workers 2 --meter none --stall-minutes 0.02"
    words = f"trial {where} {length} {machine}"
    with subprocess.Popen([sys.executable, "-m", "study", *words.split()], stderr=subprocess.PIPE) as process:
        workers = _workers(process)
        for worker in workers:
            worker.suspend()
        complaint = process.communicate(timeout=600)[1].decode()
    assert process.returncode not in (0, None)
    assert "no batch has come for 0.02 minutes, from 2 data workers" in complaint
    assert not psutil.wait_procs(workers, timeout=600)[1]
    (folder,) = Ledger.open(tmp_path / "trials").trials()
    assert folder.state() is TrialState.FAILED
    assert list(folder.results_path.glob("*/*/fold_0/checkpoint_latest.pth"))


def _workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The two processes that draw a trial's batches, as soon as there are."""
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children()
            if len(children) == 2:
                return children
    raise AssertionError("the trial ended before it had data workers")


def test_stall_minutes_are_checked(data: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    words = f"trial --data {data} --dataset {NAME} --plans CubePlans --out {tmp_path / 'trials'} --stall-minutes 0"
    assert refused(*words.split()).startswith("error: --stall-minutes: received 0")

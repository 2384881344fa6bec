"""Trials trained without interruption, to compare others with, and processes that train until they are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from prepared import Stopper, final_weights, train, workplace

from study.common import files
from study.common.errors import TrialInterrupted
from study.nnunet.datasets import DataPaths
from study.run.trial import run_trial
from study.store.ledger import Ledger
from study.store.records import EpochReport, Phase
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder


@dataclass(frozen=True)
class Reference:
    """A trial trained without interruption."""

    spec: TrialSpec
    weights: str
    epochs: list[EpochReport]


def reference_of(spec: TrialSpec, paths: DataPaths, folder: Path) -> Reference:
    """Train a trial to its end but for the final validation."""
    trial = train(spec, Ledger.create(folder / "study"), workplace(paths))
    return Reference(spec=spec, weights=final_weights(trial), epochs=timeless(trial))


def timeless(folder: TrialFolder) -> list[EpochReport]:
    """Reports of all epochs, without how long they took."""
    return [replace(report, training_seconds=0.0) for report in folder.epochs()]


def resumed_from(folder: TrialFolder) -> list[int]:
    """First iteration of every attempt."""
    return [header.resumed_from_iteration for header in folder.attempts()]


def assert_same_training(folder: TrialFolder, reference: Reference) -> None:
    """The same weights and learning curve, bit for bit, and every epoch reported."""
    assert final_weights(folder) == reference.weights
    assert timeless(folder) == reference.epochs
    lines = [epoch["epoch"] for epoch in files.read_lines(folder.path / "epochs.jsonl")]
    assert sorted(set(lines)) == list(range(len(reference.epochs)))


def _train_in_process(
    study: str,
    trial_id: str,
    paths: DataPaths,
    pipe: Connection,
    halt_at: int | None,
    halt_after_epoch: int | None,
    device: str,
) -> None:
    """What a process does: train the trial, and at an iteration or after an epoch say so and wait for a signal."""

    class Halting(Stopper):
        def iteration_done(self, report: Any) -> None:
            if report.iteration + 1 == halt_at:
                self.halt()

        def epoch_done(self, report: EpochReport) -> None:
            if report.epoch == halt_after_epoch:
                self.halt()

        def halt(self) -> None:
            pipe.send(os.getpid())
            while not self.stop.requested:
                time.sleep(0.01)

    ledger = Ledger.open(Path(study))
    halting = Halting(before=Phase.FINAL_VALIDATION)
    signal.signal(signal.SIGTERM, halting.stop.signal)
    place = workplace(paths, data_workers=1, device=device)
    with pytest.raises(TrialInterrupted):
        run_trial(ledger.trial(trial_id).spec(), ledger, place, progress=halting, stop=halting.stop)


@contextmanager
def training_process(
    ledger: Ledger,
    spec: TrialSpec,
    paths: DataPaths,
    halt_at: int | None = None,
    *,
    halt_after_epoch: int | None = None,
    device: str = "cpu",
) -> Iterator[Any]:
    """A process that trains, and the id it sends when it has got so far; ended whatever happens."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["study.nnunet.trainer", "pytest"])
    ours, theirs = server.Pipe(duplex=False)
    arguments = (str(ledger.root), ledger.add(spec).trial_id, paths, theirs, halt_at, halt_after_epoch, device)
    process = server.Process(target=_train_in_process, args=arguments)
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()


def kill_and_resume(
    ledger: Ledger, spec: TrialSpec, paths: DataPaths, *halts: dict[str, int], device: str = "cpu"
) -> TrialFolder:
    """Kill one process after the other that trains the trial, each where it halts, and train the rest in another."""
    for halt in halts:
        with training_process(ledger, spec, paths, device=device, **halt) as (process, pipe):
            os.kill(pipe.recv(), signal.SIGKILL)
            process.join()
            assert process.exitcode == -signal.SIGKILL
    with training_process(ledger, spec, paths, device=device) as (process, _):
        process.join()
        assert process.exitcode == 0
    return ledger.trial(spec.trial_id)

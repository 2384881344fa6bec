"""What happens inside one Ray Tune trial: a point's trials, one after another, each in a process of its own.

The training never runs in the actor: a killed actor with forked children would not be noticed until they end, and a
process per trial gives a GPU's memory back. The actor only starts it, waits, and reports what the ledger holds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ray import tune

from study.costs import bill
from study.datasets import DataPaths
from study.errors import TrialFailedError, TrialInterrupted
from study.ledger import Ledger, TrialFolder, TrialState
from study.spaces import SearchSpace, specs
from study.specs import prepared_lookup
from study.trial_process import BUSY, FAILED, FINISHED, INTERRUPTED, STOP_GRACE_SECONDS, Job

BUSY_POLL_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that the trials of a study have in common, sent to every node.

    Attributes:
        space: the search space; points: those listed in advance, None when the searcher proposes them.
        data: folders of prepared data; template: a job whose trial is still to be named.
    """

    space: SearchSpace
    points: Sequence[Mapping[str, Any]] | None
    data: DataPaths
    template: Job


def run_point(config: dict[str, Any], assignment: Assignment) -> None:
    """Ray Tune's trainable: train a point's folds and seeds and report their mean.

    Args:
        config: the point itself, or `index` of one listed in advance.
        assignment: the study.

    Raises:
        TrialInterrupted: the study is being stopped.
        TrialFailedError: a training broke, or an objective is unmeasured.
    """
    _check_not_stopped(assignment.template)
    point = assignment.points[config["index"]] if assignment.points is not None else config
    ledger = Ledger.open(Path(assignment.template.study))
    planned = specs(assignment.space, point, prepared_lookup(assignment.data))
    folders = [ledger.add(spec) for spec in planned]
    ledger.add_point(point, [folder.trial_id for folder in folders])
    for folder in folders:
        train(folder, replace(assignment.template, trial_id=folder.trial_id))
    reached = outcome(folders)
    for objective in assignment.space.objectives:
        if objective not in reached:
            raise TrialFailedError(f"{objective} of {', '.join(f.trial_id for f in folders)} is unmeasured")
    tune.report(reached)


def outcome(folders: Sequence[TrialFolder]) -> dict[str, float]:
    """Means over finished trials of everything a searcher may optimise; an unmeasured cost is left out."""
    rows = [_objectives(folder) for folder in folders]
    names = [name for name in rows[0] if all(row[name] is not None for row in rows)]
    return {name: fmean(float(row[name] or 0.0) for row in rows) for name in names}


def train(folder: TrialFolder, job: Job) -> None:
    """Bring one trial to its end in a process of its own; return at once if it has finished.

    While another process works on the trial, because another point resolves to it too, this one waits.

    Raises:
        TrialInterrupted: the study is being stopped.
        TrialFailedError: the training broke; the ledger holds the reason.
    """
    while folder.result() is None:
        _check_not_stopped(job)
        if folder.state() is TrialState.RUNNING:
            time.sleep(BUSY_POLL_SECONDS)
            continue
        attempt = len(folder.attempts())
        code = _run_process(folder, job)
        if code == FINISHED:
            return
        if code == INTERRUPTED:
            raise TrialInterrupted(f"trial {folder.trial_id} was stopped; its checkpoint is written")
        if code != BUSY:
            raise TrialFailedError(_failure(folder, attempt, code))


def _check_not_stopped(job: Job) -> None:
    if Path(job.stop_file).exists():
        raise TrialInterrupted("the study is being stopped")


def _run_process(folder: TrialFolder, job: Job) -> int:
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "study.trial_process", job.to_json()],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=_environment(),
            # Out of reach of a terminal's Ctrl-C and of Ray, which would kill it together with its worker.
            start_new_session=True,
        )
    try:
        return process.wait()
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to stop by closing its input; kill it when it does not."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(STOP_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """This process' environment with our own package first: the checkout wins over anything installed."""
    root = str(Path(__file__).resolve().parents[2])
    rest = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{rest}" if rest else root}


def _failure(folder: TrialFolder, attempt: int, code: int) -> str:
    """Why the process ended. One that could not say so itself is recorded as failed here."""
    if code != FAILED:
        folder.fail(attempt=attempt, reason=_ending(code))
    return f"trial {folder.trial_id}: {folder.failure_reason() or _ending(code)}; see {folder.log_path}"


def _ending(code: int) -> str:
    if code != -signal.SIGKILL:
        return f"its process ended with code {code}"
    return "its process was killed, by somebody or by the system when memory ran out"


def _objectives(folder: TrialFolder) -> dict[str, float | None]:
    result = folder.result()
    if result is None:
        raise TrialFailedError(f"trial {folder.trial_id} has no result")
    training = bill(folder.attempts(), folder.cost_intervals()).training
    return {
        "dice": result.dice,
        "runtime_seconds": training.seconds,
        "co2_kg": training.co2_kg,
        "energy_kwh": training.energy_kwh,
        "voxel_share": result.voxel_share,
    }

"""What a study costs besides its trainings: many trials that train nothing, through the same searcher, Tune, ledger.

A stand-in for the training writes what a short training would (attempt, costs, epochs, result, each on disk before it
goes on), so that proposing, scheduling, bookkeeping and the live table are all that is measured.
"""

from __future__ import annotations

import resource
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.made_up import HEADER, write_records
from study.common.errors import TrialFailedError
from study.common.machine import cpu_name, hostname, usable_cores
from study.nnunet.datasets import DataPaths
from study.nnunet.identity import recorded_versions
from study.run.trial_host import Ending
from study.run.trial_process import FINISHED, TrialJob
from study.search.document import load_space
from study.store.ledger import Ledger
from study.store.trial_folder import TrialFolder, TrialState

EPOCHS = 3
OBJECTIVES = {"optuna": ["dice", "runtime_seconds", "voxel_share"]}


@dataclass(frozen=True, kw_only=True)
class SchedulerBench:
    """Figures of one run.

    Attributes:
        trials: how many were run.
        seconds_per_trial: wall time of the whole run without Ray's start, by trial.
        start_seconds: until the first trial began.
        first_quarter_seconds, last_quarter_seconds: per trial, between ends of trials.
        growth: the latter by the former; 1 is linear.
        peak_memory_mib: largest resident set of the driver.
        at_a_time: trials side by side.
    """

    trials: int
    seconds_per_trial: float
    start_seconds: float
    first_quarter_seconds: float
    last_quarter_seconds: float
    growth: float
    peak_memory_mib: float
    at_a_time: int

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        return asdict(self)


def measure(paths: DataPaths, dataset: str, folder: Path, *, trials: int, searcher: str) -> SchedulerBench:
    """Run as many trials that train nothing.

    Args:
        paths: prepared data, of which only plans and split are read.
        dataset: its name.
        folder: for the study.
        trials: at least 8.
        searcher: `optuna` or `random`.

    Raises:
        TrialFailedError: not all of them finished.
    """
    from study.cluster.driver import Run, run_study
    from study.store.status import StatusBoard

    space_file = folder / "space.yaml"
    space_file.write_text(yaml.safe_dump(_space(dataset, trials, searcher)), encoding="utf-8")
    space = load_space(space_file)
    ledger = Ledger.create(folder / "study", space=space.identity())
    board = StatusBoard(ledger)

    def look() -> None:
        board.rows()

    started_at = time.time()
    run_study(Run(space=space, ledger=ledger, data=paths, attempt=train_nothing, on_refresh=look))
    ended = sorted(folder.events()[-1]["time"] for folder in ledger.trials() if folder.state() is TrialState.FINISHED)
    if len(ended) != trials:
        raise TrialFailedError(f"{len(ended)} of {trials} trials finished")
    first = min(folder.events()[0]["time"] for folder in ledger.trials())
    return reduce_times(
        ended,
        started_at=started_at,
        first_began_at=first,
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        at_a_time=usable_cores(),
    )


def reduce_times(
    ended: list[float], *, started_at: float, first_began_at: float, peak_memory_mib: float, at_a_time: int
) -> SchedulerBench:
    """The figures of one run from the times at which its trials ended, in order; see `SchedulerBench`."""
    quarter = len(ended) // 4
    first, last = ended[:quarter], ended[-quarter:]
    first_seconds = (first[-1] - first_began_at) / quarter
    last_seconds = (last[-1] - ended[-quarter - 1]) / quarter
    return SchedulerBench(
        trials=len(ended),
        seconds_per_trial=(ended[-1] - first_began_at) / len(ended),
        start_seconds=first_began_at - started_at,
        first_quarter_seconds=first_seconds,
        last_quarter_seconds=last_seconds,
        growth=last_seconds / first_seconds,
        peak_memory_mib=peak_memory_mib,
        at_a_time=at_a_time,
    )


def train_nothing(folder: TrialFolder, job: TrialJob, patience: object) -> Ending:
    """Stands in for the training: same records, a Dice that is a plain function of the specification."""
    axes, resources = folder.spec().axes, job.workplace.resources
    dice = 0.5 + 0.4 * axes.budget * (1 - abs(axes.min_patch - 0.4))
    header = replace(
        HEADER,
        attempt=len(folder.attempts()),
        hostname=hostname(),
        cpu_name=cpu_name(),
        device="cpu",
        cpus=resources.usable_cpus,
        cpus_of_node=usable_cores(),
        concurrent_trials=resources.concurrent_trials,
        versions=recorded_versions(),
    )
    with folder.locked():
        write_records(folder, dice=dice, noise=np.zeros(1), header=header, started_at=time.time())
    return Ending(code=FINISHED)


def _space(dataset: str, trials: int, searcher: str) -> dict[str, Any]:
    search = {"objectives": OBJECTIVES[searcher]} if searcher in OBJECTIVES else {}
    return {
        "name": "scheduler",
        "searcher": searcher,
        "trials": trials,
        "datasets": [dataset],
        "resources": {"cpus": 1, "gpus": 0},
        "energy": {"meter": "none"},
        "curriculum": {"min_patch": {"uniform": [0, 1]}, "budget": {"uniform": [0.1, 1]}, "batch_growth": [0, 1]},
        "training": {
            "epochs": EPOCHS,
            "iterations_per_epoch": 100,
            "initial_learning_rate": {"log_uniform": [1e-4, 1e-1]},
        },
        **search,
    }

"""What a trial costs besides forward, backward and step: measured in a process of its own, figures from one run.

`python -m benchmarks.trial JOB OUTPUT` is that process: it runs a trial and writes one record per iteration. `measure`
starts it, watches the memory of its process tree, and reduces the records.
"""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from study.common import files
from study.common.errors import TrialFailedError
from study.curriculum.curriculum import Stage
from study.nnunet.datasets import find_dataset
from study.nnunet.paths import nnunet_environment
from study.nnunet.training_job import make_trainer
from study.run.progress import Progress
from study.run.provenance import Workplace
from study.run.trial import run_trial
from study.run.trial_host import TrialHost
from study.run.trial_process import TrialJob
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.records import Phase
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder

MEMORY_POLL_SECONDS = 0.2
MOST_START_SECONDS = 600.0
# By stage; fewer where the stage is shorter.
BATCHES_TIMED = 30


@dataclass(frozen=True, kw_only=True)
class TrialBench:
    """Figures of one run.

    Attributes:
        start_seconds: from the start of the process to the start of the first training iteration.
        overhead_share: share of the training's wall time, validation excluded, that is not forward, backward and step:
            waiting for batches, checkpoints, books.
        fetch_share: the part of it that waited for batches.
        stage_changes: how many there were.
        stage_change_iterations: median over stage changes of what the first iteration of a stage takes longer than the
            median iteration of that stage, in units of the latter; largest_stage_change_iterations: the largest. In a
            random order the first draw of every stage but the first counts.
        iteration_seconds: median iteration, by stage.
        batch_cpu_ms: median process time to draw a batch, by stage, in one process and thread, cases in memory.
        between_ms: median time of an iteration that is neither its batch nor its step: seeds, reports, books, clocks.
        peak_memory_mib: largest sum of proportional set sizes over the process tree.
        first_of_worker_seconds, next_of_worker_seconds: from handing a trial to a worker of a study to its training
            loop, for the worker's first trial, which starts its server of trainings, and for the next.
    """

    start_seconds: float
    overhead_share: float
    fetch_share: float
    stage_changes: int
    stage_change_iterations: float
    largest_stage_change_iterations: float
    iteration_seconds: tuple[float, ...]
    between_ms: float
    peak_memory_mib: float
    first_of_worker_seconds: float = math.nan
    next_of_worker_seconds: float = math.nan
    batch_cpu_ms: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        return asdict(self)


class _Recorder(Progress):
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def iteration_done(self, report: Any) -> None:
        names = ("iteration", "stage", "fetch_seconds", "step_seconds")
        self.rows.append({**{name: getattr(report, name) for name in names}, "at": time.time()})


def measure(spec: TrialSpec, ledger: Ledger, job: TrialJob, output: Path) -> TrialBench:
    """Run a trial once and measure it, then two short ones after each other as a worker of a study does.

    Args:
        spec: what to train, at least four iterations per stage for meaningful medians.
        ledger: a study folder of its own.
        job: where and with what.
        output: file for the records.

    Raises:
        TrialFailedError: the trial did not finish.
    """
    folder = ledger.add(spec)
    started_at = time.time()
    command = [sys.executable, "-m", "benchmarks.trial", pickle.dumps(job).hex(), str(output)]
    with folder.log_path.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        peak_mib = _watch_memory(process)
    if process.returncode or not output.exists():
        raise TrialFailedError(f"the measured trial failed: {folder.failure_reason() or _last_line(folder.log_path)}")
    recorded = files.read_json(output)
    training_seconds = bill(folder.attempts(), folder.cost_intervals()).by_phase[Phase.TRAINING].seconds
    rows, batch_cpu_ms = recorded["iterations"], tuple(recorded["batch_cpu_ms"])
    figures = reduce_rows(rows, started_at=started_at, training_seconds=training_seconds, peak_memory_mib=peak_mib)
    first, following = worker_starts(spec, ledger, job)
    return replace(figures, first_of_worker_seconds=first, next_of_worker_seconds=following, batch_cpu_ms=batch_cpu_ms)


def worker_starts(spec: TrialSpec, ledger: Ledger, job: TrialJob) -> tuple[float, float]:
    """Seconds from handing a trial to a worker to its training loop, for the worker's first trial and its second.

    Each trial is the given one with a seed of its own, and is stopped as soon as it trains.
    """
    with TrialHost(stall_seconds=MOST_START_SECONDS) as host:
        first = _start_seconds(host, replace(spec, seed=spec.seed + 1), ledger, job)
        return first, _start_seconds(host, replace(spec, seed=spec.seed + 2), ledger, job)


def _start_seconds(host: TrialHost, spec: TrialSpec, ledger: Ledger, job: TrialJob) -> float:
    folder = ledger.add(spec)
    stop_file = ledger.root / f".stop-{spec.trial_id}"
    training_after: list[float] = []
    started = time.perf_counter()

    def told(said: dict[str, Any]) -> None:
        if said.get("phase") == Phase.TRAINING.value and not training_after:
            training_after.append(time.perf_counter() - started)
            stop_file.touch()

    host.run(replace(job, trial_id=spec.trial_id, stop_file=stop_file), folder.log_path, told)
    if not training_after:
        raise TrialFailedError(f"the measured trial failed: {folder.failure_reason() or _last_line(folder.log_path)}")
    return training_after[0]


def reduce_rows(
    rows: Sequence[dict[str, float]], *, started_at: float, training_seconds: float, peak_memory_mib: float
) -> TrialBench:
    """The figures of one run from its iterations, in order; see `TrialBench`."""
    first = rows[0]
    fetch_seconds = sum(row["fetch_seconds"] for row in rows)
    step_seconds = sum(row["step_seconds"] for row in rows)
    stages = [[_whole(row) for row in rows if row["stage"] == stage] for stage in sorted({r["stage"] for r in rows})]
    usual = [median(durations) for durations in stages]
    excess = [(stage[0] - usual_) / usual_ for stage, usual_ in zip(stages[1:], usual[1:], strict=True)]
    return TrialBench(
        start_seconds=first["at"] - _whole(first) - started_at,
        overhead_share=1 - step_seconds / training_seconds,
        fetch_share=fetch_seconds / training_seconds,
        stage_changes=len(excess),
        stage_change_iterations=median(excess) if excess else 0.0,
        largest_stage_change_iterations=max(excess, default=0.0),
        iteration_seconds=tuple(usual),
        between_ms=1000 * median([b["at"] - a["at"] - _whole(b) for a, b in pairwise(rows)]) if rows[1:] else 0.0,
        peak_memory_mib=peak_memory_mib,
    )


def main() -> None:
    """Run the job of the command line and write its iterations."""
    job, output = pickle.loads(bytes.fromhex(sys.argv[1])), Path(sys.argv[2])
    ledger = Ledger.open(job.study)
    recorder = _Recorder()
    folder = ledger.trial(job.trial_id)
    run_trial(folder.spec(), ledger, job.workplace, progress=recorder)
    record = {"iterations": recorder.rows, "batch_cpu_ms": _batch_cpu_ms(folder, job.workplace)}
    files.write_json(output, json.loads(json.dumps(record)))


def _batch_cpu_ms(folder: TrialFolder, workplace: Workplace) -> list[float]:
    """Median process time of a batch by stage, after one round that fetched the cases."""
    from study.nnunet.batches import Item

    spec = folder.spec()
    with nnunet_environment(folder, workplace.data, processes=1):
        trainer = make_trainer(spec, find_dataset(workplace.data, spec.dataset))
        batches = trainer.make_batches()

        def drawn_ms(iteration: int) -> float:
            started = time.process_time()
            batches[Item(index=iteration)]
            return 1000 * (time.process_time() - started)

        rounds = [[[drawn_ms(i) for i in _first(stage)] for stage in spec.curriculum.stages] for _ in range(2)]
    return [median(stage) for stage in rounds[-1]]


def _first(stage: Stage) -> range:
    return range(stage.first_iteration, stage.first_iteration + min(stage.iterations, BATCHES_TIMED))


def _last_line(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]


def _whole(row: dict[str, float]) -> float:
    return row["fetch_seconds"] + row["step_seconds"]


def _watch_memory(process: subprocess.Popen[bytes]) -> float:
    """Wait for the process; the largest memory its tree had, in MiB."""
    import psutil

    peak_bytes = 0
    tree = psutil.Process(process.pid)
    while process.poll() is None:
        peak_bytes = max(peak_bytes, _tree_bytes(psutil, tree))
        time.sleep(MEMORY_POLL_SECONDS)
    return peak_bytes / 2**20


def _tree_bytes(psutil: Any, tree: Any) -> int:
    total = 0
    try:
        for member in [tree, *tree.children(recursive=True)]:
            # Proportional, so that what forked workers share is counted once.
            info = member.memory_full_info()
            total += getattr(info, "pss", info.rss)
    except psutil.Error:  # a process ended while it was being looked at
        return total
    return total


if __name__ == "__main__":
    main()

"""How long the analysis takes on studies larger than most, made up, each measurement in a fresh process.

Seconds depend on the machine; beside them stands the time of a plain operation on the same rows in the same process.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.columns import TRIAL_COLUMNS, dtypes
from analysis.tables.frame import FINISHED
from benchmarks.made_up import DATASET, write_study


def write_trials(path: Path, count: int, *, seed: int = 0) -> None:
    """A parquet file of finished trials with every column of the table of trials.

    Args:
        path: of the file.
        count: of trials, each a configuration of its own.
        seed: of the made-up numbers.
    """
    rng = np.random.default_rng(seed)
    cost = rng.lognormal(0.0, 0.6, count)
    numbers = {
        "dice": 0.9 - 0.2 * np.exp(-cost) - rng.exponential(0.03, count),
        "runtime_seconds": 3600 * cost * rng.lognormal(0, 0.2, count),
        "co2_kg": 0.5 * cost * rng.lognormal(0, 0.2, count),
        "budget": rng.choice([0.1, 0.25, 0.5, 1.0], count),
        "min_patch": rng.random(count),
    }
    words = {name: "x" for name, dtype in dtypes(TRIAL_COLUMNS).items() if dtype == "str"}
    ids = np.char.add("t", np.char.zfill(np.arange(count).astype(str), 11))
    words |= {"study": "synthetic", "dataset": DATASET, "state": FINISHED, "method": "other"}
    frame = pd.DataFrame({"trial_id": ids, "point_id": ids, **numbers}).assign(**words)
    frame = frame.reindex(columns=[column.name for column in TRIAL_COLUMNS])
    frame.astype(dtypes(TRIAL_COLUMNS)).to_parquet(path, index=False)


OBJECTIVES = ("dice", "runtime_seconds", "co2_kg")
COLUMNS = ("dataset", "point_id", *OBJECTIVES)


@dataclass(frozen=True, kw_only=True)
class FrontBench:
    """A front of three objectives over many trials in a parquet file.

    Attributes:
        trials, on_front: in the file, not dominated.
        load_seconds: file to frame; front_seconds: frame to front.
        front_by_sorting: front_seconds in units of the time that sorting the frame by one objective takes.
        peak_memory_mib: largest resident set of the process, libraries included.
    """

    trials: int
    on_front: int
    load_seconds: float
    front_seconds: float
    front_by_sorting: float
    peak_memory_mib: float


@dataclass(frozen=True, kw_only=True)
class ReportBench:
    """The report of a study.

    Attributes:
        trials: in the study.
        seconds: study folder to report; read_by_report: the share of it that reading and averaging the trials takes.
        page_mib: size of report.html.
        figures: how many were drawn.
        peak_memory_mib: largest resident set of the process.
    """

    trials: int
    seconds: float
    read_by_report: float
    page_mib: float
    figures: int
    peak_memory_mib: float


def measure_front(folder: Path, *, trials: int) -> FrontBench:
    """Make up as many trials in `folder`, then load them and find their front."""

    _apart(write_trials, folder / "trials.parquet", trials)
    return FrontBench(**_apart(_front, folder / "trials.parquet"))


def measure_report(folder: Path, *, trials: int) -> ReportBench:
    """Make up a study of as many trials in `folder`, then write its report."""

    _apart(write_study, folder / "study", trials)
    return ReportBench(**_apart(_report, folder / "study", folder / "report"))


def _apart(work: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def _front(path: Path) -> dict[str, Any]:
    from analysis.fronts.front import pareto_front
    from analysis.tables.sources import load_trials

    loaded, load_seconds = _timed(lambda: load_trials(path, COLUMNS))
    front, front_seconds = _timed(lambda: pareto_front(loaded, OBJECTIVES))
    _, sort_seconds = _timed(lambda: loaded.sort_values(OBJECTIVES[0]))
    return {
        "trials": len(loaded),
        "on_front": len(front.best),
        "load_seconds": load_seconds,
        "front_seconds": front_seconds,
        "front_by_sorting": front_seconds / sort_seconds,
        "peak_memory_mib": _peak_memory_mib(),
    }


def _report(study: Path, out: Path) -> dict[str, Any]:
    from analysis.page.report import write_report
    from analysis.statistics.study_results import gather

    _, read_seconds = _timed(lambda: gather([study]))
    report, seconds = _timed(lambda: write_report([study], out))
    return {
        "trials": len(report.trials),
        "seconds": seconds,
        "read_by_report": read_seconds / seconds,
        "page_mib": report.page.stat().st_size / 2**20,
        "figures": len(report.figures),
        "peak_memory_mib": _peak_memory_mib(),
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    done = work()
    return done, time.perf_counter() - start


def _peak_memory_mib() -> float:
    """Of this process and the largest of its children."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024

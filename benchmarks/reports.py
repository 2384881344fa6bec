"""Made-up studies as large as one likes, to time the analysis on: nothing in them was trained or measured.

Dice rises and costs rise with voxels, with noise, so that fronts have a plausible number of points.

How long the analysis takes on studies larger than most, each measurement in a fresh process.

Seconds depend on the machine; beside them stands the time of a plain operation on the same rows in the same process.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.columns import TRIAL_COLUMNS, dtypes
from analysis.tables.frame import FINISHED
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import Axes
from study.store.ledger import Ledger
from study.store.readings import MeterInfo, NodeUse, OwnEnergy
from study.store.records import AttemptHeader, CostInterval, EpochReport, Phase
from study.store.results import TrialResult
from study.store.specification import TrainingSettings, TrialSpec

DATASET = "Dataset999_Synthetic"
GEOMETRY = Geometry(patch_size=(80, 192, 160), divisors=(16, 32, 32), batch_size=2)
TRAINING = TrainingSettings(epochs=10, iterations_per_epoch=250).resolved(constant_patch_size=False)
CASES = 52
SECONDS_PER_VOXEL, KILOWATTS = 4e-9, 0.3
METER = MeterInfo(
    name="none",
    version="",
    methods={"cpu": "estimated", "gpu": "measured", "ram": "estimated"},
    country="world",
    carbon_intensity_kg_per_kwh=0.475,
    pue=1.0,
)


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


def write_study(root: Path, count: int, *, seed: int = 0) -> Ledger:
    """A study folder of finished trials, each of other axes, written through the ledger as real ones are."""
    rng = np.random.default_rng(seed)
    study = Ledger.create(root)
    while len(study.trials()) < count:
        for _ in range(count - len(study.trials())):
            _write_trial(study, _spec(rng), rng)
    return study


def _spec(rng: np.random.Generator) -> TrialSpec:
    axes = Axes(
        min_patch=float(rng.random()),
        stages=int(rng.integers(1, 10)),
        batch_growth=float(rng.random()),
        budget=float(rng.choice([0.1, 0.25, 0.5, 1.0])),
    )
    curriculum = resolve(GEOMETRY, axes, epochs=TRAINING.epochs, iterations_per_epoch=TRAINING.iterations_per_epoch)
    return TrialSpec(
        dataset=DATASET,
        plans="nnUNetPlans",
        configuration="3d_fullres",
        fold=0,
        seed=int(rng.integers(0, 1000)),
        scheme="pgps",
        axes=axes,
        curriculum=curriculum,
        training=TRAINING,
        plans_sha256="0" * 64,
        split_sha256="0" * 64,
    )


def _write_trial(study: Ledger, spec: TrialSpec, rng: np.random.Generator) -> None:
    folder = study.add(spec)
    if folder.result() is not None:
        return
    curriculum = spec.curriculum
    dice = 0.9 - 0.2 * float(np.exp(-curriculum.voxels / 1e10)) - float(rng.exponential(0.02))
    folder.begin_attempt(_header())
    reports = _epochs(spec, dice)
    for interval in _intervals(reports):
        folder.append_cost(interval)
    for report in reports:
        folder.append_epoch(report)
    folder.finish(_result(spec, dice, rng), attempt=0)


def _header() -> AttemptHeader:
    return AttemptHeader(
        attempt=0,
        started_at=1.0e9,
        hostname="none",
        pid=1,
        resumed_from_iteration=0,
        device="cuda",
        cpu_name="made up",
        gpu_names=("made up",),
        gpu_ids=(0,),
        cpus=8,
        cpus_of_node=8,
        gpus=1,
        concurrent_trials=1,
        data_workers=7,
        meter=METER,
        versions={},
    )


def _intervals(reports: list[EpochReport]) -> Iterator[CostInterval]:
    """Set-up, training and validation of each epoch by its last stage, and the final validation."""
    yield _interval(Phase.SETUP, None, 0, 0, 5.0)
    first, seconds = 0, 0.0
    for report in reports:
        spent = report.training_seconds - seconds
        yield _interval(Phase.TRAINING, report.stage, first, report.iteration, 0.9 * spent)
        yield _interval(Phase.ONLINE_VALIDATION, report.stage, report.iteration, report.iteration, 0.1 * spent)
        first, seconds = report.iteration, report.training_seconds
    yield _interval(Phase.FINAL_VALIDATION, None, first, first, 20.0)


def _interval(phase: Phase, stage: int | None, first: int, stop: int, seconds: float) -> CostInterval:
    kwh = KILOWATTS * seconds / 3600
    return CostInterval(
        attempt=0,
        phase=phase,
        stage=stage,
        iteration_start=first,
        iteration_stop=stop,
        started_at=1.0e9,
        seconds=seconds,
        cpu_kwh=0.2 * kwh,
        gpu_kwh=0.7 * kwh,
        ram_kwh=0.1 * kwh,
        own=OwnEnergy(cpu_kwh=0.1 * kwh, idle_cpu_kwh=0.1 * kwh, gpu_kwh=0.7 * kwh, ram_kwh=0.1 * kwh),
        use=NodeUse(own_cpu_seconds=4 * seconds, cpu_seconds=5 * seconds, trials=1),
    )


def _epochs(spec: TrialSpec, dice: float) -> list[EpochReport]:
    curriculum, each = spec.curriculum, spec.iterations_per_epoch
    reports = []
    for epoch in range(spec.training.epochs):
        iteration, part = (epoch + 1) * each, (epoch + 1) / spec.training.epochs
        number = max(n for n, stage in enumerate(curriculum.stages) if stage.first_iteration < iteration)
        reports.append(
            EpochReport(
                epoch=epoch,
                iteration=iteration,
                stage=number,
                patch_size=curriculum.stages[number].patch_size,
                batch_size=curriculum.stages[number].batch_size,
                learning_rate=1e-2 * (1 - epoch / spec.training.epochs) ** 0.9,
                training_loss=-dice * part**0.3,
                validation_loss=0.02 - dice * part**0.3,
                pseudo_dice=dice * part**0.3,
                pseudo_dice_per_class=(dice * part**0.3,) * 2,
                training_seconds=curriculum.voxels * part * SECONDS_PER_VOXEL,
                voxels=int(curriculum.voxels * part),
            )
        )
    return reports


def _result(spec: TrialSpec, dice: float, rng: np.random.Generator) -> TrialResult:
    noise = np.clip(rng.normal(0, 0.05, CASES), -0.05, 0.05)
    around = dice + noise - noise.mean()
    by_class = {f"case_{n:03d}": {"1": mean + 0.03, "2": mean - 0.03} for n, mean in enumerate(around.tolist())}
    return TrialResult(
        dice=dice,
        dice_per_class={"1": dice + 0.03, "2": dice - 0.03},
        dice_per_case={case: sum(classes.values()) / 2 for case, classes in by_class.items()},
        dice_per_case_and_class=by_class,
        iterations=spec.curriculum.total_iterations,
        voxels=spec.curriculum.voxels,
        voxel_share=spec.curriculum.voxel_share,
        weights_sha256="0" * 64,
    )


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


def to_json(figures: FrontBench | ReportBench) -> dict[str, Any]:
    """The figures as plain JSON."""
    return asdict(figures)


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
    from analysis.statistics.evidence import gather

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

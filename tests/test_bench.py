"""`bench`: figures worked out by hand, from a real trial in a process of its own, and of the grid that is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import make_spec
from prepared import NAME, NUMBER, UNMETERED, spec_of, workplace

from analysis.fronts.stops import Past, replayed
from benchmarks.gpu import GpuBench, StageFigures, as_text
from benchmarks.grid import STORED, load
from benchmarks.search import measure_stored
from benchmarks.trial import measure, reduce_rows
from study.common.errors import MissingDataError, TrialFailedError
from study.nnunet.datasets import data_paths
from study.run.trial_process import TrialJob
from study.search.document import load_space
from study.store.ledger import Ledger
from study.store.readings import compile_costs
from study.store.trial_folder import TrialState


def row(stage: int, fetch_seconds: float, step_seconds: float, at: float = 0.0) -> dict[str, float]:
    return {"stage": stage, "fetch_seconds": fetch_seconds, "step_seconds": step_seconds, "at": at}


def reduced(*rows: dict[str, float], training_seconds: float = 100.0) -> Any:
    return reduce_rows(rows, started_at=1000.0, training_seconds=training_seconds, peak_memory_mib=512.0)


def test_the_figures_of_three_stages() -> None:
    figures = reduced(
        row(0, 3.0, 2.0, at=1012.0),
        row(0, 0.5, 1.5),
        row(0, 0.0, 2.0),
        row(1, 1.0, 5.0),
        row(1, 0.0, 4.0),
        row(1, 0.5, 3.5),
        row(2, 2.0, 14.0),
        row(2, 0.0, 8.0),
        row(2, 0.0, 8.0),
    )
    # The first iteration took 5 s and ended 12 s after the start.
    assert figures.start_seconds == pytest.approx(7.0)
    assert figures.fetch_share == pytest.approx(0.07)
    # 48 of 100 seconds were steps.
    assert figures.overhead_share == pytest.approx(0.52)
    assert figures.iteration_seconds == pytest.approx((2.0, 4.0, 8.0))
    # 6 s instead of 4, and 16 instead of 8.
    assert figures.stage_changes == 2
    assert figures.stage_change_iterations == pytest.approx(0.75)
    assert figures.largest_stage_change_iterations == pytest.approx(1.0)
    assert figures.peak_memory_mib == 512.0


def test_what_is_neither_batch_nor_step_lies_between() -> None:
    rows = [
        row(0, 1.0, 2.0, at=1003.0),
        row(0, 1.0, 2.0, at=1006.5),
        row(0, 1.0, 2.0, at=1009.7),
        row(0, 0, 1, at=1010.8),
    ]
    assert reduced(*rows).between_ms == pytest.approx(200.0)


def test_one_stage_has_no_changes() -> None:
    figures = reduced(row(4, 0.0, 1.0, at=1001.0), row(4, 0.0, 1.0), training_seconds=2.0)
    assert (figures.stage_changes, figures.stage_change_iterations, figures.largest_stage_change_iterations) == (
        0,
        0,
        0,
    )
    assert figures.overhead_share == 0.0
    assert figures.to_json()["iteration_seconds"] == (1.0,)


def test_a_faster_first_iteration_is_a_negative_cost() -> None:
    figures = reduced(row(0, 0.0, 1.0), row(1, 0.0, 1.0), row(1, 0.0, 2.0), row(1, 0.0, 2.0))
    assert figures.stage_change_iterations == pytest.approx(-0.5)


def job_for(ledger: Ledger, trial_id: str, data: Path) -> TrialJob:
    place = workplace(data_paths(data), energy=UNMETERED)
    return TrialJob(study=ledger.root, trial_id=trial_id, workplace=place, stop_file=ledger.root / ".stop")


@pytest.mark.torture
def test_a_real_trial_is_measured(data: Path, tmp_path: Path) -> None:
    spec = spec_of(data_paths(data), training={"epochs": 1, "iterations_per_epoch": 12}, stages=2)
    ledger = Ledger.create(tmp_path / "study")
    figures = measure(spec, ledger, job_for(ledger, spec.trial_id, data), tmp_path / "iterations.json")
    assert ledger.trial(spec.trial_id).state() is TrialState.FINISHED
    assert figures.stage_changes == 1
    assert 0 < figures.fetch_share <= figures.overhead_share < 1
    assert len(figures.iteration_seconds) == len(figures.batch_cpu_ms) == 2
    assert all(ms > 0 for ms in figures.batch_cpu_ms)
    assert all(seconds > 0 for seconds in figures.iteration_seconds)
    # torch is imported before the first iteration, and takes more than this.
    assert figures.peak_memory_mib > 100
    assert figures.start_seconds > 0


def test_a_trial_that_cannot_run_says_why(tmp_path: Path) -> None:
    spec = make_spec()
    ledger = Ledger.create(tmp_path / "study")
    with pytest.raises(TrialFailedError) as failure:
        measure(spec, ledger, job_for(ledger, spec.trial_id, tmp_path), tmp_path / "iterations.json")
    assert str(failure.value).startswith(
        "the measured trial failed: study.common.errors.MissingDataError: dataset: received"
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--data", "here"], "error: --data here holds no dataset by itself: give --dataset too, or neither"),
        (
            ["--data", "here", "--dataset", NAME, "--device", "cpu"],
            f"error: dataset: received '{NAME}', found nothing in ",
        ),
    ],
)
def test_bad_options_are_one_line_before_anything_is_made(
    options: list[str], complaint: str, refused: Callable[..., str]
) -> None:
    assert refused("bench", "trial", *options).startswith(complaint)


SMALL = StageFigures(
    patch_size=(64, 32, 32),
    batch_size=2,
    iterations=3,
    batch_cpu_ms=10.0,
    eager_ms=30.0,
    captured_ms=6.0,
    compiled_ms=5.0,
    first_eager_seconds=2.0,
    capture_seconds=0.2,
    compile_seconds=30.0,
    compile_again_seconds=4.0,
    eager_peak_gib=1.0,
    peak_gib=1.0,
    compiled_peak_gib=0.9,
)
LARGE = replace(
    SMALL,
    patch_size=(128, 128, 128),
    iterations=100_000,
    eager_ms=67.0,
    captured_ms=64.0,
    compiled_ms=40.0,
    peak_gib=5.0,
)
BENCH = GpuBench(gpu="NVIDIA H200", torch="2.11", stages=(SMALL, LARGE), cps=LARGE, stock_ms=50.0, stock_peak_gib=4.5)


def test_stages_count_as_auto_would_run_them() -> None:
    # Three iterations are not worth a compilation, a hundred thousand of the full patch are.
    assert (BENCH.as_run(SMALL), BENCH.as_run(LARGE)) == (6.0, 40.0)
    assert BENCH.as_run(replace(LARGE, compiled_ms=None)) == 64.0
    ratios = BENCH.ratios
    mean = (3 * 6 + 100_000 * 40) / 100_003
    assert ratios["curriculum_ms"] == pytest.approx(mean)
    assert ratios["curriculum_to_cps"] == pytest.approx(mean / 40)
    assert ratios["curriculum_to_stock"] == pytest.approx(mean / 50)
    assert ratios["cps_to_stock"] == pytest.approx(0.8)
    assert ratios["eager_curriculum_to_stock"] == pytest.approx((3 * 30 + 100_000 * 67) / 100_003 / 50)
    assert ratios["voxel_share"] == pytest.approx((3 / 32 + 100_000) / 100_003)
    assert ratios["cps_peak_to_stock"] == pytest.approx(0.9 / 4.5)


def test_memory_is_that_of_the_steps_that_auto_would_run() -> None:
    short = replace(BENCH, cps=replace(LARGE, iterations=3))
    assert short.ratios["cps_peak_to_stock"] == pytest.approx(5.0 / 4.5)


def test_json_has_an_entry_for_the_file_of_costs() -> None:
    entry = json.loads(json.dumps(BENCH.to_json()))["compile_costs"]
    assert set(compile_costs()[0]) - {"what"} == set(entry)
    assert entry["compile_seconds"] == 30.0
    assert entry["rows"][1] == {"voxels_per_iteration": 2 * 128**3, "captured_ms": 64.0, "compiled_ms": 40.0}


def test_the_table_has_a_row_per_stage_and_says_what_fell_back() -> None:
    noted = replace(
        SMALL, compiled_ms=None, compile_seconds=None, notes=("stage 1 ran captured: not compiled: no gcc",)
    )
    text = as_text(replace(BENCH, stages=(noted, LARGE), stock_note="no gcc"))
    row = next(line for line in text.splitlines() if line.strip().startswith("64x32x32"))
    assert row.split() == ["64x32x32", "2", "30.0", "6.0", "-", "2.00", "0.20", "-", "4.0", "10.0", "0.90"]
    assert "note: stage 1 ran captured: not compiled: no gcc" in text
    assert "(not compiled: no gcc)" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_is_one_line(data: Path, refused: Callable[..., str]) -> None:
    line = refused("bench", "gpu", "--data", data, "--dataset", NUMBER)
    assert "sees no CUDA device here; measure a CPU with `bench trial`" in line
    assert "--device cpu" not in line


def test_a_cpu_is_not_measured_as_a_gpu(data: Path, refused: Callable[..., str]) -> None:
    line = refused("bench", "gpu", "--device", "cpu", "--data", data, "--dataset", NUMBER)
    assert "--device" in line and "bench trial" in line


def test_it_holds_a_training_for_each_curriculum_of_its_space() -> None:
    stored, space = load(), load_space(STORED.with_suffix(".yaml"))
    tables = [stored.curriculum_of(point) for point in stored.points]
    wanted = {stored.curriculum_of(point).stages for point in space.points()}
    assert {table.stages for table in tables} == wanted
    assert len(tables) == len(wanted) == 48
    assert STORED.stat().st_size < 300_000
    for table, trial in zip(tables, stored.content["trials"], strict=True):
        past = Past.from_json(trial["past"])
        assert past.to_json() == {**trial["past"], "curve": past.to_json()["curve"]}
        assert past.curve.work == (table.total_iterations, table.voxels)
        assert len(past.curve.evaluations) == space.axes["training.epochs"].probes()[0]
        dice = trial["dice_per_case"].values()
        assert past.curve.dice == pytest.approx(sum(dice) / len(dice), abs=0.02)


def test_it_is_searched_from_what_is_stored() -> None:
    figures = measure_stored(STORED, seeds=2, searchers=("random", "grid", "oracle"), jobs=1)
    assert {(each.searcher, each.surfaces) for each in figures.spendings} == {("random", 2), ("grid", 1), ("oracle", 1)}
    shares = {(each.searcher, each.goal): each.median for each in figures.spendings}
    assert shares["oracle", 0.95] <= min(shares["random", 0.95], shares["grid", 0.95])
    assert "2 seeds" in figures.as_text()
    with pytest.raises(MissingDataError, match="no stored grid"):
        load(Path("nowhere.json"))


def test_it_is_replayed() -> None:
    pasts = [Past.from_json(trial["past"]) for trial in load().content["trials"]]
    assert not any(stop.false for stop in replayed(pasts))

"""The figures that `bench gpu` makes of what was measured, worked out by hand; the measuring itself needs a GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from prepared import NUMBER

from benchmarks.gpu import GpuBench, StageFigures, as_text
from study.__main__ import main
from study.store.readings import compile_costs

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
def test_without_a_gpu_it_is_one_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu", "--data", str(data), "--dataset", str(NUMBER)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "sees no CUDA device here; measure a CPU with `bench trial`" in line
    assert "--device cpu" not in line


def test_a_cpu_is_not_measured_as_a_gpu(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu", "--device", "cpu", "--data", str(data), "--dataset", str(NUMBER)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--device" in line
    assert "bench trial" in line

"""`bench`: figures reduced from iterations worked out by hand, and from a real trial in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from examples import make_spec
from prepared import NAME, UNMETERED, spec_of, workplace

from benchmarks.trial import measure, reduce_rows
from study.__main__ import main
from study.common.errors import TrialFailedError
from study.nnunet.datasets import data_paths
from study.run.trial_process import TrialJob
from study.store.ledger import Ledger
from study.store.trial_folder import TrialState

USER_ERROR = 2


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
        (["--scheme", "cps2"], "error: scheme: received 'cps2', legal is one of "),
        (["--epochs", "0"], "error: epochs: received 0, legal is a whole number of at least 1"),
        (["--iterations-per-epoch", "few"], "error: iterations_per_epoch: received 'few', legal is a whole number"),
        (["--data-workers", "-1"], "error: data_workers: received -1, legal is a whole number from 0 to 1024"),
        (["--device", "tpu"], "error: device: received 'tpu', legal is one of auto, cpu, cuda"),
    ],
)
def test_bad_options_are_one_line_before_anything_is_made(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "trial", *options]) == USER_ERROR
    error = capsys.readouterr().err
    assert error.startswith(complaint)
    assert error.count("\n") == 1

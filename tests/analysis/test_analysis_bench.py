"""The benchmark of the analysis on few trials: it measures what it says it measures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.statistics.evidence import gather
from benchmarks.made_up import write_study
from benchmarks.reports import OBJECTIVES, measure_front


def test_the_front_is_that_of_the_made_up_trials(tmp_path: Path) -> None:
    figures = measure_front(tmp_path, trials=300)
    values = pd.read_parquet(tmp_path / "trials.parquet")[list(OBJECTIVES)].to_numpy() * [-1, 1, 1]
    beaten = [((values <= row).all(axis=1) & (values < row).any(axis=1)).any() for row in values]
    assert (figures.trials, figures.on_front) == (300, int((~np.array(beaten)).sum()))
    assert figures.load_seconds > 0
    assert figures.front_seconds > 0
    assert figures.peak_memory_mib > 50


def test_a_made_up_study_is_read_like_a_real_one(tmp_path: Path) -> None:
    evidence = gather([write_study(tmp_path / "study", 5).root])
    assert evidence.tables.trials["state"].tolist() == ["finished"] * 5
    assert evidence.tables.epochs.groupby("trial_id").size().tolist() == [10] * 5
    assert evidence.points[["dice", "dice_low", "dice_high", "runtime_seconds", "co2_kg"]].notna().all(axis=None)
    assert (evidence.points["dice_low"] < evidence.points["dice"]).all()


@pytest.mark.cluster
def test_a_report_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "report", "--trials", "3", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["report"]
    assert figures["trials"] == 3
    assert 0 < figures["read_by_report"] < 1
    assert figures["page_mib"] > 0
    assert figures["figures"] > 0


def test_a_wrong_number_is_refused_before_anything_is_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "report", "--trials", "0"]) == 2
    assert "--trials" in capsys.readouterr().err

"""Time to a fixed Dice: crossings found by hand, the pairing, what is not reached, the poster's own form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import finish_trial, make_spec, make_study

from analysis.comparison.equal_cost import (
    POSTER_THRESHOLDS,
    choose_thresholds,
    crossings,
    smoothed_curves,
    time_to_dice,
)
from analysis.papers.tables import time_table
from analysis.statistics.study_results import gather
from study.store.ledger import Ledger


def epochs_of(dice: list[float | None], *, trial: str = "t", each: int = 10) -> pd.DataFrame:
    """A trial that needs a second, a gram and a million voxels for every iteration."""
    iterations = each * np.arange(1, len(dice) + 1)
    return pd.DataFrame(
        {
            "study": "s",
            "trial_id": trial,
            "epoch": range(len(dice)),
            "iteration": iterations,
            "pseudo_dice": pd.array(dice, dtype="Float64").astype(float),
            "training_seconds": 1.0 * iterations,
            "co2_kg": 1e-3 * iterations,
            "voxels": 1e6 * iterations,
        }
    )


def test_a_crossing_by_hand() -> None:
    """Means of three: 0.3 at iteration 30, 0.5 at 40, 0.6 at 50. Half way from 0.3 to 0.5 lies 0.4, at iteration 35."""
    curves = smoothed_curves(epochs_of([0.1, 0.3, 0.5, 0.7, 0.6]))
    assert curves["smoothed"].tolist() == pytest.approx([0.3, 0.5, 0.6])
    row = crossings(curves, [0.4]).iloc[0]
    assert row["reached"]
    assert row[["training_seconds", "co2_kg", "voxels", "iteration"]].tolist() == pytest.approx([35, 0.035, 35e6, 35])
    assert (row["dice"], row["interval_iterations"]) == (pytest.approx(0.5), 10)


def test_the_first_crossing_counts_and_what_is_above_from_the_start_counts_where_it_stands() -> None:
    curves = smoothed_curves(epochs_of([0.6, 0.6, 0.6, 0.0, 0.9, 0.9]))
    row = crossings(curves, [0.5]).iloc[0]
    assert row["iteration"] == 30
    assert math.isnan(row["interval_iterations"])


def test_what_is_not_reached_says_so_and_how_far_it_came() -> None:
    row = crossings(smoothed_curves(epochs_of([0.1, 0.2, 0.3])), [0.5]).iloc[0]
    assert not row["reached"]
    assert row["best"] == pytest.approx(0.2)
    assert row[["dice", "training_seconds", "iteration"]].isna().all()


def test_epochs_without_evaluation_are_passed_over() -> None:
    curves = smoothed_curves(epochs_of([0.1, None, 0.3, None, 0.5]))
    assert curves["iteration"].tolist() == [50]
    assert curves["smoothed"].tolist() == pytest.approx([0.3])
    assert smoothed_curves(epochs_of([0.1, 0.2])).empty


@given(st.lists(st.floats(0, 1), min_size=3, max_size=20), st.floats(0.01, 1))
def test_a_crossing_lies_between_the_evaluations_around_it(dice: list[float], threshold: float) -> None:
    curves = smoothed_curves(epochs_of(dice))
    row = crossings(curves, [threshold]).iloc[0]
    above = curves[curves["smoothed"] >= threshold]
    assert bool(row["reached"]) == (not above.empty)
    if row["reached"]:
        end = above["iteration"].iloc[0]
        assert max(30, end - 10) <= row["iteration"] <= end


def test_the_posters_thresholds_and_lower_ones_for_trainings_that_reach_few() -> None:
    def thresholds(best: float) -> tuple[float, ...]:
        return choose_thresholds(smoothed_curves(epochs_of([best] * 3)))

    assert thresholds(0.97) == POSTER_THRESHOLDS
    assert thresholds(0.91) == POSTER_THRESHOLDS
    assert thresholds(0.82) == (0.70, 0.75, 0.80, 0.85)
    assert thresholds(0.42) == (0.30, 0.35, 0.40, 0.80)


def write_pair(study: Ledger, *, fold: int, seconds: tuple[float, float], dice: float = 0.9, **header: str) -> None:
    """CPS and PGPS whose curves are the same over their iterations; seconds are of the whole trainings."""
    for scheme, whole in zip(("cps", "pgps"), seconds, strict=True):
        spec = make_spec(scheme, fold=fold)
        finish_trial(study, spec, dice=dice, seconds=whole, curve=True, **(header if scheme == "pgps" else {}))


def test_ratios_pair_folds_and_have_an_interval_from_three_on(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for fold, seconds in enumerate((40.0, 50.0)):
        write_pair(study, fold=fold, seconds=(100.0, seconds))
    row = time_to_dice(gather([study.root]), [0.8]).iloc[0]
    assert (row["n_pairs"], row["n_reached"], row["n_baseline"]) == (2, 2, 2)
    assert row["ratio_training_seconds"] == pytest.approx(math.sqrt(0.4 * 0.5))
    assert row["ratio_iteration"] == pytest.approx(1.0)
    assert row["ratio_voxels"] < 0.5
    assert row[["low_training_seconds", "high_training_seconds", "horizon_training_seconds"]].isna().all()
    write_pair(study, fold=2, seconds=(100.0, 60.0))
    row = time_to_dice(gather([study.root]), [0.8]).iloc[0]
    # Student's t with two degrees of freedom: 4.303.
    logs = np.log([0.4, 0.5, 0.6])
    half = 4.30265 * logs.std(ddof=1) / math.sqrt(3)
    assert row["low_training_seconds"] == pytest.approx(math.exp(logs.mean() - half), rel=1e-4)
    assert row["high_training_seconds"] == pytest.approx(math.exp(logs.mean() + half), rel=1e-4)


def test_trainings_that_do_not_arrive_count_with_the_horizon(tmp_path: Path) -> None:
    """PGPS arrives in one fold of two: the pair in which both do would say 40 % of the time."""
    study = Ledger.create(tmp_path / "study")
    write_pair(study, fold=0, seconds=(100.0, 40.0))
    for scheme, dice, seconds in (("cps", 0.9, 100.0), ("pgps", 0.6, 40.0)):
        finish_trial(study, make_spec(scheme, fold=1), dice=dice, seconds=seconds, curve=True)
    row = time_to_dice(gather([study.root]), [0.8]).iloc[0]
    assert (row["n_pairs"], row["n_reached"], row["n_baseline"]) == (2, 1, 2)
    horizon, theirs = row["horizon_training_seconds"], row["baseline_training_seconds"]
    assert horizon == pytest.approx(100.0)
    assert row["ratio_training_seconds"] == pytest.approx((0.4 * theirs + horizon) / 2 / theirs)
    assert np.isnan(row["low_training_seconds"])
    item = time_table(gather([study.root]), [0.8])
    assert item is not None
    cells = dict(zip(item.table.headings, item.table.rows[0], strict=True))
    assert (cells["Reached"], cells["Conventional"]) == ("1 of 2", "2 of 2")
    assert cells["Ratio of time"].endswith("(restricted to 100 s)")
    assert cells["Ratio of voxels"].endswith("million)")


def test_a_side_without_any_arrival_has_no_ratio(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme, dice in (("cps", 0.9), ("pgps", 0.6)):
        finish_trial(study, make_spec(scheme), dice=dice, seconds=40.0, curve=True)
    row = time_to_dice(gather([study.root]), [0.8]).iloc[0]
    assert (row["n_reached"], row["n_baseline"]) == (0, 1)
    assert row[["ratio_training_seconds", "ratio_voxels", "horizon_voxels"]].isna().all()


def test_a_ratio_across_hardware_is_left_out_and_that_of_voxels_stays(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    write_pair(study, fold=0, seconds=(100.0, 40.0), cpu_name="Another CPU")
    row = time_to_dice(gather([study.root]), [0.8]).iloc[0]
    assert row[["ratio_training_seconds", "ratio_co2_kg"]].isna().all()
    assert row["ratio_voxels"] > 0
    assert row["training_seconds"] > 0


def test_the_table_says_what_is_not_reached(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    write_pair(study, fold=0, seconds=(100.0, 40.0))
    item = time_table(gather([study.root]), [0.8, 0.95])
    assert item is not None
    assert item.table is not None
    rows = [dict(zip(item.table.headings, row, strict=True)) for row in item.table.rows]
    assert [row["Threshold"] for row in rows] == ["0.80", "0.95"]
    assert (rows[0]["Reached"], rows[0]["Ratio of time"]) == ("1 of 1", "40 %")
    assert rows[0]["Evaluated every"] == "20 iterations"
    assert rows[1]["Reached"].startswith("0 of 1 (best 0.8")
    assert rows[1]["Ratio of time"] == "–"


def test_there_is_no_table_without_curves_or_without_conventional_training(tmp_path: Path) -> None:
    assert time_table(gather([make_study(tmp_path / "flat").root])) is None
    study = Ledger.create(tmp_path / "alone")
    finish_trial(study, make_spec("pgps"), dice=0.9, seconds=40, curve=True)
    assert time_table(gather([study.root])) is None
    assert time_table(gather([Ledger.create(tmp_path / "empty").root])) is None

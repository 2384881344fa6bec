"""Hypervolume: rectangles counted by hand and by grid, reference points, contributions, the table of sets."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import make_points, make_study

from analysis.fronts.front import contributions, hypervolume, pareto_front
from analysis.fronts.hypervolume import box_of, contribution_shares, hypervolume_rows, volume_share
from analysis.statistics.evidence import gather
from analysis.tables.objectives import OBJECTIVES

RUNTIME = (OBJECTIVES["dice"], OBJECTIVES["runtime_seconds"])
# Dice up, cost down: three steps of a staircase under the reference (0, 10), and a point in its shade.
STAIRS = [(0.5, 2.0), (0.8, 5.0), (0.9, 9.0), (0.4, 6.0)]


def test_a_staircase_by_hand() -> None:
    covered = 0.5 * (10 - 2) + 0.3 * (10 - 5) + 0.1 * (10 - 9)
    assert hypervolume(STAIRS, reference=(0, 10), maximise=(True, False)) == pytest.approx(covered)
    lost = contributions(STAIRS, reference=(0, 10), maximise=(True, False))
    assert lost.tolist() == pytest.approx([0.5 * (5 - 2), (0.8 - 0.5) * (9 - 5), (0.9 - 0.8) * (10 - 9), 0.0])


def test_rows_that_are_no_numbers_or_beyond_the_reference_count_for_nothing() -> None:
    odd = [*STAIRS, (math.nan, 1.0), (math.inf, 1.0), (0.9, math.nan), (0.95, 11.0)]
    whole = hypervolume(STAIRS, reference=(0, 10), maximise=(True, False))
    assert hypervolume(odd, reference=(0, 10), maximise=(True, False)) == pytest.approx(whole)
    assert hypervolume([(math.nan, 1.0)], reference=(0, 10), maximise=(True, False)) == 0.0
    assert hypervolume([], reference=(0, 10), maximise=(True, False)) == 0.0
    assert contributions(odd, reference=(0, 10), maximise=(True, False))[4:].tolist() == [0.0] * 4


WHOLE = st.integers(0, 6)


@given(st.lists(st.tuples(WHOLE, WHOLE, WHOLE), max_size=9))
def test_three_objectives_against_counted_cells(rows: list[tuple[int, int, int]]) -> None:
    # Dice from 0 up, two costs from 7 down: a cell of the grid is covered if a row is at least as good there.
    cells = np.array(np.meshgrid(range(6), range(7), range(7), indexing="ij")).reshape(3, -1).T
    covered = sum(any(d > cell[0] and a <= cell[1] and b <= cell[2] for d, a, b in rows) for cell in cells)
    assert hypervolume(rows, reference=(0, 7, 7), maximise=(True, False, False)) == pytest.approx(covered)


@given(st.lists(st.tuples(WHOLE, WHOLE), min_size=1, max_size=9, unique=True))
def test_a_contribution_of_the_front_is_what_removing_a_point_costs(rows: list[tuple[int, int]]) -> None:
    setting = {"reference": (-1, 7), "maximise": (True, False)}
    best = [r for r in rows if not any(o != r and o[0] >= r[0] and o[1] <= r[1] for o in rows)]
    whole = hypervolume(best, **setting)
    lost = [whole - hypervolume([o for o in best if o != r], **setting) for r in best]
    assert contributions(best, **setting).tolist() == pytest.approx(lost)


def test_the_reference_is_a_tenth_of_the_range_beyond_the_worst() -> None:
    points = make_points(dice=[0.6, 0.8], runtime_seconds=[10.0, 30.0])
    box = box_of(points, RUNTIME)
    assert box.reference == pytest.approx((0.58, 32.0))
    assert box.ideal == (0.8, 10.0)
    assert box.words == "Dice 0.5800, Training time 32.0 s"
    assert volume_share(points, box) == pytest.approx((0.02 * 22 + 0.2 * 2) / (0.22 * 22))


@pytest.mark.parametrize(("dice", "expected"), [([0.02, 0.9], 0.0), ([0.8, 0.8], 0.72), ([0.0, 0.0], 0.0)])
def test_the_reference_of_dice_never_falls_below_0(dice: list[float], expected: float) -> None:
    box = box_of(make_points(dice=dice, runtime_seconds=[1.0, 2.0]), RUNTIME)
    assert box.reference[0] == pytest.approx(expected)


def test_a_point_that_is_best_in_everything_covers_the_box() -> None:
    points = make_points(dice=[0.9, 0.5], runtime_seconds=[1.0, 2.0])
    box = box_of(points, RUNTIME)
    assert volume_share(points, box) == pytest.approx(1.0)
    assert contribution_shares(points, box).tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("dice", [0.8, 0.0])
def test_a_single_point_has_a_share(dice: float) -> None:
    points = make_points(dice=[dice], runtime_seconds=[5.0])
    assert 0 <= volume_share(points, box_of(points, RUNTIME)) <= 1


def test_sets_share_one_reference_and_never_cover_more_than_all(tmp_path: Path) -> None:
    points = gather([make_study(tmp_path / "study", budgets=(1.0, 0.5)).root]).points
    rows = hypervolume_rows(pareto_front(points, ("dice", "runtime_seconds")))
    assert rows["group"].tolist() == ["all", *["scheme"] * 7, *["budget"] * 2]
    assert rows["reference_dice"].nunique() == rows["reference_runtime_seconds"].nunique() == 1
    assert (rows["share"] <= rows["share"].iloc[0] + 1e-12).all()
    assert rows.loc[rows["group"] == "scheme", "points"].sum() == rows["points"].iloc[0] == 16
    assert rows["share"].iloc[0] == pytest.approx(rows["hypervolume"].iloc[0] / box_of(points, RUNTIME).volume)

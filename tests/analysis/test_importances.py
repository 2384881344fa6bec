"""Importances: known answers where one axis decides, properties that always hold, and when there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import make_points

from analysis.effects.importances import FANOVA, FEWEST_POINTS, FRONT, PED_ANOVA, best_share, importances
from analysis.effects.varying import varying_axes

OBJECTIVES = ("dice", "runtime_seconds", "co2_kg")


def grid_of_points(dice: Any, seconds: Any, *, repeats: int = 1) -> pd.DataFrame:
    """Points of min_patch × budget × order, whose Dice and seconds are functions of these."""
    rows = [
        (patch, budget, order)
        for _ in range(repeats)
        for patch in (0.0, 0.25, 0.5, 0.75, 1.0)
        for budget in (0.25, 0.5, 0.75, 1.0)
        for order in ("growing", "shrinking")
    ]
    values = [(float(dice(*row)), float(seconds(*row))) for row in rows]
    return make_points(
        min_patch=[row[0] for row in rows],
        budget=[row[1] for row in rows],
        order=[row[2] for row in rows],
        dice=[value[0] for value in values],
        runtime_seconds=[value[1] for value in values],
        co2_kg=[0.001 * value[1] for value in values],
    )


def shares(frame: pd.DataFrame, target: str, evaluator: str) -> dict[str, float]:
    part = frame[(frame["target"] == target) & (frame["evaluator"] == evaluator)]
    return dict(zip(part["axis"], part["importance"], strict=True))


@pytest.fixture(scope="module")
def known() -> pd.DataFrame:
    """Dice follows the budget alone, seconds the smallest patch alone."""
    points = grid_of_points(
        lambda patch, budget, order: 0.5 + 0.4 * budget, lambda patch, budget, order: 10 + 90 * patch
    )
    return importances(points, varying_axes(points), OBJECTIVES)


@pytest.mark.parametrize("evaluator", [PED_ANOVA, FANOVA])
def test_the_axis_that_decides_has_nearly_all_the_importance(known: pd.DataFrame, evaluator: str) -> None:
    assert shares(known, "dice", evaluator)["budget"] > 0.95
    assert shares(known, "runtime_seconds", evaluator)["min_patch"] > 0.95


def test_the_best_dice_is_the_highest(known: pd.DataFrame) -> None:
    """With budget deciding below 0.3 alone, where only the worst are, PED-ANOVA must look at the other end."""
    points = grid_of_points(
        lambda patch, budget, order: 0.9 + 0.01 * (order == "growing") if budget > 0.25 else 0.1 * (0.1 + patch),
        lambda patch, budget, order: 10,
    )
    found = importances(points, varying_axes(points), ("dice", "runtime_seconds"))
    by_best = shares(found, "dice", PED_ANOVA)
    assert by_best["order"] > by_best["min_patch"]
    assert shares(found, "dice", FANOVA)["budget"] > 0.9


def test_the_front_has_importances_by_ped_anova_alone(known: pd.DataFrame) -> None:
    assert set(known["evaluator"][known["target"] == FRONT]) == {PED_ANOVA}
    assert shares(known, FRONT, PED_ANOVA)["order"] < 0.1


def test_every_column_sums_to_one_and_names_every_axis(known: pd.DataFrame) -> None:
    for _, part in known.groupby(["target", "evaluator"]):
        assert sorted(part["axis"]) == ["budget", "min_patch", "order"]
        assert part["importance"].sum() == pytest.approx(1)
        assert part["importance"].between(0, 1).all()


def test_the_same_points_give_the_same_numbers_in_any_order_of_reading() -> None:
    points = grid_of_points(lambda p, b, o: p * b, lambda p, b, o: 1 + p + b)
    first, second = (importances(points, varying_axes(points), OBJECTIVES) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_an_objective_that_is_the_same_everywhere_has_none() -> None:
    points = grid_of_points(lambda p, b, o: b, lambda p, b, o: 10.0)
    assert set(importances(points, varying_axes(points), OBJECTIVES)["target"]) == {"dice", FRONT}


def test_points_without_a_value_are_left_out() -> None:
    points = grid_of_points(lambda p, b, o: b, lambda p, b, o: 1 + p)
    points.loc[[0, 5], "co2_kg"] = [np.nan, np.inf]
    found = importances(points, varying_axes(points), OBJECTIVES)
    assert set(found["n_points"]) == {len(points) - 2}


def test_too_few_points_or_no_axis_give_none() -> None:
    points = grid_of_points(lambda p, b, o: b, lambda p, b, o: 1 + p)
    axes = varying_axes(points)
    assert importances(points.head(FEWEST_POINTS - 1), axes, OBJECTIVES).empty
    assert not importances(points.head(FEWEST_POINTS), axes, OBJECTIVES).empty
    assert importances(points, [], OBJECTIVES).empty
    assert importances(points.head(0), axes, OBJECTIVES).empty


def test_numbers_and_words_may_share_an_axis() -> None:
    points = grid_of_points(lambda p, b, o: b, lambda p, b, o: 1 + p)
    points["batch_growth"] = ["0", "0.5", "1", "stepwise"] * 10
    [axis] = [axis for axis in varying_axes(points) if axis.name == "batch_growth"]
    assert (axis.numeric, axis.categories) == (False, ["0", "0.5", "1", "stepwise"])
    assert "batch_growth" in set(importances(points, varying_axes(points), OBJECTIVES)["axis"])


def test_many_numbers_beside_words_are_told_by_halves() -> None:
    points = make_points(dice=[0.5] * 8, batch_growth=["0", "0.125", "0.25", "0.375", "0.5", "0.75", "1", "stepwise"])
    [axis] = [axis for axis in varying_axes(points) if axis.name == "batch_growth"]
    assert axis.values.tolist() == ["0", *["0–0.5"] * 4, "0.5–1", "1", "stepwise"]


@given(n_points=st.integers(8, 10_000), n_front=st.integers(0, 10_000))
def test_the_best_are_never_none_and_never_most(n_points: int, n_front: int) -> None:
    share = best_share(n_points, min(n_front, n_points))
    assert 0.1 <= share <= 0.5
    assert round(share * n_points) >= min(5, n_points // 2)


@settings(max_examples=10)
@given(st.data())
def test_whatever_the_points_importances_are_shares(data: st.DataObject) -> None:
    count = data.draw(st.integers(8, 16))
    unit = st.floats(0, 1, allow_nan=False)
    columns = {
        "min_patch": data.draw(st.lists(unit, min_size=count, max_size=count)),
        "order": data.draw(st.lists(st.sampled_from(["growing", "random"]), min_size=count, max_size=count)),
        "dice": data.draw(st.lists(unit, min_size=count, max_size=count)),
        "runtime_seconds": data.draw(st.lists(unit, min_size=count, max_size=count)),
    }
    points = make_points(**columns)
    found = importances(points, varying_axes(points), ("dice", "runtime_seconds"))
    assert found["importance"].between(0, 1 + 1e-9).all()
    for _, part in found.groupby(["target", "evaluator"]):
        assert part["importance"].sum() == pytest.approx(1) or (part["importance"] == 0).all()


def test_axes_that_always_change_together_are_one() -> None:
    points = make_points(
        dice=[0.1, 0.2, 0.3, 0.4, 0.5],
        min_patch=[0.0, 0.0, 0.5, 0.5, 1.0],
        order=["growing", "growing", "random", "random", "shrinking"],
        budget=[1.0, 0.5, 1.0, 0.5, 1.0],
    )
    assert [axis.label for axis in varying_axes(points)] == ["Smallest patch = Order", "Budget"]


def test_numbers_that_never_repeat_are_one_axis_only_if_they_rise_together() -> None:
    patches = [0.1, 0.2, 0.3, 0.4]
    alike = make_points(dice=patches, min_patch=patches, budget=[0.4, 0.5, 0.6, 0.9])
    assert [axis.label for axis in varying_axes(alike)] == ["Smallest patch = Budget"]
    crossed = make_points(dice=patches, min_patch=patches, budget=[0.4, 0.9, 0.6, 0.5])
    assert [axis.name for axis in varying_axes(crossed)] == ["min_patch", "budget"]


def test_points_that_are_all_alike_have_no_axis() -> None:
    assert varying_axes(make_points(dice=[0.1, 0.2, 0.3])) == []
    assert varying_axes(make_points(dice=[0.1])) == []


def test_learning_rates_are_told_apart_by_their_ratio() -> None:
    points = make_points(dice=[0.1, 0.2, 0.3], initial_learning_rate=[1e-4, 1e-3, 1e-2])
    [axis] = varying_axes(points)
    assert axis.numeric and axis.logarithmic

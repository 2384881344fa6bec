"""Importances: known answers where one axis decides, properties that always hold, and when there are none."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import make_points

from analysis.effects.axes import varying_axes
from analysis.effects.importances import FANOVA, FEWEST_POINTS, FRONT, PED_ANOVA, best_share, importances

OBJECTIVES = ("dice", "runtime_seconds", "co2_kg")
Value = Callable[[float, float, str], float]


def grid_of_points(dice: Value, seconds: Value = lambda patch, budget, order: 1 + patch) -> pd.DataFrame:
    """Points of min_patch × budget × order, whose Dice and seconds are functions of these."""
    patches, budgets = (0.0, 0.25, 0.5, 0.75, 1.0), (0.25, 0.5, 0.75, 1.0)
    rows = list(itertools.product(patches, budgets, ("growing", "shrinking")))
    columns = dict(zip(("min_patch", "budget", "order"), map(list, zip(*rows, strict=True)), strict=True))
    runtime = [float(seconds(*row)) for row in rows]
    carbon = [0.001 * value for value in runtime]
    return make_points(**columns, dice=[float(dice(*row)) for row in rows], runtime_seconds=runtime, co2_kg=carbon)


def measured(points: pd.DataFrame, objectives: tuple[str, ...] = OBJECTIVES) -> pd.DataFrame:
    return importances(points, varying_axes(points), objectives)


def shares(frame: pd.DataFrame, target: str, evaluator: str) -> dict[str, float]:
    part = frame[(frame["target"] == target) & (frame["evaluator"] == evaluator)]
    return dict(zip(part["axis"], part["importance"], strict=True))


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    """Dice follows the budget alone, seconds the smallest patch alone."""
    return grid_of_points(lambda patch, budget, order: 0.5 + 0.4 * budget, lambda patch, *_: 10 + 90 * patch)


@pytest.fixture(scope="module")
def known(points: pd.DataFrame) -> pd.DataFrame:
    return measured(points)


def test_the_axis_that_decides_has_nearly_all_the_importance(known: pd.DataFrame) -> None:
    for evaluator in (PED_ANOVA, FANOVA):
        assert shares(known, "dice", evaluator)["budget"] > 0.95
        assert shares(known, "runtime_seconds", evaluator)["min_patch"] > 0.95
    # Only one of the two knows of several objectives.
    assert set(known["evaluator"][known["target"] == FRONT]) == {PED_ANOVA}
    assert shares(known, FRONT, PED_ANOVA)["order"] < 0.1


def test_the_best_dice_is_the_highest() -> None:
    """With budget deciding below 0.3 alone, where only the worst are, PED-ANOVA must look at the other end."""
    found = measured(
        grid_of_points(
            lambda patch, budget, order: 0.9 + 0.01 * (order == "growing") if budget > 0.25 else 0.1 * (0.1 + patch),
            lambda *_: 10,
        )
    )
    by_best = shares(found, "dice", PED_ANOVA)
    assert by_best["order"] > by_best["min_patch"]
    assert shares(found, "dice", FANOVA)["budget"] > 0.9
    # What is the same everywhere has none.
    assert set(found["target"]) == {"dice", FRONT}


def test_the_same_points_give_the_same_shares_of_one(points: pd.DataFrame, known: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(known, measured(points))
    for _, part in known.groupby(["target", "evaluator"]):
        assert sorted(part["axis"]) == ["budget", "min_patch", "order"]
        assert part["importance"].sum() == pytest.approx(1)


def test_points_without_a_value_are_left_out(points: pd.DataFrame) -> None:
    lacking = points.copy()
    lacking.loc[[0, 5], "co2_kg"] = [np.nan, np.inf]
    assert set(measured(lacking)["n_points"]) == {len(points) - 2}


def test_too_few_points_or_no_axis_give_none(points: pd.DataFrame) -> None:
    axes = varying_axes(points)
    assert importances(points.head(FEWEST_POINTS - 1), axes, OBJECTIVES).empty
    assert not importances(points.head(FEWEST_POINTS), axes, OBJECTIVES).empty
    assert importances(points, [], OBJECTIVES).empty
    assert importances(points.head(0), axes, OBJECTIVES).empty


@given(n_points=st.integers(8, 10_000), n_front=st.integers(0, 10_000))
def test_the_best_are_never_none_and_never_most(n_points: int, n_front: int) -> None:
    share = best_share(n_points, min(n_front, n_points))
    assert 0.1 <= share <= 0.5
    assert round(share * n_points) >= min(5, n_points // 2)


@settings(max_examples=10)
@given(st.data())
def test_whatever_the_points_importances_are_shares(data: st.DataObject) -> None:
    count = data.draw(st.integers(8, 16))

    def column(values: st.SearchStrategy) -> list:
        return data.draw(st.lists(values, min_size=count, max_size=count))

    numbers = {name: column(st.floats(0, 1)) for name in ("min_patch", "dice", "runtime_seconds")}
    found = measured(make_points(**numbers, order=column(st.sampled_from(["growing", "random"]))), OBJECTIVES[:2])
    assert found["importance"].between(0, 1 + 1e-9).all()
    for _, part in found.groupby(["target", "evaluator"]):
        assert part["importance"].sum() == pytest.approx(1) or (part["importance"] == 0).all()


@pytest.mark.parametrize(
    ("columns", "labels"),
    [
        (
            {
                "min_patch": [0.0, 0.0, 0.5, 0.5, 1.0],
                "order": ["growing", "growing", "random", "random", "shrinking"],
                "budget": [1.0, 0.5, 1.0, 0.5, 1.0],
            },
            ["Smallest patch = Order", "Budget"],
        ),
        # Numbers that never repeat are one axis only if they rise together.
        ({"min_patch": [0.1, 0.2, 0.3, 0.4], "budget": [0.4, 0.5, 0.6, 0.9]}, ["Smallest patch = Budget"]),
        ({"min_patch": [0.1, 0.2, 0.3, 0.4], "budget": [0.4, 0.9, 0.6, 0.5]}, ["Smallest patch", "Budget"]),
        ({"min_patch": [0.1, 0.1, 0.1]}, []),
        ({"min_patch": [0.1]}, []),
    ],
)
def test_axes_that_always_change_together_are_one(columns: dict[str, list], labels: list[str]) -> None:
    assert [axis.label for axis in varying_axes(make_points(**columns))] == labels


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["0", "0.5", "1", "stepwise"], ["0", "0.5", "1", "stepwise"]),
        # Many numbers beside words are told by halves.
        (
            ["0", "0.125", "0.25", "0.375", "0.5", "0.75", "1", "stepwise"],
            ["0", *["0–0.5"] * 4, "0.5–1", "1", "stepwise"],
        ),
    ],
)
def test_numbers_and_words_may_share_an_axis(values: list[str], told: list[str], points: pd.DataFrame) -> None:
    mixed = points.assign(batch_growth=values * (40 // len(values)))
    [axis] = [axis for axis in varying_axes(mixed) if axis.name == "batch_growth"]
    assert not axis.numeric and axis.values.tolist()[: len(told)] == told
    assert "batch_growth" in set(measured(mixed)["axis"])


def test_learning_rates_are_told_apart_by_their_ratio() -> None:
    [axis] = varying_axes(make_points(initial_learning_rate=[1e-4, 1e-3, 1e-2]))
    assert axis.numeric and axis.logarithmic

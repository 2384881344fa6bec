"""When a training has reached the Dice to stop at: by the mean of three evaluations, first time, for good."""

from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.common.errors import InvalidInputError
from study.curriculum.data_curriculum import smoothed_dice, stopping_epoch
from study.store.specification import TrainingSettings

CURVES = st.lists(st.none() | st.floats(0, 1), max_size=30)


@pytest.mark.parametrize(
    ("curve", "target", "epoch"),
    [
        ([0.9, 0.9], 0.5, None),
        ([0.9, 0.9, 0.9], 0.9, 2),
        ([0.0, 0.9, 0.0, 0.9, 0.9, 0.9], 0.7, 5),
        ([0.5, None, 0.5, None, 0.5, None], 0.5, 4),
        ([0.6, 0.6, 0.6, 0.1, 0.1], 0.5, 2),
        ([0.9, 0.9, 0.9], None, None),
        ([], 0.5, None),
    ],
)
def test_the_first_epoch_that_reaches_the_target(
    curve: list[float | None], target: float | None, epoch: int | None
) -> None:
    assert stopping_epoch(curve, target) == epoch
    assert smoothed_dice([0.1, 0.5, 0.6, 0.7]) == pytest.approx(0.6)


@given(CURVES, st.floats(0.01, 1))
def test_it_is_the_first_of_all_windows(curve: list[float | None], target: float) -> None:
    evaluated = [(epoch, dice) for epoch, dice in enumerate(curve) if dice is not None]
    windows = [evaluated[n - 2 : n + 1] for n in range(2, len(evaluated))]
    reached = [window[-1][0] for window in windows if sum(dice for _, dice in window) / 3 >= target]
    assert stopping_epoch(curve, target) == (reached[0] if reached else None)
    assert all(min(d for _, d in w) - 1e-12 <= fmean(d for _, d in w) <= 1 for w in windows)


@given(CURVES, st.floats(0.01, 1), st.integers(0, 30))
def test_what_comes_later_does_not_change_a_decision(curve: list[float | None], target: float, seen: int) -> None:
    early, late = stopping_epoch(curve[:seen], target), stopping_epoch(curve, target)
    assert early == late if early is not None else late is None or late >= min(seen, len(curve))


@pytest.mark.parametrize("wrong", [0, 0.0, -0.1, 1.01, float("nan"), "high", True])
def test_the_target_is_above_0_and_at_most_1(wrong: object) -> None:
    with pytest.raises(InvalidInputError, match=r"stop_at_dice: received .*, legal is a number above 0 up to 1"):
        TrainingSettings(stop_at_dice=wrong)  # type: ignore[arg-type]
    assert TrainingSettings(stop_at_dice=1).stop_at_dice == 1.0

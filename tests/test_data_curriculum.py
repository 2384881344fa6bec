"""The data curriculum: which cases come first and for how long, as a pure function of the iteration; and when a
training has reached the Dice to stop at: by the mean of three evaluations, first time, for good.
"""

from __future__ import annotations

import math
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.common.errors import InvalidInputError
from study.common.serialize import record_to_json
from study.curriculum.data_curriculum import (
    DataCurriculum,
    phase_iterations,
    resolve_cases,
    smoothed_dice,
    stopping_epoch,
)
from study.curriculum.schemes import Axes, named_axes
from study.curriculum.table import data_words, first_phase_words

RANKED = ("c", "a", "e", "b", "d")


@pytest.mark.parametrize(
    ("fraction", "cases"),
    [
        (0.0, None),
        (0.1, ("c",)),
        (0.29, ("c",)),
        (0.3, ("a", "c")),
        (0.5, ("a", "c", "e")),
        (0.8, ("a", "b", "c", "e")),
        (0.9, None),
        (1.0, None),
    ],
)
def test_a_fraction_is_rounded_half_up_to_the_most_dissimilar_cases(
    fraction: float, cases: tuple[str, ...] | None
) -> None:
    assert resolve_cases(RANKED, fraction) == cases


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_first_cases_are_the_top_of_the_ranking(count: int, fraction: float) -> None:
    ranked = [f"case_{number:03d}" for number in range(count)][::-1]
    size = math.floor(fraction * count + 0.5)
    if fraction > 0 and size == 0:
        with pytest.raises(InvalidInputError, match=f"leaves no case of {count}"):
            resolve_cases(ranked, fraction)
        # The least fraction that the error names leaves one.
        assert len(resolve_cases(ranked, 0.5 / count) or "x") == 1
        return
    cases = resolve_cases(ranked, fraction)
    assert cases is None if size in (0, count) else cases == tuple(sorted(ranked[:size]))


def test_which_cases_decide_and_not_their_order() -> None:
    assert resolve_cases(("b", "c", "a", "d"), 0.5) == resolve_cases(("c", "b", "d", "a"), 0.5) == ("b", "c")
    for wrong in ((), ("b", "a"), ("a", "a")):
        with pytest.raises(InvalidInputError, match="at least one training case, sorted, each once"):
            DataCurriculum(cases=wrong, until_iteration=1)


@pytest.mark.parametrize(
    ("pdl_epochs", "epochs", "expected"),
    [(1, 10, 7), (10, 10, 70), (0.25, 10, 21), (0.24, 10, 14), (0.01, 10, 7), (0.99, 10, 70), (0.5, 1, 7)],
)
def test_the_first_phase_ends_with_an_epoch(pdl_epochs: int | float, epochs: int, expected: int) -> None:
    assert phase_iterations(pdl_epochs, epochs=epochs, iterations_per_epoch=7) == expected
    with pytest.raises(InvalidInputError, match="pdl_epochs: received 11, legal is at most the 10 epochs"):
        phase_iterations(11, epochs=10, iterations_per_epoch=7)


@given(st.integers(1, 2000), st.floats(0, 1, exclude_min=True, exclude_max=True), st.integers(1, 400))
def test_a_share_is_at_least_an_epoch_and_at_most_the_training(epochs: int, share: float, each: int) -> None:
    length = phase_iterations(share, epochs=epochs, iterations_per_epoch=each)
    assert length % each == 0
    assert each <= length <= epochs * each
    assert abs(length / each - share * epochs) <= max(0.5, 1 - share * epochs) + 1e-9


@given(st.integers(1, 50), st.integers(0, 100))
def test_some_cases_until_an_iteration_and_all_from_it_on(until: int, iteration: int) -> None:
    data = DataCurriculum(cases=("a", "b"), until_iteration=until)
    assert data.allowed(iteration) == (("a", "b") if iteration < until else None)
    assert DataCurriculum.from_json(record_to_json(data)) == data


def test_a_ranking_is_needed_for_a_part_of_the_cases_alone() -> None:
    needed = [named_axes("pgps", pdl_fraction=fraction).needs_ranking for fraction in (0, 0.0, 1e-9, 0.5, 1, 1.0)]
    assert needed == [False, False, True, True, False, False]
    assert not any(named_axes(scheme).needs_ranking for scheme in ("cps", "pgps", "pgps+", "rpss"))


def test_the_phase_in_words() -> None:
    axes = Axes(pdl_fraction=0.125, pdl_metric="ssim")
    assert first_phase_words(axes, 40) == (
        "12.5 % of the training cases, most dissimilar by ssim, before iteration 40; then all"
    )
    data = DataCurriculum(cases=("a",), until_iteration=40)
    assert data_words(axes, data) == "1 training case, most dissimilar by ssim, before iteration 40; then all"


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

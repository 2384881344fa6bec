"""Who is on a front, and which training tells most: against worked examples, properties, and races of known truth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from study.__main__ import main
from study.search.race import Race, Training, case_deviation, next_training


def race(
    dice: list[float], judged: dict[tuple[int, int], float] | None = None, *, costs: list[list[float]] | None = None
) -> Race:
    """Points that cost 1, 2, … unless told otherwise; the search had each on fold 0."""
    return Race(
        costs=np.array(costs or [[1.0 + k] for k in range(len(dice))]),
        searched={Training(point=k, fold=0, seed=0): value for k, value in enumerate(dice)},
        judged={Training(point=p, fold=f, seed=0): value for (p, f), value in (judged or {}).items()},
        case_deviation=0.005,
    )


def left_of(points: int, folds: int = 4) -> list[Training]:
    return [Training(point=p, fold=f, seed=0) for f in range(1, folds + 1) for p in range(points)]


def test_by_the_search_alone_two_points_differ_as_t_says() -> None:
    found = race([0.80, 0.81]).belief().probability
    # Each is off by twice 0.005: four times the variance that the cases show, which counts for two degrees of freedom.
    assert found[0] == 1
    assert found[1] == pytest.approx(t.cdf(0.01 / (0.01 * math.sqrt(2)), df=2), abs=0.03)


def test_what_costs_more_and_is_worse_is_not_on_the_front_and_the_cheapest_always_is() -> None:
    found = race([0.5, 0.9, 0.2]).belief().probability
    assert found.tolist() == [1, pytest.approx(1, abs=0.01), pytest.approx(0, abs=0.01)]


def test_of_equal_costs_one_alone_is_on_the_front_and_two_costs_make_more_room() -> None:
    same = race([0.8, 0.8], costs=[[1, 1], [1, 1]]).belief().probability
    assert same.sum() == pytest.approx(1) and same[0] == pytest.approx(0.5, abs=0.05)
    assert race([0.8, 0.1], costs=[[1, 2], [2, 1]]).belief().probability.tolist() == [1, 1]


def test_the_search_has_no_say_in_what_has_been_judged() -> None:
    judged = {(p, f): 0.8 + 0.01 * p + 0.02 * f for p in (0, 1) for f in (1, 2)}
    lucky, unlucky = (race([0.7, own], judged).belief().dice.mean(axis=0) for own in (0.75, 0.65))
    assert lucky[1] - lucky[0] == pytest.approx(0.01, abs=0.002)
    assert unlucky[1] - unlucky[0] == pytest.approx(0.01, abs=0.002)


def test_points_are_compared_on_the_folds_that_they_share() -> None:
    # The second point was on an easier fold, too.
    judged = {(0, 1): 0.80, (1, 1): 0.81, (1, 2): 0.95, (0, 3): 0.60, (1, 3): 0.61}
    means = race([0.8, 0.8], judged).belief().dice.mean(axis=0)
    assert means[1] - means[0] == pytest.approx(0.01, abs=0.004)


def test_a_point_needs_two_folds_to_be_called_on_the_front() -> None:
    once = race([0.7, 0.8], {(0, 1): 0.7, (1, 1): 0.8}).belief()
    twice = race([0.7, 0.8], {(0, 1): 0.7, (1, 1): 0.8, (0, 2): 0.7, (1, 2): 0.8}).belief()
    assert once.probability[1] >= 0.9 and not once.is_settled(1)
    assert twice.is_settled(1) and next_training(twice, left_of(2), [1, 1]) is None


def test_the_contender_is_trained_first_then_its_challenger_on_the_same_fold() -> None:
    before = race([0.8, 0.802])
    found = next_training(before.belief(), left_of(2), [1, 1])
    assert found is not None and found[1] == Training(point=1, fold=1, seed=0)
    rest = [each for each in left_of(2) if each != found[1]]
    after = next_training(before.belief([found[1]]), rest, [1, 1])
    assert after is not None and after[1] == Training(point=0, fold=1, seed=0)


def test_nothing_is_chosen_beyond_the_money_or_without_a_contender() -> None:
    belief = race([0.8, 0.802]).belief()
    assert next_training(belief, left_of(2), [1, 1], most_hours=0.9) is None
    assert next_training(belief, [], [1, 1]) is None
    assert next_training(race([0.9, 0.1]).belief(), left_of(2), [1, 1]) is None


def test_what_tells_much_for_little_goes_first() -> None:
    # Two pairs as close as each other; those of the first cost a tenth.
    belief = race([0.6, 0.602, 0.8, 0.802]).belief()
    found = next_training(belief, left_of(4), [1, 1, 10, 10])
    assert found is not None and found[1].point in (0, 1)


@settings(max_examples=12, deadline=None)
@given(
    dice=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    judged=st.dictionaries(st.tuples(st.integers(0, 11), st.integers(1, 4)), st.floats(0, 1), max_size=20),
)
def test_whatever_trainings_came_to_every_probability_is_one(
    dice: list[float], judged: dict[tuple[int, int], float]
) -> None:
    known = race(dice, {key: value for key, value in judged.items() if key[0] < len(dice)})
    left = [each for each in left_of(len(dice)) if each not in known.judged]
    belief = known.belief()
    assert np.isfinite(belief.dice).all() and ((belief.probability >= 0) & (belief.probability <= 1)).all()
    assert belief.probability[0] == 1
    found = next_training(belief, left, [1.0] * len(dice))
    assert found is None or (found[0] >= 0 and found[1] in left)
    assert found == next_training(known.belief(), left, [1.0] * len(dice))


@settings(max_examples=12, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-0.1, 0.1))
def test_units_of_cost_and_level_of_dice_change_nothing(scale: float, shift: float) -> None:
    dice, judged = [0.7, 0.71, 0.705, 0.72], {(1, 1): 0.7, (2, 1): 0.71, (1, 2): 0.7, (2, 2): 0.69}
    one = race(dice, judged).belief().probability
    costs = [[scale * (1.0 + k)] for k in range(4)]
    moved = race([each + shift for each in dice], {k: each + shift for k, each in judged.items()}, costs=costs)
    assert moved.belief().probability == pytest.approx(one, abs=0.01)


def test_cases_say_how_far_a_mean_is_off() -> None:
    draw = np.random.default_rng(0)
    cases = 0.8 + draw.normal(0, 0.1, 400) + draw.normal(0, 0.02, (12, 400))
    cases[3, :7] = math.nan
    assert case_deviation(cases, np.nanmean(cases, axis=1)) == pytest.approx(0.02 / 20, rel=0.1)
    assert case_deviation(cases[:1], cases[:1, 9]) == 0


def test_fewer_races_than_can_be_counted_are_refused(refused: Callable[..., str]) -> None:
    assert refused("bench", "confirm", "--races", 2).startswith("error: --races: received 2, legal is a whole number")


@pytest.mark.cluster
def test_races_of_known_truth(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "confirm", "--races", "3", "--json"]) == 0
    every, held_out = json.loads(capsys.readouterr().out)["calibrations"]
    assert (every["races"], held_out["races"]) == (3, 1)
    assert every["of_them_on"] >= 0.7 * every["said_on"] > 0
    assert sum(each["points"] for each in every["bins"]) == sum(every[n] for n in ("said_on", "said_off", "undecided"))
    assert 0 < every["median"] < 1

"""The searcher `pareto`: what it knows of costs, what it expects of Dice, and what it proposes."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from searching import FINISHED, OPTUNA_SPACE, STAGES, ledger_of, sampler_of, space_of

from analysis.fronts.front import hypervolume
from benchmarks.search import measure
from benchmarks.surfaces import AXES, curriculum_of, grid
from study.common.errors import InvalidInputError
from study.nnunet.datasets import data_paths
from study.search.document import space_from
from study.search.pareto import LEAST_KNOWN, Pareto, published
from study.search.samplers import AdaptiveSampler
from study.search.space import Point, resolved_space
from study.search.surrogate import DiceModel, Encoding, expected_improvement, predicted_costs
from study.store.outcomes import Outcome

SPACE: dict[str, Any] = {
    "name": "pareto",
    "searcher": "pareto",
    "trials": 40,
    "datasets": [1],
    "objectives": ["dice", "runtime_seconds"],
    "curriculum": {"min_patch": {"uniform": [0, 1]}, "batch_growth": [0, 0.5, 1, "stepwise"], "budget": [0.1, 0.5, 1]},
}


@st.composite
def fronts(draw: st.DrawFn) -> tuple[int, np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """One or two costs; points so far (Dice, costs); a candidate's mean and SD; its costs."""
    number = draw(st.integers(1, 2))
    value = st.floats(0.01, 1.2)
    points = draw(st.lists(st.tuples(value, *[value] * number), min_size=1, max_size=5))
    mean, deviation = draw(st.floats(0, 1)), draw(st.floats(0.01, 0.5))
    costs = draw(st.tuples(*[value] * number))
    return number, np.array(points), np.array([mean, deviation]), np.array(costs)


@given(fronts())
def test_the_expected_improvement_is_the_mean_of_hypervolumes(case: Any) -> None:
    number, points, (mean, deviation), costs = case
    reference, maximise = np.array([0.1, *[1.0] * number]), [True, *[False] * number]
    found = expected_improvement(
        np.array([mean]),
        np.array([deviation]),
        costs[None],
        front_dice=points[:, 0],
        front_costs=points[:, 1:],
        reference=reference,
    )
    # The normal distribution as 400 equally likely values.
    quantiles = (np.arange(400) + 0.5) / 400
    before = hypervolume(points, reference=reference, maximise=maximise)
    volumes = [
        hypervolume(np.vstack([points, [dice, *costs]]), reference=reference, maximise=maximise)
        for dice in norm.ppf(quantiles, mean, deviation)
    ]
    assert found[0] == pytest.approx(np.mean(volumes) - before, abs=2e-3)


def test_costs_follow_from_three_finished_points() -> None:
    work = np.array([[1.0, *sizes] for sizes in ((100, 1e6), (100, 4e6), (400, 5e6), (50, 9e6), (800, 1e6))])
    truth = work @ np.array([20.0, 0.3, 2e-5])
    assert predicted_costs(work, [0, 1, 2], truth[:3]) == pytest.approx(truth, rel=0.03)
    assert list(np.argsort(predicted_costs(work, [], np.array([])))) == [0, 4, 1, 2, 3]


def test_cheap_points_inform_dear_ones() -> None:
    space = space_from(SPACE)
    points = [{**dict.fromkeys(space.searched, 0), "curriculum.min_patch": n / 9} for n in range(10)]
    cheap = [{**point, "curriculum.budget": 0.1} for point in points]
    rows = Encoding(space.searched).rows
    known = rows([*cheap, {**points[0], "curriculum.budget": 1.0}])
    dice = np.array([0.6 + 0.2 * (n / 9) ** 2 for n in range(10)] + [0.8])
    mean, deviation = DiceModel(known, dice, known[:0])(rows([{**point, "curriculum.budget": 1.0} for point in points]))
    assert mean[-1] > mean[0] + 0.05
    assert (deviation[1:] > deviation[0]).all()


def test_points_of_one_training_are_one_candidate_under_whatever_settings_it_is_told() -> None:
    space = space_from({**SPACE, "curriculum": AXES})
    strategy = Pareto(space, curriculum_of)
    assert len(strategy.points) == len(grid()) < math.prod(map(len, AXES.values()))
    whole = {"curriculum.stages": 1, "curriculum.batch_growth": 0, "curriculum.budget": 1}
    for number, smallest in enumerate(AXES["min_patch"]):
        strategy.begin(number, {**whole, "curriculum.min_patch": smallest})
    assert len(strategy.told) == 1 and len(strategy.points) == len(grid())
    others = {
        "curriculum": {"budget": [0.1, 1], "pdl_fraction": [0, 0.5]},
        "training": {"initial_learning_rate": [0.01, 0.02]},
    }
    assert len(Pareto(space_from({**SPACE, **others}), lambda _: curriculum_of(whole)).points) == 4


def test_published_schemes_come_first_at_the_smallest_budget(tmp_path: Path) -> None:
    space = space_from(SPACE)
    sampler = sampler_of(space, ledger_of(space, tmp_path / "study"))
    first = [proposal.point for proposal in islice(iter(sampler.propose, None), 3)]
    assert [list(point.values()) for point in first] == [[1.0, 0.0, 0.1], [0.0, 0.0, 0.1], [0.0, "stepwise", 0.1]]
    schemes = space_from({**SPACE, "curriculum": {"scheme": ["cps", "rpss", "performance"], "budget": [0.25, 1]}})
    assert [point["curriculum.scheme"] for point in published(schemes)] == ["cps", "rpss", "performance"]
    assert [point[STAGES] for point in published(space_of(searcher="pareto"))] == [9, 9, 9]


def test_then_cheap_points_until_enough_have_finished_and_dear_ones_only_for_what_they_promise() -> None:
    space = space_from(SPACE)
    strategy, most = Pareto(space, curriculum_of), max(curriculum_of(point).voxels for point in grid())
    begun: list[Point] = []
    for number in range(30):
        point = next(each for each in strategy.candidates(number) if each not in begun)
        if number < LEAST_KNOWN:
            assert curriculum_of(point).voxels < most / 3
        begun.append(point)
        strategy.begin(number, point)
        dice = 0.7 + 0.1 * curriculum_of(point).voxels / most
        strategy.tell(number, Outcome(state=FINISHED, values={"dice": dice, "runtime_seconds": cost_of(point)}))
    assert max(map(cost_of, begun)) > 0.9 * cost_of({"curriculum.min_patch": 1.0})


def cost_of(point: Point) -> float:
    return 1e-6 * curriculum_of(point).voxels


@pytest.mark.parametrize(
    "objectives", [["dice"], ["runtime_seconds", "co2_kg"], ["dice", "voxel_share", "co2_kg", "energy_kwh"]]
)
def test_objectives_are_dice_and_one_or_two_known_costs(objectives: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="legal is dice and one or two of runtime_seconds, "):
        space_from({**SPACE, "objectives": objectives})


def test_no_point_is_proposed_twice_and_folds_are_one_point(tmp_path: Path) -> None:
    space = space_from({**OPTUNA_SPACE, "searcher": "pareto", "trials": 14})
    sampler = sampler_of(space, ledger_of(space, tmp_path / "study"))
    assert isinstance(sampler, AdaptiveSampler) and isinstance(sampler.strategy, Pareto)
    proposals = list(iter(sampler.propose, None))
    assert len({proposal.trial_ids for proposal in proposals}) == len(proposals) == 14


@pytest.mark.parametrize(("begun", "written", "kept"), [("optuna", "pareto", "optuna"), ("pareto", "optuna", "pareto")])
def test_a_study_keeps_the_searcher_that_it_was_begun_with(begun: str, written: str, kept: str, tmp_path: Path) -> None:
    space = space_from({name: value for name, value in SPACE.items() if name != "datasets"} | {"searcher": written})
    found = resolved_space(space, data_paths(tmp_path), {"space": {"searcher": begun}})
    assert found == replace(space, searcher=kept)
    assert resolved_space(space, data_paths(tmp_path), {}) == space


@pytest.mark.cluster
def test_it_needs_less_than_a_random_search_on_known_truths() -> None:
    spent = {
        (each.searcher, each.goal): each
        for each in measure(surfaces=3, searchers=("pareto", "random"), jobs=1).spendings
    }
    assert spent["pareto", 0.95].worst < spent["random", 0.95].worst
    assert spent["pareto", 0.95].median < 0.5 * spent["random", 0.95].median

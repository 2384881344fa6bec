"""What the searchers propose, given what a made-up ledger knows: nothing twice, the unfinished first, and told once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from examples import BRAIN, HEADER, METER, RESULT, make_interval

from study.cluster.searchers import known_points, listed, optuna_search, unfinished_points
from study.cluster.work import outcome
from study.errors import InvalidInputError, TrialFailedError
from study.ledger import Ledger, TrialFolder
from study.plan import NetworkPlan
from study.records import Phase, TrialSpec
from study.spaces import Point, SearchSpace, space_from, specs

MIN_PATCH, STAGES, GROWTH = "curriculum.min_patch", "curriculum.stages", "curriculum.batch_growth"
RATE = "training.initial_learning_rate"
OPTUNA_SPACE: dict[str, Any] = {
    "name": "search",
    "searcher": "optuna",
    "trials": 5,
    "datasets": [1],
    "folds": [0, 1],
    "objectives": ["dice", "runtime_seconds", "co2_kg"],
    "curriculum": {
        "min_patch": {"uniform": [0, 1]},
        "stages": {"integer": [1, 9]},
        "batch_growth": [0, 0.5, "stepwise"],
    },
    "training": {"epochs": 10, "initial_learning_rate": {"log_uniform": [1e-4, 1e-1]}},
}
GRID_SPACE: dict[str, Any] = {
    "name": "grid",
    "searcher": "grid",
    "datasets": [1],
    "curriculum": {"scheme": "cps", "stages": [1, 2], "budget": [0.5, 1.0]},
    "training": {"epochs": 10},
}
POINTS: list[Point] = [
    {MIN_PATCH: 0.25, STAGES: 3, GROWTH: "stepwise", RATE: 0.01},
    {MIN_PATCH: 0.0, STAGES: 9, GROWTH: 0, RATE: 0.001},
    {MIN_PATCH: 0.75, STAGES: 2, GROWTH: 0.5, RATE: 0.05},
    {MIN_PATCH: 0.5, STAGES: 4, GROWTH: "stepwise", RATE: 0.02},
]


def lookup(dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
    """The brain network's plan, whatever the dataset."""
    plan = NetworkPlan(
        dataset="Dataset001_Brain",
        plans=plans or "nnUNetPlans",
        configuration=configuration,
        geometry=BRAIN,
        data_identifier="x",
        previous_stage=None,
        sha256="p" * 64,
    )
    return plan, f"split-{fold}"


def space_of(**changes: Any) -> SearchSpace:
    return space_from({**OPTUNA_SPACE, **changes})


def propose(ledger: Ledger, point: Point, space: SearchSpace | None = None) -> list[TrialFolder]:
    """What a run does with a point before it trains it."""
    folders = [ledger.add(spec) for spec in specs(space or space_of(), point, lookup)]
    ledger.add_point(point, [folder.trial_id for folder in folders])
    return folders


def finish(folder: TrialFolder, *, dice: float, seconds: float, measured: bool = True) -> None:
    """One attempt with half of the node; 0.7 kWh of the node per second if it is measured."""
    spec: TrialSpec = folder.spec()
    folder.begin_attempt(replace(HEADER, cpus=8.0, cpus_of_node=16, gpus=0.5, meter=METER))
    energy = {} if measured else dict.fromkeys(("cpu_kwh", "gpu_kwh", "ram_kwh"))
    trained = make_interval(0, round(seconds), **energy)
    folder.append_cost(trained)
    folder.append_cost(replace(trained, phase=Phase.FINAL_VALIDATION, seconds=1000.0))
    folder.finish(replace(RESULT, dice=dice, voxel_share=spec.curriculum.voxel_share), attempt=0)


def study_of(algorithm: Any) -> optuna.Study:
    study: optuna.Study = algorithm._ot_study
    return study


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "study", space=space_of().identity())


def test_a_list_is_gone_through_once() -> None:
    assert listed(3).parameters == {"index": {"grid_search": [0, 1, 2]}}
    assert (listed(3).samples, listed(0).samples) == (1, 0)


def test_the_outcome_of_a_point_is_the_mean_over_its_trials(ledger: Ledger) -> None:
    folders = propose(ledger, POINTS[0])
    finish(folders[0], dice=0.7, seconds=10)
    with pytest.raises(TrialFailedError, match=f"trial {folders[1].trial_id} has no result"):
        outcome(folders)
    finish(folders[1], dice=0.8, seconds=30)
    # Twenty seconds of half of 0.7 kWh, at 0.05 kg per kWh and a PUE of 1.2.
    assert outcome(folders) == pytest.approx(
        {
            "dice": 0.75,
            "runtime_seconds": 20,
            "energy_kwh": 7.0,
            "co2_kg": 0.42,
            "voxel_share": folders[0].spec().curriculum.voxel_share,
        }
    )


def test_an_unmeasured_cost_is_left_out_of_the_outcome(ledger: Ledger) -> None:
    folders = propose(ledger, POINTS[0])
    finish(folders[0], dice=0.7, seconds=10)
    finish(folders[1], dice=0.8, seconds=30, measured=False)
    assert set(outcome(folders)) == {"dice", "runtime_seconds", "voxel_share"}


def test_finished_and_unfinished_points_are_told_apart_in_order(ledger: Ledger) -> None:
    trials = [propose(ledger, point) for point in POINTS]
    for index in (2, 0):
        for folder in trials[index]:
            finish(folder, dice=0.5 + index / 10, seconds=10)
    finish(trials[1][0], dice=0.9, seconds=10)
    finished, unfinished = known_points(ledger)
    assert [(point, round(reached["dice"], 6)) for point, reached in finished] == [(POINTS[0], 0.5), (POINTS[2], 0.7)]
    assert unfinished == [POINTS[1], POINTS[3]]


def test_finished_points_are_told_to_optuna_once_in_order(ledger: Ledger) -> None:
    for index, point in enumerate(POINTS[:3]):
        for folder in propose(ledger, point):
            finish(folder, dice=0.5 + index / 10, seconds=10 * (index + 1))
    search = optuna_search(space_of(), ledger)
    study = study_of(search.algorithm)
    maximise, minimise = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    assert study.directions == [maximise, minimise, minimise]
    assert [trial.params for trial in study.trials] == POINTS[:3]
    assert all(trial.state is optuna.trial.TrialState.COMPLETE for trial in study.trials)
    assert [trial.values for trial in study.trials] == [
        pytest.approx([0.5 + index / 10, 10 * (index + 1), 0.21 * (index + 1)]) for index in range(3)
    ]
    assert search.samples == 5 - 3


def test_words_and_numbers_of_a_choice_stay_what_they_are(ledger: Ledger) -> None:
    for point in POINTS:
        for folder in propose(ledger, point):
            finish(folder, dice=0.5, seconds=10)
    told = [trial.params[GROWTH] for trial in study_of(optuna_search(space_of(), ledger).algorithm).trials]
    assert told == ["stepwise", 0, 0.5, "stepwise"]
    assert [type(value) for value in told] == [str, int, float, str]


def test_unfinished_points_come_first_and_new_ones_are_legal(ledger: Ledger) -> None:
    trials = [propose(ledger, point) for point in POINTS[:3]]
    for folder in trials[1]:
        finish(folder, dice=0.6, seconds=10)
    finish(trials[2][0], dice=0.6, seconds=10)
    space = space_of()
    search = optuna_search(space, ledger)
    assert search.samples == 4
    proposed = [search.algorithm.suggest(f"tune-{index}") for index in range(search.samples)]
    assert proposed[:2] == [POINTS[0], POINTS[2]]
    for point in proposed[2:]:
        assert point not in POINTS
        assert specs(space, point, lookup)


def test_a_point_with_an_unmeasured_objective_counts_but_is_not_told(ledger: Ledger) -> None:
    for measured, point in ((True, POINTS[0]), (False, POINTS[1])):
        for folder in propose(ledger, point):
            finish(folder, dice=0.6, seconds=10, measured=measured)
    search = optuna_search(space_of(), ledger)
    assert [trial.params for trial in study_of(search.algorithm).trials] == POINTS[:1]
    assert search.samples == 3
    without_co2 = optuna_search(space_of(objectives=["dice", "runtime_seconds"]), ledger)
    assert [trial.params for trial in study_of(without_co2.algorithm).trials] == POINTS[:2]


@pytest.mark.parametrize("told", ["all finished", "none finished", "one finished"])
def test_a_resumed_search_does_not_repeat_its_start(ledger: Ledger, told: str) -> None:
    first = optuna_search(space_of(), ledger).algorithm
    start: list[Any] = [first.suggest(f"first-{index}") for index in range(3)]
    assert start == [optuna_search(space_of(), ledger).algorithm.suggest("again"), *start[1:]]
    for index, point in enumerate(start):
        for folder in propose(ledger, point):
            if told == "all finished" or (told == "one finished" and index == 1):
                finish(folder, dice=0.6, seconds=10)
    resumed = optuna_search(space_of(trials=9), ledger)
    proposed = [resumed.algorithm.suggest(f"resumed-{index}") for index in range(resumed.samples)]
    expected = {"all finished": [], "none finished": start, "one finished": [start[0], start[2]]}[told]
    assert proposed[: len(expected)] == expected
    fresh = proposed[len(expected) :]
    assert len(fresh) == 6
    assert not [point for point in fresh if point in start]


def test_fewer_trials_than_have_finished_are_refused(ledger: Ledger) -> None:
    for point in POINTS[:3]:
        for folder in propose(ledger, point):
            finish(folder, dice=0.6, seconds=10)
    assert optuna_search(space_of(trials=3), ledger).samples == 0
    with pytest.raises(InvalidInputError, match="trials: received 2, legal is at least 3, which have finished"):
        optuna_search(space_of(trials=2), ledger)


def test_a_grid_trains_each_trial_once_and_none_again(tmp_path: Path) -> None:
    space = space_from(GRID_SPACE)
    ledger = Ledger.create(tmp_path / "grid", space=space.identity())
    # Constant patch size has one stage however many are asked for: two points for each trial.
    half, whole, half_again, whole_again = space.points()
    assert unfinished_points(space, ledger, lookup) == [half, whole]
    assert [record["point"] for record in ledger.points()] == [half_again, whole_again]
    [trial] = propose(ledger, half, space)
    assert ledger.points()[0]["trial_ids"] == [trial.trial_id]
    assert unfinished_points(space, ledger, lookup) == [half, whole]
    finish(trial, dice=0.6, seconds=10)
    assert unfinished_points(space, ledger, lookup) == [whole]
    assert sorted(str(record["point"]) for record in ledger.points()) == sorted(
        map(str, (half, half_again, whole_again))
    )


def test_a_point_is_unfinished_until_all_its_folds_are(tmp_path: Path) -> None:
    space = space_from({**GRID_SPACE, "folds": [0, 1]})
    ledger = Ledger.create(tmp_path / "grid", space=space.identity())
    half, whole, *_ = space.points()
    folds = propose(ledger, half, space)
    finish(folds[0], dice=0.6, seconds=10)
    assert unfinished_points(space, ledger, lookup) == [half, whole]
    finish(folds[1], dice=0.6, seconds=10)
    assert unfinished_points(space, ledger, lookup) == [whole]

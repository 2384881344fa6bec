"""The probability of being on the front: certain, impossible and even cases, by hand, and what is drawn together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledgers import finish_trial, make_points, make_spec, make_study, sample_of

from analysis.fronts.front import nondominated, pareto_front
from analysis.fronts.resampling import CaseDraws, _nondominated_in_each, drawn_changes, probability_on_front, replicated
from analysis.statistics.intervals import estimate
from analysis.statistics.study_results import StudyResults, gather
from analysis.tables.columns import OBJECTIVES
from analysis.tables.frame import Tables
from study.store.ledger import Ledger

RUNTIME = (OBJECTIVES["dice"], OBJECTIVES["runtime_seconds"])


def probabilities(results: StudyResults, *objectives: str, by: str | None = None) -> pd.Series:
    front = pareto_front(results.points, objectives or ("dice", "runtime_seconds"), by=by)
    shares = probability_on_front(front, CaseDraws(results.tables))
    return shares.rename(index=front.points["method"].to_dict())


def changes(dice: np.ndarray, replicates: int) -> np.ndarray:
    """Replicates × points of Dice, for points × cases."""
    matrix = sample_of(dice, folds=[0] * len(dice), points=[f"p{n}" for n in range(len(dice))])
    return (drawn_changes(matrix, list(matrix.point_ids), replicates=replicates) + np.nanmean(dice, axis=1)[:, None]).T


def test_two_objectives_of_all_replicates_are_judged_as_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.integers(0, rng.integers(2, 9), size=(5, rng.integers(1, 12), 2)).astype(float)
        for maximise in ([True, False], [True, True], [False, False]):
            each = np.stack([nondominated(one, maximise=maximise) for one in values])
            assert (_nondominated_in_each(values, maximise) == each).all()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_replicates_scatter_as_trainings_and_cases_do(seeds: int) -> None:
    """On average over samples: their variance is the unbiased one of trainings / seeds, plus that over cases."""
    rng, ratios = np.random.default_rng(2), []
    for _ in range(40):
        matrix = sample_of(rng.normal(0, 0.03, 60) + rng.normal(0, 0.01, (seeds, 1)))
        found = estimate(matrix, matrix.averages(["p"]))
        ratios.append(drawn_changes(matrix, ["p"], replicates=400)[0].var() / found.error[0] ** 2)
    assert np.mean(ratios) == pytest.approx(1, abs=0.06)


def test_one_seed_more_makes_a_front_less_sure(tmp_path: Path) -> None:
    """Two schemes whose Dice scatters between seeds more than they differ: with one seed, cases alone seem certain."""
    study = Ledger.create(tmp_path / "study")
    for scheme, seeds in (("cps", (0.801, 0.790)), ("pgps", (0.800, 0.788))):
        finish_trial(study, make_spec(scheme), dice=seeds[0], seconds=30 + len(scheme), n_cases=30)
    single = probabilities(gather([study.root]))
    for scheme, seeds in (("cps", (0.801, 0.790)), ("pgps", (0.800, 0.788))):
        finish_trial(study, make_spec(scheme, seed=1), dice=seeds[1], seconds=30 + len(scheme), n_cases=30)
    several = probabilities(gather([study.root]))
    assert single["pgps"] < several["pgps"] < 1


def test_points_share_their_draws_so_a_constant_advantage_is_certain() -> None:
    worse = np.random.default_rng(0).random(30)
    dice = np.stack([worse, worse + 0.001])
    values = changes(dice, 500)
    assert (values[:, 1] > values[:, 0]).all()


def test_two_cases_that_disagree_give_the_probabilities_of_the_binomial() -> None:
    # The first point wins if case 0 is drawn twice (1/4), ties if each is drawn once (1/2).
    dice = np.array([[0.9, 0.1], [0.1, 0.9]])
    values = changes(dice, 8000)
    assert (values[:, 0] > values[:, 1] + 1e-9).mean() == pytest.approx(0.25, abs=0.02)
    assert (np.abs(values[:, 0] - values[:, 1]) < 1e-9).mean() == pytest.approx(0.5, abs=0.02)


def test_replicates_scatter_around_the_dice_as_its_standard_error() -> None:
    dice = np.random.default_rng(1).random((1, 80))
    values = changes(dice, 4000)[:, 0]
    assert values.mean() == pytest.approx(dice.mean(), abs=0.003)
    assert values.std() == pytest.approx(dice.std() / np.sqrt(80), rel=0.05)


def test_no_point_is_ever_left_without_cases() -> None:
    dice = np.full((2, 4), np.nan)
    dice[0, :2], dice[1, 2:] = (0.2, 0.4), (0.6, 0.8)
    values = changes(dice, 500)
    assert np.isfinite(values).all()
    assert set(np.round(values[:, 0], 9)) == {0.2, 0.3, 0.4}


def test_costs_of_several_trials_are_drawn_and_that_of_one_is_exact() -> None:
    trials = pd.DataFrame(
        {
            "study": "x",
            "trial_id": ["a", "b", "c"],
            "state": "finished",
            "dataset": "x",
            "point_id": ["p0", "p0", "p1"],
            "fold": [0, 1, 0],
            "seed": 0,
            "runtime_seconds": [10.0, 20.0, 5.0],
            "co2_kg": [1.0, 2.0, 0.5],
        }
    )
    points = make_points(dice=[0.8, 0.7], runtime_seconds=[15.0, 5.0], co2_kg=[1.5, 0.5], n_trials=[2, 1])
    nothing = pd.DataFrame({name: [] for name in ("study", "trial_id", "case", "label", "dice")})
    tables = Tables(trials=trials, cases=nothing, epochs=nothing, costs=nothing)
    values = replicated(points, (*RUNTIME, OBJECTIVES["co2_kg"]), CaseDraws(tables, replicates=2000))
    assert set(values[:, 0, 1]) == {10.0, 15.0, 20.0}
    assert (values[:, 0, 1] == 15.0).mean() == pytest.approx(0.5, abs=0.04)
    assert (values[:, 0, 2] * 10 == values[:, 0, 1]).all()
    assert set(values[:, 1, 1]) == {5.0}
    assert set(values[:, 0, 0]) == {0.8}


def test_clear_and_unclear_points_of_a_study(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme, dice, seconds in (("cps", 0.60, 90), ("pgps", 0.80, 30), ("pgps+", 0.801, 40), ("rpss", 0.799, 35)):
        finish_trial(study, make_spec(scheme), dice=dice, seconds=seconds, n_cases=30)
    shares = probabilities(gather([study.root]))
    assert shares["pgps"] == 1.0
    assert shares["cps"] == 0.0
    assert 0.5 < shares["pgps+"] < 1.0
    assert 0.0 < shares["rpss"] < 0.5


def test_groups_have_fronts_of_their_own(tmp_path: Path) -> None:
    results = gather([make_study(tmp_path / "study", budgets=(1.0, 0.5), n_cases=10).root])
    pooled, grouped = probabilities(results), probabilities(results, "dice", "runtime_seconds", by="budget")
    assert (grouped.to_numpy() >= pooled.to_numpy()).all()
    assert (grouped.to_numpy() > pooled.to_numpy()).any()
    alone = probabilities(results, "dice", "runtime_seconds", by="n_folds")
    assert alone.to_numpy().tolist() == pooled.to_numpy().tolist()


def test_the_same_evidence_gives_the_same_probabilities(tmp_path: Path) -> None:
    results = gather([make_study(tmp_path / "study", folds=(0, 1), n_cases=10).root])
    assert probabilities(results).tolist() == probabilities(results).tolist()


def test_without_cases_a_front_is_what_it_is(tmp_path: Path) -> None:
    results = gather([make_study(tmp_path / "study").root])
    front = pareto_front(results.points, ("dice", "voxels"))
    assert (
        probability_on_front(front, CaseDraws(results.tables)).tolist()
        == front.points["non_dominated"].astype(float).tolist()
    )


def test_an_empty_front_has_no_probabilities(tmp_path: Path) -> None:
    results = gather([Ledger.create(tmp_path / "study").root])
    front = pareto_front(results.points, ("dice", "runtime_seconds"))
    assert probability_on_front(front, CaseDraws(results.tables)).empty

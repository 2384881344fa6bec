"""The probability of being on the front: certain, impossible and even cases, by hand, and what is drawn together."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledgers import finish_trial, make_points, make_spec, make_study

from analysis.case_dice import CaseDice
from analysis.evidence import Evidence, gather
from analysis.frame import Tables
from analysis.front import pareto_front
from analysis.objectives import OBJECTIVES
from analysis.resampling import CaseDraws, case_changes, probability_on_front, replicated
from study.ledger import Ledger

RUNTIME = (OBJECTIVES["dice"], OBJECTIVES["runtime_seconds"])


def probabilities(evidence: Evidence, *objectives: str, by: str | None = None) -> pd.Series:
    front = pareto_front(evidence.points, objectives or ("dice", "runtime_seconds"), by=by)
    shares = probability_on_front(front, CaseDraws(evidence.tables))
    return shares.rename(index=front.points["method"].to_dict())


def matrix_of(dice: np.ndarray) -> CaseDice:
    """Points p0, p1, … on the same cases with one class."""
    return CaseDice(
        point_ids=tuple(f"p{n}" for n in range(len(dice))),
        cases=tuple(f"c{n}" for n in range(dice.shape[1])),
        labels=("1",),
        dice=dice[:, :, None],
        seen=np.isfinite(dice),
    )


def changes(dice: np.ndarray, replicates: int) -> np.ndarray:
    """Replicates × points of Dice, for points × cases."""
    mean = np.nanmean(dice, axis=1)
    return (case_changes(matrix_of(dice), replicates=replicates) + mean[:, None]).T


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
    evidence = gather([make_study(tmp_path / "study", budgets=(1.0, 0.5), n_cases=10).root])
    pooled, grouped = probabilities(evidence), probabilities(evidence, "dice", "runtime_seconds", by="budget")
    assert (grouped.to_numpy() >= pooled.to_numpy()).all()
    assert (grouped.to_numpy() > pooled.to_numpy()).any()
    alone = probabilities(evidence, "dice", "runtime_seconds", by="n_folds")
    assert alone.to_numpy().tolist() == pooled.to_numpy().tolist()


def test_the_same_evidence_gives_the_same_probabilities(tmp_path: Path) -> None:
    evidence = gather([make_study(tmp_path / "study", folds=(0, 1), n_cases=10).root])
    assert probabilities(evidence).tolist() == probabilities(evidence).tolist()


def test_without_cases_a_front_is_what_it_is(tmp_path: Path) -> None:
    evidence = gather([make_study(tmp_path / "study").root])
    front = pareto_front(evidence.points, ("dice", "voxels"))
    assert (
        probability_on_front(front, CaseDraws(evidence.tables)).tolist()
        == front.points["non_dominated"].astype(float).tolist()
    )


def test_an_empty_front_has_no_probabilities(tmp_path: Path) -> None:
    evidence = gather([Ledger.create(tmp_path / "study").root])
    front = pareto_front(evidence.points, ("dice", "runtime_seconds"))
    assert probability_on_front(front, CaseDraws(evidence.tables)).empty


def test_a_thousand_points_take_seconds() -> None:
    begun = time.monotonic()
    assert changes(np.random.default_rng(0).random((1000, 260)), 1000).shape == (1000, 1000)
    assert time.monotonic() - begun < 10

"""What a searcher is told of a ledger, and how Ray Tune sees a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState as OptunaState
from ray import cloudpickle
from ray.tune.search import Searcher
from searching import (
    FAILED,
    FINISHED,
    GROWTH,
    INFEASIBLE,
    OBJECTIVES,
    POINTS,
    begun,
    finish,
    ledger_of,
    proposer_of,
    record,
    refusing,
    space_of,
)

from study.cluster.tuning import LOST_WITH_WORKER, PointSearcher, reported
from study.common.errors import StudyError
from study.search import proposers
from study.search.optuna_study import ending_of
from study.store.ledger import Ledger
from study.store.outcomes import Outcome
from study.store.trial_folder import TrialState


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return ledger_of(space_of(), tmp_path / "study")


# ------------------------------------------------------------------------------------------------------------ outcomes

MEASURED = {"dice": 0.8, "runtime_seconds": 20.0, "co2_kg": 0.4, "voxel_share": 0.3}


@pytest.mark.parametrize(
    ("told", "state", "values", "reason"),
    [
        (Outcome(state=FINISHED, values=MEASURED), OptunaState.COMPLETE, [0.8, 20.0, 0.4], None),
        (Outcome(state=FINISHED, values={"dice": 0.8}), OptunaState.FAIL, None, "runtime_seconds, co2_kg not measured"),
        (
            Outcome(state=FINISHED, values={**MEASURED, "dice": float("nan")}),
            OptunaState.FAIL,
            None,
            "dice not measured",
        ),
        (Outcome(state=INFEASIBLE, reason="trial x: CUDA"), OptunaState.PRUNED, None, "trial x: CUDA"),
        (Outcome(state=FAILED, reason="trial x: bug"), OptunaState.FAIL, None, "trial x: bug"),
        (Outcome(state=FAILED, reason=LOST_WITH_WORKER), OptunaState.FAIL, None, LOST_WITH_WORKER),
        (Outcome(state=TrialState.INTERRUPTED), OptunaState.FAIL, None, "interrupted"),
    ],
)
def test_what_optuna_is_told_of_an_outcome(
    told: Outcome, state: OptunaState, values: list[float] | None, reason: str | None
) -> None:
    given_verdict = ending_of(told, OBJECTIVES)
    assert (given_verdict.state, given_verdict.values, given_verdict.reason) == (state, values, reason)


def test_known_points_are_told_to_optuna_once_in_order(ledger: Ledger) -> None:
    space = space_of(trials=4)
    folders = record(ledger, space, POINTS)
    for folder in folders[0]:
        finish(folder, dice=0.5, seconds=10)
    for folder in folders[1]:
        finish(folder, dice=0.6, measured=False)
    folders[2][0].fail(attempt=0, reason="out of memory", state=INFEASIBLE)
    finish(folders[3][0], dice=0.9)
    trials = begun(proposer_of(space, ledger))
    assert [trial.params for trial in trials] == POINTS
    # Words and numbers of a choice stay what they are.
    assert [type(trial.params[GROWTH]) for trial in trials] == [str, int, float, str]
    states = [OptunaState.COMPLETE, OptunaState.FAIL, OptunaState.PRUNED, OptunaState.RUNNING]
    assert [trial.state for trial in trials] == states
    # Ten seconds of half of 0.7 kWh, at 0.05 kg per kWh and a PUE of 1.2.
    assert trials[0].values == pytest.approx([0.5, 10, 0.21])


# ------------------------------------------------------------------------------------------------------- Tune's view


def reached_by(number: int) -> dict[str, Any]:
    return {"outcome": "finished", "dice": 0.5 + number / 100, "runtime_seconds": 10, "co2_kg": 0.1, "pid": 1}


def test_tune_is_given_points_until_there_are_none(ledger: Ledger) -> None:
    proposer = proposer_of(space_of(trials=3), ledger)
    searcher = PointSearcher(proposer)
    for number in range(3):
        given_point = searcher.suggest(f"tune-{number}")
        assert given_point == {"number": number, "point": ledger.points()[number]["point"]}
    assert searcher.suggest("tune-3") == Searcher.FINISHED
    searcher.on_trial_complete("tune-1", reached_by(1))
    searcher.on_trial_complete("tune-0", None, error=True)
    searcher.on_trial_complete("tune-2", {"outcome": "infeasible", "reason": "out of memory"})
    # Tune may say it again, or of a trial that it never got.
    searcher.on_trial_complete("tune-2", None, error=True)
    searcher.on_trial_complete("tune-9", reached_by(9))
    trials = begun(proposer)
    assert [trial.state for trial in trials] == [OptunaState.FAIL, OptunaState.COMPLETE, OptunaState.PRUNED]
    assert trials[1].values == [0.51, 10, 0.1]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, Outcome(state=FAILED, reason=LOST_WITH_WORKER)),
        ({"pid": 3}, Outcome(state=FAILED, reason=LOST_WITH_WORKER)),
        ({"outcome": "failed", "reason": "a bug"}, Outcome(state=FAILED, reason="a bug")),
        ({"outcome": "interrupted"}, Outcome(state=TrialState.INTERRUPTED)),
        ({"outcome": "disk full"}, Outcome(state=TrialState.INTERRUPTED, reason="disk full")),
        (
            {"outcome": "finished", "dice": 0.5, "co2_kg": float("nan"), "runtime_seconds": None, "pid": 3},
            Outcome(state=FINISHED, values={"dice": 0.5}),
        ),
    ],
)
def test_a_report_is_read_as_an_outcome(result: dict[str, Any] | None, expected: Outcome) -> None:
    assert reported(result) == expected


def test_nothing_of_a_searcher_is_kept_by_tune(ledger: Ledger, tmp_path: Path) -> None:
    searcher = PointSearcher(proposer_of(space_of(), ledger))
    searcher.save_to_dir(str(tmp_path), "session")
    assert not list(tmp_path.glob("*searcher*"))
    searcher.restore(str(tmp_path / "anything"))
    assert len(cloudpickle.dumps(searcher)) < 1000


def test_a_search_that_breaks_lets_its_trials_end_first(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = PointSearcher(proposer_of(space_of(), ledger))
    assert searcher.suggest("tune-0") is not None
    monkeypatch.setattr(proposers, "specs", refusing(lambda point: True))
    assert searcher.suggest("tune-1") is None
    assert searcher.suggest("tune-1") is None
    searcher.on_trial_complete("tune-0", reached_by(0))
    with pytest.raises(StudyError, match="point: received"):
        searcher.suggest("tune-1")

"""What a searcher is told of a ledger, how Ray Tune sees a search, and that an interrupted one proposes what an
undisturbed one would have.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState as OptunaState
from ray import cloudpickle
from ray.tune.search import Searcher
from searching import (
    FAILED,
    FINISHED,
    GRID_SPACE,
    GROWTH,
    INFEASIBLE,
    MIN_PATCH,
    OBJECTIVES,
    OPTUNA_SPACE,
    POINTS,
    RANDOM_SPACE,
    RATE,
    UNMEASURED,
    all_of,
    begun,
    end,
    finish,
    ledger_of,
    numbers,
    record,
    refusing,
    sampler_of,
    space_of,
)

from study.cluster.tuning import LOST_WITH_WORKER, PointSearcher, reported
from study.common.errors import StudyError
from study.search import samplers
from study.search.document import space_from
from study.search.optuna_study import ending_of
from study.search.samplers import Proposal
from study.search.space import Point, SearchSpace
from study.store.ledger import Ledger
from study.store.outcomes import Outcome
from study.store.trial_folder import TrialState

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
    trials = begun(sampler_of(space, ledger))
    assert [trial.params for trial in trials] == POINTS
    # Words and numbers of a choice stay what they are.
    assert [type(trial.params[GROWTH]) for trial in trials] == [str, int, float, str]
    states = [OptunaState.COMPLETE, OptunaState.FAIL, OptunaState.PRUNED, OptunaState.RUNNING]
    assert [trial.state for trial in trials] == states
    # Ten seconds of half of 0.7 kWh, at 0.05 kg per kWh and a PUE of 1.2.
    assert trials[0].values == pytest.approx([0.5, 10, 0.21])


def reached_by(number: int) -> dict[str, Any]:
    return {"outcome": "finished", "dice": 0.5 + number / 100, "runtime_seconds": 10, "co2_kg": 0.1, "pid": 1}


def test_tune_is_given_points_until_there_are_none(ledger: Ledger) -> None:
    sampler = sampler_of(space_of(trials=3), ledger)
    searcher = PointSearcher(sampler)
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
    trials = begun(sampler)
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
    searcher = PointSearcher(sampler_of(space_of(), ledger))
    searcher.save_to_dir(str(tmp_path), "session")
    assert not list(tmp_path.glob("*searcher*"))
    searcher.restore(str(tmp_path / "anything"))
    assert len(cloudpickle.dumps(searcher)) < 1000


def test_a_search_that_breaks_lets_its_trials_end_first(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = PointSearcher(sampler_of(space_of(), ledger))
    assert searcher.suggest("tune-0") is not None
    monkeypatch.setattr(samplers, "specs", refusing(lambda point: True))
    assert searcher.suggest("tune-1") is None
    assert searcher.suggest("tune-1") is None
    searcher.on_trial_complete("tune-0", reached_by(0))
    with pytest.raises(StudyError, match="point: received"):
        searcher.suggest("tune-1")


HYPOTHESIS = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DOCUMENTS = {
    # More than ten told, so that TPE has begun to model them.
    "optuna": {**OPTUNA_SPACE, "folds": [0], "trials": 20},
    # More than eight finished, so that its model has begun to decide.
    "pareto": {**OPTUNA_SPACE, "searcher": "pareto", "folds": [0], "trials": 14},
    "random": {**RANDOM_SPACE, "folds": [0], "trials": 8},
    "grid": {**GRID_SPACE, "curriculum": {"scheme": "cps", "stages": [1, 2], "budget": [0.25, 0.5, 0.75, 1.0]}},
}


@dataclass(kw_only=True)
class Simulation:
    """A study without trainings, a few trials at a time, which end in an order and in ways that the numbers decide.

    Attributes:
        space, ledger: of the study.
        interruptions: steps after which the driver is killed and another one started.
        ways: of ending, by number of the proposal, over and over.
        live: what is being trained.
    """

    space: SearchSpace
    ledger: Ledger
    interruptions: frozenset[int] = frozenset()
    ways: Sequence[TrialState | str] = (FINISHED,)
    live: list[Proposal] = field(default_factory=list)

    def run(self, *, at_a_time: int = 3) -> list[dict[str, Any]]:
        """What is in the ledger once there is nothing left to do."""
        sampler, exhausted, step = sampler_of(self.space, self.ledger), False, 0
        while self.live or not exhausted:
            step += 1
            killed = step in self.interruptions
            if not exhausted and len(self.live) < at_a_time:
                proposal = sampler.propose()
                exhausted = proposal is None
                self.live += [proposal] if proposal else []
            else:
                proposal, reached = self._end_one()
                if not killed:  # else the driver is gone before it hears of it
                    sampler.tell(proposal.number, reached)
            if killed:
                sampler, self.live, exhausted = sampler_of(self.space, self.ledger), [], False
        return self.ledger.points()

    def _end_one(self) -> tuple[Proposal, Outcome]:
        self.live.sort(key=lambda proposal: proposal.number)
        ended = [folder for folder in self.ledger.trials() if folder.state() in (FINISHED, INFEASIBLE)]
        proposal = self.live.pop(random.Random(len(ended)).randrange(len(self.live)))
        return proposal, end(self.ledger, self.space, proposal, self.ways[proposal.number % len(self.ways)])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, Any]]]:
    """The points of studies that nothing disturbed, each run once."""
    known: dict[str, list[dict[str, Any]]] = {}

    def run(document: Mapping[str, Any], ways: Sequence[TrialState | str]) -> list[dict[str, Any]]:
        key = f"{document['searcher']} {document.get('trials')} {[str(way) for way in ways]}"
        if key not in known:
            space = space_from(document)
            root = tmp_path_factory.mktemp("undisturbed") / "study"
            known[key] = Simulation(space=space, ledger=ledger_of(space, root), ways=ways).run()
        return known[key]

    return run


# Each of its proposals fits a model.
NAMES = [pytest.param(name, marks=pytest.mark.cluster) if name == "pareto" else name for name in DOCUMENTS]


@pytest.mark.parametrize("name", NAMES)
@HYPOTHESIS
@given(
    interruptions=st.frozensets(st.integers(1, 60), max_size=6),
    ways=st.sampled_from([(FINISHED,), (FINISHED, INFEASIBLE, UNMEASURED)]),
)
def test_an_interrupted_study_proposes_what_an_undisturbed_one_would_have(
    undisturbed: Callable[..., list[dict[str, Any]]],
    name: str,
    interruptions: frozenset[int],
    ways: Sequence[TrialState | str],
) -> None:
    space = space_from(DOCUMENTS[name])
    expected = undisturbed(DOCUMENTS[name], ways)
    with TemporaryDirectory() as folder:
        ledger = ledger_of(space, Path(folder) / "study")
        simulation = Simulation(space=space, ledger=ledger, interruptions=interruptions, ways=ways)
        assert simulation.run() == expected
        assert all(len(trial.attempts()) == 1 for trial in ledger.trials() if trial.state() is FINISHED)


@pytest.mark.parametrize("name", NAMES)
def test_more_trials_continue_a_study_as_if_they_had_been_asked_for_at_once(name: str, tmp_path: Path) -> None:
    document = {**DOCUMENTS[name], "trials": 8}
    short = space_from({**document, "trials": 5})
    ledger = ledger_of(short, tmp_path / "study")
    # One at a time: side by side, the end of a study changes what is known when the next point is proposed.
    Simulation(space=short, ledger=ledger).run(at_a_time=1)
    Simulation(space=space_from(document), ledger=ledger).run(at_a_time=1)
    whole = ledger_of(space_from(document), tmp_path / "whole")
    assert ledger.points() == Simulation(space=space_from(document), ledger=whole).run(at_a_time=1)
    assert len(ledger.points()) == 8


def test_what_is_being_trained_is_not_ignored(tmp_path: Path) -> None:
    """Points proposed side by side would be alike. A point that came to nothing is ignored."""
    space = space_of(trials=26)
    ledger, other = (ledger_of(space, tmp_path / name) for name in ("study", "other"))
    told: list[Point] = [{**POINTS[0], MIN_PATCH: n / 10, RATE: 0.01 + n / 1000} for n in range(10)]
    beside_the_best: list[Point] = [{**POINTS[0], MIN_PATCH: 0.9, RATE: 0.02 + n / 1000} for n in range(8)]
    for each in (ledger, other):
        for number, folders in enumerate(record(each, space, [*told, *beside_the_best])):
            for folder in folders:
                if number < 10 or each is other:
                    finish(folder, dice=0.5 + number / 100, seconds=100 - number, measured=number < 10)
    running, ignored = (all_of(sampler_of(space, each))[-8:] for each in (ledger, other))
    assert numbers(running) == numbers(ignored) == list(range(18, 26))
    assert running != ignored

"""An interrupted search proposes what an undisturbed one would have."""

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
from searching import (
    FINISHED,
    GRID_SPACE,
    INFEASIBLE,
    MIN_PATCH,
    OPTUNA_SPACE,
    POINTS,
    RANDOM_SPACE,
    RATE,
    UNMEASURED,
    all_of,
    end,
    finish,
    ledger_of,
    numbers,
    proposer_of,
    record,
    space_of,
)

from study.search.document import space_from
from study.search.proposers import Proposal
from study.search.space import Point, SearchSpace
from study.store.ledger import Ledger
from study.store.outcomes import Outcome
from study.store.trial_folder import TrialState

# ---------------------------------------------------------------------------------------------- interrupted or not

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
        proposer, exhausted, step = proposer_of(self.space, self.ledger), False, 0
        while self.live or not exhausted:
            step += 1
            killed = step in self.interruptions
            if not exhausted and len(self.live) < at_a_time:
                proposal = proposer.propose()
                exhausted = proposal is None
                self.live += [proposal] if proposal else []
            else:
                proposal, reached = self._end_one()
                if not killed:  # else the driver is gone before it hears of it
                    proposer.tell(proposal.number, reached)
            if killed:
                proposer, self.live, exhausted = proposer_of(self.space, self.ledger), [], False
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


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(document, marks=[pytest.mark.cluster] if name == "pareto" else [], id=name)
        for name, document in DOCUMENTS.items()
    ],
)
@HYPOTHESIS
@given(
    interruptions=st.frozensets(st.integers(1, 60), max_size=6),
    ways=st.sampled_from([(FINISHED,), (FINISHED, INFEASIBLE, UNMEASURED)]),
)
def test_an_interrupted_study_proposes_what_an_undisturbed_one_would_have(
    undisturbed: Callable[..., list[dict[str, Any]]],
    document: Mapping[str, Any],
    interruptions: frozenset[int],
    ways: Sequence[TrialState | str],
) -> None:
    space = space_from(document)
    expected = undisturbed(document, ways)
    with TemporaryDirectory() as folder:
        ledger = ledger_of(space, Path(folder) / "study")
        simulation = Simulation(space=space, ledger=ledger, interruptions=interruptions, ways=ways)
        assert simulation.run() == expected
        assert all(len(trial.attempts()) == 1 for trial in ledger.trials() if trial.state() is FINISHED)


@pytest.mark.parametrize("name", DOCUMENTS)
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
    running, ignored = (all_of(proposer_of(space, each))[-8:] for each in (ledger, other))
    assert numbers(running) == numbers(ignored) == list(range(18, 26))
    assert running != ignored

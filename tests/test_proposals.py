"""What is proposed next, given what a made-up ledger knows: recorded once, nothing twice, the unfinished first, as if
undisturbed; what Optuna is told of a ledger, and how Ray Tune sees a search.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    BUDGET,
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
    STAGES,
    UNMEASURED,
    all_of,
    begun,
    end,
    finish,
    ledger_of,
    lookup,
    numbers,
    proposer_of,
    record,
    refusing,
    space_of,
)

from study.cluster.tuning import LOST_WITH_WORKER, PointSearcher, reported
from study.common import files
from study.common.errors import InvalidInputError, LedgerError, StudyError
from study.nnunet.plans import NetworkPlan
from study.search import proposers
from study.search.document import space_from
from study.search.optuna_study import ending_of
from study.search.proposers import Proposal, make_proposer
from study.search.space import Point, SearchSpace
from study.search.trials import specs
from study.store.ledger import Ledger
from study.store.outcomes import Outcome
from study.store.results import Measured
from study.store.trial_folder import TrialState


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return ledger_of(space_of(), tmp_path / "study")


# -------------------------------------------------------------------------------------------------------- what is next


@pytest.mark.parametrize("document", [OPTUNA_SPACE, RANDOM_SPACE], ids=["optuna", "random"])
def test_a_point_is_recorded_when_it_is_proposed_and_not_before(document: dict[str, Any], tmp_path: Path) -> None:
    space = space_from(document)
    ledger = ledger_of(space, tmp_path / "study")
    proposer = proposer_of(space, ledger)
    for number in range(5):
        assert proposer.remaining == 5 - number
        assert [known["number"] for known in ledger.points()] == list(range(number))
        proposal = proposer.propose()
        assert proposal is not None
        assert proposal.trial_ids == tuple(spec.trial_id for spec in specs(space, proposal.point, lookup))
        assert ledger.points()[-1] == {
            "number": number,
            "point": proposal.point,
            "trial_ids": list(proposal.trial_ids),
        }
        assert {type(value) for value in proposal.point.values()} <= {str, int, float}
    assert (proposer.propose(), proposer.remaining, len(ledger.points())) == (None, 0, 5)


@pytest.mark.parametrize("document", [OPTUNA_SPACE, RANDOM_SPACE], ids=["optuna", "random"])
def test_unsettled_points_come_first_with_their_old_number(document: dict[str, Any], tmp_path: Path) -> None:
    space = space_from({**document, "trials": 7})
    ledger = ledger_of(space, tmp_path / "study")
    proposer = proposer_of(space, ledger)
    proposals = [proposal for proposal in (proposer.propose() for _ in range(5)) if proposal]
    for proposal, how in zip(proposals, (FINISHED, FAILED, INFEASIBLE, None, UNMEASURED), strict=True):
        if how is not None:
            end(ledger, space, proposal, how)
    resumed = proposer_of(space, ledger)
    each = len(space.folds) * len(space.seeds)
    # Two new points, and the one of the two proposed again that has not been begun.
    assert (resumed.remaining, resumed.untrained) == (4, 3 * each)
    again = all_of(resumed)
    assert again[:2] == [proposals[1], proposals[3]]
    assert numbers(again) == [1, 3, 5, 6]
    assert [known["number"] for known in ledger.points()] == list(range(7))
    assert len({proposal.trial_ids for proposal in [*proposals, *again[2:]]}) == 7


@pytest.mark.parametrize("document", [OPTUNA_SPACE, RANDOM_SPACE, GRID_SPACE], ids=["optuna", "random", "grid"])
def test_folds_and_seeds_can_be_added_to_a_study(document: dict[str, Any], tmp_path: Path) -> None:
    space = space_from({**document, "folds": [1]})
    ledger = ledger_of(space, tmp_path / "study")
    proposals = all_of(proposer_of(space, ledger))
    for proposal in proposals:
        end(ledger, space, proposal, FINISHED)
    before = ledger.points()
    results = {folder.trial_id: folder.result() for folder in ledger.trials()}
    wider = space_from({**document, "folds": [0, 1], "seeds": [0, 7]})
    assert Ledger.create(ledger.root, space=wider.identity()) == ledger
    ledger.adopt(wider.identity())
    resumed = proposer_of(wider, ledger)
    # Every point is proposed once more, for its three new trials; none is new.
    assert (resumed.remaining, resumed.untrained) == (len(proposals), 3 * len(proposals))
    again = all_of(resumed)
    assert numbers(again) == numbers(proposals)
    assert [p["point"] for p in ledger.points()] == [p["point"] for p in before]
    for old, new in zip(proposals, again, strict=True):
        assert new.trial_ids == tuple(spec.trial_id for spec in specs(wider, new.point, lookup))
        assert set(old.trial_ids) < set(new.trial_ids)
        for spec in specs(wider, new.point, lookup):
            folder = ledger.add(spec)
            if folder.result() is None:
                finish(folder, dice=0.5)
    assert proposer_of(wider, ledger).remaining == 0
    assert all(ledger.trial(trial_id).result() == result for trial_id, result in results.items())
    # What has been added is part of the study, and does not go again.
    with pytest.raises(LedgerError, match=r"belongs to another study: folds, seeds differ; .*\(folds and seeds can be"):
        Ledger.create(ledger.root, space=space.identity())


def test_infeasible_points_are_proposed_again_only_when_asked_for(ledger: Ledger) -> None:
    space = space_of(trials=2)
    trials = record(ledger, space, POINTS[:2])
    for folder in trials[0]:
        finish(folder, dice=0.5)
    trials[1][1].fail(attempt=0, reason="out of memory", state=INFEASIBLE)
    assert proposer_of(space, ledger).remaining == 0
    retried = proposer_of(space, ledger, retry_infeasible=True)
    assert (retried.remaining, numbers(all_of(retried))) == (1, [1])
    assert [trial.state for trial in begun(retried)] == [OptunaState.COMPLETE, OptunaState.RUNNING]


def test_fewer_trials_than_have_finished_are_refused_and_than_were_begun_leave_the_last_ones_alone(
    ledger: Ledger,
) -> None:
    trials = record(ledger, space_of(), POINTS)
    for folder in trials[2]:
        finish(folder, dice=0.6)
    assert numbers(all_of(proposer_of(space_of(trials=3), ledger))) == [0, 1]
    for folder in (*trials[0], *trials[1]):
        finish(folder, dice=0.6)
    assert proposer_of(space_of(trials=3), ledger).remaining == 0
    with pytest.raises(InvalidInputError, match="trials: received 2, legal is at least 3, which have finished"):
        proposer_of(space_of(trials=2), ledger)


@pytest.mark.parametrize("number", [0, 3], ids=["start-up", "later"])
def test_another_seed_proposes_something_else(number: int, tmp_path: Path) -> None:
    proposed = []
    for seed in (1, 2):
        space = space_of(seed=seed)
        ledger = ledger_of(space, tmp_path / str(seed))
        record(ledger, space, POINTS[:number])
        proposed.append(all_of(proposer_of(space, ledger))[number].point)
    assert proposed[0] != proposed[1]


@pytest.mark.parametrize(
    "line",
    [
        {"number": 0, "point": {"curriculum.stages": 3}, "trial_ids": ["a", "b"]},
        {"number": 0, "point": POINTS[0], "trial_ids": ["a"]},
        {"number": 0, "point": {**POINTS[0], STAGES: 700}, "trial_ids": ["a", "b"]},
    ],
    ids=["another space", "folds missing", "outside"],
)
def test_a_record_that_is_no_point_of_the_space_is_refused_in_one_line(ledger: Ledger, line: dict[str, Any]) -> None:
    files.append_line(ledger.root / "points.jsonl", line)
    with pytest.raises(LedgerError, match=r"points\.jsonl: received .*, legal is a number, a point of this") as caught:
        proposer_of(space_of(), ledger)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------------------------- lists


def test_a_grid_trains_each_trial_once_and_records_every_point(tmp_path: Path) -> None:
    space = space_from(GRID_SPACE)
    ledger = ledger_of(space, tmp_path / "grid")
    half, whole, half_again, whole_again = space.points()
    proposer = proposer_of(space, ledger)
    assert (proposer.remaining, ledger.points()) == (2, [])
    proposals = [proposer.propose(), proposer.propose()]
    assert [proposal.point for proposal in proposals if proposal] == [half, whole]
    # The others stand for the same trials: they are recorded with the last one before them that is trained.
    assert [known["point"] for known in ledger.points()] == [half, whole, half_again, whole_again]
    assert [known["number"] for known in ledger.points()] == [0, 1, 2, 3]
    assert (proposer.remaining, proposer.propose()) == (0, None)
    resumed = proposer_of(space, ledger)
    assert (resumed.remaining, all_of(resumed)) == (2, proposals)
    for proposal in proposals:
        assert proposal is not None
        end(ledger, space, proposal, FINISHED)
    assert proposer_of(space, ledger).remaining == 0
    assert len(ledger.points()) == 4


def test_a_listed_point_whose_trials_have_finished_is_done_and_recorded(tmp_path: Path) -> None:
    space = space_from({**GRID_SPACE, "folds": [0, 1]})
    ledger = ledger_of(space, tmp_path / "grid")
    half, whole, *_ = space.points()
    folds = [ledger.add(spec) for spec in specs(space, half, lookup)]
    finish(folds[0], dice=0.6)
    assert proposer_of(space, ledger).remaining == 2
    finish(folds[1], dice=0.6)
    proposer = proposer_of(space, ledger)
    assert (proposer.remaining, [known["point"] for known in ledger.points()]) == (1, [half])
    assert [(proposal.number, proposal.point) for proposal in all_of(proposer)] == [(1, whole)]


@pytest.mark.parametrize("document", [GRID_SPACE, {**OPTUNA_SPACE, "trials": 1}])
def test_a_finished_point_that_lacks_a_metric_is_proposed_again_to_be_measured(
    document: dict[str, Any], tmp_path: Path
) -> None:
    plain, asked = space_from(document), space_from({**document, "metrics": ["nsd"]})
    ledger = ledger_of(plain, tmp_path / "study")
    for proposal in all_of(proposer_of(plain, ledger)):
        end(ledger, plain, proposal, FINISHED)
    assert proposer_of(plain, ledger).remaining == 0
    lacking = proposer_of(asked, ledger)
    assert numbers(all_of(lacking)) == numbers(all_of(proposer_of(asked, ledger))) != []
    for folder in ledger.trials():
        result = folder.result()
        assert result is not None
        # Where the predictions are gone there is no value, and nobody asks again.
        folder.complete(replace(result, metrics={"nsd": Measured(mean=None, per_case_and_class={}, tolerance_mm=1.0)}))
    assert proposer_of(asked, ledger).remaining == 0
    assert proposer_of(space_from({**document, "metrics": ["nsd"], "nsd_tolerance_mm": 2}), ledger).remaining > 0


def test_a_listed_point_that_is_not_legal_is_told_before_anything_starts(tmp_path: Path) -> None:
    def no_fold(dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
        raise InvalidInputError(field="fold", received=fold, legal="a fold of the dataset")

    space = space_from(GRID_SPACE)
    ledger = ledger_of(space, tmp_path / "grid")
    with pytest.raises(InvalidInputError, match="fold: received 0"):
        make_proposer(space, ledger, no_fold)
    assert ledger.points() == []


# ------------------------------------------------------------------------------------------------------ nothing twice


@pytest.mark.parametrize("told", [FINISHED, INFEASIBLE, FAILED, UNMEASURED, None])
def test_a_finite_space_is_used_up_without_a_trial_twice(told: TrialState | str | None, tmp_path: Path) -> None:
    # Twelve points, of which those with one stage stand for the same trials, however batches grow.
    curriculum = {"min_patch": 0.5, "stages": {"integer": [1, 3]}, "batch_growth": [0, 0.5], "budget": [0.5, 1.0]}
    space = space_of(curriculum=curriculum, training={"epochs": 10}, folds=[0], trials=50)
    ledger = ledger_of(space, tmp_path / "study")
    listed = replace(space, searcher="grid", objectives=(), trials=None).points()
    every = {tuple(spec.trial_id for spec in specs(space, point, lookup)) for point in listed}
    proposer = proposer_of(space, ledger)
    proposals = []
    while (proposal := proposer.propose()) is not None:
        proposals.append(proposal)
        if told is not None:
            proposer.tell(proposal.number, end(ledger, space, proposal, told))
    assert len(proposals) == len(every) < 12
    assert {proposal.trial_ids for proposal in proposals} == every
    assert numbers(proposals) == list(range(len(every)))
    resumed = all_of(proposer_of(space, ledger))
    assert resumed == (proposals if told in (FAILED, None) else [])


def test_an_endless_space_of_few_trials_ends(tmp_path: Path) -> None:
    # With constant patch size nothing comes of the smallest patch.
    curriculum = {"scheme": "cps", "min_patch": {"uniform": [0, 1]}, "budget": [0.5, 1.0]}
    space = space_of(curriculum=curriculum, training={"epochs": 10})
    proposals = all_of(proposer_of(space, ledger_of(space, tmp_path / "study")))
    assert len({proposal.trial_ids for proposal in proposals}) == len(proposals)
    assert {proposal.point[BUDGET] for proposal in proposals} == {0.5, 1.0}


def test_points_that_are_not_legal_are_passed_over_and_a_search_without_any_says_so(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposers, "specs", refusing(lambda point: True))
    with pytest.raises(InvalidInputError, match="point: received"):
        proposer_of(space_of(), ledger).propose()
    assert ledger.points() == []
    monkeypatch.setattr(proposers, "specs", refusing(lambda point: point[GROWTH] == 0.5))
    proposals = all_of(proposer_of(space_of(trials=12), ledger))
    assert {proposal.point[GROWTH] for proposal in proposals} == {0, "stepwise"}
    assert numbers(proposals) == list(range(12))


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


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
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

"""What is proposed next, given what a made-up ledger knows: recorded once, nothing twice, the unfinished first, as if
undisturbed; what Optuna is told of a ledger, and how Ray Tune sees a search.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState as OptunaState
from searching import (
    BUDGET,
    FAILED,
    FINISHED,
    GRID_SPACE,
    GROWTH,
    INFEASIBLE,
    OPTUNA_SPACE,
    POINTS,
    RANDOM_SPACE,
    STAGES,
    UNMEASURED,
    all_of,
    begun,
    end,
    finish,
    ledger_of,
    lookup,
    numbers,
    record,
    refusing,
    sampler_of,
    space_of,
)

from study.common import files
from study.common.errors import InvalidInputError, LedgerError
from study.nnunet.plans import NetworkPlan
from study.search import samplers
from study.search.document import space_from
from study.search.samplers import make_sampler
from study.search.trials import specs
from study.store.ledger import Ledger
from study.store.results import Measured
from study.store.trial_folder import TrialState


@pytest.mark.parametrize("document", [OPTUNA_SPACE, RANDOM_SPACE], ids=["optuna", "random"])
def test_a_point_is_recorded_when_it_is_proposed_and_not_before(document: dict[str, Any], tmp_path: Path) -> None:
    space = space_from(document)
    ledger = ledger_of(space, tmp_path / "study")
    sampler = sampler_of(space, ledger)
    for number in range(5):
        assert sampler.remaining == 5 - number
        assert [known["number"] for known in ledger.points()] == list(range(number))
        proposal = sampler.propose()
        assert proposal is not None
        assert proposal.trial_ids == tuple(spec.trial_id for spec in specs(space, proposal.point, lookup))
        assert ledger.points()[-1] == {
            "number": number,
            "point": proposal.point,
            "trial_ids": list(proposal.trial_ids),
        }
        assert {type(value) for value in proposal.point.values()} <= {str, int, float}
    assert (sampler.propose(), sampler.remaining, len(ledger.points())) == (None, 0, 5)


@pytest.mark.parametrize("document", [OPTUNA_SPACE, RANDOM_SPACE], ids=["optuna", "random"])
def test_unsettled_points_come_first_with_their_old_number(document: dict[str, Any], tmp_path: Path) -> None:
    space = space_from({**document, "trials": 7})
    ledger = ledger_of(space, tmp_path / "study")
    sampler = sampler_of(space, ledger)
    proposals = [proposal for proposal in (sampler.propose() for _ in range(5)) if proposal]
    for proposal, how in zip(proposals, (FINISHED, FAILED, INFEASIBLE, None, UNMEASURED), strict=True):
        if how is not None:
            end(ledger, space, proposal, how)
    resumed = sampler_of(space, ledger)
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
    proposals = all_of(sampler_of(space, ledger))
    for proposal in proposals:
        end(ledger, space, proposal, FINISHED)
    before = ledger.points()
    results = {folder.trial_id: folder.result() for folder in ledger.trials()}
    wider = space_from({**document, "folds": [0, 1], "seeds": [0, 7]})
    assert Ledger.create(ledger.root, space=wider.identity()) == ledger
    ledger.adopt(wider.identity())
    resumed = sampler_of(wider, ledger)
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
    assert sampler_of(wider, ledger).remaining == 0
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
    assert sampler_of(space, ledger).remaining == 0
    retried = sampler_of(space, ledger, retry_infeasible=True)
    assert (retried.remaining, numbers(all_of(retried))) == (1, [1])
    assert [trial.state for trial in begun(retried)] == [OptunaState.COMPLETE, OptunaState.RUNNING]


def test_fewer_trials_than_have_finished_are_refused_and_than_were_begun_leave_the_last_ones_alone(
    ledger: Ledger,
) -> None:
    trials = record(ledger, space_of(), POINTS)
    for folder in trials[2]:
        finish(folder, dice=0.6)
    assert numbers(all_of(sampler_of(space_of(trials=3), ledger))) == [0, 1]
    for folder in (*trials[0], *trials[1]):
        finish(folder, dice=0.6)
    assert sampler_of(space_of(trials=3), ledger).remaining == 0
    with pytest.raises(InvalidInputError, match="trials: received 2, legal is at least 3, which have finished"):
        sampler_of(space_of(trials=2), ledger)


@pytest.mark.parametrize("number", [0, 3], ids=["start-up", "later"])
def test_another_seed_proposes_something_else(number: int, tmp_path: Path) -> None:
    proposed = []
    for seed in (1, 2):
        space = space_of(seed=seed)
        ledger = ledger_of(space, tmp_path / str(seed))
        record(ledger, space, POINTS[:number])
        proposed.append(all_of(sampler_of(space, ledger))[number].point)
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
        sampler_of(space_of(), ledger)
    assert "\n" not in str(caught.value)


def test_a_grid_trains_each_trial_once_and_records_every_point(tmp_path: Path) -> None:
    space = space_from(GRID_SPACE)
    ledger = ledger_of(space, tmp_path / "grid")
    half, whole, half_again, whole_again = space.points()
    sampler = sampler_of(space, ledger)
    assert (sampler.remaining, ledger.points()) == (2, [])
    proposals = [sampler.propose(), sampler.propose()]
    assert [proposal.point for proposal in proposals if proposal] == [half, whole]
    # The others stand for the same trials: they are recorded with the last one before them that is trained.
    assert [known["point"] for known in ledger.points()] == [half, whole, half_again, whole_again]
    assert [known["number"] for known in ledger.points()] == [0, 1, 2, 3]
    assert (sampler.remaining, sampler.propose()) == (0, None)
    resumed = sampler_of(space, ledger)
    assert (resumed.remaining, all_of(resumed)) == (2, proposals)
    for proposal in proposals:
        assert proposal is not None
        end(ledger, space, proposal, FINISHED)
    assert sampler_of(space, ledger).remaining == 0
    assert len(ledger.points()) == 4


def test_a_listed_point_whose_trials_have_finished_is_done_and_recorded(tmp_path: Path) -> None:
    space = space_from({**GRID_SPACE, "folds": [0, 1]})
    ledger = ledger_of(space, tmp_path / "grid")
    half, whole, *_ = space.points()
    folds = [ledger.add(spec) for spec in specs(space, half, lookup)]
    finish(folds[0], dice=0.6)
    assert sampler_of(space, ledger).remaining == 2
    finish(folds[1], dice=0.6)
    sampler = sampler_of(space, ledger)
    assert (sampler.remaining, [known["point"] for known in ledger.points()]) == (1, [half])
    assert [(proposal.number, proposal.point) for proposal in all_of(sampler)] == [(1, whole)]


@pytest.mark.parametrize("document", [GRID_SPACE, {**OPTUNA_SPACE, "trials": 1}])
def test_a_finished_point_that_lacks_a_metric_is_proposed_again_to_be_measured(
    document: dict[str, Any], tmp_path: Path
) -> None:
    plain, asked = space_from(document), space_from({**document, "metrics": ["nsd"]})
    ledger = ledger_of(plain, tmp_path / "study")
    for proposal in all_of(sampler_of(plain, ledger)):
        end(ledger, plain, proposal, FINISHED)
    assert sampler_of(plain, ledger).remaining == 0
    lacking = sampler_of(asked, ledger)
    assert numbers(all_of(lacking)) == numbers(all_of(sampler_of(asked, ledger))) != []
    for folder in ledger.trials():
        result = folder.result()
        assert result is not None
        # Where the predictions are gone there is no value, and nobody asks again.
        folder.complete(replace(result, metrics={"nsd": Measured(mean=None, per_case_and_class={}, tolerance_mm=1.0)}))
    assert sampler_of(asked, ledger).remaining == 0
    assert sampler_of(space_from({**document, "metrics": ["nsd"], "nsd_tolerance_mm": 2}), ledger).remaining > 0


def test_a_listed_point_that_is_not_legal_is_told_before_anything_starts(tmp_path: Path) -> None:
    def no_fold(dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
        raise InvalidInputError(field="fold", received=fold, legal="a fold of the dataset")

    space = space_from(GRID_SPACE)
    ledger = ledger_of(space, tmp_path / "grid")
    with pytest.raises(InvalidInputError, match="fold: received 0"):
        make_sampler(space, ledger, no_fold)
    assert ledger.points() == []


@pytest.mark.parametrize("told", [FINISHED, INFEASIBLE, FAILED, UNMEASURED, None])
def test_a_finite_space_is_used_up_without_a_trial_twice(told: TrialState | str | None, tmp_path: Path) -> None:
    # Twelve points, of which those with one stage stand for the same trials, however batches grow.
    curriculum = {"min_patch": 0.5, "stages": {"integer": [1, 3]}, "batch_growth": [0, 0.5], "budget": [0.5, 1.0]}
    space = space_of(curriculum=curriculum, training={"epochs": 10}, folds=[0], trials=50)
    ledger = ledger_of(space, tmp_path / "study")
    listed = replace(space, searcher="grid", objectives=(), trials=None).points()
    every = {tuple(spec.trial_id for spec in specs(space, point, lookup)) for point in listed}
    sampler = sampler_of(space, ledger)
    proposals = []
    while (proposal := sampler.propose()) is not None:
        proposals.append(proposal)
        if told is not None:
            sampler.tell(proposal.number, end(ledger, space, proposal, told))
    assert len(proposals) == len(every) < 12
    assert {proposal.trial_ids for proposal in proposals} == every
    assert numbers(proposals) == list(range(len(every)))
    resumed = all_of(sampler_of(space, ledger))
    assert resumed == (proposals if told in (FAILED, None) else [])


def test_an_endless_space_of_few_trials_ends(tmp_path: Path) -> None:
    # With constant patch size nothing comes of the smallest patch.
    curriculum = {"scheme": "cps", "min_patch": {"uniform": [0, 1]}, "budget": [0.5, 1.0]}
    space = space_of(curriculum=curriculum, training={"epochs": 10})
    proposals = all_of(sampler_of(space, ledger_of(space, tmp_path / "study")))
    assert len({proposal.trial_ids for proposal in proposals}) == len(proposals)
    assert {proposal.point[BUDGET] for proposal in proposals} == {0.5, 1.0}


def test_points_that_are_not_legal_are_passed_over_and_a_search_without_any_says_so(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "specs", refusing(lambda point: True))
    with pytest.raises(InvalidInputError, match="point: received"):
        sampler_of(space_of(), ledger).propose()
    assert ledger.points() == []
    monkeypatch.setattr(samplers, "specs", refusing(lambda point: point[GROWTH] == 0.5))
    proposals = all_of(sampler_of(space_of(trials=12), ledger))
    assert {proposal.point[GROWTH] for proposal in proposals} == {0, "stepwise"}
    assert numbers(proposals) == list(range(12))

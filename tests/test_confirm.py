"""Confirming made-up studies, and one on Ray: who is trained next, what is stored; an interruption changes nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from searching import FAILED, FINISHED, GRID_SPACE, INFEASIBLE, OPTUNA_SPACE, finish, ledger_of, lookup, sampler_of
from studies import TRAINING, WAIT_SECONDS, run_to_end, write_space

from analysis.page.answer import confirmation
from study.__main__ import main
from study.common.errors import InvalidInputError, LedgerError
from study.search.confirming import Confirmer
from study.search.contenders import Aim, aim_of
from study.search.document import begun_space, space_from
from study.search.samplers import Proposal
from study.search.space import SearchSpace
from study.search.trials import specs
from study.store.audit import audit
from study.store.ledger import Ledger
from study.store.outcomes import Outcome, outcome
from study.store.records import OFF, ON
from study.store.trial_folder import TrialState

BUDGETS = [0.1, 0.2, 0.4, 0.6, 0.8, 1.0]
DOCUMENT = {**GRID_SPACE, "curriculum": {"scheme": ["cps", "pgps"], "budget": BUDGETS}}
SPACE = space_from(DOCUMENT)
# Dice of a point but for its fold, seed and luck: longer is better, and of each budget one of two.
TRUTH = {("cps", b): 0.6 + 0.2 * b for b in BUDGETS} | {
    ("pgps", b): 0.608 + 0.2 * b - 0.02 * (b > 0.5) for b in BUDGETS
}
LUCK = 0.001


def train(ledger: Ledger, proposal: Proposal, how: TrialState = FINISHED) -> Outcome:
    """Bring a proposal's trials to an end, as a worker would; Dice and costs follow from the trial alone."""
    space = SPACE if proposal.only is None else SPACE.only(*proposal.only)
    folders = [ledger.add(spec) for spec in specs(space, proposal.point, lookup)]
    for folder in folders:
        spec, draw = folder.spec(), random.Random(folder.trial_id)
        if how is FINISHED:
            dice = TRUTH[spec.scheme, spec.axes.budget] + 0.01 * spec.fold + draw.gauss(0, LUCK)
            hurry = 0.9 if spec.scheme == "pgps" else 1.0
            finish(folder, dice=dice, seconds=round(3600 * hurry * spec.axes.budget))
        else:
            folder.fail(attempt=0, reason="it broke", state=how)
    return outcome(folders)


def searched(root: Path) -> Ledger:
    """A finished grid of twelve points on fold 0."""
    ledger = ledger_of(SPACE, root)
    sampler = sampler_of(SPACE, ledger)
    for proposal in iter(sampler.propose, None):
        sampler.tell(proposal.number, train(ledger, proposal))
    return ledger


def aim(**changes: Any) -> Aim:
    given: dict[str, Any] = {"folds": [0, 1, 2, 3, 4], "seeds": None, "objectives": None, **changes}
    return aim_of(SPACE, **given)


def confirmer(ledger: Ledger, wanted: Aim | None = None, **options: bool) -> Confirmer:
    return Confirmer(SPACE, ledger, lookup, lambda _: None, aim=wanted or aim(), **options)


def play(
    ledger: Ledger,
    wanted: Aim | None = None,
    *,
    at_a_time: int = 1,
    interruptions: frozenset[int] = frozenset(),
    ways: Sequence[TrialState] = (FINISHED,),
) -> list[tuple[int, int, int]]:
    """Which trainings are in the ledger once there is nothing left to do, with a driver killed after some steps."""
    work, live, over, step = confirmer(ledger, wanted), list[Proposal](), False, 0
    while live or not over:
        step += 1
        if not over and len(live) < at_a_time:
            proposal = work.propose()
            over = proposal is None and not work.waits
            live += [proposal] if proposal else []
        if live and (over or len(live) == at_a_time or work.waits):
            proposal = live.pop(0)
            reached = train(ledger, proposal, ways[len(ledger.confirmations()) % len(ways)])
            if step not in interruptions:
                work.tell(proposal.number, reached)
        if step in interruptions:
            work, live, over = confirmer(ledger, wanted), [], False
    return [(each["confirms"], each["fold"], each["seed"]) for each in ledger.confirmations()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    ledger = searched(tmp_path_factory.mktemp("undisturbed") / "study")
    play(ledger)
    return ledger


def test_what_is_on_the_front_is_found_for_less_than_everything_costs(undisturbed: Ledger) -> None:
    audit(undisturbed)
    found = undisturbed.confirmation()
    assert found is not None
    by_settings = {(p.settings["curriculum.scheme"], p.settings["curriculum.budget"]): p for p in found.points}
    # PGPS takes nine tenths of the time and is better up to half of the budget.
    for budget in (0.1, 0.2, 0.4):
        assert by_settings["pgps", budget].verdict == ON
        assert by_settings["cps", budget].verdict == OFF
    for budget in (0.6, 0.8, 1.0):
        assert by_settings["cps", budget].verdict == by_settings["pgps", budget].verdict == ON
    assert found.gpu_hours < 0.7 * found.gpu_hours_of_everything
    assert found.trainings == len(undisturbed.confirmations())


def test_points_are_judged_on_folds_that_the_search_did_not_see(undisturbed: Ledger) -> None:
    found = undisturbed.confirmation()
    assert found is not None and {fold for p in found.points for fold in p.folds} <= {1, 2, 3, 4}
    judged = [p for p in found.points if p.trainings]
    for point in judged:
        ids = [each["trial_ids"][0] for each in undisturbed.confirmations() if each["confirms"] == point.number]
        dice = [result.dice for name in ids if (result := undisturbed.trial(name).result())]
        assert point.dice == pytest.approx(sum(dice) / len(dice))
        assert point.gpu_hours == pytest.approx(0.5 * point.costs["runtime_seconds"] / 3600 * len(dice), rel=0.02)
        assert set(ids) < set(point.trial_ids)


def test_the_search_knows_nothing_of_it(undisturbed: Ledger) -> None:
    assert all(len(point["trial_ids"]) == 1 for point in undisturbed.points())
    assert sampler_of(SPACE, undisturbed).remaining == 0
    header = undisturbed.header()["space"]
    assert (header["folds"], header["seeds"]) == ([0], [0])


@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(interruptions=st.frozensets(st.integers(1, 20), max_size=4))
def test_an_interrupted_confirmation_trains_what_an_undisturbed_one_would(
    undisturbed: Ledger, interruptions: frozenset[int]
) -> None:
    expected = [(each["confirms"], each["fold"], each["seed"]) for each in undisturbed.confirmations()]
    with TemporaryDirectory() as folder:
        ledger = searched(Path(folder) / "study")
        assert play(ledger, interruptions=interruptions) == expected
        assert all(len(trial.attempts()) == 1 for trial in ledger.trials())


def test_trainings_side_by_side_are_none_twice(tmp_path: Path) -> None:
    ledger = searched(tmp_path / "study")
    trained = play(ledger, at_a_time=3)
    assert len(set(trained)) == len(trained) > 0


def test_the_money_is_kept_to_and_more_of_it_goes_on(undisturbed: Ledger, tmp_path: Path) -> None:
    ledger = searched(tmp_path / "study")
    first = play(ledger, aim(max_gpu_hours=1.0))
    found = ledger.confirmation()
    assert found is not None and 0 < found.gpu_hours <= 1.0 and found.max_gpu_hours == 1.0
    assert confirmer(ledger, aim(max_gpu_hours=1.0)).remaining == 0
    assert play(ledger)[: len(first)] == first
    assert (again := ledger.confirmation()) is not None and again.gpu_hours > found.gpu_hours


@pytest.mark.parametrize("how", [FAILED, INFEASIBLE])
def test_what_cannot_be_trained_ends_a_run_and_is_tried_again_as_trials_are(how: TrialState, tmp_path: Path) -> None:
    ledger = searched(tmp_path / "study")
    play(ledger, ways=(how,))
    found, recorded = ledger.confirmation(), ledger.confirmations()
    assert found is not None and found.trainings == 0
    # Another fold of a point that ran out of memory is not tried.
    assert len(recorded) > len({each["confirms"] for each in recorded}) or how is INFEASIBLE
    assert confirmer(ledger).unfinished == (len(recorded) if how is FAILED else 0)
    assert confirmer(ledger, retry_infeasible=True).unfinished == len(recorded)


def test_a_finished_fold_is_not_trained_again(tmp_path: Path) -> None:
    ledger = searched(tmp_path / "study")
    for fold in (1, 2, 3, 4):
        for point in ledger.points():
            proposal = Proposal(number=0, point=point["point"], trial_ids=(), only=(fold, 0))
            train(ledger, proposal)
    assert confirmer(ledger).remaining == 0
    found = ledger.confirmation()
    assert found is not None and found.trainings == 48 and found.gpu_hours == 0


def test_other_seeds_judge_where_the_search_saw_every_fold() -> None:
    assert aim(folds=[0]).pairs == ((0, 1),)
    assert aim(folds=[0], seeds=[0, 3]).pairs == ((0, 3),)
    assert aim(folds=[0, 1]).pairs == ((1, 0),)
    assert aim(folds=[2, 0, 1], seeds=[0, 1]).pairs == ((2, 0), (1, 0), (2, 1), (1, 1))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"folds": [0], "seeds": [0]}, "--folds, --seeds: received [[0], [0]], legal is folds other than [0] or seeds"),
        ({"objectives": ["dice"]}, "--objectives: received 'dice', legal is dice and one or more of runtime_seconds"),
        ({"objectives": ["runtime_seconds", "co2_kg"]}, "--objectives: received 'runtime_seconds,co2_kg', legal is"),
        ({"objectives": ["dice", "nsd"]}, "--objectives: received 'dice,nsd', legal is dice and one or more of"),
        ({"objectives": ["dice", "dice"]}, "--objectives: received 'dice,dice', legal is"),
    ],
)
def test_what_nothing_can_be_said_of_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        aim(**changes)
    assert str(error.value).startswith(complaint)


def test_a_study_without_a_finished_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="received '0 points, none of them finished'"):
        confirmer(ledger_of(SPACE, tmp_path / "study"))


@pytest.mark.parametrize(
    "line",
    ['{"confirms": 0, "fold": 1, "trial_ids": ["a"]}', '{"confirms": "a", "fold": 1, "seed": 0, "trial_ids": ["a"]}'],
)
def test_a_damaged_record_is_named(line: str, tmp_path: Path) -> None:
    ledger = searched(tmp_path / "study")
    with (ledger.root / "points.jsonl").open("a") as handle:
        handle.write(line + "\n")
    with pytest.raises(LedgerError, match=r"points.jsonl is damaged: line 13"):
        ledger.points()


def test_a_damaged_conclusion_is_named_and_made_anew(undisturbed: Ledger, tmp_path: Path) -> None:
    ledger = searched(tmp_path / "study")
    (ledger.root / "confirmation.json").write_text('{"points": 3}')
    with pytest.raises(
        LedgerError, match=r"confirmation.json is damaged: .*; delete it, and `confirm` writes it again"
    ):
        ledger.confirmation()
    confirmer(ledger)
    assert ledger.confirmation() is not None


@pytest.mark.parametrize(
    "document",
    [
        DOCUMENT,
        {
            **OPTUNA_SPACE,
            "seeds": [3, 1],
            "plans": "x",
            "energy": {"meter": "none", "pue": 1.5},
            "objectives": ["dice", "voxel_share"],
        },
        {**OPTUNA_SPACE, "metrics": ["nsd"], "nsd_tolerance_mm": 2.0, "objectives": ["dice", "nsd"]},
        {**GRID_SPACE, "datasets": [1, "Dataset002_B"], "curriculum": {"pdl_fraction": 0.5, "stages": [1, None]}},
    ],
)
def test_the_space_of_a_study_is_read_from_its_header(document: dict[str, Any]) -> None:
    space: SearchSpace = space_from(document)
    stored = json.loads(json.dumps(space.identity()))
    again = begun_space({"space": stored}, trials=space.trials or 1)
    assert again.identity() == space.identity()
    assert (again.axes, again.objectives) == (space.axes, space.objectives)


def test_trials_made_by_hand_are_no_study_to_confirm() -> None:
    with pytest.raises(LedgerError, match="trials made by hand"):
        begun_space({"space": None}, trials=1)


GRID = {
    "searcher": "grid",
    "trials": None,
    "objectives": None,
    "curriculum": {"scheme": "pgps", "stages": 2, "budget": [0.5, 1.0]},
    "training": {**TRAINING, "epochs": 6, "initial_learning_rate": 3e-3},
}


@pytest.mark.torture
def test_a_confirmation_that_is_killed_goes_on(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study"
    assert run_to_end(write_space(tmp_path, **GRID), data, out).code == 0
    ledger = Ledger(out)
    command = [sys.executable, "-m", "study", "confirm", str(out), "--data", str(data), "--folds", "1", "2"]
    first = subprocess.Popen([*command, "--concurrent", "1"], start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_SECONDS
    while not any(folder.spec().fold and folder.epochs() for folder in ledger.trials()):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    [begun] = ledger.confirmations()
    ended = subprocess.run([*command, "--concurrent", "1"], capture_output=True, text=True, check=True)
    audit(ledger)
    assert "confirmed: " in ended.stdout and "point " in ended.stdout
    assert ledger.confirmations()[0] == begun
    assert ledger.trial(begun["trial_ids"][0]).state() is TrialState.FINISHED
    found = ledger.confirmation()
    assert found is not None and found.trainings == len(ledger.confirmations()) >= 2
    assert {fold for point in found.points for fold in point.folds} <= {1, 2}
    assert found.gpu_hours > 0 and found.words() in ended.stdout
    assert main(["status", str(out)]) == 0
    assert found.words() in capsys.readouterr().out
    [section] = confirmation([out])
    assert section.items[0].data is not None and len(section.items[0].data) == 2

"""A short torture: a study of two trials whose training, worker and driver are killed, on a Ray of its own.

`make torture` runs it, and the long one after it. What `make test` kills is in test_interrupted_studies (trainings,
drivers), test_nodes (a node), test_trial, test_trial_host and test_pdl_trial (trainings, their server).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from places import OwnRay
from studies import write_space
from tally import Check, check, table
from torture import STUDY, Torture, leaving_nothing, undisturbed
from victims import CATALOGUE, KILL, Kill, Moment, Victim, plan

KILLS = [
    Kill(victim=Victim.TRAINING, moment=Moment.CHECKPOINT),
    Kill(victim=Victim.WORKER, delay_seconds=1.0),
    Kill(victim=Victim.DRIVER, signal=KILL, moment=Moment.VALIDATION),
]


@pytest.fixture(scope="module")
def tortured(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Check:
    folder = tmp_path_factory.mktemp("torture")
    settings = {**STUDY["training"], "epochs": 12, "iterations_per_epoch": 12}
    space = write_space(
        folder, **{**STUDY, "seeds": [0], "curriculum": {"scheme": ["pgps+", "rpss"]}, "training": settings}
    )
    problems: list[str] = []
    with leaving_nothing(problems):
        reference = undisturbed(space, data, folder / "undisturbed")
        torture = Torture(space, data, folder)
        torture.run(KILLS, OwnRay())
        done = torture.finish()
    done.problems += problems
    result = check(reference, done)
    print(f"\n{table(result)}")
    return result


@pytest.mark.torture
def test_a_tortured_study_holds_what_an_undisturbed_one_holds(tortured: Check) -> None:
    assert list(tortured.problems) == []


@pytest.mark.torture
def test_every_kill_hit(tortured: Check) -> None:
    assert [hit.kill for hit in tortured.tortured.hits] == KILLS
    assert {-KILL, 0} <= set(tortured.tortured.drivers)


@pytest.mark.torture
def test_what_was_lost_was_paid_for_again(tortured: Check) -> None:
    assert tortured.waste["iterations"] > 0
    assert 0 < tortured.waste["seconds"] < tortured.waste["total_seconds"]


def test_the_same_seed_plans_the_same_kills() -> None:
    assert plan(50, seed=3) == plan(50, seed=3)
    assert plan(50, seed=3) != plan(50, seed=4)


def test_a_long_plan_has_every_kill_of_the_catalogue() -> None:
    wanted = {(kill.victim, kill.signal, kill.moment) for line in CATALOGUE for kill in line}
    assert {(kill.victim, kill.signal, kill.moment) for kill in plan(50, seed=0)} == wanted

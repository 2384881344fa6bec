"""Optuna's study of a ledger: what it shows of each point, and the copy that a storage keeps."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from examples import EPOCH
from optuna.trial import TrialState as OptunaState
from searching import (
    FAILED,
    FINISHED,
    INFEASIBLE,
    OBJECTIVES,
    POINTS,
    RANDOM_SPACE,
    UNMEASURED,
    all_of,
    end,
    ledger_of,
    record,
    sampler_of,
    space_of,
)

from study.common import files
from study.common.errors import LedgerError, MachineError
from study.search import optuna_study
from study.search.document import space_from
from study.search.optuna_study import keep, rebuilt
from study.search.samplers import Proposal
from study.store.ledger import Ledger

SPACE = space_of(trials=4)
COMPLETE, PRUNED, FAIL = OptunaState.COMPLETE, OptunaState.PRUNED, OptunaState.FAIL
RUNNING, WAITING = OptunaState.RUNNING, OptunaState.WAITING


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return ledger_of(SPACE, tmp_path / "study")


@pytest.fixture
def proposals(ledger: Ledger) -> list[Proposal]:
    """Four points that are recorded, and nothing trained."""
    record(ledger, SPACE, POINTS)
    return all_of(sampler_of(SPACE, ledger))


def write_events(ledger: Ledger, trial_id: str, *times: float) -> None:
    path = ledger.trial(trial_id).path / "events.jsonl"
    path.write_text("")
    for time in times:
        files.append_line(path, {"event": "note", "time": time, "text": ""})


def test_points_that_ended_are_in_optunas_terms(ledger: Ledger, proposals: list[Proposal]) -> None:
    for proposal, how in zip(proposals, (UNMEASURED, INFEASIBLE, FINISHED, FAILED), strict=True):
        outcome = end(ledger, SPACE, proposal, how)
        if how == FINISHED:
            values = [outcome.values[name] for name in OBJECTIVES]
    study = rebuilt(SPACE, ledger)
    assert (study.study_name, study.metric_names) == ("search", OBJECTIVES)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert [trial.state for trial in study.trials] == [FAIL, PRUNED, COMPLETE, FAIL]
    assert [trial.params for trial in study.trials] == POINTS
    assert study.trials[2].values == values
    reasons = [trial.user_attrs.pop("reason", "") for trial in study.trials]
    assert reasons[0] == "co2_kg not measured"
    assert ["it broke" in reason for reason in reasons] == [False, True, False, True]
    assert [(trial.user_attrs["point number"], trial.user_attrs["trial ids"]) for trial in study.trials] == [
        (proposal.number, list(proposal.trial_ids)) for proposal in proposals
    ]


def test_what_is_trained_now_runs_with_its_curve_so_far_and_the_rest_waits(
    ledger: Ledger, proposals: list[Proposal]
) -> None:
    with ExitStack() as stack:
        first = ledger.trial(proposals[1].trial_ids[0])
        stack.enter_context(first.locked())
        first.append_epoch(replace(EPOCH, epoch=0, pseudo_dice=0.25))
        write_events(ledger, first.trial_id, 1_700_000_000.0)
        # Tried again after it failed: it runs.
        end(ledger, SPACE, proposals[2], FAILED)
        stack.enter_context(ledger.trial(proposals[2].trial_ids[0]).locked())
        waits, runs, again, also_waits = rebuilt(SPACE, ledger).trials
    assert [trial.state for trial in (waits, runs, again, also_waits)] == [WAITING, RUNNING, RUNNING, WAITING]
    assert runs.intermediate_values == {1: 0.25}
    assert (runs.datetime_start, runs.datetime_complete) == (datetime.fromtimestamp(1_700_000_000), None)
    # Nobody trains it any more: it waits for the study to be run again.
    assert [trial.state for trial in rebuilt(SPACE, ledger).trials] == [WAITING, WAITING, FAIL, WAITING]


def test_a_trial_has_its_own_times_and_its_curve(ledger: Ledger, proposals: list[Proposal]) -> None:
    end(ledger, SPACE, proposals[0], FINISHED)
    for fold, trial_id in enumerate(proposals[0].trial_ids):
        for epoch, dice in enumerate((0.25, None, 0.5)):
            shifted = None if dice is None else dice + 0.25 * fold
            ledger.trial(trial_id).append_epoch(replace(EPOCH, epoch=epoch, pseudo_dice=shifted))
        write_events(ledger, trial_id, 1_700_000_000.0 + fold, 1_700_000_600.0 + fold)
    shown = rebuilt(SPACE, ledger).trials[0]
    assert shown.datetime_start == datetime.fromtimestamp(1_700_000_000)
    assert shown.datetime_complete == datetime.fromtimestamp(1_700_000_601)
    # The last epochs are as `end` made them.
    assert shown.intermediate_values == {1: 0.375, 3: 0.625, **dict.fromkeys(range(4, 11), 0.7)}


def test_a_list_is_shown_too(tmp_path: Path) -> None:
    space = space_from({**RANDOM_SPACE, "trials": 2})
    ledger = ledger_of(space, tmp_path / "random")
    for proposal in all_of(sampler_of(space, ledger)):
        end(ledger, space, proposal, FINISHED)
    study = rebuilt(space, ledger)
    assert study.metric_names == ["dice", "runtime_seconds"]
    assert [trial.state for trial in study.trials] == [COMPLETE, COMPLETE]


URLS = ["sqlite:///{}/optuna.db", "{}/optuna.log"]


def kept_in(url: str) -> list[optuna.Study]:
    """What somebody else finds in the storage."""
    backend = optuna.storages.journal.JournalFileBackend
    storage = url if "://" in url else optuna.storages.JournalStorage(backend(url))
    return [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]


@pytest.mark.parametrize("where", URLS)
def test_a_copy_is_the_study_as_it_stands_and_replaces_the_earlier_one(
    where: str, ledger: Ledger, proposals: list[Proposal], tmp_path: Path
) -> None:
    url = where.format(tmp_path)
    end(ledger, SPACE, proposals[0], FINISHED)
    for _ in range(2):
        keep(rebuilt(SPACE, ledger), url)
        [copy] = kept_in(url)
        assert [trial.state for trial in copy.trials] == [COMPLETE, WAITING, WAITING, WAITING]
    end(ledger, SPACE, proposals[1], INFEASIBLE)
    study = rebuilt(SPACE, ledger)
    keep(study, url)
    [copy] = kept_in(url)
    assert copy.metric_names == OBJECTIVES
    for copied, trial in zip(copy.trials, study.trials, strict=True):
        for name in ("state", "params", "values", "user_attrs", "intermediate_values", "datetime_start"):
            assert getattr(copied, name) == getattr(trial, name)


@pytest.mark.parametrize("where", URLS)
def test_the_storage_of_another_study_is_refused(where: str, ledger: Ledger, tmp_path: Path) -> None:
    url = where.format(tmp_path)
    keep(rebuilt(SPACE, ledger), url)
    namesake = ledger_of(SPACE, tmp_path / "another")
    with pytest.raises(LedgerError, match="holds another study named 'search'; name another one") as caught:
        keep(rebuilt(SPACE, namesake), url)
    assert "\n" not in str(caught.value)
    keep(rebuilt(space_of(name="renamed"), namesake), url)
    optuna.create_study(study_name="theirs", storage=kept_in(url)[0]._storage, directions=["maximize"])
    with pytest.raises(LedgerError, match="holds another study named 'theirs'"):
        keep(rebuilt(space_of(name="theirs"), ledger), url)
    kept = {study.study_name: len(study.directions) for study in kept_in(url)}
    assert kept == {"search": 3, "renamed": 3, "theirs": 1}


def why_not(ledger: Ledger, url: str) -> str:
    with pytest.raises(MachineError, match=r"the Optuna storage .* cannot be used") as caught:
        keep(rebuilt(SPACE, ledger), url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_locked_database_is_said_to_be_locked(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna_study, "LOCK_SECONDS", 0.1)
    database = tmp_path / "optuna.db"
    keep(rebuilt(SPACE, ledger), f"sqlite:///{database}")
    # Somebody else writes to it all the while.
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert "OperationalError: database is locked" in why_not(ledger, f"sqlite:///{database}")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite:////no/such/folder/optuna.db", "unable to open database file"),
        ("nonsense://somewhere", "nonsense"),
        ("postgresql://user:secret@127.0.0.1:1/db", "postgresql"),
        ("/no/such/folder/optuna.log", "No such file or directory"),
    ],
)
def test_a_storage_that_is_not_there_is_told_without_the_password(ledger: Ledger, url: str, why: str) -> None:
    message = why_not(ledger, url)
    assert why in message
    assert "secret" not in message


@pytest.mark.parametrize("where", URLS)
def test_garbage_is_told(where: str, ledger: Ledger, tmp_path: Path) -> None:
    url = where.format(tmp_path)
    Path(url.removeprefix("sqlite:///")).write_bytes(b"garbage\n" * 100)
    why_not(ledger, url)

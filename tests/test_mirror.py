"""The Optuna storage that shows a study: one contract kept by every back end, and one line for what cannot be used."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from searching import (
    FAILED,
    FINISHED,
    INFEASIBLE,
    OBJECTIVES,
    OPTUNA_SPACE,
    POINTS,
    RANDOM_SPACE,
    UNMEASURED,
    all_of,
    end,
    ledger_of,
    proposer_of,
    record,
    space_of,
)

from study.cluster.searcher import PointSearcher
from study.common.errors import LedgerError, MachineError, StudyError
from study.search import mirror as mirror_module
from study.search.document import space_from
from study.search.mirror import LOST, Mirror, open_mirror
from study.search.proposers import Proposal
from study.search.space import SearchSpace
from study.store.ledger import Ledger
from study.store.outcomes import Outcome

SPACE = space_of(trials=4)
RUNNING, COMPLETE, PRUNED, FAIL = OptunaState.RUNNING, OptunaState.COMPLETE, OptunaState.PRUNED, OptunaState.FAIL


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return ledger_of(SPACE, tmp_path / "study")


@pytest.fixture
def proposals(ledger: Ledger) -> list[Proposal]:
    """Four points that are recorded, and nothing trained."""
    record(ledger, SPACE, POINTS)
    return all_of(proposer_of(SPACE, ledger))


def storage_at(url: str) -> optuna.storages.BaseStorage:
    if "://" in url:
        return optuna.storages.RDBStorage(url)
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(url))


def studies_in(url: str) -> list[optuna.Study]:
    """What somebody else finds in the storage."""
    storage = storage_at(url)
    return [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]


def trials_in(url: str) -> list[FrozenTrial]:
    [study] = studies_in(url)
    return study.trials


def shown(url: str) -> list[tuple[int, OptunaState]]:
    """Point number and state of every trial."""
    return [(trial.user_attrs["point number"], trial.state) for trial in trials_in(url)]


class Contract:
    """What every storage must show."""

    def url(self, folder: Path) -> str:
        raise NotImplementedError

    def away(self, folder: Path) -> AbstractContextManager[None]:
        """While this lasts, the storage cannot be written."""
        raise NotImplementedError

    def open(self, ledger: Ledger, space: SearchSpace = SPACE) -> Mirror:
        return open_mirror(self.url(ledger.root.parent), space, ledger)

    def test_a_new_study_is_shown_with_its_objectives(self, ledger: Ledger) -> None:
        self.open(ledger)
        [study] = studies_in(self.url(ledger.root.parent))
        assert (study.study_name, study.metric_names) == ("search", OBJECTIVES)
        assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
        assert study.trials == []

    def test_a_point_is_running_until_it_is_told(self, ledger: Ledger, proposals: list[Proposal]) -> None:
        mirror, url = self.open(ledger), self.url(ledger.root.parent)
        for proposal in proposals:
            mirror.proposed(proposal)
        trials = trials_in(url)
        assert [trial.state for trial in trials] == [RUNNING] * 4
        assert [trial.params for trial in trials] == POINTS
        assert [trial.user_attrs for trial in trials] == [
            {"point number": proposal.number, "trial ids": list(proposal.trial_ids)} for proposal in proposals
        ]
        for proposal, how in zip(proposals, (UNMEASURED, INFEASIBLE, FINISHED, FAILED), strict=True):
            mirror.told(proposal.number, end(ledger, SPACE, proposal, how))
        trials = trials_in(url)
        assert [trial.state for trial in trials] == [FAIL, PRUNED, COMPLETE, FAIL]
        reasons = [trial.user_attrs.get("reason", "") for trial in trials]
        assert reasons[0] == "co2_kg not measured"
        assert ["it broke" in reason for reason in reasons] == [False, True, False, True]
        assert trials[2].values is not None
        assert mirror.trouble is None

    def test_what_a_killed_driver_left_is_put_right(self, ledger: Ledger, proposals: list[Proposal]) -> None:
        killed, url = self.open(ledger), self.url(ledger.root.parent)
        for proposal in proposals:
            killed.proposed(proposal)
        # It heard of the first alone.
        killed.told(0, end(ledger, SPACE, proposals[0], FINISHED))
        end(ledger, SPACE, proposals[1], FINISHED)
        end(ledger, SPACE, proposals[2], INFEASIBLE)
        mirror = self.open(ledger)
        assert shown(url) == [(0, COMPLETE), (1, COMPLETE), (2, PRUNED), (3, FAIL)]
        assert trials_in(url)[3].user_attrs["reason"] == LOST
        mirror.proposed(proposals[3])
        mirror.told(3, end(ledger, SPACE, proposals[3], FINISHED))
        assert shown(url)[3:] == [(3, FAIL), (3, COMPLETE)]

    def test_what_is_missing_is_rebuilt_once(self, ledger: Ledger, proposals: list[Proposal]) -> None:
        for proposal, how in zip(proposals, (FINISHED, INFEASIBLE, FAILED), strict=False):
            end(ledger, SPACE, proposal, how)
        url = self.url(ledger.root.parent)
        for _ in range(3):
            self.open(ledger)
            assert shown(url) == [(0, COMPLETE), (1, PRUNED), (2, FAIL)]
        assert trials_in(url)[0].params == POINTS[0]

    def test_a_list_is_shown_too(self, tmp_path: Path) -> None:
        space = space_from({**RANDOM_SPACE, "trials": 2})
        ledger = ledger_of(space, tmp_path / "random")
        mirror = self.open(ledger, space)
        for proposal in all_of(proposer_of(space, ledger)):
            mirror.proposed(proposal)
            mirror.told(proposal.number, end(ledger, space, proposal, FINISHED))
        [study] = studies_in(self.url(tmp_path))
        assert study.metric_names == ["dice", "runtime_seconds"]
        assert [trial.state for trial in study.trials] == [COMPLETE, COMPLETE]

    def test_the_storage_of_another_study_is_refused(self, ledger: Ledger, tmp_path: Path) -> None:
        self.open(ledger)
        another = ledger_of(SPACE, tmp_path / "another")
        with pytest.raises(LedgerError, match="holds another study named 'search'; name another one") as caught:
            self.open(another)
        assert "\n" not in str(caught.value)
        renamed = space_of(name="renamed")
        self.open(ledger_of(renamed, tmp_path / "renamed"), renamed)
        assert {study.study_name for study in studies_in(self.url(tmp_path))} == {"search", "renamed"}

    def test_a_study_that_was_made_without_us_is_refused(self, ledger: Ledger) -> None:
        theirs = optuna.create_study(
            study_name="search", storage=storage_at(self.url(ledger.root.parent)), directions=["maximize"]
        )
        theirs.add_trial(optuna.trial.create_trial(state=FAIL))
        with pytest.raises(LedgerError, match="holds another study named 'search'"):
            self.open(ledger)

    def test_a_storage_that_is_away_stops_the_mirror_alone_until_it_is_back(
        self, ledger: Ledger, proposals: list[Proposal], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mirror_module, "LOCK_SECONDS", 0.1)
        monkeypatch.setattr(mirror_module, "PAUSE_SECONDS", 0.0)
        mirror, url = self.open(ledger), self.url(ledger.root.parent)
        mirror.proposed(proposals[0])
        with self.away(ledger.root.parent):
            mirror.told(0, end(ledger, SPACE, proposals[0], FINISHED))
            mirror.proposed(proposals[1])
            assert mirror.trouble is not None
            assert "\n" not in mirror.trouble
        mirror.told(1, end(ledger, SPACE, proposals[1], FAILED))
        assert mirror.trouble is None
        assert shown(url) == [(0, COMPLETE), (1, FAIL)]

    def test_it_follows_a_searcher(self, ledger: Ledger) -> None:
        url = self.url(ledger.root.parent)
        searcher = PointSearcher(proposer_of(SPACE, ledger), self.open(ledger))
        for number in range(3):
            searcher.suggest(f"tune-{number}")
        measured = {"dice": 0.5, "runtime_seconds": 3.0, "co2_kg": 0.1}
        searcher.on_trial_complete("tune-2", {"outcome": "finished", **measured})
        searcher.on_trial_complete("tune-0", None, error=True)
        assert shown(url) == [(0, FAIL), (1, RUNNING), (2, COMPLETE)]
        assert [trial.params for trial in trials_in(url)] == [known["point"] for known in ledger.points()]

    def test_a_driver_that_is_killed_while_it_writes_leaves_a_storage_that_is_put_right(self, ledger: Ledger) -> None:
        url = self.url(ledger.root.parent)
        record(ledger, SPACE, POINTS[:1])
        kill_while_writing(url, ledger.root)
        before = shown(url)
        assert len(before) >= 5
        mirror = self.open(ledger)
        proposal = proposer_of(SPACE, ledger).propose()
        assert proposal is not None
        mirror.proposed(proposal)
        mirror.told(proposal.number, Outcome(state=FAILED))
        after = shown(url)
        assert len(after) == len(before) + 1
        assert {state for _, state in after} == {FAIL}


class TestSqlite(Contract):
    def url(self, folder: Path) -> str:
        return f"sqlite:///{folder / 'optuna.db'}"

    @contextmanager
    def away(self, folder: Path) -> Iterator[None]:
        with held(folder / "optuna.db"):
            yield


class TestJournal(Contract):
    def url(self, folder: Path) -> str:
        (folder / "journal").mkdir(exist_ok=True)
        return str(folder / "journal" / "optuna.log")

    @contextmanager
    def away(self, folder: Path) -> Iterator[None]:
        (folder / "journal").rename(folder / "gone")
        yield
        (folder / "gone").rename(folder / "journal")


@contextmanager
def held(database: Path) -> Iterator[None]:
    """Somebody else writes to the database all the while."""
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()


WRITE_ON = """
import json, sys
from pathlib import Path
from study.search.mirror import open_mirror
from study.search.proposers import known_points
from study.store.ledger import Ledger
from study.search.document import space_from
url, root, document = sys.argv[1:]
space, ledger = space_from(json.loads(document)), Ledger.open(Path(root))
mirror, [known] = open_mirror(url, space, ledger), known_points(space, ledger)
while True:
    mirror.proposed(known.proposal)
    print("shown", flush=True)
"""


def kill_while_writing(url: str, study: Path) -> None:
    """A process that shows the same point over and over, killed once it has done so a few times."""
    command = [sys.executable, "-c", WRITE_ON, url, str(study), json.dumps(OPTUNA_SPACE)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert [process.stdout.readline() for _ in range(5)] == ["shown\n"] * 5
        finally:
            process.kill()


# ------------------------------------------------------------------------------------------- what cannot be used


def one_line(ledger: Ledger, url: str) -> str:
    """Why the storage cannot be used."""
    with pytest.raises(MachineError, match=r"the Optuna storage .* cannot be used") as caught:
        open_mirror(url, SPACE, ledger)
    assert isinstance(caught.value, StudyError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_locked_database_is_said_to_be_locked(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "LOCK_SECONDS", 0.1)
    database = ledger.root.parent / "optuna.db"
    open_mirror(f"sqlite:///{database}", SPACE, ledger)
    with held(database):
        assert "OperationalError: database is locked" in one_line(ledger, f"sqlite:///{database}")


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
    message = one_line(ledger, url)
    assert why in message
    assert "secret" not in message


@pytest.mark.parametrize("name", ["optuna.db", "optuna.log"])
def test_garbage_is_told(ledger: Ledger, name: str) -> None:
    path = ledger.root.parent / name
    path.write_bytes(b"garbage\n" * 100)
    one_line(ledger, f"sqlite:///{path}" if name.endswith(".db") else str(path))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_journal_that_was_cut_short_is_completed(ledger: Ledger, proposals: list[Proposal], share: float) -> None:
    path = ledger.root.parent / "optuna.log"
    mirror = open_mirror(str(path), SPACE, ledger)
    for proposal in proposals:
        mirror.proposed(proposal)
        mirror.told(proposal.number, end(ledger, SPACE, proposal, FINISHED))
    os.truncate(path, int(path.stat().st_size * share))
    open_mirror(str(path), SPACE, ledger)
    assert {number for number, state in shown(str(path)) if state is COMPLETE} == {0, 1, 2, 3}
    assert {state for _, state in shown(str(path))} <= {COMPLETE, FAIL}

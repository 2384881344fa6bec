"""Trials and studies in object storage: scratch copies of trials, the ledger of a study, and verbs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from buckets import Bucket, environment, needs_moto
from prepared import SHORT, final_weights, spec_of, train, workplace

from study.buckets.archive import Archive
from study.buckets.checkout import RemoteCheckout
from study.buckets.shared_ledger import study_ledger, trouble_here
from study.buckets.storage import Storage, StorageError
from study.buckets.view import SCRATCH_VARIABLE, viewed
from study.common.errors import LedgerError, TrialBusyError, TrialInterrupted
from study.nnunet.datasets import data_paths
from study.store.audit import audit_trial
from study.store.ledger import Ledger
from study.store.trial_folder import TrialFolder, TrialState

REPOSITORY = Path(__file__).resolve().parent.parent
SPEC_TEXT = b'{"made": "up"}'


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's, for the test alone."""
    monkeypatch.setenv(SCRATCH_VARIABLE, str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@contextmanager
def machine(path: Path) -> Iterator[None]:
    """Another machine's scratch folder for a while."""
    with environment({SCRATCH_VARIABLE: str(path)}):
        yield


def made(storage: Storage) -> Storage:
    """A storage with a study in it."""
    with study_ledger(storage.url):
        pass
    return storage


def work(storage: Storage, data: Path, *, after: int | None) -> TrialFolder:
    """Train a trial here until an iteration, or to its final validation."""
    checkout = RemoteCheckout(storage.url, waits=False)
    ledger, spec = Ledger.open(checkout.study), spec_of(data_paths(data))
    with checkout.checked_out(ledger.add(spec)):
        return train(spec, ledger, workplace(data_paths(data)), after=after)


@pytest.mark.cluster
def test_a_trial_moves_from_machine_to_machine(storage: Storage, data: Path, tmp_path: Path) -> None:
    made(storage)
    with machine(tmp_path / "a"):
        here = work(storage, data, after=10)
    with machine(tmp_path / "b"):
        there = work(storage, data, after=20)
        assert here.path != there.path
        assert [header.resumed_from_iteration for header in there.attempts()] == [0, 10]
    # The copy of the first machine is older than the bucket's, and is not what goes on.
    with machine(tmp_path / "a"):
        again = work(storage, data, after=None)
        assert again.path == here.path
        assert [header.resumed_from_iteration for header in again.attempts()] == [0, 10, 20]
        audit_trial(again)
    with viewed(storage.url) as view:
        [trial] = view.ledger.trials()
        audit_trial(trial)
        assert trial.state() is TrialState.INTERRUPTED
        assert trial.epochs()[-1].iteration == SHORT["epochs"] * SHORT["iterations_per_epoch"]
    whole = train(spec_of(data_paths(data)), Ledger.create(tmp_path / "whole"), workplace(data_paths(data)))
    assert final_weights(again) == final_weights(whole)


def test_a_scratch_copy_that_is_ahead_of_the_storage_is_kept(storage: Storage, data: Path, tmp_path: Path) -> None:
    """As after a kill between a checkpoint and its commit, on a machine that is still there."""
    made(storage)
    work(storage, data, after=10)
    checkout = RemoteCheckout(storage.url)
    folder = train(spec_of(data_paths(data)), Ledger.open(checkout.study), workplace(data_paths(data)), after=20)
    before = Archive(storage=storage, name=folder.trial_id).latest()
    with checkout.checked_out(folder):
        assert folder.attempts()[-1].resumed_from_iteration == 10
    after = Archive(storage=storage, name=folder.trial_id).latest()
    assert before is not None
    assert after is not None
    assert "attempts/001.json" not in before.documents
    assert "attempts/001.json" in after.documents


def test_a_trial_is_trained_by_one_process(storage: Storage, data: Path) -> None:
    made(storage)
    spec = spec_of(data_paths(data))
    first, second = RemoteCheckout(storage.url, waits=False), RemoteCheckout(storage.url, waits=False)
    folder = Ledger.open(first.study).add(spec)
    with (
        first.checked_out(folder),
        pytest.raises(TrialBusyError, match="is being trained by process"),
        second.checked_out(folder),
    ):
        pass


def test_who_waits_for_a_trial_ends_when_the_study_is_stopped(storage: Storage, data: Path) -> None:
    with study_ledger(storage.url) as ledger:
        ledger.post_stop(Path("a-run"))
        first, second = RemoteCheckout(storage.url), RemoteCheckout(storage.url, "a-run")
        folder = Ledger.open(first.study).add(spec_of(data_paths(data)))
        with first.checked_out(folder), pytest.raises(TrialInterrupted), second.checked_out(folder):
            pass


def test_a_training_is_told_that_the_study_is_stopped(
    storage: Storage, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.buckets.checkout.STOP_POLL_SECONDS", 0.05)
    with study_ledger(storage.url) as ledger:
        checkout = RemoteCheckout(storage.url, "a-run")
        with checkout.checked_out(Ledger.open(checkout.study).add(spec_of(data_paths(data)))) as stop_file:
            assert not stop_file.exists()
            ledger.post_stop(Path("a-run"))
            deadline = time.monotonic() + 600
            while not stop_file.exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert not stop_file.exists()
        with ledger.locked():
            pass
        assert storage.entries("stop") == {}


def test_a_storage_that_goes_away_loses_nothing(
    storage: Storage, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(storage)
    monkeypatch.setattr("study.buckets.storage.PAUSES_SECONDS", (0.01, 0.01))
    checkout = RemoteCheckout(storage.url)
    ledger, spec = Ledger.open(checkout.study), spec_of(data_paths(data))
    folder = ledger.add(spec)
    with ExitStack() as stack:
        with pytest.raises(StorageError, match="nothing is lost: ") as error, checkout.checked_out(folder):
            train(spec, ledger, workplace(data_paths(data)), after=10)
            stack.enter_context(pytest.MonkeyPatch.context()).setattr(Storage, "put", _away)
        assert str(folder.path) in str(error.value)
        assert "does not answer; trying again in" in folder.log_path.read_text()
    with checkout.checked_out(folder):
        assert folder.cost_intervals()[-1].iteration_stop == 10
    found = Archive(storage=storage, name=folder.trial_id).latest()
    assert found is not None
    assert any(path.endswith(".pth") for path in found.models)


def _away(storage: Storage, *_: object) -> None:
    raise StorageError(f"{storage.url}: the endpoint does not answer")


def test_what_a_driver_adds_is_in_the_storage_at_once(storage: Storage) -> None:
    with study_ledger(storage.url, space={"name": "x"}) as ledger, ledger.locked():
        ledger.amend(provenance={"code": {"a": "1"}})
        ledger.add_point(0, {"x": 1}, ["abc"])
        with viewed(storage.url) as view:
            assert view.ledger.header()["provenance"] == {"code": {"a": "1"}}
            assert view.ledger.points() == [{"number": 0, "point": {"x": 1}, "trial_ids": ["abc"]}]
            runner = view.ledger.runner()
            assert runner is not None
            assert runner.pid == os.getpid()
        with (
            pytest.raises(LedgerError, match="is being run by process"),
            study_ledger(storage.url) as other,
            other.locked(),
        ):
            pass
    with viewed(storage.url) as view:
        assert view.ledger.runner() is None
    with (
        pytest.raises(LedgerError, match=f"^{storage.url} belongs to another study: name differ"),
        study_ledger(storage.url, space={"name": "y"}),
    ):
        pass


def test_a_node_that_sees_another_storage_says_so(storage: Storage) -> None:
    assert trouble_here(storage.url) == f"{storage.url} is another storage there: the study is not in it"
    made(storage)
    assert trouble_here(storage.url) is None


def study_verb(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "study", *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
    )


@needs_moto
@pytest.mark.cluster
def test_a_trial_by_hand_is_kept_in_a_bucket(bucket: Bucket, data: Path, tmp_path: Path) -> None:
    url = bucket.url("by-hand")
    settings = ("--epochs", "2", "--iterations-per-epoch", "4", "--validation-batches", "1", "--no-mirroring")
    machine_options = ("--device", "cpu", "--cpus", "1", "--data-workers", "0", "--meter", "none")
    words = ("trial", "--data", str(data), "--dataset", "901", "--plans", "CubePlans", "--out", url)
    first = study_verb(*words, *settings, *machine_options, "--json")
    assert first.returncode == 0, first.stderr
    with machine(tmp_path / "elsewhere"):
        second = study_verb(*words, *settings, *machine_options, "--json")
    results = [json.loads(ended.stdout) for ended in (first, second)]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert len(results[1]["attempts"]) == 1
    trial = results[0]["trial_id"]
    assert f"nnUNet_results=COPY_OF_{url}/models/{trial}/000001/results" in results[1]["predict"]
    with viewed(url) as view:
        assert view.ledger.trial(trial).by_hand
    assert study_verb("status", url).returncode == 0

"""The parts of a study in object storage: locks, snapshots, commits, scratch copies, and what is said of trouble.

They are tried on a folder, which behaves like object storage, and against an S3 server; whole studies are in
`test_remote_studies`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket, environment, needs_moto, s3_server
from prepared import SHORT, final_weights, spec_of, train, workplace

from study import locks
from study.audit import audit_trial
from study.datasets import data_paths
from study.errors import LedgerError, LockedError, TrialBusyError, TrialInterrupted
from study.ledger import Ledger
from study.remote import is_url, place
from study.remote.depot import Commit, CommitName, Committer, Depot, Model, unpack
from study.remote.lease import holder_of, leased
from study.remote.shared_ledger import post_stop, study_ledger, trouble_here
from study.remote.snapshot import Document, snapshot
from study.remote.storage import Storage, StorageError
from study.remote.view import SCRATCH_VARIABLE, viewed
from study.remote.workshop import RemoteWorkshop
from study.trial_folder import TrialFolder, TrialState

REPOSITORY = Path(__file__).resolve().parent.parent
SPEC_TEXT = b'{"made": "up"}'


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log.txt") as made, environment(made.environment):
        yield made


@pytest.fixture(params=["file", pytest.param("s3", marks=needs_moto)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty place in each kind of storage that can be shared."""
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        return Storage(bucket.url(tmp_path.name))
    return Storage(f"file://{tmp_path}/bucket/study")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's, for the test alone."""
    monkeypatch.setenv(SCRATCH_VARIABLE, str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def put_lock(storage: Storage, number: int, holder: locks.Holder) -> str:
    key = f"locks/study/{number:06d}-{holder.token}.json"
    storage.write(key, json.dumps({**asdict(holder), "renewed": time.time()}).encode())
    return key


def elsewhere(**changes: Any) -> locks.Holder:
    """A holder on another machine, of whom nobody here can know whether it lives."""
    return replace(locks.Holder.this_process(), machine="another", host="node7", **changes)


# ---------------------------------------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize("text", ["s3://bucket/a/b", "gs://bucket/a", "file:///a/b", "memory://a"])
def test_urls_stay_what_they_are(text: str) -> None:
    assert place(text + "/") == text
    assert is_url(place(text))


@pytest.mark.parametrize("text", ["studies/demo", "/a/b", "s3:/a", "."])
def test_paths_are_folders(text: str) -> None:
    assert place(text) == Path(text)
    assert not is_url(place(text))


# ------------------------------------------------------------------------------------------------------------- storage


@pytest.mark.parametrize("fsspec", [False, True])
def test_what_is_put_is_there_whole(storage: Storage, tmp_path: Path, fsspec: bool) -> None:
    storage = Storage(f"memory://{tmp_path}/study") if fsspec else storage
    storage.check_writable()
    assert storage.read("a/b") is None
    storage.put("a/b", iter([b"one", b"", b"two"]))
    storage.write("a/c", b"x")
    assert storage.read("a/b") == b"onetwo"
    assert {key: entry.size for key, entry in storage.entries("a").items()} == {"a/b": 6, "a/c": 1}
    storage.write("a/b", b"new")
    assert b"".join(storage.chunks("a/b")) == b"new"
    storage.delete("a/b")
    storage.delete("a/b")
    assert list(storage.entries("a")) == ["a/c"]
    assert storage.entries("b") == {}


def test_a_put_that_breaks_off_puts_nothing(storage: Storage) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    storage.write("key", b"whole")
    if storage.url.startswith("file"):
        with pytest.raises(KeyboardInterrupt):
            storage.put("key", pieces())
        assert storage.read("key") == b"whole"
        assert list(storage.entries("")) == ["key"]


# --------------------------------------------------------------------------------------------------------------- locks


def test_a_lock_has_one_holder(storage: Storage) -> None:
    with leased(storage, "locks/study") as first:
        assert first.number == 1
        found = holder_of(storage, "locks/study")
        assert found is not None
        assert found.holder.pid == os.getpid()
        with pytest.raises(LockedError, match=f"process {os.getpid()} on "), leased(storage, "locks/study"):
            pass
        assert not first.is_lost()
    assert holder_of(storage, "locks/study") is None
    assert storage.entries("locks") == {}


def test_the_lock_of_a_process_that_ended_here_is_taken_over_at_once(storage: Storage) -> None:
    gone = replace(locks.Holder.this_process(), born=1)
    put_lock(storage, 7, gone)
    said: list[str] = []
    with leased(storage, "locks/study", on_takeover=said.append) as lease:
        assert lease.number == 8
        assert list(storage.entries("locks")) == [lease.key]
    assert said == [f"took over from {gone}, which has ended"]


def test_a_lock_that_another_machine_renewed_just_now_is_respected(storage: Storage) -> None:
    put_lock(storage, 3, elsewhere())
    with pytest.raises(LockedError, match="on node7 since"), leased(storage, "locks/study"):
        pass
    assert len(storage.entries("locks")) == 1


def test_a_lock_that_nobody_renews_is_taken_over(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.remote.lease.STALE_SECONDS", -1e9)
    monkeypatch.setattr("study.remote.lease.BEAT_SECONDS", 0.01)
    put_lock(storage, 3, elsewhere())
    with leased(storage, "locks/study", on_loss=lambda: None) as lease:
        assert lease.number == 4


def test_of_many_who_want_a_lock_at_once_never_two_have_it(storage: Storage) -> None:
    inside, most, had = [0], [0], [0]
    guard, start = threading.Lock(), threading.Barrier(6)

    def want() -> None:
        start.wait()
        try:
            with leased(storage, "locks/study", on_loss=lambda: None):
                with guard:
                    inside[0] += 1
                    had[0] += 1
                    most[0] = max(most[0], inside[0])
                with guard:
                    inside[0] -= 1
        except LockedError:
            pass

    threads = [threading.Thread(target=want) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert had[0] >= 1


def test_who_was_taken_over_notices_at_the_next_beat(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.remote.lease.BEAT_SECONDS", 0.01)
    noticed = threading.Event()
    with leased(storage, "locks/study", on_loss=noticed.set) as lease:
        put_lock(storage, lease.number + 1, elsewhere())
        assert noticed.wait(60)
        assert lease.is_lost()


def test_a_holder_renews_its_record(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.remote.lease.BEAT_SECONDS", 0.01)
    with leased(storage, "locks/study") as lease:
        before, renewed = storage.read(lease.key), None
        while renewed in (None, before):
            renewed = storage.read(lease.key)
        before_seconds, renewed_seconds = (float(json.loads(text or b"")["renewed"]) for text in (before, renewed))
        assert renewed_seconds > before_seconds


def test_a_number_is_above_those_of_all_commits(storage: Storage) -> None:
    depot = Depot(storage=storage)
    depot.put(Commit(name=CommitName(number=5, serial=2), documents={}, models={}))
    with leased(storage, depot.locks, at_least=depot.next_number) as lease:
        assert lease.number == 6


# ------------------------------------------------------------------------------------------------------------- commits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A trial's folder with made-up content."""
    made = tmp_path / "made"
    for name, content in {
        "spec.json": SPEC_TEXT,
        "attempts/000.json": b"{}",
        "costs.jsonl": b"\xff\x00 damaged",
        "results/d/fold_0/checkpoint_latest.pth": b"weights",
        "results/d/fold_0/.checkpoint_latest.pth.new": b"unfinished",
        "results/d/plans.json": b"{}",
        "results/d/fold_0/validation/case.nii.gz": b"voxels",
        "log.txt": b"said",
        "locks/000001.json": b"{}",
        "unknown": b"?",
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    return made


def commit(committer: Committer, folder: Path) -> Commit:
    with snapshot(folder) as found:
        assert found is not None
        return committer.commit(found)


def test_a_snapshot_has_what_a_trial_resumes_from(folder: Path) -> None:
    with snapshot(folder) as found:
        assert found is not None
        assert set(found.documents) == {"spec.json", "attempts/000.json", "costs.jsonl"}
        assert set(found.models) == {"results/d/fold_0/checkpoint_latest.pth", "results/d/plans.json"}
    (folder / "result.json").write_text("{}")
    with snapshot(folder) as found:
        assert found is not None
        assert "results/d/fold_0/validation/case.nii.gz" in found.models


def test_a_snapshot_fits_together_while_somebody_writes(folder: Path) -> None:
    """Each of two files is written after the other: what is read never has the later one without the earlier one."""
    end = threading.Event()

    def write() -> None:
        number = 0
        while not end.wait(0.005):
            number += 1
            for name in ("costs.jsonl", "epochs.jsonl"):
                (folder / f".{name}").write_bytes(b"%d" % number)
                (folder / f".{name}").replace(folder / name)

    writer = threading.Thread(target=write)
    (folder / "costs.jsonl").write_bytes(b"0")
    (folder / "epochs.jsonl").write_bytes(b"0")
    writer.start()
    try:
        costs = 0
        while costs < 50:
            with snapshot(folder) as found:
                if found is not None:
                    costs, epochs = (int(found.documents[f"{name}.jsonl"].content) for name in ("costs", "epochs"))
                    assert costs in (epochs, epochs + 1)
    finally:
        end.set()
        writer.join()


def test_a_commit_is_unpacked_as_it_was(storage: Storage, folder: Path, tmp_path: Path) -> None:
    depot = Depot(storage=storage, name="trial")
    commit(Committer(depot, 1), folder)
    found, copy = depot.latest(), tmp_path / "copy"
    assert found is not None
    (copy / "attempts").mkdir(parents=True)
    (copy / "attempts" / "001.json").write_text("of another way")
    (copy / "log.txt").write_text("stays")
    unpack(found, copy, durable=False)
    assert depot.fetch(found, copy)
    files = {str(path.relative_to(copy)): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert files == {
        "spec.json": SPEC_TEXT,
        "attempts/000.json": b"{}",
        "costs.jsonl": b"\xff\x00 damaged",
        "results/d/fold_0/checkpoint_latest.pth": b"weights",
        "results/d/plans.json": b"{}",
        "log.txt": b"stays",
    }
    assert (copy / "spec.json").stat().st_mtime_ns == (folder / "spec.json").stat().st_mtime_ns


def test_only_what_changed_is_put_and_what_was_replaced_goes(storage: Storage, folder: Path) -> None:
    depot = Depot(storage=storage, name="trial")
    committer, place_of = Committer(depot, 2), folder / "results" / "d" / "fold_0"
    first = commit(committer, folder)
    (place_of / "checkpoint_latest.pth").rename(place_of / "checkpoint_previous.pth")
    (place_of / "checkpoint_latest.pth").write_bytes(b"newer")
    second = commit(committer, folder)
    old, new, plans = (
        first.models["results/d/fold_0/checkpoint_latest.pth"],
        second.models["results/d/fold_0/checkpoint_latest.pth"],
        second.models["results/d/plans.json"],
    )
    # A rename puts nothing.
    assert second.models["results/d/fold_0/checkpoint_previous.pth"] == old
    assert plans == first.models["results/d/plans.json"]
    assert sorted(depot.model_keys()) == sorted([old.key, new.key, plans.key])
    assert depot.commits() == [second.name]
    (place_of / "checkpoint_previous.pth").unlink()
    commit(committer, folder)
    assert old.key not in depot.model_keys()


def test_who_lost_the_lock_cannot_undo_a_commit(storage: Storage, folder: Path) -> None:
    depot = Depot(storage=storage, name="trial")
    late, successor = Committer(depot, 1), Committer(depot, 2)
    commit(late, folder)
    (folder / "costs.jsonl").write_bytes(b"of the successor")
    commit(successor, folder)
    (folder / "costs.jsonl").write_bytes(b"late")
    (folder / "results" / "d" / "fold_0" / "checkpoint_latest.pth").write_bytes(b"late")
    commit(late, folder)
    found = depot.latest()
    assert found is not None
    assert found.documents["costs.jsonl"].content == b"of the successor"
    assert {model.key for model in found.models.values()} <= set(depot.model_keys())


def test_models_that_changed_in_the_storage_are_not_believed(storage: Storage, folder: Path, tmp_path: Path) -> None:
    depot = Depot(storage=storage, name="trial")
    made = commit(Committer(depot, 1), folder)
    storage.write(made.models["results/d/plans.json"].key, b"[]")
    with pytest.raises(StorageError, match=r"plans\.json is damaged: it is not what was put there"):
        depot.fetch(made, tmp_path / "copy")


@pytest.mark.parametrize("path", ["../spec.json", "/etc/passwd", "results/../../x", "unknown.json"])
def test_a_commit_cannot_write_outside_its_folder(storage: Storage, path: str) -> None:
    depot = Depot(storage=storage, name="trial")
    model = {path: Model(key="k", sha256="")}
    document = {path: Document(content=b"", mtime_ns=0)}
    for serial, (documents, models) in enumerate([(document, {}), ({}, model)], start=1):
        depot.put(Commit(name=CommitName(number=1, serial=serial), documents=documents, models=models))
        with pytest.raises(StorageError, match="is no file of a study; restore it from a backup"):
            depot.latest()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x1f\x8b\x08\x00"])
def test_a_damaged_commit_is_named(storage: Storage, content: bytes) -> None:
    storage.write("records/study/000001-000001.json.gz", content)
    with pytest.raises(StorageError, match=r"records/study/000001-000001\.json\.gz is damaged: .*restore it"):
        Depot(storage=storage).latest()


# ------------------------------------------------------------------------------------------------------ scratch copies


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
    workshop = RemoteWorkshop(storage.url, waits=False)
    ledger, spec = Ledger.open(workshop.study), spec_of(data_paths(data))
    with workshop.checked_out(ledger.add(spec)):
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
    workshop = RemoteWorkshop(storage.url)
    folder = train(spec_of(data_paths(data)), Ledger.open(workshop.study), workplace(data_paths(data)), after=20)
    before = Depot(storage=storage, name=folder.trial_id).latest()
    with workshop.checked_out(folder):
        assert folder.attempts()[-1].resumed_from_iteration == 10
    after = Depot(storage=storage, name=folder.trial_id).latest()
    assert before is not None
    assert after is not None
    assert "attempts/001.json" not in before.documents
    assert "attempts/001.json" in after.documents


def test_a_trial_is_trained_by_one_process(storage: Storage, data: Path) -> None:
    made(storage)
    spec = spec_of(data_paths(data))
    first, second = RemoteWorkshop(storage.url, waits=False), RemoteWorkshop(storage.url, waits=False)
    folder = Ledger.open(first.study).add(spec)
    with (
        first.checked_out(folder),
        pytest.raises(TrialBusyError, match="is being trained by process"),
        second.checked_out(folder),
    ):
        pass


def test_who_waits_for_a_trial_ends_when_the_study_is_stopped(storage: Storage, data: Path) -> None:
    with study_ledger(storage.url) as ledger:
        post_stop(ledger, Path("a-run"))
        first, second = RemoteWorkshop(storage.url), RemoteWorkshop(storage.url, "a-run")
        folder = Ledger.open(first.study).add(spec_of(data_paths(data)))
        with first.checked_out(folder), pytest.raises(TrialInterrupted), second.checked_out(folder):
            pass


def test_a_training_is_told_that_the_study_is_stopped(
    storage: Storage, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.remote.pusher.STOP_POLL_SECONDS", 0.05)
    with study_ledger(storage.url) as ledger:
        workshop = RemoteWorkshop(storage.url, "a-run")
        with workshop.checked_out(Ledger.open(workshop.study).add(spec_of(data_paths(data)))) as stop_file:
            assert not stop_file.exists()
            post_stop(ledger, Path("a-run"))
            deadline = time.monotonic() + 60
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
    monkeypatch.setattr("study.remote.retries.PAUSES_SECONDS", (0.01, 0.01))
    workshop = RemoteWorkshop(storage.url)
    ledger, spec = Ledger.open(workshop.study), spec_of(data_paths(data))
    folder = ledger.add(spec)
    with ExitStack() as stack:
        with pytest.raises(StorageError, match="nothing is lost: ") as error, workshop.checked_out(folder):
            train(spec, ledger, workplace(data_paths(data)), after=10)
            stack.enter_context(pytest.MonkeyPatch.context()).setattr(Storage, "put", _away)
        assert str(folder.path) in str(error.value)
        assert "does not answer; trying again in" in folder.log_path.read_text()
    with workshop.checked_out(folder):
        assert folder.cost_intervals()[-1].iteration_stop == 10
    found = Depot(storage=storage, name=folder.trial_id).latest()
    assert found is not None
    assert any(path.endswith(".pth") for path in found.models)


def _away(storage: Storage, *_: object) -> None:
    raise StorageError(f"{storage.url}: the endpoint does not answer")


# ----------------------------------------------------------------------------------------------------- ledger and verbs


def test_what_a_driver_adds_is_in_the_storage_at_once(storage: Storage) -> None:
    with study_ledger(storage.url, space={"name": "x"}) as ledger, ledger.locked():
        ledger.amend(provenance={"a": 1})
        ledger.add_point(0, {"x": 1}, ["abc"])
        with viewed(storage.url) as view:
            assert view.ledger.header()["provenance"] == {"a": 1}
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


# --------------------------------------------------------------------------------------------- what is said of trouble


LISTING = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"


class _Refusing(BaseHTTPRequestHandler):
    """An S3 server that shows empty buckets and lets nobody write."""

    def do_GET(self) -> None:
        self._answer(200, LISTING)

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")

    do_POST = do_PUT

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def refusing() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


S3 = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


def test_a_bucket_that_may_not_be_written_is_said_so() -> None:
    with (
        refusing() as endpoint,
        environment({**S3, "AWS_ENDPOINT_URL": endpoint}),
        pytest.raises(StorageError) as error,
    ):
        Storage("s3://b/x").check_writable()
    said = "s3://b/x may not be written with the credentials found here; have the permission granted, or use others"
    assert str(error.value) == said


def test_missing_credentials_are_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with (
        refusing() as endpoint,
        environment({"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}),
        pytest.raises(StorageError, match=r"^s3://b/x: no credentials are found here; set AWS_ACCESS_KEY_ID and"),
    ):
        Storage("s3://b/x").check_writable()


def test_an_endpoint_that_does_not_answer_is_said_so() -> None:
    with environment({**S3, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}), pytest.raises(StorageError) as error:
        Storage("s3://b/x").check_exists()
    assert str(error.value).startswith(
        "s3://b/x: the endpoint at http://127.0.0.1:1 does not answer; check network and"
    )


@needs_moto
@pytest.mark.parametrize("words", [("status",), ("run", "search_spaces/smoke.yaml", "--out")])
def test_a_bucket_that_is_not_there_is_said_so_in_one_line(bucket: Bucket, data: Path, words: tuple[str, ...]) -> None:
    more = ("--data", str(data), "--dataset", "901", "--plans", "CubePlans", "--gpus", "0") if words[0] == "run" else ()
    ended = study_verb(*words, "s3://nowhere/study", *more)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: s3://nowhere/study: there is no bucket 'nowhere'")
    assert "Traceback" not in ended.stderr


@needs_moto
def test_a_bucket_without_a_study_is_said_so(bucket: Bucket) -> None:
    ended = study_verb("status", bucket.url("nothing"))
    assert (ended.returncode, ended.stderr) == (2, f"error: no study at {bucket.url('nothing')}\n")


def test_a_node_that_sees_another_storage_says_so(storage: Storage) -> None:
    assert trouble_here(storage.url) == f"{storage.url} is another storage there: the study is not in it"
    made(storage)
    assert trouble_here(storage.url) is None

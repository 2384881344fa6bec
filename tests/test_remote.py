"""The parts of a study in object storage: URLs, what is put, snapshots and commits.

They are tried on a folder, which behaves like object storage, and against an S3 server; whole studies are in
`test_remote_studies`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from examples import HEADER, make_spec
from locking import elsewhere, put_lock

from study.buckets.archive import Archive, Commit, CommitName, Committer, Document, Model, snapshot, unpack
from study.buckets.lease import Lease
from study.buckets.storage import Storage, StorageError, is_url, local, place
from study.buckets.view import View
from study.cli.options import absolute
from study.common.errors import InvalidInputError
from study.store.ledger import Ledger
from study.store.locks import held

SPEC_TEXT = b'{"made": "up"}'


@pytest.mark.parametrize("text", ["s3://bucket/a/b", "gs://bucket/a", "file:///a/b", "memory://a"])
def test_urls_stay_what_they_are(text: str) -> None:
    assert place(text + "/") == text
    assert is_url(place(text))


@pytest.mark.parametrize("text", ["studies/demo", "/a/b", "x y/é", "."])
def test_paths_are_folders(text: str) -> None:
    assert place(text) == Path(text)
    assert not is_url(place(text))


@pytest.mark.parametrize("text", ["", " ", "s3:/a", "s3://", "file:", "file:///", "a\0b", "\udc00"])
def test_what_is_neither_is_refused(text: str) -> None:
    for read in (place, local, absolute):
        with pytest.raises(InvalidInputError, match="legal is a path; object storage is SCHEME://BUCKET/KEY"):
            read(text)


@pytest.mark.parametrize("fsspec", [False, True])
def test_what_is_put_is_there_whole(storage: Storage, tmp_path: Path, fsspec: bool) -> None:
    storage = Storage(f"memory://{tmp_path}/study") if fsspec else storage
    storage.check_writable()
    assert storage.read("a/b") is None
    storage.put("a/b", iter([b"one", b"", b"two"]))
    storage.write("a/c", b"x")
    assert storage.read("a/b") == b"onetwo"
    assert sorted(storage.entries("a")) == ["a/b", "a/c"]
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


@pytest.mark.parametrize(("lower", "higher"), [((999_999, 999_999), (1_000_000, 1)), ((7, 999_999), (7, 1_000_000))])
def test_numbers_beyond_six_figures_count_as_numbers(
    storage: Storage, tmp_path: Path, lower: tuple[int, int], higher: tuple[int, int]
) -> None:
    archive, documents = Archive(storage=storage, name="trial"), {}
    for number, serial in (higher, lower):
        text = json.dumps([number, serial]).encode()
        documents = {"spec.json": Document(content=text, mtime_ns=0)}
        archive.put(Commit(name=CommitName(number=number, serial=serial), documents=documents, models={}))
    assert [(name.number, name.serial) for name in archive.commits()] == [lower, higher]
    latest = archive.latest()
    assert latest is not None
    (tmp_path / "seen").mkdir()
    View(storage, tmp_path / "seen").refresh()
    for content in (latest.documents["spec.json"].content, (tmp_path / "seen/trials/trial/spec.json").read_bytes()):
        assert json.loads(content) == list(higher)
    with held(Lease(storage, archive.locks, archive.next_number)) as lease:
        assert lease.number == higher[0] + 1
        put_lock(storage, lease.number - 1, elsewhere(), "trial")
        assert not lease.is_lost()
        committer = Committer(archive, lease.number, _serial=999_999)
        (tmp_path / "spec.json").write_bytes(SPEC_TEXT)
        commit(committer, tmp_path)
        assert [str(name) for name in archive.commits()] == [f"{lease.number:06d}-1000000"]


def test_attempts_beyond_three_and_six_figures_are_in_order(tmp_path: Path) -> None:
    trial = Ledger.create(tmp_path / "study").add(make_spec())
    numbers = [0, 9, 10, 99, 100, 999, 1000, 1001, 999_999, 1_000_000, 1_000_001]
    for number in reversed(numbers):
        trial.begin_attempt(replace(HEADER, attempt=number))
    assert [header.attempt for header in trial.attempts()] == numbers
    with snapshot(trial.path) as found:
        assert found is not None
        assert sum(name.startswith("attempts/") for name in found.documents) == len(numbers)


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
    archive = Archive(storage=storage, name="trial")
    commit(Committer(archive, 1), folder)
    found, copy = archive.latest(), tmp_path / "copy"
    assert found is not None
    (copy / "attempts").mkdir(parents=True)
    (copy / "attempts" / "001.json").write_text("of another way")
    (copy / "log.txt").write_text("stays")
    unpack(found, copy, durable=False)
    assert archive.fetch(found, copy)
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
    archive = Archive(storage=storage, name="trial")
    committer, place_of = Committer(archive, 2), folder / "results" / "d" / "fold_0"
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
    assert sorted(archive.model_keys()) == sorted([old.key, new.key, plans.key])
    assert archive.commits() == [second.name]
    (place_of / "checkpoint_previous.pth").unlink()
    commit(committer, folder)
    assert old.key not in archive.model_keys()


def test_who_lost_the_lock_cannot_undo_a_commit(storage: Storage, folder: Path) -> None:
    archive = Archive(storage=storage, name="trial")
    late, successor = Committer(archive, 1), Committer(archive, 2)
    commit(late, folder)
    (folder / "costs.jsonl").write_bytes(b"of the successor")
    commit(successor, folder)
    (folder / "costs.jsonl").write_bytes(b"late")
    (folder / "results" / "d" / "fold_0" / "checkpoint_latest.pth").write_bytes(b"late")
    commit(late, folder)
    found = archive.latest()
    assert found is not None
    assert found.documents["costs.jsonl"].content == b"of the successor"
    assert {model.key for model in found.models.values()} <= set(archive.model_keys())


def test_models_that_changed_in_the_storage_are_not_believed(storage: Storage, folder: Path, tmp_path: Path) -> None:
    archive = Archive(storage=storage, name="trial")
    made = commit(Committer(archive, 1), folder)
    storage.write(made.models["results/d/plans.json"].key, b"[]")
    with pytest.raises(StorageError, match=r"plans\.json is damaged: it is not what was put there"):
        archive.fetch(made, tmp_path / "copy")


@pytest.mark.parametrize("path", ["../spec.json", "/etc/passwd", "results/../../x", "unknown.json"])
def test_a_commit_cannot_write_outside_its_folder(storage: Storage, path: str) -> None:
    archive = Archive(storage=storage, name="trial")
    model = {path: Model(key="k", sha256="")}
    document = {path: Document(content=b"", mtime_ns=0)}
    for serial, (documents, models) in enumerate([(document, {}), ({}, model)], start=1):
        archive.put(Commit(name=CommitName(number=1, serial=serial), documents=documents, models=models))
        with pytest.raises(StorageError, match="is no file of a study; restore it from a backup"):
            archive.latest()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x1f\x8b\x08\x00"])
def test_a_damaged_commit_is_named(storage: Storage, content: bytes) -> None:
    storage.write("records/study/000001-000001.json.gz", content)
    with pytest.raises(StorageError, match=r"records/study/000001-000001\.json\.gz is damaged: .*restore it"):
        Archive(storage=storage).latest()

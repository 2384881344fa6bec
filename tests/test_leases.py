"""Locks in object storage: one holder, taken over when it is gone or silent, whatever the clocks say."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from buckets import elsewhere, put_lock
from locking import Clock

from study.buckets import view
from study.buckets.archive import Archive, Commit, CommitName, Document
from study.buckets.lease import holder_of, leased
from study.buckets.shared_ledger import study_ledger
from study.buckets.storage import Storage
from study.buckets.view import viewed
from study.common.errors import LockedError
from study.store import holders as sightings
from study.store import locks

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
    monkeypatch.setattr("study.buckets.lease.STALE_SECONDS", -1e9)
    monkeypatch.setattr("study.buckets.lease.BEAT_SECONDS", 0.01)
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
    monkeypatch.setattr("study.buckets.lease.BEAT_SECONDS", 0.01)
    noticed = threading.Event()
    with leased(storage, "locks/study", on_loss=noticed.set) as lease:
        put_lock(storage, lease.number + 1, elsewhere())
        assert noticed.wait(600)
        assert lease.is_lost()


def test_a_holder_renews_its_record(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.buckets.lease.BEAT_SECONDS", 0.01)
    with leased(storage, "locks/study") as lease:
        before, renewed = storage.read(lease.key), None
        while renewed in (None, before):
            renewed = storage.read(lease.key)
        before_seconds, renewed_seconds = (float(json.loads(text or b"")["renewed"]) for text in (before, renewed))
        assert renewed_seconds > before_seconds


def test_a_number_is_above_those_of_all_commits(storage: Storage) -> None:
    archive = Archive(storage=storage)
    archive.put(Commit(name=CommitName(number=5, serial=2), documents={}, models={}))
    with leased(storage, archive.locks, at_least=archive.next_number) as lease:
        assert lease.number == 6


@pytest.mark.parametrize("ahead_seconds", [0.0, 3600.0, -3600.0, 86400.0 * 400, -86400.0 * 400])
def test_a_reader_whose_clock_differs_sees_who_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_seconds: float
) -> None:
    """The view of a study whose driver and one of whose trials beat, and another one's trainer died."""
    clock, storage = Clock(), Storage(f"file://{tmp_path}/bucket/study")
    clock.time = lambda: time.time() + ahead_seconds
    for module in (view, sightings):
        monkeypatch.setattr(module, "time", clock)
    with study_ledger(storage.url, space={"name": "x"}):
        pass
    for name in ("alive", "dead"):
        documents = {"spec.json": Document(content=b'{"made": "up"}', mtime_ns=0)}
        archive = Archive(storage=storage, name=name)
        archive.put(Commit(name=CommitName(number=1, serial=1), documents=documents, models={}))

    def beat(*names: str) -> None:
        for name in names:
            key = put_lock(storage, 1, elsewhere(token="0" * 32), name)
            os.utime(tmp_path / "bucket" / "study" / key, (next(beats),) * 2)

    beats = itertools.count(time.time())
    beat("study", "alive", "dead")
    clock.meanwhile = lambda: beat("study", "alive")
    clock.slept.clear()
    with viewed(storage.url) as seen:
        for _ in range(3):
            assert seen.ledger.runner() is not None
            assert locks.holder(seen.ledger.trial("alive").locks_path) is not None
            assert ahead_seconds == 0 or locks.holder(seen.ledger.trial("dead").locks_path) is None
            clock.now += 5
            beat("study", "alive")
            seen.refresh()
        # Watched once, not at every look.
        assert len(clock.slept) == (ahead_seconds != 0)
        clock.now += sightings.STALE_SECONDS + 1
        seen.refresh()
        assert seen.ledger.runner() is None

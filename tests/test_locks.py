"""Locks in a folder and in object storage, and locks of folders held by real processes that are killed and raced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from buckets import needs_moto
from locking import (
    DAY_SECONDS,
    QUICK,
    SLEEP,
    WAIT_SECONDS,
    elsewhere,
    is_mine,
    kill,
    line_from,
    living,
    put_lock,
    records,
    take,
    wait_until,
    worker,
    write_record,
)

from study.buckets.archive import Archive, Commit, CommitName
from study.buckets.lease import Lease
from study.buckets.storage import Storage
from study.common.errors import LockedError
from study.store import holders, locks
from study.store.holders import FolderLock, Holder, Lock
from study.store.locks import EXIT_CODE_OF_LOSS, held, holder


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture(params=["folder", "file", pytest.param("s3", marks=needs_moto)])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Lock:
    """A lock in a folder, in object storage on disk, and in a bucket."""
    if request.param == "folder":
        return FolderLock(tmp_path / "lock")
    url = f"file://{tmp_path}" if request.param == "file" else request.getfixturevalue("bucket").url(tmp_path.name)
    return Lease(Storage(url), "locks/study")


def left_by(anywhere: Lock, number: int, holder: dict[str, Any]) -> None:
    """A record that somebody has written just now."""
    if isinstance(anywhere, Lease):
        put_lock(anywhere.storage, number, holder)
    else:
        write_record(anywhere, holder, number=number)


def test_a_lock_is_free_then_held_then_free(anywhere: Lock) -> None:
    for number in (1, 2):
        assert living(anywhere) == []
        with held(anywhere) as hold:
            assert is_mine(anywhere)
            assert hold.number == (1 if isinstance(anywhere, Lease) else number)
            with pytest.raises(LockedError, match=f"^process {os.getpid()} on {socket.gethostname()} since 20.* UTC$"):
                take(anywhere)
            assert is_mine(anywhere)
            assert not hold.is_lost()


def test_whoever_ends_in_an_error_releases(anywhere: Lock) -> None:
    with pytest.raises(RuntimeError), held(anywhere):
        raise RuntimeError("broken")
    assert living(anywhere) == []
    assert take(anywhere) == []


def test_the_lock_of_a_process_that_ended_here_is_taken_over_at_once(anywhere: Lock) -> None:
    gone = replace(Holder.this_process(), born=1)
    left_by(anywhere, 7, asdict(gone))
    said: list[str] = []
    with held(anywhere, on_takeover=said.append) as hold:
        assert hold.number == 8
        assert len(anywhere.claims()) == 1
    assert said == [f"took over from {gone}, which has ended"]


def test_a_holder_renews_its_record(anywhere: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    with held(anywhere) as hold:
        before = hold.lock.claims()[0].stamp
        # Storage stamps to the second.
        wait_until(lambda: hold.lock.claims()[0].stamp > before)


def test_who_was_taken_over_notices_at_the_next_beat(anywhere: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    noticed = threading.Event()
    with held(anywhere, on_loss=noticed.set) as hold:
        left_by(anywhere, hold.number + 1, elsewhere())
        assert noticed.wait(WAIT_SECONDS)
        assert hold.is_lost()
    # It is not released by who has lost it.
    assert living(anywhere) == [Holder(**elsewhere())]


def test_of_many_who_want_a_lock_at_once_never_two_have_it(anywhere: Lock) -> None:
    inside, had, start = threading.Semaphore(1), list[bool](), threading.Barrier(6)

    def want() -> None:
        start.wait()
        try:
            with held(anywhere, on_loss=lambda: None):
                had.append(inside.acquire(blocking=False))
                inside.release()
        except LockedError:
            pass

    threads = [threading.Thread(target=want) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert had
    assert all(had)


def test_a_number_is_above_those_of_all_commits(storage: Storage) -> None:
    archive = Archive(storage=storage)
    archive.put(Commit(name=CommitName(number=5, serial=2), documents={}, models={}))
    with held(Lease(storage, archive.locks, archive.next_number)) as hold:
        assert hold.number == 6


def test_looking_leaves_no_trace(lock: Path) -> None:
    assert holder(lock) is None
    assert not lock.exists()
    assert take(lock) == take(lock) == []
    assert records(lock) == ["000002.json"]
    assert holder(lock) is None
    assert records(lock) == ["000002.json"]


def test_a_live_holder_is_named_with_host_pid_and_time(lock: Path) -> None:
    with worker(lock) as process:
        found = holder(lock)
        assert found is not None
        assert (found.pid, found.host) == (process.pid, socket.gethostname())
        assert time.time() - found.since < WAIT_SECONDS
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.since))
        with pytest.raises(LockedError, match=f"^process {process.pid} on {socket.gethostname()} since {since}$"):
            take(lock)


@pytest.mark.parametrize("waited_for", [True, False])
def test_a_killed_holder_is_replaced_at_once_and_named(lock: Path, waited_for: bool) -> None:
    with worker(lock) as process:
        if waited_for:
            kill(process)
        else:
            os.kill(process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert holder(lock) is None
        (said,) = take(lock)
    assert said.startswith(f"took over from process {process.pid} on {socket.gethostname()} since ")
    assert said.endswith(", which has ended")


def test_a_forked_child_that_outlives_its_killed_parent_holds_nothing(lock: Path) -> None:
    with worker(lock, work=f"say(os.fork() or {SLEEP}); {SLEEP}") as process:
        child = int(line_from(process))
        kill(process)
        try:
            os.kill(child, 0)
            assert holder(lock) is None
            assert len(take(lock)) == 1
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_ends_does_not_release_its_parents_lock(lock: Path) -> None:
    # The child leaves the block as the parent would, and the parent waits for it.
    fork = f"child = os.fork(); child and (os.waitpid(child, 0), say('child ended'), {SLEEP})"
    with worker(lock, work=fork) as process:
        assert {line_from(process), line_from(process)} == {"released", "child ended"}
        found = holder(lock)
        assert found is not None
        assert found.pid == process.pid


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(lock: Path) -> None:
    lock.write_text("a file", encoding="utf-8")
    with pytest.raises(OSError, match="exists"):
        take(lock)


def test_a_damaged_record_is_no_loss_to_who_holds_it(lock: Path) -> None:
    with worker(lock, before=QUICK) as process:
        (record,) = lock.glob("*.json")
        record.write_text("no record")
        os.utime(record, times=(0, 0))
        # It went on beating: had it taken this for a loss, it would have ended instead.
        wait_until(lambda: record.stat().st_mtime > 0 or process.poll() is not None)
        assert process.poll() is None


@pytest.mark.parametrize("loss", ["a higher number", "no record", "another token"])
def test_whoever_has_lost_the_lock_ends_before_it_writes(lock: Path, loss: str) -> None:
    with worker(lock, before=QUICK) as process:
        (record,) = lock.glob("*.json")
        if loss == "no record":
            record.unlink()
        else:
            write_record(lock, elsewhere(), number=int(record.stem) + (loss == "a higher number"))
        assert process.wait(WAIT_SECONDS) == EXIT_CODE_OF_LOSS
        assert line_from(process) == ""


def contend(lock: Path, marker: Path, rounds: int, start: Any, results: Any) -> None:
    """Take the lock so many times; who holds it makes a file that must not be there yet."""
    held_together = 0
    start.wait()
    while rounds:
        try:
            with held(lock):
                try:
                    marker.open("x", encoding="utf-8").close()
                except FileExistsError:
                    held_together += 1
                marker.unlink(missing_ok=True)
            rounds -= 1
        except LockedError:
            continue
    results.put(held_together)


@pytest.mark.parametrize("who_was_before", ["nobody", "somebody dead"])
def test_six_processes_never_hold_it_together(lock: Path, tmp_path: Path, who_was_before: str) -> None:
    if who_was_before == "somebody dead":
        write_record(lock, asdict(replace(Holder.this_process(), born=1)))
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.SimpleQueue()
    with ExitStack() as stack:
        for _ in range(6):
            process = context.Process(target=contend, args=(lock, tmp_path / "marker", 15, start, results))
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
        start.set()
        assert [results.get() for _ in range(6)] == [0] * 6
        stack.pop_all()
    assert take(lock) == []
    taken = 6 * 15 + 1 + (who_was_before == "somebody dead")
    assert records(lock) == [f"{taken:06d}.json"]


def test_without_hard_links_the_lock_still_works(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(holders.os, "link", refuse)
    with held(lock):
        assert is_mine(lock)
        with pytest.raises(LockedError):
            take(lock)
    assert records(lock) == ["000001.json"]


def test_what_a_killed_contender_left_aside_is_cleared_when_it_is_old(lock: Path) -> None:
    lock.mkdir()
    old, young = lock / ".old.tmp", lock / ".young.tmp"
    for path in (old, young):
        path.touch()
    os.utime(old, times=(time.time() - DAY_SECONDS,) * 2)
    take(lock)
    assert records(lock) == [".young.tmp", "000001.json"]

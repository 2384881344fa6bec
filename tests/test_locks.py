"""Locks held by real processes that are really killed and raced."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from locking import (
    DAY_SECONDS,
    QUICK,
    SLEEP,
    WAIT_SECONDS,
    elsewhere,
    is_mine,
    kill,
    line_from,
    records,
    take,
    wait_until,
    worker,
    write_record,
)

from study.common.errors import LockedError
from study.store import holders, locks
from study.store.holders import Holder
from study.store.locks import EXIT_CODE_OF_LOSS, held, holder


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


# ---------------------------------------------------------------------------------------------------- held and released


def test_a_lock_is_free_then_held_then_free(lock: Path) -> None:
    assert holder(lock) is None
    for _ in range(3):
        assert take(lock) == []
        assert holder(lock) is None
    assert records(lock) == ["000003.json"]


def test_a_live_holder_is_named_with_host_pid_and_time(lock: Path) -> None:
    with worker(lock) as process:
        found = holder(lock)
        assert found is not None
        assert (found.pid, found.host) == (process.pid, socket.gethostname())
        assert time.time() - found.since < WAIT_SECONDS
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.since))
        with pytest.raises(LockedError, match=f"^process {process.pid} on {socket.gethostname()} since {since}$"):
            take(lock)


def test_a_process_does_not_hold_a_lock_twice(lock: Path) -> None:
    with held(lock):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on"):
            take(lock)
        assert is_mine(lock)


def test_whoever_ends_in_an_error_releases(lock: Path) -> None:
    with pytest.raises(RuntimeError), held(lock):
        raise RuntimeError("broken")
    assert holder(lock) is None
    assert take(lock) == []


def test_looking_leaves_no_trace(lock: Path) -> None:
    assert holder(lock) is None
    assert not lock.exists()
    with held(lock):
        before = records(lock)
        assert is_mine(lock)
        assert records(lock) == before


# ------------------------------------------------------------------------------------------------------------ the dead


def test_a_killed_holder_is_replaced_at_once_and_named(lock: Path) -> None:
    with worker(lock) as process:
        kill(process)
        assert holder(lock) is None
        (said,) = take(lock)
    assert said.startswith(f"took over from process {process.pid} on {socket.gethostname()} since ")
    assert said.endswith(", which has ended")


def test_a_killed_holder_that_nobody_has_waited_for_is_dead(lock: Path) -> None:
    with worker(lock) as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert len(take(lock)) == 1


def test_a_pid_that_was_given_to_another_process_is_no_holder(lock: Path) -> None:
    mine = Holder(host="here", machine=holders.this_machine(), pid=os.getpid(), born=1, since=0.0, token="old")
    write_record(lock, json.dumps(asdict(mine)), age_seconds=0)
    assert holder(lock) is None
    assert len(take(lock)) == 1


def test_a_forked_child_that_outlives_its_killed_parent_holds_nothing(lock: Path) -> None:
    fork = f"say(os.fork() or {SLEEP}); {SLEEP}"
    with worker(lock, work=fork) as process:
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


# --------------------------------------------------------------------------------------------------------- heart-beats


def test_a_holder_renews_its_record(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    with held(lock):
        record = lock / records(lock)[-1]
        os.utime(record, times=(0, 0))
        wait_until(lambda: record.stat().st_mtime > 0)


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
        if loss == "a higher number":
            write_record(lock, elsewhere(), age_seconds=0, number=int(record.stem) + 1)
        elif loss == "no record":
            record.unlink()
        else:
            write_record(lock, elsewhere(), age_seconds=0, number=int(record.stem))
        assert process.wait(WAIT_SECONDS) == EXIT_CODE_OF_LOSS
        assert line_from(process) == ""


# ------------------------------------------------------------------------------------------------------------- races


def contend(lock: Path, marker: Path, rounds: int, start: Any, results: Any) -> None:
    """Take the lock so many times; who holds it makes a file that must not be there yet."""
    held_together = 0
    start.wait()
    for _ in range(rounds):
        while True:
            try:
                with held(lock):
                    try:
                        marker.open("x", encoding="utf-8").close()
                    except FileExistsError:
                        held_together += 1
                    marker.unlink(missing_ok=True)
                break
            except LockedError:
                continue
    results.put(held_together)


def test_six_processes_never_hold_it_together(lock: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.SimpleQueue()
    arguments = (lock, tmp_path / "marker", 15, start, results)
    with ExitStack() as stack:
        for _ in range(6):
            process = context.Process(target=contend, args=arguments)
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
        start.set()
        assert [results.get() for _ in range(6)] == [0] * 6
        stack.pop_all()
    assert take(lock) == []
    assert len(records(lock)) == 1
    assert int(records(lock)[0].partition(".")[0]) == 6 * 15 + 1


def test_of_those_who_find_a_dead_holder_one_replaces_it(lock: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.SimpleQueue()
    with worker(lock) as process:
        kill(process)

    def replace() -> None:
        said: list[str] = []
        start.wait()
        try:
            with held(lock, on_takeover=said.append):
                results.put(said)
                end.wait()
        except LockedError:
            results.put(None)

    end = context.Event()
    processes = [context.Process(target=replace) for _ in range(4)]
    for contender in processes:
        contender.start()
    start.set()
    outcomes = [results.get() for _ in processes]
    end.set()
    for contender in processes:
        contender.join()
    assert [len(said) for said in outcomes if said is not None] == [1]


# ------------------------------------------------------------------------------------- storage with less than it should


def test_without_hard_links_the_lock_still_works(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(locks.os, "link", refuse)
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

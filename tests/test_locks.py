"""Locks held by real processes that are really killed, stopped and raced; only another machine is made up."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from examples import beating

from study import locks
from study.errors import LockedError
from study.locks import BEAT_SECONDS, EXIT_CODE_OF_LOSS, STALE_SECONDS, Holder, held, holder

WAIT_SECONDS = 60.0
DAY_SECONDS = 86400.0

# Takes the lock, says so, does something, and says what came of it. The first argument is the lock.
WORKER = """
import os, sys, time
from pathlib import Path
from study import locks
say = lambda word: os.write(1, f"{{word}}\\n".encode())
lock = Path(sys.argv[1])
{before}
with locks.held(lock):
    say("holding")
    {work}
say("released")
"""
SLEEP = "time.sleep(600)"
QUICK = "locks.BEAT_SECONDS = 0.02"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@contextmanager
def worker(lock: Path, *, before: str = "", work: str = SLEEP) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock, killed at the end if the test has not done it."""
    command = [sys.executable, "-c", WORKER.format(before=before, work=work), str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert line_from(process) == "holding"
            yield process
        finally:
            process.kill()


def line_from(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (given := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return given


def take(lock: Path) -> list[str]:
    """Take the lock and release it; what was said about a former holder."""
    said: list[str] = []
    with held(lock, on_takeover=said.append):
        assert is_mine(lock)
    return said


def is_mine(lock: Path) -> bool:
    found = holder(lock)
    return found is not None and (found.pid, found.host) == (os.getpid(), socket.gethostname())


def records(lock: Path) -> list[str]:
    return sorted(path.name for path in lock.iterdir())


def write_record(lock: Path, text: str, *, age_seconds: float, number: int = 1) -> Path:
    """A record as a holder elsewhere would have left it so long ago."""
    lock.mkdir(exist_ok=True)
    record = lock / f"{number:06d}.json"
    record.write_text(text)
    os.utime(record, times=(time.time() - age_seconds,) * 2)
    return record


def elsewhere(**changes: Any) -> str:
    """A record of a process on another machine, whose pid lives here."""
    usual = Holder(host="node-7", machine="another boot", pid=os.getpid(), born=1, since=1.7e9, token="theirs")
    return json.dumps({**asdict(usual), **changes})


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever only seemed dead is given next to no time to notice."""
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.001)


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


def test_whoever_cannot_say_whom_it_replaced_releases(lock: Path, no_grace: None) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("no room for a note")

    write_record(lock, elsewhere(), age_seconds=DAY_SECONDS)
    with pytest.raises(RuntimeError, match="no room"), held(lock, on_takeover=fail):
        pytest.fail("went on")
    assert holder(lock) is None


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
    mine = Holder(host="here", machine=locks.this_machine(), pid=os.getpid(), born=1, since=0.0, token="old")
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


# ----------------------------------------------------------------------------------------------------- other machines


def test_another_machine_that_shows_signs_of_life_is_not_replaced(lock: Path) -> None:
    write_record(lock, elsewhere(), age_seconds=STALE_SECONDS / 2)
    found = holder(lock)
    assert found is not None
    assert found.host == "node-7"
    refusal = f"^process {os.getpid()} on node-7 since 2023-11-14 22:13:20 UTC$"
    with beating(lock / "000001.json"), pytest.raises(LockedError, match=refusal):
        take(lock)


def test_another_machine_that_was_heard_of_just_now_is_waited_for(
    lock: Path, no_grace: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "STALE_SECONDS", 1.0)
    write_record(lock, elsewhere(pid=1), age_seconds=0)
    waiting, taken = take(lock)
    assert waiting == "waiting up to 1 s for a sign of life of process 1 on node-7 since 2023-11-14 22:13:20 UTC"
    assert taken.startswith("took over from process 1 on node-7 ")


def test_another_machine_that_has_fallen_silent_is_replaced(lock: Path, no_grace: None) -> None:
    write_record(lock, elsewhere(pid=1), age_seconds=STALE_SECONDS + 1)
    assert holder(lock) is None
    (said,) = take(lock)
    assert said == (
        "took over from process 1 on node-7 since 2023-11-14 22:13:20 UTC, which has shown no sign of life for 60 s"
    )


def test_what_another_machine_released_is_free(lock: Path) -> None:
    write_record(lock, json.dumps({"released": True}), age_seconds=0)
    assert take(lock) == []


@pytest.mark.parametrize("text", ["", '{"host": "no', "[1]", "7", '{"host": "node-7"}', "\x00" * 50])
def test_an_unreadable_record_holds_until_it_is_stale(lock: Path, text: str, no_grace: None) -> None:
    record = write_record(lock, text, age_seconds=0)
    with beating(record), pytest.raises(LockedError, match="on an unknown host since"):
        take(lock)
    os.utime(record, times=(time.time() - STALE_SECONDS - 1,) * 2)
    (said,) = take(lock)
    assert "an unknown host" in said


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(lock: Path) -> None:
    lock.write_text("a file")
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


def test_a_stopped_holder_that_was_replaced_ends_when_it_wakes(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As it looks from another machine: its process cannot be seen, only its silence.
    monkeypatch.setattr(locks, "this_machine", lambda: "another boot")
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.02)
    with worker(lock, before=QUICK) as process:
        os.kill(process.pid, signal.SIGSTOP)
        wait_until(lambda: is_stopped(process.pid))
        os.utime(lock / records(lock)[-1], times=(time.time() - STALE_SECONDS - 1,) * 2)
        said: list[str] = []
        with held(lock, on_takeover=said.append):
            assert said[0].endswith("no sign of life for 60 s")
            os.kill(process.pid, signal.SIGCONT)
            assert process.wait(WAIT_SECONDS) == EXIT_CODE_OF_LOSS
            assert is_mine(lock)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_whoever_replaces_a_silent_holder_waits_for_its_next_beat(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(locks.time, "sleep", slept.append)
    write_record(lock, elsewhere(), age_seconds=DAY_SECONDS)
    take(lock)
    assert slept == [2 * BEAT_SECONDS]


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
                        marker.open("x").close()
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

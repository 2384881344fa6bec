"""Locks whose holder cannot be seen: on other machines, with other clocks, hidden, stopped, or with odd records.

Time is made up where only waiting is meant: a test's clock goes on when somebody sleeps, and not otherwise.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from examples import make_spec
from locking import Clock, elsewhere, living, records, shift, take, worker, write_record

from study.buckets import view
from study.buckets.archive import Archive, Commit, CommitName, Document
from study.buckets.lease import Lease
from study.buckets.shared_ledger import study_ledger
from study.buckets.storage import Storage
from study.buckets.view import viewed
from study.common.errors import LedgerError, LockedError
from study.store import holders, locks
from study.store.holders import STALE_SECONDS, FolderLock, Holder, Lock
from study.store.ledger import Ledger
from study.store.locks import BEAT_SECONDS, PATIENCE_BEATS, held, holder, look
from study.store.trial_folder import TrialState

DAY, YEARS = 86400.0, 10 * 365 * 86400.0
PATIENCE = PATIENCE_BEATS * BEAT_SECONDS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(locks, "time", clock)
    monkeypatch.setattr(locks, "_sightings", locks.Sightings())
    return clock


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture(params=[FolderLock, Lease])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Lock:
    if request.param is Lease:
        return Lease(Storage(f"file://{tmp_path}/bucket/study"), "locks/study")
    return FolderLock(tmp_path / "lock")


@pytest.mark.parametrize("age", [STALE_SECONDS / 2, -STALE_SECONDS / 2, 3600.0, -3600.0, DAY, -DAY, YEARS, -YEARS])
def test_whoever_renews_is_neither_replaced_nor_overlooked_whatever_the_clocks_say(
    anywhere: Lock, clock: Clock, age: float
) -> None:
    record = write_record(anywhere, elsewhere(), age_seconds=age)
    clock.meanwhile = lambda: shift(record)
    if isinstance(anywhere, FolderLock):
        assert str(holder(anywhere.folder)) == f"process {os.getpid()} on node-7 since 2023-11-14 22:13:20 UTC"
    with pytest.raises(LockedError, match=r"^process \d+ on node-7 since 2023-11-14 22:13:20 UTC$"):
        take(anywhere)
    assert clock.now <= 2 * PATIENCE
    assert len(anywhere.claims()) == 1


@pytest.mark.parametrize(
    ("age", "waited"),
    [
        (0, STALE_SECONDS),
        (STALE_SECONDS / 2, STALE_SECONDS / 2),
        (STALE_SECONDS + 1, PATIENCE),
        (YEARS, PATIENCE),
        (-3600.0, STALE_SECONDS),
        (-DAY, STALE_SECONDS),
        (-YEARS, STALE_SECONDS),
    ],
)
def test_whoever_is_silent_is_replaced_after_a_minute_at_most(
    anywhere: Lock, clock: Clock, age: float, waited: float
) -> None:
    write_record(anywhere, elsewhere(pid=1), age_seconds=age)
    said = take(anywhere)
    who = "process 1 on node-7 since 2023-11-14 22:13:20 UTC"
    assert said[-1] == f"took over from {who}, which has shown no sign of life for 60 s"
    told = waited > PATIENCE
    assert said[:-1] == ([f"waiting up to 60 s for a sign of life of {who}"] if told else [])
    # Then it is given time to notice.
    assert clock.slept[-1] == 2 * BEAT_SECONDS
    assert clock.now - clock.slept[-1] == pytest.approx(waited, abs=anywhere.poll_seconds)


def test_who_releases_while_it_is_waited_for_is_followed_at_once(anywhere: Lock, clock: Clock) -> None:
    write_record(anywhere, elsewhere(), age_seconds=1)
    clock.meanwhile = lambda: [anywhere.release(claim) for claim in anywhere.claims()]
    assert take(anywhere) == []
    assert len(clock.slept) == 1


def test_whoever_waits_can_be_stopped(anywhere: Lock, clock: Clock) -> None:
    def stop() -> None:
        raise InterruptedError

    write_record(anywhere, elsewhere())
    with pytest.raises(InterruptedError), held(anywhere, waiting=stop):
        pytest.fail("went on")


def test_whoever_cannot_say_whom_it_replaced_releases(anywhere: Lock, clock: Clock) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("no room for a note")

    write_record(anywhere, elsewhere(), age_seconds=DAY)
    with pytest.raises(RuntimeError, match="no room"), held(anywhere, on_takeover=fail):
        pytest.fail("went on")
    assert living(anywhere) == []


def test_a_look_judges_by_what_it_saw_before(lock: Path, clock: Clock) -> None:
    record = write_record(lock, elsewhere(), age_seconds=YEARS)
    assert holder(lock) is None
    assert clock.now == pytest.approx(PATIENCE, abs=1.0)
    looked = clock.now
    assert holder(lock) is None
    shift(record)
    assert holder(lock) is not None
    assert clock.now == looked
    clock.now += STALE_SECONDS + 1
    assert holder(lock) is None


def test_many_silent_locks_take_one_wait(tmp_path: Path, clock: Clock) -> None:
    ours = [tmp_path / str(number) for number in range(50)]
    for one in ours:
        write_record(one, elsewhere(), age_seconds=DAY)
    look(ours)
    assert [holder(one) for one in ours] == [None] * 50
    assert clock.now == pytest.approx(PATIENCE, abs=1.0)


@pytest.mark.parametrize("ahead_seconds", [0.0, 3600.0, -3600.0, 86400.0 * 400, -86400.0 * 400])
def test_a_reader_whose_clock_differs_sees_who_lives(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, ahead_seconds: float
) -> None:
    """The view of a study whose driver and one of whose trials beat, and another one's trainer died."""
    storage = Storage(f"file://{tmp_path}/bucket/study")
    with study_ledger(storage.url, space={"name": "x"}):
        pass
    clock.time = lambda: time.time() + ahead_seconds
    monkeypatch.setattr(view, "time", clock)
    for name in ("alive", "dead"):
        documents = {"spec.json": Document(content=b'{"made": "up"}', mtime_ns=0)}
        archive = Archive(storage=storage, name=name)
        archive.put(Commit(name=CommitName(number=1, serial=1), documents=documents, models={}))
    beats = itertools.count(time.time())

    def beat(*names: str) -> None:
        for name in names:
            record = write_record(Lease(storage, ""), elsewhere(), name=name)
            os.utime(record, (next(beats),) * 2)

    beat("study", "alive", "dead")
    clock.meanwhile = lambda: beat("study", "alive")
    clock.slept.clear()
    with viewed(storage.url) as seen:
        for _ in range(3):
            assert seen.ledger.runner() is not None
            assert holder(seen.ledger.trial("alive").locks_path) is not None
            assert ahead_seconds == 0 or holder(seen.ledger.trial("dead").locks_path) is None
            clock.now += 5
            beat("study", "alive")
            seen.refresh()
        # Watched once, not at every look.
        assert len(clock.slept) == (ahead_seconds != 0)
        clock.now += STALE_SECONDS + 1
        seen.refresh()
        assert seen.ledger.runner() is None


ODD: dict[str, Callable[[Path], object]] = {
    **{
        name: lambda path, text=text: path.write_text(text)
        for name, text in {
            "empty": "",
            "cut": '{"host": "no',
            "a list": "[1]",
            "a number": "7",
            "a word": '"released"',
            "zeros": "\x00" * 50,
            "another record": '{"host": "node-7"}',
            "nested": "[" * 100_000,
            "a host over lines": json.dumps(elsewhere(host="a\nb\x1b[31m")),
            "a pid that is a path": json.dumps(elsewhere(pid="../../etc")),
            "a pid below 0": json.dumps(elsewhere(pid=-1)),
            "no date": json.dumps(elsewhere(since=1e300)),
            "not a number": json.dumps(elsewhere(since=float("nan"))),
            "released, but not": '{"released": 0}',
        }.items()
    },
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_record_holds_while_it_changes_and_is_replaced_when_it_does_not(
    lock: Path, clock: Clock, kind: str
) -> None:
    lock.mkdir()
    record = lock / "000001.json"
    ODD[kind](record)
    found = holder(lock)
    assert found is not None
    assert str(found).startswith("process 0 on an unknown host since 20")
    clock.meanwhile = lambda: shift(record)
    with pytest.raises(LockedError, match="on an unknown host since"):
        take(lock)
    clock.meanwhile = lambda: None
    assert "an unknown host" in take(lock)[-1]
    assert take(lock) == []


def test_a_record_that_is_a_link_to_nowhere_is_as_good_as_none(lock: Path, clock: Clock) -> None:
    lock.mkdir()
    (lock / "000001.json").symlink_to("nowhere")
    assert holder(lock) is None
    assert take(lock) == []


@pytest.mark.parametrize("name", ["²²².json", "1e3.json", "-1.json", f"{'9' * 30}.json", "000000.json", "x.json", "7"])
def test_files_of_other_names_are_no_records(lock: Path, clock: Clock, name: str) -> None:
    lock.mkdir()
    (lock / name).write_text(json.dumps(elsewhere()))
    assert holder(lock) is None
    assert take(lock) == []


def test_a_record_of_a_seven_figure_number_counts(lock: Path, clock: Clock) -> None:
    write_record(lock, '{"released": true}', number=999_999)
    assert [take(lock), take(lock)] == [[], []]
    assert records(lock) == ["1000001.json"]
    assert clock.slept == []


HIDDEN = """
import os, sys
from pathlib import Path
from study.store import holders, locks
holders._born = lambda pid: None  # as /proc looks where it hides the processes of others
os.setuid(65534)
print(locks.holder(Path(sys.argv[1])) is not None)
"""


def test_a_holder_that_proc_hides_is_alive(tmp_path: Path) -> None:
    """Asked by another user, who may not even send it a signal; it is another one's process all the same."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    # Outside pytest's own folders, which nobody else may enter.
    lock = Path(subprocess.check_output(["mktemp", "-d", "/tmp/pgps-lock-XXXXXX"], text=True).strip())
    lock.chmod(0o755)
    asked = [sys.executable, "-c", HIDDEN, str(lock)]
    try:
        with worker(lock) as process:
            for expected in ("True", "False"):
                answer = subprocess.run(asked, capture_output=True, text=True, check=False)
                assert answer.stdout.strip() == expected, answer.stderr
                process.kill()
                process.wait()
    finally:
        subprocess.run(["rm", "-r", str(lock)], check=True)


@pytest.mark.parametrize(("seen", "born", "gone"), [(5, 5, False), (6, 5, True), (None, 5, False), (5, None, False)])
def test_a_process_is_gone_when_its_number_is_another_ones(
    monkeypatch: pytest.MonkeyPatch, seen: int | None, born: int | None, gone: bool
) -> None:
    monkeypatch.setattr(holders, "_born", lambda pid: seen)
    assert replace(Holder.this_process(), born=born).is_gone is gone


def test_a_pid_that_nobody_has_is_gone_where_proc_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(holders, "_born", lambda pid: None)
    for pid in (ended.pid, 2**70, 0):
        assert replace(Holder.this_process(), pid=pid, born=5).is_gone


def test_a_folder_of_locks_that_is_none_is_one_line(tmp_path: Path) -> None:
    trial = Ledger.create(tmp_path / "study").add(make_spec())
    os.mkfifo(trial.locks_path)
    assert trial.state() is TrialState.NEW
    with pytest.raises(LedgerError, match=r"^cannot write to "), trial.locked():
        pass
    assert stat.S_ISFIFO(trial.locks_path.stat().st_mode)

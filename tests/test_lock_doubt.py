"""Locks whose holder cannot be seen: on other machines, with other clocks, hidden, stopped, or with odd records.

Time is made up where only waiting is meant: a test's clock goes on when somebody sleeps, and not otherwise.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from examples import make_spec
from locking import Clock, elsewhere, records, take, worker, write_record

from study.common.errors import LedgerError, LockedError
from study.store import holders, locks
from study.store import holders as sightings
from study.store.holders import STALE_SECONDS
from study.store.ledger import Ledger
from study.store.locks import BEAT_SECONDS, PATIENCE_BEATS, held, holder, look
from study.store.trial_folder import TrialState

DAY, YEARS = 86400.0, 10 * 365 * 86400.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (locks, sightings):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(locks, "_sightings", sightings.Sightings())
    return clock


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def shift(record: Path, seconds: float) -> None:
    """Renew a record by so much, as a holder's own clock counts, whatever time that is."""
    stamp = record.lstat().st_mtime_ns + int(seconds * 1e9)
    os.utime(record, ns=(stamp, stamp), follow_symlinks=False)


# ------------------------------------------------------------------------------------------------------ other machines


@pytest.mark.parametrize("age", [STALE_SECONDS / 2, -STALE_SECONDS / 2, 3600.0, -3600.0, DAY, -DAY, YEARS, -YEARS])
def test_whoever_renews_is_neither_replaced_nor_overlooked_whatever_the_clocks_say(
    lock: Path, clock: Clock, age: float
) -> None:
    record = write_record(lock, elsewhere(), age_seconds=age)
    clock.meanwhile = lambda: shift(record, 5)
    assert str(holder(lock)) == f"process {os.getpid()} on node-7 since 2023-11-14 22:13:20 UTC"
    with pytest.raises(LockedError, match=r"^process \d+ on node-7 since 2023-11-14 22:13:20 UTC$"):
        take(lock)
    assert clock.now <= 2 * PATIENCE_BEATS * BEAT_SECONDS


@pytest.mark.parametrize(
    ("age", "waited"),
    [
        (0, STALE_SECONDS),
        (STALE_SECONDS / 2, STALE_SECONDS / 2),
        (STALE_SECONDS + 1, PATIENCE_BEATS * BEAT_SECONDS),
        (YEARS, PATIENCE_BEATS * BEAT_SECONDS),
        (-3600.0, STALE_SECONDS),
        (-DAY, STALE_SECONDS),
        (-YEARS, STALE_SECONDS),
    ],
)
def test_whoever_is_silent_is_replaced_after_a_minute_at_most(
    lock: Path, clock: Clock, age: float, waited: float
) -> None:
    write_record(lock, elsewhere(pid=1), age_seconds=age)
    said = take(lock)
    who = "process 1 on node-7 since 2023-11-14 22:13:20 UTC"
    assert said[-1] == f"took over from {who}, which has shown no sign of life for 60 s"
    told = waited > PATIENCE_BEATS * BEAT_SECONDS
    assert said[:-1] == ([f"waiting up to 60 s for a sign of life of {who}"] if told else [])
    # Then it is given time to notice.
    assert clock.slept[-1] == 2 * BEAT_SECONDS
    assert clock.now - clock.slept[-1] == pytest.approx(waited, abs=1.0)


def test_who_releases_while_it_is_waited_for_is_followed_at_once(lock: Path, clock: Clock) -> None:
    record = write_record(lock, elsewhere(), age_seconds=1)
    clock.meanwhile = lambda: record.write_text('{"released": true}')
    assert take(lock) == []
    assert len(clock.slept) == 1


def test_a_look_judges_by_what_it_saw_before(lock: Path, clock: Clock) -> None:
    record = write_record(lock, elsewhere(), age_seconds=YEARS)
    assert holder(lock) is None
    assert clock.now == pytest.approx(PATIENCE_BEATS * BEAT_SECONDS, abs=1.0)
    looked = clock.now
    assert holder(lock) is None
    shift(record, 5)
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
    assert clock.now == pytest.approx(PATIENCE_BEATS * BEAT_SECONDS, abs=1.0)


def test_what_another_machine_released_is_free(lock: Path, clock: Clock) -> None:
    write_record(lock, json.dumps({"released": True}), age_seconds=0)
    assert take(lock) == []
    assert clock.slept == []


def test_whoever_cannot_say_whom_it_replaced_releases(lock: Path, clock: Clock) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("no room for a note")

    write_record(lock, elsewhere(), age_seconds=DAY)
    with pytest.raises(RuntimeError, match="no room"), held(lock, on_takeover=fail):
        pytest.fail("went on")
    assert holder(lock) is None


# ---------------------------------------------------------------------------------------------------------- odd records

ODD: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "cut": lambda path: path.write_text('{"host": "no'),
    "a list": lambda path: path.write_text("[1]"),
    "a number": lambda path: path.write_text("7"),
    "a word": lambda path: path.write_text('"released"'),
    "zeros": lambda path: path.write_text("\x00" * 50),
    "another record": lambda path: path.write_text('{"host": "node-7"}'),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "nested": lambda path: path.write_text("[" * 100_000),
    "a host over lines": lambda path: path.write_text(elsewhere(host="a\nb\x1b[31m")),
    "a pid that is a path": lambda path: path.write_text(elsewhere(pid="../../etc")),
    "a pid below 0": lambda path: path.write_text(elsewhere(pid=-1)),
    "no date": lambda path: path.write_text(elsewhere(since=1e300)),
    "not a number": lambda path: path.write_text(elsewhere(since=float("nan"))),
    "released, but not": lambda path: path.write_text('{"released": 0}'),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_record_holds_while_it_changes_and_is_replaced_when_it_does_not(
    lock: Path, clock: Clock, kind: str
) -> None:
    lock.mkdir()
    record = lock / "000001.json"
    ODD[kind](record)
    if kind == "a link to nowhere":
        # As good as none.
        assert holder(lock) is None
        assert take(lock) == []
        return
    found = holder(lock)
    assert found is not None
    assert str(found).startswith("process 0 on an unknown host since 20")
    clock.meanwhile = lambda: shift(record, 5)
    with pytest.raises(LockedError, match="on an unknown host since"):
        take(lock)
    clock.meanwhile = lambda: None
    assert "an unknown host" in take(lock)[-1]
    assert take(lock) == []


@pytest.mark.parametrize("name", ["²²².json", "1e3.json", "-1.json", f"{'9' * 30}.json", "000000.json", "x.json", "7"])
def test_files_of_other_names_are_no_records(lock: Path, clock: Clock, name: str) -> None:
    lock.mkdir()
    (lock / name).write_text(elsewhere())
    assert holder(lock) is None
    assert take(lock) == []


def test_a_record_of_a_seven_figure_number_counts(lock: Path, clock: Clock) -> None:
    write_record(lock, json.dumps({"released": True}), age_seconds=0, number=999_999)
    assert [take(lock), take(lock)] == [[], []]
    assert records(lock) == ["1000001.json"]


# ---------------------------------------------------------------------------------------------------- hidden processes

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
            answer = subprocess.run(asked, capture_output=True, text=True, check=False)
            assert answer.stdout.strip() == "True", answer.stderr
            process.kill()
            process.wait()
            answer = subprocess.run(asked, capture_output=True, text=True, check=False)
            assert answer.stdout.strip() == "False", answer.stderr
    finally:
        subprocess.run(["rm", "-r", str(lock)], check=True)


@pytest.mark.parametrize(("seen", "born", "gone"), [(5, 5, False), (6, 5, True), (None, 5, False), (5, None, False)])
def test_a_process_is_gone_when_its_number_is_another_ones(
    monkeypatch: pytest.MonkeyPatch, seen: int | None, born: int | None, gone: bool
) -> None:
    monkeypatch.setattr(holders, "_born", lambda pid: seen)
    here = holders.Holder(host="h", machine=holders.this_machine(), pid=os.getpid(), born=born, since=0.0, token="t")
    assert here.is_gone is gone


def test_a_pid_that_nobody_has_is_gone_where_proc_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(holders, "_born", lambda pid: None)
    for pid in (ended.pid, 2**70):
        there = holders.Holder(host="h", machine=holders.this_machine(), pid=pid, born=5, since=0.0, token="t")
        assert there.is_gone


# ------------------------------------------------------------------------------------------------ odd files in ledgers


@pytest.mark.parametrize("name", ["spec.json", "costs.jsonl", "epochs.jsonl", "events.jsonl", "result.json"])
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a link to a device"])
def test_a_record_that_is_no_file_is_one_line(tmp_path: Path, name: str, kind: str) -> None:
    trial = Ledger.create(tmp_path / "study").add(make_spec())
    path = trial.path / name
    path.unlink(missing_ok=True)
    ODD[kind](path)
    readers = (trial.spec, trial.result, trial.epochs, trial.cost_intervals, trial.events)
    refused = []
    for read in readers:
        try:
            read()
        except LedgerError as error:
            refused.append(str(error))
    assert len(refused) == 1
    assert refused[0].startswith(f"{path} cannot be read: ")
    assert "\n" not in refused[0]


def test_a_folder_of_locks_that_is_none_is_one_line(tmp_path: Path) -> None:
    trial = Ledger.create(tmp_path / "study").add(make_spec())
    os.mkfifo(trial.locks_path)
    assert trial.state() is TrialState.NEW
    with pytest.raises(LedgerError, match=r"^cannot write to "), trial.locked():
        pass
    assert stat.S_ISFIFO(trial.locks_path.stat().st_mode)

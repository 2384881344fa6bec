"""The ledger through a trial's life, with real locks held by real processes that are really killed."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples import EPOCH, HEADER, RESULT, make_interval, make_spec
from locking import kill, worker

from study.common.errors import DiskFullError, LedgerError, TrialBusyError
from study.store.ledger import Ledger
from study.store.trial_folder import REASON_LENGTH, TrialFolder, TrialState

FULL_DISK = Path("/dev/full")
SPACE = {"name": "pgps", "axes": {"stages": [1, 3]}}


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    return Ledger.create(tmp_path / "study").add(make_spec())


# --------------------------------------------------------------------------------------------------- a trial's life


def test_a_trial_from_new_to_finished(folder: TrialFolder) -> None:
    assert folder.state() is TrialState.NEW
    folder.append_event("started", attempt=0, iteration=0)
    with worker(folder.locks_path) as process:
        assert folder.state() is TrialState.RUNNING
        kill(process)
    assert folder.state() is TrialState.INTERRUPTED
    assert folder.failure_reason() is None

    folder.begin_attempt(replace(HEADER, attempt=1, resumed_from_iteration=50))
    folder.fail(attempt=1, reason="loss is\nnot finite " + "x" * 1000)
    assert folder.state() is TrialState.FAILED
    reason = folder.failure_reason()
    assert reason is not None
    assert reason.startswith("loss is not finite x")
    assert len(reason) == REASON_LENGTH

    with folder.locked():
        folder.begin_attempt(replace(HEADER, attempt=2))
        assert folder.state() is TrialState.RUNNING
        assert folder.result() is None
        folder.finish(RESULT, attempt=2)
    assert folder.state() is TrialState.FINISHED
    assert folder.result() == RESULT
    story = ["started", "started", "failed", "note", "started", "finished"]
    assert [event["event"] for event in folder.events()] == story


def test_a_result_means_finished_even_when_the_process_died_before_saying_so(folder: TrialFolder) -> None:
    folder.begin_attempt(HEADER)
    folder.finish(RESULT, attempt=0)
    events = folder.path / "events.jsonl"
    events.write_bytes(events.read_bytes().splitlines(keepends=True)[0])
    assert folder.state() is TrialState.FINISHED


def test_two_processes_may_not_work_on_one_trial(folder: TrialFolder) -> None:
    folder.append_event("started", attempt=0, iteration=0)
    with worker(folder.locks_path) as process:
        refusal = rf"trial {folder.trial_id} is being trained by process {process.pid} on .*; wait for it or stop it"
        with pytest.raises(TrialBusyError, match=refusal), folder.locked():
            pytest.fail("two workers on one trial")
        kill(process)
    with folder.locked():
        assert folder.state() is TrialState.RUNNING
        (note,) = (event["text"] for event in folder.events() if event["event"] == "note")
        assert note.startswith(f"took over from process {process.pid} on ")
    assert folder.state() is TrialState.INTERRUPTED


def test_an_infeasible_trial_is_told_from_a_failed_one(folder: TrialFolder) -> None:
    folder.begin_attempt(HEADER)
    folder.fail(attempt=0, reason="out of memory", state=TrialState.INFEASIBLE)
    folder.note("something worth knowing")
    assert folder.state() is TrialState.INFEASIBLE
    assert folder.failure_reason() == "out of memory"
    folder.begin_attempt(replace(HEADER, attempt=1))
    assert folder.state() is TrialState.INTERRUPTED
    assert folder.failure_reason() is None


def test_a_trial_that_has_lost_its_story_is_not_new(folder: TrialFolder) -> None:
    folder.begin_attempt(HEADER)
    (folder.path / "events.jsonl").unlink()
    assert folder.state() is TrialState.INTERRUPTED


def test_the_state_of_a_finished_trial_is_one_look_at_the_disk(
    folder: TrialFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.finish(RESULT, attempt=0)
    looks: list[object] = []
    stat = os.stat

    def count(path: Any, *more: Any, **named: Any) -> os.stat_result:
        looks.append(path)
        return stat(path, *more, **named)

    def forbid(*_: object) -> None:
        raise AssertionError("read a file")

    monkeypatch.setattr(os, "stat", count)
    monkeypatch.setattr(Path, "read_bytes", forbid)
    monkeypatch.setattr(Path, "open", forbid)
    monkeypatch.setattr(os, "scandir", forbid)
    monkeypatch.setattr(os, "listdir", forbid)
    assert folder.state() is TrialState.FINISHED
    assert [str(path) for path in looks] == [str(folder.path / "result.json")]


def test_a_folder_that_cannot_be_locked_is_an_error_of_the_ledger(folder: TrialFolder) -> None:
    folder.locks_path.write_text("a file")
    with pytest.raises(LedgerError, match="cannot write to"), folder.locked():
        pytest.fail("locked")


def test_what_killed_writers_left_is_swept_from_all_of_a_trials_folders(folder: TrialFolder) -> None:
    left = [folder.path / place / ".x.123.tmp" for place in (".", "attempts", "locks", "results/a/fold_0")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with folder.locked():
        folder.sweep()
    assert not any(path.exists() for path in left)
    assert folder.spec() == make_spec()


# ---------------------------------------------------------------------------------------------------------- records


def test_records_come_back_as_they_were_written(folder: TrialFolder) -> None:
    second = replace(HEADER, attempt=1, resumed_from_iteration=50)
    for header in (HEADER, second):
        folder.begin_attempt(header)
    intervals = [make_interval(0, 80), make_interval(50, 100, attempt=1, gpu_kwh=None)]
    for interval in intervals:
        folder.append_cost(interval)
    assert folder.attempts() == [HEADER, second]
    assert folder.cost_intervals() == intervals
    assert folder.spec() == make_spec()


def test_of_an_epoch_trained_twice_the_later_report_counts(folder: TrialFolder) -> None:
    for epoch, seconds in ((0, 1.0), (1, 2.0), (2, 3.0), (1, 2.5)):
        folder.append_epoch(replace(EPOCH, epoch=epoch, training_seconds=seconds))
    assert [(report.epoch, report.training_seconds) for report in folder.epochs()] == [(0, 1.0), (1, 2.5), (2, 3.0)]


def test_a_line_torn_by_a_crash_costs_that_line_only(folder: TrialFolder) -> None:
    folder.append_cost(make_interval(0, 10))
    with (folder.path / "costs.jsonl").open("ab") as handle:
        handle.write(b'{"attempt":0,"phase":"trai')
    assert folder.cost_intervals() == [make_interval(0, 10)]
    folder.append_cost(make_interval(20, 30))
    assert folder.cost_intervals() == [make_interval(0, 10), make_interval(20, 30)]


def test_nothing_is_appended_to_a_damaged_file(folder: TrialFolder) -> None:
    path = folder.path / "costs.jsonl"
    path.write_bytes(b"garbage")
    with pytest.raises(LedgerError, match=r"costs\.jsonl is damaged: line 1 is not a JSON object; restore it"):
        folder.append_cost(make_interval(0, 10))
    assert path.read_bytes() == b"garbage"


@pytest.mark.skipif(not FULL_DISK.exists(), reason="no /dev/full on this machine")
def test_a_full_disk_is_named_and_leaves_the_records(folder: TrialFolder) -> None:
    (folder.path / "costs.jsonl").symlink_to(FULL_DISK)
    for write in (
        lambda: folder.append_cost(make_interval(0, 10)),
        lambda: folder.append_cost(make_interval(0, 10)),
    ):
        with pytest.raises(DiskFullError, match=f"{folder.path}; free some, then the same command resumes"):
            write()


def test_a_lock_that_finds_no_room_says_so(folder: TrialFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(DiskFullError, match="free some"), folder.locked():
        pytest.fail("locked")

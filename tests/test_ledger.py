"""The ledger through a trial's life, with real locks held by real processes that are really killed."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from examples import EPOCH, HEADER, RESULT, make_interval, make_spec

from study.errors import LedgerError
from study.ledger import REASON_LENGTH, SCHEMA_VERSION, Ledger, TrialFolder, TrialState

SPACE = {"name": "pgps", "axes": {"stages": [1, 3]}}

# A worker: takes the trial's lock, records an attempt, says so, and sleeps until it is killed.
WORKER = """
import os, sys, time
from pathlib import Path
from study.ledger import TrialFolder
say = lambda word: os.write(1, f"{{word}}\\n".encode())
folder = TrialFolder(Path(sys.argv[1]))
with folder.locked():
    folder.append_event("started", attempt=0, iteration=0)
    {before}
    say("working")
    time.sleep(600)
"""
# What data loaders do: a forked child that outlives its killed parent. It says when it has begun.
FORK_A_LOADER = "os.fork() or (say(os.getpid()), time.sleep(600))"


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    return Ledger.create(tmp_path / "study").add(make_spec())


@contextmanager
def worker(folder: TrialFolder, *, before: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that works on the trial; killed at the end if the test has not done it."""
    command = [sys.executable, "-c", WORKER.format(before=before), str(folder.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_from(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


# --------------------------------------------------------------------------------------------------- a trial's life


def test_a_trial_from_new_to_finished(folder: TrialFolder) -> None:
    assert folder.state() is TrialState.NEW
    with worker(folder) as process:
        assert line_from(process) == "working"
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
    assert [event["event"] for event in folder.events()] == ["started", "started", "failed", "started", "finished"]


def test_a_result_means_finished_even_when_the_process_died_before_saying_so(folder: TrialFolder) -> None:
    folder.begin_attempt(HEADER)
    folder.finish(RESULT, attempt=0)
    events = folder.path / "events.jsonl"
    events.write_bytes(events.read_bytes().splitlines(keepends=True)[0])
    assert folder.state() is TrialState.FINISHED


def test_two_processes_may_not_work_on_one_trial(folder: TrialFolder) -> None:
    with worker(folder) as process:
        assert line_from(process) == "working"
        refusal = f"trial {folder.trial_id} is being trained by another process"
        with pytest.raises(LedgerError, match=refusal), folder.locked():
            pytest.fail("two workers on one trial")
        kill(process)
    with folder.locked():
        assert folder.state() is TrialState.RUNNING
    assert folder.state() is TrialState.INTERRUPTED


def test_a_loader_that_outlives_its_killed_trial_does_not_keep_it_locked(folder: TrialFolder) -> None:
    with worker(folder, before=FORK_A_LOADER) as process:
        said = {line_from(process), line_from(process)} - {"working"}
        (loader,) = map(int, said)
        assert folder.state() is TrialState.RUNNING
        kill(process)
        try:
            os.kill(loader, 0)
            assert folder.state() is TrialState.INTERRUPTED
            with folder.locked():
                pass
        finally:
            os.kill(loader, signal.SIGKILL)


def test_whoever_asks_for_the_state_does_not_turn_a_worker_away(folder: TrialFolder) -> None:
    refusals: list[LedgerError] = []

    def work() -> None:
        try:
            with folder.locked():
                pass
        except LedgerError as error:
            refusals.append(error)

    # What `state` does for an instant, held until the worker has started.
    with (folder.path / "lock").open("a") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        starting = threading.Thread(target=work)
        starting.start()
        starting.join(timeout=0.1)
        fcntl.flock(asking, fcntl.LOCK_UN)
    starting.join()
    assert refusals == []


def test_a_folder_that_cannot_be_locked_is_an_error_of_the_ledger(folder: TrialFolder) -> None:
    (folder.path / "lock").mkdir()
    with pytest.raises(LedgerError, match="cannot write to"), folder.locked():
        pass


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
    folder.append_cost(make_interval(20, 30))
    assert folder.cost_intervals() == [make_interval(0, 10), make_interval(20, 30)]


# ----------------------------------------------------------------------------------------------------- study folders


def test_a_trial_is_added_once(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study", space=SPACE)
    folders = [ledger.add(make_spec("cps")), ledger.add(make_spec("pgps")), ledger.add(make_spec("cps", stages=3))]
    assert folders[0] == folders[2]
    assert {trial.trial_id for trial in ledger.trials()} == {folders[0].trial_id, folders[1].trial_id}
    # The label of whoever came first stays, the identity is the same.
    assert folders[0].spec() == make_spec("cps")


def test_the_same_study_is_continued(tmp_path: Path) -> None:
    space = {**SPACE, "axes": {"stages": (1, 3)}}
    first = Ledger.create(tmp_path / "study", space=space)
    assert Ledger.create(tmp_path / "study", space=space) == Ledger.open(tmp_path / "study") == first
    assert first.header()["space"] == SPACE
    # A single trial may be added to any study by hand.
    assert Ledger.create(tmp_path / "study") == first


def test_points_are_remembered_once(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study")
    assert ledger.points() == []
    for _ in range(2):
        ledger.add_point({"stages": 3, "patch": (1, 2)}, ["a", "b"])
    ledger.add_point({"stages": 1}, ["c"])
    assert ledger.points() == [
        {"point": {"stages": 3, "patch": [1, 2]}, "trial_ids": ["a", "b"]},
        {"point": {"stages": 1}, "trial_ids": ["c"]},
    ]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert Ledger.create(tmp_path).trials() == []


def test_another_study_is_refused_and_told_apart(tmp_path: Path) -> None:
    Ledger.create(tmp_path / "study", space=SPACE)
    with pytest.raises(LedgerError, match="belongs to another study: axes, seed differ; name another --out"):
        Ledger.create(tmp_path / "study", space={"name": "pgps", "axes": {}, "seed": 1})


def test_a_folder_of_single_trials_does_not_become_a_study(tmp_path: Path) -> None:
    Ledger.create(tmp_path / "study")
    with pytest.raises(LedgerError, match="holds hand-made trials, not this study"):
        Ledger.create(tmp_path / "study", space=SPACE)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(LedgerError, match=r"holds other files and no study\.json; name an empty or new folder"):
        Ledger.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for root in (file, file / "study"):
        with pytest.raises(LedgerError, match="cannot write to"):
            Ledger.create(root)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Ledger.create(tmp_path)
    header = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps({**header, "schema": SCHEMA_VERSION + 1}))
    for look in (Ledger.open, Ledger.create):
        with pytest.raises(LedgerError, match=f"has ledger schema {SCHEMA_VERSION + 1}, this version reads"):
            look(tmp_path)


@pytest.mark.parametrize("content", ["", '{"schema": ', "[1]", "7"])
def test_a_broken_header_is_an_error_of_the_ledger(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(LedgerError, match=r"study\.json is not"):
        Ledger.open(tmp_path)


def test_what_is_no_study_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="the folder does not exist"):
        Ledger.open(tmp_path / "absent")
    with pytest.raises(LedgerError, match="is not a study folder"):
        Ledger.open(tmp_path)


def test_folders_without_write_permission_are_refused(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study")
    for folder in (ledger.root, tmp_path):
        folder.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user writes everywhere")
        with pytest.raises(LedgerError, match=r"cannot write to .*; name a folder you may write to"):
            Ledger.create(tmp_path / "other")
        with pytest.raises(LedgerError, match="cannot write to"):
            ledger.add(make_spec())
    finally:
        for folder in (tmp_path, ledger.root):
            folder.chmod(0o700)

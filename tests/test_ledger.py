"""The ledger through a trial's life, with real locks held by real processes that are really killed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples import EPOCH, HEADER, RESULT, make_interval, make_spec

from study.errors import DiskFullError, LedgerError, TrialBusyError
from study.ledger import SCHEMA_VERSION, Ledger
from study.trial_folder import REASON_LENGTH, TrialFolder, TrialState

FULL_DISK = Path("/dev/full")
SPACE = {"name": "pgps", "axes": {"stages": [1, 3]}}

# A worker: takes the trial's lock, records an attempt, says so, and sleeps until it is killed.
WORKER = """
import os, sys, time
from pathlib import Path
from study.trial_folder import TrialFolder
say = lambda word: os.write(1, f"{word}\\n".encode())
folder = TrialFolder(Path(sys.argv[1]))
with folder.locked():
    folder.append_event("started", attempt=0, iteration=0)
    say("working")
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    return Ledger.create(tmp_path / "study").add(make_spec())


@contextmanager
def worker(folder: TrialFolder) -> Iterator[subprocess.Popen[str]]:
    """A process that works on the trial; killed at the end if the test has not done it."""
    command = [sys.executable, "-c", WORKER, str(folder.path)]
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
    story = ["started", "started", "failed", "note", "started", "finished"]
    assert [event["event"] for event in folder.events()] == story


def test_a_result_means_finished_even_when_the_process_died_before_saying_so(folder: TrialFolder) -> None:
    folder.begin_attempt(HEADER)
    folder.finish(RESULT, attempt=0)
    events = folder.path / "events.jsonl"
    events.write_bytes(events.read_bytes().splitlines(keepends=True)[0])
    assert folder.state() is TrialState.FINISHED


def test_two_processes_may_not_work_on_one_trial(folder: TrialFolder) -> None:
    with worker(folder) as process:
        assert line_from(process) == "working"
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


# -------------------------------------------------------------------------------------------------- who runs the study


RUNNER = """
import os, sys, time
from pathlib import Path
from study.ledger import Ledger
with Ledger.open(Path(sys.argv[1])).locked():
    os.write(1, b"running\\n")
    time.sleep(600)
"""


def test_a_study_is_run_by_one_and_taken_over_from_the_dead(tmp_path: Path) -> None:
    ledger, said = Ledger.create(tmp_path / "study"), list[str]()
    assert ledger.runner() is None
    command = [sys.executable, "-c", RUNNER, str(ledger.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert line_from(process) == "running"
        runner = ledger.runner()
        assert runner is not None
        assert runner.pid == process.pid
        refusal = (
            rf"is being run by process {process.pid} on .* since .* UTC; stop that one first, or name another --out"
        )
        with pytest.raises(LedgerError, match=refusal), ledger.locked(said.append):
            pytest.fail("two runners")
        assert said == []
        kill(process)
    with ledger.locked(said.append):
        assert ledger.runner() is not None
    assert len(said) == 1
    assert said[0].startswith(f"took over from process {process.pid} on ")
    assert ledger.runner() is None


def test_a_study_whose_creator_was_killed_is_created(tmp_path: Path) -> None:
    left = tmp_path / ".study.json.123.tmp"
    left.write_text('{"schema"')
    ledger = Ledger.create(tmp_path, space=SPACE)
    with ledger.locked():
        assert not left.exists()
    assert ledger.header()["space"] == SPACE


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


# File, its content, what is said to be wrong with it, and what to do.
DAMAGES: dict[str, tuple[str, bytes, str, str]] = {
    "no JSON": ("costs.jsonl", b"{}x\n", "line 1 is not a JSON object", "restore it .* or delete .* to train .* anew"),
    "no record": ("costs.jsonl", b'{"a":1}\n', r"line 1 is no record of this file \(phase is missing\)", "restore it"),
    "no phase": (
        "costs.jsonl",
        b'{"phase":"x"}\n',
        r"line 1 is no record .*\('x' is not a valid Phase\)",
        "restore it",
    ),
    "no epoch": ("epochs.jsonl", b'{"epoch":0}\n', "line 1 is no record of this file", "restore it"),
    "no event": ("events.jsonl", b'{"time":1}\n', r"line 1 .*\(event is missing\)", "delete it: it tells"),
    "no time": ("events.jsonl", b'{"event":"x","time":"y"}\n', "line 1 .*a name and a time", "delete it: it tells"),
    "no text": ("events.jsonl", b"\xff\xfe\n", "line 1 is not a JSON object", "delete it: it tells"),
    "no header": ("attempts/000.json", b"{}", "meter is missing", "restore it"),
    "header cut": ("attempts/000.json", b'{"attempt', "Unterminated string", "restore it"),
    "no result": ("result.json", b"", "Expecting value", "delete it, and the same command validates the trial again"),
    "bytes": ("result.json", b"\x80\x04\x95", "codec can't decode", "delete it"),
    "list": ("result.json", b"[]", "must be a mapping", "delete it"),
    "no specification": ("spec.json", b'{"curriculum": 7}', "", "delete it, and the same command writes it again"),
}


def read_everything(folder: TrialFolder) -> None:
    for read in (folder.spec, folder.result, folder.attempts, folder.cost_intervals, folder.epochs, folder.events):
        read()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line_that_names_the_file_and_the_remedy(folder: TrialFolder, damage: str) -> None:
    name, content, wrong, remedy = DAMAGES[damage]
    (folder.path / name).parent.mkdir(exist_ok=True)
    (folder.path / name).write_bytes(content)
    pattern = rf"^{folder.path / name} is damaged: .*{wrong}.*; {remedy}"
    with pytest.raises(LedgerError, match=pattern) as raised:
        read_everything(folder)
    assert "\n" not in str(raised.value)


def test_nothing_is_appended_to_a_damaged_file(folder: TrialFolder) -> None:
    path = folder.path / "costs.jsonl"
    path.write_bytes(b"garbage")
    with pytest.raises(LedgerError, match=r"costs\.jsonl is damaged: line 1 is not a JSON object; restore it"):
        folder.append_cost(make_interval(0, 10))
    assert path.read_bytes() == b"garbage"


def test_a_record_that_is_a_folder_cannot_be_read(folder: TrialFolder) -> None:
    (folder.path / "costs.jsonl").mkdir()
    with pytest.raises(LedgerError, match=r"costs\.jsonl cannot be read: Is a directory$"):
        folder.cost_intervals()


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


def test_a_damaged_specification_is_not_trained_by(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study")
    path = ledger.add(make_spec("cps")).path / "spec.json"
    path.write_text(json.dumps(make_spec("pgps").to_json()))
    other = make_spec("pgps").trial_id
    with pytest.raises(
        LedgerError, match=rf"spec\.json specifies trial {other}; delete it, and the same command writes"
    ):
        ledger.add(make_spec("cps"))
    path.unlink()
    assert ledger.add(make_spec("cps")).spec() == make_spec("cps")


def test_a_trial_made_by_hand_is_marked_unless_the_study_made_it_first(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study", space=SPACE)
    assert not ledger.add(make_spec("cps")).by_hand
    assert not ledger.add(make_spec("cps"), by_hand=True).by_hand
    assert ledger.add(make_spec("pgps"), by_hand=True).by_hand


def test_points_are_kept_in_the_order_of_their_proposal(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study")
    assert ledger.points() == []
    ledger.add_point(0, {"stages": 3, "patch": (1, 2)}, ["a", "b"])
    ledger.add_point(1, {"stages": 1}, ["c"])
    assert ledger.points() == [
        {"number": 0, "point": {"stages": 3, "patch": [1, 2]}, "trial_ids": ["a", "b"]},
        {"number": 1, "point": {"stages": 1}, "trial_ids": ["c"]},
    ]


@pytest.mark.parametrize("line", ["{}", "[]", '{"point": [], "trial_ids": []}', '{"point": {}, "trial_ids": [1]}'])
def test_a_damaged_point_is_named(tmp_path: Path, line: str) -> None:
    ledger = Ledger.create(tmp_path / "study")
    ledger.add_point(0, {"stages": 3}, ["a"])
    with (ledger.root / "points.jsonl").open("a") as handle:
        handle.write(f"{line}\n")
    with pytest.raises(LedgerError, match=r"points\.jsonl is damaged: line 2 is .*; restore it from a backup"):
        ledger.points()


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


@pytest.mark.parametrize("content", ["", '{"schema": ', "[1]", "7", "\x00\x00", '{"schema": 1, "space": [1]}'])
def test_a_broken_header_is_an_error_of_the_ledger(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(LedgerError, match=r"study\.json is not .*; restore it from a backup"):
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

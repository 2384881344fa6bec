"""The folder of a study and of a trial through its life, with locks held by real processes that are really killed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from examples import EPOCH, HEADER, RESULT, make_interval, make_spec
from locking import kill, worker

from study.common.errors import DiskFullError, LedgerError, TrialBusyError
from study.store.audit import audit
from study.store.ledger import SCHEMA_VERSION, Ledger
from study.store.status import study_status
from study.store.trial_folder import REASON_LENGTH, TrialFolder, TrialState

SPACE = {"name": "pgps", "axes": {"stages": [1, 3]}}


@pytest.fixture
def folder(ledger: Ledger) -> TrialFolder:
    return ledger.add(make_spec())


def test_a_trial_from_new_to_finished(folder: TrialFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder.state() is TrialState.NEW
    with worker(folder.locks_path) as process:
        assert folder.state() is TrialState.RUNNING
        refusal = rf"trial {folder.trial_id} is being trained by process {process.pid} on .*; wait for it or stop it"
        with pytest.raises(TrialBusyError, match=refusal), folder.locked():
            pytest.fail("two workers on one trial")
        folder.append_event("started", attempt=0, iteration=0)
        kill(process)
    assert (folder.state(), folder.failure_reason()) == (TrialState.INTERRUPTED, None)

    folder.begin_attempt(replace(HEADER, attempt=1, resumed_from_iteration=50))
    folder.fail(attempt=1, reason="loss is\nnot finite " + "x" * 1000)
    assert folder.state() is TrialState.FAILED
    reason = folder.failure_reason()
    assert reason is not None
    assert reason.startswith("loss is not finite x") and len(reason) == REASON_LENGTH

    with folder.locked():
        assert folder.events()[-1]["text"].startswith(f"took over from process {process.pid} on ")
        folder.begin_attempt(replace(HEADER, attempt=2))
        assert folder.state() is TrialState.RUNNING
        assert folder.result() is None
        folder.finish(RESULT, attempt=2)
    assert folder.result() == RESULT
    story = ["started", "started", "failed", "note", "started", "finished"]
    assert [event["event"] for event in folder.events()] == story

    looks: list[object] = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: (looks.append(path), stat(path, **options))[1])
    for place, name in ((Path, "read_bytes"), (Path, "open"), (os, "open"), (os, "scandir"), (os, "listdir")):
        monkeypatch.setattr(place, name, lambda *_: pytest.fail("read a file"))
    assert folder.state() is TrialState.FINISHED
    assert [str(path) for path in looks] == [str(folder.path / "result.json")]


def test_a_result_means_finished_even_when_the_process_died_before_saying_so(folder: TrialFolder) -> None:
    folder.begin_attempt(HEADER)
    folder.finish(RESULT, attempt=0)
    (folder.path / "events.jsonl").unlink()
    assert folder.state() is TrialState.FINISHED
    (folder.path / "result.json").unlink()
    # One that has lost its story is not new.
    assert folder.state() is TrialState.INTERRUPTED


def test_an_infeasible_trial_is_told_from_a_failed_one(folder: TrialFolder) -> None:
    folder.begin_attempt(HEADER)
    folder.fail(attempt=0, reason="out of memory", state=TrialState.INFEASIBLE)
    folder.note("something worth knowing")
    assert (folder.state(), folder.failure_reason()) == (TrialState.INFEASIBLE, "out of memory")
    folder.begin_attempt(replace(HEADER, attempt=1))
    assert (folder.state(), folder.failure_reason()) == (TrialState.INTERRUPTED, None)


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


def test_records_come_back_as_they_were_written(folder: TrialFolder) -> None:
    headers = [HEADER, replace(HEADER, attempt=1, resumed_from_iteration=50)]
    intervals = [make_interval(0, 80), make_interval(50, 100, attempt=1, gpu_kwh=None)]
    for header, interval in zip(headers, intervals, strict=True):
        folder.begin_attempt(header)
        folder.append_cost(interval)
    for epoch, seconds in ((0, 1.0), (1, 2.0), (2, 3.0), (1, 2.5)):
        folder.append_epoch(replace(EPOCH, epoch=epoch, training_seconds=seconds))
    assert (folder.attempts(), folder.cost_intervals(), folder.spec()) == (headers, intervals, make_spec())
    # Of an epoch trained twice the later report counts.
    assert [(report.epoch, report.training_seconds) for report in folder.epochs()] == [(0, 1.0), (1, 2.5), (2, 3.0)]


def test_a_lock_that_finds_no_room_says_so(folder: TrialFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(DiskFullError, match="free some"), folder.locked():
        pytest.fail("locked")


def test_a_study_is_run_by_one_and_taken_over_from_the_dead(ledger: Ledger) -> None:
    said = list[str]()
    assert ledger.runner() is None
    with worker(ledger.root / "locks") as process:
        runner = ledger.runner()
        assert runner is not None
        assert runner.pid == process.pid
        refusal = rf"is being run by process {process.pid} on .* since .* UTC; stop that one first, or name another"
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


def test_a_trial_is_added_once_and_marked_if_it_was_made_by_hand(ledger: Ledger) -> None:
    folders = [ledger.add(make_spec("cps")), ledger.add(make_spec("pgps"), by_hand=True)]
    assert ledger.add(make_spec("cps", stages=3), by_hand=True) == folders[0]
    assert [folder.by_hand for folder in folders] == [False, True]
    assert {trial.trial_id for trial in ledger.trials()} == {folder.trial_id for folder in folders}
    # The label of whoever came first stays, the identity is the same.
    assert folders[0].spec() == make_spec("cps")


def test_the_same_study_is_continued(tmp_path: Path) -> None:
    space = {**SPACE, "axes": {"stages": (1, 3)}}
    first = Ledger.create(tmp_path / "study", space=space)
    assert Ledger.create(tmp_path / "study", space=space) == Ledger.open(tmp_path / "study") == first
    assert first.header()["space"] == SPACE
    # A single trial may be added to any study by hand.
    assert Ledger.create(tmp_path / "study") == first


def test_a_damaged_specification_is_not_trained_by(ledger: Ledger) -> None:
    path = ledger.add(make_spec("cps")).path / "spec.json"
    path.write_text(json.dumps(make_spec("pgps").to_json()))
    other = make_spec("pgps").trial_id
    with pytest.raises(LedgerError, match=rf"spec\.json specifies trial {other}; delete it, and the same command"):
        ledger.add(make_spec("cps"))
    path.unlink()
    assert ledger.add(make_spec("cps")).spec() == make_spec("cps")


@pytest.mark.parametrize("line", ["{}", "[]", '{"point": [], "trial_ids": []}', '{"point": {}, "trial_ids": [1]}'])
def test_points_are_kept_in_order_and_a_damaged_one_is_named(ledger: Ledger, line: str) -> None:
    assert ledger.points() == []
    ledger.add_point(0, {"stages": 3, "patch": (1, 2)}, ["a", "b"])
    ledger.add_point(1, {"stages": 1}, ["c"])
    assert ledger.points() == [
        {"number": 0, "point": {"stages": 3, "patch": [1, 2]}, "trial_ids": ["a", "b"]},
        {"number": 1, "point": {"stages": 1}, "trial_ids": ["c"]},
    ]
    with (ledger.root / "points.jsonl").open("a") as handle:
        handle.write(f"{line}\n")
    with pytest.raises(LedgerError, match=r"points\.jsonl is damaged: line 3 is .*; restore it from a backup"):
        ledger.points()


def studies(folder: Path) -> Iterator[tuple[Path, dict[str, object] | None, str]]:
    """Folders that are taken for none, or not for the study of a space, and what is said of them."""
    Ledger.create(folder / "another", space=SPACE)
    yield (
        folder / "another",
        {"name": "pgps", "axes": {}, "seed": 1},
        "belongs to another study: axes, seed differ; name",
    )
    Ledger.create(folder / "by hand")
    yield folder / "by hand", SPACE, "holds hand-made trials, not this study"
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("precious")
    yield folder / "mine", None, r"holds other files and no study\.json; name an empty or new folder"
    (folder / "file").write_text("")
    yield folder / "file", None, "cannot write to"
    yield folder / "file" / "study", None, "cannot write to"
    header = json.loads((folder / "another" / "study.json").read_text())
    contents = ["", '{"schema": ', "[1]", "7", "\x00\x00", '{"schema": 1, "space": [1]}']
    for key, value in (("folds", None), ("seeds", [[0]]), ("objectives", 5), ("searcher", []), ("resolved", {"D": 1})):
        contents.append(json.dumps({"schema": 1, "space": {**SPACE, key: value}}))
    contents += [json.dumps({"schema": 1, "space": None, key: [1]}) for key in ("trackers", "provenance")]
    newer = json.dumps({**header, "schema": SCHEMA_VERSION + 1})
    for number, content in enumerate([newer, *contents]):
        (folder / str(number)).mkdir()
        (folder / str(number) / "study.json").write_text(content)
        said = r"study\.json is no study's header: .*; restore it from a backup"
        yield (
            folder / str(number),
            None,
            f"has ledger schema {SCHEMA_VERSION + 1}, this version" if not number else said,
        )


def test_what_is_no_study_or_another_one_is_refused_and_left_alone(tmp_path: Path) -> None:
    for root, space, said in studies(tmp_path):
        with pytest.raises(LedgerError, match=said):
            Ledger.create(root, space=space)
        if root.name.isdigit():
            with pytest.raises(LedgerError, match=said):
                Ledger.open(root)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    for root, said in ((tmp_path / "absent", "the folder does not exist"), (tmp_path, "is not a study folder")):
        with pytest.raises(LedgerError, match=said):
            Ledger.open(root)
    (tmp_path / "empty").mkdir()
    assert Ledger.create(tmp_path / "empty").trials() == []
    (tmp_path / "empty" / "trials").symlink_to("/not/mounted")
    for read in (Ledger.trials, study_status, audit):
        with pytest.raises(
            LedgerError, match="trials is no folder, or a link to one that is not there; mount or restore"
        ):
            read(Ledger(tmp_path / "empty"))


def test_folders_without_write_permission_are_refused(ledger: Ledger, tmp_path: Path) -> None:
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

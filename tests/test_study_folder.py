"""The folder of a study: whose it is, who runs it, which points and trials it has, and what is no study."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from examples import make_spec
from locking import kill, worker

from study.common.errors import LedgerError
from study.store.ledger import SCHEMA_VERSION, Ledger

SPACE = {"name": "pgps", "axes": {"stages": [1, 3]}}

# -------------------------------------------------------------------------------------------------- who runs the study


def test_a_study_is_run_by_one_and_taken_over_from_the_dead(tmp_path: Path) -> None:
    ledger, said = Ledger.create(tmp_path / "study"), list[str]()
    assert ledger.runner() is None
    with worker(ledger.root / "locks") as process:
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

"""The audit: silent about every state in which a killed process can leave a study, and plain about every damage."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from damages import DAMAGES, EPOCH_COUNT, PER_EPOCH, Write, drop, reverse, small_spec
from examples import EPOCH, HEADER, make_interval, result_of
from prepared import spec_of, train, workplace

from analysis.__main__ import main
from analysis.page.cards import events_of
from analysis.statistics.study_results import gather
from study.common import files
from study.common.errors import LedgerError
from study.nnunet.checkpoints import LATEST, STATE_KEY
from study.nnunet.datasets import data_paths
from study.store.audit import audit, audit_trial, check_resumable
from study.store.ledger import Ledger
from study.store.outcomes import outcome
from study.store.records import Phase
from study.store.status import study_status
from study.store.trial_folder import TrialFolder, TrialState

TOTAL = PER_EPOCH * EPOCH_COUNT
SPACE = {"name": "audited"}


def whole_result() -> Any:
    return result_of(small_spec())


def spent(attempt: int, phase: Phase, at: int) -> Write:
    return lambda folder: folder.append_cost(make_interval(at, at, attempt=attempt, phase=phase, seconds=1.0))


def begin(attempt: int, at: int) -> Iterator[Write]:
    yield lambda folder: folder.begin_attempt(replace(HEADER, attempt=attempt, resumed_from_iteration=at))
    yield spent(attempt, Phase.SETUP, at)


def epoch(attempt: int, number: int, *starts: int) -> Iterator[Write]:
    """An epoch in stretches that begin at these iterations, its validation and report, and a checkpoint's cost."""
    end = (number + 1) * PER_EPOCH
    for start, stop in zip(starts, (*starts[1:], end), strict=True):
        yield lambda folder, a=start, b=stop: folder.append_cost(make_interval(a, b, attempt=attempt))
    yield spent(attempt, Phase.ONLINE_VALIDATION, end)
    yield lambda folder: folder.append_epoch(replace(EPOCH, epoch=number, iteration=end))
    yield spent(attempt, Phase.TRAINING, end)


def validation(attempt: int) -> Iterator[Write]:
    for number in range(3):
        later = {"phase": Phase.FINAL_VALIDATION, "seconds": 1.0, "started_at": 2000.0 + number}
        yield lambda folder, a=later: folder.append_cost(make_interval(TOTAL, TOTAL, attempt=attempt, **a))
    yield lambda folder: folder.finish(whole_result(), attempt=attempt)


def uninterrupted() -> list[Write]:
    return [*begin(0, 0), *epoch(0, 0, 0, 4), *epoch(0, 1, 10), *epoch(0, 2, 20, 21, 25), *validation(0)]


def interrupted() -> list[Write]:
    """Killed beyond a checkpoint, stopped before a validation, broken before its set-up was done, and finished."""
    return [
        *begin(0, 0),
        *epoch(0, 0, 0, 5),
        lambda folder: folder.append_cost(make_interval(10, 17)),
        *begin(1, 10),
        *list(epoch(1, 1, 10, 13))[:2],
        lambda folder: folder.append_event("interrupted", attempt=1, reason="stopped"),
        lambda folder: folder.fail(attempt=2, reason="no device"),
        *list(begin(2, 20))[:1],
        *begin(3, 20),
        *list(epoch(3, 1, 20))[1:],
        *epoch(3, 2, 20),
        *list(validation(3))[:2],
        *begin(4, 30),
        *validation(4),
    ]


def written(ledger: Ledger, writes: list[Write], seed: int = 0) -> TrialFolder:
    folder = ledger.add(small_spec(seed))
    for write in writes:
        write(folder)
    return folder


@pytest.mark.parametrize("history", [uninterrupted, interrupted])
def test_whatever_write_was_the_last_the_records_fit(ledger: Ledger, history: Callable[[], list[Write]]) -> None:
    audit(ledger)
    folder = ledger.add(small_spec())
    for write in history():
        audit(ledger)
        write(folder)
    audit(ledger)
    assert folder.state() is TrialState.FINISHED


@pytest.mark.parametrize("history", [uninterrupted, interrupted])
def test_a_line_cut_short_is_no_damage(ledger: Ledger, history: Callable[[], list[Write]]) -> None:
    # Only while the trial runs: of a finished one every line was whole.
    folder = written(ledger, history()[:-4])
    for path in folder.path.glob("*.jsonl"):
        content = path.read_bytes()
        path.write_bytes(content + b'{"atte')
        audit(ledger)
        path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_a_finished_trial_is_named(ledger: Ledger, damage: str) -> None:
    harm, name, said = DAMAGES[damage]
    folder = written(ledger, interrupted())
    audit(ledger)
    harm(folder)
    with pytest.raises(LedgerError, match=rf"^{folder.path / name}.*{said}") as raised:
        audit(ledger)
    assert "\n" not in str(raised.value)
    assert re.search(r"; (restore|delete) |cannot be read: ", str(raised.value))


def test_every_reader_sees_what_is_damaged_as_unreadable_and_goes_on(ledger: Ledger) -> None:
    """`status`, searchers, the report's events, and by `gather` all of the analysis."""
    whole = written(ledger, uninterrupted())
    damaged = {damage: written(ledger, interrupted(), seed) for seed, damage in enumerate(DAMAGES, start=100)}
    said = {}
    for damage, folder in damaged.items():
        DAMAGES[damage][0](folder)
        with pytest.raises(LedgerError) as raised:
            audit_trial(folder)
        said[folder.trial_id] = str(raised.value)

    rows = {row.trial_id: row for row in study_status(ledger)}
    assert {trial_id: rows[trial_id].last_error for trial_id in said} == said
    assert {rows[trial_id].state for trial_id in said} == {TrialState.UNREADABLE}
    assert rows[whole.trial_id].state is TrialState.FINISHED

    for damage, folder in damaged.items():
        told = outcome([folder])
        assert (told.state, told.values) == (TrialState.FAILED, {}), damage
        assert "is unreadable: " in (told.reason or ""), damage

    found = gather([ledger.root])
    trials = found.tables.trials.set_index("trial_id")
    assert trials.loc[list(said), "failure"].to_dict() == said
    assert set(trials.loc[list(said), "state"]) == {"unreadable"}
    assert trials.loc[list(said), ["dice", "runtime_seconds", "co2_kg"]].isna().all(axis=None)
    assert found.points["trial_ids"].tolist() == [whole.trial_id]
    assert events_of([ledger.root])[ledger.root.name, whole.trial_id]


def test_verbs_of_the_analysis_name_what_is_unreadable(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = written(ledger, interrupted()), written(ledger, uninterrupted(), seed=1)
    reverse("costs.jsonl")(folder)
    for verb, *options in (["front"], ["recommend", "--knee"], ["compare"], ["power"]):
        main([verb, str(ledger.root), *options])
        said = capsys.readouterr().err.splitlines()
        assert said[0].startswith(f"{folder.trial_id} unreadable: {folder.path / 'costs.jsonl'} is damaged: "), verb


def test_costs_that_end_before_a_reported_epoch_are_named(ledger: Ledger) -> None:
    folder = written(ledger, uninterrupted()[:6])
    audit(ledger)
    drop("costs.jsonl", -1, -2)(folder)
    with pytest.raises(LedgerError, match=r"costs\.jsonl is damaged: it ends at iteration 4, epoch 0 was trained to"):
        audit(ledger)


def test_a_bill_that_lost_its_last_validation_is_named_even_when_nothing_else_is_left(ledger: Ledger) -> None:
    folder = written(ledger, uninterrupted())
    (folder.path / "events.jsonl").unlink()
    audit(ledger)
    drop("costs.jsonl", -1, -2, -3)(folder)
    with pytest.raises(LedgerError, match="it lacks the final validation of a finished trial"):
        audit(ledger)


@pytest.mark.parametrize("name", ["events.jsonl", "result.json"])
def test_what_can_be_had_again_is_not_missed(ledger: Ledger, name: str) -> None:
    folder = written(ledger, interrupted())
    (folder.path / name).unlink()
    audit(ledger)


def test_a_trial_that_somebody_works_on_is_left_alone(ledger: Ledger) -> None:
    folder = written(ledger, uninterrupted()[:8])
    drop("costs.jsonl", 2)(folder)
    with folder.locked():
        audit(ledger)
        with pytest.raises(LedgerError, match="gap"):
            audit_trial(folder)
    with pytest.raises(LedgerError, match="gap"):
        audit(ledger)


def test_folders_that_are_not_trials_yet_or_never_are_passed_over(ledger: Ledger) -> None:
    (ledger.root / "trials" / small_spec().trial_id / "locks").mkdir(parents=True)
    (ledger.root / "trials" / "notes.txt").write_text("of somebody")
    audit(ledger)


@pytest.fixture
def searched(tmp_path: Path) -> Ledger:
    """A study of a space: two points of one trial each, the second not begun, and a trial made by hand."""
    ledger = Ledger.create(tmp_path / "searched", space=SPACE)
    for number in range(2):
        ledger.add_point(number, {"seed": number}, [small_spec(number).trial_id])
    written(ledger, uninterrupted())
    ledger.add(small_spec(9), by_hand=True)
    return ledger


def test_points_without_their_trials_and_trials_made_by_hand_are_fine(searched: Ledger) -> None:
    audit(searched)


@pytest.mark.parametrize("content", [None, b""])
def test_points_that_were_lost_are_missed(searched: Ledger, content: bytes | None) -> None:
    path = searched.root / "points.jsonl"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    hand = searched.trial(small_spec().trial_id).path / "by_hand"
    said = rf"points\.jsonl has lost lines: none names trial {small_spec().trial_id}; restore it .* empty file {hand}$"
    with pytest.raises(LedgerError, match=said):
        audit(searched)
    hand.touch()
    audit(searched)


def test_points_out_of_order_are_named(searched: Ledger) -> None:
    searched.add_point(3, {"seed": 3}, [small_spec(3).trial_id])
    with pytest.raises(LedgerError, match=r"points\.jsonl is damaged: line 3 is point 3, not 2; restore it"):
        audit(searched)


@pytest.mark.parametrize(("writes", "name"), [(7, "costs.jsonl"), (9, "epochs.jsonl")])
def test_a_checkpoint_that_the_ledger_does_not_know_is_not_gone_on_from(ledger: Ledger, writes: int, name: str) -> None:
    # With the tenth write the second epoch is reported; only then is its checkpoint written.
    check_resumable(written(ledger, uninterrupted()[:10]), iteration=2 * PER_EPOCH, epoch=2)
    folder = written(ledger, uninterrupted()[:writes], seed=1)
    check_resumable(folder, iteration=PER_EPOCH, epoch=1)
    with pytest.raises(LedgerError, match=rf"{name} is damaged: it .*; restore it from a backup, or delete"):
        check_resumable(folder, iteration=2 * PER_EPOCH, epoch=2)


@dataclass
class Snapshots:
    """Copies of a trial's records, taken whenever something has just been, or is about to be, made durable."""

    folder: TrialFolder
    root: Path
    copies: list[TrialFolder]

    def take(self) -> None:
        if self.folder.path.exists():
            target = self.root / str(len(self.copies)) / self.folder.trial_id
            shutil.copytree(self.folder.path, target, ignore=shutil.ignore_patterns("*.png"))
            self.copies.append(TrialFolder(target))


@contextmanager
def snapshots(folder: TrialFolder, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Snapshots]:
    taken, fsync = Snapshots(folder, root, []), os.fsync

    def noted(descriptor: int) -> None:
        taken.take()
        fsync(descriptor)
        taken.take()

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", noted)
        yield taken


def test_a_trial_killed_at_any_write_can_be_gone_on_with(
    data: Path, tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = data_paths(data)
    spec = spec_of(paths)
    with snapshots(ledger.trial(spec.trial_id), tmp_path / "copies", monkeypatch) as taken:
        train(spec, ledger, workplace(paths), after=14)
        train(spec, ledger, workplace(paths))
    reached: dict[int, tuple[int, int]] = {}
    for copy in taken.copies:
        audit_trial(copy)
        for path in copy.results_path.glob(f"*/*/fold_0/{LATEST}"):
            inode = path.stat().st_ino
            if inode not in reached:
                reached[inode] = position(path)
            iteration, index = reached[inode]
            check_resumable(copy, iteration=iteration, epoch=index)
    assert {(8, 1), (14, 1), (16, 2)} <= set(reached.values())
    assert len(taken.copies) > 50


def position(path: Path) -> tuple[int, int]:
    """Iterations and epochs that a checkpoint holds."""
    checkpoint = torch.load(path, weights_only=False)
    return checkpoint[STATE_KEY]["iteration"], checkpoint["current_epoch"]


def test_the_audit_of_many_trials_reads_each_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [written(ledger, uninterrupted(), seed) for seed in range(5)]
    read, read_whole = [], files.read_whole

    def counted(path: Path | str) -> bytes:
        read.append(Path(path))
        return read_whole(path)

    monkeypatch.setattr(files, "read_whole", counted)
    audit(ledger)
    in_trials = [path for path in read if ledger.root / "trials" in path.parents]
    assert len(in_trials) == len(set(in_trials)) == len(trials) * 6

"""Checkpoints: what is newest, what is left when a write breaks, and when the next one is due."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from study.common.errors import LedgerError, TrialInterrupted
from study.nnunet import checkpoints
from study.nnunet.checkpoints import (
    FINAL,
    LARGEST_SHARE,
    LATEST,
    LONGEST_INTERVAL_SECONDS,
    PREVIOUS,
    STATE_KEY,
    CheckpointClock,
    newest_readable,
    save,
)


def checkpoint(iteration: int) -> dict[str, Any]:
    return {"network_weights": {"w": torch.full((1000,), float(iteration))}, STATE_KEY: {"iteration": iteration}}


def iteration_in(path: Path | None) -> int | None:
    return None if path is None else torch.load(path, weights_only=False)[STATE_KEY]["iteration"]


def found(folder: Path) -> tuple[int | None, list[str]]:
    """Iteration of the newest readable checkpoint, and what was said about others."""
    notes: list[str] = []
    return iteration_in(newest_readable(folder, notes.append)), notes


def test_the_newest_of_two_is_kept_and_found(tmp_path: Path) -> None:
    assert found(tmp_path) == (None, [])
    for iteration in (3, 6, 9):
        save(tmp_path, checkpoint(iteration), final=False)
        assert found(tmp_path) == (iteration, [])
    assert {path.name for path in tmp_path.iterdir()} == {LATEST, PREVIOUS}
    assert iteration_in(tmp_path / PREVIOUS) == 6


def test_the_final_one_replaces_the_others(tmp_path: Path) -> None:
    for iteration in (3, 6):
        save(tmp_path, checkpoint(iteration), final=False)
    (tmp_path / f".{LATEST}.new").write_bytes(b"whole, but never renamed")
    save(tmp_path, checkpoint(9), final=True)
    assert [path.name for path in tmp_path.iterdir()] == [FINAL]
    assert found(tmp_path) == (9, [])


@pytest.mark.parametrize("final", [False, True])
def test_a_write_that_breaks_leaves_the_older_ones(tmp_path: Path, final: bool) -> None:
    for iteration in (3, 6):
        save(tmp_path, checkpoint(iteration), final=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Exception, match="pickle"):
        save(tmp_path, {**checkpoint(9), "bad": lambda: None}, final=final)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_crash_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(3), final=False)
    (tmp_path / LATEST).replace(tmp_path / PREVIOUS)
    (tmp_path / f".{LATEST}.new").write_bytes(b"whole, but not yet renamed")
    assert found(tmp_path) == (3, [])
    save(tmp_path, checkpoint(6), final=False)
    assert found(tmp_path) == (6, [])
    assert iteration_in(tmp_path / PREVIOUS) == 3


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "scrambled": lambda path: path.write_bytes(b"no checkpoint" * 100),
    "of another trainer": lambda path: torch.save({"network_weights": {}}, path),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path: Path, name: str) -> None:
    for iteration in (3, 6):
        save(tmp_path, checkpoint(iteration), final=False)
    DAMAGES[name](tmp_path / LATEST)
    iteration, notes = found(tmp_path)
    assert iteration == 3
    assert len(notes) == 1
    assert notes[0].startswith(f"{LATEST} cannot be read (")
    DAMAGES[name](tmp_path / PREVIOUS)
    iteration, notes = found(tmp_path)
    assert iteration is None
    assert [note.partition(" ")[0] for note in notes] == [LATEST, PREVIOUS]


LOOTED = "looted"


class Loot:
    """What a foreign pickle may be: reading it runs its code, here to leave a file behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return Path.touch, (self.folder / LOOTED,)


def foreign(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "foreign.pth"
    torch.save({STATE_KEY: Loot(folder)}, path)
    return path


def test_reading_a_foreign_pickle_would_run_it(tmp_path: Path) -> None:
    outside = foreign(tmp_path / "elsewhere")
    assert newest_readable(outside.parent, print) is None
    assert not (outside.parent / LOOTED).exists()
    outside.rename(outside.parent / FINAL)
    assert newest_readable(outside.parent, print) is None
    assert (outside.parent / LOOTED).exists()


def test_what_a_link_leads_to_outside_the_trial_is_not_even_opened(tmp_path: Path) -> None:
    trial = tmp_path / "trial"
    for iteration in (3, 6):
        save(trial / "fold_0", checkpoint(iteration), final=False)
    outside = foreign(tmp_path / "elsewhere")
    (trial / "fold_0" / LATEST).unlink()
    (trial / "fold_0" / LATEST).symlink_to(outside)
    notes: list[str] = []
    assert iteration_in(newest_readable(trial / "fold_0", notes.append, inside=trial)) == 3
    assert notes == [f"{LATEST} is not read: it is a link to {outside}, outside the trial's folder"]
    assert not (outside.parent / LOOTED).exists()


@pytest.mark.parametrize("name", [LATEST, FINAL])
def test_a_hard_link_is_refused_with_the_way_to_keep_it(tmp_path: Path, name: str) -> None:
    outside, trial = foreign(tmp_path / "elsewhere"), tmp_path / "a trial"
    trial.mkdir()
    os.link(outside, trial / name)
    with pytest.raises(LedgerError, match=r"is a hard link, so it may be somebody else's, and is not read; ") as caught:
        newest_readable(trial, pytest.fail)
    assert not (outside.parent / LOOTED).exists()
    # The printed command makes it a file of its own, to be read like any other.
    outside.unlink()
    save(tmp_path / "elsewhere", checkpoint(3), final=False)
    (trial / name).unlink()
    os.link(tmp_path / "elsewhere" / LATEST, trial / name)
    subprocess.run(str(caught.value).partition("its own: ")[2], shell=True, check=True)
    assert iteration_in(newest_readable(trial, pytest.fail)) == 3


def test_a_folder_may_be_reached_through_a_link_but_not_lead_outside_the_trial(tmp_path: Path) -> None:
    outside = foreign(tmp_path / "elsewhere")
    outside.rename(outside.parent / FINAL)
    trial, notes = tmp_path / "trial", list[str]()
    trial.mkdir()
    (trial / "fold_0").symlink_to(outside.parent)
    assert newest_readable(trial / "fold_0", notes.append, inside=trial) is None
    assert len(notes) == 1
    assert not (outside.parent / LOOTED).exists()
    save(tmp_path / "study" / "fold_0", checkpoint(3), final=False)
    (tmp_path / "link").symlink_to(tmp_path / "study")
    assert iteration_in(newest_readable(tmp_path / "link" / "fold_0", pytest.fail, inside=tmp_path / "link")) == 3


def test_a_write_cut_off_halfway_is_a_plain_error_and_leaves_the_older_ones(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(3), final=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path, checkpoint(6), final=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_stop_while_reading_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, checkpoint(3), final=False)

    def signalled(*_: object, **__: object) -> None:
        raise TrialInterrupted("a signal came")

    monkeypatch.setattr(checkpoints.torch, "load", signalled)
    with pytest.raises(TrialInterrupted):
        found(tmp_path)


def test_checkpoints_are_due_at_the_end_of_short_epochs_and_within_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    clock = CheckpointClock()

    def due_after(seconds: float) -> tuple[bool, bool]:
        """At the end of an epoch, and within one."""
        now[0] += seconds
        return clock.due(epoch_ended=True), clock.due(epoch_ended=False)

    assert due_after(0.001) == (True, False), "the first epoch ends with one"
    clock.written(cost_seconds=1.0)
    assert due_after(0.9 / LARGEST_SHARE) == (False, False), "epochs too short for their checkpoint share one"
    assert due_after(0.2 / LARGEST_SHARE) == (True, False)
    clock.written(cost_seconds=LONGEST_INTERVAL_SECONDS)
    assert due_after(LONGEST_INTERVAL_SECONDS - 1) == (False, False)
    assert due_after(1) == (True, True), "a long epoch is not waited for"
    clock.written(cost_seconds=1.0)
    assert due_after(0) == (False, False)

"""Every file of a study cut, emptied, replaced by garbage or deleted, one at a time: the study goes on to the right
result or refuses in one line that names the file. It never trains from the start again, and never prints a traceback.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from locking import beating
from prepared import Stopper, final_weights, model_folder, spec_of, train, workplace

from study.__main__ import main
from study.common.errors import DiskFullError, StudyError
from study.nnunet.checkpoints import FINAL, LATEST, PREVIOUS
from study.nnunet.datasets import DataPaths, data_paths
from study.run.trial import run_trial
from study.store.audit import audit
from study.store.costs import bill
from study.store.holders import STALE_SECONDS
from study.store.ledger import Ledger
from study.store.results import TrialResult
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder, TrialState

SPACE = {"name": "damaged"}
SHORTER = {"epochs": 2, "iterations_per_epoch": 6}
# Of twelve iterations; checkpoints were written here and after the first epoch.
STOPPED_AT, EPOCH_END = 9, 6
USER_ERROR = 2
LOCK = "locks/000001.json"
FULL_DISK = Path("/dev/full")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scramble(path: Path) -> None:
    path.write_bytes(b"\x80\x04garbage\x00\xff\n" * 20)


def delete(path: Path) -> None:
    path.unlink()


DAMAGES = [cut, empty, scramble, delete]
Damage = Callable[[Path], None]


@dataclass(frozen=True)
class Study:
    """A study with a finished and an interrupted trial, and what they come to undisturbed."""

    ledger: Ledger
    paths: DataPaths
    finished: TrialSpec
    interrupted: TrialSpec
    result: TrialResult
    seconds: float
    weights: str

    def copy(self, root: Path) -> Ledger:
        shutil.copytree(self.ledger.root, root)
        return Ledger(root)

    def resume(self, ledger: Ledger) -> TrialFolder:
        """Go on with the interrupted trial, but for its validation, and compare."""
        folder = train(self.interrupted, ledger, workplace(self.paths))
        assert final_weights(folder) == self.weights
        assert folder.attempts()[-1].resumed_from_iteration in (EPOCH_END, STOPPED_AT)
        assert [report.epoch for report in folder.epochs()] == [0, 1]
        audit(ledger)
        return folder

    def recall(self, ledger: Ledger) -> TrialFolder:
        """Ask for the finished trial again, and compare."""
        trial = run_trial(self.finished, ledger, workplace(self.paths))
        assert trial.result == self.result
        assert trial.folder.attempts()[-1].resumed_from_iteration in (0, trial.result.iterations)
        return trial.folder


@pytest.fixture(scope="module")
def study(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    paths, root = data_paths(data), tmp_path_factory.mktemp("undisturbed")
    ledger = Ledger.create(root / "study", space=SPACE)
    specs = [spec_of(paths, seed=seed, training=SHORTER) for seed in (0, 1)]
    for number, spec in enumerate(specs):
        ledger.add_point(number, {"seed": number}, [spec.trial_id])
    trial = run_trial(specs[0], ledger, workplace(paths))
    train(specs[1], ledger, workplace(paths), after=STOPPED_AT)
    whole = shutil.copytree(ledger.root, root / "whole")
    return Study(
        ledger=ledger,
        paths=paths,
        finished=specs[0],
        interrupted=specs[1],
        result=trial.result,
        seconds=trial.bill.total.seconds,
        weights=final_weights(train(specs[1], Ledger(whole), workplace(paths))),
    )


def refusal(of: Callable[[], object]) -> str | None:
    """In what words something was refused, None when it was not."""
    try:
        of()
    except StudyError as error:
        return str(error)
    return None


def assert_refused(of: Callable[[], object], path: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> str:
    """In one line that names the file and what to do; whoever only looks prints no traceback either."""
    said = refusal(of)
    assert said is not None
    assert str(path) in said
    assert "; " in said and "\n" not in said
    assert_status_says_or_shows(ledger, capsys)
    return said


def assert_status_says_or_shows(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    code = main(["status", str(ledger.root), "--json"])
    errors = capsys.readouterr().err.splitlines()
    assert (code, len(errors)) in {(0, 0), (USER_ERROR, 1)}
    assert all(line.startswith("error: ") for line in errors)


# Neither the bill nor the curves can be had again; a specification or a result is written again once it is deleted.
IRREPLACEABLE = ("costs.jsonl", "epochs.jsonl", "attempts/000.json", "spec.json")


@pytest.mark.parametrize("which", ["finished", "interrupted"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_refused_and_named(
    study: Study, tmp_path: Path, which: str, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*IRREPLACEABLE, *(["events.jsonl"] if damage is scramble else [])):
        ledger = study.copy(tmp_path / name / "study")
        spec = getattr(study, which)
        path = ledger.trial(spec.trial_id).path / name
        damage(path)
        audited, shown = refusal(lambda ledger=ledger: audit(ledger)), path if path.exists() else path.parent
        if which == "interrupted" and name != "spec.json":
            # Whoever trains this one trial, without looking at the study, finds out too; some the checkpoint tells.
            train_it = partial(run_trial, spec, ledger, workplace(study.paths))
            said = assert_refused(train_it, shown, ledger, capsys)
            assert audited == said or (audited is None and damage is cut)
        else:
            assert_refused(lambda ledger=ledger: audit(ledger), shown, ledger, capsys)


@pytest.mark.parametrize("damage", [cut, empty, scramble])
def test_a_damaged_result_is_refused_and_named(
    study: Study, tmp_path: Path, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = study.copy(tmp_path / "study")
    path = ledger.trial(study.finished.trial_id).path / "result.json"
    damage(path)
    for ask in (lambda: audit(ledger), lambda: study.recall(ledger)):
        said = assert_refused(ask, path, ledger, capsys)
        assert "delete it, and the same command validates the trial again" in said


@pytest.mark.parametrize("name", ["points.jsonl", "study.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_of_the_study_is_refused_and_named(
    study: Study, tmp_path: Path, name: str, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = study.copy(tmp_path / "study")
    damage(ledger.root / name)
    said = assert_refused(lambda: audit(Ledger.create(ledger.root, space=SPACE)), ledger.root, ledger, capsys)
    assert name in said


def test_a_damaged_lock_holds_until_it_is_stale(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = study.copy(tmp_path / "study")
    lock = ledger.trial(study.interrupted.trial_id).path / LOCK
    scramble(lock)
    with beating(lock):
        said = refusal(lambda: run_trial(study.interrupted, ledger, workplace(study.paths)))
    assert said is not None
    assert "on an unknown host since" in said
    assert "\n" not in said
    os.utime(lock, times=(time.time() - 2 * STALE_SECONDS,) * 2)
    # Whoever only seems dead is given next to no time to notice.
    monkeypatch.setattr("study.store.locks.BEAT_SECONDS", 0.05)
    audit(ledger)


@pytest.mark.parametrize("damage", [cut, delete])
@pytest.mark.cluster
def test_a_trial_goes_on_without_its_story_and_its_old_locks(
    study: Study, tmp_path: Path, damage: Damage, capsys: pytest.CaptureFixture[str], no_grace: None
) -> None:
    ledger = study.copy(tmp_path / "study")
    for spec in (study.finished, study.interrupted):
        folder = ledger.trial(spec.trial_id)
        damage(folder.path / "events.jsonl")
        lock = folder.path / LOCK
        damage(lock)
        if lock.exists():
            os.utime(lock, times=(time.time() - 2 * STALE_SECONDS,) * 2)
    assert_status_says_or_shows(ledger, capsys)
    audit(ledger)
    study.recall(ledger)
    assert study.resume(ledger).attempts()[-1].resumed_from_iteration == STOPPED_AT


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever only seemed dead is given next to no time to notice."""
    with monkeypatch.context() as patched:
        patched.setattr("study.store.locks.BEAT_SECONDS", 0.05)
        yield


@pytest.mark.parametrize(("name", "damage"), [(LATEST, empty), (LATEST, delete), (PREVIOUS, scramble)])
@pytest.mark.cluster
def test_a_trial_goes_on_from_the_other_checkpoint(study: Study, tmp_path: Path, name: str, damage: Damage) -> None:
    ledger = study.copy(tmp_path / "study")
    folder = ledger.trial(study.interrupted.trial_id)
    damage(model_folder(folder) / name)
    audit(ledger)
    study.resume(ledger)
    assert folder.attempts()[-1].resumed_from_iteration == (EPOCH_END if name == LATEST else STOPPED_AT)
    notes = [event["text"] for event in folder.events() if event["event"] == "note"]
    told = name == LATEST and damage is not delete
    assert [note.partition(" cannot be read")[0] for note in notes] == [LATEST] * told


def test_a_trial_without_any_checkpoint_says_that_it_starts_anew(study: Study, tmp_path: Path) -> None:
    ledger = study.copy(tmp_path / "study")
    folder = ledger.trial(study.interrupted.trial_id)
    for name in (LATEST, PREVIOUS):
        scramble(model_folder(folder) / name)
    train(study.interrupted, ledger, workplace(study.paths))
    assert folder.attempts()[-1].resumed_from_iteration == 0
    notes = [event["text"] for event in folder.events() if event["event"] == "note"]
    assert [note.partition(" cannot be read")[0] for note in notes[:2]] == [LATEST, PREVIOUS]
    assert notes[2].endswith("the training starts anew")
    assert final_weights(folder) == study.weights
    assert bill(folder.attempts(), folder.cost_intervals()).waste.seconds > 0


def test_a_result_that_is_gone_is_had_again_from_the_final_checkpoint(study: Study, tmp_path: Path) -> None:
    ledger = study.copy(tmp_path / "study")
    folder = ledger.trial(study.finished.trial_id)
    delete(folder.path / "result.json")
    audit(ledger)
    study.recall(ledger)
    assert [header.resumed_from_iteration for header in folder.attempts()] == [0, study.result.iterations]
    assert bill(folder.attempts(), folder.cost_intervals()).total.seconds > study.seconds
    audit(ledger)


def test_what_only_people_and_nnunet_read_may_be_garbage(study: Study, tmp_path: Path) -> None:
    ledger = study.copy(tmp_path / "study")
    damaged = set()
    for folder in ledger.trials():
        folder.log_path.write_text("printed")
        for path in (folder.log_path, *folder.results_path.rglob("*")):
            if path.is_file() and (folder.state() is TrialState.FINISHED or path.suffix != ".pth"):
                scramble(path)
                damaged.add(path.name)
    assert {"log.txt", "debug.json", "progress.png", "plans.json", "summary.json", FINAL} <= damaged
    audit(ledger)
    study.recall(ledger)
    study.resume(ledger)


class Filling(Stopper):
    """Lets the disk run full for a file, at an iteration: whoever writes there next finds no room."""

    def __init__(self, path: Callable[[], Path], at: int) -> None:
        super().__init__()
        self._path, self._at = path, at

    def iteration_done(self, report: Any) -> None:
        if report.iteration + 1 == self._at:
            path = self._path()
            if path.exists():
                path.rename(path.with_suffix(".whole"))
            path.symlink_to(FULL_DISK)


@pytest.mark.skipif(not FULL_DISK.exists(), reason="no /dev/full on this machine")
@pytest.mark.parametrize(
    "what", ["checkpoint", *(pytest.param(name, marks=pytest.mark.cluster) for name in ("costs.jsonl", "epochs.jsonl"))]
)
def test_a_full_disk_interrupts_a_trial_which_goes_on_when_there_is_room(
    study: Study, tmp_path: Path, what: str
) -> None:
    ledger = study.copy(tmp_path / "study")
    folder = ledger.trial(study.interrupted.trial_id)

    def path() -> Path:
        if what == "checkpoint":
            return model_folder(folder) / f".{FINAL}.{os.getpid()}.tmp"
        return folder.path / what

    filling = Filling(path, at=STOPPED_AT + 1)
    with pytest.raises(DiskFullError, match=r"no space is left to write .*; free some, then the same command resumes"):
        run_trial(study.interrupted, ledger, workplace(study.paths), progress=filling, stop=filling.stop)
    if path().is_symlink():
        path().with_suffix(".whole").rename(path())
    assert folder.state() is TrialState.INTERRUPTED
    assert "no space is left" in folder.events()[-1]["reason"]
    audit(ledger)
    study.resume(ledger)

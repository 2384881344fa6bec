"""Trainings that end where the validation Dice is reached: the same as longer ones up to there, sound and resumable."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from prepared import final_weights, spec_of, train, workplace
from references import kill_and_resume, reference_of, resumed_from, timeless

from study.cli.trial import as_json, as_text
from study.common import files
from study.common.errors import LedgerError
from study.curriculum.data_curriculum import smoothed_dice, stopping_epoch
from study.nnunet.datasets import DataPaths, data_paths
from study.run.trial import finished_trial, run_trial
from study.store.audit import audit_trial
from study.store.ledger import Ledger
from study.store.outcomes import objectives
from study.store.records import EpochReport
from study.store.specification import TrialSpec
from study.store.status import rich_table, study_status
from study.store.trial_folder import TrialFolder, TrialState

pytestmark = pytest.mark.cluster

LENGTH = {"epochs": 8, "iterations_per_epoch": 6, "validation_batches": 2}
EACH, TOTAL = 6, 48


@dataclass(frozen=True)
class Stopped:
    """A trial that stops, and the epochs of the same training without a stop."""

    spec: TrialSpec
    epoch: int
    unstopped: list[EpochReport]

    @property
    def iterations(self) -> int:
        return (self.epoch + 1) * EACH


@pytest.fixture(scope="module")
def paths(data: Path) -> DataPaths:
    return data_paths(data)


@pytest.fixture(scope="module")
def stopped(paths: DataPaths, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """It stops after the epoch whose smoothed Dice is the first above all earlier ones, three epochs before the end."""
    epochs = reference_of(spec_of(paths, training=LENGTH), paths, tmp_path_factory.mktemp("unstopped")).epochs
    curve = [report.pseudo_dice for report in epochs]
    assert None not in curve
    smoothed = {n: smoothed_dice(curve[: n + 1]) or 0.0 for n in range(2, 8)}  # type: ignore[arg-type]
    epoch = next(n for n in (4, 5, 3) if smoothed[n] > max((smoothed[m] for m in range(2, n)), default=0.0))
    spec = spec_of(paths, training={**LENGTH, "stop_at_dice": smoothed[epoch]})
    assert stopping_epoch(curve, spec.training.stop_at_dice) == epoch
    return Stopped(spec=spec, epoch=epoch, unstopped=epochs)


@pytest.fixture(scope="module")
def finished(stopped: Stopped, paths: DataPaths, tmp_path_factory: pytest.TempPathFactory) -> TrialFolder:
    ledger = Ledger.create(tmp_path_factory.mktemp("stopped") / "study")
    return run_trial(stopped.spec, ledger, workplace(paths, data_workers=1)).folder


def test_up_to_its_stop_it_is_the_training_that_goes_on(stopped: Stopped, finished: TrialFolder) -> None:
    # Learning rates among them: they fall as if the training were to go on.
    assert timeless(finished) == stopped.unstopped[: stopped.epoch + 1]


def test_the_result_is_of_what_was_trained(stopped: Stopped, finished: TrialFolder) -> None:
    result, curriculum = finished_trial(finished).result, stopped.spec.curriculum
    assert (result.iterations, finished.state()) == (stopped.iterations, TrialState.FINISHED)
    voxels = [curriculum.stage_at(index).voxels_per_iteration for index in range(stopped.iterations)]
    assert result.voxels == sum(voxels) < curriculum.voxels
    full = curriculum.geometry.patch_voxels * curriculum.geometry.batch_size
    assert result.voxel_share == pytest.approx(sum(voxels) / len(voxels) / full)
    assert objectives(finished)["voxel_share"] == result.voxel_share
    assert len(result.dice_per_case) == 2
    assert 0 <= result.dice <= 1


def test_everybody_knows_where_it_stopped(stopped: Stopped, finished: TrialFolder) -> None:
    ledger = Ledger.open(finished.path.parent.parent)
    (row,) = study_status(ledger)
    assert (row.stopped_at_iteration, row.iteration) == (stopped.iterations, stopped.iterations)
    assert row.to_json()["stopped_at_iteration"] == stopped.iterations
    cells = [str(cell) for column in rich_table([row], 200).columns for cell in column.cells]
    assert f"{stopped.iterations}/{TOTAL} Dice" in cells
    trial = finished_trial(finished)
    assert as_json(trial)["stopped_at_iteration"] == as_json(trial)["iterations"] == stopped.iterations
    assert f"stopped   at iteration {stopped.iterations} of {TOTAL}: validation Dice 0." in as_text(trial)
    notes = [event["text"] for event in finished.events() if event["event"] == "note"]
    assert any(f"is reached after iteration {stopped.iterations}: the training ends" in note for note in notes)


def test_a_dice_that_is_never_reached_stops_nothing(paths: DataPaths, ledger: Ledger) -> None:
    training = {"epochs": 4, "iterations_per_epoch": 2, "validation_batches": 1}
    spec = spec_of(paths, training={**training, "stop_at_dice": 1.0})
    folder = train(spec, ledger, workplace(paths))
    assert len(folder.epochs()) == 4
    assert final_weights(folder) == reference_of(spec_of(paths, training=training), paths, ledger.root.parent).weights


def test_three_evaluations_are_needed(paths: DataPaths, ledger: Ledger) -> None:
    training = {"epochs": 8, "iterations_per_epoch": 2, "validation_batches": 1, "validation_every_epochs": 2}
    folder = train(spec_of(paths, training={**training, "stop_at_dice": 1e-9}), ledger, workplace(paths))
    assert [report.pseudo_dice is None for report in folder.epochs()] == [True, False] * 3


def final_result(folder: TrialFolder, paths: DataPaths) -> Any:
    return run_trial(folder.spec(), Ledger.open(folder.path.parent.parent), workplace(paths)).result


def test_a_stop_before_the_final_validation_changes_nothing(
    stopped: Stopped, finished: TrialFolder, paths: DataPaths, ledger: Ledger
) -> None:
    folder = train(stopped.spec, ledger, workplace(paths))
    assert final_result(folder, paths) == finished.result()
    assert resumed_from(folder) == [0, stopped.iterations]


def test_a_kill_between_the_decision_and_the_end_changes_nothing(
    stopped: Stopped, finished: TrialFolder, paths: DataPaths, ledger: Ledger
) -> None:
    # The epoch is reported, its checkpoint is not yet written.
    folder = kill_and_resume(ledger, stopped.spec, paths, {"halt_after_epoch": stopped.epoch})
    assert resumed_from(folder)[-1] < stopped.iterations
    assert final_result(folder, paths) == finished.result()
    assert timeless(folder) == timeless(finished)


def copy_of(folder: TrialFolder, root: Path) -> TrialFolder:
    """The records of a trial in a study of their own."""
    copied = Ledger.create(root / "copy").add(folder.spec())
    for path in folder.path.rglob("*.json*"):
        if "results" not in path.parts:
            target = copied.path / path.relative_to(folder.path)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    return copied


def test_a_stopped_trial_is_sound_and_a_truncated_one_is_not(
    stopped: Stopped, finished: TrialFolder, tmp_path: Path
) -> None:
    audit_trial(finished)
    folder = copy_of(finished, tmp_path)
    audit_trial(folder)
    path = folder.path / "epochs.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    with pytest.raises(LedgerError, match=rf"epochs\.jsonl is damaged: it has {stopped.epoch} of the"):
        audit_trial(folder)


def test_a_result_of_another_length_is_not(stopped: Stopped, finished: TrialFolder, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path)
    result = finished.result()
    assert result is not None
    curriculum = finished.spec().curriculum
    for iterations, voxels in ((TOTAL, curriculum.voxels), (stopped.iterations - EACH, result.voxels)):
        share = curriculum.share_of_cps(voxels, iterations)
        changed = replace(result, iterations=iterations, voxels=voxels, voxel_share=share)
        files.write_json(folder.path / "result.json", json.loads(json.dumps(changed.__dict__)))
        with pytest.raises(LedgerError, match=f"it is of {iterations} iterations, the trial of {stopped.iterations}"):
            audit_trial(folder)


def test_a_training_that_was_not_to_stop_may_not_have(finished: TrialFolder, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path)
    path = folder.path / "epochs.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**line, "pseudo_dice": 1e-3}) + "\n" for line in lines))
    with pytest.raises(LedgerError, match="is damaged"):
        audit_trial(folder)

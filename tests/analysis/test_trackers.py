"""Trackers, read back with their own libraries: what a trial has, sent once, and gone on with when there is more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ledgers import finish_trial, make_spec

from study.__main__ import main
from study.common.errors import MachineError
from study.run.trackers import sender, tracked
from study.store.ledger import Ledger

EPOCHS = 10


@pytest.fixture
def study(tmp_path: Path) -> Ledger:
    ledger = Ledger.create(tmp_path / "study")
    for scheme in ("cps", "pgps"):
        finish_trial(ledger, make_spec(scheme), dice=0.8, seconds=30.0, curve=True)
    return ledger


def export(study: Ledger, tracker: str, where: object, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["export", str(study.root), f"--{tracker}", str(where)]) == 0
    return capsys.readouterr().out


def test_tensorboard_has_curves_and_results_once(
    study: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert "2 of 2" in export(study, "tensorboard", tmp_path / "runs", capsys)
    assert "0 of 2" in export(study, "tensorboard", tmp_path / "runs", capsys)
    trial = study.trials()[0]
    events = EventAccumulator(str(tmp_path / "runs" / trial.trial_id)).Reload()
    losses = {event.step: event.value for event in events.Scalars("curve/training_loss")}
    assert losses == pytest.approx({report.epoch: report.training_loss for report in trial.epochs()})
    assert [event.value for event in events.Scalars("result/dice")] == pytest.approx([0.8])


def test_mlflow_goes_on_with_the_run_of_a_trial_that_had_not_finished(
    study: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    uri, trial = f"sqlite:///{tmp_path}/runs.db", study.trials()[0]
    lines, result = (trial.path / "epochs.jsonl").read_bytes().splitlines(keepends=True), trial.path / "result.json"
    whole = result.read_bytes()
    result.unlink()
    (trial.path / "epochs.jsonl").write_bytes(b"".join(lines[: EPOCHS - 1]))
    (trial.path / "events.jsonl").unlink()
    export(study, "mlflow", uri, capsys)
    client = MlflowClient(uri)
    (experiment,) = [each for each in client.search_experiments() if each.name == "study"]
    run = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}[trial.trial_id]
    assert run.info.status == "RUNNING" and "dice" not in run.data.metrics
    (trial.path / "epochs.jsonl").write_bytes(b"".join(lines))
    result.write_bytes(whole)
    assert "1 of 2" in export(study, "mlflow", uri, capsys)
    assert "0 of 2" in export(study, "mlflow", uri, capsys)
    assert len(client.search_runs([experiment.experiment_id])) == 2
    again = client.get_run(run.info.run_id)
    assert again.info.status == "FINISHED" and again.data.metrics["dice"] == pytest.approx(0.8)
    assert (again.data.params["scheme"], again.data.params["epochs"]) == (trial.spec().scheme, str(EPOCHS))
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "training_loss")]
    assert sorted(steps) == list(range(EPOCHS))


@pytest.mark.cluster
def test_wandb_has_an_offline_run_of_each_trial(
    study: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    export(study, "wandb", tmp_path / "runs", capsys)
    assert "0 of 2" in export(study, "wandb", tmp_path / "runs", capsys)
    for trial in study.trials():
        (file,) = (tmp_path / "runs" / "wandb").glob(f"offline-run-*/run-{trial.trial_id}.wandb")
        assert b"training_loss" in file.read_bytes()
    assert not any(b"k" * 40 in path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())


def test_what_cannot_be_used_is_one_line(
    study: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["export", str(study.root), "--mlflow", "ftp://me:secret@nowhere/x"]) == 2
    printed = capsys.readouterr().err
    assert "MLflow cannot use" in printed and "secret" not in printed and printed.count("\n") == 1
    assert main(["export", str(study.root), "--tensorboard", ""]) == 2
    assert "--tensorboard: received ''" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MachineError, match=r"wandb is not installed; pip install 'pgps-study\[wandb\]'"):
        sender("wandb", str(tmp_path), "study")
    assert "co2_kg" in tracked(study.trials()[0]).results

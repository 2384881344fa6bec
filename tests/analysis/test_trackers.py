"""Trackers, read back with their own libraries: what a trial has, sent once, and gone on with when there is more.

A study that runs tells its own, whatever becomes of them.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ledgers import finish_trial, make_spec
from studies import TRAINING, run_to_end, running, write_space

from study.__main__ import main
from study.common.errors import TrialInterrupted
from study.run.following import following
from study.run.trackers import tracked
from study.run.trial import finished_trial
from study.store.ledger import Ledger
from study.store.trial_folder import TrialFolder

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
    assert "2 of 2" in export(study, "tensorboard", tmp_path / "runs", capsys)
    assert "0 of 2" in export(study, "tensorboard", tmp_path / "runs", capsys)
    folder = tmp_path / "runs" / study.trials()[0].trial_id
    assert_there_once(study.trials()[0], folder)
    # A sender that was killed between its file and its note.
    (folder / "pgps_sent.json").unlink()
    assert "1 of 2" in export(study, "tensorboard", tmp_path / "runs", capsys)
    assert_there_once(study.trials()[0], folder)


def assert_there_once(trial: TrialFolder, folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("curve/training_loss")]
    assert [step for step, _ in losses] == [report.epoch for report in trial.epochs()]
    assert [loss for _, loss in losses] == pytest.approx([report.training_loss for report in trial.epochs()])
    results = [event.value for event in events.Scalars("result/dice")]
    assert results == pytest.approx([finished_trial(trial).result.dice])


def test_mlflow_goes_on_with_the_run_of_a_trial_that_had_not_finished(
    study: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    uri, trial = f"sqlite:///{tmp_path}/runs.db", study.trials()[0]
    lines, result = (trial.path / "epochs.jsonl").read_bytes().splitlines(keepends=True), trial.path / "result.json"
    whole = result.read_bytes()
    result.unlink()
    (trial.path / "epochs.jsonl").write_bytes(b"".join(lines[: EPOCHS - 1]))
    events = (trial.path / "events.jsonl").read_bytes()
    (trial.path / "events.jsonl").unlink()
    export(study, "mlflow", uri, capsys)
    client = MlflowClient(uri)
    (experiment,) = [each for each in client.search_experiments() if each.name == "study"]
    run = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}[trial.trial_id]
    assert run.info.status == "RUNNING" and "dice" not in run.data.metrics
    trial.fail(attempt=0, reason="it broke")
    assert "1 of 2" in export(study, "mlflow", uri, capsys)
    assert client.get_run(run.info.run_id).info.status == "FAILED"
    # Its next attempt goes on with the same run.
    (trial.path / "events.jsonl").write_bytes(events)
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
    study: Ledger, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "database.db").write_text("this is none" * 99)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    monkeypatch.setitem(sys.modules, "wandb", None)
    for option, place, said in (
        ("--mlflow", "ftp://me:secret@nowhere/x", "--mlflow: received 'ftp://…@nowhere/x', legal is http"),
        ("--mlflow", f"sqlite:///{tmp_path}/none/x.db", "legal is in a folder that is there"),
        ("--tensorboard", "", "--tensorboard: received ''"),
        ("--mlflow", f"sqlite:///{tmp_path}", "legal is a file for the database, sqlite:///FILE.db"),
        ("--tensorboard", "https://host/x", "--tensorboard: received 'https://host/x', legal is a path"),
        ("--tensorboard", "a\udc00", "--tensorboard: received 'a\\udc00', legal is"),
        ("--mlflow", f"sqlite:///{tmp_path}/database.db", "mlflow cannot use sqlite:"),
        ("--wandb", tmp_path, "wandb is not installed; pip install 'pgps-study[wandb]'"),
    ):
        assert said in refused("export", study.root, option, place)
    # Of a server that is away, of which MLflow itself is patient for minutes.
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
    assert "co2_kg" in tracked(study.trials()[0]).results


def test_a_server_that_never_answers_is_said_once_and_holds_up_nothing(
    study: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as deaf, study.locked():
        uri = f"http://me:secret@127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(TrialInterrupted), following({"mlflow": uri}, study, said.append) as look:
            look()
            raise TrialInterrupted("stopped")
    (line,) = said
    assert line.startswith("mlflow is not told, trainings go on: it has not taken everything in time; ")
    assert main(["status", str(study.root)]) == 0
    assert f"note: {line}" in capsys.readouterr().out


@pytest.mark.cluster
def test_a_study_that_is_killed_and_resumed_tells_its_trackers_everything_once(data: Path, tmp_path: Path) -> None:
    training = {**TRAINING, "epochs": 60}
    trackers = {"tensorboard": str(tmp_path / "runs"), "mlflow": "http://me:secret@127.0.0.1:9"}
    changed = {"searcher": "grid", "trials": 1, "objectives": [], "curriculum": {"scheme": "pgps"}}
    space, out = write_space(tmp_path, **changed, training=training, trackers=trackers), tmp_path / "study"
    with running(space, data, out) as driver:
        told = driver.wait_until(lambda: list((tmp_path / "runs").glob("*/events*")))
        driver.process.kill()
    ended = run_to_end(space, data, out)
    (trial,) = Ledger.open(out).trials()
    assert ended.code == 0 and len(trial.attempts()) == 2, ended
    assert [path.parent.name for path in told] == [trial.trial_id]
    assert_there_once(trial, told[0].parent)
    assert ended.output.count("mlflow is not told, trainings go on: mlflow cannot use http://…@127.0.0.1:9") == 1
    assert "secret" not in ended.output + (out / "study.json").read_text()

"""`import`: folders as stock nnU-Net leaves them, read to points with marks; and what is no such folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ledgers import finish_trial, make_spec
from prepared import FULL as CONFIGURATION
from prepared import NAME, spec_of, tiny_plans, workplace
from stock import TRAIN, run_stock, stock_python

from analysis.statistics.study_results import gather
from study.__main__ import main
from study.common import files
from study.run.trial import finished_trial, run_trial
from study.store.audit import audit, read_trial
from study.store.costs import bill
from study.store.ledger import Ledger

NETWORK = {"strides": [[1, 1, 1], [8, 8, 4]], "norm_op": "torch.nn.InstanceNorm3d"}
FULL = {"patch_size": [40, 56, 40], "batch_size": 2, "data_identifier": "x", "architecture": {"arch_kwargs": NETWORK}}
DATASET = "Dataset004_Hippocampus"
PLANS = {"dataset_name": DATASET, "plans_name": "nnUNetPlans", "configurations": {"3d_fullres": FULL}}
MODEL = f"{DATASET}/nnUNetTrainer__nnUNetPlans__3d_fullres"
DICE = {"a": (0.9, 0.8), "b": (0.7, 0.6)}


def pgps(*words: object) -> int:
    return main([*map(str, words)])


def log_text(first: int, stop: int, *, hour: int = 10, seconds: float = 12.5, validated: bool = False) -> str:
    """A log of nnU-Net 2.8, as numpy 2 prints."""
    at = f"2026-11-02 {hour:02d}"
    lines = ["", "#######", "Please cite the following paper when using nnU-Net:"]
    lines += [f"{at}:00:00.000001: Using splits from existing split file: x ", f"{at}:00:30.5: unpacking done... "]
    for minute, epoch in enumerate(range(first, stop), start=1):
        lines += [f"{at}:{minute:02d}:00.1:  ", f"{at}:{minute:02d}:00.100000: Epoch {epoch} "]
        lines += [f"{at}:{minute:02d}:00.2: Current learning rate: {0.01 * (1 - epoch / 4) ** 0.9:.5f} "]
        lines += [f"{at}:{minute:02d}:12.6: train_loss -0.{epoch + 1} ", f"{at}:{minute:02d}:12.6: val_loss -0.5 "]
        lines += [f"{at}:{minute:02d}:12.6: Pseudo dice [np.float32(0.8), np.float32(nan)] "]
        lines += [f"{at}:{minute:02d}:12.6: Epoch time: {seconds} s "]
    if validated:
        lines += [f"{at}:50:00.0: Training done. ", f"{at}:50:10.0: predicting a ", f"{at}:50:20.0: predicting b "]
        lines += [f"{at}:50:40.0: Validation complete ", f"{at}:50:40.0: Mean Validation Dice:  0.75 "]
    return "\n".join(lines) + "\n"


def summary(scale: float = 1.0) -> dict[str, Any]:
    cases = [
        {
            "reference_file": f"/raw/{case}.nii.gz",
            "prediction_file": f"/out/{case}.nii.gz",
            "metrics": {str(label): {"Dice": scale * dice, "n_ref": 9} for label, dice in enumerate(values, start=1)},
        }
        for case, values in DICE.items()
    ]
    mean = {"1": {"Dice": scale * 0.8}, "2": {"Dice": scale * 0.7}}
    return {"metric_per_case": cases, "mean": mean, "foreground_mean": {"Dice": scale * 0.75}}


def write_fold(results: Path, fold: int = 0, *, model: str = MODEL, weights: bytes = b"w") -> Path:
    folder = results / model
    files.write_json(folder / "plans.json", PLANS)
    files.write_json(folder / "dataset.json", {"labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"})
    place = folder / f"fold_{fold}"
    files.write_json(place / "validation" / "summary.json", summary(1 - fold / 10))
    (place / "checkpoint_final.pth").write_bytes(weights + bytes([fold]))
    (place / "training_log_2026_11_2_10_00_00.txt").write_text(log_text(0, 4, validated=True), encoding="utf-8")
    debug = {"gpu_name": "Some GPU", "hostname": "node", "torch_version": "2.5.1", "device": "cuda:0"}
    files.write_json(place / "debug.json", {**debug, "num_epochs": "4", "num_iterations_per_epoch": "20"})
    return place


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for fold in (0, 1):
        write_fold(tmp_path / "results", fold)
    return tmp_path / "results"


def test_dice_is_the_summarys_time_the_logs_and_energy_unmeasured(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert pgps("import", results / MODEL, "--out", out) == 0
    audit(Ledger.open(out))
    gathered = gather([out])
    (point,) = gathered.points.to_dict("records")
    assert point["dice"] == pytest.approx((0.75 + 0.675) / 2) and point["folds"] == "0 1"
    assert (point["method"], point["summary"], point["hardware"]) == (
        *("imported", "nnUNetTrainer (imported)", "CPU not known + Some GPU"),
    )
    assert point["runtime_seconds"] == 50.0 and point["total_seconds"] == pytest.approx(50.0 + 60.1 + 30.0)
    assert gathered.points["co2_kg"].isna().all() and "does not measure energy" in point["unmeasured"]
    cases = gathered.tables.cases.query("label == '1' and case == 'a'")
    assert sorted(cases["dice"]) == pytest.approx([0.81, 0.9])
    trial = Ledger.open(out).trials()[0]
    source = trial.imported()
    assert source is not None and source.trainer == "nnUNetTrainer" and source.path == str(results / MODEL / "fold_0")
    assert [epoch.training_loss for epoch in trial.epochs()] == pytest.approx([-0.1, -0.2, -0.3, -0.4])
    assert trial.epochs()[0].pseudo_dice_per_class == pytest.approx((0.8, None))


def test_again_it_is_the_same_and_another_run_is_another_seed(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert pgps("import", results / MODEL / "fold_1", "--out", out) == 0
    assert [trial.spec().fold for trial in Ledger.open(out).trials()] == [1]
    assert pgps("import", results, "--out", out) == pgps("import", results / DATASET, "--out", out) == 0
    assert len(Ledger.open(out).trials()) == 2
    write_fold(tmp_path / "second", weights=b"other")
    assert pgps("import", tmp_path / "second", "--out", out) == 0
    assert pgps("import", tmp_path / "second", "--out", out) == 0
    assert sorted((t.spec().fold, t.spec().seed) for t in Ledger.open(out).trials()) == [(0, 0), (0, 1), (1, 0)]
    audit(Ledger.open(out))


def test_an_import_that_was_interrupted_is_finished_by_the_next(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert pgps("import", results, "--out", out) == 0
    trial = Ledger.open(out).trials()[0]
    (trial.path / "result.json").unlink()
    assert pgps("import", results, "--out", out) == 0
    assert len(Ledger.open(out).trials()) == 2
    audit(Ledger.open(out))


def test_a_resumed_training_costs_what_its_processes_took_without_the_gaps(results: Path, tmp_path: Path) -> None:
    fold = results / MODEL / "fold_0"
    shutil.rmtree(results / MODEL / "fold_1")
    (fold / "training_log_2026_11_2_10_00_00.txt").unlink()
    # The first one came to the middle of epoch 3, and the checkpoint that the second began with was of epoch 2.
    cut = (
        log_text(0, 3, seconds=10)
        + "2026-11-02 10:05:00.1: Epoch 3 \n2026-11-02 10:05:00.2: Current learning rate: 0.1 "
    )
    (fold / "training_log_b.txt").write_bytes(cut.replace("\n", "\r\n").encode() + b"\r\nna\xefve \xff\r\n")
    (fold / "training_log_a.txt").write_text(log_text(2, 4, hour=18, seconds=20).replace("20 s", "20,5 s"), "utf-8")
    # Validated again, by a process that did not train.
    (fold / "training_log_c.txt").write_text(log_text(0, 0, hour=20, validated=True), encoding="utf-8")
    (fold / "training_log_d.txt").touch()
    assert pgps("import", results, "--out", tmp_path / "study") == 0
    records = read_trial(Ledger.open(tmp_path / "study").trials()[0])
    found = bill(records.attempts, records.intervals)
    assert [header.resumed_from_iteration for header in records.attempts] == [0, 40]
    assert found.training.seconds == pytest.approx(3 * 10 + 2 * 20.5)
    assert found.waste.seconds == pytest.approx(10.0)
    assert records.epochs[-1].training_seconds == pytest.approx(2 * 10 + 2 * 20.5)


def test_beside_trials_of_ours_it_has_a_place_on_the_front_of_time_and_none_on_that_of_carbon(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = Ledger.create(tmp_path / "ours")
    for fold in (0, 1):
        finish_trial(ours, make_spec("pgps", fold=fold), dice=0.6, seconds=30.0, n_cases=6)
    assert pgps("import", results, "--out", tmp_path / "stock") == 0
    capsys.readouterr()
    both = (ours.root, tmp_path / "stock")
    assert pgps("front", *both, "--objectives", "dice,runtime_seconds") == 0
    shown = capsys.readouterr()
    assert "nnUNetTrainer (imported)" in shown.out and "Time is by nnU-Net's log" in shown.err
    assert pgps("front", *both, "--objectives", "dice,co2_kg") == 0
    shown = capsys.readouterr()
    assert "(imported)" not in shown.out and "1 point left out, without a value for co2_kg" in shown.err
    assert pgps("recommend", *both, "--max-runtime-seconds", "100") == 0
    advised = capsys.readouterr().out
    assert f"nnUNet_results={results}" in advised and "nnUNetv2_predict" in advised and "study trial" not in advised
    assert pgps("status", tmp_path / "stock", "--json") == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"finished"}
    assert pgps("export", tmp_path / "stock", "--out", tmp_path / "model.zip") == 2
    assert "was imported: its model is nnU-Net's own" in capsys.readouterr().err


@pytest.mark.torture
def test_a_run_that_stock_nnunet_trained_stands_on_a_front_beside_ours(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, study = tiny_plans(data, tmp_path), Ledger.create(tmp_path / "study")
    cores = str(os.cpu_count())
    variables = {
        "nnUNet_preprocessed": paths.preprocessed,
        "nnUNet_raw": data / "nnUNet_raw",
        "nnUNet_results": tmp_path / "results",
        # nnU-Net asks torch for as many threads as there are cores; oneDNN waits for ever for those that OpenMP denies.
        "nnUNet_n_proc_DA": "0",
        "OMP_NUM_THREADS": cores,
        "OMP_DYNAMIC": "false",
    }
    train = (*TRAIN, NAME, CONFIGURATION, "0", "-tr", "nnUNetTrainer_1epoch", "-p", "TinyPlans", "-device", "cpu")
    run_stock(stock_python(tmp_path / "venv"), tmp_path / "elsewhere", variables, train)
    # Its settings: nothing else is compared.
    same = {"optimizer": "sgd", "epochs": 1, "iterations_per_epoch": 250, "validation_batches": 50}
    ours = spec_of(paths, plans="TinyPlans", training={**same, "test_time_mirroring": True})
    run_trial(ours, study, workplace(paths))

    assert pgps("import", tmp_path / "results", "--out", study.root) == 0
    (stock,) = [trial for trial in study.trials() if trial.imported() is not None]
    (fold,) = (tmp_path / "results").glob("*/*/fold_0")
    records, (log,) = read_trial(stock), fold.glob("training_log*.txt")
    assert finished_trial(stock).result.dice == summary_of(fold)["foreground_mean"]["Dice"]
    assert stock.spec().imported == "nnUNetTrainer_1epoch" and stock.spec().curriculum.total_iterations == 250
    (seconds,) = re.findall(r"Epoch time: ([0-9.]+) s", log.read_text(encoding="utf-8"))
    found = bill(records.attempts, records.intervals)
    assert found.training.seconds == float(seconds) and found.total.energy_kwh is None
    assert (records.attempts[0].device, records.attempts[0].hostname) == ("cpu", socket.gethostname())
    capsys.readouterr()
    assert pgps("front", study.root, "--objectives", "dice,runtime_seconds") == 0
    shown = capsys.readouterr()
    assert "of 2 points are on the front" in shown.out
    assert "nnUNetTrainer_1epoch (imported). Time is by nnU-Net's log" in shown.err
    assert pgps("compare", study.root, "--baseline", "imported", "--against", "pgps") == 0
    assert "PGPS" in capsys.readouterr().out


def summary_of(fold: Path) -> dict[str, Any]:
    return dict(files.read_json(fold / "validation" / "summary.json"))


def edited(name: str, change: Callable[[str], str]) -> Callable[[Path], object]:
    def change_file(fold: Path) -> object:
        path = next(iter([*fold.glob(name), *fold.parent.glob(name)]))
        return path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    return change_file


LOG, SUMMARY = "training_log*.txt", "validation/summary.json"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no model": (lambda fold: (fold.parent / "plans.json").unlink(), "is no results folder of nnU-Net"),
    "no fold": (lambda fold: shutil.rmtree(fold), "is no results folder of nnU-Net"),
    "unfinished": (
        lambda fold: (fold / "checkpoint_final.pth").unlink(),
        "no fold in .* can be imported: .*checkpoint_final.pth",
    ),
    "not validated": (lambda fold: (fold / "validation" / "summary.json").unlink(), "without validation/summary.json"),
    "all": (lambda fold: fold.rename(fold.with_name("fold_all")), "trained on all cases"),
    "half a summary": (edited("validation/summary.json", lambda text: text[:99]), "summary.json is damaged"),
    "another summary": (edited("validation/summary.json", lambda _: "{}"), "is no summary of nnU-Net"),
    "no metrics": (edited("validation/summary.json", lambda t: t.replace('"Dice"', '"IoU"')), "summary.json .*Dice"),
    "another name": (lambda fold: fold.parent.rename(fold.parent.with_name("mymodel")), "is not named as nnU-Net does"),
    "mixed plans": (edited("plans.json", lambda t: t.replace("nnUNetPlans", "Other")), "holds the plans Other"),
    "other configuration": (edited("plans.json", lambda t: t.replace("3d_fullres", "2d")), "legal is one of 2d"),
    "ours": (
        lambda fold: fold.parent.rename(fold.parent.with_name("nnUNetTrainerPGPS__nnUNetPlans__3d_fullres")),
        "was trained by this project",
    ),
    "no log": (lambda fold: next(fold.glob(LOG)).unlink(), "has no training_log"),
    "another log": (edited(LOG, lambda _: "hello\n"), "is no log of nnU-Net"),
    "a lost log": (edited(LOG, lambda text: text.replace("Epoch 0", "Epoch 9").replace("Epoch 1", "x")), "do not have"),
    "cut short": (edited(LOG, lambda text: text[: text.index("Epoch 3")]), "do not have epochs from 3 of 4"),
    "no number": (
        edited(LOG, lambda text: text.replace("train_loss -0.2", "train_loss nan")),
        "epoch 1 has no learning rate, training loss or time",
    ),
    "no time": (edited(LOG, lambda text: text.replace("2026-11-02 10:02", "2026-19-02 10:02")), "which is none"),
    "no dataset": (lambda fold: (fold.parent / "dataset.json").unlink(), "no .*dataset.json"),
    "an epoch beyond any": (
        edited(LOG, lambda text: text.replace("Epoch 3 ", "Epoch 99999999999 ")),
        "not have epoch 3",
    ),
    "pipes": (lambda fold: os.mkfifo(fold / "training_log_z.txt"), "training_log_z.txt cannot be read: .* no regular"),
    "a pipe for the plans": (
        lambda fold: ((fold.parent / "plans.json").unlink(), os.mkfifo(fold.parent / "plans.json")),
        "is no results folder|it is no regular file",
    ),
    "a Dice of 2": (edited(SUMMARY, lambda text: text.replace("0.9", "2.0", 1)), "nobody could read the trial: .*dice"),
    "another mean": (edited(SUMMARY, lambda text: text.replace("0.75", "0.1")), "its Dice 0.1 is not the mean"),
    "the year 9999": (edited(LOG, lambda text: text.replace("2026-11", "9999-11")), "started_at: received"),
    "a time beyond any": (edited(LOG, lambda text: text.replace("12.5 s", "1e300 s")), "seconds: received 1e[+]300"),
    "half a debug": (edited("debug.json", lambda text: text[:9]), "debug.json is damaged"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_no_finished_run_is_one_line(kind: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    damage, message = DAMAGES[kind]
    damage(write_fold(tmp_path / "results"))
    said = refused("import", tmp_path / "results", "--out", tmp_path / "study")
    assert re.search(message, said), said
    assert not (tmp_path / "study").exists()


def test_an_unfinished_fold_is_named_and_the_others_are_there(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / MODEL / "fold_1" / "checkpoint_final.pth").rename(results / MODEL / "fold_1" / "checkpoint_latest.pth")
    assert pgps("import", results, "--out", tmp_path / "study") == 0
    assert "fold_1 is left out: it is not finished, without checkpoint_final.pth" in capsys.readouterr().err
    assert len(Ledger.open(tmp_path / "study").trials()) == 1


def test_a_run_that_was_validated_anew_and_a_record_that_was_lost_are_named(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert pgps("import", results, "--out", out) == 0
    files.write_json(results / MODEL / "fold_0" / "validation" / "summary.json", summary(0.5))
    assert pgps("import", results, "--out", out) == 2
    assert "with another validation/summary.json" in capsys.readouterr().err
    trial = Ledger.open(out).trials()[0]
    (trial.path / "imported.json").unlink()
    assert pgps("status", out) == 0
    assert "imported.json is not there" in capsys.readouterr().out

"""A cascade from trials of our own: all folds of the stage before are gathered, every case once."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from examples import finish
from prepared import NAME, cascade_plans, model_folder, spec_of, workplace
from stock import INSTALL, PREDICT, run_stock, stock_python

from study.__main__ import main
from study.common.errors import LedgerError
from study.nnunet.datasets import data_paths, find_dataset
from study.nnunet.paths import check_previous_stage, previous_stage_folder
from study.run.trial import finished_trial, run_trial
from study.search.trials import prepared_lookup
from study.store.ledger import Ledger
from study.store.prediction import predict_command
from study.store.trial_folder import TrialFolder

PLANS, LOW, CASCADE = "CascadePlans", "3d_lowres", "3d_cascade_fullres"


@pytest.mark.cluster
def test_trials_of_all_folds_feed_a_cascade(data: Path, tmp_path: Path) -> None:
    paths = cascade_plans(data, tmp_path)
    dataset, ledger = find_dataset(paths, NAME), Ledger.create(tmp_path / "low")
    short = {"epochs": 1, "iterations_per_epoch": 2}
    first = spec_of(paths, "cps", plans=PLANS, configuration=LOW, training=short)
    # The first fold is trained; the others are as if they were.
    trained = run_trial(first, ledger, workplace(paths)).folder
    place = Path("results") / NAME / f"nnUNetTrainerPGPS__{PLANS}__{LOW}" / "predicted_next_stage" / CASCADE
    assert {path.stem for path in (trained.path / place).iterdir()} == set(dataset.split(0).validation)
    for fold in range(1, 5):
        _, split_sha256 = prepared_lookup(paths)(NAME, PLANS, LOW, fold)
        folder = ledger.add(replace(first, fold=fold, split_sha256=split_sha256))
        finish(folder)
        (folder.path / place).mkdir(parents=True)
        for case in dataset.split(fold).validation:
            shutil.copy(tmp_path / "previous" / f"{case}.b2nd", folder.path / place)

    plan = dataset.plan(PLANS, CASCADE)
    found = previous_stage_folder(dataset, PLANS, CASCADE, ledger.root)
    assert found is not None
    for fold in range(5):
        check_previous_stage(plan, dataset.split(fold), found)
    assert previous_stage_folder(dataset, PLANS, CASCADE, trained.path) == found
    spec = spec_of(paths, plans=PLANS, configuration=CASCADE, training=short)
    place_of_work = replace(workplace(paths), previous_stage=found)
    cascade = run_trial(spec, Ledger.create(tmp_path / "cascade"), place_of_work).folder
    assert len(cascade.epochs()) == 1
    assert _predicted_dice(cascade, trained, data, tmp_path) == pytest.approx(
        finished_trial(cascade).result.dice, abs=1e-6
    )

    _check_exported(cascade, trained, data, tmp_path)

    # With a second point one has to be named.
    other = ledger.add(spec_of(paths, "cps", seed=1, plans=PLANS, configuration=LOW, training=short))
    finish(other)
    with pytest.raises(LedgerError, match=f"trials of 2 points of {LOW}: name one of a trial, .*{trained.trial_id}"):
        previous_stage_folder(dataset, PLANS, CASCADE, ledger.root)
    assert previous_stage_folder(dataset, PLANS, CASCADE, trained.path) == found
    with pytest.raises(LedgerError, match=f"has no finished trial of {NAME}, {PLANS}, {LOW}"):
        previous_stage_folder(dataset, PLANS, CASCADE, Ledger.create(tmp_path / "empty").root)


def _check_exported(cascade: TrialFolder, previous: TrialFolder, data: Path, tmp_path: Path) -> None:
    """Both stages, installed by stock nnU-Net and used in the order of the cascade's card, segment what ours did."""
    for trial in (previous, cascade):
        assert main(["export", str(trial.path), "--out", str(tmp_path / f"{trial.trial_id}.zip")]) == 0
    with zipfile.ZipFile(tmp_path / f"{cascade.trial_id}.zip") as archive:
        (card,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("MODEL_CARD.md")]
    commands = [shlex.split(line) for line in card.splitlines() if line.startswith("    nnUNetv2_predict ")]
    places = {"INPUT": tmp_path / "in", f"OUTPUT_OF_{LOW}": tmp_path / "stock_low", "OUTPUT": tmp_path / "stock"}
    shared = ("-device", "cpu", "-npp", "1", "-nps", "1")
    filled = [[str({**places, "FOLDS": 0}.get(word, word)) for word in words] for words in commands]
    assert [words[words.index("-c") + 1] for words in filled] == [LOW, CASCADE]
    filled[0].append("--disable_tta")
    run_stock(
        stock_python(tmp_path / "venv"),
        tmp_path / "elsewhere",
        {"nnUNet_results": tmp_path / "installed"},
        *((*INSTALL, "install", str(tmp_path / f"{trial.trial_id}.zip")) for trial in (previous, cascade)),
        *((*PREDICT, *words, *shared) for words in filled),
    )
    for path in model_folder(cascade).glob("validation/*.nii.gz"):
        ours, theirs = (
            SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(each))) for each in (path, places["OUTPUT"] / path.name)
        )
        assert np.array_equal(ours, theirs)


def _predicted_dice(cascade: TrialFolder, previous: TrialFolder, data: Path, tmp_path: Path) -> float:
    """Of the printed command, given what the previous stage's validation predicted for the same cases."""
    cases, raw = finished_trial(cascade).result.dice_per_case, data_paths(data).raw
    assert raw is not None
    (tmp_path / "in").mkdir()
    for case in cases:
        (tmp_path / "in" / f"{case}_0000.nii.gz").symlink_to(raw / NAME / "imagesTr" / f"{case}_0000.nii.gz")
    low = previous.results_path / NAME / f"nnUNetTrainerPGPS__{PLANS}__{LOW}" / "fold_0" / "validation"
    command = predict_command(cascade, cascade.spec())
    for word, folder in (("INPUT", tmp_path / "in"), ("OUTPUT", tmp_path / "out"), ("PREVIOUS", low)):
        assert f" {word} " in command
        command = command.replace(f" {word} ", f" {folder} ")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    by_class: dict[int, list[float]] = {1: [], 2: []}
    for case in cases:
        made, true = (
            SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"{case}.nii.gz")))
            for folder in (tmp_path / "out", raw / NAME / "labelsTr")
        )
        for label, values in by_class.items():
            values.append(2 * np.sum((made == label) & (true == label)) / np.sum((made == label) * 1 + (true == label)))
    return float(np.mean([np.mean(values) for values in by_class.values()]))

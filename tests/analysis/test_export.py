"""`export` for a colleague: what stock nnU-Net does with the zip, which configuration is meant, and what is refused."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from ledgers import finish_trial, make_spec
from prepared import CUBE, FLAT_2D, FULL, NAME, model_folder, spec_of, workplace, write_variant
from stock import ENSEMBLE, FIND_BEST, INSTALL, PREDICT, imports, run_stock, stock_python

from analysis.tables.methods import point_id
from study.__main__ import main
from study.common import files
from study.common.serialize import sha256_of_json
from study.nnunet.datasets import data_paths
from study.nnunet.torch_tools import state_sha256
from study.run.trial import run_trial
from study.search.trials import prepared_lookup
from study.store.ledger import Ledger
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder

SHORT = {"epochs": 1, "iterations_per_epoch": 4}
CONFIGURATION = {
    "patch_size": [40, 56, 40],
    "batch_size": 2,
    "data_identifier": "x",
    "architecture": {"arch_kwargs": {"strides": [[1, 1, 1], [8, 8, 4]], "norm_op": "torch.nn.InstanceNorm3d"}},
}
PLANS = {
    "dataset_name": "Dataset004_Hippocampus",
    "plans_name": "nnUNetPlans",
    "configurations": {"3d_fullres": CONFIGURATION},
}
MODEL = f"{NAME}/nnUNetTrainer__{CUBE}__{FULL}"


def export(*words: object) -> int:
    return main(["export", *map(str, words)])


def voxels(path: Path) -> Any:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stock_python(tmp_path_factory.mktemp("stock"))


def images(data: Path, folder: Path, cases: list[str]) -> Path:
    folder.mkdir()
    for case in cases:
        (folder / f"{case}_0000.nii.gz").symlink_to(data / "nnUNet_raw" / NAME / "imagesTr" / f"{case}_0000.nii.gz")
    return folder


@pytest.mark.cluster
def test_stock_nnunet_installs_predicts_ensembles_and_ranks(data: Path, tmp_path: Path, python: Path) -> None:
    paths, ledger = data_paths(data), Ledger.create(tmp_path / "study")
    first = spec_of(paths, training=SHORT)
    second = replace(first, fold=1, split_sha256=prepared_lookup(paths)(NAME, CUBE, FULL, 1)[1])
    trained = [run_trial(spec, ledger, workplace(paths)).folder for spec in (first, second)]
    assert export(ledger.root, "--out", tmp_path / "model.zip") == 0
    # An installation to edit leaves the search spaces beside the libraries, as `study` without a module.
    assert not imports(python, "study.nnunet") and not imports(python, "analysis") and imports(python, "nnunetv2")

    validated = sorted((model_folder(trained[0]) / "validation").glob("*.nii.gz"))
    given = images(data, tmp_path / "images", [path.name.removesuffix(".nii.gz") for path in validated])
    results = tmp_path / "results"
    variables = {
        "nnUNet_results": results,
        "nnUNet_preprocessed": paths.preprocessed,
        "nnUNet_raw": data / "nnUNet_raw",
    }
    predict = (*PREDICT, "nnUNetv2_predict", "-i", given, "-d", NAME, "-p", CUBE, "-c", FULL, "-device", "cpu")
    predict += ("--disable_tta", "-npp", 1, "-nps", 1)
    best = ("-p", CUBE, "-c", FULL, "-f", 0, 1, "-np", 1)
    printed = run_stock(
        *(python, tmp_path / "elsewhere", variables),
        (*INSTALL, "nnUNetv2_install_pretrained_model_from_zip", tmp_path / "model.zip"),
        (*predict, "-f", 0, "-o", tmp_path / "zero", "--save_probabilities"),
        (*predict, "-f", 1, "-o", tmp_path / "one", "--save_probabilities"),
        (*predict, "-f", 0, 1, "-o", tmp_path / "both"),
        (*ENSEMBLE, "nnUNetv2_ensemble", "-i", tmp_path / "zero", tmp_path / "one", "-o", tmp_path / "mean", "-np", 1),
        (*FIND_BEST, "nnUNetv2_find_best_configuration", NAME, *best),
    )
    assert "Run inference like this" in printed
    assert (results / MODEL / "crossval_results_folds_0_1" / "postprocessing.pkl").exists()
    for path in validated:
        assert np.array_equal(voxels(tmp_path / "zero" / path.name), voxels(path))
        assert voxels(tmp_path / "both" / path.name).shape == voxels(tmp_path / "mean" / path.name).shape
    # Nothing of ours is in the checkpoint, and all that stock nnU-Net writes is.
    state = torch.load(results / MODEL / "fold_1" / "checkpoint_final.pth", weights_only=False)
    assert state["trainer_name"] == "nnUNetTrainer" and "pgps_study" not in state
    assert state_sha256(state["network_weights"]) == trained[1].result().weights_sha256  # type: ignore[union-attr]


@pytest.mark.cluster
def test_regions_in_2d_travel_too(data: Path, tmp_path: Path, python: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "second": 2}
    paths = write_variant(tmp_path / "regions", data, labels, plans="PlannedPlans", configuration=FLAT_2D, order=[1, 2])
    spec = spec_of(paths, plans="PlannedPlans", configuration=FLAT_2D, training=SHORT)
    trial = run_trial(spec, Ledger.create(tmp_path / "study"), workplace(paths)).folder
    assert export(trial.path, "--out", tmp_path / "model.zip") == 0
    validated = sorted((model_folder(trial) / "validation").glob("*.nii.gz"))
    given = images(data, tmp_path / "images", [path.name.removesuffix(".nii.gz") for path in validated])
    predict = (*PREDICT, "nnUNetv2_predict", "-i", given, "-d", NAME, "-p", "PlannedPlans", "-c", FLAT_2D, "-f", 0)
    run_stock(
        *(python, tmp_path / "elsewhere", {"nnUNet_results": tmp_path / "results"}),
        (*INSTALL, "nnUNetv2_install_pretrained_model_from_zip", tmp_path / "model.zip"),
        (*predict, "-o", tmp_path / "out", "-device", "cpu", "--disable_tta", "-npp", 1, "-nps", 1),
    )
    for path in validated:
        assert np.array_equal(voxels(tmp_path / "out" / path.name), voxels(path))


@pytest.fixture
def study(tmp_path: Path) -> Ledger:
    """PGPS on two folds and with a second seed on one of them, CPS on one, and a trial that has not begun."""
    ledger = Ledger.create(tmp_path / "study")
    for scheme, fold, seed, dice in (("pgps", 0, 0, 0.8), ("pgps", 1, 0, 0.8), ("pgps", 1, 1, 0.8), ("cps", 0, 0, 0.7)):
        put_model(
            finish_trial(ledger, spec_with_plans(scheme, fold=fold, seed=seed), dice=dice, seconds=30.0, n_cases=9)
        )
    ledger.add(spec_with_plans("rpss"))
    return ledger


def spec_with_plans(scheme: str, **which: Any) -> TrialSpec:
    return replace(make_spec(scheme, **which), plans_sha256=sha256_of_json(PLANS))


def put_model(trial: TrialFolder) -> None:
    """Small files in the places of a model."""
    spec, result = trial.spec(), trial.result()
    assert result is not None
    weights = {"w": torch.full((2,), float(spec.fold))}
    description = {"labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz", "licence": "CC-BY-SA 4.0"}
    folder = trial.results_path / spec.dataset / f"nnUNetTrainerPGPS__{spec.plans}__{spec.configuration}"
    for name, document in (("plans", PLANS), ("dataset", description), ("dataset_fingerprint", {})):
        files.write_json(folder / f"{name}.json", document)
    files.write_json(folder / f"fold_{spec.fold}" / "validation" / "summary.json", {})
    state = {"network_weights": weights, "trainer_name": "nnUNetTrainerPGPS", "pgps_study": {"iteration": 1}}
    torch.save(state, folder / f"fold_{spec.fold}" / "checkpoint_final.pth")
    trial.complete(replace(result, weights_sha256=state_sha256(weights)))


def members(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name.partition("__nnUNetPlans__3d_fullres/")[2] for name in archive.namelist()}


FOLD_0 = {"fold_0/checkpoint_final.pth", "fold_0/validation/summary.json"}
FOLD_1 = {"fold_1/checkpoint_final.pth", "fold_1/validation/summary.json"}
SHARED = {"plans.json", "dataset.json", "dataset_fingerprint.json", "MODEL_CARD.md"}


def test_folds_of_a_configuration_are_one_model_with_its_card(
    study: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.zip"
    assert export(study.root, "--point", "best", "--out", out) == 0
    printed = capsys.readouterr().out
    assert members(out) == {*SHARED, *FOLD_0, *FOLD_1}
    assert "Models of seed 0; the point's trials of seed 1 are not in it." in printed
    assert (
        "nnUNetv2_predict -i INPUT -o OUTPUT -d Dataset004_Hippocampus -p nnUNetPlans -c 3d_fullres -f 0 1\n" in printed
    )
    first = out.read_bytes()
    with zipfile.ZipFile(out) as archive:
        (card,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("MODEL_CARD.md")]
    for said in (
        "CC-BY-SA 4.0",
        "over 2 folds and 2 seeds: 0.8000",
        "95 % interval",
        "Example CPU",
        "torch 2.15.0",
        "g",
    ):
        assert said in card
    assert "| 1 | 0 |" in card and "| 1 | 1 |" not in card
    # The same again is the same file; another seed is another model, whose missing fold is named.
    assert export(study.root, "--point", "best", "--out", out) == 0
    assert out.read_bytes() == first
    assert export(study.root, "--point", "best", "--seed", 1, "--out", out) == 0
    assert members(out) == {*SHARED, *FOLD_1}
    assert "without fold 0, finished with other seeds alone" in capsys.readouterr().out


def test_a_configuration_or_trial_is_named_by_the_beginning_of_its_id(study: Ledger, tmp_path: Path) -> None:
    out, (first, *_) = tmp_path / "model.zip", study.trials()
    assert export(study.root, "--point", first.trial_id[:6], "--out", out) == 0
    assert members(out) == {*SHARED, *FOLD_0}
    assert export(first.path, "--out", out) == 0
    assert members(out) == {*SHARED, *FOLD_0}
    whole = point_id(first.spec())
    assert export(study.root / whole[:7], "--out", out) == 0
    assert members(out) == {*SHARED, *FOLD_0, *FOLD_1}


def test_what_cannot_be_exported_is_one_line(study: Ledger, tmp_path: Path, refused: Callable[..., str]) -> None:
    out, trials = tmp_path / "model.zip", study.trials()
    wrong: list[tuple[tuple[object, ...], str]] = [
        ((study.root, "--out", out), r"--point: received 'nothing', legal is best, or one of .*PGPS, Dice 0.8000.*CPS"),
        ((study.root, "--point", "zzz", "--out", out), "--point: received 'zzz', legal is one of "),
        ((study.root, "--point", "", "--out", out), "--point: received '', legal is one of "),
        ((study.root, "--point", trials[-1].trial_id, "--out", out), "nothing to export: .* is new"),
        ((study.root, "--point", "best", "--seed", 7, "--out", out), "--seed: received 7, legal is one of 0, 1"),
        ((study.root, "--point", "best"), "--out: received 'nothing'"),
        ((study.root, "--point", "best", "--out", tmp_path), "--out: .* ending in .zip"),
        ((study.root, "--point", "best", "--out", out.with_suffix(".tar")), "--out: .* ending in .zip"),
        ((tmp_path / "nowhere", "--out", out), "is no study folder"),
        ((trials[0].path, "--point", "best", "--out", out), "--point: .* names one"),
        (("s3://bucket/study", "--out", out), "STUDY: received 's3://bucket/study', legal is a folder"),
        ((Ledger.create(tmp_path / "empty").root, "--out", out), "no trial of the study has finished"),
    ]
    for words, message in wrong:
        assert re.search(message, said := refused("export", *words)), said
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("fold_0/checkpoint_final.pth", b"half", "has no readable checkpoint_final.pth"),
        ("fold_0/checkpoint_final.pth", None, "has no readable checkpoint_final.pth"),
        ("fold_1/checkpoint_final.pth", "other weights", "other weights than those whose Dice"),
        ("fold_1/validation/summary.json", None, "is not here: no .*summary.json"),
        ("plans.json", None, "is not here: no .*plans.json"),
        ("plans.json", b"{}", "is no plans file"),
        ("plans.json", json.dumps({**PLANS, "other": 1}).encode(), "is not the plan that trial .* was trained with"),
        ("dataset.json", b'{"file_ending": ".nii.gz"}', "dataset.json differs between the trials"),
        ("dataset.json", b"[", "is not readable JSON"),
        ("dataset_fingerprint.json", None, "nnU-Net needs it beside the model"),
    ],
)
def test_a_model_that_is_not_the_recorded_one_is_refused(
    study: Ledger, tmp_path: Path, refused: Callable[..., str], name: str, content: Any, message: str
) -> None:
    fold = 1 if name.startswith("fold_1") else 0
    (path,) = study.trials()[fold].results_path.glob(f"*/*/{name}")
    if content == "other weights":
        state = torch.load(path, weights_only=False)
        torch.save({**state, "network_weights": {"w": torch.zeros(3)}}, path)
    elif content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    said = refused("export", study.root, "--point", "best", "--out", tmp_path / "model.zip")
    assert re.search(message, said), said
    assert not (tmp_path / "model.zip").exists()

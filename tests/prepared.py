"""Prepared data for tests that train: made-up images taken once through the project's own preparation, and small
variants of that dataset. Also the few lines that a test needs to specify a trial on it, train it, and stop it.

The network has at most 16 features and the patch 32 voxels per axis, so an iteration takes hundredths of a second.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from study.common import files
from study.common.errors import TrialInterrupted
from study.common.machine import MachineShare
from study.curriculum.schemes import named_axes
from study.nnunet.datasets import DataPaths, data_paths, find_dataset
from study.nnunet.phantom import write_phantom_dataset
from study.nnunet.plans import SmallPlan, small_plans
from study.nnunet.training_job import make_trainer as trainer_of
from study.run.progress import Progress, StopRequest
from study.run.provenance import Workplace
from study.run.trial import run_trial
from study.search.trials import make_spec, prepared_lookup
from study.store.ledger import Ledger
from study.store.records import Phase
from study.store.specification import Energy, TrainingSettings, TrialSpec
from study.store.trial_folder import TrialFolder

NUMBER, NAME = 901, "Dataset901_Phantom"
CASES = 10
# Plans of the dataset: the one that most tests use, and one whose patch is so flat that nnU-Net augments in 2D.
CUBE, FLAT = "CubePlans", "FlatPlans"
CUBE_PATCH, FLAT_PATCH = (32, 32, 32), (4, 32, 32)
FULL, FLAT_2D = "3d_fullres", "2d"
# Three epochs of eight iterations for nine sizes: stages begin within epochs.
SHORT: Mapping[str, Any] = {
    "optimizer": "adamw",
    "epochs": 3,
    "iterations_per_epoch": 8,
    "validation_batches": 2,
    "test_time_mirroring": False,
}
UNMETERED = Energy(meter="none")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the prepared phantoms, the same one for all processes of a test run."""
    return once(tmp_path_factory, "prepared_phantoms", prepare_phantoms)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first process of a test run to ask for it fills, and the others wait for."""
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, done = root / name, root / f"{name} is done"
    with (root / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def prepare_phantoms(root: Path) -> None:
    from study.nnunet.prepare import prepare
    from study.nnunet.prepare.sources import PlansRecipe, raw_source

    paths = data_paths(root)
    assert paths.raw is not None
    raw = write_phantom_dataset(paths.raw, name=NAME, cases=CASES)
    recipe = PlansRecipe(configurations=(FULL, FLAT_2D), plans_name="PlannedPlans", small=SmallPlan(max_features=16))
    dataset = prepare(raw_source(raw, NUMBER), paths, recipe, workers=1).dataset
    planned = files.read_json(dataset.folder / "PlannedPlans.json")
    for name, patch in ((CUBE, CUBE_PATCH), (FLAT, FLAT_PATCH)):
        small = small_plans(planned, [FULL], name, SmallPlan(max_features=16, patch_size=patch))
        files.write_json(dataset.folder / f"{name}.json", small)


def plans_document(data: Path, name: str = CUBE) -> dict[str, Any]:
    """A plans file of the phantoms."""
    document: dict[str, Any] = files.read_json(data_paths(data).preprocessed / NAME / f"{name}.json")
    return document


def write_variant(
    root: Path,
    data: Path,
    labels: Mapping[str, Any],
    *,
    relabel: Callable[[Any], Any] = lambda labels: labels,
    plans: str = CUBE,
    configuration: str = FULL,
    order: Sequence[int] | None = None,
) -> DataPaths:
    """The phantoms with other labels, preprocessed by nnU-Net in this process, under the same name in another folder.

    Args:
        root: the new data folder.
        data: the prepared phantoms.
        labels: `labels` of dataset.json; order: its `regions_class_order`.
        relabel: makes new label arrays (z, y, x) of the phantoms'.
        plans, configuration: what is preprocessed.
    """
    import SimpleITK
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    old, new = data_paths(data).preprocessed / NAME, data_paths(root)
    folder = new.preprocessed / NAME
    for name in ("splits_final.json", "dataset_fingerprint.json", f"{plans}.json"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(old / name, folder / name)
    description = {**files.read_json(old / "dataset.json"), "labels": dict(labels)}
    files.write_json(folder / "dataset.json", description | ({"regions_class_order": list(order)} if order else {}))
    plan = PlansManager(str(folder / f"{plans}.json")).get_configuration(configuration)
    (folder / "gt_segmentations").mkdir()
    (folder / plan.data_identifier).mkdir()
    for path in sorted((old / "gt_segmentations").glob("*.nii.gz")):
        image = SimpleITK.ReadImage(str(path))
        changed = SimpleITK.GetImageFromArray(relabel(SimpleITK.GetArrayFromImage(image)))
        changed.CopyInformation(image)
        SimpleITK.WriteImage(changed, str(folder / "gt_segmentations" / path.name))
        _preprocess(data, folder, plans, configuration, path.name.removesuffix(".nii.gz"))
    return new


def tiny_plans(data: Path, tmp_path: Path) -> DataPaths:
    """The phantoms with the plans `TinyPlans`, of 4 features."""
    old, paths = data_paths(data), data_paths(tmp_path / "tiny")
    folder = paths.preprocessed / NAME
    folder.mkdir(parents=True)
    for path in (old.preprocessed / NAME).iterdir():
        (folder / path.name).symlink_to(path)
    small = small_plans(plans_document(data), [FULL], "TinyPlans", SmallPlan(max_features=4))
    files.write_json(folder / "TinyPlans.json", small)
    return paths


def cascade_plans(data: Path, tmp_path: Path) -> DataPaths:
    """The phantoms with plans of a cascade, and in `previous` the true labels as what the previous stage predicted."""
    import numpy as np
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    old, paths = data_paths(data).preprocessed / NAME, data_paths(tmp_path / "data")
    folder = paths.preprocessed / NAME
    folder.mkdir(parents=True)
    for path in old.iterdir():
        (folder / path.name).symlink_to(path)
    document = plans_document(data)
    full = document["configurations"][FULL]
    document["plans_name"] = "CascadePlans"
    document["configurations"]["3d_lowres"] = {**full, "next_stage": "3d_cascade_fullres"}
    document["configurations"]["3d_cascade_fullres"] = {"inherits_from": FULL, "previous_stage": "3d_lowres"}
    files.write_json(folder / "CascadePlans.json", document)
    (tmp_path / "previous").mkdir()
    cases = nnUNetDatasetBlosc2(str(folder / full["data_identifier"]))
    for case in cases.identifiers:
        labels = np.asarray(cases.load_case(case)[1][0]).clip(0)
        nnUNetDatasetBlosc2.save_seg(labels, str(tmp_path / "previous" / case))
    return paths


def _preprocess(data: Path, folder: Path, plans: str, configuration: str, case: str) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(str(folder / f"{plans}.json"))
    plan = manager.get_configuration(configuration)
    raw = data_paths(data).raw
    assert raw is not None
    plan.preprocessor_class(verbose=False).run_case_save(
        str(folder / plan.data_identifier / case),
        [str(raw / NAME / "imagesTr" / f"{case}_0000.nii.gz")],
        str(folder / "gt_segmentations" / f"{case}.nii.gz"),
        manager,
        plan,
        str(folder / "dataset.json"),
    )


MakeTrainer = Callable[..., Any]


@pytest.fixture
def make_trainer(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTrainer:
    """Builds a trainer for what `spec_of` takes, no network yet.

    It trains on the phantoms, or on a variant of them if given one.
    """
    phantoms = data_paths(data)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))

    def make(
        scheme: str = "pgps",
        *,
        trainer: Any = None,
        observer: Any = None,
        variant: DataPaths | None = None,
        device: str = "cpu",
        **spec: Any,
    ) -> Any:
        paths, how = variant or phantoms, {"observer": observer} if observer else {}
        monkeypatch.setenv("nnUNet_preprocessed", str(paths.preprocessed))
        return trainer_of(spec_of(paths, scheme, **spec), find_dataset(paths, NAME), device=device, kind=trainer, **how)

    return make


def spec_of(
    paths: DataPaths,
    scheme: str = "pgps",
    *,
    seed: int = 0,
    plans: str = CUBE,
    configuration: str = FULL,
    training: Mapping[str, Any] | None = None,
    **axes: Any,
) -> TrialSpec:
    """A trial on prepared data: `SHORT` unless `training` says otherwise. Cases rank by name, the last first."""
    plan, split_sha256 = prepared_lookup(paths)(NUMBER, plans, configuration, 0)
    return make_spec(
        plan=plan,
        split_sha256=split_sha256,
        fold=0,
        seed=seed,
        scheme=scheme,
        axes=named_axes(scheme, **axes),
        training=TrainingSettings(**{**SHORT, **(training or {})}),
        ranked=sorted(find_dataset(paths, NUMBER).split(0).training, reverse=True),
    )


def workplace(paths: DataPaths, *, data_workers: int = 0, energy: Energy = UNMETERED, device: str = "cpu") -> Workplace:
    """One thread of the CPU, and the GPU if that is the device."""
    resources = MachineShare(device=device, cpus=1, data_workers=data_workers)
    return Workplace(data=paths, resources=resources, energy=energy)


class Stopper(Progress):
    """Asks for a stop as a signal would: after a number of iterations, or when a kind of work begins."""

    def __init__(self, *, after: int | None = None, before: Phase | None = None) -> None:
        self.stop = StopRequest()
        self._after, self._before = after, before

    def iteration_done(self, report: Any) -> None:
        if report.iteration + 1 == self._after:
            self.stop.signal()

    def phase(self, phase: Phase) -> None:
        if phase is self._before:
            self.stop.signal()


def train(spec: TrialSpec, ledger: Ledger, place: Workplace, *, after: int | None = None) -> TrialFolder:
    """Train until a number of iterations is done, or to the end but for the final validation.

    Raises:
        TrialFailedError: the training broke.
    """
    stopper = Stopper(after=after, before=Phase.FINAL_VALIDATION)
    with pytest.raises(TrialInterrupted):
        run_trial(spec, ledger, place, progress=stopper, stop=stopper.stop)
    return ledger.trial(spec.trial_id)


def model_folder(folder: TrialFolder) -> Path:
    """Where nnU-Net keeps the fold's checkpoints."""
    (fold,) = folder.results_path.glob("*/*/fold_0")
    return fold


def final_weights(folder: TrialFolder) -> str:
    """Digest of all bytes of the weights in the final checkpoint."""
    return checkpoint_weights(model_folder(folder) / "checkpoint_final.pth")


def checkpoint_weights(path: Path) -> str:
    """Digest of all bytes of the weights in a checkpoint."""
    import torch

    weights = torch.load(path, map_location="cpu", weights_only=False)["network_weights"]
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()

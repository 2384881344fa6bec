"""Raw datasets of phantoms, to be prepared or spoilt, and a prepared one without images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from study.common import files
from study.nnunet.datasets import DataPaths, data_paths
from study.nnunet.phantom import write_phantom_dataset

CASES = 5


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom_dataset(tmp_path_factory.mktemp("untouched"), cases=CASES)


@pytest.fixture
def raw(untouched: Path, tmp_path: Path) -> Path:
    """A raw dataset that the test may spoil."""
    return Path(shutil.copytree(untouched, tmp_path / "elsewhere" / untouched.name))


@pytest.fixture
def paths(tmp_path: Path) -> DataPaths:
    return data_paths(tmp_path / "data")


BARE = "Dataset004_Hippocampus"


def bare_dataset(root: Path, cases: Sequence[str] = tuple(f"case_{n}" for n in range(10))) -> DataPaths:
    """A prepared dataset whose files of cases are empty; case n is validated in fold n % 5."""
    folder = root / "nnUNet_preprocessed" / BARE
    names = [f"nnUNetPlans_3d_fullres/{case}.{ending}" for case in cases for ending in ("pkl", "b2nd")]
    for name in (*names, *(f"gt_segmentations/{case}" for case in cases)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    configuration = {
        "patch_size": [40, 56, 40],
        "batch_size": 9,
        "data_identifier": "nnUNetPlans_3d_fullres",
        "architecture": {"arch_kwargs": {"strides": strides, "norm_op": "torch.nn.InstanceNorm3d"}},
    }
    plans = {"dataset_name": BARE, "plans_name": "nnUNetPlans", "configurations": {"3d_fullres": configuration}}
    folds = [{"train": [c for i, c in enumerate(cases) if i % 5 != k], "val": [*cases[k::5]]} for k in range(5)]
    files.write_json(folder / "dataset.json", {"labels": {"background": 0, "organ": 1}})
    files.write_json(folder / "splits_final.json", folds)
    files.write_json(folder / "nnUNetPlans.json", plans)
    return DataPaths(raw=None, preprocessed=root / "nnUNet_preprocessed")


def describe(folder: Path, **changed: Any) -> None:
    files.write_json(folder / "dataset.json", {**files.read_json(folder / "dataset.json"), **changed})


def rewrite(path: Path, change: Callable[[Any], Any], spacing_mm: float = 1.0) -> None:
    """Replace the voxels of an image, (z, y, x)."""
    import SimpleITK

    image: Any = SimpleITK.GetImageFromArray(change(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))))
    image.SetSpacing([spacing_mm] * image.GetDimension())
    SimpleITK.WriteImage(image, str(path))


def with_label_seven(labels: Any) -> Any:
    labels[0, 0, 0] = 7
    return labels

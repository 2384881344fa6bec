"""Raw datasets of phantoms, to be prepared or spoilt."""

from __future__ import annotations

import shutil
from collections.abc import Callable
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

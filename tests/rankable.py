"""Images whose similarity is known, small datasets of them as nnU-Net preprocesses them, and made-up rankings."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from study.common import files
from study.curriculum.data_curriculum import METRICS
from study.nnunet.datasets import PreparedDataset, data_paths, find_dataset
from study.ranking.files import FORMAT, RECORD, RankedCase, fold_folder, rows_sha256, write_pairs, write_rows

Array = NDArray[np.float32]
NAME, PLANS, FULL = "Dataset902_Rankable", "nnUNetPlans", "3d_fullres"
SHAPE = (24, 28, 26)


@functools.cache
def anatomy(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Array:
    """A smooth image with structure everywhere, mean 0 and standard deviation 1."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 2.5, mode="wrap")
    image = ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)
    image.flags.writeable = False
    return image


def moved(image: Array, *, degrees: float = 0.0, shift: Sequence[float] = (0.0, 0.0, 0.0)) -> Array:
    """The image rotated about its centre, around an oblique axis, and shifted by voxels; its edge is continued."""
    matrix = Rotation.from_rotvec(np.radians(degrees) * np.array([2.0, -1.0, 2.0]) / 3).as_matrix()
    centre = (np.array(image.shape) - 1) / 2
    offset = centre + np.array(shift) - matrix @ centre
    turned: Array = ndimage.affine_transform(image, matrix, offset, order=3, mode="nearest").astype(np.float32)
    return turned


def noisy(image: Array, seed: int, amount: float = 0.1) -> Array:
    """The image with noise of its own."""
    grain = np.random.default_rng([7, seed]).normal(scale=amount, size=image.shape)
    return (image + grain).astype(np.float32)


def write_dataset(
    root: Path,
    training: Mapping[str, Array],
    validation: Mapping[str, Array] | None = None,
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> PreparedDataset:
    """A prepared dataset of one fold.

    Args:
        root: the data folder.
        training: case -> voxels (z, y, x), or (channels, z, y, x).
        validation: the same for validation cases.
        spacing: of all, as in the plans.
    """
    validation = validation or {}
    folder = root / "nnUNet_preprocessed" / NAME
    cases = folder / f"{PLANS}_{FULL}"
    cases.mkdir(parents=True)
    for case, voxels in {**training, **validation}.items():
        write_case(cases, case, voxels)
    files.write_json(folder / "dataset.json", {"labels": {"background": 0, "thing": 1}, "file_ending": ".nii.gz"})
    files.write_json(folder / "splits_final.json", [{"train": list(training), "val": list(validation)}])
    files.write_json(folder / f"{PLANS}.json", _plans(spacing))
    return find_dataset(data_paths(root), NAME)


def write_case(folder: Path, case: str, voxels: Array) -> None:
    """One case in nnU-Net's own format."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    data = np.array(voxels if voxels.ndim == 4 else voxels[None], dtype=np.float32)
    labels = np.zeros((1, *data.shape[1:]), dtype=np.int16)
    whole = {"chunks": data.shape, "blocks": data.shape, "chunks_seg": labels.shape, "blocks_seg": labels.shape}
    nnUNetDatasetBlosc2.save_case(data, labels, {"spacing": [1.0, 1.0, 1.0]}, str(folder / case), **whole)


def _plans(spacing: Sequence[float]) -> dict[str, Any]:
    settings = {
        "data_identifier": f"{PLANS}_{FULL}",
        "batch_size": 2,
        "patch_size": [16, 16, 16],
        "spacing": list(spacing),
        "architecture": {"arch_kwargs": {"strides": [[1, 1, 1], [2, 2, 2]], "norm_op": "torch.nn.InstanceNorm3d"}},
    }
    return {
        "dataset_name": NAME,
        "plans_name": PLANS,
        "transpose_forward": [0, 1, 2],
        "configurations": {FULL: settings},
    }


MOVES: dict[str, Any] = {
    "case0": {},
    "case1": {"degrees": 10.0},
    "case2": {"shift": (2.0, -2.0, 1.0)},
    "case3": {"degrees": -8.0, "shift": (0.0, 1.5, 0.0)},
}


def phantoms() -> dict[str, Array]:
    """One anatomy in four positions, each with noise of its own, and another anatomy."""
    cases = {case: noisy(moved(anatomy(), **move), index) for index, (case, move) in enumerate(MOVES.items())}
    return {**cases, "stranger": noisy(anatomy(seed=9), 9)}


def by_name(dataset: PreparedDataset, fold: int = 0) -> list[str]:
    """The fold's training cases, the last in the alphabet first."""
    return sorted(dataset.split(fold).training, reverse=True)


def write_ranking(dataset: PreparedDataset, fold: int = 0, ranked: Sequence[str] | None = None) -> Path:
    """A ranking of a fold by every metric.

    Args:
        dataset: beside whose data it is written.
        fold: whose training cases are ranked.
        ranked: them, most dissimilar first; `by_name` unless given. By SSIM they are the other way round.
    """
    order = list(ranked or by_name(dataset, fold))
    rows = [
        RankedCase(case=case, metric=metric, value=rank / 10, rank=rank, registration="identity", reason="")
        for metric in METRICS
        for rank, case in enumerate(order[::-1] if metric == "ssim" else order, start=1)
    ]
    folder = fold_folder(dataset, fold)
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder, rows)
    write_pairs(folder, [])
    record = {"format": FORMAT, "dataset": dataset.name, "fold": fold, "split_sha256": dataset.split(fold).sha256}
    files.write_json(folder / RECORD, {**record, "sha256": rows_sha256(rows)})
    return folder

"""Phantoms: the same voxels for the same seed, small foreground of two touching classes, files that tools can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label

from study.common import files
from study.common.errors import InvalidInputError
from study.nnunet.datasets import description_problems
from study.nnunet.phantom import LABELS, LARGEST_AXIS, SMALLEST_AXIS, Phantom, make_phantom, write_phantom_dataset

SAMPLE = 6


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(0, index) for index in range(SAMPLE)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom_dataset(tmp_path_factory.mktemp("raw"), name="Dataset902_Few", cases=3, seed=4)


def voxels(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    return array


def test_a_seed_and_an_index_decide_every_voxel(phantoms: list[Phantom]) -> None:
    again = make_phantom(0, 2)
    np.testing.assert_array_equal(again.image, phantoms[2].image)
    np.testing.assert_array_equal(again.labels, phantoms[2].labels)
    for seed, index in ((0, 1), (1, 0)):
        assert not np.array_equal(make_phantom(seed, index).labels, phantoms[0].labels)


def test_sizes_and_gains_vary_within_bounds(phantoms: list[Phantom]) -> None:
    shapes, deviations = {phantom.image.shape for phantom in phantoms}, [phantom.image.std() for phantom in phantoms]
    assert len(shapes) > 1
    assert all(SMALLEST_AXIS <= n <= LARGEST_AXIS for shape in shapes for n in shape)
    assert any(len(set(shape)) > 1 for shape in shapes)
    assert max(deviations) > 1.5 * min(deviations)


def test_foreground_is_small_a_body_with_a_brighter_bud_grown_out_of_it(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        shares = [np.mean(phantom.labels == value) for value in LABELS.values()]
        assert shares[0] > 0.9
        assert all(share > 0.002 for share in shares[1:])
        body, bud = phantom.labels == LABELS["body"], phantom.labels == LABELS["bud"]
        assert label(body)[1] == 1
        assert (binary_dilation(body) & bud).any()
        means = [phantom.image[phantom.labels == value].mean() for value in LABELS.values()]
        assert means == sorted(means)


def best_dice_by_brightness(phantom: Phantom, value: int) -> float:
    """Dice of the best two thresholds, chosen with the labels known."""
    true, limits = phantom.labels == value, np.quantile(phantom.image, np.linspace(0.5, 1.0, 21))
    chosen = [(phantom.image >= low) & (phantom.image <= high) for low in limits for high in limits if low < high]
    return max(float(2 * (mask & true).sum() / (mask.sum() + true.sum())) for mask in chosen)


def test_brightness_alone_does_not_tell_the_classes(phantoms: list[Phantom]) -> None:
    dice = [best_dice_by_brightness(phantom, value) for phantom in phantoms for value in (1, 2)]
    assert 0.4 < np.mean(dice) < 0.7


def test_files_hold_what_was_made_and_are_described_for_nnunet(written: Path) -> None:
    for index in range(3):
        phantom = make_phantom(4, index)
        np.testing.assert_array_equal(voxels(written / "imagesTr" / f"phantom_{index:03d}_0000.nii.gz"), phantom.image)
        np.testing.assert_array_equal(voxels(written / "labelsTr" / f"phantom_{index:03d}.nii.gz"), phantom.labels)
    description = files.read_json(written / "dataset.json")
    assert written.name == "Dataset902_Few"
    assert next(description_problems(description), None) is None
    assert description["labels"] == LABELS
    assert description["numTraining"] == len(list((written / "labelsTr").iterdir())) == 3
    assert description["channel_names"]["0"].lower() not in {"ct", "nonorm"}, "images must be normalised one by one"


@pytest.mark.parametrize("given", [{"cases": 0}, {"cases": 2.5}, {"seed": -1}])
def test_what_cannot_be_made_is_refused_before_anything_is_written(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(given))):
        write_phantom_dataset(tmp_path, **given)
    assert list(tmp_path.iterdir()) == []

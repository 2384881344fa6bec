"""Made-up 3D images with labels, in nnU-Net's raw format: the data of the demo and of the tests.

Each image shows one *body* (class 1) with a smaller, brighter *bud* (class 2) grown out of it in some direction. Lumps
are as bright as the body and smaller, specks as bright as the bud and tiny: whoever labels by brightness alone is
wrong, size and surroundings decide. Texture, noise, a bias field and a gain per image do the rest. No class is defined
by a direction, so mirroring is a fair augmentation.

Image `n` of a seed is a function of (seed, n) alone. Axis order is that of numpy and nnU-Net: z, y, x.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.common import files
from study.common.errors import check_count

Array = NDArray[np.float32]
NAME = "Dataset901_Phantom"
LABELS = {"background": 0, "body": 1, "bud": 2}
CASES = 20
SMALLEST_AXIS, LARGEST_AXIS = 40, 56
# Brightness above the background's mean, and the standard deviations of noise and texture on the same scale. With these
# a small network trained for 135 and 270 iterations reaches a Dice of 0.71 and 0.81 at constant patch size, 0.65 and
# 0.76 with PGPS. A few more or larger decoys, and a training that short learns no bud at all.
BODY, BUD = 1.0, 1.7
NOISE, TEXTURE = 0.25, 0.12
# How many decoys an image has, and their radii in voxels.
LUMPS, LUMP_RADII = 1, (2.5, 3.5)
SPECKS, SPECK_RADII = 3, (1.2, 1.8)


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """One case: image (z, y, x) in arbitrary units, labels of the same shape with the values of `LABELS`."""

    image: Array
    labels: NDArray[np.uint8]


def write_phantom_dataset(raw_folder: Path, *, name: str = NAME, cases: int = CASES, seed: int = 0) -> Path:
    """Write a dataset of phantoms, 1 mm apart in every direction, into nnU-Net's raw folder, and return its own.

    Raises:
        InvalidInputError: cases or seed outside their range.
    """
    check_count("cases", cases, most=1000)
    check_count("seed", seed, least=0)
    folder = raw_folder / name
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index in range(cases):
        phantom = make_phantom(seed, index)
        _write_nifti(folder / "imagesTr" / f"phantom_{index:03d}_0000.nii.gz", phantom.image)
        _write_nifti(folder / "labelsTr" / f"phantom_{index:03d}.nii.gz", phantom.labels)
    description = {
        "name": "Phantom",
        "description": "made-up bodies with buds; see study/phantom.py",
        "channel_names": {"0": "phantom"},
        "labels": LABELS,
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    files.write_json(folder / "dataset.json", description)
    return folder


def make_phantom(seed: int, index: int) -> Phantom:
    """Image `index` of a seed."""
    random = np.random.default_rng(np.random.SeedSequence([seed, index]))
    shape = tuple(int(n) for n in random.integers(SMALLEST_AXIS, LARGEST_AXIS + 1, size=3))
    labels, brightness = _anatomy(random, shape)
    return Phantom(image=_acquired(random, brightness), labels=labels)


def _anatomy(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], Array]:
    """Labels, and the brightness that a perfect scanner would see."""
    labels = np.zeros(shape, np.uint8)
    brightness = TEXTURE * _smooth_noise(random, shape, 3.0)
    center = np.array(shape) * random.uniform(0.38, 0.62, size=3)
    radius = random.uniform(8.0, 10.5)
    body = _blob(random, shape, center, radius)
    direction = random.normal(size=3)
    direction /= np.linalg.norm(direction)
    bud = _blob(random, shape, center + direction * radius * 1.2, random.uniform(6.0, 8.0)) & ~body
    labels[body], labels[bud] = LABELS["body"], LABELS["bud"]
    near = _blob(random, shape, center, 2.2 * radius)
    for count, value, radii in ((LUMPS, BODY, LUMP_RADII), (SPECKS, BUD, SPECK_RADII)):
        for _ in range(count):
            decoy = _blob(random, shape, random.uniform(2, np.array(shape) - 2), random.uniform(*radii))
            brightness[decoy & ~near] = value
    brightness[bud], brightness[body] = BUD, BODY
    return labels, brightness


def _acquired(random: np.random.Generator, brightness: Array) -> Array:
    """What a scanner makes of it: blurred, shaded by a bias field, noisy, with its own gain and offset."""
    from scipy.ndimage import gaussian_filter

    shading = 1.0 + 0.15 * _smooth_noise(random, brightness.shape, 14.0)
    noise = random.normal(0.0, NOISE, size=brightness.shape)
    image = (gaussian_filter(brightness, 0.6) + 1.0) * shading + noise
    scaled: Array = (random.uniform(80.0, 400.0) * image + random.uniform(0.0, 50.0)).astype(np.float32)
    return scaled


def _blob(random: np.random.Generator, shape: tuple[int, ...], center: Any, radius: float) -> NDArray[np.bool_]:
    """An ellipsoid with an uneven surface; radius in voxels."""
    axes = radius * random.uniform(0.8, 1.2, size=3)
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    distance = sum(((g - c) / a) ** 2 for g, c, a in zip(grid, center, axes, strict=True))
    uneven: NDArray[np.bool_] = distance + 0.2 * _smooth_noise(random, shape, radius / 2) < 1.0
    return uneven


def _smooth_noise(random: np.random.Generator, shape: tuple[int, ...], width: float) -> Array:
    """Noise of unit variance, smooth over a width in voxels."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(random.normal(size=shape), width, mode="wrap")
    smooth: Array = (field / field.std()).astype(np.float32)
    return smooth


def _write_nifti(path: Path, voxels: NDArray[Any]) -> None:
    import SimpleITK

    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(path), useCompression=True)

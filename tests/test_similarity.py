"""MSE, PSNR, SSIM and UQI on the overlap, against their formulas written out, and where they have no value."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rankable import anatomy, noisy

from study.ranking.files import MEASURES
from study.ranking.similarity import (
    CONSTANT,
    MOST_PSNR_DECIBEL,
    NO_OVERLAP,
    TOO_THIN,
    GridImage,
    compare,
    window_that_fits,
)

Voxels = NDArray[np.float64]
Mask = NDArray[np.bool_]
SHAPE = (9, 10, 8)
RANGE = 4.0
CONSTANTS = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2


def image(voxels: Voxels, inside: Mask | None = None) -> GridImage:
    """One channel, defined everywhere unless told."""
    everywhere = np.ones(voxels.shape, dtype=bool)
    return GridImage(voxels=voxels[None].astype(np.float64), inside=everywhere if inside is None else inside)


def random_pair(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> tuple[Voxels, Voxels]:
    first = np.random.default_rng(seed).normal(size=shape)
    return first, 0.6 * first + np.random.default_rng(seed + 1).normal(scale=0.5, size=shape) + 0.3


def window_quality(x: Voxels, y: Voxels, c1: float, c2: float) -> float:
    """SSIM of one window, from the definition, with sample (co)variances as scikit-image has by default."""
    covariance = float(((x - x.mean()) * (y - y.mean())).sum() / (x.size - 1))
    luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
    return float(luminance * (2 * covariance + c2) / (x.var(ddof=1) + y.var(ddof=1) + c2))


def mean_quality(x: Voxels, y: Voxels, inside: Mask, window: int, c1: float, c2: float) -> float:
    """Over all windows that lie wholly inside."""
    places = itertools.product(*(range(size - window + 1) for size in x.shape))
    boxes = [tuple(slice(start, start + window) for start in place) for place in places]
    found = [window_quality(x[box], y[box], c1, c2) for box in boxes if inside[box].all()]
    return math.fsum(found) / len(found)


def cut_corner(shape: tuple[int, ...] = SHAPE) -> Mask:
    inside = np.ones(shape, dtype=bool)
    inside[:2, :2, :] = False
    return inside


@pytest.mark.parametrize("inside", [np.ones(SHAPE, dtype=bool), cut_corner()], ids=["whole", "cut corner"])
def test_all_measures_are_what_their_formulas_say(inside: Mask) -> None:
    first, second = random_pair()
    values = compare(image(first, inside), image(second), [RANGE]).values
    error = float(np.mean((first[inside] - second[inside]) ** 2))
    assert values["mse"] == pytest.approx(error, rel=1e-12)
    assert values["psnr"] == pytest.approx(10 * math.log10(RANGE**2 / error), rel=1e-12)
    assert values["ssim"] == pytest.approx(mean_quality(first, second, inside, 7, *CONSTANTS), rel=1e-9)
    assert values["uqi"] == pytest.approx(mean_quality(first, second, inside, 7, 0.0, 0.0), rel=1e-9)


def test_what_lies_outside_the_overlap_does_not_count() -> None:
    first, second = random_pair()
    inside = cut_corner()
    spoilt = np.where(inside, first, 1000.0)
    ours, theirs = (compare(image(x, inside), image(second), [RANGE]).values for x in (first, spoilt))
    for measure in MEASURES:
        assert ours[measure] == pytest.approx(theirs[measure], rel=1e-9)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((40, 50, 9), 7),
        ((7, 8), 7),
        ((8, 6, 9), 5),
        ((5, 9, 9), 5),
        ((4, 9, 9), 3),
        ((3, 90, 90), 3),
        ((2, 9, 9), None),
    ],
)
def test_the_window_is_odd_and_no_larger_than_any_axis(shape: tuple[int, ...], window: int | None) -> None:
    assert window_that_fits(shape) == window
    if window is not None and max(shape) < 10:
        first, second = random_pair(shape)
        expected = mean_quality(first, second, np.ones(shape, dtype=bool), window, *CONSTANTS)
        assert compare(image(first), image(second), [RANGE]).values["ssim"] == pytest.approx(expected, rel=1e-9)


def test_the_overlap_decides_the_window_not_the_grid() -> None:
    first, second = random_pair()
    slab = np.zeros(SHAPE, dtype=bool)
    slab[2:7] = True
    expected = mean_quality(first, second, slab, 5, *CONSTANTS)
    assert compare(image(first, slab), image(second), [RANGE]).values["ssim"] == pytest.approx(expected, rel=1e-9)


def test_equal_images_are_as_similar_as_can_be() -> None:
    first, _ = random_pair()
    values = compare(image(first), image(first.copy()), [RANGE]).values
    assert values == pytest.approx({"mse": 0.0, "psnr": MOST_PSNR_DECIBEL, "ssim": 1.0, "uqi": 1.0})


def test_more_noise_is_less_similar_by_every_measure() -> None:
    clean = anatomy()
    found = [compare(image(clean), image(noisy(clean, 1, amount)), [RANGE]).values for amount in (0.05, 0.2, 0.5, 1.5)]
    for measure in MEASURES:
        column = [values[measure] for values in found]
        assert column == sorted(column, reverse=measure != "mse"), measure  # type: ignore[type-var]
        assert len(set(column)) == len(column)


def test_channels_are_averaged_each_with_its_own_range() -> None:
    pairs = [random_pair(seed=seed) for seed in (0, 5)]
    both = [
        GridImage(voxels=np.stack([pair[side] for pair in pairs]), inside=np.ones(SHAPE, dtype=bool)) for side in (0, 1)
    ]
    together = compare(both[0], both[1], [RANGE, 9.0]).values
    alone = [compare(image(x), image(y), [width]).values for (x, y), width in zip(pairs, (RANGE, 9.0), strict=True)]
    for measure in MEASURES:
        assert together[measure] == pytest.approx(sum(values[measure] for values in alone) / 2)  # type: ignore[misc]


def test_without_overlap_nothing_is_defined() -> None:
    first, second = random_pair()
    left = np.zeros(SHAPE, dtype=bool)
    left[:4] = True
    found = compare(image(first, left), image(second, ~left), [RANGE])
    assert dict(found.values) == dict.fromkeys(MEASURES)
    assert dict(found.reasons) == dict.fromkeys(MEASURES, NO_OVERLAP)


def test_a_slice_has_no_structure() -> None:
    first, second = random_pair()
    slab = np.zeros(SHAPE, dtype=bool)
    slab[3] = True
    found = compare(image(first, slab), image(second), [RANGE])
    assert found.values["mse"] is not None
    assert found.values["psnr"] is not None
    assert dict(found.reasons) == {"ssim": TOO_THIN, "uqi": TOO_THIN}


@pytest.mark.parametrize("wobble", [0.0, 1e-7])
def test_two_constant_images_have_no_quality_index_whatever_the_rounding(wobble: float) -> None:
    ours = 1.0 + wobble * np.random.default_rng(0).normal(size=SHAPE)
    found = compare(image(ours), image(np.full(SHAPE, 3.0)), [RANGE])
    assert found.values["mse"] == pytest.approx(4.0)
    assert found.values["ssim"] is not None
    assert dict(found.reasons) == {"uqi": CONSTANT}


def test_windows_that_are_constant_in_both_are_left_out() -> None:
    first, second = random_pair((9, 20, 8))
    padded = [np.where(np.arange(20)[None, :, None] < 10, x, 0.0) for x in (first, second)]
    inside = np.ones(first.shape, dtype=bool)
    # Windows that begin at 10 or later are constant.
    expected = mean_quality(padded[0][:, :16], padded[1][:, :16], inside[:, :16], 7, 0.0, 0.0)
    assert compare(image(padded[0]), image(padded[1]), [RANGE]).values["uqi"] == pytest.approx(expected, rel=1e-6)


def test_without_a_range_of_intensities_only_the_error_is_defined() -> None:
    found = compare(image(np.zeros(SHAPE)), image(np.zeros(SHAPE)), [0.0])
    assert dict(found.values) == {"mse": 0.0, "psnr": None, "ssim": None, "uqi": None}
    assert set(found.reasons) == {"psnr", "ssim", "uqi"}


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    seed=st.integers(0, 1000),
    share=st.floats(0, 1),
    level=st.sampled_from([0.0, 1e-9, 1.0, 1e4]),
)
def test_order_does_not_matter_and_no_value_is_not_a_number(
    shape: tuple[int, int, int], seed: int, share: float, level: float
) -> None:
    generator = np.random.default_rng(seed)
    first, second = (
        image(level * generator.normal(size=shape).round(1), generator.random(shape) < share) for _ in range(2)
    )
    ours, theirs = compare(first, second, [RANGE]), compare(second, first, [RANGE])
    assert ours.reasons == theirs.reasons
    for measure, value in ours.values.items():
        assert (value is None) == (measure in ours.reasons)
        if value is not None:
            assert math.isfinite(value)
            assert value == pytest.approx(theirs.values[measure], rel=1e-9, abs=1e-9)

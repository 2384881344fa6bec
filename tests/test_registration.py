"""Registration: copies that were moved come back, the same way every time; what cannot be registered says why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rankable import SHAPE, anatomy, moved, noisy
from scipy import ndimage

from study.ranking import images, registration
from study.ranking.images import CaseImage, Centred, centred, on_grid, shrink_factors
from study.ranking.registration import (
    AFFINE,
    FEW_SLICES,
    IDENTITY,
    NONE,
    REGISTERED,
    RIGID,
    THICK,
    UNREGISTERED,
    Alignment,
    _factors,
    _weights,
    align,
    kept_transform,
)
from study.ranking.similarity import compare

Array = NDArray[np.float32]
ONE_MM = (1.0, 1.0, 1.0)
# Of the standard deviation's range of the phantoms.
RANGE = 5.0


def case(*channels: Array, spacing: Sequence[float] | None = None, factors: Sequence[int] | None = None) -> Centred:
    axes = channels[0].ndim
    image = CaseImage(voxels=np.stack(channels), spacing=tuple(spacing or ONE_MM[:axes]))
    return centred(image, factors or (1,) * axes)


def similarity(alignment: Alignment, reference: Array) -> dict[str, float]:
    whole = align(case(reference), case(reference), NONE).image
    values = compare(alignment.image, whole, [RANGE]).values
    return {measure: value for measure, value in values.items() if value is not None}


@pytest.mark.parametrize("kind", [RIGID, AFFINE])
@pytest.mark.parametrize(
    ("degrees", "shift"), [(0.0, (2.5, -3.0, 1.5)), (12.0, (0.0, 0.0, 0.0)), (-15.0, (1.0, 2.0, -2.5))]
)
def test_a_moved_copy_is_as_similar_as_the_original(kind: str, degrees: float, shift: tuple[float, ...]) -> None:
    original = anatomy()
    copy = moved(original, degrees=degrees, shift=shift)
    before = similarity(align(case(copy), case(original), NONE), original)
    found = align(case(copy), case(original), kind)
    after = similarity(found, original)
    assert found.registration == REGISTERED
    assert found.reason == ""
    # The original has 0, 1 and 1 with itself; two interpolations and the continued edge are the tolerance.
    assert after["mse"] < 0.02
    assert after["ssim"] > 0.98
    assert after["uqi"] > 0.97
    assert before["mse"] > 0.25
    assert before["ssim"] < 0.85


@pytest.mark.parametrize(
    ("spacing", "shift", "found_mm", "within_mm"),
    [
        # The copy shows at p what the original shows at p + shift; SimpleITK's axes are x, y, z.
        ((1.0, 1.0, 1.0), (2.0, -3.0, 1.0), (-1.0, 3.0, -2.0), 0.15),
        ((3.0, 0.5, 0.5), (1.0, -3.0, 0.0), (0.0, 1.5, -3.0), 0.3),
    ],
)
def test_the_shift_is_found_in_millimetres(
    spacing: tuple[float, ...], shift: tuple[float, ...], found_mm: tuple[float, ...], within_mm: float
) -> None:
    found = align(case(moved(anatomy(), shift=shift), spacing=spacing), case(anatomy(), spacing=spacing), RIGID)
    assert np.allclose(found.parameters[:3], 0, atol=0.02)
    assert np.allclose(found.parameters[3:], found_mm, atol=within_mm)


def test_two_axes_are_registered_too() -> None:
    original = anatomy((48, 52), seed=3)
    copy = np.roll(original, (3, -2), axis=(0, 1))
    found = align(case(copy), case(original), RIGID)
    assert found.registration == REGISTERED
    assert similarity(found, original)["mse"] < 0.02


def test_another_size_is_laid_on_the_grid_of_the_reference() -> None:
    original = anatomy()
    smaller = original[2:-2, 3:-3, 1:-1]
    found = align(case(smaller), case(original), RIGID)
    assert found.image.inside.shape == SHAPE
    assert found.image.inside.mean() == pytest.approx(smaller.size / original.size, abs=0.05)
    assert similarity(found, original)["mse"] < 1e-6


def test_several_channels_move_together() -> None:
    channels = anatomy(), noisy(anatomy(), 5, 0.3)
    copies = [moved(channel, degrees=8.0, shift=(1.5, 0.0, -1.0)) for channel in channels]
    found = align(case(*copies), case(*channels), RIGID)
    assert found.registration == REGISTERED
    assert found.image.voxels.shape == (2, *SHAPE)
    inside = found.image.inside
    assert np.mean((found.image.voxels[0][inside] - channels[0][inside]) ** 2) < 0.02


def test_what_no_transform_improves_stays_where_it_is() -> None:
    found = align(case(anatomy()), case(anatomy()), RIGID)
    assert found.registration == IDENTITY
    assert found.reason == "registration did not lower the mean squared error"
    assert found.parameters == ()
    assert similarity(found, anatomy())["mse"] < 1e-9


@pytest.mark.parametrize("seed", range(2))
def test_no_case_is_less_similar_after_registration(seed: int) -> None:
    stranger = noisy(anatomy(seed=20 + seed), seed, 0.5)
    unmoved = align(case(stranger), case(anatomy()), NONE)
    found = align(case(stranger), case(anatomy()), RIGID)
    assert similarity(found, anatomy())["mse"] <= similarity(unmoved, anatomy())["mse"]
    assert found.image.inside.sum() >= 0.5 * unmoved.image.inside.sum()


def test_a_transform_that_leaves_little_overlap_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    far = kept_transform(RIGID, 3, (0.0, 0.0, 0.0, 18.0, 0.0, 0.0))
    monkeypatch.setattr(registration, "register", lambda *_: far)
    found = align(case(moved(anatomy(), shift=(1.0, 1.0, 1.0))), case(anatomy()), RIGID)
    assert (found.registration, found.reason) == (IDENTITY, "registration left less than half of the overlap")


CONSTANT = np.full(SHAPE, 2.0, dtype=np.float32)


@pytest.mark.parametrize(
    ("strange", "reference", "reason"),
    [
        (CONSTANT, anatomy(), "it is constant"),
        (np.full_like(CONSTANT, np.nan), anatomy(), "it is constant"),
        (anatomy()[10:11], anatomy(), "it has an axis of one voxel, registration needs 4"),
        (anatomy()[:, 3:6], anatomy(), "it has an axis of 3 voxels, registration needs 4"),
        (anatomy(), CONSTANT, "the reference is constant"),
    ],
)
def test_what_cannot_be_registered_is_laid_down_unmoved(strange: Array, reference: Array, reason: str) -> None:
    found = align(case(strange), case(reference), RIGID)
    assert (found.registration, found.reason) == (UNREGISTERED, reason)
    assert found.image.inside.shape == SHAPE
    assert np.isfinite(found.image.voxels).all()


def test_voxels_that_are_not_finite_are_outside() -> None:
    holed = np.array(anatomy())
    holed[5:8, 5:8, 5:8] = np.inf
    laid = align(case(holed), case(anatomy()), NONE).image
    assert not laid.inside[5:8, 5:8, 5:8].any()
    assert laid.inside.sum() == holed.size - 27
    assert np.isfinite(laid.voxels).all()


@pytest.mark.parametrize("most_samples", [100_000, 2_000], ids=["all voxels", "a drawn share"])
def test_the_same_images_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch, most_samples: int) -> None:
    monkeypatch.setattr(registration, "MOST_SAMPLES", most_samples)
    copy = moved(anatomy(), degrees=10.0, shift=(1.0, -2.0, 0.5))
    first, second = (align(case(copy), case(anatomy()), AFFINE) for _ in range(2))
    assert first.parameters == second.parameters
    assert first.image.voxels.tobytes() == second.image.voxels.tobytes()
    assert similarity(first, anatomy())["mse"] < 0.05


@pytest.mark.parametrize("kind", [RIGID, AFFINE])
def test_the_parameters_are_enough_to_do_it_again(kind: str) -> None:
    copy = case(moved(anatomy(), degrees=10.0, shift=(1.0, -2.0, 0.5)))
    found = align(copy, case(anatomy()), kind)
    again = on_grid(copy, case(anatomy()).defined, kept_transform(kind, 3, found.parameters))
    assert np.allclose(again.voxels, found.image.voxels, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "spacing", "factors"),
    [
        ((40, 56, 40), (1.0, 1.0, 1.0), (1, 1, 1)),
        ((64, 64, 64), (1.0, 1.0, 1.0), (1, 1, 1)),
        ((128, 128, 128), (1.0, 1.0, 1.0), (2, 2, 2)),
        # Thick slices keep their number until the others are as coarse.
        ((60, 512, 512), (5.0, 0.8, 0.8), (2, 7, 7)),
        ((1, 600, 600), (5.0, 1.0, 1.0), (1, 2, 1)),
    ],
)
def test_large_images_are_coarsened_the_finest_axis_first(
    shape: tuple[int, ...], spacing: tuple[float, ...], factors: tuple[int, ...]
) -> None:
    assert shrink_factors(shape, spacing) == factors
    sizes = [size // factor for size, factor in zip(shape, factors, strict=True)]
    assert np.prod(sizes) <= images.MOST_GRID_VOXELS


def test_coarse_voxels_are_means_and_stay_in_place() -> None:
    fine = anatomy()
    coarse = case(fine, factors=(2, 2, 2))
    laid = on_grid(coarse, coarse.defined, kept_transform(RIGID, 3, ()))
    blocks = fine.reshape(12, 2, 14, 2, 13, 2).mean(axis=(1, 3, 5))
    assert np.allclose(laid.voxels[0], blocks, atol=1e-4)
    found = align(case(moved(fine, shift=(2.0, -2.0, 0.0)), factors=(2, 2, 2)), coarse, RIGID)
    assert np.allclose(found.parameters[3:], (0.0, 2.0, -2.0), atol=0.4)


IN_PLANE_MM = 2.0
PHANTOM = (64, 48, 48)


def heart(subject: int, thickness_mm: float, *, degrees: float = 0.0, shift_mm: tuple[float, ...] = (0, 0, 0)) -> Any:
    """Short-axis stack of a made-up subject: a bright chamber in a dark wall, a second chamber beside it, a chest.

    Subjects differ in texture, noise, sizes and gain; the chambers of all lie at the same place unless they are moved.
    """
    random = np.random.default_rng([31, subject])
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in PHANTOM), indexing="ij")
    turn = np.radians(degrees)
    z, y, x = z * IN_PLANE_MM - shift_mm[0], y * IN_PLANE_MM - shift_mm[1], x * IN_PLANE_MM - shift_mm[2]
    y, x = np.cos(turn) * y + np.sin(turn) * x, np.cos(turn) * x - np.sin(turn) * y
    # From base to apex.
    taper = np.clip(0.8 - z / 110, 0.35, 1.25)
    radius = random.uniform(14, 19)
    left = np.hypot(y, x + 6) / taper
    right = np.hypot((y - 4) / 1.4, x - 26) / taper
    texture = ndimage.gaussian_filter(random.normal(size=PHANTOM), 5.0)
    image = 0.4 * texture / texture.std() + 1.2 * (np.hypot(y / 48, x / 44) < 1)
    image[left < radius + 7] = -0.5
    image[(right < 15) & (left >= radius + 7)] = 2.6
    image[left < radius] = 3.0
    labels = np.zeros(PHANTOM, np.int8)
    labels[(right < 15) & (left >= radius + 7)] = 1
    labels[(left < radius + 7) & (left >= radius)] = 2
    labels[left < radius] = 3
    step = round(thickness_mm / IN_PLANE_MM)
    thick = image[: PHANTOM[0] // step * step].reshape(-1, step, *PHANTOM[1:]).mean(axis=1)
    thick = random.uniform(0.8, 1.2) * thick + random.normal(scale=0.25, size=thick.shape)
    standard = ((thick - thick.mean()) / thick.std()).astype(np.float32)
    return standard, labels[step // 2 : PHANTOM[0] // step * step : step]


def stack(subject: int, thickness_mm: float, **moved: Any) -> Centred:
    voxels, labels = heart(subject, thickness_mm, **moved)
    return centred(
        CaseImage(voxels=voxels[None], spacing=(thickness_mm, IN_PLANE_MM, IN_PLANE_MM), labels=labels), (1, 1, 1)
    )


@pytest.mark.parametrize("thickness_mm", [pytest.param(6.0, marks=pytest.mark.cluster), 10.0])
@pytest.mark.parametrize("kind", [RIGID, AFFINE])
def test_stacks_that_lie_well_are_not_made_worse(thickness_mm: float, kind: str) -> None:
    for subject in (1, 2):
        found = align(stack(subject, thickness_mm), stack(0, thickness_mm), kind)
        assert found.off_mm is not None
        before, after = found.off_mm
        assert after <= before < 6


@pytest.mark.parametrize("thickness_mm", [6.0, 10.0])
@pytest.mark.parametrize(
    "moved", [{"shift_mm": (0.0, 12.0, -9.0)}, {"degrees": 12.0, "shift_mm": (0.0, 8.0, 9.0)}], ids=["shift", "turn"]
)
def test_stacks_that_lie_badly_are_brought_nearer(thickness_mm: float, moved: dict[str, Any]) -> None:
    for subject in (1, 2):
        found = align(stack(subject, thickness_mm, **moved), stack(0, thickness_mm), RIGID)
        assert found.off_mm is not None
        before, after = found.off_mm
        assert before > 9
        assert after < 0.6 * before
        tilts, across = found.parameters[:2], found.parameters[5]
        assert (*tilts, across) == (0.0, 0.0, 0.0)


def test_where_the_labels_move_apart_identity_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    from study.ranking import registration

    case, reference = stack(1, 10.0), stack(0, 10.0)
    away = kept_transform(RIGID, 3, (0.0, 0.0, 0.0, 9.0, 0.0, 0.0))
    monkeypatch.setattr(registration, "register", lambda *_: away)
    monkeypatch.setattr(registration, "_why_worse", lambda *_: "")
    found = align(case, reference, RIGID)
    assert found.registration == IDENTITY
    assert found.reason.startswith("registration moved the centres of the classes apart, from ")
    assert found.off_mm is not None and found.off_mm[0] == found.off_mm[1]


def test_levels_follow_the_spacing_and_thick_stacks_keep_their_slices() -> None:
    assert _factors((1.5, 1.5, 10.0), (72, 72, 10), 4) == [4, 4, 1]
    assert _factors((1.0, 1.0, 2.0), (64, 64, 64), 4) == [4, 4, 2]
    assert _factors((1.0, 1.0, 1.0), (20, 64, 64), 4) == [2, 4, 4]
    assert _factors((1.5, 1.5, 10.0), (72, 72, 10), 1) == [1, 1, 1]


@pytest.mark.parametrize(
    ("spacing", "slices", "rigid"),
    [
        ((1.5, 1.5, 10.0), 10, [0, 0, 1, 1, 1, 0]),
        ((10.0, 1.5, 1.5), 10, [1, 0, 0, 0, 1, 1]),
        ((1.5, 1.5, 5.0), FEW_SLICES, [0, 0, 1, 1, 1, 1]),
        ((1.0, 1.0, THICK - 0.1), 10, [1] * 6),
        ((5.0, 5.0, 1.0), 10, [1] * 6),
    ],
)
def test_thick_slices_turn_and_shift_in_their_plane(spacing: tuple[float, ...], slices: int, rigid: list[int]) -> None:
    size = [slices if step == max(spacing) else 72 for step in spacing]
    assert _weights(kept_transform(RIGID, 3, (0.0,) * 5 + (0.1,)), spacing, size) == rigid


def test_thick_slices_are_stretched_in_their_plane_alone() -> None:
    start = kept_transform(AFFINE, 3, (1.0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0))
    assert _weights(start, (1.5, 1.5, 10.0), (72, 72, 10)) == [1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0]

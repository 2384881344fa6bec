"""Registration of stacks of thick slices, as of the heart: what lies well stays, what does not is brought nearer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from study.ranking.images import CaseImage, Centred, centred
from study.ranking.registration import (
    AFFINE,
    FEW_SLICES,
    IDENTITY,
    RIGID,
    THICK,
    _factors,
    _weights,
    align,
    kept_transform,
)

Array = NDArray[np.float32]
IN_PLANE_MM = 2.0
SHAPE = (64, 48, 48)


def heart(subject: int, thickness_mm: float, *, degrees: float = 0.0, shift_mm: tuple[float, ...] = (0, 0, 0)) -> Any:
    """Short-axis stack of a made-up subject: a bright chamber in a dark wall, a second chamber beside it, a chest.

    Subjects differ in texture, noise, sizes and gain; the chambers of all lie at the same place unless they are moved.
    """
    random = np.random.default_rng([31, subject])
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in SHAPE), indexing="ij")
    turn = np.radians(degrees)
    z, y, x = z * IN_PLANE_MM - shift_mm[0], y * IN_PLANE_MM - shift_mm[1], x * IN_PLANE_MM - shift_mm[2]
    y, x = np.cos(turn) * y + np.sin(turn) * x, np.cos(turn) * x - np.sin(turn) * y
    # From base to apex.
    taper = np.clip(0.8 - z / 110, 0.35, 1.25)
    radius = random.uniform(14, 19)
    left = np.hypot(y, x + 6) / taper
    right = np.hypot((y - 4) / 1.4, x - 26) / taper
    texture = ndimage.gaussian_filter(random.normal(size=SHAPE), 5.0)
    image = 0.4 * texture / texture.std() + 1.2 * (np.hypot(y / 48, x / 44) < 1)
    image[left < radius + 7] = -0.5
    image[(right < 15) & (left >= radius + 7)] = 2.6
    image[left < radius] = 3.0
    labels = np.zeros(SHAPE, np.int8)
    labels[(right < 15) & (left >= radius + 7)] = 1
    labels[(left < radius + 7) & (left >= radius)] = 2
    labels[left < radius] = 3
    step = round(thickness_mm / IN_PLANE_MM)
    thick = image[: SHAPE[0] // step * step].reshape(-1, step, *SHAPE[1:]).mean(axis=1)
    thick = random.uniform(0.8, 1.2) * thick + random.normal(scale=0.25, size=thick.shape)
    standard = ((thick - thick.mean()) / thick.std()).astype(np.float32)
    return standard, labels[step // 2 : SHAPE[0] // step * step : step]


def stack(subject: int, thickness_mm: float, **moved: Any) -> Centred:
    voxels, labels = heart(subject, thickness_mm, **moved)
    return centred(
        CaseImage(voxels=voxels[None], spacing=(thickness_mm, IN_PLANE_MM, IN_PLANE_MM), labels=labels), (1, 1, 1)
    )


@pytest.mark.parametrize("thickness_mm", [6.0, 10.0])
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

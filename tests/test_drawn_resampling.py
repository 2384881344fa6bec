"""Labels rotated with a fraction of the arithmetic are those of batchgeneratorsv2, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from torch.nn.functional import interpolate

from study.nnunet.transforms import rotated


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("crop", "patch"),
    # The third crop is narrower than what is sampled, so padding is reached; the last two are 2D.
    [
        ((30, 32, 28), (24, 24, 24)),
        ((20, 12, 12), (16, 8, 8)),
        ((20, 20, 20), (24, 24, 24)),
        ((40, 44), (32, 32)),
        ((120, 130), (100, 96)),
        ((2, 9), (2, 8)),
    ],
)
def test_labels_and_image_are_the_originals(crop: tuple[int, ...], patch: tuple[int, ...], seed: int) -> None:
    transform = SpatialTransform(
        patch,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=1,
        rotation=(-0.5, 0.5),
        p_scaling=1,
        scaling=(0.7, 1.4),
        p_synchronize_scaling_across_axes=1,
        border_mode_seg="constant",
        padding_value_seg=-1,
    )
    np.random.seed(seed)
    torch.manual_seed(seed)
    # Two to five labels in blobs, with and without the padding label, in two channels.
    blobs = torch.randint(-(seed % 2), 2 + seed % 3, (1, 2, *(max(1, n // 5) for n in crop))).float()
    labels = interpolate(blobs, size=crop, mode="nearest")[0].to(torch.int16)
    image = torch.randn(1, *crop)
    drawn = transform.get_parameters(image=image)
    expected = transform._apply_to_image(image, **drawn), transform._apply_to_segmentation(labels, **drawn)
    for one, other in zip(rotated(transform, image, labels, drawn), expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)

"""Small plans: what is changed of nnU-Net's, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from study.common.errors import InvalidInputError
from study.nnunet.plans import (
    SmallPlan,
    features_per_stage,
    plan_from_document,
    small_plans,
    topology,
)

PLAIN = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
RESIDUAL = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"


def planned(patch: list[int], spacing_mm: list[float], *, residual: bool = False) -> dict[str, Any]:
    """A configuration as nnU-Net plans it for a patch."""
    found, axes = topology(spacing_mm, patch), len(patch)
    stages = len(found.strides)
    kind = {2: "2d", 3: "3d"}[axes]
    blocks = {"n_blocks_per_stage": [1, 3, 4, 6, 6, 6, 6][:stages]} if residual else {"n_conv_per_stage": [2] * stages}
    return {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "batch_size": 9,
        "patch_size": patch,
        "spacing": spacing_mm,
        "architecture": {
            "network_class_name": RESIDUAL if residual else PLAIN,
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [min(320, 32 * 2**stage) for stage in range(stages)],
                "conv_op": f"torch.nn.modules.conv.Conv{kind}",
                "kernel_sizes": found.kernel_sizes,
                "strides": found.strides,
                **blocks,
                "n_conv_per_stage_decoder": [1 if residual else 2] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{kind}",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }


def plans(*, residual: bool = False, spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)) -> dict[str, Any]:
    """Plans with a cascade, as nnU-Net writes them for large images."""
    lowres = planned([32, 32, 32], list(spacing_mm), residual=residual)
    return {
        "dataset_name": "Dataset004_Hippocampus",
        "plans_name": "nnUNetPlans",
        "configurations": {
            "2d": planned([64, 64], [1.0, 1.0], residual=residual),
            "3d_lowres": {**lowres, "data_identifier": "nnUNetPlans_3d_lowres", "next_stage": "3d_cascade_fullres"},
            "3d_fullres": planned([40, 56, 40], list(spacing_mm), residual=residual),
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
    }


def small(*, wanted: str = "3d_fullres", document: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    return small_plans(plans() if document is None else document, [wanted], "Small", SmallPlan(**given))


def network_of(document: dict[str, Any], name: str = "3d_fullres") -> dict[str, Any]:
    kwargs: dict[str, Any] = document["configurations"][name]["architecture"]["arch_kwargs"]
    return kwargs


@pytest.mark.parametrize(
    ("stages", "most", "features"),
    [(4, 64, [8, 16, 32, 64]), (4, 32, [4, 8, 16, 32]), (6, 32, [4, 4, 4, 8, 16, 32]), (3, 50, [12, 25, 50])],
)
def test_features_halve_from_the_deepest_stage_upwards(stages: int, most: int, features: list[int]) -> None:
    assert features_per_stage(stages, most) == features


def test_only_what_is_asked_for_is_changed_in_a_copy() -> None:
    document = plans()
    after = small(document=document, max_features=64)
    assert document == plans()
    assert (after["plans_name"], list(after["configurations"])) == ("Small", ["3d_fullres"])
    assert network_of(after) == {**network_of(document), "features_per_stage": [8, 16, 32, 64]}
    (before, made) = (one["configurations"]["3d_fullres"] for one in (document, after))
    # Data identifier and spacing among them: preprocessed cases are shared with the original.
    assert {key for key in before if before[key] != made[key]} == {"batch_size", "architecture"}
    assert made["batch_size"] == 2
    assert small(batch_size=5)["configurations"]["3d_fullres"]["batch_size"] == 5


def test_a_cascade_brings_what_it_inherits_from_and_continues() -> None:
    made = small(wanted="3d_cascade_fullres", max_features=8)["configurations"]
    assert list(made) == ["3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    assert made["3d_lowres"]["next_stage"] == "3d_cascade_fullres"
    assert made["3d_cascade_fullres"] == plans()["configurations"]["3d_cascade_fullres"]
    alone = small(wanted="3d_lowres", max_features=8)["configurations"]["3d_lowres"]
    assert "next_stage" not in alone, "one that is not kept is not named"


def test_nnunets_own_patch_gets_nnunets_own_network() -> None:
    assert network_of(small(patch_size=(40, 56, 40))) == network_of(plans())


@pytest.mark.parametrize(
    ("patch", "divisors"), [((32, 32, 32), (8, 8, 8)), ((64, 32, 16), (8, 8, 4)), ((128, 128, 128), (32, 32, 32))]
)
def test_a_patch_decides_the_pooling(patch: tuple[int, ...], divisors: tuple[int, ...]) -> None:
    made = small(patch_size=patch)
    geometry = plan_from_document(made, made["configurations"], "3d_fullres").geometry
    assert (geometry.patch_size, geometry.divisors) == (patch, divisors)


def test_spacing_decides_the_pooling_too() -> None:
    thick = plans(spacing_mm=(4.0, 1.0, 1.0))
    network = network_of(small(document=thick, patch_size=(16, 64, 64)))
    assert network["strides"][:3] == [[1, 1, 1], [1, 2, 2], [1, 2, 2]]
    assert network["kernel_sizes"][0] == [1, 3, 3]


@pytest.mark.parametrize(
    ("residual", "name", "depths"),
    [(False, "n_conv_per_stage", [2] * 6), (True, "n_blocks_per_stage", [1, 3, 4, 6, 6, 6])],
)
def test_a_deeper_network_continues_as_nnunet_would(residual: bool, name: str, depths: list[int]) -> None:
    network = network_of(small(document=plans(residual=residual), patch_size=(128, 128, 128)))
    assert network["n_stages"] == 6
    assert network[name] == depths
    assert network["n_conv_per_stage_decoder"] == [1 if residual else 2] * 5
    assert network["features_per_stage"] == [32, 64, 128, 256, 320, 320]


def test_a_shallower_network_is_cut() -> None:
    network = network_of(small(document=plans(residual=True), patch_size=(16, 16, 16)))
    assert (network["n_stages"], network["n_blocks_per_stage"]) == (3, [1, 3, 4])
    assert network["n_conv_per_stage_decoder"] == [1, 1]


@given(
    patch=st.tuples(*[st.integers(2, 24)] * 3).map(lambda sizes: tuple(8 * n for n in sizes)),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
    most=st.integers(4, 320),
    residual=st.booleans(),
)
def test_every_network_is_consistent(
    patch: tuple[int, ...], spacing: tuple[float, ...], most: int, residual: bool
) -> None:
    document = plans(residual=residual, spacing_mm=spacing)
    assume(topology(spacing, patch).padded_patch_size == patch)
    made = small(document=document, patch_size=patch, max_features=most)
    network = network_of(made)
    depths = network["n_blocks_per_stage" if residual else "n_conv_per_stage"]
    stages = {len(network[name]) for name in ("strides", "kernel_sizes", "features_per_stage")} | {len(depths)}
    assert stages == {network["n_stages"]}
    assert len(network["n_conv_per_stage_decoder"]) == network["n_stages"] - 1
    assert max(network["features_per_stage"]) == most
    geometry = plan_from_document(made, made["configurations"], "3d_fullres").geometry
    assert geometry.patch_size == patch
    assert all(n // d >= 4 for n, d in zip(patch, geometry.divisors, strict=True))


@pytest.mark.parametrize("residual", [False, True])
def test_nnunet_builds_the_network_and_it_runs(residual: bool) -> None:
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    made = small(document=plans(residual=residual), patch_size=(16, 24, 16), max_features=16)
    architecture = made["configurations"]["3d_fullres"]["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        3,
        deep_supervision=False,
    )
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 16, 24, 16)).shape == (1, 3, 16, 24, 16)


@pytest.mark.parametrize(
    ("patch", "nearest"),
    [((30, 30, 30), "32 32 32"), ((40, 56, 41), "40 56 40"), ((33, 32, 32), "32 32 32"), ((40, 50, 40), "40 48 40")],
)
def test_a_patch_that_is_not_divisible_is_refused_with_the_nearest(patch: tuple[int, ...], nearest: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the nearest is {nearest}$") as refusal:
        small(patch_size=patch)
    assert str(patch) in str(refusal.value)


@given(patch=st.tuples(*[st.integers(12, 200)] * 3), spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3))
def test_the_nearest_size_named_is_legal(patch: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    document = plans(spacing_mm=spacing)
    assume(topology(spacing, patch).padded_patch_size != patch)
    with pytest.raises(InvalidInputError) as refusal:
        small(document=document, patch_size=patch)
    nearest = tuple(int(n) for n in refusal.value.remedy.removeprefix("the nearest is ").split())
    assert small(document=document, patch_size=nearest)["configurations"]["3d_fullres"]["patch_size"] == list(nearest)
    padded = topology(spacing, patch).padded_patch_size
    assert sum(abs(n - m) for n, m in zip(nearest, patch, strict=True)) <= sum(padded) - sum(patch)


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"wanted": "3d_medium"}, r"'3d_medium'.*2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres"),
        ({"patch_size": (4, 4, 4)}, r"--patch-size: received \(4, 4, 4\)"),
        ({"patch_size": (32, 32)}, "legal is 3 numbers for 3d_fullres"),
        ({"max_features": 3}, "max features"),
        ({"max_features": 64.5}, "max features"),
        ({"batch_size": 0}, "batch size"),
        ({"patch_size": (32, 0, 32)}, "patch size, axis 1"),
    ],
)
def test_what_cannot_be_made_is_refused(given_settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        small(**given_settings)

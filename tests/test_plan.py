"""Plans as nnU-Net writes them and as it would not, and small ones whose networks stay consistent."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from study.common.errors import InvalidInputError, MissingDataError
from study.curriculum.chain import Geometry
from study.nnunet.plans import (
    NetworkPlan,
    read_plan,
)

INSTANCE_NORM = "torch.nn.modules.instancenorm.InstanceNorm3d"


def configuration(patch_size: list[Any], strides: Any, *, norm: str = INSTANCE_NORM) -> dict[str, Any]:
    return {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "batch_size": 9,
        "patch_size": patch_size,
        "architecture": {"arch_kwargs": {"n_stages": len(strides), "strides": strides, "norm_op": norm}},
    }


DOCUMENT: dict[str, Any] = {
    "dataset_name": "Dataset004_Hippocampus",
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": configuration([56, 40], [[1, 1], [2, 2], [2, 2], [2, 2]], norm="torch.nn.InstanceNorm2d"),
        "3d_fullres": configuration([40, 56, 40], [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]),
        "anisotropic": configuration([20, 256, 256], [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]),
        "whole_strides": configuration([32, 32, 32], [1, 2, 2, [1, 2, 2]]),
        "batch_norm": configuration([32, 32, 32], [1, 2], norm="torch.nn.modules.batchnorm.BatchNorm3d"),
        "no_norm": configuration([32, 32, 32], [1, 2], norm=""),
        "3d_lowres": {"inherits_from": "3d_fullres", "data_identifier": "low", "batch_size": 4},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "child_of_child": {"inherits_from": "3d_lowres", "patch_size": [40, 40, 40]},
        "indivisible": {"inherits_from": "3d_fullres", "patch_size": [40, 57, 40]},
        "orphan": {"inherits_from": "3d_absent"},
        "ouroboros": {"inherits_from": "ouroboros"},
        "bare": {},
        "few strides": configuration([64, 64], [[1], [2]]),
        "no strides": configuration([64, 64], "text"),
    },
}


def plan_of(document: Any, folder: Path, name: str) -> NetworkPlan:
    path = folder / "nnUNetPlans.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_plan(path, name)


@pytest.mark.parametrize(
    ("name", "patch_size", "divisors", "batch_size", "least"),
    [
        ("3d_fullres", (40, 56, 40), (8, 8, 8), 9, 2),
        ("2d", (56, 40), (8, 8), 9, 2),
        ("anisotropic", (20, 256, 256), (4, 16, 16), 9, 2),
        ("whole_strides", (32, 32, 32), (4, 8, 8), 9, 2),
        ("batch_norm", (32, 32, 32), (2, 2, 2), 9, 1),
        ("no_norm", (32, 32, 32), (2, 2, 2), 9, 1),
        ("3d_lowres", (40, 56, 40), (8, 8, 8), 4, 2),
        ("child_of_child", (40, 40, 40), (8, 8, 8), 4, 2),
    ],
)
def test_geometry_of_a_configuration(
    tmp_path: Path, name: str, patch_size: Any, divisors: Any, batch_size: int, least: int
) -> None:
    expected = Geometry(patch_size=patch_size, divisors=divisors, batch_size=batch_size, min_bottleneck_voxels=least)
    assert plan_of(DOCUMENT, tmp_path, name).geometry == expected


def test_names_and_folders_of_a_configuration(tmp_path: Path) -> None:
    plan = plan_of(DOCUMENT, tmp_path, "3d_cascade_fullres")
    assert (plan.dataset, plan.plans) == ("Dataset004_Hippocampus", "nnUNetPlans")
    assert (plan.configuration, plan.previous_stage) == ("3d_cascade_fullres", "3d_lowres")
    assert plan.data_identifier == "nnUNetPlans_3d_fullres"
    assert plan_of(DOCUMENT, tmp_path, "3d_lowres").previous_stage is None


def test_the_hash_follows_the_content_not_the_order_of_keys(tmp_path: Path) -> None:
    changed = deepcopy(DOCUMENT)
    changed["configurations"]["2d"]["batch_size"] = 10
    no_number = {**DOCUMENT, "foreground_intensity_properties_per_channel": {"0": {"mean": float("nan")}}}
    documents = (DOCUMENT, dict(reversed(DOCUMENT.items())), changed, no_number)
    first, *others = (plan_of(document, tmp_path, "3d_fullres").sha256 for document in documents)
    assert [other == first for other in others] == [True, False, False]


def test_what_is_not_in_a_document_or_does_not_fit_lists_what_is_legal(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="configuration: received '3d', legal is one of 2d, 3d_fullres, "):
        plan_of(DOCUMENT, tmp_path, "3d")
    with pytest.raises(InvalidInputError, match="patch size, axis 1: received 57, legal is a multiple of the divi"):
        plan_of(DOCUMENT, tmp_path, "indivisible")
    with pytest.raises(MissingDataError, match=r"no plans at .*; `python -m study prepare` makes them"):
        read_plan(tmp_path / "absent.json", "2d")
    with pytest.raises(MissingDataError, match="is no plans file as nnU-Net"):
        read_plan(tmp_path, "2d")


def without(*keys: str) -> dict[str, Any]:
    document = deepcopy(DOCUMENT)
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return document


@pytest.mark.parametrize(
    ("document", "name"),
    [
        *((text, "2d") for text in ("", '{"configurations": {', "[]", "7", "null")),
        *(({"configurations": other}, "2d") for other in (None, {"2d": 3}, {"2d": "text"})),
        *((DOCUMENT, name) for name in ("orphan", "ouroboros", "bare", "few strides", "no strides")),
        *((without(key), "2d") for key in ("dataset_name", "plans_name", "configurations")),
        *(
            (without("configurations", "2d", key), "2d")
            for key in ("batch_size", "patch_size", "data_identifier", "architecture")
        ),
        (without("configurations", "2d", "architecture", "arch_kwargs", "strides"), "2d"),
    ],
)
def test_a_document_nnunet_would_not_write_is_named_in_one_line(tmp_path: Path, document: Any, name: str) -> None:
    with pytest.raises(MissingDataError) as caught:
        plan_of(document, tmp_path, name)
    assert str(tmp_path / "nnUNetPlans.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("patch_size", ["x", 64], "patch size, axis 0: received 'x', legal is a whole number"),
        ("patch_size", [56.0, 40], "patch size, axis 0: received 56.0, legal is a whole number"),
        ("batch_size", True, "batch size: received True, legal is a whole number"),
        ("batch_size", 2.5, "batch size: received 2.5, legal is a whole number"),
        ("spacing", [1.0], "spacing: received [1.0], legal is 2 numbers, one per axis of the patch"),
        ("spacing", [1.0, -1.0], "spacing, axis 1: received -1.0, legal is a number above 0"),
        ("spacing", [float("nan"), 1.0], "spacing, axis 0: received nan, legal is a number above 0"),
        ("spacing", ["1", "1"], "spacing, axis 0: received '1', legal is a number above 0"),
    ],
)
def test_a_number_that_is_none_is_refused_with_what_is_legal(tmp_path: Path, key: str, value: Any, told: str) -> None:
    document = deepcopy(DOCUMENT)
    document["configurations"]["2d"][key] = value
    with pytest.raises(InvalidInputError) as caught:
        plan_of(document, tmp_path, "2d")
    assert str(caught.value).startswith(told)


def test_plans_of_nnunet_2_0_to_2_3_are_read_as_nnunet_reads_them(tmp_path: Path) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    old = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "batch_size": 2,
        "patch_size": [40, 56, 40],
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 32,
        "unet_max_num_features": 320,
        "n_conv_per_stage_encoder": [2, 2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2, 2],
        "num_pool_per_axis": [3, 3, 3],
        "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
        "conv_kernel_sizes": [[3, 3, 3]] * 4,
    }
    today = {**old, "architecture": ConfigurationManager(deepcopy(old)).configuration["architecture"]}
    other = {**old, "UNet_class_name": "MyUNet"}
    document = {**DOCUMENT, "configurations": {"old": old, "today": today, "other": other}}
    geometry = plan_of(document, tmp_path, "old").geometry
    assert (geometry.divisors, geometry.min_bottleneck_voxels) == ((8, 8, 8), 2)
    assert plan_of(document, tmp_path, "today").geometry == geometry
    with pytest.raises(InvalidInputError, match="UNet_class_name: received 'MyUNet', legal is one of PlainConvUNet"):
        plan_of(document, tmp_path, "other")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("normalization_schemes", None),
        ("normalization_schemes", []),
        ("normalization_schemes", "ZScoreNormalization"),
        ("normalization_schemes", [None]),
        ("normalization_schemes", ["NoSuchNormalization"]),
        ("normalization_schemes", ["ZScoreNormalization", "zscorenormalization"]),
        ("normalization_schemes", [3]),
        ("use_mask_for_norm", None),
        ("use_mask_for_norm", ["False"]),
        ("use_mask_for_norm", [False, True]),
    ],
)
def test_a_normalization_that_nnunet_would_miss_when_it_predicts_is_named(
    tmp_path: Path, field: str, value: Any
) -> None:
    sound = {"normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False]}
    plans = {**DOCUMENT["configurations"]["3d_fullres"], **sound}
    assert plan_of({**DOCUMENT, "configurations": {"3d": plans}}, tmp_path, "3d").geometry.batch_size == 9
    with pytest.raises(InvalidInputError, match=f"^{field}: received .*legal is "):
        plan_of({**DOCUMENT, "configurations": {"3d": {**plans, field: value}}}, tmp_path, "3d")

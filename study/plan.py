"""An nnU-Net plans file reduced to what a curriculum needs: full patch, divisors, batch size. No torch.

nnU-Net has no field for divisors: they are the product of the strides of each axis over all stages of the network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.chain import Geometry
from study.checks import check_choice
from study.errors import MissingDataError
from study.plain import sha256_of_json


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """One configuration of one plans file.

    Attributes:
        dataset: nnU-Net's dataset name; plans: name of the plans; configuration: name of the configuration.
        geometry: full patch, divisors (voxels per axis, plan axis order) and batch size.
        data_identifier: folder of the preprocessed cases.
        previous_stage: configuration whose predictions a cascade reads, if any.
        sha256: of the whole plans document.
    """

    dataset: str
    plans: str
    configuration: str
    geometry: Geometry
    data_identifier: str
    previous_stage: str | None
    sha256: str


def read_plan(path: Path, configuration: str) -> NetworkPlan:
    """Read one configuration of a plans file.

    Raises:
        MissingDataError: no such file, or it is no plans document as nnU-Net 2.8 writes it.
        InvalidInputError: no such configuration, or one whose patch does not fit its strides.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return plan_from_document(document, document["configurations"], configuration)
    except FileNotFoundError:
        raise MissingDataError(f"no plans at {path}; `python -m study prepare` makes them") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MissingDataError(
            f"{path} is no plans file as nnU-Net 2.8 writes it ({type(error).__name__}: {error}); plan it again"
        ) from error


def plan_from_document(
    document: Mapping[str, Any], configurations: Mapping[str, Any], configuration: str
) -> NetworkPlan:
    """The plan of one configuration of a parsed document; see `read_plan`.

    Raises:
        InvalidInputError: no such configuration, or one whose patch does not fit its strides.
    """
    check_choice("configuration", configuration, list(configurations))
    settings = inherited(configurations, configuration)
    return NetworkPlan(
        dataset=document["dataset_name"],
        plans=document["plans_name"],
        configuration=configuration,
        geometry=_geometry(settings),
        data_identifier=settings["data_identifier"],
        previous_stage=settings.get("previous_stage"),
        sha256=sha256_of_json(document),
    )


def inherited(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration's settings with those it inherits filled in, as nnU-Net's plans manager does."""
    settings = dict(configurations[name])
    parent = settings.pop("inherits_from", None)
    return {**inherited(configurations, parent), **settings} if parent else settings


def _geometry(settings: Mapping[str, Any]) -> Geometry:
    architecture = settings["architecture"]["arch_kwargs"] if "architecture" in settings else _of_before(settings)
    strides = architecture["strides"]
    axes = len(settings["patch_size"])
    divisors = tuple(math.prod(_per_axis(stride, axes)[axis] for stride in strides) for axis in range(axes))
    norm = str(architecture.get("norm_op") or "")
    return Geometry(
        patch_size=tuple(int(n) for n in settings["patch_size"]),
        divisors=divisors,
        batch_size=int(settings["batch_size"]),
        min_bottleneck_voxels=2 if "InstanceNorm" in norm else 1,
    )


def _of_before(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The network of plans that nnU-Net 2.0 to 2.3 wrote, as nnU-Net's configuration manager reads them today."""
    check_choice("UNet_class_name", settings["UNet_class_name"], ("PlainConvUNet", "ResidualEncoderUNet"))
    return {"strides": settings["pool_op_kernel_sizes"], "norm_op": "InstanceNorm"}


def _per_axis(stride: int | list[int], axes: int) -> list[int]:
    return [stride] * axes if isinstance(stride, int) else [int(s) for s in stride]

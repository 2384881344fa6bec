"""nnU-Net's plans: a configuration reduced to what a curriculum needs, and smaller copies for a CPU. No torch.

nnU-Net has no field for divisors: they are the product of the strides of each axis over all stages of the network.

A small plan is nnU-Net's own with fewer features, another patch or another batch. Everything that decides the
preprocessed images (spacing, normalisation, resampling) stays, so it shares them with the plan it came from. A new
patch gets the network that nnU-Net would build for it: its own topology function decides strides and kernel sizes. Its
planners themselves choose a patch by memory and cannot be told one.

nnU-Net's planners, the names of their plans, and the command that prepares plans of a name.
"""

from __future__ import annotations

import ast
import copy
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import InvalidInputError, MissingDataError, check_choice, check_count, check_range
from study.common.serialize import sha256_of_json
from study.common.terminal import python
from study.curriculum.chain import Geometry


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
        document = files.read_json(path)
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
    if configuration not in configurations:
        legal = f"one of {', '.join(configurations)}, the configurations of {document['plans_name']}"
        raise InvalidInputError(field="configuration", received=configuration, legal=legal)
    settings = inherited(configurations, configuration)
    _check_normalization(settings)
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


def _check_normalization(settings: Mapping[str, Any]) -> None:
    """What nnU-Net looks up when it predicts, after a training that needs it no more."""
    lists = (("normalization_schemes", str, "name of a scheme"), ("use_mask_for_norm", bool, "true or false"))
    for field, kind, words in ((f, k, w) for f, k, w in lists if f in settings):
        values = settings[field]
        if not isinstance(values, list) or not values or not all(isinstance(value, kind) for value in values):
            raise InvalidInputError(field=field, received=values, legal=f"a list with a {words} for each channel")
    schemes = settings.get("normalization_schemes", [])
    for scheme in schemes:
        if scheme not in _normalizations():
            legal = "a class of nnunetv2.preprocessing.normalization, such as ZScoreNormalization"
            raise InvalidInputError(field="normalization_schemes", received=scheme, legal=legal)
    if len(masks := settings.get("use_mask_for_norm", schemes)) != len(schemes or masks):
        legal = f"as many as normalization_schemes, {len(schemes)}"
        raise InvalidInputError(field="use_mask_for_norm", received=masks, legal=legal)


@cache
def _normalizations() -> frozenset[str]:
    """Names of nnU-Net's classes, read from its sources: a dry run loads nothing heavy."""
    found = find_spec("nnunetv2")
    places = [] if found is None else found.submodule_search_locations or []
    sources = [path for place in places for path in Path(place, "preprocessing", "normalization").glob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    return frozenset(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))


def _geometry(settings: Mapping[str, Any]) -> Geometry:
    if "architecture" in settings:
        network = settings["architecture"]["arch_kwargs"]
        kind = settings["architecture"].get("network_class_name")
        if kind and "strides" not in network:
            legal = "a network of strided stages; Primus, say, has a position embedding for one patch size alone"
            raise InvalidInputError(field="architecture", received=kind, legal=legal)
        strides, norm = network["strides"], str(network.get("norm_op") or "")
    else:
        # Of plans that nnU-Net 2.0 to 2.3 wrote, as its configuration manager reads them today.
        check_choice("UNet_class_name", settings["UNet_class_name"], ("PlainConvUNet", "ResidualEncoderUNet"))
        strides, norm = settings["pool_op_kernel_sizes"], "InstanceNorm"
    axes = range(len(settings["patch_size"]))
    spacing = settings.get("spacing", [1.0] * len(axes))
    if len(spacing) != len(axes):
        legal = f"{len(axes)} numbers, one per axis of the patch"
        raise InvalidInputError(field="spacing", received=spacing, legal=legal)
    for axis, millimetres in enumerate(spacing):
        check_range(f"spacing, axis {axis}", millimetres, 0, _MOST_MILLIMETRES, above_low=True)
    by_stage = [[stride] * len(axes) if isinstance(stride, int) else stride for stride in strides]
    return Geometry(
        patch_size=tuple(settings["patch_size"]),
        divisors=tuple(math.prod(stride[axis] for stride in by_stage) for axis in axes),
        batch_size=settings["batch_size"],
        min_bottleneck_voxels=2 if "InstanceNorm" in norm else 1,
    )


_MOST_MILLIMETRES = 10_000
FEWEST_FEATURES, MOST_FEATURES = 4, 2048
DEFAULT_BATCH_SIZE = 2
# nnU-Net's planners: 32 features, doubled at every stage up to a bound that depends on the number of axes; feature maps
# of at least 4 voxels per axis; no bound on the number of poolings; these numbers of convolutions or blocks per stage.
BASE_FEATURES = 32
MOST_PLANNED_FEATURES = {2: 512, 3: 320}
SMALLEST_FEATURE_MAP_VOXELS = 4
MOST_POOLINGS = 999999
STOCK_DEPTHS: Mapping[str, tuple[int, ...]] = {
    "n_conv_per_stage": (2,),
    "n_blocks_per_stage": (1, 3, 4, 6),
}


@dataclass(frozen=True, kw_only=True)
class SmallPlan:
    """What is changed in a plan; None leaves it.

    Attributes:
        max_features: features of the deepest stage; every stage above has half as many, at least 4.
        patch_size: voxels per axis, in the axis order of the plan.
        batch_size: samples per batch.

    Raises:
        InvalidInputError: a value is outside its range.
    """

    max_features: int | None = None
    patch_size: tuple[int, ...] | None = None
    batch_size: int = DEFAULT_BATCH_SIZE

    def __post_init__(self) -> None:
        check_count("batch size", self.batch_size, most=1024)
        if self.max_features is not None:
            check_count("max features", self.max_features, least=FEWEST_FEATURES, most=MOST_FEATURES)
        for axis, voxels in enumerate(self.patch_size or ()):
            check_count(f"patch size, axis {axis}", voxels, most=4096)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self) | {"patch_size": list(self.patch_size) if self.patch_size else None}


@dataclass(frozen=True, kw_only=True)
class Topology:
    """How a network pools: strides and kernel sizes by stage and axis, and what the patch must be divisible by."""

    strides: list[list[int]]
    kernel_sizes: list[list[int]]
    divisors: tuple[int, ...]
    padded_patch_size: tuple[int, ...]


def topology(spacing_mm: Sequence[float], patch_size: Sequence[int]) -> Topology:
    """The pooling nnU-Net plans for a patch; spacing and patch in the plan's axis order."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    _, strides, kernels, padded, divisors = get_pool_and_conv_props(
        list(spacing_mm), list(patch_size), SMALLEST_FEATURE_MAP_VOXELS, MOST_POOLINGS
    )
    return Topology(
        strides=[[int(n) for n in stage] for stage in strides],
        kernel_sizes=[[int(n) for n in stage] for stage in kernels],
        divisors=tuple(int(n) for n in divisors),
        padded_patch_size=tuple(int(n) for n in padded),
    )


def small_plans(
    document: Mapping[str, Any], configurations: Sequence[str], plans_name: str, small: SmallPlan
) -> dict[str, Any]:
    """A copy of nnU-Net's plans that has the given configurations alone, made small, and those they inherit from.

    Raises:
        InvalidInputError: no such configuration, or the patch has another number of axes or is not divisible.
    """
    planned = document["configurations"]
    for name in configurations:
        check_choice("--configurations", name, list(planned))
    wanted, parents = set[str](), {*configurations}
    while parents:
        wanted |= parents
        parents = {planned[name].get(key) for name in wanted for key in ("inherits_from", "previous_stage")}
        parents -= {*wanted, None}
    kept = {name: configuration for name, configuration in planned.items() if name in wanted}
    plans = copy.deepcopy({**document, "plans_name": plans_name, "configurations": kept})
    for name, configuration in plans["configurations"].items():
        if configuration.get("next_stage") not in kept:
            configuration.pop("next_stage", None)
        if "architecture" in configuration:
            _make_small(name, configuration, small)
    return plans


def features_per_stage(stages: int, max_features: int) -> list[int]:
    """Features halved from the deepest stage upwards: 4 stages and 64 give 8 16 32 64."""
    return [max(FEWEST_FEATURES, max_features >> (stages - 1 - stage)) for stage in range(stages)]


def _make_small(name: str, configuration: dict[str, Any], small: SmallPlan) -> None:
    network, patch = configuration["architecture"]["arch_kwargs"], small.patch_size
    if patch is not None:
        axes = len(configuration["patch_size"])
        if len(patch) != axes:
            legal = f"{axes} numbers for {name}, in the axis order of the plan"
            raise InvalidInputError(field="--patch-size", received=patch, legal=legal)
        configuration["patch_size"] = list(patch)
        _rebuild(network, _checked_topology(configuration["spacing"], patch))
    if small.max_features is not None:
        network["features_per_stage"] = features_per_stage(network["n_stages"], small.max_features)
    configuration["batch_size"] = small.batch_size


def _rebuild(network: dict[str, Any], new: Topology) -> None:
    stages, most = len(new.strides), MOST_PLANNED_FEATURES[len(new.divisors)]
    network["n_stages"], network["strides"], network["kernel_sizes"] = stages, new.strides, new.kernel_sizes
    network["features_per_stage"] = [min(most, BASE_FEATURES * 2**stage) for stage in range(stages)]
    decoder = "n_conv_per_stage_decoder"
    for name, stock in {**STOCK_DEPTHS, decoder: network[decoder][-1:]}.items():
        if name in network:
            # Cut to the number of stages, or continued as the stock ones, whose last value repeats.
            depths, wanted = network[name], stages - (name == decoder)
            stocked = [*stock, *[stock[-1]] * wanted]
            network[name] = [*depths[:wanted], *stocked[len(depths) : wanted]]


def _checked_topology(spacing_mm: Sequence[float], patch_size: tuple[int, ...]) -> Topology:
    found = topology(spacing_mm, patch_size)
    if len(found.strides) < 2:
        legal = f"sizes that nnU-Net pools, such as {3 * SMALLEST_FEATURE_MAP_VOXELS} voxels along the finest axis"
        raise InvalidInputError(field="--patch-size", received=patch_size, legal=legal)
    if found.padded_patch_size != patch_size:
        # The legal size with the fewest voxels of difference per axis, the larger one if two are as near.
        choices = [{n // d * d, -(-n // d) * d} - {0} for n, d in zip(patch_size, found.divisors, strict=True)]
        fitting = [size for size in product(*choices) if topology(spacing_mm, size).padded_patch_size == size]
        nearest = min(
            fitting or [found.padded_patch_size],
            key=lambda size: (sum(abs(n - m) for n, m in zip(size, patch_size, strict=True)), [-n for n in size]),
        )
        raise InvalidInputError(
            field="--patch-size",
            received=patch_size,
            legal=f"multiples of {' '.join(map(str, found.divisors))}, by which the network pools",
            remedy=f"the nearest is {' '.join(map(str, nearest))}",
        )
    return found


DEFAULT_PLANNER, DEFAULT_PLANS, SMALL_SUFFIX = "ExperimentPlanner", "nnUNetPlans", "Small"
PLANS_OF_PLANNER: Mapping[str, str] = {
    DEFAULT_PLANNER: DEFAULT_PLANS,
    "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans",
    "nnUNetPlannerResEncL": "nnUNetResEncUNetLPlans",
    "nnUNetPlannerResEncXL": "nnUNetResEncUNetXLPlans",
}
"""nnU-Net's planners and the names they give their plans. Any other planner of nnU-Net needs a name of one's own."""
# What `prepare` noted of what it made, in the dataset's folder.
RECORD_NAME = "pgps_prepared.json"


def planner_named(word: str) -> str:
    """The planner that a word of the command line means: its name, or the end of it, such as `ResEncL`."""
    return next((name for name in PLANS_OF_PLANNER if word in (name, name.removeprefix("nnUNetPlanner"))), word)


def preparing(folder: Path, plans: str, *, number: int, data: Path | None, configuration: str = "") -> str:
    """The command that prepares plans of a name, as far as the name and the record of a prepared dataset say it.

    Small plans that nobody has made yet are to be as small as the newest that are there.

    Args:
        folder: of the prepared dataset.
        plans: their name.
        number: id of the dataset.
        data: folder of nnU-Net's folders, None for those of its variables.
        configuration: what is to be preprocessed, the usual unless given.
    """
    record = _record(folder)
    source, recipes = record.get("source", {}), [each["recipe"] for each in record.get("plans", {}).values()]
    own = record.get("plans", {}).get(plans, {}).get("recipe")
    planner = next((p for p, name in PLANS_OF_PLANNER.items() if plans in (name, name + SMALL_SUFFIX)), None)
    smalls = [recipe["small"] for recipe in recipes if recipe["small"]]
    small = [{"max_features": 32}, *smalls][-1] if plans.endswith(SMALL_SUFFIX) else None
    recipe: dict[str, Any] = own or {"planner": planner, "small": small}
    words = [f"--{source.get('kind', 'raw')}", source.get("folder", "FOLDER"), "--id", str(number)]
    words += ["--data", str(data)] if data is not None else []
    words += ["--planner", recipe["planner"] or "PLANNER"]
    words += ["--plans-name", plans] if planner != recipe["planner"] or planner is None else []
    words += ["--configurations", configuration] if configuration else []
    for name, value in (recipe["small"] or {}).items():
        numbers = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, numbers)] if value is not None else []
    return f"{python()} -m study prepare {shlex.join(words)}"


def _record(folder: Path) -> dict[str, Any]:
    try:
        return dict(files.read_json(folder / RECORD_NAME))
    except (OSError, ValueError, TypeError):
        return {}

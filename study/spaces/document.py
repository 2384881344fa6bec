"""The format of a space file: which keys there are, of which type, and what a missing key means.

pydantic stands at this border alone: it refuses unknown keys and wrong types. Values are checked by the frozen records
that a document becomes, so what the command line overrides meets the same checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from study.errors import InvalidInputError
from study.records import Energy
from study.results import DEFAULT_TOLERANCE_MM, Metrics
from study.spaces.demands import Resources
from study.spaces.domains import Domain, Fixed, did_you_mean, domain_from
from study.spaces.reading import read_yaml
from study.spaces.settings import CURRICULUM_KEYS, DATASET, DEFAULTS, TRAINING_KEYS, as_dataset
from study.spaces.space import OPTUNA, SearchSpace

SPACES = "search_spaces"
DEFAULT_OBJECTIVES = ("dice", "runtime_seconds", "co2_kg")


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ResourcesBlock(_Block):
    """`resources`; see `demands.Resources`."""

    cpus: float | None = None
    gpus: float | None = None
    concurrent: int | None = None
    data_workers: int | None = None
    compile_cache: str | None = None


class EnergyBlock(_Block):
    """`energy`; see `records.Energy`."""

    meter: str = "codecarbon"
    country: str | None = None
    pue: float = 1.0


class SpaceDocument(_Block):
    """A space file; see `space.SearchSpace`. The keys of `curriculum` and `training` are those of `settings`."""

    name: str
    searcher: str
    trials: int | None = None
    seed: int = 0
    objectives: list[str] | None = None
    datasets: list[Any] | None = None
    plans: str | None = None
    configuration: str = "3d_fullres"
    folds: list[int] = [0]
    seeds: list[int] = [0]
    metrics: list[str] = []
    nsd_tolerance_mm: float = DEFAULT_TOLERANCE_MM
    resources: ResourcesBlock = ResourcesBlock()
    energy: EnergyBlock = EnergyBlock()
    curriculum: dict[str, Any] = {}
    training: dict[str, Any] = {}


BLOCKS: Mapping[str, type[_Block]] = {"resources": ResourcesBlock, "energy": EnergyBlock}
SETTINGS: Mapping[str, Sequence[str]] = {"curriculum": CURRICULUM_KEYS, "training": TRAINING_KEYS}
LEGAL_TYPES: Mapping[str, str] = {
    "missing": "a value: the key is required",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a word",
    "list_type": "a list, such as [0, 1]",
    "dict_type": "keys with values",
    "model_type": "keys with values",
}
"""pydantic's kinds of error -> what was expected."""


def load_space(path: Path, *, trials: int | None = None) -> SearchSpace:
    """The search space of a YAML file.

    Args:
        path: of the file.
        trials: instead of the file's, which then need not say how many.

    Raises:
        MissingDataError: the file is not there or not readable.
        InvalidInputError: broken YAML, an unknown key, or a value that is not legal.
    """
    document = read_yaml(shipped(path))
    if trials is not None and isinstance(document, Mapping):
        document = {**document, "trials": trials}
    return space_from(document)


def shipped(path: Path) -> Path:
    """The path of a space file, or of the one of that name that came with the program where there is no such file."""
    if path.exists() or path.parent.name not in ("", SPACES):
        return path
    package = Path(__file__).resolve().parents[1]
    found = (root / SPACES / path.name for root in (package, package.parent))
    return next((candidate for candidate in found if candidate.is_file()), path)


def space_from(document: object) -> SearchSpace:
    """The search space of a parsed document; see `load_space` for errors."""
    if not isinstance(document, Mapping):
        raise InvalidInputError(field="search space", received=document, legal="keys with values at the top level")
    try:
        checked = SpaceDocument.model_validate(document)
    except ValidationError as error:
        raise _translated(error.errors()) from None
    return SearchSpace(
        **checked.model_dump(include={"name", "searcher", "trials", "seed", "plans", "configuration"}),
        objectives=_objectives(checked),
        folds=tuple(checked.folds),
        seeds=tuple(checked.seeds),
        resources=Resources(**checked.resources.model_dump()),
        energy=Energy(**checked.energy.model_dump()),
        metrics=Metrics(names=tuple(checked.metrics), nsd_tolerance_mm=checked.nsd_tolerance_mm),
        axes=_axes(checked),
    )


def _objectives(document: SpaceDocument) -> tuple[str, ...]:
    if document.objectives is None:
        return DEFAULT_OBJECTIVES if document.searcher == OPTUNA else ()
    return tuple(document.objectives)


def _axes(document: SpaceDocument) -> dict[str, Domain]:
    written: dict[str, Domain] = {}
    if document.datasets is not None:
        written[DATASET] = _datasets(document.datasets)
    for block, legal in SETTINGS.items():
        for key, value in getattr(document, block).items():
            if key not in legal:
                raise _unknown_key(f"{block}.{key}", key, legal)
            written[f"{block}.{key}"] = domain_from(f"{block}.{key}", value)
    return {name: written.get(name, Fixed(default)) for name, default in DEFAULTS.items()}


def _datasets(written: Sequence[object]) -> Domain:
    if None in written:
        raise InvalidInputError(
            field="datasets", received=None, legal="ids or names; leave the key out to use --dataset"
        )
    return domain_from("datasets", [as_dataset(dataset) for dataset in written])


def _translated(errors: Sequence[ErrorDetails]) -> InvalidInputError:
    """The first of pydantic's errors as one of ours; a misspelled key goes before the one it leaves missing."""
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    path, kind = first["loc"], first["type"]
    field = ".".join(str(part) for part in path)
    if kind == "extra_forbidden":
        block = BLOCKS.get(str(path[0]), SpaceDocument) if len(path) > 1 else SpaceDocument
        return _unknown_key(field, str(path[-1]), list(block.model_fields))
    received = None if kind == "missing" else first["input"]
    return InvalidInputError(field=field, received=received, legal=LEGAL_TYPES.get(kind, first["msg"]))


def _unknown_key(field: str, key: str, legal: Sequence[str]) -> InvalidInputError:
    return InvalidInputError(
        field=f"unknown key {field}",
        received=key,
        legal=f"one of {', '.join(legal)}",
        remedy=did_you_mean(key, legal),
    )

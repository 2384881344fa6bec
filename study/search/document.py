"""The format of a space file: which keys there are, of which type, and what a missing key means.

pydantic stands at this border alone: it refuses unknown keys and wrong types. Values are checked by the frozen records
that a document becomes, so what the command line overrides meets the same checks.

YAML as people mean it: the core of YAML 1.2, with duplicate keys refused.

PyYAML follows YAML 1.1, where `1e-3` is a word, `NO` is false, `012` is ten and `1:30` is ninety. Here `1e-3` is a
number, only `true` and `false` are truth values, and whatever looks like an unusual number stays a word, which the
check of its field then refuses.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from study.common import files
from study.common.errors import InvalidInputError, LedgerError, MissingDataError
from study.search.algorithms import ADAPTIVE
from study.search.domains import (
    CURRICULUM_KEYS,
    DATASET,
    DEFAULTS,
    PLANS,
    TRAINING_KEYS,
    Domain,
    Fixed,
    as_dataset,
    did_you_mean,
    domain_from,
)
from study.search.space import Resources, SearchSpace
from study.store.ledger import recorded_defaults
from study.store.results import DEFAULT_TOLERANCE_MM, METRICS, Metrics
from study.store.specification import Energy
from study.store.stopping import ALL

# No space needs more; PyYAML reads some ten thousand values a second, and aliases may mean billions.
MOST_BYTES, MOST_VALUES, DEEPEST, LARGEST = 262_144, 2_000, 20, 2**63
_CORE = ("null", "bool", "int", "float", "str", "seq", "map")


class _Loader(yaml.SafeLoader):
    """The safe loader with its own idea of plain words, a strict one of mappings, and a limit to what is written."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own protocol
    yaml_constructors = {  # noqa: RUF012
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _CORE
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values, self._depth = 0, 0
        self._sizes: dict[int, float] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._values += 1
        _check_size(self._values)
        self._depth += 1
        if self._depth > DEEPEST:
            raise InvalidInputError(field="the file", received="deeper ones", legal=f"at most {DEEPEST} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """The document, checked for what it is when its aliases are unfolded."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _check_size(self._unfolded(node))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; one that is not what its tag says, or no number to reckon with, is refused."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
            raise _refused(node, f"well-formed YAML, with a value that is {node.tag.rpartition(':')[2]}") from None
        if isinstance(value, int | float) and not abs(value) < LARGEST:
            raise _refused(node, "a number below 2^63")
        return value

    def _unfolded(self, node: yaml.Node) -> float:
        """How many values a node stands for; one that contains itself, endlessly many."""
        if id(node) not in self._sizes:
            self._sizes[id(node)] = math.inf
            parts = node.value if isinstance(node, yaml.CollectionNode) else ()
            below = itertools.chain.from_iterable(part if isinstance(part, tuple) else (part,) for part in parts)
            self._sizes[id(node)] = 1 + sum(map(self._unfolded, below))
        return self._sizes[id(node)]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in seen:
                legal = "each key once" if isinstance(key, str) else "words as keys"
                raise InvalidInputError(field=f"line {key_node.start_mark.line + 1}", received=key, legal=legal)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _check_size(values: float) -> None:
    if values > MOST_VALUES:
        legal = f"a space of at most {MOST_VALUES} values, aliases unfolded"
        raise InvalidInputError(field="the file", received=f"more than {MOST_VALUES}", legal=legal)


def _refused(node: yaml.Node, legal: str) -> InvalidInputError:
    written = node.value if isinstance(node, yaml.ScalarNode) else "a list or keys"
    return InvalidInputError(field=f"line {node.start_mark.line + 1}", received=written, legal=legal)


_FLOAT = r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
for _tag, _words, _first in (
    ("null", "(~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", "(true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", "[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^{_words}$"), _first)


def read_yaml(path: Path) -> Any:
    """The document in a YAML file.

    Raises:
        MissingDataError: no such file, or one that cannot be read.
        InvalidInputError: broken YAML, a key twice, or a key that is no word.
    """
    try:
        content = files.read_whole(path, most=MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InvalidInputError(field=str(path), received="a larger file", legal=f"at most {MOST_BYTES} bytes")
        return parse_yaml(content.decode("utf-8"))
    except OSError as error:
        raise MissingDataError(f"no search space at {path} ({error.strerror}); search_spaces/ has examples") from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(field=str(path), received=error.object[:20], legal="UTF-8 text") from None


def parse_yaml(text: str) -> Any:
    """The document in a text; see `read_yaml` for errors."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        raise InvalidInputError(field=where, received=error.problem, legal="well-formed YAML") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidInputError(field="the file", received=str(error), legal="well-formed YAML") from None


SPACES = "search_spaces"
DEFAULT_OBJECTIVES = ("dice", "runtime_seconds", "co2_kg")


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ResourcesBlock(_Block):
    """`resources`; see `space.Resources`."""

    cpus: float | None = None
    gpus: float | None = None
    concurrent: int | None = None
    data_workers: int | None = None
    compile_cache: str | None = None


class EnergyBlock(_Block):
    """`energy`; see `specification.Energy`."""

    meter: str = "codecarbon"
    country: str | None = None
    pue: float = 1.0


class TrackersBlock(_Block):
    """`trackers`; see `space.SearchSpace`."""

    mlflow: str | None = None
    wandb: str | None = None
    tensorboard: str | None = None


class SpaceDocument(_Block):
    """A space file; see `space.SearchSpace`. The keys of `curriculum` and `training` are those of `settings`."""

    name: str
    searcher: str
    trials: int | None = None
    seed: int = 0
    objectives: list[str] | None = None
    datasets: list[Any] | None = None
    plans: Any = None
    configuration: str = "3d_fullres"
    folds: list[int] = [0]
    seeds: list[int] = [0]
    stopping: str = ALL
    metrics: list[str] = []
    nsd_tolerance_mm: float = DEFAULT_TOLERANCE_MM
    resources: ResourcesBlock = ResourcesBlock()
    energy: EnergyBlock = EnergyBlock()
    trackers: TrackersBlock = TrackersBlock()
    curriculum: dict[str, Any] = {}
    training: dict[str, Any] = {}


BLOCKS: Mapping[str, type[_Block]] = {
    "resources": ResourcesBlock,
    "energy": EnergyBlock,
    "trackers": TrackersBlock,
}
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
    default_objectives = DEFAULT_OBJECTIVES if checked.searcher in ADAPTIVE else ()
    return SearchSpace(
        **checked.model_dump(include={"name", "searcher", "trials", "seed", "configuration", "stopping"}),
        objectives=default_objectives if checked.objectives is None else tuple(checked.objectives),
        folds=tuple(checked.folds),
        seeds=tuple(checked.seeds),
        resources=Resources(**checked.resources.model_dump()),
        energy=Energy(**checked.energy.model_dump()),
        trackers=checked.trackers.model_dump(exclude_none=True),
        metrics=Metrics(names=tuple(checked.metrics), nsd_tolerance_mm=checked.nsd_tolerance_mm),
        axes=_axes(checked),
    )


def begun_space(header: Mapping[str, Any], trials: int) -> SearchSpace:
    """The space of a study that has begun, without its file: all of its identity, the rest by default.

    Args:
        header: content of study.json.
        trials: how many points it has.

    Raises:
        LedgerError: the study has no space.
        InvalidInputError: its space is damaged, or of a version that knew other settings.
    """
    stored = header.get("space")
    if stored is None:
        raise LedgerError("the study holds trials made by hand: it has no search space, and no points of one")
    axes = {name: domain_from(name, stored[name]) for name in DEFAULTS if name in stored}
    objectives = tuple(stored["objectives"])
    measured = tuple(name for name in METRICS if name in objectives)
    return SearchSpace(
        **{name: stored[name] for name in ("searcher", "configuration")},
        name="begun",
        trials=max(1, trials),
        seed=stored["seed"] or 0,
        objectives=objectives,
        folds=tuple(stored["folds"]),
        seeds=tuple(stored["seeds"]),
        resources=Resources(),
        energy=Energy(**{each.name: stored[f"energy.{each.name}"] for each in fields(Energy)}),
        metrics=Metrics(names=measured, nsd_tolerance_mm=stored.get("nsd_tolerance_mm", DEFAULT_TOLERANCE_MM)),
        axes={name: axes.get(name, Fixed(default)) for name, default in DEFAULTS.items()},
        resolved=recorded_defaults(header),
    )


def _axes(document: SpaceDocument) -> dict[str, Domain]:
    written: dict[str, Domain] = {}
    if document.datasets is not None:
        if None in document.datasets:
            legal = "ids or names; leave the key out to use --dataset"
            raise InvalidInputError(field="datasets", received=None, legal=legal)
        written[DATASET] = domain_from("datasets", [as_dataset(dataset) for dataset in document.datasets])
    if isinstance(document.plans, list) and None in document.plans:
        raise InvalidInputError(field=PLANS, received=None, legal="names; leave the key out for the dataset's default")
    written[PLANS] = domain_from(PLANS, document.plans)
    for block, legal_keys in SETTINGS.items():
        for key, value in getattr(document, block).items():
            if key not in legal_keys:
                raise _unknown_key(f"{block}.{key}", key, legal_keys)
            written[f"{block}.{key}"] = domain_from(f"{block}.{key}", value)
    return {name: written.get(name, Fixed(default)) for name, default in DEFAULTS.items()}


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
    known, remedy = f"one of {', '.join(legal)}", did_you_mean(key, legal)
    return InvalidInputError(field=f"unknown key {field}", received=key, legal=known, remedy=remedy)

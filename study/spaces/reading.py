"""YAML as people mean it: the core of YAML 1.2, with duplicate keys refused.

PyYAML follows YAML 1.1, where `1e-3` is a word, `NO` is false, `012` is ten and `1:30` is ninety. Here `1e-3` is a
number, only `true` and `false` are truth values, and whatever looks like an unusual number stays a word, which the
check of its field then refuses.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from study import files
from study.errors import InvalidInputError, MissingDataError

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
        """A node; an alias is one that has been composed before."""
        self._values += 1
        self._check_size(self._values)
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
            self._check_size(self._unfolded(node))
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

    @staticmethod
    def _check_size(values: float) -> None:
        if values > MOST_VALUES:
            legal = f"a space of at most {MOST_VALUES} values, aliases unfolded"
            raise InvalidInputError(field="the file", received=f"more than {MOST_VALUES}", legal=legal)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys are words, none of them twice."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in seen:
                legal = "each key once" if isinstance(key, str) else "words as keys"
                raise InvalidInputError(field=f"line {key_node.start_mark.line + 1}", received=key, legal=legal)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refused(node: yaml.Node, legal: str) -> InvalidInputError:
    written = node.value if isinstance(node, yaml.ScalarNode) else "a list or keys"
    return InvalidInputError(field=f"line {node.start_mark.line + 1}", received=written, legal=legal)


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"),
    list("-+.0123456789"),
)


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

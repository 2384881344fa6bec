"""YAML as people mean it: the core of YAML 1.2, with duplicate keys refused.

PyYAML follows YAML 1.1, where `1e-3` is a word, `NO` is false, `012` is ten and `1:30` is ninety. Here `1e-3` is a
number, only `true` and `false` are truth values, and whatever looks like an unusual number stays a word, which the
check of its field then refuses.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from study.errors import InvalidInputError, MissingDataError


class _Loader(yaml.SafeLoader):
    """The safe loader with its own idea of plain words and a strict one of mappings."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own protocol

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
        return parse_yaml(path.read_text(encoding="utf-8"))
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
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInputError(field="the file", received=str(error), legal="well-formed YAML") from None

"""Records as plain JSON, and the hash of plain data."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

_T = TypeVar("_T")

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_AS_THEY_ARE = frozenset((str, int, bool, type(None)))


def record_to_json(record: Any) -> dict[str, Any]:
    """A record as plain JSON: tuples as lists, enums by value, NaN and infinities as null."""
    data: dict[str, Any] = _plain(record)
    return data


def sha256_of_json(data: Any) -> str:
    """SHA-256 of the canonical JSON of plain data, NaN and infinities as null."""
    return hashlib.sha256(canonical(_plain(data)).encode()).hexdigest()


def canonical(data: Any) -> str:
    """The canonical JSON of plain data."""
    return _CANONICAL.encode(data)


def sha256_of_parts(parts: Mapping[str, str]) -> str:
    """SHA-256 of the canonical JSON of an object, given that of its values."""
    text = ",".join([f'"{name}":{parts[name]}' for name in sorted(parts)])
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()


def _plain(value: Any) -> Any:
    kind: Any = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if hasattr(kind, "__dataclass_fields__"):
        # Not asdict, which copies everything deeply: thousands of trials are read at a time.
        value = {name: getattr(value, name) for name in kind.__dataclass_fields__}
    if isinstance(value, dict | Mapping):
        return {str(key): item if type(item) in _AS_THEY_ARE else _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if type(item) in _AS_THEY_ARE else _plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def made_of(cls: type[_T], data: Mapping[str, Any]) -> _T:
    """`cls(**data)` of a frozen dataclass that checks nothing, field by field only where not all are given.

    A hundred thousand of them are read at a time, and a frozen one's own `__init__` takes three times as long.
    """
    if not isinstance(data, dict) or data.keys() != cls.__dataclass_fields__.keys():  # type: ignore[attr-defined]
        return cls(**data)
    made = object.__new__(cls)
    vars(made).update(data)
    return made


def with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same data with its lists as tuples, as frozen records hold them."""
    return {key: tuple(value) if type(value) is list else value for key, value in data.items()}

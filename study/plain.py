"""Records as plain JSON, and the hash of plain data."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any


def record_to_json(record: Any) -> dict[str, Any]:
    """A record as plain JSON: tuples as lists, enums by value, NaN and infinities as null."""
    data: dict[str, Any] = _plain(asdict(record))
    return data


def sha256_of_json(data: Any) -> str:
    """SHA-256 of the canonical JSON of plain data, NaN and infinities as null."""
    text = json.dumps(_plain(data), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same data with its lists as tuples, as frozen records hold them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}

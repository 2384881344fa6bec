"""Range checks whose failures name the field, the value received and what is legal. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Sequence

from study.common.errors import InvalidInputError

# Of a file's name; endings are added.
LONGEST_NAME = 200


def is_whole(value: object) -> bool:
    """Whether a value is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_count(field: str, value: object, *, least: int = 1, most: int | None = None) -> None:
    """Raise InvalidInputError unless the value is a whole number of at least `least` and, if given, at most `most`."""
    inside = is_whole(value) and least <= value and (most is None or value <= most)  # type: ignore[operator]
    if not inside:
        legal = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidInputError(field=field, received=value, legal=f"a whole number {legal}")


def is_name(value: object) -> bool:
    """Whether this is a word that is safe as a part of a path and of a command."""
    if not isinstance(value, str) or not 0 < len(value.encode(errors="replace")) <= LONGEST_NAME:
        return False
    return value[0] not in ".-" and "/" not in value and value.isprintable()


def check_name(field: str, value: object) -> None:
    """Raise InvalidInputError unless the value is a name; see `is_name`."""
    if not is_name(value):
        legal = (
            f"a name of at most {LONGEST_NAME} bytes without slashes or control characters, not beginning with . or -"
        )
        raise InvalidInputError(field=field, received=value, legal=legal)


def check_path(field: str, value: str) -> None:
    """Raise InvalidInputError for nothing, which is this folder, for what no file system takes, and for half a URL."""
    try:
        is_one = bool(value.strip()) and b"\0" not in value.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a letter
        is_one = False
    if not is_one or re.match(r"[A-Za-z][\w+.-]+:(/|$)", value):
        raise InvalidInputError(
            field=field, received=value, legal="a path; object storage is SCHEME://BUCKET/KEY, for studies alone"
        )


def check_choice(field: str, value: object, legal: Sequence[str]) -> None:
    """Raise InvalidInputError unless the value is one of the legal words."""
    if value not in legal:
        raise InvalidInputError(field=field, received=value, legal="one of " + ", ".join(legal))


def check_range(field: str, value: object, low: float, high: float, *, also: str = "", above_low: bool = False) -> None:
    """Raise InvalidInputError unless low <= value <= high (low < value with `above_low`); NaN is outside."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    inside = number and low <= value <= high and not (above_low and value == low)  # type: ignore[operator]
    if not inside:
        start = f"above {low:g} up to" if above_low else f"from {low:g} to"
        legal = f"a number {start} {high:g}" + (f", or {also}" if also else "")
        raise InvalidInputError(field=field, received=value, legal=legal)

"""Range checks whose failures name the field, the value received and what is legal. Standard library only."""

from __future__ import annotations

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


def check_name(field: str, value: object) -> None:
    """Raise InvalidInputError unless the value is a word that is safe as a part of a path and of a command."""
    fits = isinstance(value, str) and 0 < len(value.encode(errors="replace")) <= LONGEST_NAME
    if not fits or value[0] in ".-" or "/" in value or not value.isprintable():  # type: ignore[index,operator,attr-defined]
        legal = (
            f"a name of at most {LONGEST_NAME} bytes without slashes or control characters, not beginning with . or -"
        )
        raise InvalidInputError(field=field, received=value, legal=legal)


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

"""How records are read: checked by the types of their fields, all at once and in pydantic's compiled code.

Kinds, ranges, and fields that are missing or unknown, that is; whether records fit together, `audit` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from annotated_types import Ge, Le, Predicate

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

# Of what was received, in a message.
MOST_LETTERS = 80
_T = TypeVar("_T")

Whole = Annotated[int, Ge(0), Le(2**63 - 1)]
"""A count, as tables of 64-bit numbers can hold it."""
Amount = Annotated[float, Ge(0)]


def one_of(*words: str) -> Predicate:
    """What a word that is read must be."""
    return Predicate(frozenset(words).__contains__)


class Stored:
    """A dataclass whose records are read with `record_from_json`: no number in words, none infinite, no other field."""

    __pydantic_config__: ClassVar[Any] = {"strict": True, "extra": "forbid", "allow_inf_nan": False}


def record_from_json(cls: type[_T], content: bytes) -> _T:
    """The record of a dataclass that a JSON document holds.

    Raises:
        ValueError: the document is damaged, or no such record; what is wrong, in a line.
    """
    from pydantic import ValidationError

    try:
        return _reader(cls).validate_json(content)  # type: ignore[no-any-return, arg-type]
    except ValidationError as error:
        raise ValueError(_in_words(error)) from None


def check_kinds(kind: Any, document: Any) -> None:
    """Raise ValueError unless the fields of a document that a TypedDict names are of its types."""
    from pydantic import ValidationError

    try:
        _reader(kind).validate_python(document, strict=True)
    except ValidationError as error:
        raise ValueError(_in_words(error)) from None


def records_from_lines(cls: type[_T], lines: Sequence[bytes]) -> list[_T]:
    """The records of JSON lines; see `record_from_json`. The message names the line."""
    from pydantic import ValidationError

    try:
        records: list[_T] = _reader(list[cls]).validate_json(b"[" + b",".join(lines) + b"]")  # type: ignore[valid-type]
        if len(records) == len(lines):
            return records
    except ValidationError:
        pass
    made = []
    for number, line in enumerate(lines, start=1):
        try:
            made.append(_reader(cls).validate_json(line))  # type: ignore[arg-type]
        except ValidationError as error:
            kind, words = error.errors()[0]["type"], _in_words(error)
            no_object = kind in ("json_invalid", "dataclass_type")
            what = "is not a JSON object" if no_object else f"is no record of this file ({words})"
            raise ValueError(f"line {number} {what}") from None
    return made


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _in_words(error: ValidationError) -> str:
    """The first that is wrong."""
    found = error.errors(include_url=False)[0]
    kind, where, message = found["type"], ".".join(map(str, found["loc"])), found["msg"]
    if kind in ("dataclass_type", "dict_type") and not where:
        return "it is no JSON object"
    if kind == "missing":
        return f"{where} is missing"
    if kind == "json_invalid":
        return message
    received = repr(found["input"])
    shown = received if len(received) <= MOST_LETTERS else f"{received[:MOST_LETTERS]}…"
    legal = "another value" if kind == "predicate_failed" else message.removeprefix("Input should be ")
    return f"{where}: received {shown}, legal is {legal}"

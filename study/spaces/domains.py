"""Domains: what one setting of a search space may be. A fixed value, a choice, or a range of numbers.

Every domain knows values to probe it with. Legal numbers of a setting are an interval, so a domain whose probes are
legal proposes nothing illegal later.
"""

from __future__ import annotations

import difflib
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.checks import is_whole
from study.errors import InvalidInputError

Scalar = str | int | float | bool | None
NAMES = ("choice", "uniform", "log_uniform", "integer")
# Beyond this a float no longer tells neighbouring whole numbers apart.
LARGEST_WHOLE = 2**53


class Domain(ABC):
    """The values that a setting may take, all of them plain JSON scalars."""

    @abstractmethod
    def values(self) -> Sequence[Scalar] | None:
        """Every value in order, None when there are infinitely many."""

    @abstractmethod
    def probes(self) -> Sequence[Scalar]:
        """Values whose legality implies that of all."""

    @abstractmethod
    def sample(self, generator: random.Random) -> Scalar:
        """A value drawn evenly (from a logarithmic range: evenly in the logarithm)."""

    @abstractmethod
    def to_json(self) -> Any:
        """The domain as a space file may write it."""


@dataclass(frozen=True)
class Fixed(Domain):
    """One value: no axis of the search."""

    value: Scalar

    def values(self) -> Sequence[Scalar]:
        """The value alone."""
        return (self.value,)

    def probes(self) -> Sequence[Scalar]:
        """The value alone."""
        return (self.value,)

    def sample(self, generator: random.Random) -> Scalar:
        """The value; nothing is drawn."""
        return self.value

    def to_json(self) -> Any:
        """The value."""
        return self.value


@dataclass(frozen=True)
class Choice(Domain):
    """Two or more distinct values, whose order means nothing."""

    options: tuple[Scalar, ...]

    def values(self) -> Sequence[Scalar]:
        """The options as listed."""
        return self.options

    def probes(self) -> Sequence[Scalar]:
        """Every option."""
        return self.options

    def sample(self, generator: random.Random) -> Scalar:
        """One of the options."""
        return generator.choice(self.options)

    def to_json(self) -> Any:
        """`{choice: [...]}`."""
        return {"choice": list(self.options)}


@dataclass(frozen=True)
class Integer(Domain):
    """Whole numbers from low to high, both included."""

    low: int
    high: int

    def values(self) -> Sequence[Scalar]:
        """All of them, rising."""
        return range(self.low, self.high + 1)

    def probes(self) -> Sequence[Scalar]:
        """Both ends."""
        return (self.low, self.high)

    def sample(self, generator: random.Random) -> Scalar:
        """One of them."""
        return generator.randint(self.low, self.high)

    def to_json(self) -> Any:
        """`{integer: [low, high]}`."""
        return {"integer": [self.low, self.high]}


@dataclass(frozen=True)
class Interval(Domain):
    """Numbers from low to high, both included; how they are drawn is left open."""

    low: float
    high: float

    def values(self) -> None:
        """Infinitely many."""
        return

    def probes(self) -> Sequence[Scalar]:
        """Both ends."""
        return (self.low, self.high)

    def clipped(self, value: float) -> float:
        """The value, or the end that rounding made it pass."""
        return min(self.high, max(self.low, value))


@dataclass(frozen=True)
class Uniform(Interval):
    """An interval drawn from evenly."""

    def sample(self, generator: random.Random) -> Scalar:
        """A number of the interval."""
        return self.clipped(generator.uniform(self.low, self.high))

    def to_json(self) -> Any:
        """`{uniform: [low, high]}`."""
        return {"uniform": [self.low, self.high]}


@dataclass(frozen=True)
class LogUniform(Interval):
    """An interval above 0, drawn from evenly in the logarithm."""

    def sample(self, generator: random.Random) -> Scalar:
        """A number of the interval."""
        return self.clipped(math.exp(generator.uniform(math.log(self.low), math.log(self.high))))

    def to_json(self) -> Any:
        """`{log_uniform: [low, high]}`."""
        return {"log_uniform": [self.low, self.high]}


def domain_from(field: str, written: object) -> Domain:
    """The domain that a space file writes: a literal, a list, or a mapping with one of the names.

    Args:
        field: key path, for the messages.
        written: what stands there. A list means `choice`; a choice of one value is that value, fixed.

    Raises:
        InvalidInputError: no domain, or one that is empty, reversed or not finite.
    """
    if isinstance(written, list):
        return _choice(field, written)
    if not isinstance(written, Mapping):
        return Fixed(_scalar(field, written))
    if len(written) != 1:
        raise InvalidInputError(
            field=field, received=dict(written), legal=f"a value, a list, or one of {', '.join(NAMES)} alone"
        )
    [(name, content)] = written.items()
    if name not in NAMES:
        legal = f"one of {', '.join(NAMES)}"
        raise InvalidInputError(field=field, received=name, legal=legal, remedy=did_you_mean(name, NAMES))
    return _choice(f"{field}.{name}", content) if name == "choice" else _span(f"{field}.{name}", name, content)


def did_you_mean(received: object, legal: Iterable[str]) -> str:
    """A remedy naming the legal word closest to the one received, empty when none is close."""
    close = difflib.get_close_matches(str(received), list(legal), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def _choice(field: str, content: object) -> Domain:
    if not isinstance(content, list) or not content:
        raise InvalidInputError(field=field, received=content, legal="a list of at least one value")
    options = tuple(_scalar(field, value) for value in content)
    repeated = [value for index, value in enumerate(options) if value in options[:index]]
    if repeated:
        raise InvalidInputError(field=field, received=list(options), legal=f"each value once; {repeated[0]!r} repeats")
    return Choice(options) if len(options) > 1 else Fixed(options[0])


def _span(field: str, name: str, content: object) -> Domain:
    if name == "integer":
        low, high = _bounds(field, content, whole=True)
        return Integer(int(low), int(high))
    low, high = _bounds(field, content, whole=False)
    if name == "uniform":
        return Uniform(low + 0.0, high + 0.0)
    if low <= 0:
        raise InvalidInputError(field=field, received=content, legal="bounds above 0")
    return LogUniform(float(low), float(high))


def _bounds(field: str, content: object, *, whole: bool) -> tuple[float, float]:
    words = "two whole numbers" if whole else "two numbers"
    numbers = isinstance(content, list) and len(content) == 2 and all(_is_number(n, whole) for n in content)
    if not numbers or not content[0] < content[1]:  # type: ignore[index]
        raise InvalidInputError(field=field, received=content, legal=f"{words} [low, high], low below high")
    return content[0], content[1]  # type: ignore[index]


def _is_number(value: object, whole: bool) -> bool:
    if isinstance(value, int):
        return is_whole(value) and abs(value) <= LARGEST_WHOLE
    return not whole and isinstance(value, float) and math.isfinite(value)


def _scalar(field: str, value: object) -> Scalar:
    if isinstance(value, float):
        # -0.0 is 0.0, in JSON as well.
        return value + 0.0
    if value is None or isinstance(value, str | int | bool):
        return value
    raise InvalidInputError(field=field, received=value, legal="a number, a word, true, false or null")

"""Settings said once: what is legal, label, unit and meaning stand beside the field; what shows or takes it reads them.

From these come the check of a value, the option of the command line, the column of the tables, the command that repeats
a training, and the tables of the documentation. Standard library only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal

from study.common.errors import LARGEST, InvalidInputError, check_choice, check_count, check_name, check_range, is_whole

Dtype = Literal["str", "Int64", "float64", "boolean"]
_KEY = "setting"


class Kind(ABC):
    """What values a setting has.

    Attributes:
        dtype: of its column in pandas.
        metavar: its value in a command line's help.
        legal: what is legal, as documentation says it.
    """

    dtype: Dtype
    metavar: str
    legal: str

    @abstractmethod
    def check(self, name: str, value: Any) -> Any:
        """The value as it is kept. Raises InvalidInputError where it is not legal."""

    def parse(self, text: str) -> Any:
        """The value of a word on the command line; a word that is none is left for the check to refuse."""
        return text

    @abstractmethod
    def read(self, cell: Any) -> Any:
        """The value of a cell of a table."""


class Words(Kind):
    """One of some words."""

    dtype, metavar = "str", "WORD"

    def __init__(self, *, words: Sequence[str]) -> None:
        self.words, self.legal = words, ", ".join(f"`{word}`" for word in words)

    def check(self, name: str, value: Any) -> Any:
        """See `Kind`."""
        check_choice(name, value, self.words)
        return value

    def read(self, cell: Any) -> Any:
        """See `Kind`."""
        return str(cell)


class Number(Kind):
    """A number from low to high, or a word in its place."""

    def __init__(self, *, low: float, high: float, above_low: bool = False, word: str = "") -> None:
        self.low, self.high, self.above_low, self.word = low, high, above_low, word
        self.dtype = "str" if word else "float64"
        self.metavar = f"{low:g}..{high:g}" + (f"|{word}" if word else "")
        self.legal = f"{'above ' * above_low}{low:g} to {high:g}" + (f", `{word}`" if word else "")

    def check(self, name: str, value: Any) -> Any:
        """See `Kind`; -0.0 is 0.0, which in JSON would be another setting."""
        if self.word and value == self.word:
            return value
        also = f"the word {self.word!r}" if self.word else ""
        check_range(name, value, self.low, self.high, above_low=self.above_low, also=also)
        return float(value) + 0.0

    def parse(self, text: str) -> Any:
        """See `Kind`."""
        return number(text)

    def read(self, cell: Any) -> Any:
        """See `Kind`."""
        return cell if cell == self.word and self.word else float(cell)


class Count(Kind):
    """A whole number of at least one, and of at most some."""

    dtype, metavar = "Int64", "N"

    def __init__(self, *, most: int = LARGEST) -> None:
        self._most, self.legal = most, f"1 to {most}" if most < LARGEST else "≥ 1"

    def check(self, name: str, value: Any) -> Any:
        """See `Kind`."""
        check_count(name, value, most=self._most)
        return value

    def parse(self, text: str) -> Any:
        """See `Kind`."""
        return whole(text)

    def read(self, cell: Any) -> Any:
        """See `Kind`."""
        return int(cell)


class CountOrShare(Kind):
    """A whole number of something, or a share of what there is of it."""

    dtype, metavar = "float64", "N|0..1"

    def __init__(self, *, of: str) -> None:
        self.of, self.legal = of, f"whole {of} ≥ 1, or above 0 and below 1"

    def check(self, name: str, value: Any) -> Any:
        """See `Kind`."""
        counted, shared = is_whole(value) and value >= 1, isinstance(value, float) and 0.0 < value < 1.0
        if not counted and not shared:
            legal = f"a whole number of {self.of} of at least 1, or a share of the training above 0 and below 1"
            raise InvalidInputError(field=name, received=value, legal=legal)
        return value

    def parse(self, text: str) -> Any:
        """See `Kind`."""
        count = whole(text)
        return number(text) if count is text else count

    def read(self, cell: Any) -> Any:
        """See `Kind`."""
        return int(cell) if cell >= 1 else float(cell)


class Switch(Kind):
    """True or false."""

    dtype, metavar, legal = "boolean", "", "`true`, `false`"

    def check(self, name: str, value: Any) -> Any:
        """See `Kind`."""
        if not isinstance(value, bool):
            raise InvalidInputError(field=name, received=value, legal="true or false")
        return value

    def read(self, cell: Any) -> Any:
        """See `Kind`."""
        return bool(cell)


class Name(Kind):
    """The name of something prepared, not its path."""

    dtype, metavar = "str", "NAME"

    def __init__(self, *, of: str, such_as: str) -> None:
        self._word, self.legal = f"a word, the name of {of} such as {such_as} and no path", f"name of {of}"

    def check(self, name: str, value: Any) -> Any:
        """See `Kind`."""
        try:
            check_name(name, value)
        except InvalidInputError:
            raise InvalidInputError(field=name, received=value, legal=self._word) from None
        return value

    def read(self, cell: Any) -> Any:
        """See `Kind`."""
        return str(cell)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    Attributes:
        name, default: of the field.
        kind: what values it has.
        label: on pages and axes of figures.
        unit: after the label.
        meaning: in a line, for columns and help.
        details: for the documentation of space files; the meaning where there is no more to say.
        shown_default: there, where the default follows from something.
        option: on the command line; None where there is none. A switch's option turns it from its default.
        bare: its value where the option is given without one.
        logarithmic: whether a ratio means more than a difference.
        told: how a point's summary says it where points differ in it, `budget {:.0%}`; empty where it does not.
        cost: what it does to the time of a training, for the documentation.
        source: who published it, likewise.
    """

    default: Any
    kind: Kind
    label: str
    meaning: str
    name: str = ""
    unit: str = ""
    details: str = ""
    shown_default: str = ""
    option: str | None = ""
    bare: str | None = None
    logarithmic: bool = False
    told: str = ""
    cost: str = ""
    source: str = ""

    def words(self, value: Any) -> list[str]:
        """The option as a command gives it; nothing where leaving it out says the same for ever."""
        if self.option is None or value is None or (isinstance(self.kind, Switch) and value == self.default):
            return []
        if isinstance(self.kind, Switch):
            return [self.option]
        return [self.option, value if isinstance(value, str) else repr(value)]

    def documented(self) -> str:
        """A row of the documentation's table: key, legal, default, and its card: meaning, cost and source."""
        legal = self.kind.legal + (", or `null`" if self.default is None and self.shown_default == "`null`" else "")
        said = {"Cost": self.cost, "Source": self.source}
        card = ". ".join([self.details, *(f"{what}: {text}" for what, text in said.items() if text)])
        return f"| `{self.name}` | {legal} | {self.shown_default} | {card} |"


def setting(default: Any, kind: Kind, label: str, meaning: str, **more: Any) -> Any:
    """The field of a frozen dataclass that holds a setting; `more` are further fields of `Setting`."""
    said = Setting(default=default, kind=kind, label=label, meaning=meaning, **more)
    return field(default=default, metadata={_KEY: said})


@cache
def settings_of(record: Any) -> Mapping[str, Setting]:
    """The settings of a dataclass by name, in its order."""
    return {each.name: _named(each.metadata[_KEY], each.name) for each in fields(record)}


def _named(said: Setting, name: str) -> Setting:
    return replace(
        said,
        name=name,
        details=said.details or said.meaning,
        shown_default=said.shown_default or f"`{_json(said.default)}`",
        option=f"--{name.replace('_', '-')}" if said.option == "" else said.option,
    )


def check_settings(record: Any) -> None:
    """Check every setting of a frozen dataclass as it is made, and keep each value in its one form.

    Raises:
        InvalidInputError: a value is outside its range. None is legal where it is the default.
    """
    made_of: Any = type(record)
    for name, each in settings_of(made_of).items():
        value = getattr(record, name)
        # Most are, of most of thousands of trials; -0.0 is 0.0.
        is_default = type(value) is type(each.default) and value == each.default
        object.__setattr__(record, name, each.default if is_default else each.kind.check(name, value))


def documentation(record: type) -> str:
    """The rows of the documentation's table of a dataclass."""
    return "\n".join(each.documented() for each in settings_of(record).values())


def number(text: str) -> Any:
    """A number, or the text itself, which the check of the field then refuses in its own words."""
    try:
        # Not as in Python's own source, where 1_0 is 10: in YAML it is a word.
        return text if "_" in text else float(text)
    except ValueError:
        return text


def whole(text: str) -> Any:
    """A whole number, or the text itself; see `number`."""
    try:
        return text if "_" in text else int(text)
    except ValueError:
        return text


def _json(value: Any) -> str:
    words = {"None": "null", "True": "true", "False": "false"}
    return words.get(str(value), f"{value:g}" if isinstance(value, float) else str(value))

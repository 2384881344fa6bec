"""Domains: what one setting of a search space may be. A fixed value, a choice, or a range of numbers.

Every domain knows values to probe it with. Legal numbers of a setting are an interval, so a domain whose probes are
legal proposes nothing illegal later.

The names of the settings that a space may fix or search, and what their values mean together: a name is the key path
of the space file, `curriculum.min_patch`, `training.epochs`; `dataset` and `plans` stand by themselves. Their order
here is that of a grid: the dataset changes slowest.
"""

from __future__ import annotations

import difflib
import math
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from study.common.errors import InvalidInputError, is_whole
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import resolve
from study.curriculum.data_curriculum import phase_iterations
from study.curriculum.schemes import Axes, named_axes
from study.store import specification
from study.store.specification import TrainingSettings

Scalar = str | int | float | bool | None
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
        return (self.value,)

    def probes(self) -> Sequence[Scalar]:
        return (self.value,)

    def sample(self, generator: random.Random) -> Scalar:
        return self.value

    def to_json(self) -> Any:
        return self.value


@dataclass(frozen=True)
class Choice(Domain):
    """Two or more distinct values, whose order means nothing."""

    word: ClassVar[str] = "choice"
    options: tuple[Scalar, ...]

    def values(self) -> Sequence[Scalar]:
        return self.options

    def probes(self) -> Sequence[Scalar]:
        return self.options

    def sample(self, generator: random.Random) -> Scalar:
        return generator.choice(self.options)

    def to_json(self) -> Any:
        return {self.word: list(self.options)}


@dataclass(frozen=True)
class Interval(Domain):
    """Numbers from low to high, both included; subclasses say how they are drawn, and by which word a file has them."""

    word: ClassVar[str]
    low: float
    high: float

    def values(self) -> Sequence[Scalar] | None:
        return None

    def probes(self) -> Sequence[Scalar]:
        return self.low, self.high

    def to_json(self) -> Any:
        return {self.word: [self.low, self.high]}

    def clipped(self, value: float) -> float:
        """The value, or the end that rounding made it pass."""
        return min(self.high, max(self.low, value))


class Uniform(Interval):
    """Drawn from evenly."""

    word = "uniform"

    def sample(self, generator: random.Random) -> Scalar:
        return self.clipped(generator.uniform(self.low, self.high))


class LogUniform(Interval):
    """Above 0, drawn from evenly in the logarithm."""

    word = "log_uniform"

    def sample(self, generator: random.Random) -> Scalar:
        return self.clipped(math.exp(generator.uniform(math.log(self.low), math.log(self.high))))


@dataclass(frozen=True)
class Integer(Interval):
    """Its whole numbers."""

    word = "integer"
    low: int
    high: int

    def values(self) -> Sequence[Scalar]:
        return range(self.low, self.high + 1)

    def sample(self, generator: random.Random) -> Scalar:
        return generator.randint(self.low, self.high)


INTERVALS: Mapping[str, type[Interval]] = {kind.word: kind for kind in (Uniform, LogUniform, Integer)}
NAMES = (Choice.word, *INTERVALS)


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
    field = f"{field}.{name}"
    return _choice(field, content) if name == Choice.word else _interval(field, INTERVALS[name], content)


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


def _interval(field: str, kind: type[Interval], content: Any) -> Domain:
    whole = kind is Integer
    numbers = isinstance(content, list) and len(content) == 2 and all(_is_number(each, whole) for each in content)
    if not numbers or not content[0] < content[1]:
        legal = f"two {'whole ' * whole}numbers [low, high], low below high"
        raise InvalidInputError(field=field, received=content, legal=legal)
    if kind is LogUniform and content[0] <= 0:
        raise InvalidInputError(field=field, received=content, legal="bounds above 0")
    return kind(*(bound if whole else bound + 0.0 for bound in content))


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


DATASET, PLANS = "dataset", specification.PLANS.name
SCHEME = "curriculum.scheme"
PDL_FRACTION, PDL_METRIC = "curriculum.pdl_fraction", "curriculum.pdl_metric"
CURRICULUM_KEYS = ("scheme", *(field.name for field in fields(Axes)))
TRAINING_KEYS = tuple(field.name for field in fields(TrainingSettings))
LARGEST_DATASET_ID = 99999
DEFAULTS: Mapping[str, Any] = {
    DATASET: None,
    PLANS: None,
    **dict.fromkeys(f"curriculum.{key}" for key in CURRICULUM_KEYS),
    SCHEME: "pgps",
    **{f"training.{field.name}": field.default for field in fields(TrainingSettings)},
}
"""Name -> value when the space says nothing. None in `curriculum` is what the scheme has, of plans the dataset's."""


@dataclass(frozen=True, kw_only=True)
class PointSettings:
    """What a value for every name amounts to.

    Attributes:
        dataset: id or name; None when neither the space nor the command line names one.
        plans: their name; None for the dataset's default.
        scheme: name of the curriculum; axes: the same with what the space overrides.
        training: how to train; unset fields are still None.
    """

    dataset: int | str | None
    plans: str | None
    scheme: str
    axes: Axes
    training: TrainingSettings


def settings_at(values: Mapping[str, Any]) -> PointSettings:
    """The settings of a full set of values, one for every name in `DEFAULTS`.

    Raises:
        InvalidInputError: a value is not legal; `field` is the name without its block.
    """
    dataset, curriculum = values[DATASET], {key: values[f"curriculum.{key}"] for key in CURRICULUM_KEYS}
    named = isinstance(dataset, str) and re.fullmatch(r"Dataset[0-9]{3,5}_.+", dataset)
    numbered = is_whole(dataset) and 1 <= dataset <= LARGEST_DATASET_ID
    if dataset is not None and not named and not numbered:
        legal = f"an id from 1 to {LARGEST_DATASET_ID} or a full name such as Dataset004_Hippocampus"
        raise InvalidInputError(field=DATASET, received=dataset, legal=legal)
    if values[PLANS] is not None:
        specification.PLANS.kind.check(PLANS, values[PLANS])
    scheme = curriculum.pop("scheme")
    return PointSettings(
        dataset=dataset,
        plans=values[PLANS],
        scheme=scheme,
        axes=named_axes(scheme, **curriculum),
        training=TrainingSettings(**{key: values[f"training.{key}"] for key in TRAINING_KEYS}),
    )


def check_axes(axes: Mapping[str, Domain]) -> None:
    """Check what domains may propose, each by itself and together.

    Raises:
        InvalidInputError: an illegal value, a training longer than a curriculum may be, a first phase longer than the
            shortest training, or fractions of the cases so near to 0 that no number of cases is enough.
    """
    for name, domain in axes.items():
        for probe in domain.probes():
            try:
                settings_at({**DEFAULTS, name: probe})
            except InvalidInputError as error:
                received = domain.to_json() if domain.values() is None else probe
                raise InvalidInputError(field=name, received=received, legal=error.legal, remedy=error.remedy) from None
    ends: Any = {name: domain.probes() for name, domain in axes.items()}
    epochs, iterations = ends["training.epochs"], ends["training.iterations_per_epoch"]
    smallest = Geometry(patch_size=(1,), divisors=(1,), batch_size=1)
    resolve(smallest, Axes(), epochs=max(epochs), iterations_per_epoch=max(iterations))
    if data_axes(axes):
        fractions = axes[PDL_FRACTION]
        if fractions.values() is None and ends[PDL_FRACTION][0] == 0:
            legal = "an interval that starts above 0, or a list: next to 0 no case is left"
            raise InvalidInputError(field=PDL_FRACTION, received=fractions.to_json(), legal=legal)
        for pdl_epochs in ends["curriculum.pdl_epochs"]:
            if isinstance(pdl_epochs, int):
                phase_iterations(pdl_epochs, epochs=min(epochs), iterations_per_epoch=1)


def data_axes(axes: Mapping[str, Domain]) -> list[Axes]:
    """Data curricula that stand for all that domains may propose: the ends of fractions, by each metric."""
    pairs = ((f, m) for f in axes[PDL_FRACTION].probes() for m in axes[PDL_METRIC].probes())
    made = [named_axes("pgps", pdl_fraction=fraction, pdl_metric=metric) for fraction, metric in pairs]
    return [each for each in made if each.needs_ranking]


def as_dataset(written: Any) -> Any:
    """A dataset as given: digits in quotes or on the command line are an id."""
    return int(written) if isinstance(written, str) and re.fullmatch(r"[0-9]{1,5}", written) else written

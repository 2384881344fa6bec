"""The names of the settings that a space may fix or search, and what their values mean together.

A name is the key path of the space file: `curriculum.min_patch`, `training.epochs`; `dataset` stands by itself. Their
order here is that of a grid: the dataset changes slowest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from study.chain import Geometry
from study.checks import is_whole
from study.curriculum import Axes, named_axes, resolve
from study.data_curriculum import phase_iterations
from study.errors import InvalidInputError
from study.records import TrainingSettings
from study.spaces.domains import Domain, Interval, Scalar

DATASET = "dataset"
SCHEME = "curriculum.scheme"
EPOCHS = "training.epochs"
ITERATIONS_PER_EPOCH = "training.iterations_per_epoch"
STOP_AT_DICE = "training.stop_at_dice"
PDL_FRACTION, PDL_EPOCHS, PDL_METRIC = "curriculum.pdl_fraction", "curriculum.pdl_epochs", "curriculum.pdl_metric"
CURRICULUM_KEYS = ("scheme", *(field.name for field in fields(Axes)))
TRAINING_KEYS = tuple(field.name for field in fields(TrainingSettings))
LARGEST_DATASET_ID = 99999


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a value for every name amounts to.

    Attributes:
        dataset: id or name; None when neither the space nor the command line names one.
        scheme: name of the curriculum; axes: the same with what the space overrides.
        training: how to train; unset fields are still None.
    """

    dataset: int | str | None
    scheme: str
    axes: Axes
    training: TrainingSettings


def _defaults() -> dict[str, Scalar]:
    training = {f"training.{field.name}": field.default for field in fields(TrainingSettings)}
    curriculum: dict[str, Any] = dict.fromkeys(f"curriculum.{key}" for key in CURRICULUM_KEYS)
    return {DATASET: None, **curriculum, SCHEME: "pgps", **training}


DEFAULTS: Mapping[str, Scalar] = _defaults()
"""Name -> value when the space says nothing. None in `curriculum` is what the scheme has."""


def settings_at(values: Mapping[str, Scalar]) -> Settings:
    """The settings of a full set of values.

    Args:
        values: one for every name in `DEFAULTS`.

    Raises:
        InvalidInputError: a value is not legal; `field` is the name without its block.
    """
    dataset: Any = values[DATASET]
    scheme: Any = values[SCHEME]
    overrides = {key: values[f"curriculum.{key}"] for key in CURRICULUM_KEYS if key != "scheme"}
    training: Any = {key: values[f"training.{key}"] for key in TRAINING_KEYS}
    _check_dataset(dataset)
    return Settings(
        dataset=dataset,
        scheme=scheme,
        axes=named_axes(scheme, **overrides),
        training=TrainingSettings(**training),
    )


def check_domain(name: str, domain: Domain) -> None:
    """Raise InvalidInputError if the domain could propose an illegal value."""
    for probe in domain.probes():
        try:
            settings_at({**DEFAULTS, name: probe})
        except InvalidInputError as error:
            received = domain.to_json() if isinstance(domain, Interval) else probe
            raise InvalidInputError(field=name, received=received, legal=error.legal, remedy=error.remedy) from None


def check_length(axes: Mapping[str, Domain]) -> None:
    """Raise InvalidInputError if the longest training that legal domains allow is longer than a curriculum may be."""
    epochs: Any = max(axes[EPOCHS].probes())  # type: ignore[type-var]
    iterations: Any = max(axes[ITERATIONS_PER_EPOCH].probes())  # type: ignore[type-var]
    smallest = Geometry(patch_size=(1,), divisors=(1,), batch_size=1)
    resolve(smallest, Axes(), epochs=epochs, iterations_per_epoch=iterations)


def check_first_phase(axes: Mapping[str, Domain]) -> None:
    """Check what data curricula the domains allow together.

    Raises:
        InvalidInputError: a first phase longer than the shortest training, or fractions so near to 0 that no number of
            cases is enough.
    """
    fractions = axes[PDL_FRACTION]
    if isinstance(fractions, Interval) and fractions.low == 0:
        legal = "an interval that starts above 0, or a list: next to 0 no case is left"
        raise InvalidInputError(field=PDL_FRACTION, received=fractions.to_json(), legal=legal)
    epochs: Any = min(axes[EPOCHS].probes())  # type: ignore[type-var]
    for pdl_epochs in axes[PDL_EPOCHS].probes():
        if isinstance(pdl_epochs, int):
            phase_iterations(pdl_epochs, epochs=epochs, iterations_per_epoch=1)


def as_dataset(written: Any) -> Any:
    """A dataset as given: digits in quotes or on the command line are an id."""
    return int(written) if isinstance(written, str) and re.fullmatch(r"[0-9]{1,5}", written) else written


def _check_dataset(dataset: object) -> None:
    named = isinstance(dataset, str) and re.fullmatch(r"Dataset[0-9]{3,5}_.+", dataset)
    numbered = isinstance(dataset, int) and is_whole(dataset) and 1 <= dataset <= LARGEST_DATASET_ID
    if dataset is not None and not named and not numbered:
        legal = f"an id from 1 to {LARGEST_DATASET_ID} or a full name such as Dataset004_Hippocampus"
        raise InvalidInputError(field=DATASET, received=dataset, legal=legal)

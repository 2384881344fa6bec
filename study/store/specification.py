"""The specification of a trial: everything that decides a result; its hash is the trial's identity.

The same spec run twice is the same trial. Identity is taken over the resolved stage table, not the axes: two points
that resolve to the same table are the same trial.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Self, TypeVar

from study.common import files
from study.common.errors import InvalidInputError, check_choice, check_name, check_range, is_whole
from study.common.serialize import canonical, record_to_json, sha256_of_parts
from study.common.setting import Name, Setting, settings_of
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import Curriculum
from study.curriculum.data_curriculum import DataCurriculum
from study.curriculum.schemes import Axes
from study.store.readings import ALWAYS
from study.store.training_settings import POLYNOMIAL
from study.store.training_settings import TrainingSettings as TrainingSettings

PLANS = Setting(
    name="plans",
    default=None,
    kind=Name(of="prepared plans", such_as="nnUNetPlans"),
    label="Plans",
    meaning="name of the nnU-Net plans",
    details="network, full patch and batch, on whose geometry each point's curriculum is resolved; a list is an axis. "
    "A default is looked up when the study is made, and kept",
    shown_default="the dataset's only ones, else `nnUNetPlans`",
    told="{}",
    cost="of a network of its own: nothing is carried from the times of one plan to another's. Plans of `ResEncM`, "
    "`ResEncL` and `ResEncXL` aim at 8, 24 and 40 GB of a GPU's memory",
    source="nnU-Net's planners; ResEnc Isensee et al., MICCAI 2024",
)
"""Of a study and a trial: not among a curriculum's axes or a training's settings, and defined as they are."""
METERS = ("codecarbon", "none")
TRIAL_ID_LENGTH = 12
# Training settings added since the first trials were named.
_ADDED = (
    "stop_at_dice",
    "augmentation",
    "learning_rate_schedule",
    "learning_rate_exponent",
    "learning_rate_scaling",
    "augmentation_preset",
    "normalization",
)
# What trials of the same training differ in; the first of these are no part of the identity.
_OWN = ("scheme", "axes", "fold", "seed", "split_sha256")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Energy:
    """How energy is measured and turned into CO2.

    Attributes:
        meter: `codecarbon` or `none`.
        country: ISO 3166 alpha-3 code of the grid, None for the world's average. Only its shape is checked here,
            `meter.check_country` knows the grids.
        pue: power usage effectiveness of the data centre, 1 to 10.

    Raises:
        InvalidInputError: a field is outside its range.
    """

    meter: str = "codecarbon"
    country: str | None = None
    pue: float = 1.0

    def __post_init__(self) -> None:
        check_choice("energy.meter", self.meter, METERS)
        check_range("energy.pue", self.pue, 1, 10)
        if self.country is not None and not re.fullmatch(r"[A-Z]{3}", str(self.country)):
            legal = "a three-letter ISO 3166 code such as FRA or DEU, or null for the world's average"
            raise InvalidInputError(field="energy.country", received=self.country, legal=legal)


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Everything that decides a trial's result.

    Attributes:
        dataset: nnU-Net's name, `Dataset004_Hippocampus`.
        plans: name of the plans, `nnUNetPlans`.
        configuration: `3d_fullres`, …
        fold: of the dataset's cross-validation split.
        seed: of weights, batches and random draws.
        scheme: name the axes started from; a label, not part of the identity.
        axes: the point of the search space; kept for analysis, not part of the identity.
        curriculum: the resolved stage table.
        training: resolved settings.
        plans_sha256: of the plans' content.
        split_sha256: of the fold's training and validation cases.
        data: which training cases come first, None for all throughout.
        imported: nnU-Net's trainer of a run that this project did not train, else None.
    """

    dataset: str
    plans: str
    configuration: str
    fold: int
    seed: int
    scheme: str
    axes: Axes
    curriculum: Curriculum
    training: TrainingSettings
    plans_sha256: str
    split_sha256: str
    data: DataCurriculum | None = None
    imported: str | None = None

    def __post_init__(self) -> None:
        for name in ("dataset", "plans", "configuration"):
            check_name(name, getattr(self, name))
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in ("fold", "seed"):
            if not is_whole(getattr(self, name)) or getattr(self, name) < 0:
                raise InvalidInputError(field=name, received=getattr(self, name), legal="a whole number of at least 0")

    @property
    def iterations_per_epoch(self) -> int:
        """Iterations per epoch after the budget."""
        return self.curriculum.total_iterations // self.training.epochs

    def stopped_at(self, iterations: int) -> int | None:
        """The iteration that a finished training of so many stopped at before its end; None at its end."""
        return iterations if iterations < self.curriculum.total_iterations else None

    def identity(self) -> dict[str, Any]:
        """The part of the spec that decides the result, as JSON. Without random draws the curriculum needs no seed."""
        return {**self._identity, **{part: {**self._identity[part]} for part in ("curriculum", "training")}}

    @cached_property
    def _identity(self) -> dict[str, Any]:
        data = {name: value for name, value in self._plain.items() if name not in ("scheme", "axes")}
        data |= {part: dict(data[part]) for part in ("curriculum", "training")}
        if not self.curriculum.random_draws:
            del data["curriculum"]["seed"]
        # Added since the first trials were named: who does not use them keeps the name.
        for name in ("data", "imported"):
            if data[name] is None:
                del data[name]
        for name in self._idle_settings():
            del data["training"][name]
        if self.curriculum.draws_as_rounded(self.training.foreground_oversampling or 0.0):
            del data["curriculum"]["volume_rule"]
        data["training"]["iterations_per_epoch"] = self.iterations_per_epoch
        # A boolean when the first trials were named; where compiling pays is the machine's affair.
        data["training"]["compile_network"] = self.training.compile_network == ALWAYS
        return data

    def _idle_settings(self) -> set[str]:
        """Settings that are as before there was a choice, or that decide nothing beside the others."""
        training, batches = self.training, {stage.batch_size for stage in self.curriculum.stages}
        idle = {name for name in _ADDED if getattr(training, name) == settings_of(TrainingSettings)[name].default}
        if training.learning_rate_schedule not in POLYNOMIAL:
            idle.add("learning_rate_exponent")
        if batches == {self.curriculum.geometry.batch_size}:
            idle.add("learning_rate_scaling")
        return idle

    @cached_property
    def trial_id(self) -> str:
        """First twelve hexadecimal digits of the SHA-256 of the identity."""
        return sha256_of_parts(self.canonical)[:TRIAL_ID_LENGTH]

    @cached_property
    def canonical(self) -> dict[str, str]:
        """The parts of the identity by name, each as canonical JSON; read only."""
        return {name: canonical(part) for name, part in self._identity.items()}

    def to_json(self) -> dict[str, Any]:
        """The whole spec as plain JSON."""
        return {name: value for name, value in self._plain.items() if name != "imported" or value is not None}

    @cached_property
    def _plain(self) -> dict[str, Any]:
        """Read only, as `_identity`: two identities are taken of each of thousands of trials."""
        return record_to_json(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        parts = {
            "axes": _settings(Axes, data["axes"]),
            "curriculum": Curriculum.from_json(data["curriculum"]),
            "training": _settings(TrainingSettings, data["training"]),
            "data": DataCurriculum.from_json(data.get("data")),
        }
        made = cls(**{**data, **parts})
        # As it is written, but for what has defaults or several forms; the settings are plain.
        vars(made)["_plain"] = {
            **data,
            "axes": {**vars(made.axes)},
            "curriculum": {**data["curriculum"], **_written_anew(made.curriculum)},
            "training": {**vars(made.training)},
            "data": None if made.data is None else record_to_json(made.data),
            "imported": made.imported,
        }
        return made

    @classmethod
    def from_file(cls, content: bytes) -> Self:
        """What a file holds; of thousands of trials most differ in these alone, and the rest of them is read once."""
        with suppress(*files.DAMAGE):
            parts = files.members(content)
            values = {name: _value(parts.pop(name)) for name in _OWN}
            like, own = _like(tuple(parts.items())), {name: value for name, (value, _) in values.items()}
            own["canonical"] = {**like.canonical, **{name: values[name][1] for name in _OWN[2:]}}
            own["axes"] = _settings(Axes, own["axes"])
            made = object.__new__(cls)
            vars(made).update(vars(like), **own)
            made._check_numbers()
            return made
        return cls.from_json(files.parsed(content))


@lru_cache(maxsize=4096)
def _value(text: str) -> tuple[Any, str]:
    """A member of a file, read only, and its canonical text."""
    value = json.loads(text)
    return value, canonical(value)


@lru_cache(maxsize=4096)
def _like(parts: tuple[tuple[str, str], ...]) -> TrialSpec:
    data = {name: json.loads(text) for name, text in parts}
    made = TrialSpec.from_json({**data, "scheme": "", "axes": {}, "fold": 0, "seed": 0, "split_sha256": ""})
    vars(made)["canonical"] = made.canonical
    # Those are of the blanks.
    del vars(made)["_plain"], vars(made)["_identity"]
    return made


def _settings(cls: type[_T], values: Mapping[str, Any]) -> _T:
    """Settings, checked once: thousands of trials have the same."""
    try:
        return _checked(cls, **values)  # type: ignore[no-any-return,arg-type]
    except TypeError:  # a list, say, which the check refuses in its own words
        return cls(**values)


def _written_anew(curriculum: Curriculum) -> dict[str, Any]:
    return {"geometry": _plain_geometry(curriculum.geometry), "volume_rule": curriculum.volume_rule}


@lru_cache(maxsize=64)
def _plain_geometry(geometry: Geometry) -> dict[str, Any]:
    return record_to_json(geometry)


@lru_cache(maxsize=4096, typed=True)
def _checked(cls: Any, **values: Any) -> Any:
    return cls(**values)

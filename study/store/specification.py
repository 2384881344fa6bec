"""The specification of a trial: everything that decides a result; its hash is the trial's identity.

The same spec run twice is the same trial. Identity is taken over the resolved stage table, not the axes: two points
that resolve to the same table are the same trial.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, Self, TypeVar

from study.common.checks import check_choice, check_name, check_range, is_whole
from study.common.errors import InvalidInputError
from study.common.serialize import canonical, record_to_json, sha256_of_parts
from study.common.setting import Count, Number, Switch, Words, check_settings, setting, settings_of
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import Curriculum
from study.curriculum.data_curriculum import DataCurriculum
from study.curriculum.schemes import Axes
from study.store.readings import ALWAYS, AUTO, COMPILE_CHOICES, NEVER, CompileChoice

Optimizer = Literal["sgd", "adamw"]
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "adamw")
LEARNING_RATE_SCHEDULES = ("poly", "cosine", "warmup", "one-cycle")
LEARNING_RATE_SCALINGS: Mapping[str, float] = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}
"""Name -> exponent of the stage's batch size relative to the plan's."""
# Schedules that the exponent shapes.
POLYNOMIAL = ("poly", "warmup")
AugmentationRule = Literal["full-patch", "per-stage"]
AUGMENTATION_RULES: tuple[AugmentationRule, ...] = ("full-patch", "per-stage")
# nnU-Net's own for SGD. For AdamW, what trained a small plan in a few hundred iterations.
DEFAULT_LEARNING_RATES: Mapping[str, float] = {"sgd": 1e-2, "adamw": 3e-3}
METERS = ("codecarbon", "none")
DEFAULT_MOMENTA: Mapping[str, float] = {"sgd": 0.99, "adamw": 0.9}
# nnU-Net's 0.33 for constant patch size, one half for curricula (MICCAI 2024, section 2.3).
CONSTANT_FOREGROUND_OVERSAMPLING = 0.33
CURRICULUM_FOREGROUND_OVERSAMPLING = 0.5
TRIAL_ID_LENGTH = 12
# Training settings added since the first trials were named.
_ADDED = (
    "stop_at_dice",
    "augmentation",
    "learning_rate_schedule",
    "learning_rate_exponent",
    "learning_rate_scaling",
)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a trial trains, besides its curriculum. The defaults are nnU-Net's; None takes what others make of it.

    Raises:
        InvalidInputError: a value is outside its range.
    """

    optimizer: Optimizer = setting(
        "sgd",
        Words(words=OPTIMIZERS),
        "Optimizer",
        "SGD with Nesterov momentum, or AdamW",
        details="SGD with Nesterov momentum, as nnU-Net; AdamW learns in far fewer iterations",
        told="{}",
    )
    initial_learning_rate: float | None = setting(
        None,
        Number(low=0, high=10, above_low=True),
        "Learning rate",
        "before the first epoch; it falls as a polynomial",
        details="highest learning rate of the schedule, at the plan's batch size",
        shown_default="`sgd` 1e-2, `adamw` 3e-3",
        logarithmic=True,
        told="rate {:g}",
    )
    learning_rate_schedule: str = setting(
        "poly",
        Words(words=LEARNING_RATE_SCHEDULES),
        "Learning rate schedule",
        "how the learning rate goes with the iterations",
        details="share of `initial_learning_rate` at t, the share of the iterations done. `poly`: (1 - t)^exponent, a "
        "step an epoch as in nnU-Net; the others change at every iteration. `cosine`: (1 + cos πt)/2. `warmup`: up "
        "in a line over the first 5 %, then `poly` over the rest. `one-cycle`: 4 % up to 100 % over the first 30 %, "
        "then down to 0.0004 %, along cosines; momentum stays",
        told="{} rate",
        cost="none",
        source="`poly`, and the shapes of `cosine` and `warmup`, nnU-Net 2.8; `one-cycle` Smith and Topin 2019 with "
        "PyTorch's defaults",
    )
    learning_rate_exponent: float = setting(
        0.9,
        Number(low=0, high=10),
        "Learning rate exponent",
        "of the polynomial decay",
        details="of `poly` and `warmup`: 0 is a constant rate, 1 a line; idle in the other schedules",
        told="exponent {:g}",
        cost="none",
        source="0.9 is nnU-Net's",
    )
    learning_rate_scaling: str = setting(
        "none",
        Words(words=tuple(LEARNING_RATE_SCALINGS)),
        "Learning rate scaling",
        "of the learning rate with a stage's batch size",
        details="multiplies a stage's learning rate by its batch size over the plan's, `linear`, or by the root of "
        "that, `sqrt`; idle where every stage has the plan's batch size",
        told="{} scaling",
        cost="none",
        source="`linear` Goyal et al. 2017, `sqrt` Krizhevsky 2014",
    )
    momentum: float | None = setting(
        None,
        Number(low=0, high=0.9999),
        "Momentum",
        "of SGD, or the first beta of AdamW",
        shown_default="`sgd` 0.99, `adamw` 0.9",
        told="momentum {:g}",
    )
    weight_decay: float = setting(
        3e-5, Number(low=0, high=10), "Weight decay", "as the optimizer defines it", logarithmic=True, told="decay {:g}"
    )
    epochs: int = setting(1000, Count(), "Epochs", "steps of the learning rate", told="{} epochs")
    iterations_per_epoch: int = setting(
        250,
        Count(),
        "Iterations per epoch",
        "at full budget",
        details="at full budget; epochs × iterations may be ten million at most",
        told="{} iterations per epoch",
    )
    foreground_oversampling: float | None = setting(
        None,
        Number(low=0, high=1),
        "Foreground share",
        "of samples centred on foreground",
        details="share of samples centred on foreground",
        shown_default="0.33 for constant patch size, else 0.5",
        told="{:.0%} foreground",
    )
    validation_every_epochs: int = setting(
        1,
        Count(),
        "Validation every",
        "epochs between online validations",
        unit="epochs",
        details="how often the fixed validation batches are evaluated; the last epoch always is",
    )
    validation_batches: int = setting(
        50,
        Count(),
        "Validation batches",
        "in one online validation",
        details="how many there are, at the full patch",
    )
    test_time_mirroring: bool = setting(
        True,
        Switch(),
        "Mirroring",
        "in the final validation",
        details="whether the final validation predicts with mirroring",
        option="--no-mirroring",
    )
    compile_network: CompileChoice = setting(
        AUTO,
        Words(words=COMPILE_CHOICES),
        "Compiled",
        "torch.compile on CUDA; auto is where it saves more time than compiling with an empty cache takes",
        details="`torch.compile` on CUDA. `auto` compiles a stage when what is left of it saves more time than "
        "compiling takes. `true` and `false` are read as `always` and `never`",
        option="--compile",
        bare=ALWAYS,
    )
    stop_at_dice: float | None = setting(
        None,
        Number(low=0, high=1, above_low=True),
        "Stop at Dice",
        "smoothed validation Dice that ends the training; missing: none does",
        details="end a training after the first epoch whose validation Dice is at least that. It is the mean of the "
        "last three evaluations of the fixed validation batches, which are patches: not the criterion of the "
        "PDL poster, whose Dice is of the validation set. The learning rate falls as if nothing ended; the "
        "final validation follows as usual",
        shown_default="`null`",
        told="to Dice {:g}",
    )
    augmentation: AugmentationRule = setting(
        "full-patch",
        Words(words=AUGMENTATION_RULES),
        "Augmentation",
        "rotation and dummy 2D decided at the full patch, or per stage as the published code does",
        details="where nnU-Net's rule for flat patches (dummy 2D, range of rotation) is asked: once at the full "
        "patch, so that stages differ in sizes alone; or anew for each stage's patch, as the published code "
        "does. On the Decathlon's pancreas task the two differ in 18.6 % of PGPS' iterations, on patches "
        "that are nowhere flat in none",
        told="augmentation {}",
    )

    def __post_init__(self) -> None:
        if isinstance(self.compile_network, bool):
            object.__setattr__(self, "compile_network", ALWAYS if self.compile_network else NEVER)
        check_settings(self)

    def resolved(self, *, constant_patch_size: bool) -> TrainingSettings:
        """The same settings with every default that depends on others filled in."""
        oversampling = CONSTANT_FOREGROUND_OVERSAMPLING if constant_patch_size else CURRICULUM_FOREGROUND_OVERSAMPLING
        return replace(
            self,
            initial_learning_rate=_given(self.initial_learning_rate, DEFAULT_LEARNING_RATES[self.optimizer]),
            momentum=_given(self.momentum, DEFAULT_MOMENTA[self.optimizer]),
            foreground_oversampling=_given(self.foreground_oversampling, oversampling),
        )


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


def _given(value: float | None, default: float) -> float:
    return default if value is None else value

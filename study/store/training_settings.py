"""How a trial trains, besides its curriculum: every setting with what is legal, its meaning, cost and source.

The learning rate of every iteration: a pure function of its index, so that a training resumes at any of them.

Two factors of the initial rate: the schedule's share, and the scaling with the batch size of the iteration's stage.
No torch: the optimizer is handed its rate as a number, outside of whatever a GPU captures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from study.common.setting import Count, Number, Switch, Words, check_settings, setting
from study.curriculum.curriculum import Curriculum
from study.store.readings import ALWAYS, AUTO, COMPILE_CHOICES, NEVER, CompileChoice

Optimizer = Literal["sgd", "adamw"]
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "adamw")
LEARNING_RATE_SCHEDULES = ("poly", "cosine", "warmup", "one-cycle")
LEARNING_RATE_SCALINGS: Mapping[str, float] = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}
"""Name -> exponent of the stage's batch size relative to the plan's."""
# Schedules that the exponent shapes.
POLYNOMIAL = ("poly", "warmup")
NORMALIZATIONS = ("instance", "batch", "group")
# Full-patch batches of training cases that statistics of BatchNorm are taken from before a validation.
STATISTICS_BATCHES = 20
NORMALIZATION_GROUPS = 8
# Whether each mirrors, in training and hence in prediction.
AUGMENTATION_PRESETS: Mapping[str, bool] = {"default": True, "da5": True, "none": False, "no-mirroring": False}
AugmentationRule = Literal["full-patch", "per-stage"]
AUGMENTATION_RULES: tuple[AugmentationRule, ...] = ("full-patch", "per-stage")
# nnU-Net's own for SGD. For AdamW, what trained a small plan in a few hundred iterations.
DEFAULT_LEARNING_RATES: Mapping[str, float] = {"sgd": 1e-2, "adamw": 3e-3}
DEFAULT_MOMENTA: Mapping[str, float] = {"sgd": 0.99, "adamw": 0.9}
# nnU-Net's 0.33 for constant patch size, one half for curricula (MICCAI 2024, section 2.3).
CONSTANT_FOREGROUND_OVERSAMPLING = 0.33
CURRICULUM_FOREGROUND_OVERSAMPLING = 0.5


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
    augmentation_preset: str = setting(
        "default",
        Words(words=tuple(AUGMENTATION_PRESETS)),
        "Augmentation preset",
        "which of nnU-Net's augmentations",
        details="`default` is nnU-Net's; `da5` more and stronger transforms; `none` crops alone; `no-mirroring` the "
        "default's others. The last two predict without mirroring, too, whatever `test_time_mirroring` says. On axes "
        "of less than six voxels, where `da5` of nnU-Net fails, its rectangles and gradients are one voxel wide at "
        "least. `augmentation` says where the rule for flat patches is asked, of any of them",
        told="{} augmentation",
        cost="of the processor's time for batches, not of the GPU's: for 32×32×32 voxels `da5` takes 2.7 times the "
        "default's, `none` a seventh of it; without mirroring the final validation is up to eight times as fast",
        source="nnU-Net 2.8, its trainers `DA5`, `NoDA` and `NoMirroring`",
    )
    normalization: str = setting(
        "instance",
        Words(words=NORMALIZATIONS),
        "Normalization",
        "layers of the network",
        details="`instance` leaves the plan as it is, which is InstanceNorm in all of nnU-Net's. `batch`: BatchNorm; "
        f"before each online validation its running statistics are taken anew, from {STATISTICS_BATCHES} fixed "
        f"batches of training cases at the full patch, not augmented. `group`: GroupNorm of {NORMALIZATION_GROUPS} "
        "groups, or the next smaller number that divides the channels. Stages are those of the plan all the same",
        told="{} norm",
        cost=f"`batch` {STATISTICS_BATCHES} forward passes at the full patch for each online validation, counted there",
        source="BatchNorm Ioffe and Szegedy 2015, statistics taken anew Wu and Johnson 2021; GroupNorm Wu and He 2018",
    )

    @property
    def predicts_mirrored(self) -> bool:
        """Whether predictions are means over mirrored images: where that is asked for, and was trained with."""
        return self.test_time_mirroring and AUGMENTATION_PRESETS[self.augmentation_preset]

    @property
    def statistics_batches(self) -> int:
        """Batches before each online validation that statistics of normalization are taken from."""
        return STATISTICS_BATCHES if self.normalization == "batch" else 0

    @property
    def full_patch_batches(self) -> int:
        """Forward passes at the full patch of one online validation."""
        return self.validation_batches + self.statistics_batches

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


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


# That of nnU-Net's trainer with warm-up: 50 of 1000 epochs.
WARM_UP_SHARE = 0.05
# PyTorch's defaults of `OneCycleLR`: share of the iterations that rise, highest over first, first over last.
RISING_SHARE, FIRST_DIVISOR, LAST_DIVISOR = 0.3, 25.0, 1e4


def scheduled_share(settings: TrainingSettings, iteration: int, total: int) -> float:
    """Share of the initial learning rate that the schedule leaves to an iteration of 0 … total - 1, 0 to 1."""
    exponent = settings.learning_rate_exponent
    if settings.learning_rate_schedule == "cosine":
        return _between(1.0, 0.0, iteration / total)
    if settings.learning_rate_schedule == "one-cycle":
        return _one_cycle(iteration, total)
    if settings.learning_rate_schedule == "warmup":
        rising = max(1, round(WARM_UP_SHARE * total))
        if iteration < rising:
            return (iteration + 1) / rising
        return float((1 - (iteration - rising) / (total - rising)) ** exponent)
    epoch = iteration // (total // settings.epochs)
    return float((1 - epoch / settings.epochs) ** exponent)


def _one_cycle(iteration: int, total: int) -> float:
    first = 1 / FIRST_DIVISOR
    top = max(0.0, RISING_SHARE * total - 1)
    if iteration < top:
        return _between(first, 1.0, iteration / top)
    return _between(1.0, first / LAST_DIVISOR, (iteration - top) / max(1.0, total - 1 - top))


def _between(start: float, end: float, part: float) -> float:
    """Half a cosine from start to end."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


class LearningRates:
    """Sets the learning rate of a training; nnU-Net calls `step` as its scheduler's.

    Args:
        settings: resolved.
        curriculum: whose stages have the batch sizes.
        optimizer: whose groups of parameters are told; a checkpoint that is loaded gives it others.
    """

    def __init__(self, settings: TrainingSettings, curriculum: Curriculum, optimizer: Any = None) -> None:
        self._settings, self._curriculum, self._optimizer = settings, curriculum, optimizer

    def __call__(self, iteration: int) -> float:
        """The rate of an iteration."""
        curriculum, settings = self._curriculum, self._settings
        larger = curriculum.stage_at(iteration).batch_size / curriculum.geometry.batch_size
        scale = larger ** LEARNING_RATE_SCALINGS[settings.learning_rate_scaling]
        share = scheduled_share(settings, iteration, curriculum.total_iterations)
        return float((settings.initial_learning_rate or 0.0) * share * scale)

    def at(self, iteration: int) -> None:
        """Set the rate for an iteration."""
        rate = self(iteration)
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def step(self, epoch: int) -> None:
        """Set the rate for the first iteration of an epoch."""
        self.at(epoch * self._curriculum.total_iterations // self._settings.epochs)

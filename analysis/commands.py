"""The exact commands that train a configuration and predict with it, every setting spelled out.

`python -m study trial` fills in defaults; here nothing is left to them, so that a command means the same training with
another version's defaults.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd

from analysis.points import axes_of, training_of
from study.curriculum import SCHEMES, Axes, resolve
from study.records import TrainingSettings, TrialSpec
from study.setting import settings_of
from study.trial_folder import TrialFolder

NNUNET_EPOCHS, NNUNET_ITERATIONS_PER_EPOCH = 1000, 250
# Its folder inside `--data`.
PREPARED_NAME = "nnUNet_preprocessed"
_TRAIN = ("python", "-m", "study", "trial")
_LINE_LETTERS = 110


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training is, as far as its command says it.

    Attributes:
        dataset, plans, configuration: nnU-Net's names.
        fold, seed: of the training.
        scheme: name that the axes started from.
        axes: point of the search space of curricula.
        training: settings, none of them left open.
    """

    dataset: str
    plans: str
    configuration: str
    fold: int
    seed: int
    scheme: str
    axes: Axes
    training: TrainingSettings

    @classmethod
    def of_spec(cls, spec: TrialSpec) -> Self:
        """That of a trial's specification."""
        return cls(**{name: getattr(spec, name) for name in cls.__dataclass_fields__})

    @classmethod
    def of_row(cls, trial: pd.Series[Any]) -> Self:
        """That of a row of the table of trials."""
        fields: dict[str, Any] = {name: trial[name] for name in ("dataset", "plans", "configuration", "scheme")}
        fields |= {name: int(trial[name]) for name in ("fold", "seed")}
        return cls(**fields, axes=Axes(**axes_of(trial)), training=TrainingSettings(**training_of(trial)))

    def at_full_budget(self) -> Self:
        """The same with every iteration of its epochs."""
        return replace(self, axes=replace(self.axes, budget=1.0))

    def at_nnunet_length(self) -> Self:
        """The same curriculum over nnU-Net's 1000 epochs of 250 iterations."""
        training = replace(self.training, epochs=NNUNET_EPOCHS, iterations_per_epoch=NNUNET_ITERATIONS_PER_EPOCH)
        return replace(self.at_full_budget(), training=training)

    @property
    def is_short(self) -> bool:
        """Whether it is shorter than nnU-Net's own training, even at full budget."""
        return self.training.epochs * self.training.iterations_per_epoch < NNUNET_EPOCHS * NNUNET_ITERATIONS_PER_EPOCH


def spec_of(recipe: Recipe, like: TrialSpec) -> TrialSpec:
    """The specification of a recipe for the same network and split as another trial's."""
    training = recipe.training
    curriculum = resolve(
        like.curriculum.geometry,
        recipe.axes,
        epochs=training.epochs,
        iterations_per_epoch=training.iterations_per_epoch,
        seed=recipe.seed,
    )
    return replace(like, axes=recipe.axes, training=training, seed=recipe.seed, curriculum=curriculum)


def trial_command(recipe: Recipe, *, out: Path | str, data: Path | None = None) -> str:
    """The command that trains a recipe, in one line.

    Args:
        recipe: what to train.
        out: study folder or URL to train into.
        data: folder with nnU-Net's folders; None leaves it to nnU-Net's variables.
    """
    words = [*_TRAIN, *(["--data", str(data)] if data else []), "--out", str(out), *_flags(recipe)]
    return shlex.join(words)


def recorded_data(folder: TrialFolder | None) -> Path | None:
    """The `--data` that a trial was trained with, as far as it says; None where nnU-Net's variables were used."""
    attempts = folder.attempts() if folder is not None else []
    preprocessed = Path(attempts[-1].preprocessed or "") if attempts else Path()
    return preprocessed.parent if preprocessed.name == PREPARED_NAME else None


def predict_after(spec: TrialSpec, *, out: Path | str, device: str) -> str | None:
    """The command that predicts with a trial that is yet to be trained.

    Args:
        spec: of that trial.
        out: study folder it is trained into; with a URL there is no command before the model is fetched, hence None.
        device: `cpu` or `cuda`, on which to predict.
    """
    from study.prediction import predict_command

    if not isinstance(out, Path):
        return None
    command = predict_command(TrialFolder(out / "trials" / spec.trial_id), spec)
    # A trial that has begun there already says where it trains.
    return command if " -device " in command else f"{command} -device {device}"


def folded(command: str) -> str:
    """A long command over several lines that a shell reads as one."""
    lines = [""]
    for word in _pairs(command):
        if lines[-1] and len(lines[-1]) + len(word) > _LINE_LETTERS:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n    ".join(lines)


def _pairs(command: str) -> Iterator[str]:
    """Words of a command, an option together with its value."""
    words = _quoted(command)
    pending: list[str] = []
    for word in words:
        if word.startswith("-") and pending:
            yield " ".join(pending)
            pending = []
        pending.append(word)
    yield " ".join(pending)


def _quoted(command: str) -> list[str]:
    """Words as a shell needs them; leading settings of variables stay as they are."""
    words: list[str] = []
    for word in shlex.split(command):
        name, equals, value = word.partition("=")
        assignment = equals and name.isidentifier() and not any("=" not in earlier for earlier in words)
        words.append(f"{name}={shlex.quote(value)}" if assignment else shlex.quote(word))
    return words


def _flags(recipe: Recipe) -> Iterator[str]:
    yield from ("--dataset", recipe.dataset, "--plans", recipe.plans, "--configuration", recipe.configuration)
    yield from ("--fold", str(recipe.fold), "--seed", str(recipe.seed), "--scheme", _scheme(recipe))
    for record, values in ((Axes, recipe.axes), (TrainingSettings, recipe.training)):
        for name, each in settings_of(record).items():
            if recipe.axes.needs_ranking or not name.startswith("pdl_"):
                yield from each.words(getattr(values, name))


def _scheme(recipe: Recipe) -> str:
    """The scheme that the axes started from, or one with its way of cropping, which no option sets."""
    names = sorted(SCHEMES, key=lambda name: name != recipe.scheme)
    return next(name for name in names if SCHEMES[name].shared_crops == recipe.axes.shared_crops)

"""The exact commands that train a configuration and predict with it, every setting spelled out.

`python -m study trial` fills in defaults; here nothing is left to them, so that a command means the same training with
another version's defaults.

A recommendation for the terminal: the JSON of `advice` in lines, the stage table as a table, commands to copy.

A model card: what a model that leaves its study was trained on and how, what it reaches and what that cost.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd

from analysis.fronts.captions import amount_of, interval_cautions, lowered, over_seeds
from analysis.tables.columns import OBJECTIVES, Objective
from analysis.tables.format import counted
from analysis.tables.points import axes_of, training_of
from study.common.setting import settings_of
from study.common.terminal import say
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import SCHEMES, Axes
from study.store.specification import TrainingSettings, TrialSpec
from study.store.trial_folder import TrialFolder

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
    from study.store.prediction import predict_command

    if not isinstance(out, Path):
        return None
    command = predict_command(TrialFolder(out / "trials" / spec.trial_id), spec)
    # A trial that has begun there already says where it trains.
    return command if " -device " in command else f"{command} -device {device}"


def folded(command: str) -> str:
    """A long command over several lines that a shell reads as one; an option stands beside its value."""
    lines, parts = [""], list[str]()
    for word in shlex.split(command):
        name, equals, value = word.partition("=")
        # A shell takes a quoted whole for no setting of a variable.
        quoted = f"{name}={shlex.quote(value)}" if equals and name.isidentifier() else shlex.quote(word)
        if quoted.startswith("-") or not parts:
            parts.append(quoted)
        else:
            parts[-1] += f" {quoted}"
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) > _LINE_LETTERS:
            lines.append("")
        lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n    ".join(lines)


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
    return next(name for name in names if SCHEMES[name].axes.shared_crops == recipe.axes.shared_crops)


_SHOWN_COSTS = ("runtime_seconds", "energy_kwh", "co2_kg", "total_seconds", "voxels")
_MOST_ALTERNATIVES = 5
_THEN = "then predict with it"
_PURPOSES = {
    "predict": "predict with the model of its best trial, {trial_id} (replace INPUT and OUTPUT)",
    "train_again": "train this very configuration again",
    "train_full_budget": "train the same curriculum at full length, budget 1",
    "train_nnunet_length": "train the same at nnU-Net's length, 1000 epochs of 250 iterations, all else as studied",
}


def print_advice(found: Mapping[str, Any], cost: Objective) -> None:
    """Print what `advice.advice` returned.

    Args:
        found: it.
        cost: the objective that decided.
    """
    for line in (*_head(found), *_commands(found)):
        say(line)
    _print_stages(found["configuration"]["stages"])
    for line in (*_alternatives(found, cost), "", *found["remarks"]):
        say(line)


def _head(found: Mapping[str, Any]) -> Iterator[str]:
    configuration, dice = found["configuration"], found["dice"]
    yield f"{configuration['summary']}: {found['reason']}"
    trials = ", ".join(f"{one['trial_id']} (fold {one['fold']}, seed {one['seed']})" for one in found["trials"])
    yield f"dataset   {found['dataset']}, {configuration['plans']}, {configuration['configuration']}"
    yield f"trials    {trials}"
    yield f"Dice      {dice['mean']:.4f} expected, {_interval(dice)}"
    costs = found["cost_per_fold"]
    measured = [name for name in _SHOWN_COSTS if costs[name] is not None]
    words = [f"{lowered(OBJECTIVES[name].label)} {amount_of(OBJECTIVES[name], costs[name])}" for name in measured]
    unmeasured = "" if len(measured) == len(_SHOWN_COSTS) else "; energy and CO₂ not measured in every trial"
    yield f"per fold  {', '.join(words)}{unmeasured}"
    yield f"hardware  {found['hardware']}"
    training = configuration["training"]
    length = f"{training['epochs']} epochs of {training['iterations_per_epoch']} iterations"
    yield (
        f"training  {training['optimizer']}, learning rate {training['initial_learning_rate']:g}, {length}, "
        f"of which the budget trains {configuration['axes']['budget']:.4g}"
    )


def _interval(dice: Mapping[str, Any]) -> str:
    folds = counted(len(dice["folds"]), "fold")
    if dice["low"] is None:
        return f"without an interval: {counted(dice['cases'] or 0, 'validation case')} of {folds}"
    return (
        f"{dice['confidence']:.0%} interval {dice['low']:.4f} to {dice['high']:.4f} "
        f"(over {dice['cases']} {dice['over']}, {folds})"
    )


def _print_stages(stages: list[Mapping[str, Any]]) -> None:
    from study.common.tables import TextColumn, print_table, wide_console

    rows = [("x".join(map(str, one["patch_size"])), one["batch_size"], one["first_iteration"]) for one in stages]
    cells = [(n, *row, one["iterations"]) for n, (row, one) in enumerate(zip(rows, stages, strict=True), start=1)]
    names = ("stage", "patch size", "batch size", "first iteration", "iterations")
    console = wide_console()
    console.print()
    columns = zip(names, zip(*cells, strict=True), strict=True)
    print_table(console, [TextColumn(heading=name, cells=[*map(str, one)], right=True) for name, one in columns])


def _alternatives(found: Mapping[str, Any], cost: Objective) -> Iterator[str]:
    others = found["alternatives"]
    yield ""
    if found["candidates"] == 1:
        yield "No other configuration is as cheap as allowed."
        return
    if not others:
        yield "No other configuration that is as cheap as allowed and shares its cases has a Dice like it."
        return
    yield "As cheap as allowed, and not to be told apart from it in Dice (95 % interval of the difference, same cases):"
    for one in others[:_MOST_ALTERNATIVES]:
        difference = f"{one['difference_low']:+.4f} to {one['difference_high']:+.4f}, {one['shared_cases']} cases"
        yield f"  {one['summary']}: Dice {one['dice']:.4f} ({difference}), {amount_of(cost, one[cost.name])}"
    if len(others) > _MOST_ALTERNATIVES:
        yield f"  and {len(others) - _MOST_ALTERNATIVES} more, dearer ones: see --json"


def commands_of(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What each command of an advice is for, in a line or two of words, and the command in one line."""
    for one in found["commands"]:
        cost = f"\ncost: about {one['preview']['text']}, {one['preview']['basis']}" if one.get("preview") else ""
        yield f"{_PURPOSES[one['purpose']].format(**one)}{_expectation(one)}{cost}", one["command"]
        if one.get("predict"):
            yield f"{_THEN}, trial {one['trial_id']}", one["predict"]


def _commands(found: Mapping[str, Any]) -> Iterator[str]:
    for words, command in commands_of(found):
        if not words.startswith(_THEN):
            yield ""
        yield from (f"# {line}" for line in words.splitlines())
        yield folded(command)


def _expectation(one: Mapping[str, Any]) -> str:
    if one["purpose"] == "predict":
        return ""
    iterations = f"; {one['iterations']} iterations" if one["iterations"] else ""
    if one["known_dice"] is None:
        return f"{iterations}; its Dice is not known from this study"
    return f"{iterations}; its mean Dice here is {one['known_dice']:.4f}"


# What dataset.json may say of where images come from; MSD writes the British word.
LICENCES = ("licence", "license")
_ABOUT = ("name", "description", "reference", "release")


def model_card(
    point: pd.Series[Any],
    trials: pd.DataFrame,
    description: Mapping[str, Any],
    *,
    commands: Sequence[str],
    previous_stage: str | None,
    seed_rule: str,
) -> str:
    """The card, Markdown.

    Args:
        point: of the evidence, over all of its folds and seeds.
        trials: rows of the trials whose models are in the zip.
        description: nnU-Net's dataset.json.
        commands: that predict, one after another.
        previous_stage: of a cascade, else None.
        seed_rule: which seed was taken and what was left out, in a sentence.
    """
    sections = {
        "Data": _data(point, description),
        "Training": _training(point),
        "Models": _models(trials, seed_rule),
        "Dice": _dice(point),
        "Cost": _cost(point),
        "Use": _use(commands, previous_stage),
    }
    parts = [f"# {point['dataset']}, {point['configuration']}: {point['summary']}"]
    parts += [f"## {heading}\n\n" + "\n".join(lines) for heading, lines in sections.items()]
    return "\n\n".join(parts) + "\n"


def _data(point: pd.Series[Any], description: Mapping[str, Any]) -> Iterator[str]:
    yield f"- nnU-Net dataset: `{point['dataset']}`, {description.get('numTraining', 'an unknown number of')} cases"
    for name in _ABOUT:
        if description.get(name):
            yield f"- {name}: {_line(description[name])}"
    yield f"- channels: {_line(description.get('channel_names', 'not known'))}"
    yield f"- labels: {_line(description.get('labels', 'not known'))}"
    licence = next((description[name] for name in LICENCES if description.get(name)), None)
    yield f"- licence of the data: {_line(licence) if licence else 'not known, dataset.json names none'}"


def _training(point: pd.Series[Any]) -> Iterator[str]:
    yield f"- plans `{point['plans']}`, configuration `{point['configuration']}`, point `{point['point_id']}`"
    yield f"- curriculum: {point['summary']} (scheme `{point['scheme']}`)"
    yield f"- axes: `{json.dumps(axes_of(point))}`"
    yield f"- settings: `{json.dumps(training_of(point))}`"
    yield from ("", "| stage | patch size | batch size | iterations |", "|---|---|---|---|")
    for number, stage in enumerate(json.loads(point["stage_table"]), start=1):
        size = "×".join(map(str, stage["patch_size"]))
        yield f"| {number} | {size} | {stage['batch_size']} | {stage['iterations']} |"
    yield from ("", f"Inference uses the patch of the plans. Versions: {point['versions']}.")


def _models(trials: pd.DataFrame, seed_rule: str) -> Iterator[str]:
    yield from ("| fold | seed | trial | Dice of its validation | SHA-256 of the weights |", "|---|---|---|---|---|")
    for row in trials.sort_values("fold").to_dict("records"):
        yield f"| {row['fold']} | {row['seed']} | `{row['trial_id']}` | {row['dice']:.4f} | `{row['weights_sha256']}` |"
    yield from ("", seed_rule)


def _dice(point: pd.Series[Any]) -> Iterator[str]:
    folds, seeds = counted(int(point["n_folds"]), "fold"), counted(int(point["n_seeds"]), "seed")
    yield f"Mean foreground Dice of nnU-Net's validation, over {folds} and {seeds}: {point['dice']:.4f}."
    if pd.isna(point["dice_low"]):
        yield "There is no interval: too few validation cases."
        return
    row = pd.DataFrame([point])
    over = f"{int(point['n_cases'])} validation cases{over_seeds(row)}"
    yield f"95 % interval {point['dice_low']:.4f} to {point['dice_high']:.4f}, over {over}."
    yield from interval_cautions(row)
    yield "Each fold was validated alone; nobody has measured the folds together, on cases that none of them has seen."


def _cost(point: pd.Series[Any]) -> Iterator[str]:
    yield f"Mean of one fold's training, on {point['hardware']}:"
    yield ""
    for name in _SHOWN_COSTS:
        known = not pd.isna(point[name])
        value = amount_of(OBJECTIVES[name], point[name]) if known else "not measured in every trial"
        yield f"- {lowered(OBJECTIVES[name].label)}: {value}"
    if not pd.isna(point["unmeasured"]) and point["unmeasured"]:
        yield f"- not measured: {point['unmeasured']}"
    yield f"- energy by part: {point['energy_methods']}; grid: {point['country']}, {point['carbon_rate']}"


def _use(commands: Sequence[str], previous_stage: str | None) -> Iterator[str]:
    yield "Stock nnU-Net 2.8, without the project that trained it:"
    yield from ("", *(f"    {line}" for line in ("nnUNetv2_install_pretrained_model_from_zip FILE.zip", *commands)), "")
    if previous_stage is not None:
        yield f"A cascade: the first of them needs a model of `{previous_stage}`, which is a zip of its own."
        yield "Its card says which folds it has and whether it predicts with `--disable_tta`."
    yield "No postprocessing was determined. With the dataset prepared, `nnUNetv2_find_best_configuration` does that."
    yield "Checkpoints are pickles: load only those of somebody you trust."


def _line(value: Any) -> str:
    return " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())

"""A model card: what a model that leaves its study was trained on and how, what it reaches and what that cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.fronts.captions import amount_of, interval_cautions, lowered, over_seeds
from analysis.tables.objectives import OBJECTIVES
from analysis.tables.points import axes_of, training_of
from analysis.tables.units import counted

COSTS = ("runtime_seconds", "energy_kwh", "co2_kg", "total_seconds", "voxels")
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
    for name in COSTS:
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


def seeds_in_words(seed: int, others: Sequence[int], missing: Sequence[int]) -> str:
    """Which seed a model is of, which others the point has, and the folds that have not finished with it."""
    words = f"Models of seed {seed}"
    if others:
        words += f"; the point's trials of seed{'s' * (len(others) > 1)} {_list(others)} are not in it"
    if missing:
        words += f"; without fold{'s' * (len(missing) > 1)} {_list(missing)}, finished with other seeds alone"
    return f"{words}."


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _line(value: Any) -> str:
    return " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())

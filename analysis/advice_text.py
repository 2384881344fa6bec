"""A recommendation for the terminal: the JSON of `advice` in lines, the stage table as a table, commands to copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from analysis.captions import amount_of, lowered
from analysis.commands import folded
from analysis.objectives import OBJECTIVES, Objective
from analysis.units import counted
from study.terminal import say

_SHOWN_COSTS = ("runtime_seconds", "energy_kwh", "co2_kg", "total_seconds", "voxels")
_MOST_ALTERNATIVES = 5
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
    from rich import box
    from rich.table import Table

    from study.console import wide_console

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("stage", "patch size", "batch\nsize", "first\niteration", "iterations"):
        table.add_column(name, justify="right", no_wrap=True)
    for index, stage in enumerate(stages):
        size = "x".join(map(str, stage["patch_size"]))
        cells = (index + 1, size, stage["batch_size"], stage["first_iteration"], stage["iterations"])
        table.add_row(*map(str, cells))
    console = wide_console()
    console.print()
    console.print(table)


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


def _commands(found: Mapping[str, Any]) -> Iterator[str]:
    for one in found["commands"]:
        yield ""
        yield f"# {_PURPOSES[one['purpose']].format(**one)}{_expectation(one)}"
        yield folded(one["command"])
        if one.get("predict"):
            yield f"# then predict with it, trial {one['trial_id']}"
            yield folded(one["predict"])


def _expectation(one: Mapping[str, Any]) -> str:
    if one["purpose"] == "predict":
        return ""
    iterations = f"; {one['iterations']} iterations" if one["iterations"] else ""
    if one["known_dice"] is None:
        return f"{iterations}; its Dice is not known from this study"
    return f"{iterations}; its mean Dice here is {one['known_dice']:.4f}"

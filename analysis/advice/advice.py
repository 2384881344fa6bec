"""Which configuration to take: the best Dice within a limit, or the knee of the front of Dice against a cost.

The knee is the point of the front that lies farthest above the straight line between its two ends, once the front's
Dice and cost are each scaled from 0 to 1: beyond it, more cost buys less Dice than on average along the front.

Configurations that cannot be told apart from the recommended one stand beside it: those whose paired difference of
Dice, over the cases they share, has a 95 % interval that contains 0. Each interval stands for itself.

And all that follows from it, as plain JSON for the terminal and programs: what it is, what to expect, what it costs,
the commands to run. Commands need the trials' specifications; from tables alone (a report without its study) the ids of
trials that would be trained are not known, and nothing can be predicted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.advice.text import Recipe, predict_after, recorded_data, spec_of, trial_command
from analysis.fronts.captions import (
    amount_of,
    caveats,
    constant_share,
    interval_cautions,
    left_out,
    lowered,
    over_seeds,
    states,
)
from analysis.fronts.front import Front, pareto_front
from analysis.statistics.case_dice import case_matrices
from analysis.statistics.intervals import CONFIDENCE, estimate
from analysis.statistics.study_results import StudyResults, find_trial
from analysis.tables.columns import Objective
from analysis.tables.format import counted
from analysis.tables.frame import FINISHED
from analysis.tables.methods import IMPORTED, point_id
from analysis.tables.points import axes_of, training_of
from study.common.errors import InvalidInputError, MissingDataError, StudyError
from study.store.calibration import hardware_of, network_of
from study.store.ledger import Ledger
from study.store.prediction import predict_command
from study.store.preview import Basis, amounts_words, basis_for, trained_in
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One configuration and why.

    Attributes:
        point: a row of the points.
        reason: why it, in a sentence.
        front: Dice against the cost that decided.
        candidates: how many points it was chosen from.
        alternatives: points as cheap as allowed whose Dice cannot be told apart from it, by rising cost, with
            `difference_low` and `difference_high` (their Dice minus its, 95 %) and `shared_cases`.
        not_compared: how many others share no fold, or fewer than two cases of one, with it.
    """

    point: pd.Series[Any]
    reason: str
    front: Front
    candidates: int
    alternatives: pd.DataFrame
    not_compared: int


def best_within(results: StudyResults, cost: Objective, most: float) -> Recommendation:
    """The highest Dice among the configurations that cost at most so much.

    Args:
        results: of one dataset.
        cost: the limited objective.
        most: of it per trained fold, in the unit of its column.

    Raises:
        InvalidInputError: nothing is that cheap, or the limit is not a positive number.
        MissingDataError: no configuration has both Dice and this cost.
    """
    front = _front(results, cost)
    option = f"--max-{cost.name.replace('_', '-')}"
    if not isinstance(most, float) or not np.isfinite(most) or most <= 0:
        raise InvalidInputError(field=option, received=most, legal=f"a positive number of {cost.unit}")
    allowed = front.points[front.points[cost.name] <= most]
    if allowed.empty:
        cheapest = front.points.sort_values([cost.name, "point_id"]).iloc[0]
        raise InvalidInputError(
            field=option,
            received=most,
            legal=f"at least {_rounded_up(cheapest[cost.name])}, what the cheapest configuration took "
            f"({cheapest['summary']}, Dice {cheapest['dice']:.4f})",
        )
    point = allowed.sort_values(["dice", cost.name, "point_id"], ascending=[False, True, True]).iloc[0]
    number = counted(len(allowed), "configuration")
    reason = f"the highest Dice of {number} within {amount_of(cost, most)} of {lowered(cost.label)} per fold"
    return _recommendation(results, front, point, allowed, reason)


def at_knee(results: StudyResults, cost: Objective) -> Recommendation:
    """The knee of the front of Dice against a cost.

    Args:
        results: of one dataset.
        cost: an objective to be minimised.

    Raises:
        MissingDataError: no configuration has both Dice and this cost.
    """
    front = _front(results, cost)
    point, reason = knee(front.best, cost)
    allowed = front.points[front.points[cost.name] <= point[cost.name]]
    return _recommendation(results, front, point, allowed, reason)


def _front(results: StudyResults, cost: Objective) -> Front:
    front = pareto_front(results.points, ("dice", cost.name))
    if front.points.empty:
        raise MissingDataError(
            f"no finished configuration has both Dice and {cost.name} ({states(results.tables.trials)}); "
            "finish a trial, or limit a cost that was measured"
        )
    return front


def knee(best: pd.DataFrame, cost: Objective) -> tuple[pd.Series[Any], str]:
    """The knee of a front sorted by rising cost, and what was done in words."""
    against = f"the front of Dice against {lowered(cost.label)}"
    dice, spent = _scaled(best["dice"]), _scaled(best[cost.name])
    above = dice - spent
    if best[["dice", cost.name]].drop_duplicates().shape[0] == 1:
        return best.iloc[0], f"the only point on {against}, which nothing beats in either"
    if above.max() <= 1e-9:
        number = counted(len(best), "point")
        return best.iloc[-1], f"no knee in {against} ({number}, none above the line between its ends): its highest Dice"
    at = int(np.argmax(above))
    words = f"{above[at] / np.sqrt(2):.2f} from the line between its ends, both axes scaled to 0 to 1"
    return best.iloc[at], f"the knee of {against}, the farthest of its {len(best)} points: {words}"


def _scaled(values: pd.Series[float]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return np.asarray((values.to_numpy(dtype=float) - low) / ((high - low) or 1.0), dtype=float)


def _rounded_up(value: float) -> str:
    """Four digits that are no less than the value, so that they are a limit it keeps."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3) if value > 0 else 1.0
    return f"{math.ceil(value / step) * step:.4g}"


def _recommendation(
    results: StudyResults, front: Front, point: pd.Series[Any], allowed: pd.DataFrame, reason: str
) -> Recommendation:
    others = allowed[allowed["point_id"] != point["point_id"]]
    compared = _differences(results, point, others)
    same = compared[(compared["difference_low"] <= 0) & (compared["difference_high"] >= 0)]
    cost = front.objectives[1].name
    return Recommendation(
        point=point,
        reason=reason,
        front=front,
        candidates=len(allowed),
        alternatives=same.sort_values([cost, "point_id"], ignore_index=True),
        not_compared=len(others) - len(compared),
    )


def _differences(results: StudyResults, point: pd.Series[Any], others: pd.DataFrame) -> pd.DataFrame:
    """Those of the others that share two cases of a fold or more with the point, with intervals of the difference."""
    columns = {"difference_low": np.nan, "difference_high": np.nan, "shared_cases": 0}
    others = others.assign(**columns)
    matrix = case_matrices(results.tables).get(str(point["dataset"]))
    own = str(point["point_id"])
    if matrix is None or others.empty or own not in matrix.point_ids:
        return others.iloc[:0]
    index = pd.Series(others.index, index=others["point_id"])
    for alike in matrix.alike(others["point_id"].tolist()):
        sample = matrix.common([own, *alike])
        found = estimate(sample, sample.averages(alike) - sample.averages([own]))
        others.loc[index[alike], ["difference_low", "difference_high"]] = np.column_stack([found.low, found.high])
        others.loc[index[alike], "shared_cases"] = len(sample.cases)
    return others[others["difference_low"].notna()]


COSTS = (
    *("runtime_seconds", "energy_kwh", "co2_kg", "total_seconds", "total_energy_kwh", "total_co2_kg"),
    *("gpu_energy_kwh", "runtime_at_reference_speed_seconds"),
    *("voxels", "voxel_share"),
)
_CHECKPOINT = "checkpoint_final.pth"


def advice(
    chosen: Recommendation, results: StudyResults, folders: Sequence[Path], *, out: Path | str, data: Path | None
) -> dict[str, Any]:
    """Everything about a recommendation as plain JSON.

    Args:
        chosen: the recommendation.
        results: of its dataset.
        folders: study folders (or others) to look for its trials in.
        out: where the printed commands train into.
        data: folder with nnU-Net's folders, for the commands; None takes the one that the trial was trained with.

    Returns:
        `dataset`, `reason`, `configuration` (what it is), `dice`, `cost_per_fold`, `trials`, `alternatives`,
        `commands` and `remarks`; missing numbers are null.
    """
    point = chosen.point
    trials = _trials(point, results.tables.trials)
    best = trials.sort_values(["dice", "trial_id"], ascending=[False, True]).iloc[0]
    folder = find_trial(folders, best["trial_id"])
    spec = _spec(folder)
    commands = _commands(best, folder, spec, results, folders, out, data or recorded_data(folder))
    return {
        "dataset": point["dataset"],
        "reason": chosen.reason,
        "candidates": chosen.candidates,
        "configuration": _configuration(point),
        "dice": _dice(point),
        "cost_per_fold": {name: _number(point[name]) for name in COSTS},
        "hardware": point["hardware"],
        "trials": _records(trials[["study", "trial_id", "fold", "seed", "dice", "runtime_seconds"]]),
        "alternatives": _alternatives(chosen),
        "commands": commands,
        "remarks": _remarks(chosen, folder, spec),
    }


def has_model(folder: TrialFolder) -> bool:
    """Whether the trial's model is there, and not only its records."""
    return next(folder.results_path.rglob(_CHECKPOINT), None) is not None


def _trials(point: pd.Series[Any], trials: pd.DataFrame) -> pd.DataFrame:
    mine = trials["trial_id"].isin(point["trial_ids"].split()) & trials["study"].isin(point["studies"].split(" | "))
    found: pd.DataFrame = trials[mine & (trials["state"] == FINISHED)]
    return found.sort_values(["fold", "seed", "study"])


def _spec(folder: TrialFolder | None) -> TrialSpec | None:
    try:
        return None if folder is None else folder.spec()
    except (StudyError, OSError):
        return None


def _configuration(point: pd.Series[Any]) -> dict[str, Any]:
    names = ("point_id", "summary", "scheme", "method", "plans", "configuration")
    return {
        **{name: point[name] for name in names},
        "axes": axes_of(point),
        "stages": json.loads(point["stage_table"]),
        "training": training_of(point),
    }


def _dice(point: pd.Series[Any]) -> dict[str, Any]:
    return {
        "mean": _number(point["dice"]),
        "low": _number(point["dice_low"]),
        "high": _number(point["dice_high"]),
        "confidence": CONFIDENCE,
        "over": f"validation cases{over_seeds(pd.DataFrame([point]))}",
        "sd_between_seeds": _number(point["training_sd"]),
        "cases": None if pd.isna(point["n_cases"]) else int(point["n_cases"]),
        "folds": [int(fold) for fold in point["folds"].split()],
        "seeds": [int(seed) for seed in point["seeds"].split()],
        "lowest_trial": _number(point["dice_min"]),
        "highest_trial": _number(point["dice_max"]),
    }


def _alternatives(chosen: Recommendation) -> list[dict[str, Any]]:
    cost = chosen.front.objectives[1].name
    names = ["summary", "point_id", "trial_ids", "dice", cost, "difference_low", "difference_high", "shared_cases"]
    return _records(chosen.alternatives[names])


def _commands(
    trial: pd.Series[Any],
    folder: TrialFolder | None,
    spec: TrialSpec | None,
    results: StudyResults,
    folders: Sequence[Path],
    out: Path | str,
    data: Path | None,
) -> list[dict[str, Any]]:
    if trial["method"] == IMPORTED:
        # nnU-Net's own commands train it.
        known = [predict_command(folder, spec)] if folder is not None and spec is not None else []
        return [{"purpose": "predict", "trial_id": trial["trial_id"], "command": command} for command in known]
    recipe = Recipe.of_spec(spec) if spec else Recipe.of_row(trial)
    trainings = [("again", recipe)]
    if recipe.axes.budget < 1:
        trainings.append(("full_budget", recipe.at_full_budget()))
    if recipe.is_short:
        trainings.append(("nnunet_length", recipe.at_nnunet_length()))
    commands, basis = [], _basis(spec, folder, folders)
    if folder is not None and spec is not None and has_model(folder):
        commands.append({"purpose": "predict", "trial_id": trial["trial_id"], "command": predict_command(folder, spec)})
    for purpose, wanted in trainings:
        planned = spec_of(wanted, spec) if spec else None
        device = "cpu" if trial["device"] == "cpu" else "cuda"
        commands.append(
            {
                "purpose": f"train_{purpose}",
                "trial_id": planned.trial_id if planned else None,
                "command": trial_command(wanted, out=out, data=data),
                "iterations": planned.curriculum.total_iterations if planned else None,
                "known_dice": _known_dice(planned, results),
                "preview": basis and _preview(planned, basis),
                "predict": predict_after(planned, out=out, device=device) if planned else None,
            }
        )
    return commands


def _basis(spec: TrialSpec | None, folder: TrialFolder | None, folders: Sequence[Path]) -> Basis | None:
    """What a preview of a training like a trial's rests on: finished ones on its hardware; None without any."""
    attempts = folder.attempts() if folder is not None else []
    if spec is None or not attempts:
        return None
    ledgers = [Ledger(study) for study in folders if (study / "study.json").exists()]
    with suppress(StudyError):
        known = trained_in(ledgers, network_of(spec))
        return basis_for(spec, known, (), hardware=hardware_of(attempts[-1]), remedy="")
    return None


def _preview(spec: TrialSpec | None, basis: Basis) -> dict[str, Any] | None:
    """What a training loop will take, `low` and `high` are factors of the seconds, `text` and `basis` are words."""
    if spec is None:
        return None
    amounts, (low, high) = basis.preview(spec).amounts, basis.interval or (None, None)
    found = dict(zip(("seconds", "energy_kwh", "co2_kg"), amounts, strict=True))
    words = amounts_words(amounts, basis.interval)
    return {**found, "low": low, "high": high, "basis": basis.words(), "text": words}


def _known_dice(spec: TrialSpec | None, results: StudyResults) -> float | None:
    """The Dice of the configuration in this study, if it was trained here."""
    if spec is None:
        return None
    same = results.points[results.points["point_id"] == point_id(spec)]
    return None if same.empty else _number(same["dice"].iloc[0])


def _remarks(chosen: Recommendation, folder: TrialFolder | None, spec: TrialSpec | None) -> list[str]:
    point = chosen.point
    remarks = [*left_out(chosen.front), *caveats(chosen.front)]
    remarks += [said for said in constant_share(chosen.front.points) if said not in remarks]
    if chosen.candidates > 1:
        remarks.append("Its Dice was picked as the best of several, so expect a little less of a new training.")
    if pd.notna(point["dice_low"]):
        remarks += interval_cautions(pd.DataFrame([point]))
    if chosen.not_compared:
        remarks.append(
            f"{chosen.not_compared} others share no fold with two validation cases with it and were not compared."
        )
    if folder is None or spec is None:
        remarks.append(
            "The trial's folder is not here, only tables: its model and the ids of new trials are not known."
        )
    elif not has_model(folder):
        remarks.append(f"No model of trial {folder.trial_id} was copied: no {_CHECKPOINT} in {folder.results_path}.")
    if "cascade" in str(point["configuration"]):
        remarks.append("A cascade: add --previous-stage DIR to the training commands.")
    return remarks


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)

"""A recommendation with all that follows from it: what it is, what to expect, what it costs, the commands to run.

The same plain JSON feeds the terminal and programs. Commands need the trials' specifications; from tables alone (a
report without its study) the ids of trials that would be trained are not known, and nothing can be predicted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.advice.recommendation import Recommendation
from analysis.advice.text import Recipe, predict_after, recorded_data, spec_of, trial_command
from analysis.fronts.captions import interval_cautions, over_seeds
from analysis.statistics.evidence import Evidence
from analysis.statistics.intervals import CONFIDENCE
from analysis.tables.frame import FINISHED
from analysis.tables.methods import point_id
from analysis.tables.points import axes_of, training_of
from study.common.errors import StudyError
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder

COSTS = (
    *("runtime_seconds", "energy_kwh", "co2_kg", "total_seconds", "total_energy_kwh", "total_co2_kg"),
    *("gpu_energy_kwh", "runtime_at_reference_speed_seconds"),
    *("voxels", "voxel_share"),
)
_CHECKPOINT = "checkpoint_final.pth"


def advice(
    chosen: Recommendation, evidence: Evidence, folders: Sequence[Path], *, out: Path | str, data: Path | None
) -> dict[str, Any]:
    """Everything about a recommendation as plain JSON.

    Args:
        chosen: the recommendation.
        evidence: of its dataset.
        folders: study folders (or others) to look for its trials in.
        out: where the printed commands train into.
        data: folder with nnU-Net's folders, for the commands; None takes the one that the trial was trained with.

    Returns:
        `dataset`, `reason`, `configuration` (what it is), `dice`, `cost_per_fold`, `trials`, `alternatives`,
        `commands` and `remarks`; missing numbers are null.
    """
    point = chosen.point
    trials = _trials(point, evidence.tables.trials)
    best = trials.sort_values(["dice", "trial_id"], ascending=[False, True]).iloc[0]
    folder = find_trial(folders, best["trial_id"])
    spec = _spec(folder)
    commands = _commands(best, folder, spec, evidence, out, data or recorded_data(folder))
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


def find_trial(folders: Sequence[Path], trial_id: str) -> TrialFolder | None:
    """The folder of a trial in the first study that holds it; None if none does."""
    paths = (folder / "trials" / trial_id for folder in folders)
    return next((TrialFolder(path) for path in paths if (path / "spec.json").exists()), None)


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
    evidence: Evidence,
    out: Path | str,
    data: Path | None,
) -> list[dict[str, Any]]:
    recipe = Recipe.of_spec(spec) if spec else Recipe.of_row(trial)
    trainings = [("again", recipe)]
    if recipe.axes.budget < 1:
        trainings.append(("full_budget", recipe.at_full_budget()))
    if recipe.is_short:
        trainings.append(("nnunet_length", recipe.at_nnunet_length()))
    commands = []
    if folder is not None and spec is not None and has_model(folder):
        commands.append({"purpose": "predict", "trial_id": trial["trial_id"], "command": _predict(folder, spec)})
    for purpose, wanted in trainings:
        planned = spec_of(wanted, spec) if spec else None
        device = "cpu" if trial["device"] == "cpu" else "cuda"
        commands.append(
            {
                "purpose": f"train_{purpose}",
                "trial_id": planned.trial_id if planned else None,
                "command": trial_command(wanted, out=out, data=data),
                "iterations": planned.curriculum.total_iterations if planned else None,
                "known_dice": _known_dice(planned, evidence),
                "predict": predict_after(planned, out=out, device=device) if planned else None,
            }
        )
    return commands


def _predict(folder: TrialFolder, spec: TrialSpec) -> str:
    from study.store.prediction import predict_command

    return predict_command(folder, spec)


def _known_dice(spec: TrialSpec | None, evidence: Evidence) -> float | None:
    """The Dice of the configuration in this study, if it was trained here."""
    if spec is None:
        return None
    same = evidence.points[evidence.points["point_id"] == point_id(spec)]
    return None if same.empty else _number(same["dice"].iloc[0])


def _remarks(chosen: Recommendation, folder: TrialFolder | None, spec: TrialSpec | None) -> list[str]:
    from analysis.fronts.caveats import caveats, constant_share, left_out

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
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    return None if pd.isna(value) else value


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)

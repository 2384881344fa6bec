"""Cards: all that a page knows about one trial or one configuration, as the data its script shows on request.

Every text and number is made here, so that the page and the tables agree to the digit; the script only lays them out.
The data are plain JSON:

    configurations  point_id -> summary, method, budget, facts, stages, classes, costs, trials (ids)
    trials          trial_id -> one entry per study that holds it: facts, stages' configuration, classes, costs, curve,
                    events, commands, links, row (cells of the table in its configuration's card)

`facts` are pairs of label and text, of which a tooltip shows the first `told`; `stages` are rows of patch, batch, first
iteration and iterations, `classes` pairs of class and mean Dice over the cases, `costs` rows of cause, time, energy and
CO₂, `events` pairs of time (UTC) and words, oldest first, `commands` pairs of what for and the command as typed in the
study's folder, `links` pairs of words and place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
import pandas as pd

from analysis.effects.costs import AMOUNTS, CAUSES
from analysis.statistics.study_results import StudyResults, find_trial
from analysis.tables.columns import BY_NAME
from analysis.tables.format import MISSING, amount, number
from analysis.tables.frame import FINISHED, KEY
from analysis.tables.methods import METHOD_LABELS
from analysis.tables.points import training_of
from analysis.tables.rows import FOREGROUND
from study.common.errors import StudyError
from study.common.files import name_of
from study.common.terminal import visible
from study.store.ledger import Ledger
from study.store.prediction import prediction_with
from study.store.specification import TrainingSettings

MOST_POINTS, FEWEST_POINTS, MOST_OF_ALL = 100, 20, 40_000

Row: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, str]
Events: TypeAlias = Sequence[tuple[str, str]]
"""Pairs of time (UTC, to the second) and words, oldest first."""

LOG = "log.txt"
"""Of a trial, in its folder."""
_EXTENSION = '"$(python -c "import study.nnunet_ext as e; print(*e.__path__)")"'
_TRIAL_FACTS = (
    *("study", "state", "failure", "dataset", "plans", "configuration", "fold", "seed", "budget", "dice"),
    *("runtime_seconds", "energy_kwh", "co2_kg", "total_seconds", "total_co2_kg", "waste_seconds", "voxel_share"),
    *("optimizer", "initial_learning_rate", "attempts", "hardware", "energy_methods", "unmeasured", "versions"),
    "weights_sha256",
)
_TIP_FACTS = ("runtime_seconds", "co2_kg", "voxel_share", "iterations", "folds", "seeds")
_MORE_FACTS = ("energy_kwh", "total_seconds", "total_co2_kg", "hardware")
_TRIAL_ROW = ("fold", "seed", "state", "dice", "runtime_seconds", "co2_kg", "attempts", "waste_seconds")


def thinned_curves(epochs: pd.DataFrame) -> dict[Key, Row]:
    """The curves of all trials that have any.

    Args:
        epochs: in the columns of `columns.EPOCH_COLUMNS`.

    Returns:
        (study, trial_id) -> `iterations`, `seconds` and `dice` of at most MOST_POINTS epochs, the first and the last
        among them, and `stages`: indices into these lists where a new stage begins. Trials whose curves would together
        exceed MOST_OF_ALL points have fewer each, but FEWEST_POINTS at least.
    """
    groups = epochs[epochs["pseudo_dice"].notna()].groupby(KEY, sort=False)
    most = max(FEWEST_POINTS, min(MOST_POINTS, MOST_OF_ALL // max(1, groups.ngroups)))
    curves: dict[Key, Row] = {}
    for (study, trial), every in groups:
        part = every.iloc[np.unique(np.linspace(0, len(every) - 1, min(len(every), most)).round().astype(int))]
        curves[str(study), str(trial)] = {
            "iterations": part["iteration"].tolist(),
            "seconds": [round(value, 1) for value in part["training_seconds"].tolist()],
            "dice": [round(value, 4) for value in part["pseudo_dice"].tolist()],
            "stages": (np.flatnonzero(np.diff(part["stage"].to_numpy(dtype=float)) != 0) + 1).tolist(),
        }
    return curves


def events_of(folders: Sequence[Path]) -> Mapping[Key, Events]:
    """The events of every trial of the study folders among some folders.

    Returns:
        (study, trial_id) -> events, with a study under its folder's name and under its whole path, as tables name it.
        Tables that were read from parquet have no events. Of a trial whose events cannot be read there are none: the
        table of trials has it as unreadable.
    """
    told: dict[Key, Events] = {}
    for root in dict.fromkeys(folder.resolve() for folder in folders):
        if not (root / "study.json").exists():
            continue
        for trial in Ledger.open(root).trials():
            events = _events(trial.events)
            told |= {(name, trial.trial_id): events for name in (name_of(root), visible(str(root)))}
    return told


def _events(read: Callable[[], Sequence[Mapping[str, Any]]]) -> Events:
    try:
        pairs = [(datetime.fromtimestamp(event["time"], tz=UTC), _words(event)) for event in read()]
        return [(f"{time:%Y-%m-%d %H:%M:%S} UTC", words) for time, words in pairs]
    except (StudyError, OSError, ArithmeticError, ValueError, KeyError, TypeError):
        return []


def _words(event: Mapping[str, Any]) -> str:
    """`started: attempt 0, iteration 0`."""
    details = {name: value for name, value in event.items() if name not in ("event", "time") and value is not None}
    told = ", ".join(str(value) if name in ("text", "reason") else f"{name} {value}" for name, value in details.items())
    return f"{event['event']}: {told}" if told else str(event["event"])


def card_data(results: StudyResults, events: Mapping[Key, Events], *, beside: Path | None = None) -> dict[str, Any]:
    """The data of all cards.

    Args:
        results: what the page is about.
        events: (study, trial_id) -> its events, as far as known.
        beside: the folder that the page will lie in, from which cards lead to their trials' folders; None: nowhere.
    """
    tables = results.tables
    classes, costs, curves = _classes(tables.cases), _costs(tables.costs), thinned_curves(tables.epochs)
    trials: dict[str, list[Row]] = {}
    for row in _rows(tables.trials):
        key = (row["study"], row["trial_id"])
        entry = {
            "configuration": None if pd.isna(row["point_id"]) else row["point_id"],
            "facts": _facts(row, _TRIAL_FACTS),
            "row": [_text(name, row[name]) for name in _TRIAL_ROW],
            "classes": classes.get(key),
            "costs": costs.get(key),
            "curve": curves.get(key),
            "events": events.get(key),
            "commands": _commands(row) if row["state"] == FINISHED else None,
            "links": _links(results.folders, row["trial_id"], beside),
        }
        trials.setdefault(row["trial_id"], []).append({name: value for name, value in entry.items() if value})
    return {
        "row_headings": [BY_NAME[name].label for name in _TRIAL_ROW],
        "methods": list(METHOD_LABELS),
        "configurations": _configurations(results, trials),
        "trials": trials,
    }


def _commands(trial: Row) -> list[tuple[str, str]]:
    name = trial["trial_id"]
    export = f"python -m study export trials/{name} --out {name}.zip"
    return [("Predict with this model", predict_command(trial)), ("Hand the model on", export)]


def _links(folders: Sequence[Path], trial_id: str, beside: Path | None) -> list[tuple[str, str]]:
    """To the folder and the log of a trial whose study the page lies in or next to; what else was read may be gone."""
    near = [root for root in folders if beside and beside.resolve().is_relative_to(root.resolve().parent)]
    folder = find_trial(near, trial_id)
    if folder is None or beside is None:
        return []
    place = quote(os.fsencode(os.path.relpath(folder.path.resolve(), beside.resolve())))
    log = [("Log", f"{place}/{LOG}")] if (folder.path / LOG).exists() else []
    return [("Folder", f"{place}/"), *log]


def card_rows(trials: pd.DataFrame) -> dict[str, str]:
    """Identity of every trial and configuration -> id of its (first) row in the table of all trials."""
    rows = {trial: f"trial-{trial}" for trial in trials["trial_id"]}
    configured = trials.dropna(subset="point_id").drop_duplicates("point_id").set_index("point_id")["trial_id"]
    return rows | {str(point): rows[trial] for point, trial in configured.items()}


def as_script(data: Mapping[str, Any]) -> str:
    """JSON that is safe inside a `<script>` element, whatever the texts hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def predict_command(trial: Mapping[str, Any]) -> str:
    """The stock nnU-Net command that predicts with a trial's model, typed in its study's folder.

    Args:
        trial: a row of the table of trials, finished.
    """
    device = None if pd.isna(trial["device"]) else trial["device"].split(" | ")[-1]
    names = {name: trial[name] for name in ("dataset", "plans", "configuration", "fold")}
    results = str(PurePosixPath("trials", trial["trial_id"], "results"))
    mirroring = TrainingSettings(**training_of(trial)).predicts_mirrored
    cascade = "cascade" in trial["configuration"]  # nnU-Net's own name for those that read another one's segmentations
    return prediction_with(
        results=results, extension=_EXTENSION, mirroring=mirroring, device=device, cascade=cascade, **names
    )


def _configurations(results: StudyResults, trials: Mapping[str, Sequence[Row]]) -> dict[str, Row]:
    points = {row["point_id"]: row for row in _rows(results.points)}
    cards: dict[str, Row] = {}
    for point_id, part in results.tables.trials.dropna(subset="point_id").groupby("point_id", sort=False):
        row = part.iloc[0]
        members = list(dict.fromkeys(part["trial_id"]))
        stages = json.loads(row["stage_table"])
        cards[str(point_id)] = {
            "summary": METHOD_LABELS[row["method"]],
            "method": row["method"],
            "label": METHOD_LABELS[row["method"]],
            "budget": f"{row['budget']:.0%}",
            "stages": [
                ("×".join(map(str, s["patch_size"])), s["batch_size"], s["first_iteration"], s["iterations"])
                for s in stages
            ],
            "trials": members,
            "classes": _mean_classes([dict(trials[one][0].get("classes", ())) for one in members]),
            **(_averages(points[point_id]) if point_id in points else {}),
        }
    return cards


def _averages(point: Row) -> Row:
    told = [*_dice(point), *_facts(point, _TIP_FACTS)]
    return {"summary": point["summary"], "facts": [*told, *_facts(point, _MORE_FACTS)], "told": len(told)}


def _dice(point: Row) -> Iterator[tuple[str, str]]:
    if not pd.isna(point["dice"]):
        yield "Dice", number(point["dice"], 4)
    if not pd.isna(point["dice_low"]):
        ends = f"{number(point['dice_low'], 4)} to {number(point['dice_high'], 4)}"
        yield "95 % interval", f"{ends} (bootstrap over {point['n_cases']} cases)"


def _classes(cases: pd.DataFrame) -> dict[Key, list[tuple[str, str]]]:
    """Mean Dice over the cases, by class."""
    means = cases[cases["label"] != FOREGROUND].groupby([*KEY, "label"], sort=False)["dice"].mean()
    told: dict[Key, list[tuple[str, str]]] = {}
    for study, trial, label, value in means.reset_index().itertuples(index=False):
        told.setdefault((study, trial), []).append((label, MISSING if pd.isna(value) else number(value, 4)))
    return told


def _mean_classes(entries: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    labels = dict.fromkeys(label for entry in entries for label in entry)
    columns = {label: [float(e[label]) for e in entries if e.get(label, MISSING) != MISSING] for label in labels}
    return [(label, number(sum(v) / len(v), 4) if v else MISSING) for label, v in columns.items()]


def _costs(costs: pd.DataFrame) -> dict[Key, list[tuple[str, ...]]]:
    """Time, energy and CO₂ by cause, waste last; a sum with an unmeasured part is unmeasured."""
    names = list(AMOUNTS)
    wasted = costs[costs["waste_seconds"] > 0].assign(cause="Waste, in the above")
    wasted[names] = wasted[[f"waste_{name}" for name in names]].to_numpy()
    both = pd.concat([costs.assign(cause=costs["phase"].map(CAUSES)), wasted])
    sums = both.groupby([*KEY, "cause"], sort=False)[names].sum(skipna=False)
    told: dict[Key, list[tuple[str, ...]]] = {}
    for (study, trial, cause), *amounts in sums.itertuples():
        pairs = zip(amounts, AMOUNTS.values(), strict=True)
        texts = [MISSING if pd.isna(value) else amount(value, unit) for value, unit in pairs]
        told.setdefault((study, trial), []).append((cause, *texts))
    return told


def _facts(row: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, str]]:
    return [(BY_NAME[name].label, _text(name, row[name])) for name in names if not pd.isna(row[name])]


def _text(name: str, value: Any) -> str:
    column = BY_NAME[name]
    if pd.isna(value):
        return MISSING
    if column.dtype != "float64":
        return str(value)
    if column.unit:
        return amount(value, column.unit)
    return f"{value:g}" if column.decimals is None else number(value, column.decimals)


def _rows(frame: pd.DataFrame) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]

"""Where the cost of finished trials went: by cause, and of the training by stage.

Causes are set-up, training iterations, online validation, final validation, and waste: work of any of these that was
lost to an interruption and done again. Each number is a mean over the trials of a group, which is a scheme at a budget;
where a study has more budgets than a reader can take in, it is a scheme.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from analysis.frame import FINISHED, KEY
from analysis.methods import METHOD_LABELS

CAUSES: Mapping[str, str] = {
    "setup": "Set-up",
    "training": "Training",
    "online_validation": "Online validation",
    "final_validation": "Final validation",
    "waste": "Waste",
}
"""Causes in order, with their names for people."""
AMOUNTS: Mapping[str, str] = {"seconds": "s", "energy_kwh": "kWh", "co2_kg": "kg"}
"""Amounts with their units; the waste in them is in columns of the same name after `waste_`."""
MOST_GROUPS = 14


@dataclass(frozen=True, kw_only=True)
class CostParts:
    """Mean cost of a trial by group.

    Attributes:
        causes: columns group, method, budget (missing where several are one group), n_trials, cause and the AMOUNTS.
        stages: of the training iterations without waste: group, method, budget, n_trials, stage (from 0), patch_size,
            batch_size, iterations (mean) and the AMOUNTS; only of groups whose trials have the same patch and batch
            sizes, and not of random orders in ledgers of before, which do not say what a stage cost.
        points: group -> identity of one of its points for every budget in it, which a filter by method and budget goes
            by.
    """

    causes: pd.DataFrame
    stages: pd.DataFrame
    points: Mapping[str, tuple[str, ...]]

    @property
    def groups(self) -> list[str]:
        """Names of the groups, in the order of the methods, larger budgets first."""
        return list(dict.fromkeys(self.causes["group"]))


def cost_parts(trials: pd.DataFrame, costs: pd.DataFrame) -> CostParts:
    """Where the cost of the finished trials of one dataset went.

    Args:
        trials: as in `frame.Tables`.
        costs: as in `frame.Tables`. An amount that was not measured in a part of a trial is missing in its sum, and
            then in the mean of its group.
    """
    finished = _grouped(trials[trials["state"] == FINISHED])
    rows = costs.merge(finished[[*KEY, "group"]], on=KEY)
    useful = rows.assign(**{name: rows[name] - rows[_waste(name)] for name in AMOUNTS})
    per_cause = pd.concat([_per_trial(useful), _waste_per_trial(rows)])
    representatives = finished.drop_duplicates(["group", "budget"]).groupby("group", sort=False)["point_id"]
    return CostParts(
        causes=_causes(finished, per_cause),
        stages=_stages(finished, useful),
        points={str(group): tuple(ids) for group, ids in representatives},
    )


def _grouped(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials with the name of their group, groups in order."""
    pairs = trials[["method", "budget"]].drop_duplicates()
    by_budget = trials["budget"].nunique() > 1 and len(pairs) <= MOST_GROUPS
    labels = trials["method"].map(METHOD_LABELS)
    if by_budget:
        labels = labels + trials["budget"].map(lambda budget: f", {budget:.0%} budget")
    order = {method: place for place, method in enumerate(METHOD_LABELS)}
    ranked = trials.assign(group=labels, _rank=trials["method"].map(order))
    return ranked.sort_values(["_rank", "budget"], ascending=[True, False], kind="stable")


def _per_trial(useful: pd.DataFrame) -> pd.DataFrame:
    """Work that counts, by trial and cause."""
    sums = useful.groupby([*KEY, "phase"])[list(AMOUNTS)].sum(min_count=1, skipna=False)
    return sums.reset_index().rename(columns={"phase": "cause"})


def _waste_per_trial(rows: pd.DataFrame) -> pd.DataFrame:
    sums = rows.groupby(KEY)[[_waste(name) for name in AMOUNTS]].sum(min_count=1, skipna=False)
    return sums.reset_index().rename(columns={_waste(name): name for name in AMOUNTS}).assign(cause="waste")


def _causes(finished: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Means over the trials of a group; a trial without a phase spent nothing in it."""
    means: list[dict[str, Any]] = []
    for group, members in finished.groupby("group", sort=False):
        own = table.merge(members[KEY], on=KEY)
        for cause in CAUSES:
            part = own.loc[own["cause"] == cause, list(AMOUNTS)].astype("float64")
            sums = part.sum(min_count=0, skipna=False) / len(members)
            means.append(
                {**_about(str(group), members), "cause": cause, **{name: float(sums[name]) for name in AMOUNTS}}
            )
    return pd.DataFrame(means, columns=["group", "method", "budget", "n_trials", "cause", *AMOUNTS])


def _stages(finished: pd.DataFrame, useful: pd.DataFrame) -> pd.DataFrame:
    trained = useful[useful["phase"] == "training"]
    rows: list[dict[str, Any]] = []
    for group, members in finished.groupby("group", sort=False):
        tables = [json.loads(words) for words in members["stage_table"]]
        own = trained[trained["group"] == group]
        unknown = own["stage"].isna() & (own["iterations"] > 0)
        if unknown.any() or len({tuple(map(_sizes, table)) for table in tables}) != 1:
            continue
        for stage in sorted(set(own["stage"].dropna().astype(int))):
            part = own[own["stage"] == stage]
            sums = part[list(AMOUNTS)].sum(min_count=1, skipna=False) / len(members)
            rows.append({**_about(str(group), members), "stage": stage, **_stage_words(tables, stage), **sums})
    names = ["group", "method", "budget", "n_trials", "stage", "patch_size", "batch_size", "iterations", *AMOUNTS]
    return pd.DataFrame(rows, columns=names)


def _sizes(row: Mapping[str, Any]) -> tuple[str, int]:
    return "×".join(map(str, row["patch_size"])), row["batch_size"]


def _stage_words(tables: list[list[dict[str, Any]]], stage: int) -> dict[str, Any]:
    size, batch_size = _sizes(tables[0][stage])
    iterations = round(fmean(table[stage]["iterations"] for table in tables))
    return {"patch_size": size, "batch_size": batch_size, "iterations": iterations}


def _about(group: str, members: pd.DataFrame) -> dict[str, Any]:
    budgets = members["budget"].unique()
    return {
        "group": group,
        "method": members["method"].iloc[0],
        "budget": float(budgets[0]) if len(budgets) == 1 else float("nan"),
        "n_trials": len(members),
    }


def _waste(name: str) -> str:
    return f"waste_{name}"

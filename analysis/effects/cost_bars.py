"""Where the cost of finished trials went: by cause, and of the training by stage.

Causes are set-up, training iterations, online validation, final validation, and waste: work of any of these that was
lost to an interruption and done again. Each number is a mean over the trials of a group, which is a scheme at a budget;
where a study has more budgets than a reader can take in, it is a scheme.

Costs as stacked bars: a bar per group of trials, by cause, the training by stage from pale to strong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis.effects.sheet import Sheet
from analysis.figures.encodings import belongs_to
from analysis.figures.style import INK, METHOD_STYLES, MUTED, RC, RULE, SURFACE, Layout
from analysis.tables.format import MISSING, Table
from analysis.tables.frame import FINISHED, KEY
from analysis.tables.methods import METHOD_LABELS
from analysis.tables.units import Scale, amount, label_with_unit, number, reading_scale

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


_DRAWN = {"seconds": "Time per trial", "co2_kg": "CO₂ per trial"}
_ROW, _LETTER = 0.3, 0.068
_PALEST = 0.35
_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "setup": {"facecolor": RULE.light, "edgecolor": SURFACE.light},
    # Not plain: CPS is a grey.
    "online_validation": {"facecolor": SURFACE.light, "edgecolor": MUTED.light, "hatch": "....."},
    "final_validation": {"facecolor": SURFACE.light, "edgecolor": MUTED.light},
    "waste": {"facecolor": SURFACE.light, "edgecolor": INK.light, "hatch": "//////"},
}


def cost_bars(parts: CostParts, *, subject: str, notes: Sequence[str], layout: Layout) -> Figure:
    """The figure: time, and CO₂ where it was measured in every group.

    Args:
        parts: with at least one group.
        subject: what it rests on.
        notes: sentences below.
        layout: size and arrangement.
    """
    drawn = [name for name in _DRAWN if parts.causes[name].notna().all()]
    groups = parts.groups
    sheet = Sheet(
        layout=layout,
        title="Where the cost went",
        subject=subject,
        notes=notes,
        rows=1 if layout.rail else len(drawn),
        columns=len(drawn) if layout.rail else 1,
        panel_height=max(0.9, _ROW * len(groups)),
        left=0.35 + _LETTER * max(map(len, groups)),
        gap_across=0.35,
        gap_down=0.85,
        legend=_legend(parts),
    )
    with mpl.rc_context(RC):
        figure, panels = sheet.build()
        for place, (panel, name) in enumerate(zip(panels, drawn, strict=True)):
            _draw(panel, parts, name)
            panel.set_yticks(range(len(groups)), groups if place == 0 or not layout.rail else [""] * len(groups))
            for label, group in zip(panel.get_yticklabels(), groups, strict=True):
                label.set_gid(belongs_to(*parts.points[group]))
    return figure


def _legend(parts: CostParts) -> list[Patch]:
    spent = parts.causes.groupby("cause")["seconds"].sum()
    names = [cause for cause in CAUSES if spent.get(cause, 0.0) > 0]
    return [
        Patch(label=_training_words(parts), facecolor=METHOD_STYLES["pgps"].paint.light)
        if cause == "training"
        else Patch(label=CAUSES[cause].lower(), **_LOOKS[cause])
        for cause in names
    ]


def _training_words(parts: CostParts) -> str:
    staged = parts.stages.groupby("group")["stage"].nunique().gt(1).any()
    return "training, a colour per scheme" + (", later stages stronger" if staged else "")


def _draw(panel: Axes, parts: CostParts, name: str) -> None:
    groups = parts.groups
    totals = parts.causes.groupby("group", sort=False)[name].sum()
    scale = reading_scale(AMOUNTS[name], float(totals.max()))
    for place, group in enumerate(groups):
        _bar(panel, place, parts, group, name, scale)
        total = float(totals[group]) * scale.factor
        panel.annotate(
            number(total),
            (total, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.6,
            color=MUTED.light,
            gid=belongs_to(*parts.points[group]),
        )
    panel.set_ylim(len(groups) - 0.45, -0.55)
    panel.set_xlim(0, float(totals.max()) * scale.factor * 1.13 or 1.0)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    panel.set_xlabel(label_with_unit(_DRAWN[name], scale.unit))
    panel.grid(False, axis="y")


def _bar(panel: Axes, place: int, parts: CostParts, group: str, name: str, scale: Scale) -> None:
    rows = parts.causes[parts.causes["group"] == group]
    amounts = dict(zip(rows["cause"], rows[name].to_numpy(dtype=float) * scale.factor, strict=True))
    color = METHOD_STYLES[str(rows["method"].iloc[0])].paint.light
    left = 0.0
    for cause in CAUSES:
        amount = amounts[cause]
        if amount <= 0:
            continue
        pieces = _training_pieces(parts.stages, group, name, scale, amount) if cause == "training" else [(amount, 1.0)]
        for width, alpha in pieces:
            look = (
                {"facecolor": color, "alpha": alpha, "lw": 0} if cause == "training" else {**_LOOKS[cause], "lw": 0.8}
            )
            (piece,) = panel.barh(place, width, left=left, height=0.62, zorder=3, **look)
            piece.set_gid(belongs_to(*parts.points[group]))
            left += width


def _training_pieces(
    stages: pd.DataFrame, group: str, name: str, scale: Scale, whole: float
) -> list[tuple[float, float]]:
    """Width and strength of each stage's piece; one piece where stages are unknown."""
    amounts = stages.loc[stages["group"] == group, name].to_numpy(dtype=float) * scale.factor
    if len(amounts) < 2:
        return [(whole, 1.0)]
    step = (1.0 - _PALEST) / (len(amounts) - 1)
    return [(float(width), _PALEST + step * stage) for stage, width in enumerate(amounts)]


def about_costs(parts: CostParts) -> list[str]:
    """How to read costs by cause."""
    sentences = [
        "Means over the finished trials of a scheme; Dice and cost of the fronts count training and online "
        "validation alone."
    ]
    if parts.causes["budget"].isna().any():
        sentences.append("Trials of all budgets are averaged.")
    waste = parts.causes.loc[parts.causes["cause"] == "waste", "seconds"].sum()
    if waste:
        sentences.append("Waste is work that was lost to an interruption and done again.")
    else:
        sentences.append("No finished trial had to do work again.")
    return sentences


def costs_in_words(parts: CostParts) -> str:
    """The figure of costs in words."""
    totals = parts.causes.groupby("group", sort=False)["seconds"].sum()
    trained = parts.causes[parts.causes["cause"] == "training"].set_index("group")["seconds"]
    each = [f"{group} {amount(t, 's')}, {trained[str(group)] / t:.0%} training" for group, t in totals.items() if t]
    return f"Stacked bars, mean time of a finished trial: {'; '.join(each)}."


def about_stages(parts: CostParts) -> list[str]:
    """How to read costs by stage."""
    left_out = [group for group in parts.groups if group not in set(parts.stages["group"])]
    sentences = [
        "Training iterations alone, each counted once: no validation, set-up or waste. The table has the largest "
        "budget of each scheme, its CSV file all of them."
    ]
    if left_out:
        why = "several stage tables, or random orders in ledgers of before"
        sentences.append(f"Not listed, because of {why}: {', '.join(left_out)}.")
    return sentences


def cause_table(parts: CostParts) -> Table:
    """Costs by cause for people: a row per group."""
    wide = parts.causes.pivot(index="group", columns="cause", values="seconds").loc[parts.groups, list(CAUSES)]
    scale = _scale("s", parts.causes["seconds"])
    carbon = parts.causes.groupby("group", sort=False)["co2_kg"].agg(lambda values: values.sum(skipna=False))
    trials = parts.causes.groupby("group", sort=False)["n_trials"].first()
    kilograms = _scale("kg", carbon)
    headings = [label_with_unit(label, scale.unit) for label in (*CAUSES.values(), "Total time")]
    rows = [
        (
            group,
            str(trials[group]),
            *(number(value * scale.factor) for value in (*wide.loc[group], wide.loc[group].sum())),
            MISSING if pd.isna(carbon[group]) else number(carbon[group] * kilograms.factor),
        )
        for group in parts.groups
    ]
    return Table(
        headings=("Scheme", "Trials", *headings, label_with_unit("Total CO₂", kilograms.unit)),
        numeric=(False, *(True for _ in range(len(headings) + 2))),
        rows=tuple(rows),
        points=tuple(parts.points[group] for group in parts.groups),
    )


def stage_table(parts: CostParts) -> Table:
    """Costs by stage for people: a row per stage of each scheme, at its largest budget."""
    largest = parts.stages.groupby("method")["budget"].transform("max")
    stages = parts.stages[(parts.stages["budget"] == largest) | largest.isna()]
    scales = {name: _scale(unit, stages[name]) for name, unit in AMOUNTS.items()}
    labels = {"seconds": "Time", "energy_kwh": "Energy", "co2_kg": "CO₂"}
    names = [name for name in AMOUNTS if stages[name].notna().any()]
    rows = [
        (
            row["group"],
            str(row["stage"] + 1),
            row["patch_size"],
            str(row["batch_size"]),
            str(row["iterations"]),
            *(MISSING if pd.isna(row[name]) else number(row[name] * scales[name].factor) for name in names),
            number(row["seconds"] / row["iterations"] * 1000),
        )
        for _, row in stages.iterrows()
    ]
    amounts = [label_with_unit(labels[name], scales[name].unit) for name in names]
    return Table(
        headings=("Scheme", "Stage", "Patch size", "Batch size", "Iterations", *amounts, "Time per iteration [ms]"),
        numeric=(False, True, False, *(True for _ in range(len(amounts) + 3))),
        rows=tuple(rows),
        points=tuple(parts.points[group] for group in stages["group"]),
    )


def _scale(unit: str, amounts: pd.Series[float]) -> Scale:
    """The unit for a table whose amounts differ much: that of the middle one."""
    known = amounts[amounts > 0]
    return reading_scale(unit, float(known.median()) if len(known) else 0.0)

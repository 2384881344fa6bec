"""Where the cost of finished trials went: by cause, and of the training by stage.

Causes are set-up, training iterations, online validation, final validation, and waste: work of any of these that was
lost to an interruption and done again. Each number is a mean over the trials of a group, which is a scheme at a budget;
where a study has more budgets than a reader can take in, it is a scheme.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.figures.display_items import DisplayItem, Part
from analysis.figures.sheet import Sheet
from analysis.figures.style import INK, METHOD_STYLES, MUTED, RULE, SURFACE, Entry, Layout, belongs_to, short_ticks
from analysis.tables.format import MISSING, Scale, Table, amount, counted, label_with_unit, number, reading_scale
from analysis.tables.frame import FINISHED, KEY, Tables
from analysis.tables.methods import METHOD_LABELS

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
_NAMES = list(AMOUNTS)
_ROW, _LETTER = 0.3, 0.068
_PALEST = 0.35
_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "setup": {"facecolor": RULE.light, "edgecolor": SURFACE.light},
    "training": {"facecolor": METHOD_STYLES["pgps"].paint.light},
    # Not plain: CPS is a grey.
    "online_validation": {"facecolor": SURFACE.light, "edgecolor": MUTED.light, "hatch": "....."},
    "final_validation": {"facecolor": SURFACE.light, "edgecolor": MUTED.light},
    "waste": {"facecolor": SURFACE.light, "edgecolor": INK.light, "hatch": "//////"},
}


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
        return list(self.points)

    def total(self, name: str) -> pd.Series[float]:
        """An amount of each group, missing where a part of it is."""
        sums: pd.Series[float] = self.causes.groupby("group", sort=False)[name].agg(lambda part: part.sum(skipna=False))
        return sums


def cost_parts(trials: pd.DataFrame, costs: pd.DataFrame) -> CostParts:
    """Where the cost of the finished trials of one dataset went.

    Args:
        trials: as in `frame.Tables`.
        costs: as in `frame.Tables`. An amount that was not measured in a part of a trial is missing in its sum, and
            then in the mean of its group.
    """
    finished = _grouped(trials[trials["state"] == FINISHED])
    rows = costs.merge(finished[[*KEY, "group"]], on=KEY).rename(columns={"phase": "cause"})
    wasted = rows[[f"waste_{name}" for name in _NAMES]].set_axis(_NAMES, axis=1)
    useful = rows.assign(**{name: rows[name] - wasted[name] for name in _NAMES})
    spent = pd.concat([useful, rows.assign(cause="waste", **wasted)])
    representatives = finished.drop_duplicates(["group", "budget"]).groupby("group", sort=False)["point_id"]
    return CostParts(
        causes=_causes(_about(finished), spent),
        stages=_stages(_about(finished), finished, useful[useful["cause"] == "training"]),
        points={str(group): tuple(ids) for group, ids in representatives},
    )


def _grouped(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials with the name of their group, groups in order."""
    pairs = trials[["method", "budget"]].drop_duplicates()
    labels = trials["method"].map(METHOD_LABELS)
    if trials["budget"].nunique() > 1 and len(pairs) <= MOST_GROUPS:
        labels = labels + trials["budget"].map(lambda budget: f", {budget:.0%} budget")
    ranked = trials.assign(group=labels, _rank=trials["method"].map(list(METHOD_LABELS).index))
    return ranked.sort_values(["_rank", "budget"], ascending=[True, False], kind="stable")


def _about(finished: pd.DataFrame) -> pd.DataFrame:
    """A row per group: its method, its budget where it is one, and how many trials it has."""
    groups = finished.groupby("group", sort=False)
    budgets = groups["budget"].first().where(groups["budget"].nunique() == 1)
    return pd.DataFrame({"method": groups["method"].first(), "budget": budgets, "n_trials": groups.size()})


def _causes(about: pd.DataFrame, spent: pd.DataFrame) -> pd.DataFrame:
    """Means over the trials of a group; a trial without a phase spent nothing in it."""
    every = pd.MultiIndex.from_product([about.index, list(CAUSES)], names=["group", "cause"])
    sums = spent.groupby(["group", "cause"])[_NAMES].sum(skipna=False).reindex(every, fill_value=0.0)
    means = sums.astype("float64").reset_index().merge(about, left_on="group", right_index=True)
    means[_NAMES] = means[_NAMES].div(means["n_trials"], axis=0)
    return means[["group", "method", "budget", "n_trials", "cause", *_NAMES]]


def _stages(about: pd.DataFrame, finished: pd.DataFrame, trained: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[Any, Any]] = []
    for group, words in finished.groupby("group", sort=False)["stage_table"]:
        tables = [json.loads(one) for one in words]
        own = trained[trained["group"] == group]
        unknown = own["stage"].isna() & (own["iterations"] > 0)
        if unknown.any() or len({tuple(map(_sizes, table)) for table in tables}) != 1:
            continue
        sums = own.groupby("stage")[_NAMES].sum(skipna=False) / len(tables)
        for at, amounts in zip(map(int, sums.index), sums.to_dict("records"), strict=True):
            size, batch_size = _sizes(tables[0][at])
            iterations = round(fmean(table[at]["iterations"] for table in tables))
            sizes = {"patch_size": size, "batch_size": batch_size, "iterations": iterations}
            rows.append({"group": group, **about.loc[group].to_dict(), "stage": at, **sizes, **amounts})
    names = ["group", *about, "stage", "patch_size", "batch_size", "iterations", *_NAMES]
    return pd.DataFrame(rows, columns=names)


def _sizes(row: Mapping[str, Any]) -> tuple[str, int]:
    return "×".join(map(str, row["patch_size"])), row["batch_size"]


def costs_items(tables: Tables, subject: str, caveats: Sequence[str]) -> Iterator[Part]:
    """Cost by cause as bars and a table, and by stage as a table, of the trials of one dataset."""
    parts = cost_parts(tables.trials, tables.costs)
    if parts.causes["seconds"].sum() == 0:
        yield "Cost by cause: no finished trial recorded its costs."
        return
    notes = [*_how_to_read(parts, tables.trials), *caveats]
    yield DisplayItem(
        stem="cost_by_cause",
        heading="Where the cost went",
        draw=lambda layout: _figure(parts, subject, notes, layout),
        alt=_in_words(parts),
        notes=notes,
        data=parts.causes,
        table=_cause_table(parts),
        caption="Mean cost of a finished trial by cause",
    )
    if len(parts.stages):
        yield DisplayItem(
            stem="cost_by_stage",
            folded=True,
            heading="Cost by stage",
            notes=_about_stages(parts),
            data=parts.stages,
            table=_stage_table(parts),
            caption="Mean cost of the training iterations of a finished trial by stage",
        )


def _figure(parts: CostParts, subject: str, notes: Sequence[str], layout: Layout) -> Figure:
    """Stacked bars of time, one per group; energy and CO₂ are in the table."""
    groups = parts.groups
    sheet = Sheet(
        layout=layout,
        title="Where the cost went",
        subject=subject,
        notes=notes,
        panel_height=max(0.9, _ROW * len(groups)),
        left=0.35 + _LETTER * max(map(len, groups)),
        legend=list(_legend(parts)),
    )
    with sheet.drawn() as (figure, [panel]):
        _draw(panel, parts)
        panel.set_yticks(range(len(groups)), groups)
        for label, group in zip(panel.get_yticklabels(), groups, strict=True):
            label.set_gid(belongs_to(*parts.points[group]))
    return figure


def _legend(parts: CostParts) -> Iterator[Entry]:
    """The causes that took any time; stages are told apart where there are several."""
    spent = parts.causes.groupby("cause")["seconds"].sum()
    staged = parts.stages.groupby("group")["stage"].nunique().gt(1).any()
    training = "training, a colour per scheme" + (", later stages stronger" if staged else "")
    for cause, words in CAUSES.items():
        if spent[cause] > 0:
            yield training if cause == "training" else words.lower(), (Patch(**_LOOKS[cause]),)


def _draw(panel: Axes, parts: CostParts) -> None:
    totals = parts.total("seconds")
    scale = reading_scale("s", float(totals.max()))
    for place, group in enumerate(parts.groups):
        gid, left = belongs_to(*parts.points[group]), 0.0
        for width, look in _pieces(parts, group):
            [piece] = panel.barh(place, width * scale.factor, left=left, height=0.62, zorder=3, **look)
            piece.set_gid(gid)
            left += width * scale.factor
        style: dict[str, Any] = {"va": "center", "fontsize": 7.6, "color": MUTED.light, "gid": gid}
        panel.annotate(number(left), (left, place), (4, 0), textcoords="offset points", **style)
    panel.set_ylim(len(parts.groups) - 0.45, -0.55)
    panel.set_xlim(0, float(totals.max()) * scale.factor * 1.13 or 1.0)
    panel.xaxis.set_major_locator(short_ticks())
    panel.set_xlabel(label_with_unit("Time per trial", scale.unit))
    panel.grid(False, axis="y")


def _pieces(parts: CostParts, group: str) -> Iterator[tuple[float, Mapping[str, Any]]]:
    """Width and look of each piece of a bar, the training by stage from pale to strong where stages are known."""
    rows = parts.causes[parts.causes["group"] == group]
    stages = parts.stages.loc[parts.stages["group"] == group, "seconds"].tolist()
    color = METHOD_STYLES[str(rows["method"].iloc[0])].paint.light
    for cause, whole in zip(rows["cause"], rows["seconds"], strict=True):
        if whole <= 0:
            continue
        if cause != "training":
            yield whole, {**_LOOKS[cause], "lw": 0.8}
        elif len(stages) < 2:
            yield whole, {"facecolor": color, "lw": 0}
        else:
            for stage, width in enumerate(stages):
                alpha = _PALEST + (1 - _PALEST) * stage / (len(stages) - 1)
                yield width, {"facecolor": color, "alpha": alpha, "lw": 0}


def _how_to_read(parts: CostParts, trials: pd.DataFrame) -> Iterator[str]:
    yield (
        "Means over the finished trials of a scheme; Dice and cost of the fronts count training and online "
        "validation alone."
    )
    if parts.causes["budget"].isna().any():
        yield "Trials of all budgets are averaged."
    waste = parts.causes.loc[parts.causes["cause"] == "waste", "seconds"].sum()
    done_again = "Waste is work that was lost to an interruption and done again."
    yield done_again if waste else "No finished trial had to do work again."
    others = trials[trials["state"] != FINISHED]
    if spent := float(others["total_seconds"].sum()):
        yield f"Not in the bars: {counted(len(others), 'trial')} that did not finish, {amount(spent, 's')} in all."


def _in_words(parts: CostParts) -> str:
    trained = parts.causes[parts.causes["cause"] == "training"].set_index("group")["seconds"]
    each = [
        f"{group} {amount(total, 's')}, {trained[str(group)] / total:.0%} training"
        for group, total in parts.total("seconds").items()
        if total
    ]
    return f"Stacked bars, mean time of a finished trial: {'; '.join(each)}."


def _about_stages(parts: CostParts) -> list[str]:
    left_out = [group for group in parts.groups if group not in set(parts.stages["group"])]
    sentences = [
        "Training iterations alone, each counted once: no validation, set-up or waste. The table has the largest "
        "budget of each scheme, its CSV file all of them."
    ]
    if left_out:
        why = "several stage tables, or random orders in ledgers of before"
        sentences.append(f"Not listed, because of {why}: {', '.join(left_out)}.")
    return sentences


def _cause_table(parts: CostParts) -> Table:
    """A row per group."""
    wide = parts.causes.pivot(index="group", columns="cause", values="seconds").loc[parts.groups, list(CAUSES)]
    wide["total"] = parts.total("seconds")
    carbon = parts.total("co2_kg")
    trials = parts.causes.groupby("group")["n_trials"].first()
    seconds, kilograms = _scale("s", parts.causes["seconds"]), _scale("kg", carbon)
    headings = [label_with_unit(label, seconds.unit) for label in (*CAUSES.values(), "Total time")]
    rows = [
        (group, str(trials[group]), *(_cell(value, seconds) for value in wide.loc[group]), _cell(total, kilograms))
        for group, total in zip(parts.groups, carbon, strict=True)
    ]
    return Table(
        headings=("Scheme", "Trials", *headings, label_with_unit("Total CO₂", kilograms.unit)),
        numeric=(False, *(True for _ in range(len(headings) + 2))),
        rows=tuple(rows),
        points=tuple(parts.points.values()),
    )


def _stage_table(parts: CostParts) -> Table:
    """A row per stage of each scheme, at its largest budget."""
    largest = parts.stages.groupby("method")["budget"].transform("max")
    stages = parts.stages[(parts.stages["budget"] == largest) | largest.isna()]
    labels = {"seconds": "Time", "energy_kwh": "Energy", "co2_kg": "CO₂"}
    scales = {name: _scale(AMOUNTS[name], stages[name]) for name in _NAMES if stages[name].notna().any()}
    rows = [
        (
            str(row["group"]),
            str(row["stage"] + 1),
            row["patch_size"],
            str(row["batch_size"]),
            str(row["iterations"]),
            *(_cell(row[name], scale) for name, scale in scales.items()),
            number(row["seconds"] / row["iterations"] * 1000),
        )
        for row in stages.to_dict("records")
    ]
    amounts = [label_with_unit(labels[name], scale.unit) for name, scale in scales.items()]
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


def _cell(value: Any, scale: Scale) -> str:
    return MISSING if pd.isna(value) else number(value * scale.factor)

"""How much each varying axis matters: PED-ANOVA and fANOVA side by side, per objective and for the front.

They answer different questions, so they disagree by design. fANOVA fits a random forest to all points and says which
share of the variance of an objective each axis explains, over the whole range that was tried (Hutter et al., 2014).
PED-ANOVA compares where the best points lie with where all of them lie and says which axis one must set right to be
among the best (Watanabe et al., 2023); with no single objective, the best are those nearest to the front. Both are
Optuna's, over points (folds and seeds averaged), and sum to 1 in each column.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.effects.axes import VaryingAxis
from analysis.figures.display_items import DisplayItem
from analysis.figures.sheet import Sheet
from analysis.figures.style import MUTED, SURFACE, Layout
from analysis.fronts.captions import subject
from analysis.fronts.front import nondominated
from analysis.tables.columns import BY_NAME, OBJECTIVES
from analysis.tables.format import Table, counted

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

PED_ANOVA, FANOVA = "PED-ANOVA", "fANOVA"
FRONT = "front"
"""The target that stands for all objectives together."""
FEWEST_POINTS = 8
"""Below this, importances are noise and are not computed."""
_COLUMNS = ["target", "evaluator", "axis", "importance", "n_points"]
# fANOVA's forest: Optuna's 64 deep trees, or fewer and flatter ones of many points, of which deep ones take minutes.
_FOREST, _FOREST_OF_MANY, _MANY_POINTS = {"n_trees": 64, "max_depth": 64}, {"n_trees": 32, "max_depth": 5}, 100
# PED-ANOVA looks at the best tenth, but at no fewer points than its authors advise, and never at more than half.
_BEST_SHARE, _BEST_LEAST, _BEST_MOST = 0.1, 5, 0.5
# Below this, importances are named as weak.
_ENOUGH_POINTS = 50
_LOOKS: Mapping[str, Mapping[str, Any]] = {
    PED_ANOVA: {"facecolor": MUTED.light, "edgecolor": MUTED.light},
    FANOVA: {"facecolor": SURFACE.light, "edgecolor": MUTED.light, "linewidth": 1.2},
}
_OFFSETS = {PED_ANOVA: 0.2, FANOVA: -0.2}
_LABEL_LETTERS, _LETTER, _ROW = 24, 0.068, 0.42


def importances(points: pd.DataFrame, axes: Sequence[VaryingAxis], objectives: Sequence[str]) -> pd.DataFrame:
    """Importance of each axis.

    Args:
        points: of one dataset, in the columns of the points; those without a value for an objective are left out.
        axes: as `varying_axes` gives them for these points.
        objectives: names out of `columns.OBJECTIVES`; one that is the same everywhere has no importances.

    Returns:
        Columns target (an objective or `front`), evaluator, axis, importance (0 to 1, sums to 1 unless all are 0) and
        n_points. Empty for fewer than FEWEST_POINTS points or without an axis that varies.
    """
    whole = points[np.isfinite(points[list(objectives)].to_numpy(dtype=float)).all(axis=1)]
    usable = [axis for axis in axes if axis.values[whole.index].nunique() > 1]
    if len(whole) < FEWEST_POINTS or not usable:
        return pd.DataFrame(columns=_COLUMNS)
    # Less is better, because PED-ANOVA takes it so.
    signs = {name: -1.0 if OBJECTIVES[name].maximise else 1.0 for name in objectives}
    losses = pd.DataFrame({name: sign * whole[name].astype("float64") for name, sign in signs.items()})
    rows = [
        (target, evaluator, axis.name, 0.0 if math.isnan(share := shares.get(axis.name, 0.0)) else share, len(whole))
        for target, evaluator, shares in _measured(_study(usable, losses), losses)
        for axis in usable
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def best_share(n_points: int, n_front: int = 0) -> float:
    """The share of points that PED-ANOVA calls the best; as large as the front where that is asked for."""
    return min(_BEST_MOST, max(_BEST_SHARE, _BEST_LEAST / n_points, n_front / n_points))


def _measured(study: Study, losses: pd.DataFrame) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    fanova = FanovaImportanceEvaluator(**(_FOREST if len(losses) <= _MANY_POINTS else _FOREST_OF_MANY), seed=0)
    evaluators = {PED_ANOVA: PedAnovaImportanceEvaluator(target_quantile=best_share(len(losses))), FANOVA: fanova}
    with warnings.catch_warnings():
        # What it warns of, that less is better, is so here.
        warnings.simplefilter("ignore")
        for at, objective in enumerate(losses):
            for name, evaluator in evaluators.items() if losses[objective].nunique() > 1 else ():
                of_one = get_param_importances(study, evaluator=evaluator, target=partial(_value, at))
                yield str(objective), name, of_one
        if losses.shape[1] > 1:
            on_front = int(nondominated(losses.to_numpy(dtype=float), maximise=[False] * losses.shape[1]).sum())
            near = PedAnovaImportanceEvaluator(target_quantile=best_share(len(losses), on_front))
            yield FRONT, PED_ANOVA, get_param_importances(study, evaluator=near)


def _value(at: int, trial: FrozenTrial) -> float:
    return float(trial.values[at])


def _study(axes: Sequence[VaryingAxis], losses: pd.DataFrame) -> Study:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(directions=["minimize"] * losses.shape[1])
        distributions = {axis.name: _distribution(axis, axis.values[losses.index]) for axis in axes}
        for index, values in zip(losses.index, losses.to_numpy().tolist(), strict=True):
            params = {axis.name: axis.values[index] for axis in axes}
            study.add_trial(optuna.create_trial(params=params, distributions=distributions, values=values))
    finally:
        optuna.logging.set_verbosity(before)
    return study


def _distribution(axis: VaryingAxis, values: pd.Series[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not axis.numeric:
        return CategoricalDistribution(sorted(set(values)))
    return FloatDistribution(float(values.min()), float(values.max()), log=axis.logarithmic)


def importances_item(
    points: pd.DataFrame, axes: Sequence[VaryingAxis], objectives: Sequence[str], caveats: Sequence[str]
) -> DisplayItem | str:
    """Bars: a panel per target, per axis a filled bar of PED-ANOVA above a hollow one of fANOVA."""
    if not axes or len(points) < FEWEST_POINTS:
        there = "is 1" if len(points) == 1 else f"are {len(points)}"
        alike = "" if axes else ", all with the same settings"
        needed = f"at least {FEWEST_POINTS} configurations that differ in an axis"
        return f"Importances: they take {needed}; there {there}{alike}."
    shares = importances(points, axes, objectives)
    labels = {axis.name: axis.label for axis in axes}
    notes = [*_how_to_read(len(points), axes), *caveats]
    return DisplayItem(
        stem="importances",
        heading="Which axis matters",
        draw=lambda layout: _figure(shares, labels, subject(points), notes, layout),
        alt=_in_words(shares, labels),
        notes=notes,
        data=shares.assign(label=shares["axis"].map(labels)),
        table=_table(shares, labels),
        caption=f"Importance of each axis, over {counted(len(points), 'configuration')}",
        folded=True,
    )


def _target_label(target: str) -> str:
    return "Pareto front" if target == FRONT else BY_NAME[target].label


def _figure(
    shares: pd.DataFrame, labels: Mapping[str, str], subject: str, notes: Sequence[str], layout: Layout
) -> Figure:
    targets = list(dict.fromkeys(shares["target"]))
    # The most important axis of all targets together on top.
    order = list(shares.groupby("axis")["importance"].mean().sort_values(kind="stable").index)
    names = [textwrap.fill(labels[axis], _LABEL_LETTERS) for axis in order]
    sheet = Sheet(
        layout=layout,
        title="Which axis matters",
        subject=subject,
        notes=notes,
        rows=1 if layout.rail else len(targets),
        columns=len(targets) if layout.rail else 1,
        panel_height=max(1.0, _ROW * len(order)),
        left=0.35 + _LETTER * max(len(line) for name in names for line in name.splitlines()),
        gap_across=0.3,
        head=0.15,
        legend=[(evaluator, (Patch(**look),)) for evaluator, look in _LOOKS.items()],
    )
    with sheet.drawn() as (figure, panels):
        for position, (panel, target) in enumerate(zip(panels, targets, strict=True)):
            _draw(panel, shares[shares["target"] == target], order)
            panel.set_title(_target_label(target), fontsize=9.5, loc="left", pad=5)
            panel.set_yticks(range(len(order)), names if position == 0 or not layout.rail else [""] * len(order))
            if layout.rail or position == len(targets) - 1:
                panel.set_xlabel("Importance (share of 1)")
    return figure


def _draw(panel: Axes, shares: pd.DataFrame, order: Sequence[str]) -> None:
    for evaluator, rows in shares.groupby("evaluator"):
        places = [place + _OFFSETS[str(evaluator)] for place in range(len(order))]
        values = rows.set_index("axis")["importance"].reindex(list(order))
        bars = panel.barh(places, values, height=0.36, zorder=3, **_LOOKS[str(evaluator)])
        panel.bar_label(bars, fmt="%.2f", padding=3, fontsize=7.5, color=MUTED.light, zorder=4)
    panel.set_xlim(0, 1.15)
    panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    panel.set_ylim(-0.6, len(order) - 0.4)
    panel.grid(False, axis="y")


def _how_to_read(n_points: int, axes: Sequence[VaryingAxis]) -> list[str]:
    best = math.ceil(best_share(n_points) * n_points)
    sentences = [
        f"{FANOVA}: share of the variance over all points that an axis explains by itself. {PED_ANOVA}: how much the "
        f"values of the best {best} of {n_points} points differ from those of all; for the front, of the points "
        "nearest to it. They answer different questions, so they may disagree.",
        "Each sums to 1, so an importance says nothing of how large the effect is; see the slices.",
    ]
    if n_points < _ENOUGH_POINTS:
        sentences.append(f"{n_points} points are few: small importances, and their order, may be chance.")
    joint = [axis.label for axis in axes if axis.together]
    if joint:
        sentences.append(f"Always changed together, so told apart by nothing here: {'; '.join(joint)}.")
    return sentences


def _in_words(shares: pd.DataFrame, labels: Mapping[str, str]) -> str:
    top = shares.loc[shares.groupby(["target", "evaluator"], sort=False)["importance"].idxmax()]
    each = [
        f"{_target_label(row['target'])} by {row['evaluator']}: {labels[row['axis']]} {row['importance']:.2f}"
        for row in top.to_dict("records")
    ]
    axes = "1 axis" if len(labels) == 1 else f"{len(labels)} axes"
    return f"Bar chart, importance of {axes}. Largest: {'; '.join(each)}."


def _table(shares: pd.DataFrame, labels: Mapping[str, str]) -> Table:
    wide = shares.pivot_table(index="axis", columns=["target", "evaluator"], values="importance", sort=False)
    order = wide.mean(axis=1).sort_values(ascending=False, kind="stable").index
    pairs = shares[["target", "evaluator"]].drop_duplicates().to_numpy()
    headings = [f"{_target_label(target)}, {evaluator}" for target, evaluator in pairs]
    return Table(
        headings=("Axis", *headings),
        numeric=(False, *(True for _ in headings)),
        rows=tuple((labels[str(axis)], *(f"{share:.2f}" for share in wide.loc[axis])) for axis in order),
    )

"""How much each varying axis matters: PED-ANOVA and fANOVA side by side, per objective and for the front.

They answer different questions, so they disagree by design. fANOVA fits a random forest to all points and says which
share of the variance of an objective each axis explains, over the whole range that was tried (Hutter et al., 2014).
PED-ANOVA compares where the best points lie with where all of them lie and says which axis one must set right to be
among the best (Watanabe et al., 2023); with no single objective, the best are those nearest to the front. Both are
Optuna's, over points (folds and seeds averaged), and sum to 1 in each column.

Importances as bars: a panel per target, per axis a filled bar of PED-ANOVA above a hollow one of fANOVA.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.effects.sheet import Sheet
from analysis.effects.varying import VaryingAxis
from analysis.figures.style import MUTED, RC, SURFACE, Layout
from analysis.fronts.dominance import nondominated
from analysis.tables.columns import BY_NAME
from analysis.tables.objectives import OBJECTIVES

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

PED_ANOVA, FANOVA = "PED-ANOVA", "fANOVA"
FRONT = "front"
"""The target that stands for all objectives together."""
FEWEST_POINTS = 8
"""Below this, importances are noise and are not computed."""
SEED = 0
# fANOVA's forest: Optuna's 64 deep trees, or fewer and flatter ones of many points, of which deep ones take minutes.
_FOREST, _FOREST_OF_MANY, _MANY_POINTS = {"n_trees": 64, "max_depth": 64}, {"n_trees": 32, "max_depth": 5}, 100
# PED-ANOVA looks at the best tenth, but at no fewer points than its authors advise, and never at more than half.
_BEST_SHARE, _BEST_LEAST, _BEST_MOST = 0.1, 5, 0.5


def importances(points: pd.DataFrame, axes: Sequence[VaryingAxis], objectives: Sequence[str]) -> pd.DataFrame:
    """Importance of each axis.

    Args:
        points: of one dataset, in the columns of the points; those without a value for an objective are left out.
        axes: as `varying_axes` gives them for these points.
        objectives: names out of `objectives.OBJECTIVES`; one that is the same everywhere has no importances.

    Returns:
        Columns target (an objective or `front`), evaluator, axis, importance (0 to 1, sums to 1 unless all are 0) and
        n_points. Empty for fewer than FEWEST_POINTS points or without an axis that varies.
    """
    whole = points[np.isfinite(points[list(objectives)].to_numpy(dtype=float)).all(axis=1)]
    usable = [axis for axis in axes if axis.values[whole.index].nunique() > 1]
    rows: list[dict[str, Any]] = []
    if len(whole) >= FEWEST_POINTS and usable:
        losses = _losses(whole, objectives)
        study = _study(usable, losses)
        for target, evaluator, shares in _measured(study, losses, objectives):
            rows += [
                {
                    "target": target,
                    "evaluator": evaluator,
                    "axis": axis.name,
                    "importance": shares.get(axis.name, 0.0),
                    "n_points": len(whole),
                }
                for axis in usable
            ]
    return pd.DataFrame(rows, columns=["target", "evaluator", "axis", "importance", "n_points"])


def best_share(n_points: int, n_front: int = 0) -> float:
    """The share of points that PED-ANOVA calls the best; as large as the front where that is asked for."""
    return min(_BEST_MOST, max(_BEST_SHARE, _BEST_LEAST / n_points, n_front / n_points))


def _measured(
    study: Study, losses: pd.DataFrame, objectives: Sequence[str]
) -> list[tuple[str, str, Mapping[str, float]]]:
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

    found: list[tuple[str, str, Mapping[str, float]]] = []
    ped_anova = PedAnovaImportanceEvaluator(target_quantile=best_share(len(losses)))
    fanova = FanovaImportanceEvaluator(**(_FOREST if len(losses) <= _MANY_POINTS else _FOREST_OF_MANY), seed=SEED)
    for position, name in enumerate(objectives):
        if losses[name].nunique() > 1:
            found.append((name, PED_ANOVA, _shares(study, ped_anova, _value_at(position))))
            found.append((name, FANOVA, _shares(study, fanova, _value_at(position))))
    if len(objectives) > 1:
        on_front = int(nondominated(losses.to_numpy(dtype=float), maximise=[False] * len(objectives)).sum())
        near = PedAnovaImportanceEvaluator(target_quantile=best_share(len(losses), on_front))
        found.append((FRONT, PED_ANOVA, _shares(study, near, None)))
    return found


def _losses(points: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Values of which less is better, because PED-ANOVA takes it so."""
    signs = {name: -1.0 if OBJECTIVES[name].maximise else 1.0 for name in objectives}
    return pd.DataFrame({name: sign * points[name].astype("float64") for name, sign in signs.items()})


def _study(axes: Sequence[VaryingAxis], losses: pd.DataFrame) -> Study:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(directions=["minimize"] * losses.shape[1])
        distributions = {axis.name: _distribution(axis, losses.index) for axis in axes}
        study.add_trials([_trial(axes, distributions, index, losses) for index in losses.index])
    finally:
        optuna.logging.set_verbosity(before)
    return study


def _trial(
    axes: Sequence[VaryingAxis], distributions: dict[str, BaseDistribution], index: Any, losses: pd.DataFrame
) -> FrozenTrial:
    import optuna

    return optuna.trial.create_trial(
        params={axis.name: axis.values[index] for axis in axes},
        distributions=distributions,
        values=losses.loc[index].tolist(),
    )


def _distribution(axis: VaryingAxis, index: pd.Index[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    values = axis.values[index]
    if not axis.numeric:
        return CategoricalDistribution(sorted(set(values)))
    return FloatDistribution(float(values.min()), float(values.max()), log=axis.logarithmic)


def _value_at(position: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(trial.values[position])


def _shares(study: Study, evaluator: Any, target: Callable[[FrozenTrial], float] | None) -> Mapping[str, float]:
    from optuna.importance import get_param_importances

    with warnings.catch_warnings():
        # What it warns of, that less is better, is so here.
        warnings.simplefilter("ignore")
        shares = get_param_importances(study, evaluator=evaluator, target=target)
    return {name: 0.0 if math.isnan(share) else float(share) for name, share in shares.items()}


_LOOKS: Mapping[str, Mapping[str, Any]] = {
    PED_ANOVA: {"facecolor": MUTED.light, "edgecolor": MUTED.light},
    FANOVA: {"facecolor": SURFACE.light, "edgecolor": MUTED.light, "linewidth": 1.2},
}
_OFFSETS = {PED_ANOVA: 0.2, FANOVA: -0.2}
_LABEL_LETTERS, _LETTER, _ROW = 24, 0.068, 0.42


def target_label(target: str) -> str:
    """`Dice`, `Training time`, or `Pareto front`."""
    return "Pareto front" if target == FRONT else BY_NAME[target].label


def importance_bars(
    shares: pd.DataFrame, labels: Mapping[str, str], *, subject: str, notes: Sequence[str], layout: Layout
) -> Figure:
    """The figure.

    Args:
        shares: as `importances.importances` gives them, of one dataset, not empty.
        labels: of axes, by name.
        subject: what it rests on.
        notes: sentences below.
        layout: size and arrangement.
    """
    targets = list(dict.fromkeys(shares["target"]))
    # The most important axis of all targets together on top.
    order = list(shares.groupby("axis")["importance"].mean().sort_values(kind="stable").index)
    names = [textwrap.fill(labels[axis], _LABEL_LETTERS) for axis in order]
    longest = max(len(line) for name in names for line in name.splitlines())
    sheet = Sheet(
        layout=layout,
        title="Which axis matters",
        subject=subject,
        notes=notes,
        rows=1 if layout.rail else len(targets),
        columns=len(targets) if layout.rail else 1,
        panel_height=max(1.0, _ROW * len(order)),
        left=0.35 + _LETTER * longest,
        gap_across=0.3,
        legend=[Patch(label=evaluator, **_LOOKS[evaluator]) for evaluator in (PED_ANOVA, FANOVA)],
    )
    with mpl.rc_context(RC):
        figure, panels = sheet.build()
        for position, (axes, target) in enumerate(zip(panels, targets, strict=True)):
            _draw(axes, shares[shares["target"] == target], order)
            axes.set_title(target_label(target), fontsize=9.5, loc="left", pad=5)
            axes.set_yticks(range(len(order)), names if position == 0 or not layout.rail else [""] * len(order))
            if layout.rail or position == len(targets) - 1:
                axes.set_xlabel("Importance (share of 1)")
    return figure


def _draw(axes: Axes, shares: pd.DataFrame, order: Sequence[str]) -> None:
    for evaluator, rows in shares.groupby("evaluator"):
        by_axis = rows.set_index("axis")["importance"].reindex(list(order))
        places = [place + _OFFSETS[str(evaluator)] for place in range(len(order))]
        axes.barh(places, by_axis, height=0.36, zorder=3, **_LOOKS[str(evaluator)])
        for place, share in zip(places, by_axis, strict=True):
            axes.text(share + 0.02, place, f"{share:.2f}", va="center", fontsize=7.5, color=MUTED.light, zorder=4)
    axes.set_xlim(0, 1.15)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.grid(False, axis="y")


# Below this, importances are named as weak.
_ENOUGH_POINTS = 50


def about_importances(n_points: int, axes: Sequence[VaryingAxis]) -> list[str]:
    """How to read importances."""
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


def importances_in_words(shares: pd.DataFrame, labels: Mapping[str, str]) -> str:
    """The figure of importances in words."""
    parts = []
    for (target, evaluator), rows in shares.groupby(["target", "evaluator"], sort=False):
        top = rows.iloc[int(rows["importance"].to_numpy().argmax())]
        parts.append(f"{target_label(str(target))} by {evaluator}: {labels[top['axis']]} {top['importance']:.2f}")
    axes = "1 axis" if len(labels) == 1 else f"{len(labels)} axes"
    return f"Bar chart, importance of {axes}. Largest: {'; '.join(parts)}."

"""How sure a front is: for every point, how often it is still non-dominated when the evidence is drawn again.

A hierarchical bootstrap: in every replicate the trainings of a configuration are drawn with replacement within their
fold, then the validation cases of a dataset, the same draw for all points, because they are judged on the same cases.
What drawn trainings change is enlarged by √(R/(R-1)), R being the trainings of the fold (Rao & Wu 1988): otherwise two
of them would show half of their variance. The cost of a point with several trials is the mean of as many of them, drawn
with replacement. The share of replicates in which a point is on the front is its bootstrap probability.

What this covers: the choice of validation cases, of trainings where a fold has several (of folds with one, what the
others of the configuration scatter), and the scatter of costs. What it does not: other trainings of a configuration
that has one per fold; the cost of a point with one trial, which is taken as exact; other hardware; configurations that
nobody trained.

Cases are drawn within strata, the cases on which the same trainings were validated (the folds), so that no point is
ever left without cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.fronts.front import Front, nondominated
from analysis.statistics.case_dice import CaseDice, case_matrices, mean_dice, strata
from analysis.tables.columns import Objective
from analysis.tables.frame import FINISHED, Tables

REPLICATES = 1000
SEED = 0

Array: TypeAlias = NDArray[np.float64]


class CaseDraws:
    """Replicates of the Dice of all configurations, by dataset; each dataset is drawn once and remembered.

    Args:
        tables: with the trials and cases.
        replicates: of the bootstrap.
        seed: of the draws; the same gives the same replicates.
    """

    def __init__(self, tables: Tables, *, replicates: int = REPLICATES, seed: int = SEED) -> None:
        self.tables, self.replicates, self.seed = tables, replicates, seed
        self._matrices = case_matrices(tables)
        self._changes: dict[str, pd.DataFrame] = {}

    def dice(self, points: pd.DataFrame) -> Array:
        """Dice of points of one dataset, moved by what the draws change; that of a point without cases stays.

        Returns:
            Replicates × points.
        """
        dataset = str(points["dataset"].iloc[0])
        whole = points["dice"].to_numpy(dtype=float)
        if dataset not in self._matrices:
            return np.tile(whole, (self.replicates, 1))
        change = self._change(dataset).reindex(points["point_id"], fill_value=0.0)
        return np.asarray(whole + change.to_numpy(dtype=float).T)

    def _change(self, dataset: str) -> pd.DataFrame:
        """Configurations (in the index) × replicates: Dice of what was drawn minus that of all."""
        if dataset not in self._changes:
            matrix = self._matrices[dataset]
            ids = list(dict.fromkeys(matrix.point_ids))
            changes = drawn_changes(matrix, ids, replicates=self.replicates, seed=self.seed)
            self._changes[dataset] = pd.DataFrame(changes, index=ids)
        return self._changes[dataset]


def probability_on_front(front: Front, draws: CaseDraws) -> pd.Series[float]:
    """The bootstrap probability of every point of a front to be non-dominated.

    Args:
        front: whose points, objectives and groups are taken.
        draws: of the tables behind the points.

    Returns:
        A share of replicates per point, in the index of `front.points`.
    """
    shares = pd.Series(np.nan, index=front.points.index, dtype=float)
    maximise = [objective.maximise for objective in front.objectives]
    for _, points in front.points.groupby("dataset"):
        values = replicated(points, front.objectives, draws)
        for rows in _groups(points, front.by):
            shares[points.index[rows]] = _shares(values[:, rows], maximise)
    return shares


def replicated(points: pd.DataFrame, objectives: Sequence[Objective], draws: CaseDraws) -> Array:
    """The values of points of one dataset in every replicate.

    Args:
        points: of one dataset.
        objectives: which values.
        draws: of the tables behind the points.

    Returns:
        Replicates × points × objectives, scattered around the values of the points.
    """
    names = [objective.name for objective in objectives if objective.name != "dice"]
    costs = dict(zip(names, _costs(points, names, draws), strict=True))
    return np.stack([draws.dice(points) if o.name == "dice" else costs[o.name] for o in objectives], axis=-1)


def drawn_changes(
    matrix: CaseDice, point_ids: Sequence[str], *, replicates: int = REPLICATES, seed: int = SEED
) -> Array:
    """What drawing trainings and cases again changes in the Dice of configurations, the same cases for all.

    Returns:
        Configurations × replicates.
    """
    rng = np.random.default_rng(seed)
    drawn = _case_weights(matrix.seen, replicates, rng)
    whole = mean_dice(matrix.dice, np.ones((1, drawn.shape[1])))
    # Where all drawn cases of a training lack a Dice, it stays.
    change = mean_dice(matrix.dice, drawn)
    change -= whole
    np.nan_to_num(change, copy=False)
    rows = [matrix.rows_of(point) for point in point_ids]
    if all(len(mine) == 1 for mine in rows):
        return change[np.concatenate(rows)]
    changes = np.zeros((len(point_ids), replicates))
    for row, point in enumerate(point_ids):
        mine, weights = matrix.weights_of(point)
        changes[row] = weights @ change[mine]
        if len(mine) > 1:
            changes[row] += _training_changes(whole[mine] + change[mine], matrix.folds[mine], weights, rng)
    return changes


def _training_changes(dice: Array, folds: NDArray[np.int64], weights: Array, rng: np.random.Generator) -> Array:
    """What drawing the trainings of a configuration changes in each replicate; 0 where no fold has two.

    Args:
        dice: trainings × replicates.
        folds: of the trainings.
        weights: of each in the mean.
        rng: draws.
    """
    groups = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    repeated = [group for group in groups if len(group) > 1]
    changes = np.zeros(dice.shape[1])
    if not repeated:
        return changes
    apart = np.concatenate(
        [(dice[group] - dice[group].mean(axis=0)) * np.sqrt(len(group) / (len(group) - 1)) for group in repeated]
    )
    starts = np.cumsum([0, *map(len, repeated)])
    for group in groups:
        # A fold with one training has the scatter of the others.
        own = next((n for n, other in enumerate(repeated) if other[0] == group[0]), None)
        low, high = (0, len(apart)) if own is None else (starts[own], starts[own + 1])
        drawn = rng.integers(low, high, size=(len(group), dice.shape[1]))
        changes += weights[group[0]] * apart[drawn, np.arange(dice.shape[1])].sum(axis=0)
    return changes


def _case_weights(seen: NDArray[np.bool_], replicates: int, rng: np.random.Generator) -> Array:
    """Replicates × cases: how often each case is drawn, stratum by stratum."""
    weights = np.zeros((replicates, seen.shape[1]))
    for cases in strata(seen):
        weights[:, cases] = rng.multinomial(len(cases), np.full(len(cases), 1 / len(cases)), size=replicates)
    return weights


def _costs(points: pd.DataFrame, names: Sequence[str], draws: CaseDraws) -> Array:
    """Objectives × replicates × points: means of drawn trials, the same trials for all costs of a point."""
    rng = np.random.default_rng([draws.seed, 1])
    costs = np.stack([np.tile(points[name].to_numpy(dtype=float), (draws.replicates, 1)) for name in names])
    trials = draws.tables.trials
    finished = trials[trials["state"] == FINISHED]
    values = finished[list(names)].to_numpy(dtype=float)
    of_point = finished.reset_index(drop=True).groupby(["dataset", "point_id"]).indices
    keys = list(zip(points["dataset"], points["point_id"], strict=True))
    for column in np.flatnonzero(points["n_trials"].to_numpy() > 1):
        mine = values[of_point[keys[column]]]
        drawn = rng.integers(0, len(mine), size=(draws.replicates, len(mine)))
        costs[:, :, column] = mine[drawn].mean(axis=1).T
    return costs


def _groups(points: pd.DataFrame, by: str | None) -> list[NDArray[np.int64]]:
    if by is None:
        return [np.arange(len(points))]
    return [np.asarray(rows) for rows in points.groupby(by, dropna=False).indices.values()]


def _shares(values: Array, maximise: Sequence[bool]) -> Array:
    if values.shape[1] == 1:
        return np.ones(1)
    shares, chance = np.zeros(values.shape[1]), _have_a_chance(values, maximise)
    shares[chance] = _nondominated_in_each(values[:, chance], maximise).mean(axis=0)
    return shares


def _nondominated_in_each(values: Array, maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """`nondominated` of every replicate; of two objectives of all at once.

    By the first objective from the best on, then the second: a point is dominated by one before it that is better in
    the second, or as good and better in the first, of which the first that came so far is the best.
    """
    if len(maximise) != 2 or not np.isfinite(values).all():
        return np.stack([nondominated(replicate, maximise=maximise) for replicate in values])
    first, second = np.moveaxis(np.where(maximise, values, -values), -1, 0)
    order = np.argsort(-first, axis=1)
    ranked = np.take_along_axis(first, order, 1)
    # By both takes ten times as long, and hardly two are equal in the first.
    equal = (ranked[:, 1:] == ranked[:, :-1]).any(axis=1)
    order[equal] = np.lexsort((-second[equal], -first[equal]), axis=1)
    first, second = np.take_along_axis(first, order, 1), np.take_along_axis(second, order, 1)
    best = np.maximum.accumulate(second, axis=1)
    reached = np.ones(second.shape, dtype=bool)
    reached[:, 1:] = second[:, 1:] > best[:, :-1]
    since = np.maximum.accumulate(np.where(reached, np.arange(second.shape[1]), 0), axis=1)
    flags = np.empty(second.shape, dtype=bool)
    np.put_along_axis(flags, order, (second == best) & (first == np.take_along_axis(first, since, 1)), 1)
    return flags


def _have_a_chance(values: Array, maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """Points that no other is better than in all replicates; the others have no say in any."""
    lowest, highest = values.min(axis=0), values.max(axis=0)
    best, worst = np.where(maximise, highest, -lowest), np.where(maximise, lowest, -highest)
    surest = worst[nondominated(worst, maximise=[True] * len(maximise))]
    # Those who are as good or better in all that a number of objectives can tell: a mask of each, not of all at once.
    as_good = np.logical_and.reduce([mine[:, np.newaxis] <= sure for mine, sure in zip(best.T, surest.T, strict=True)])
    better = np.logical_or.reduce([mine[:, np.newaxis] < sure for mine, sure in zip(best.T, surest.T, strict=True)])
    return ~np.asarray((as_good & better).any(axis=1))

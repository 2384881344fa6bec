"""How sure a front is: for every point, how often it is still non-dominated when the evidence is drawn again.

In every replicate the validation cases of a dataset are drawn with replacement, the same draw for all points, because
they are judged on the same cases; and the cost of a point with several trials is the mean of as many of them, drawn
with replacement. The share of replicates in which a point is on the front is its bootstrap probability.

What this covers: the choice of validation cases, and the scatter of costs between folds and seeds. What it does not:
another training with another seed, which would have given another Dice; the cost of a point with one trial, which is
taken as exact; other hardware; configurations that nobody trained.

Cases are drawn within strata, the cases on which the same points were validated (the folds), so that no point is ever
left without cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.case_dice import CaseDice, case_matrices, mean_dice
from analysis.dominance import nondominated
from analysis.frame import FINISHED, Tables
from analysis.front import Front
from analysis.objectives import Objective

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
        self._matrices = case_matrices(tables.trials, tables.cases)
        self._changes: dict[str, Array] = {}

    def dice(self, points: pd.DataFrame) -> Array:
        """Dice of points of one dataset, moved by what the drawn cases change; that of a point without cases stays.

        Returns:
            Replicates × points.
        """
        dice = np.tile(points["dice"].to_numpy(dtype=float), (self.replicates, 1))
        dataset = str(points["dataset"].iloc[0])
        if dataset in self._matrices:
            rows = self._matrices[dataset].rows(points["point_id"])
            dice[:, rows >= 0] += self._change(dataset)[rows[rows >= 0]].T
        return dice

    def _change(self, dataset: str) -> Array:
        """Configurations × replicates: mean Dice of the drawn cases minus that of all."""
        if dataset not in self._changes:
            self._changes[dataset] = case_changes(self._matrices[dataset], replicates=self.replicates, seed=self.seed)
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


def case_changes(matrix: CaseDice, *, replicates: int = REPLICATES, seed: int = SEED) -> Array:
    """What drawing cases again changes in the mean Dice of configurations, the same draws for all.

    Returns:
        Configurations × replicates.
    """
    weights = _case_weights(matrix.seen, replicates, np.random.default_rng(seed))
    change = mean_dice(matrix.dice, weights) - mean_dice(matrix.dice, np.ones((1, weights.shape[1])))
    # Where all drawn cases of a point lack a Dice, it stays.
    return np.nan_to_num(change)


def _case_weights(seen: NDArray[np.bool_], replicates: int, rng: np.random.Generator) -> Array:
    """Replicates × cases: how often each case is drawn, stratum by stratum."""
    weights = np.zeros((replicates, seen.shape[1]))
    _, stratum = np.unique(seen, axis=1, return_inverse=True)
    for number in range(int(stratum.max(initial=-1)) + 1):
        cases = np.flatnonzero(stratum.ravel() == number)
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
    return np.asarray(np.mean([nondominated(replicate, maximise=maximise) for replicate in values], axis=0))

"""Dice of every training on every validation case and class, as one array per dataset, and the one mean taken of it.

The Dice of a configuration is, here and in every table, a mean of means: over its folds, in a fold over its trainings
(seeds), in a training nnU-Net's own, over classes of the mean over cases. A class that is neither in a case nor
predicted there has no Dice (NaN), and the case is left out of that class's mean. So a fold with fewer cases or more
seeds weighs as much as any other.

Resampling cases means giving them weights, and the mean of many weightings at once is a product of matrices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.tables.frame import FINISHED, KEY, Tables
from analysis.tables.rows import FOREGROUND

_TRAINING = ["point_id", "fold", "seed"]
MOST_AT_ONCE = 200
"""Configurations whose estimates are made together, which takes space and time by the square of their number."""
_NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class CaseDice:
    """The cases of one dataset. Copies of a training in two studies (same fold and seed) are averaged into one.

    Attributes:
        point_ids: configuration of each training, the first axis of the arrays.
        folds: fold of each training.
        cases: identifiers, the second axis.
        labels: classes, the third axis.
        dice: trainings × cases × classes; NaN where there is none.
        seen: trainings × cases, whether the training was validated on the case.
    """

    point_ids: NDArray[np.object_]
    folds: NDArray[np.int64]
    cases: tuple[str, ...]
    labels: tuple[str, ...]
    dice: NDArray[np.float64]
    seen: NDArray[np.bool_]

    def averages(self, point_ids: Iterable[str]) -> NDArray[np.float64]:
        """The weight of each training in the mean of each configuration.

        Returns:
            Configurations × trainings; each row sums to 1, or is 0 for a configuration without cases.
        """
        rows = np.zeros((len(wanted := list(point_ids)), len(self.folds)))
        for row, point in zip(rows, wanted, strict=True):
            mine, shares = self.weights_of(point)
            row[mine] = shares
        return rows

    def weights_of(self, point_id: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Where the trainings of a configuration are, and the weight of each in its mean."""
        mine = self.rows_of(point_id)
        if len(mine) == 1:
            return mine, np.ones(1)
        folds, which, seeds = np.unique(self.folds[mine], return_inverse=True, return_counts=True)
        return mine, 1 / (len(folds) * seeds[which])

    def rows_of(self, point_id: str) -> NDArray[np.int64]:
        """Where the trainings of a configuration are."""
        return self._rows.get(point_id, _NO_ROWS)

    @cached_property
    def _rows(self) -> dict[str, NDArray[np.int64]]:
        found: dict[str, list[int]] = {}
        for row, point in enumerate(self.point_ids.tolist()):
            found.setdefault(point, []).append(row)
        return {point: np.array(rows) for point, rows in found.items()}

    def common(self, point_ids: Sequence[str], folds: Iterable[int] | None = None) -> CaseDice:
        """The trainings of some configurations on the folds that all of them have, and the cases that all saw there.

        Args:
            point_ids: at least one.
            folds: to keep of these; None keeps them all.
        """
        mine = np.zeros(len(self.folds), dtype=bool)
        mine[np.concatenate([self.rows_of(point) for point in point_ids])] = True
        shared = set.intersection(*(set(self.folds[self.rows_of(point)].tolist()) for point in point_ids))
        mine &= np.isin(self.folds, sorted(shared if folds is None else shared & set(folds)))
        kept = np.zeros(len(self.cases), dtype=bool)
        for fold in np.unique(self.folds[mine]):
            kept |= self.seen[mine & (self.folds == fold)].all(axis=0)
        return self._part(mine, kept)

    def alike(self, point_ids: Sequence[str]) -> list[list[str]]:
        """Configurations in groups of the same folds and cases, of `MOST_AT_ONCE` at most; none without cases."""
        rows = np.column_stack([self.folds, self.seen])
        groups: dict[frozenset[bytes], list[str]] = {}
        for point in dict.fromkeys(point_ids):
            if seen := frozenset(row.tobytes() for row in rows[self.rows_of(point)]):
                groups.setdefault(seen, []).append(point)
        return [
            group[first : first + MOST_AT_ONCE]
            for group in groups.values()
            for first in range(0, len(group), MOST_AT_ONCE)
        ]

    def _part(self, trainings: NDArray[np.bool_], cases: NDArray[np.bool_]) -> CaseDice:
        return CaseDice(
            point_ids=self.point_ids[trainings],
            folds=self.folds[trainings],
            cases=tuple(np.array(self.cases, dtype=object)[cases]),
            labels=self.labels,
            dice=self.dice[trainings][:, cases],
            seen=self.seen[trainings][:, cases],
        )


@lru_cache(maxsize=2)
def case_matrices(tables: Tables) -> Mapping[str, CaseDice]:
    """The cases of finished trials by dataset; a dataset without any has no entry."""
    trials, cases = tables.trials, tables.cases[tables.cases["label"] != FOREGROUND]
    finished = trials.loc[trials["state"] == FINISHED, [*KEY, "dataset", *_TRAINING]].drop_duplicates(KEY)
    # By number: names of a million rows are compared once.
    trial = pd.MultiIndex.from_frame(finished[KEY]).get_indexer(pd.MultiIndex.from_frame(cases[KEY]))
    datasets, names = pd.factorize(finished["dataset"], sort=True)
    dataset = np.append(datasets, -1)[trial]
    parts = {str(name): dataset == number for number, name in enumerate(names)}
    return {name: _matrix(finished, trial[rows], cases[rows]) for name, rows in parts.items() if rows.any()}


def mean_dice(dice: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """nnU-Net's mean Dice under weights of the cases.

    Args:
        dice: trainings × cases × classes, NaN where there is none.
        weights: weightings × cases, not negative.

    Returns:
        Trainings × weightings; a class whose weighted cases have no Dice is left out, NaN if that is every class.
    """
    total = np.zeros((len(dice), len(weights)))
    classes = np.zeros((1, len(weights)))
    for values in np.moveaxis(dice, -1, 0):
        there = np.isfinite(values)
        whole = bool(there.all())
        weight = weights.sum(axis=1)[np.newaxis] if whole else there.astype(float) @ weights.T
        summed = (values if whole else np.where(there, values, 0.0)) @ weights.T
        # Where a class has no weight its sum is 0.
        total += np.divide(summed, weight, out=summed, where=weight > 0)
        classes = classes + (weight > 0)
    total[np.broadcast_to(classes == 0, total.shape)] = np.nan
    return np.divide(total, classes, out=total, where=classes > 0)


def strata(seen: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Cases by the trainings that saw them, which makes folds of them: each is drawn again by itself."""
    # As bytes, which are compared at once, of thousands of trainings too.
    by = [column.tobytes() for column in np.ascontiguousarray(seen.T)]
    return [np.array([case for case, other in enumerate(by) if other == one]) for one in sorted(set(by))]


def _matrix(trials: pd.DataFrame, trial: NDArray[np.int64], rows: pd.DataFrame) -> CaseDice:
    """Of the cases of one dataset, given which of the trials each is of."""
    training, trainings = pd.factorize(pd.MultiIndex.from_frame(trials[_TRAINING]))
    unit, units = pd.factorize(training[trial])
    (case, cases), (label, labels) = pd.factorize(rows["case"]), pd.factorize(rows["label"])
    shape = len(units), len(cases), len(labels)
    place = np.asarray(np.ravel_multi_index((unit, case, label), shape))
    values = rows["dice"].to_numpy(dtype=float)
    there = np.isfinite(values)
    count = np.bincount(place[there], minlength=int(np.prod(shape)))
    summed = np.bincount(place[there], weights=values[there], minlength=len(count))
    mean = np.divide(summed, count, out=np.full(len(count), np.nan), where=count > 0)
    seen = np.zeros(shape[:2], dtype=bool)
    seen[unit, case] = True
    return CaseDice(
        point_ids=trainings.get_level_values(0).to_numpy(dtype=object)[units],
        folds=trainings.get_level_values(1).to_numpy(dtype=np.int64)[units],
        cases=tuple(map(str, cases)),
        labels=tuple(map(str, labels)),
        dice=mean.reshape(shape),
        seen=seen,
    )

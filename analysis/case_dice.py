"""Dice of every configuration on every validation case and class, as one array per dataset.

nnU-Net's Dice is a mean over classes of the mean over cases; a class that is neither in a case nor predicted there has
none (NaN) and that case is left out of its mean. Resampling cases means giving them weights, and the mean of many
weightings at once is a product of matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.frame import FINISHED, KEY
from analysis.rows import FOREGROUND


@dataclass(frozen=True, kw_only=True)
class CaseDice:
    """The cases of one dataset.

    Attributes:
        point_ids: configurations, the first axis of the arrays.
        cases: identifiers, the second axis.
        labels: classes, the third axis.
        dice: configurations × cases × classes, seeds averaged; NaN where there is none.
        seen: configurations × cases, whether the configuration was validated on the case.
    """

    point_ids: tuple[str, ...]
    cases: tuple[str, ...]
    labels: tuple[str, ...]
    dice: NDArray[np.float64]
    seen: NDArray[np.bool_]

    def rows(self, point_ids: pd.Series[str]) -> NDArray[np.int64]:
        """Index of each configuration on the first axis, -1 for one without cases."""
        return np.asarray(pd.Index(self.point_ids).get_indexer(pd.Index(point_ids)), dtype=np.int64)


def case_matrices(trials: pd.DataFrame, cases: pd.DataFrame) -> Mapping[str, CaseDice]:
    """The cases of finished trials by dataset; a dataset without any has no entry.

    Args:
        trials: as in `frame.Tables`.
        cases: as in `frame.Tables`.
    """
    finished = trials.loc[trials["state"] == FINISHED, [*KEY, "dataset", "point_id"]].drop_duplicates(KEY)
    keys = pd.MultiIndex.from_frame(finished[KEY])
    rows = cases[cases["label"] != FOREGROUND]
    trial = keys.get_indexer(pd.MultiIndex.from_frame(rows[KEY])) if len(rows) else np.empty(0, dtype=int)
    rows, trial = rows[trial >= 0], trial[trial >= 0]
    datasets = finished["dataset"].to_numpy()[trial]
    points = finished["point_id"].to_numpy()[trial]
    return {
        str(dataset): _matrix(points[datasets == dataset], rows[datasets == dataset])
        for dataset in sorted(set(datasets))
    }


def mean_dice(dice: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """nnU-Net's mean Dice under weights of the cases.

    Args:
        dice: configurations × cases × classes, NaN where there is none.
        weights: weightings × cases, not negative.

    Returns:
        Configurations × weightings; a class whose weighted cases have no Dice is left out, NaN if that is every class.
    """
    total = np.zeros((len(dice), len(weights)))
    classes = np.zeros_like(total)
    for values in np.moveaxis(dice, -1, 0):
        there = np.isfinite(values)
        weight = there.astype(float) @ weights.T
        summed = np.where(there, values, 0.0) @ weights.T
        total += np.divide(summed, weight, out=np.zeros_like(summed), where=weight > 0)
        classes += weight > 0
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)


def _matrix(points: NDArray[np.object_], rows: pd.DataFrame) -> CaseDice:
    codes, names = zip(*(pd.factorize(axis) for axis in (points, rows["case"], rows["label"])), strict=True)
    point, case, label = codes
    shape = tuple(len(axis) for axis in names)
    place = np.asarray(np.ravel_multi_index((point, case, label), shape))
    values = rows["dice"].to_numpy(dtype=float)
    there = np.isfinite(values)
    count = np.bincount(place[there], minlength=int(np.prod(shape)))
    summed = np.bincount(place[there], weights=values[there], minlength=len(count))
    mean = np.divide(summed, count, out=np.full(len(count), np.nan), where=count > 0)
    seen = np.zeros(shape[:2], dtype=bool)
    seen[point, case] = True
    point_ids, cases, labels = (tuple(map(str, axis)) for axis in names)
    return CaseDice(point_ids=point_ids, cases=cases, labels=labels, dice=mean.reshape(shape), seen=seen)

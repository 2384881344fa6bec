"""One side of a pair: a configuration on some folds, its mean Dice, its mean costs, the Dice of its cases.

Seeds of a fold are averaged first, then folds, as everywhere (`case_dice`). A published configuration has no trials:
its printed means are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.case_dice import CaseDice, case_matrices
from analysis.caveats import words_of
from analysis.evidence import Evidence
from analysis.frame import FINISHED, KEY
from analysis.rows import FOREGROUND

AVERAGED = ("dice", "runtime_seconds", "energy_kwh", "co2_kg", "voxels", "voxel_share", "iterations")
_CONFIGURATION = ["dataset", "point_id"]


@dataclass(frozen=True, kw_only=True)
class Side:
    """A configuration on some of its folds.

    Attributes:
        point: its row in the frame of points.
        trials: its finished trials on those folds; empty for published numbers.
        means: by name, those of `AVERAGED`; NaN where it is unknown in any of the trials.
        cases: Dice by validation case, seeds averaged; NaN where no seed has one.
    """

    point: pd.Series[Any]
    trials: pd.DataFrame
    means: dict[str, float]
    cases: pd.Series[float]

    def words(self, name: str) -> set[str]:
        """The different values of a circumstance among its trials."""
        values = self.trials[name] if len(self.trials) else pd.Series([self.point[name]])
        return words_of(values.dropna().map(lambda v: f"{v:g}" if isinstance(v, float) else str(v)))

    @property
    def seeds(self) -> set[int]:
        """Of its trials."""
        return set(self.trials["seed"])


class Finished:
    """The finished trials and cases of some studies by configuration, looked up quickly."""

    def __init__(self, evidence: Evidence) -> None:
        trials = evidence.tables.trials
        self._none = trials.iloc[:0]
        finished = trials[trials["state"] == FINISHED]
        self._trials = dict(list(finished.groupby(_CONFIGURATION, sort=False)))
        cases = evidence.tables.cases
        means = cases[cases["label"] == FOREGROUND].merge(finished[[*KEY, *_CONFIGURATION, "fold"]], on=KEY)
        self._cases = dict(list(means.groupby(_CONFIGURATION, sort=False)))
        self._matrices = case_matrices(trials, cases)
        self._search_kg = trials.groupby("dataset")["total_co2_kg"].agg(lambda kg: kg.sum(skipna=False))

    def folds(self, point: pd.Series[Any]) -> set[int]:
        """Folds that a configuration finished, or that a publication averaged."""
        return {int(fold) for fold in point["folds"].split()}

    def side(self, point: pd.Series[Any], folds: set[int]) -> Side:
        """A configuration on some of its folds."""
        key = (point["dataset"], point["point_id"])
        trials = self._trials.get(key, self._none)
        trials = trials[trials["fold"].isin(folds)]
        return Side(point=point, trials=trials, means=_means(point, trials), cases=self._case_dice(key, folds))

    def sample(self, sides: Sequence[Side], folds: set[int]) -> CaseDice | None:
        """The trainings of both on some folds with the cases that all of them saw; None if a side has none."""
        matrix = self._matrices.get(str(sides[0].point["dataset"]))
        ids = [str(side.point["point_id"]) for side in sides]
        if matrix is None or not set(ids) <= set(matrix.point_ids):
            return None
        sample = matrix.common(ids, folds)
        return sample if sample.cases else None

    def search_kg(self, dataset: str) -> float:
        """CO₂ of all trials of a dataset, whatever became of them; NaN where some of it is not known."""
        return float(self._search_kg.get(dataset, np.nan))

    def _case_dice(self, key: tuple[str, str], folds: set[int]) -> pd.Series[float]:
        if key not in self._cases:
            return pd.Series(dtype=float)
        rows = self._cases[key]
        return rows[rows["fold"].isin(folds)].groupby("case")["dice"].mean()


def _means(point: pd.Series[Any], trials: pd.DataFrame) -> dict[str, float]:
    if trials.empty:
        return {name: _number(point[name]) for name in AVERAGED}
    values = trials[["fold", *AVERAGED]].astype(float)
    by_fold = values.groupby("fold").mean(skipna=False)
    return {name: float(by_fold[name].mean(skipna=False)) for name in AVERAGED}


def _number(value: Any) -> float:
    return np.nan if pd.isna(value) else float(value)

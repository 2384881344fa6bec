"""Empirical attainment: which trade-offs a scheme reaches in its best run, in half of its runs, in all of them.

A run of a scheme is one fold with one seed: the trials of all its configurations there. A run attains a goal (a Dice at
a cost) if one of its trials is at least as good in both. The surface of k runs is the edge of what at least k of the
runs attain: k = 1 is the best surface, half of them the median, all of them the worst.

Only configurations that finished in every run take part: a run that lacks one would look worse for it. Where they did
not all finish everywhere, those runs and configurations are taken that leave out the fewest trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from analysis.fronts.front import attained_by
from analysis.tables.columns import Objective
from analysis.tables.frame import FINISHED
from analysis.tables.methods import METHOD_LABELS

_RUN = ["fold", "seed"]
Run: TypeAlias = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Attainment:
    """What one scheme attains.

    Attributes:
        method: of the trials.
        runs: number of (fold, seed) pairs.
        configurations: how many took part, each in all of these runs.
        left_out: finished trials that did not take part.
        surfaces: `best`, `median` and `worst` to its corners, a frame with a column per objective, by rising cost.
            The median is of half of the runs, rounded up; with two runs it is the best and is left out.
    """

    method: str
    runs: int
    configurations: int
    left_out: int
    surfaces: Mapping[str, pd.DataFrame]


def attainments(trials: pd.DataFrame, objectives: Sequence[Objective]) -> list[Attainment]:
    """The surfaces of every scheme with at least two runs, in the order of legends.

    Args:
        trials: of one dataset; only finished ones with a finite value for every objective count.
        objectives: the axes, Dice first.
    """
    names = [objective.name for objective in objectives]
    finished = trials[trials["state"] == FINISHED]
    finished = finished[np.isfinite(finished[names].to_numpy(dtype=float)).all(axis=1)]
    found = (_attainment(method, finished[finished["method"] == method], objectives) for method in METHOD_LABELS)
    return [attainment for attainment in found if attainment is not None]


def _attainment(method: str, trials: pd.DataFrame, objectives: Sequence[Objective]) -> Attainment | None:
    runs, configurations = _complete_block(trials)
    if len(runs) < 2:
        return None
    complete = pd.MultiIndex.from_frame(trials[_RUN]).isin(runs) & trials["point_id"].isin(configurations)
    taking_part = trials[complete]
    return Attainment(
        method=method,
        runs=len(runs),
        configurations=len(configurations),
        left_out=len(trials) - len(taking_part),
        surfaces={level: _surface(taking_part, objectives, k) for level, k in levels(len(runs)).items()},
    )


def _complete_block(trials: pd.DataFrame) -> tuple[list[Run], list[str]]:
    """Runs (at least two) and configurations that finished in all of them, with as many trials as possible."""
    done: dict[str, set[Run]] = {}
    for name, fold, seed in zip(trials["point_id"], trials["fold"], trials["seed"], strict=True):
        done.setdefault(str(name), set()).add((int(fold), int(seed)))
    possible = {frozenset(runs) for runs in done.values() if len(runs) > 1}
    blocks = [(runs, [name for name, mine in done.items() if runs <= mine]) for runs in possible]
    if not blocks:
        return [], []
    runs, configurations = max(blocks, key=lambda one: (len(one[0]) * len(one[1]), len(one[0]), sorted(one[0])))
    return sorted(runs), configurations


def levels(runs: int) -> dict[str, int]:
    """Name of each surface, and how many of the runs attain it."""
    named = {"best": 1, "median": -(-runs // 2), "worst": runs}
    if named["median"] == named["best"]:
        del named["median"]
    return named


def _surface(trials: pd.DataFrame, objectives: Sequence[Objective], at_least: int) -> pd.DataFrame:
    names = [objective.name for objective in objectives]
    corners = attained_by(
        trials[names].to_numpy(dtype=float),
        trials.groupby(_RUN).ngroup().to_numpy(),
        at_least=at_least,
        maximise=[objective.maximise for objective in objectives],
    )
    return pd.DataFrame(corners, columns=names).sort_values(names[1], ignore_index=True)

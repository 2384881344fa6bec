"""The strategy of Optuna: multi-objective TPE over a study in memory that is rebuilt from the ledger at every start.

The study holds one trial per point in order of number, also those that are being trained (the sampler counts them as
poor for now, so that trials that run side by side differ). A sampler lives for one candidate, its seed made from the
space's seed, the number and the try: nothing but the ledger decides what comes next.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from study.search.optuna_study import directions, distributions, ending_of, silence_optuna
from study.search.proposers import Strategy
from study.search.space import Point, SearchSpace
from study.store.outcomes import Outcome

# How often the sampler is asked for one proposal before points are drawn evenly instead.
TRIES = 20
# The tenth that Optuna takes for good, chosen by hypervolume, costs the square of the points known and more once many
# are on the front: from 500 points on this many, so that a proposal's time grows no faster than they do.
MOST_GOOD = 50


class Tpe(Strategy):
    """Optuna's multi-objective TPE.

    Attributes:
        study: Optuna's, in memory; a trial for each point that has begun, and failed ones for candidates.
        numbers: of a point -> of its trial in `study`.
    """

    def __init__(self, space: SearchSpace) -> None:
        silence_optuna()
        self._space = space
        self._distributions = distributions(space)
        self.study = optuna.create_study(directions=directions(space.objectives))
        self.numbers: dict[int, int] = {}

    def begin(self, number: int, point: Point) -> None:
        self.study.add_trial(
            optuna.trial.create_trial(state=OptunaState.RUNNING, params=point, distributions=self._distributions)
        )
        self.numbers[number] = len(self.study.get_trials(deepcopy=False)) - 1

    def tell(self, number: int, reached: Outcome) -> None:
        ending = ending_of(reached, self._space.objectives)
        self.study.tell(self.numbers[number], ending.values, state=ending.state)

    def candidates(self, number: int) -> Iterator[Point]:
        for attempt in range(TRIES):
            self.study.sampler = _Sampler(self._distributions, _seed(self._space.seed, number, attempt))
            trial = self.study.ask(self._distributions)
            # Failed trials are no part of what the sampler learns from; the one that is taken begins anew.
            self.study.tell(trial, state=OptunaState.FAIL)
            yield {name: trial.params[name] for name in self._distributions}


class _Sampler(optuna.samplers.TPESampler):
    """Multi-objective TPE of settings that all points have."""

    def __init__(self, space: dict[str, BaseDistribution], seed: int) -> None:
        super().__init__(multivariate=True, constant_liar=True, gamma=_count_of_good, seed=seed)
        self._settings = space

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All settings; Optuna would compare those of all trials, a third of the time of a proposal."""
        return dict(self._settings)


def _count_of_good(told: int) -> int:
    """How many of the points told are taken for good ones: Optuna's tenth, up to what keeps proposals quick."""
    return min(math.ceil(told / 10), MOST_GOOD)


def _seed(seed: int, number: int, attempt: int) -> int:
    """Of one try for one proposal, unlike that of any other."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {attempt}".encode()).digest()[:4])

"""The proposer of Optuna: multi-objective TPE over a study in memory that is rebuilt from the ledger at every start.

The study holds one trial per point in order of number, also those that are being trained (the sampler counts them as
poor for now, so that trials that run side by side differ). A sampler lives for one proposal, its seed made from the
space's seed, the number and the try: nothing but the ledger decides what comes next.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Iterator, Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from study.common.errors import InvalidInputError
from study.search.optuna_study import directions, distributions, ending_of, silence_optuna
from study.search.proposers import KnownPoint, Proposal, Proposer, damaged
from study.search.space import Point, SearchSpace
from study.search.trials import Lookup, specs
from study.store.ledger import Ledger
from study.store.outcomes import Outcome

# How often the sampler is asked for one proposal before points are drawn evenly instead.
TRIES = 20
# How many draws of an endless space may stand for known trials before it counts as used up.
DRAWS = 1000
# Finite spaces up to this size are gone through instead of drawn from.
LARGEST_SHUFFLE = 100_000
# The tenth that Optuna takes for good, chosen by hypervolume, costs the square of the points known and more once many
# are on the front: from 500 points on this many, so that a proposal's time grows no faster than they do.
MOST_GOOD = 50

Found = tuple[Point, tuple[str, ...]]


class TpeProposer(Proposer):
    """Proposes points by multi-objective TPE, never one whose trials are known.

    Attributes:
        study: Optuna's, in memory; a trial for each point, and failed ones for proposals that were passed over.
    """

    def __init__(
        self,
        space: SearchSpace,
        ledger: Ledger,
        known: Sequence[KnownPoint],
        lookup: Lookup,
        *,
        retry_infeasible: bool,
    ) -> None:
        super().__init__(space, ledger, known, retry_infeasible=retry_infeasible)
        silence_optuna()
        self._lookup = lookup
        self._distributions = distributions(space)
        self.study = optuna.create_study(directions=directions(space.objectives))
        self._optuna_numbers: dict[int, int] = {}
        self._recorded = len(known)
        self._resolved: dict[tuple[object, ...], tuple[str, ...] | None] = {}
        self._illegal: InvalidInputError | None = None
        self._add_known(known)

    @property
    def remaining(self) -> int:
        """How many unsettled points are left, and how many new ones are wanted at most."""
        return len(self._again) + max(0, (self._space.trials or 0) - self._recorded)

    def tell(self, number: int, outcome: Outcome) -> None:
        """Tell the sampler what a proposal came to; see `optuna_study`."""
        ending = ending_of(outcome, self._space.objectives)
        self.study.tell(self._optuna_numbers.pop(number), ending.values, state=ending.state)

    def _record(self, point: Point, trial_ids: tuple[str, ...]) -> Proposal:
        self._recorded += 1
        return super()._record(point, trial_ids)

    def _find(self) -> Found | None:
        found = self._ask(self._next_number) or self._draw(self._next_number)
        if found is None and self._illegal is not None:
            raise self._illegal
        return found

    def _ask(self, number: int) -> Found | None:
        """What TPE proposes, None if it keeps to known trials."""
        for attempt in range(TRIES):
            self.study.sampler = _Sampler(self._distributions, _seed(self._space.seed, number, attempt))
            trial = self.study.ask(self._distributions)
            point = {name: trial.params[name] for name in self._distributions}
            trial_ids = self._unknown(point)
            if trial_ids is not None:
                self._optuna_numbers[number] = trial.number
                return point, trial_ids
            # Failed trials are no part of what the sampler learns from.
            self.study.tell(trial, state=OptunaState.FAIL)
        return None

    def _draw(self, number: int) -> Found | None:
        """A point drawn evenly, None if there is none with unknown trials."""
        for point in self._draws(random.Random(f"{self._space.seed} {number}")):
            trial_ids = self._unknown(point)
            if trial_ids is not None:
                self._open(number, point)
                return point, trial_ids
        return None

    def _draws(self, generator: random.Random) -> Iterator[Point]:
        axes = self._space.searched
        values = [domain.values() for domain in axes.values()]
        listed = [each for each in values if each is not None]
        if len(listed) < len(values) or math.prod(map(len, listed)) > LARGEST_SHUFFLE:
            for _ in range(DRAWS):
                yield {name: domain.sample(generator) for name, domain in axes.items()}
            return
        points = [dict(zip(axes, each, strict=True)) for each in itertools.product(*listed)]
        generator.shuffle(points)
        yield from points

    def _unknown(self, point: Point) -> tuple[str, ...] | None:
        """The point's trials, None if they are known or the point is not legal."""
        key = tuple(point.values())
        if key not in self._resolved:
            self._resolved[key] = self._resolve(point)
        trial_ids = self._resolved[key]
        return None if trial_ids in self._taken else trial_ids

    def _resolve(self, point: Point) -> tuple[str, ...] | None:
        try:
            return tuple(spec.trial_id for spec in specs(self._space, point, self._lookup))
        except InvalidInputError as error:
            # Passed over; raised if nothing legal is left to propose, so that no study ends for it without a word.
            self._illegal = error
            return None

    def _add_known(self, known: Sequence[KnownPoint]) -> None:
        """Tell settled points, those of the same trials once; the others are proposed again, so they are running."""
        told: set[tuple[str, ...]] = set()
        for one in known:
            if one.proposal.trial_ids not in told:
                told.add(one.proposal.trial_ids)
                self._open(one.proposal.number, one.proposal.point)
                if self._is_settled(one.outcome):
                    self.tell(one.proposal.number, one.outcome)

    def _open(self, number: int, point: Point) -> None:
        """Add a point as one that is being trained."""
        try:
            trial = optuna.trial.create_trial(
                state=OptunaState.RUNNING, params=point, distributions=self._distributions
            )
        except ValueError as error:
            raise damaged(self._ledger, f"point {number}, {error}") from error
        self.study.add_trial(trial)
        self._optuna_numbers[number] = len(self.study.get_trials(deepcopy=False)) - 1


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

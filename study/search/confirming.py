"""Confirming a front: further trainings, one at a time, of the points that may be on it, until it is known who is.

What is trained is decided by `race` alone, from what is finished and what is under way; each training is recorded in
the ledger before it begins. An interrupted confirmation therefore goes on as an undisturbed one would: what was
recorded is brought to its end first. Nothing of this changes what the study's searcher knows.

A point is judged on the folds that the search did not see, or, where it saw all that are named, on the same folds with
other seeds. Points without a result of the search are not judged.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

import numpy as np

from study.common.terminal import time_left
from study.search.contenders import DICE, Aim, Contender, Pair, contenders, gpu_hours
from study.search.race import LIKELY, Belief, Race, Training, case_deviation, next_training
from study.search.samplers import Proposal
from study.search.space import SearchSpace
from study.search.trials import Lookup
from study.store.audit import read_trial
from study.store.ledger import Ledger
from study.store.outcomes import Outcome
from study.store.records import OFF, ON, UNDECIDED, Confirmation, Confirmed, Verdict
from study.store.trial_folder import TrialState


@dataclass(kw_only=True)
class Standing:
    """How a race stands: what is known of contenders, and what that makes of each.

    Attributes:
        contenders: all of them; aim: of the confirmation.
        judged: contender's number, fold, seed -> Dice of trainings that the search did not see.
        pending: of those under way; closed: those that cannot be had.
        hours: of those begun, spent or predicted.
    """

    contenders: Sequence[Contender]
    aim: Aim
    judged: dict[tuple[int, Pair], float] = field(default_factory=dict)
    pending: list[tuple[int, Pair]] = field(default_factory=list)
    closed: set[tuple[int, Pair]] = field(default_factory=set)
    hours: dict[tuple[int, Pair], float] = field(default_factory=dict)

    @cached_property
    def _groups(self) -> list[list[Contender]]:
        """Contenders by dataset: those of two are never compared."""
        return [
            [one for one in self.contenders if one.dataset == name]
            for name in dict.fromkeys(c.dataset for c in self.contenders)
        ]

    @cached_property
    def _deviations(self) -> list[float]:
        found = []
        for group in self._groups:
            names = sorted({name for one in group for name in one.cases})
            cases = np.array([[_number(one.cases.get(name)) for name in names] for one in group], dtype=float)
            first = np.array([next(iter(one.searched.values())) for one in group])
            found.append(case_deviation(cases, first))
        return found

    def beliefs(self, *, pending: bool = False) -> list[tuple[list[Contender], Belief]]:
        """What is believed of the contenders of each dataset."""
        return [
            (group, self._belief(group, deviation, self.pending if pending else ()))
            for group, deviation in zip(self._groups, self._deviations, strict=True)
        ]

    def _belief(self, group: Sequence[Contender], deviation: float, pending: Iterable[tuple[int, Pair]]) -> Belief:
        place = {one.number: k for k, one in enumerate(group)}
        race = Race(
            costs=np.array([one.costs for one in group]),
            searched={_training(place[one.number], pair): dice for one in group for pair, dice in one.searched.items()},
            judged={_training(place[n], pair): dice for (n, pair), dice in self.judged.items() if n in place},
            case_deviation=deviation,
        )
        return race.belief([_training(place[n], pair) for n, pair in pending if n in place])

    @property
    def spent(self) -> float:
        """GPU-hours of all trainings that have begun."""
        return math.fsum(self.hours.values())

    def begin(self, number: int, pair: Pair) -> None:
        """A training is under way."""
        self.pending.append((number, pair))
        predicted = next(one.hours for one in self.contenders if one.number == number)
        self.hours[number, pair] = max(predicted, self.hours.get((number, pair), 0.0))

    def next(self) -> tuple[Contender, Pair, float] | None:
        """Who is trained next, on which fold with which seed, and the expected drop of Σ P(1-P) per GPU-hour."""
        best: tuple[Contender, Pair, float] | None = None
        for group, belief in self.beliefs(pending=True):
            left = [
                _training(k, pair) for pair in self.aim.pairs for k, one in enumerate(group) if self._is_left(one, pair)
            ]
            hours = [one.hours for one in group]
            found = next_training(belief, left, hours, most_hours=self.aim.max_gpu_hours - self.spent)
            if found is not None and (best is None or found[0] > best[2]):
                best = group[found[1].point], (found[1].fold, found[1].seed), found[0]
        return best

    def _is_left(self, one: Contender, pair: Pair) -> bool:
        key = (one.number, pair)
        return key not in self.judged and key not in self.closed and key not in self.pending

    @property
    def left(self) -> int:
        """How many trainings there are at most."""
        return sum(self._is_left(one, pair) for one in self.contenders for pair in self.aim.pairs)

    def conclusion(self) -> Confirmation:
        """What is known by now."""
        points = [self._confirmed(one, k, belief) for group, belief in self.beliefs() for k, one in enumerate(group)]
        most = self.aim.max_gpu_hours
        return Confirmation(
            objectives=self.aim.objectives,
            folds=tuple(sorted({fold for fold, _ in self.aim.pairs})),
            seeds=tuple(sorted({seed for _, seed in self.aim.pairs})),
            max_gpu_hours=None if math.isinf(most) else most,
            gpu_hours=self.spent,
            gpu_hours_of_everything=math.fsum(one.hours * len(self.aim.pairs) for one in self.contenders),
            trainings=len(self.judged),
            points=tuple(sorted(points, key=lambda point: point.number)),
        )

    def _confirmed(self, one: Contender, place: int, belief: Belief) -> Confirmed:
        mine = {pair: dice for (number, pair), dice in self.judged.items() if number == one.number}
        folds = sorted({fold for fold, _ in mine})
        means = [fmean(dice for (fold, _), dice in mine.items() if fold == each) for each in folds]
        return Confirmed(
            number=one.number,
            dataset=one.dataset,
            settings=one.point,
            verdict=verdict(belief, place),
            probability=float(belief.probability[place]),
            dice=fmean(means) if means else None,
            dice_of_search=fmean(one.searched.values()),
            costs=dict(zip([name for name in self.aim.objectives if name != DICE], one.costs, strict=True)),
            folds=tuple(folds),
            seeds=tuple(sorted({seed for _, seed in mine})),
            trainings=len(mine),
            gpu_hours=math.fsum(hours for (number, _), hours in self.hours.items() if number == one.number),
            trial_ids=(*one.trial_ids, *(one.to_train[pair] for pair in sorted(mine))),
        )


def verdict(belief: Belief, place: int) -> Verdict:
    """What is said of a point."""
    if not belief.is_settled(place):
        return UNDECIDED
    return ON if belief.probability[place] >= LIKELY else OFF


def uncertainty(shares: Iterable[float]) -> float:
    """Σ P(1-P)."""
    return math.fsum(share * (1 - share) for share in shares)


def _training(place: int, pair: Pair) -> Training:
    return Training(point=place, fold=pair[0], seed=pair[1])


def _number(value: float | None) -> float:
    return math.nan if value is None else value


class Confirmer:
    """Proposes the trainings that confirm a study; only who holds the study's lock makes one.

    Args:
        space: of the study.
        ledger: of it.
        lookup: finds plans and splits.
        say: told in a line what is trained next, and why.
        aim: of the confirmation.
        retry_infeasible: whether trainings that an earlier run found infeasible are tried again.
    """

    def __init__(
        self,
        space: SearchSpace,
        ledger: Ledger,
        lookup: Lookup,
        say: Callable[[str], None],
        *,
        aim: Aim,
        retry_infeasible: bool = False,
    ) -> None:
        self._ledger, self._say = ledger, say
        field, missing = contenders(space, ledger, lookup, aim)
        if missing:
            say(f"{missing} points have no result and are not judged")
        self.standing = standing_of(ledger, aim, field, retry_infeasible=retry_infeasible)
        self._again = deque(self.standing.pending)
        self._by_number = {one.number: one for one in field}
        self._underway: dict[int, tuple[int, Pair]] = {}
        self._is_over = not self._again and self.standing.next() is None
        self._conclude()

    @property
    def waits(self) -> bool:
        """Whether a training under way may leave something to decide."""
        return bool(self._underway)

    @property
    def remaining(self) -> int:
        """How many trainings this run may propose at most."""
        return 0 if self._is_over else len(self._again) + self.standing.left

    @property
    def untrained(self) -> int:
        """Of those recorded, how many have not begun."""
        return sum(self._ledger.trial(self._trial(key)).state() is TrialState.NEW for key in self._again)

    @property
    def unfinished(self) -> int:
        """How many are certain to be trained."""
        return len(self._again)

    def propose(self) -> Proposal | None:
        """The next training; None when there is none, or none before another has ended."""
        if self._again:
            return self._proposal(self._again.popleft())
        found = self.standing.next()
        if found is None:
            return None
        one, pair, _ = found
        key, spent = (one.number, pair), self.standing.spent
        share = {each.number: each.probability for each in self._stored.points}
        self._say(
            f"point {one.number}, P(on front) {share[one.number]:.2f}: fold {pair[0]}, seed {pair[1]}, about "
            f"{time_left(3600 * one.hours)}; Σ P(1-P) {uncertainty(share.values()):.2f}, {spent:.3g} GPU-hours so far"
        )
        self._ledger.add_confirmation(one.number, *pair, self._trial(key))
        self.standing.begin(*key)
        return self._proposal(key)

    def tell(self, number: int, reached: Outcome) -> None:
        """Take note of what a training came to, and store what that makes of the points."""
        key = self._underway.pop(number)
        self.standing.pending.remove(key)
        folder = self._ledger.trial(self._trial(key))
        self.standing.hours[key] = gpu_hours(folder) or self.standing.hours[key]
        _note(self.standing, key, reached.state, reached.values.get(DICE))
        self._conclude()

    def _proposal(self, key: tuple[int, Pair]) -> Proposal:
        number = 1 + max(self._underway, default=-1)
        self._underway[number] = key
        point, trial = self._by_number[key[0]].point, self._trial(key)
        return Proposal(number=number, point=point, trial_ids=(trial,), only=key[1])

    def _trial(self, key: tuple[int, Pair]) -> str:
        return self._by_number[key[0]].to_train[key[1]]

    def _conclude(self) -> None:
        self._stored = self.standing.conclusion()
        self._ledger.conclude(self._stored)


def standing_of(ledger: Ledger, aim: Aim, field: Sequence[Contender], *, retry_infeasible: bool = False) -> Standing:
    """How a race stands by the ledger: finished trainings count whoever trained them, recorded ones are under way."""
    standing = Standing(contenders=field, aim=aim)
    recorded = {record["trial_ids"][0]: k for k, record in enumerate(ledger.confirmations())}
    names = {(one.number, pair): one.to_train[pair] for one in field for pair in aim.pairs}
    for key in sorted(names, key=lambda each: recorded.get(names[each], len(recorded))):
        folder = ledger.trial(names[key])
        state = folder.state()
        if names[key] in recorded:
            standing.hours[key] = gpu_hours(folder)
        if state is TrialState.FINISHED:
            result = read_trial(folder).result
            _note(standing, key, state, None if result is None else result.dice)
        elif names[key] in recorded and (state is not TrialState.INFEASIBLE or retry_infeasible):
            standing.begin(*key)
        elif state is TrialState.INFEASIBLE and not retry_infeasible:
            _note(standing, key, state, None)
    return standing


def _note(standing: Standing, key: tuple[int, Pair], state: TrialState, dice: float | None) -> None:
    if state is TrialState.FINISHED and dice is not None:
        standing.judged[key] = dice
    elif state is TrialState.INFEASIBLE:
        # Another fold of the same point is as large.
        standing.closed |= {(key[0], pair) for pair in standing.aim.pairs}
    else:
        standing.closed.add(key)

"""What a run of a study does next: points that are not settled are proposed again, then new ones, each recorded once.

A *proposal* is a numbered point and the trials it stands for. It is recorded in the ledger when it is made and never
before; its number is its place in the order of proposals. What proposal n is depends on the space, on n and on what
is known of the proposals before it, so an interrupted study proposes what an undisturbed one would have.

A point is *settled* when there is nothing left to train: it has finished, or it is infeasible and not to be tried
again. Of listed points that stand for the same trials the first alone is trained: the others would wait for it in its
way. They are recorded in their turn, as are points whose trials have finished already, so that the ledger holds every
listed point. `tpe` has the proposer of Optuna.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from study.common.errors import InvalidInputError, LedgerError
from study.search.space import Point, SearchSpace
from study.search.trials import Lookup, specs
from study.store.ledger import Ledger
from study.store.outcomes import Outcome, outcome
from study.store.trial_folder import TrialState


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A point to be trained.

    Attributes:
        number: place in the order of proposals of the whole study, from 0.
        point: name -> value of the searched settings.
        trial_ids: what it came to, one for each fold and seed.
    """

    number: int
    point: Point
    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class KnownPoint:
    """A proposal of the ledger and what became of it so far."""

    proposal: Proposal
    outcome: Outcome


class Proposer(ABC):
    """Proposes points, unsettled ones of the ledger first, in order of their number and without recording them again.

    Args:
        space: what is searched.
        ledger: where proposals are recorded; held by whoever runs the study.
        known: its points, in order.
        retry_infeasible: whether infeasible points are proposed again too.

    Raises:
        InvalidInputError: fewer trials are asked for than have finished.
    """

    def __init__(
        self, space: SearchSpace, ledger: Ledger, known: Sequence[KnownPoint], *, retry_infeasible: bool
    ) -> None:
        self._space = space
        self._ledger = ledger
        self._retry_infeasible = retry_infeasible
        self._next_number = 1 + max((one.proposal.number for one in known), default=-1)
        self._taken = {one.proposal.trial_ids for one in known}
        self._again = deque(self._unsettled(known))

    @property
    @abstractmethod
    def remaining(self) -> int:
        """How many points this run may still propose at most; 0 when there is nothing to do."""

    @property
    def untrained(self) -> int:
        """How many trials of the remaining points have not been begun."""
        return self._trials(lambda state: state is TrialState.NEW)

    @property
    def unfinished(self) -> int:
        """How many trials of the remaining points are to be brought to their end."""
        return self._trials(lambda state: state is not TrialState.FINISHED)

    def _trials(self, counts: Callable[[TrialState], bool]) -> int:
        """How many trials of the remaining points are in a state that counts; those of new points do."""
        each = len(self._space.folds) * len(self._space.seeds)
        begun = (self._ledger.trial(trial_id) for proposal in self._again for trial_id in proposal.trial_ids)
        return each * (self.remaining - len(self._again)) + sum(counts(trial.state()) for trial in begun)

    @abstractmethod
    def tell(self, number: int, outcome: Outcome) -> None:
        """Take note of what a proposal of this run came to."""

    @abstractmethod
    def _find(self) -> tuple[Point, tuple[str, ...]] | None:
        """The next new point and its trials."""

    def propose(self) -> Proposal | None:
        """The next point to train, None when there is none left.

        Raises:
            StudyError: the ledger cannot be written, or no legal point is left among those that a searcher draws.
        """
        if self._again:
            return self._again.popleft()
        found = self._find() if self.remaining else None
        return None if found is None else self._record(*found)

    def _record(self, point: Point, trial_ids: tuple[str, ...]) -> Proposal:
        proposal = Proposal(number=self._next_number, point=point, trial_ids=trial_ids)
        self._ledger.add_point(proposal.number, proposal.point, proposal.trial_ids)
        self._next_number += 1
        self._taken.add(trial_ids)
        return proposal

    def _is_settled(self, reached: Outcome) -> bool:
        if reached.state is TrialState.INFEASIBLE:
            return not self._retry_infeasible
        return reached.state is TrialState.FINISHED

    def _unsettled(self, known: Sequence[KnownPoint]) -> list[Proposal]:
        """What is to be proposed again: of points that stand for the same trials the first, as many as are wanted."""
        open_points: dict[tuple[str, ...], Proposal] = {}
        for one in known:
            if not self._is_settled(one.outcome):
                open_points.setdefault(one.proposal.trial_ids, one.proposal)
        if self._space.trials is None:
            return list(open_points.values())
        self._check_trials(self._space.trials, known)
        settled = sum(self._is_settled(one.outcome) for one in known)
        return list(open_points.values())[: max(0, self._space.trials - settled)]

    def _check_trials(self, wanted: int, known: Sequence[KnownPoint]) -> None:
        finished = sum(one.outcome.state is TrialState.FINISHED for one in known)
        if wanted < finished:
            raise InvalidInputError(
                field="trials", received=wanted, legal=f"at least {finished}, which have finished in this study"
            )


def known_points(space: SearchSpace, ledger: Ledger) -> list[KnownPoint]:
    """The points of a ledger and how they stand, in order of number.

    Raises:
        LedgerError: a record is damaged or belongs to another space.
    """
    ledger.look()
    proposals: dict[int, Proposal] = {}
    for record in ledger.points():
        proposal = _proposal(space, ledger, record)
        proposals.setdefault(proposal.number, proposal)
    return [
        KnownPoint(proposal=proposal, outcome=outcome_of(space, ledger, proposal.trial_ids))
        for _, proposal in sorted(proposals.items())
    ]


def outcome_of(space: SearchSpace, ledger: Ledger, trial_ids: Sequence[str]) -> Outcome:
    """How trials stand for a study; those that lack a metric of its are unfinished."""
    return outcome([ledger.trial(trial_id) for trial_id in trial_ids], space.metrics)


def _proposal(space: SearchSpace, ledger: Ledger, record: Mapping[str, Any]) -> Proposal:
    match record:
        case {"number": int(number), "point": dict(point), "trial_ids": [*trial_ids]} if set(point) == set(
            space.searched
        ) and len(trial_ids) == len(space.folds) * len(space.seeds):
            return Proposal(number=number, point=point, trial_ids=tuple(map(str, trial_ids)))
    raise damaged(ledger, repr(record))


def damaged(ledger: Ledger, received: str) -> LedgerError:
    """What is wrong with a record of the ledger's points that cannot be used."""
    return LedgerError(
        f"{ledger.root / 'points.jsonl'}: received {received}, legal is a number, a point of this space and its trial "
        "ids; restore the file, or delete that line: its trials stay and the point is proposed anew"
    )


def make_proposer(space: SearchSpace, ledger: Ledger, lookup: Lookup, *, retry_infeasible: bool = False) -> Proposer:
    """The proposer of a space, knowing what the ledger knows. Only who holds the study's lock may make one.

    Args:
        space: what is searched; its `trials` are the points of the whole study.
        ledger: of the study; read once, here.
        lookup: finds plans and splits.
        retry_infeasible: whether infeasible points are proposed again too.

    Raises:
        InvalidInputError: fewer trials are asked for than have finished, or a listed point is not legal.
        LedgerError: the ledger's points are damaged or not of this space.
    """
    _extend(space, ledger, lookup)
    known = known_points(space, ledger)
    # By name: lists need no Optuna, which takes a second to load.
    made: Proposer = resolve_name(space.method.proposer)(
        space, ledger, known, lookup, retry_infeasible=retry_infeasible
    )
    return made


def _extend(space: SearchSpace, ledger: Ledger, lookup: Lookup) -> None:
    """Give the points of a study to which folds or seeds were added the trials for them."""
    each = len(space.folds) * len(space.seeds)
    for record in ledger.points():
        known = record["trial_ids"]
        if len(known) < each and set(record["point"]) == set(space.searched):
            wanted = [spec.trial_id for spec in specs(space, record["point"], lookup)]
            if set(known) <= set(wanted):
                ledger.extend_point(record["number"], wanted)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A listed point that is not recorded yet, its trials, and whether there is anything to train."""

    point: Point
    trial_ids: tuple[str, ...]
    to_train: bool


class ListProposer(Proposer):
    """Goes through the points of a grid or random search once."""

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
        recorded = {_key(one.proposal.point) for one in known}
        self._listed = deque(self._unrecorded(recorded, lookup))
        self._untrained = sum(listed.to_train for listed in self._listed)
        self._record_settled()

    @property
    def remaining(self) -> int:
        """How many points are left to be trained."""
        return len(self._again) + self._untrained

    def tell(self, number: int, outcome: Outcome) -> None:
        """Nothing: results change no list."""

    def propose(self) -> Proposal | None:
        """The next point to train; those after it that need no training are recorded with it."""
        proposal = super().propose()
        self._record_settled()
        return proposal

    def _find(self) -> tuple[Point, tuple[str, ...]] | None:
        listed = self._listed.popleft()
        self._untrained -= 1
        return listed.point, listed.trial_ids

    def _record_settled(self) -> None:
        while self._listed and not self._listed[0].to_train:
            listed = self._listed.popleft()
            self._record(listed.point, listed.trial_ids)

    def _unrecorded(self, recorded: set[str], lookup: Lookup) -> Iterator[Listed]:
        met = set(self._taken)
        for point in self._space.points():
            if _key(point) in recorded:
                continue
            trial_ids = tuple(spec.trial_id for spec in specs(self._space, point, lookup))
            to_train = trial_ids not in met and not self._is_settled(self._outcome(trial_ids))
            met.add(trial_ids)
            yield Listed(point=point, trial_ids=trial_ids, to_train=to_train)

    def _outcome(self, trial_ids: tuple[str, ...]) -> Outcome:
        return outcome_of(self._space, self._ledger, trial_ids)


def _key(point: Point) -> str:
    """Tells points apart as the ledger does: by their JSON, in which true is not 1."""
    return json.dumps(point, sort_keys=True)

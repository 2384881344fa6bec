"""What a run of a study does next: points that are not settled are proposed again, then new ones, each recorded once.

A *proposal* is a numbered point and the trials it stands for. It is recorded in the ledger when it is made and never
before; its number is its place in the order of proposals. What proposal n is depends on the space, on n and on what
is known of the proposals before it, so an interrupted study proposes what an undisturbed one would have.

A point is *settled* when there is nothing left to train: it has finished, was stopped late, or is infeasible and not to
be tried again.

Points that are known in advance are gone through by `ListSampler`. Of those that stand for the same trials the first
alone is trained: the others would wait for it in its way. They are recorded in their turn, as are points whose trials
have finished already, so that the ledger holds every listed point.

Others come from a `Strategy`, the part of a searcher that learns from results; Optuna's is in `optuna_study`.
`AdaptiveSampler` passes over its candidates whose trials are known, and draws evenly where it has no more.
"""

from __future__ import annotations

import itertools
import json
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import Any, Protocol

from study.common.errors import InvalidInputError, LedgerError
from study.curriculum.curriculum import Curriculum
from study.search.algorithms import size_of
from study.search.space import Point, SearchSpace
from study.search.trials import Lookup, specs
from study.store.ledger import Ledger
from study.store.outcomes import Outcome, outcome
from study.store.outlook import recorded_preview
from study.store.preview import Preview
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialState

# How many draws of an endless space may stand for known trials before it counts as used up.
DRAWS = 1000
# Finite spaces up to this size are gone through instead of drawn from.
LARGEST_SHUFFLE = 100_000

TrialIds = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A point to be trained.

    Attributes:
        number: place in the order of proposals of the whole study, from 0.
        point: name -> value of the searched settings.
        trial_ids: what it came to, one for each fold and seed.
        only: the fold and seed to train, None for all of the space.
    """

    number: int
    point: Point
    trial_ids: TrialIds
    only: tuple[int, int] | None = None


class TrialSource(Protocol):
    """What a run goes through.

    Attributes:
        waits: whether there may be more to propose once something that is being trained has ended.
    """

    waits: bool

    @property
    def remaining(self) -> int:
        """See `Sampler.remaining`."""

    @property
    def untrained(self) -> int:
        """See `Sampler.untrained`."""

    @property
    def unfinished(self) -> int:
        """See `Sampler.unfinished`."""

    def propose(self) -> Proposal | None:
        """See `Sampler.propose`."""

    def tell(self, number: int, reached: Outcome) -> None:
        """See `Sampler.tell`."""


class Strategy(ABC):
    """Where new points come from that depend on results; one for each run of a study.

    It hears of the points of the ledger in order of number, each with what it came to if it is settled, then of
    proposals as they begin and end. After the same calls it has the same candidates: nothing else may decide them.

    Args:
        space: what is searched.
        curriculum_of: the stage table of a point, from which its cost follows; InvalidInputError for an illegal one.
    """

    @abstractmethod
    def __init__(self, space: SearchSpace, curriculum_of: Callable[[Point], Curriculum]) -> None: ...

    def know_costs(self, cost_of: Callable[[Point], Preview | None]) -> None:  # noqa: B027 - most have no use for it
        """What a trial of a legal point will cost by the preview recorded with the study; called once, at first."""

    @abstractmethod
    def begin(self, number: int, point: Point) -> None:
        """A point is being trained from now on. Raises ValueError where it is none of the space."""

    @abstractmethod
    def tell(self, number: int, reached: Outcome) -> None:
        """What a point that has begun came to."""

    @abstractmethod
    def candidates(self, number: int) -> Iterator[Point]:
        """Points for a proposal, best first, until one will do: one that is legal and whose trials are not known."""


class Sampler(ABC):
    """Proposes points, unsettled ones of the ledger first, in order of their number and without recording them again.

    Args:
        space: what is searched; its `trials` are the points of the whole study.
        ledger: where proposals are recorded, read once; held by whoever runs the study.
        lookup: finds plans and splits.
        retry_infeasible: whether infeasible points are proposed again too.

    Raises:
        InvalidInputError: fewer trials are asked for than have finished, or a listed point is not legal.
        LedgerError: the ledger's points are damaged or not of this space.
    """

    waits = False

    def __init__(self, space: SearchSpace, ledger: Ledger, lookup: Lookup, *, retry_infeasible: bool) -> None:
        self._space, self._ledger, self._lookup = space, ledger, lookup
        self._retry_infeasible = retry_infeasible
        self._known = known_points(space, ledger)
        self._next_number = 1 + max((proposal.number for proposal, _ in self._known), default=-1)
        self._taken = {proposal.trial_ids for proposal, _ in self._known}
        self._again = deque(self._unsettled())

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

    def propose(self) -> Proposal | None:
        """The next point to train, None when there is none left.

        Raises:
            StudyError: the ledger cannot be written, or no legal point is left among those that a searcher draws.
        """
        if self._again:
            return self._again.popleft()
        found = self._find() if self.remaining else None
        return None if found is None else self._record(*found)

    @abstractmethod
    def tell(self, number: int, reached: Outcome) -> None:
        """Take note of what a proposal of this run came to."""

    @abstractmethod
    def _find(self) -> tuple[Point, TrialIds] | None:
        """The next new point and its trials."""

    def _record(self, point: Point, trial_ids: TrialIds) -> Proposal:
        proposal = Proposal(number=self._next_number, point=point, trial_ids=trial_ids)
        self._ledger.add_point(proposal.number, proposal.point, proposal.trial_ids)
        self._next_number += 1
        self._taken.add(trial_ids)
        return proposal

    def _trials(self, counts: Callable[[TrialState], bool]) -> int:
        """How many trials of the remaining points are in a state that counts; those of new points do."""
        begun = (self._ledger.trial(trial_id) for proposal in self._again for trial_id in proposal.trial_ids)
        new_points = self.remaining - len(self._again)
        return new_points * _trials_of_a_point(self._space) + sum(counts(trial.state()) for trial in begun)

    def _is_settled(self, reached: Outcome) -> bool:
        return reached.state in (TrialState.FINISHED, TrialState.STOPPED) or (
            reached.state is TrialState.INFEASIBLE and not self._retry_infeasible
        )

    def _unsettled(self) -> list[Proposal]:
        """What is to be proposed again: of points that stand for the same trials the first, as many as are wanted."""
        open_points: dict[TrialIds, Proposal] = {}
        for proposal, reached in self._known:
            if not self._is_settled(reached):
                open_points.setdefault(proposal.trial_ids, proposal)
        wanted = self._space.trials
        if wanted is None:
            return list(open_points.values())
        finished = sum(reached.state is TrialState.FINISHED for _, reached in self._known)
        if wanted < finished:
            legal = f"at least {finished}, which have finished in this study"
            raise InvalidInputError(field="trials", received=wanted, legal=legal)
        settled = sum(self._is_settled(reached) for _, reached in self._known)
        return list(open_points.values())[: max(0, wanted - settled)]


class ListSampler(Sampler):
    """Goes through the points of a grid or random search once."""

    def __init__(self, space: SearchSpace, ledger: Ledger, lookup: Lookup, *, retry_infeasible: bool) -> None:
        super().__init__(space, ledger, lookup, retry_infeasible=retry_infeasible)
        # With each point its trials, and whether there is anything to train.
        self._listed = deque(self._unrecorded())
        self._untrained = sum(to_train for _, _, to_train in self._listed)
        self._record_settled()

    @property
    def remaining(self) -> int:
        return len(self._again) + self._untrained

    def propose(self) -> Proposal | None:
        """The next point to train; those after it that need no training are recorded with it."""
        proposal = super().propose()
        self._record_settled()
        return proposal

    def tell(self, number: int, reached: Outcome) -> None:
        """Nothing: results change no list."""

    def _find(self) -> tuple[Point, TrialIds]:
        point, trial_ids, to_train = self._listed.popleft()
        self._untrained -= to_train
        return point, trial_ids

    def _record_settled(self) -> None:
        while self._listed and not self._listed[0][-1]:
            self._record(*self._find())

    def _unrecorded(self) -> Iterator[tuple[Point, TrialIds, bool]]:
        recorded, met = {_key(proposal.point) for proposal, _ in self._known}, set(self._taken)
        for point in self._space.points():
            if _key(point) not in recorded:
                trial_ids = tuple(spec.trial_id for spec in specs(self._space, point, self._lookup))
                settled = trial_ids in met or self._is_settled(outcome_of(self._space, self._ledger, trial_ids))
                met.add(trial_ids)
                yield point, trial_ids, not settled


class AdaptiveSampler(Sampler):
    """Proposes what its `strategy` finds, never a point whose trials are known."""

    def __init__(self, space: SearchSpace, ledger: Ledger, lookup: Lookup, *, retry_infeasible: bool) -> None:
        super().__init__(space, ledger, lookup, retry_infeasible=retry_infeasible)
        self.strategy: Strategy = resolve_name(space.method.strategy)(space, self._curriculum_of)
        if preview := recorded_preview(ledger):
            self.strategy.know_costs(lambda point: preview.of(self._one_of(point)))
        self._wanted = max(0, (space.trials or 0) - len(self._known))
        self._resolved: dict[tuple[object, ...], TrialIds | None] = {}
        self._illegal: InvalidInputError | None = None
        self._tell_known()

    @property
    def remaining(self) -> int:
        return len(self._again) + self._wanted

    def tell(self, number: int, reached: Outcome) -> None:
        self.strategy.tell(number, reached)

    def _record(self, point: Point, trial_ids: TrialIds) -> Proposal:
        proposal = super()._record(point, trial_ids)
        self._wanted -= 1
        self.strategy.begin(proposal.number, point)
        return proposal

    def _find(self) -> tuple[Point, TrialIds] | None:
        number = self._next_number
        drawn = self._draws(random.Random(f"{self._space.seed} {number}"))
        for point in itertools.chain(self.strategy.candidates(number), drawn):
            trial_ids = self._resolve(point)
            if trial_ids is not None and trial_ids not in self._taken:
                return point, trial_ids
        if self._illegal is not None:
            # Passed over so far; raised now that nothing else is left, so that no study ends for it without a word.
            raise self._illegal
        return None

    def _draws(self, generator: random.Random) -> Iterator[Point]:
        """Points drawn evenly: all of a space that is small enough, else some."""
        axes = self._space.searched
        if size_of(axes) > LARGEST_SHUFFLE:
            for _ in range(DRAWS):
                yield {name: domain.sample(generator) for name, domain in axes.items()}
            return
        values = [domain.values() or () for domain in axes.values()]
        points = [dict(zip(axes, each, strict=True)) for each in itertools.product(*values)]
        generator.shuffle(points)
        yield from points

    def _curriculum_of(self, point: Point) -> Curriculum:
        return self._one_of(point).curriculum

    def _one_of(self, point: Point) -> TrialSpec:
        """One of its trials; folds and seeds have the same curriculum."""
        one = replace(self._space, folds=self._space.folds[:1], seeds=self._space.seeds[:1])
        return specs(one, point, self._lookup)[0]

    def _resolve(self, point: Point) -> TrialIds | None:
        key = tuple(point.values())
        if key not in self._resolved:
            try:
                self._resolved[key] = tuple(spec.trial_id for spec in specs(self._space, point, self._lookup))
            except InvalidInputError as error:
                self._resolved[key], self._illegal = None, error
        return self._resolved[key]

    def _tell_known(self) -> None:
        """Tell of settled points, those of the same trials once; the others are proposed again, so they have begun."""
        told: set[TrialIds] = set()
        for proposal, reached in self._known:
            if proposal.trial_ids not in told:
                told.add(proposal.trial_ids)
                try:
                    self.strategy.begin(proposal.number, proposal.point)
                except ValueError as error:
                    raise _damaged(self._ledger, f"point {proposal.number}, {error}") from error
                if self._is_settled(reached):
                    self.tell(proposal.number, reached)


def make_sampler(space: SearchSpace, ledger: Ledger, lookup: Lookup, *, retry_infeasible: bool = False) -> Sampler:
    """The sampler of a space, see `Sampler`. Only who holds the study's lock may make one."""
    _extend(space, ledger, lookup)
    kind = ListSampler if space.method.points else AdaptiveSampler
    return kind(space, ledger, lookup, retry_infeasible=retry_infeasible)


def known_points(space: SearchSpace, ledger: Ledger) -> list[tuple[Proposal, Outcome]]:
    """The proposals of a ledger and how they stand, in order of number.

    Raises:
        LedgerError: a record is damaged or belongs to another space.
    """
    ledger.look()
    proposals: dict[int, Proposal] = {}
    for record in ledger.points():
        proposal = _proposal(space, ledger, record)
        proposals.setdefault(proposal.number, proposal)
    return [(proposal, outcome_of(space, ledger, proposal.trial_ids)) for _, proposal in sorted(proposals.items())]


def outcome_of(space: SearchSpace, ledger: Ledger, trial_ids: Sequence[str]) -> Outcome:
    """How trials stand for a study; those that lack a metric of its are unfinished."""
    return outcome([ledger.trial(trial_id) for trial_id in trial_ids], space.metrics)


def _proposal(space: SearchSpace, ledger: Ledger, record: Mapping[str, Any]) -> Proposal:
    match record:
        case {"number": int(number), "point": dict(point), "trial_ids": [*trial_ids]} if set(point) == set(
            space.searched
        ) and len(trial_ids) == _trials_of_a_point(space):
            return Proposal(number=number, point=point, trial_ids=tuple(map(str, trial_ids)))
    raise _damaged(ledger, repr(record))


def _damaged(ledger: Ledger, received: str) -> LedgerError:
    """What is wrong with a record of the ledger's points that cannot be used."""
    return LedgerError(
        f"{ledger.root / 'points.jsonl'}: received {received}, legal is a number, a point of this space and its trial "
        "ids; restore the file, or delete that line: its trials stay and the point is proposed anew"
    )


def _extend(space: SearchSpace, ledger: Ledger, lookup: Lookup) -> None:
    """Give the points of a study to which folds or seeds were added the trials for them."""
    for record in ledger.points():
        known = record["trial_ids"]
        if len(known) < _trials_of_a_point(space) and set(record["point"]) == set(space.searched):
            wanted = [spec.trial_id for spec in specs(space, record["point"], lookup)]
            if set(known) <= set(wanted):
                ledger.extend_point(record["number"], wanted)


def _trials_of_a_point(space: SearchSpace) -> int:
    return len(space.folds) * len(space.seeds)


def _key(point: Point) -> str:
    """Tells points apart as the ledger does: by their JSON, in which true is not 1."""
    return json.dumps(point, sort_keys=True)

"""The proposer of a space, and that of searchers whose points are known in advance.

Of points that stand for the same trials the first alone is trained: the others would wait for it in its way. They are
recorded in their turn, as are points whose trials have finished already, so that the ledger holds every listed point.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name

from study.search.proposers import KnownPoint, Proposal, Proposer, known_points, outcome_of
from study.search.space import Point, SearchSpace
from study.search.trials import Lookup, specs
from study.store.ledger import Ledger
from study.store.outcomes import Outcome


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

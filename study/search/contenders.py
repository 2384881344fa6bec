"""Who is compared when a front is confirmed: finished points of the search, and what may be trained of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.common.errors import InvalidInputError
from study.search.samplers import Proposal, known_points
from study.search.space import OBJECTIVES, Point, SearchSpace
from study.search.trials import Lookup, specs
from study.store.audit import read_trial
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.outcomes import Outcome
from study.store.trial_folder import TrialFolder, TrialState

DICE, DEFAULT_OBJECTIVES = "dice", ("dice", "runtime_seconds")
Pair = tuple[int, int]
"""Fold and seed."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What is to be confirmed, and what may be spent on it.

    Attributes:
        objectives: Dice and costs.
        pairs: folds and seeds that may be trained, none of which the search saw.
        max_gpu_hours: of all trainings that confirm the study, those of earlier runs included.
    """

    objectives: tuple[str, ...]
    pairs: tuple[Pair, ...]
    max_gpu_hours: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A finished point of the search.

    Attributes:
        number, point: of the ledger; dataset: its name.
        trial_ids: of the search; searched: fold and seed -> Dice.
        cases: case -> Dice of the first of them.
        costs: known from the search, in the order of the objectives; hours: of one training, on its GPU.
        to_train: fold and seed -> trial.
    """

    number: int
    point: Point
    dataset: str
    trial_ids: tuple[str, ...]
    searched: Mapping[Pair, float]
    cases: Mapping[str, float | None]
    costs: tuple[float, ...]
    hours: float
    to_train: Mapping[Pair, str]


def aim_of(
    space: SearchSpace,
    folds: Sequence[int],
    seeds: Sequence[int] | None,
    objectives: Sequence[str] | None,
    max_gpu_hours: float = math.inf,
) -> Aim:
    """What a confirmation of a study is about.

    Args:
        space: of the study.
        folds: that may be trained.
        seeds: likewise; None: the study's, or one more where it saw all of the folds.
        objectives: None: the study's, or Dice and runtime if it has none.
        max_gpu_hours: see `Aim`.

    Raises:
        InvalidInputError: no cost to set against Dice, or nothing that the search has not seen.
    """
    chosen = tuple(objectives or space.objectives or DEFAULT_OBJECTIVES)
    costs = [name for name, direction in OBJECTIVES.items() if direction == "min" and name != "hd95_mm"]
    if DICE not in chosen or len(chosen) < 2 or len(set(chosen)) < len(chosen) or not {*chosen} <= {DICE, *costs}:
        legal = f"dice and one or more of {', '.join(costs)}, each once"
        raise InvalidInputError(field="--objectives", received=",".join(chosen), legal=legal)
    other = [fold for fold in folds if fold not in space.folds]
    wanted = seeds or ((max(space.seeds) + 1,) if not other else space.seeds)
    pairs = [(f, s) for s in wanted for f in other] or [(f, s) for s in wanted if s not in space.seeds for f in folds]
    if not pairs:
        legal = f"folds other than {list(space.folds)} or seeds other than {list(space.seeds)}, which the search saw"
        raise InvalidInputError(field="--folds, --seeds", received=[list(folds), list(wanted)], legal=legal)
    return Aim(objectives=chosen, pairs=tuple(pairs), max_gpu_hours=max_gpu_hours)


def contenders(space: SearchSpace, ledger: Ledger, lookup: Lookup, aim: Aim) -> tuple[list[Contender], int]:
    """The finished points of a study, of those that stand for the same trials the first, and how many have no result.

    Raises:
        InvalidInputError: none has finished, or a cost was not measured.
    """
    found: dict[tuple[str, ...], Contender] = {}
    known, missing = known_points(space, ledger), 0
    for proposal, reached in known:
        if reached.state is not TrialState.FINISHED:
            missing += 1
        elif proposal.trial_ids not in found:
            found[proposal.trial_ids] = _contender(space, ledger, lookup, aim, proposal, reached)
    if not found:
        legal = "a study with finished points; `status` says how it stands"
        raise InvalidInputError(field="STUDY", received=f"{len(known)} points, none of them finished", legal=legal)
    return list(found.values()), missing


def _contender(
    space: SearchSpace, ledger: Ledger, lookup: Lookup, aim: Aim, proposal: Proposal, reached: Outcome
) -> Contender:
    costs = [name for name in aim.objectives if name != DICE]
    if unmeasured := [name for name in costs if name not in reached.values]:
        legal, remedy = "costs that were measured for all points", "--objectives dice,runtime_seconds has one"
        received = f"{unmeasured[0]}, unmeasured for point {proposal.number}"
        raise InvalidInputError(field="--objectives", received=received, legal=legal, remedy=remedy)
    records = [read_trial(ledger.trial(trial_id)) for trial_id in proposal.trial_ids]
    results = [each.result for each in records if each.result is not None]
    return Contender(
        number=proposal.number,
        point=proposal.point,
        dataset=records[0].spec.dataset,
        trial_ids=proposal.trial_ids,
        searched={(each.spec.fold, each.spec.seed): r.dice for each, r in zip(records, results, strict=True)},
        cases=results[0].dice_per_case,
        costs=tuple(reached.values[name] for name in costs),
        hours=sum(gpu_hours(ledger.trial(name)) for name in proposal.trial_ids) / len(records),
        to_train={pair: specs(space.only(*pair), proposal.point, lookup)[0].trial_id for pair in aim.pairs},
    )


def gpu_hours(folder: TrialFolder) -> float:
    """Hours that a trial has held a GPU, or its share of one; on a CPU, hours that it took."""
    entries = bill(folder.attempts(), folder.cost_intervals()).entries
    return math.fsum(entry.charge.seconds * (entry.header.gpus or 1.0) for entry in entries) / 3600

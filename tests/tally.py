"""What a tortured study holds against an undisturbed one, and the tally of its kills.

Waste is counted here once more, iteration by iteration from the recorded intervals, without the arithmetic of the bill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING

from study.common.errors import StudyError
from study.store.audit import audit
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.records import AttemptHeader, CostInterval, Phase
from study.store.trial_folder import TrialFolder

if TYPE_CHECKING:
    from torture import Tortured


@dataclass(frozen=True, kw_only=True)
class Waste:
    """What a trial, or several, did again.

    Attributes:
        attempts: how often it was begun; iterations: how many were trained again.
        training_seconds: of these iterations; other_seconds: of checkpoints and validations that were lost.
        seconds: all of it, by the bill; total_seconds: of the whole trial.
    """

    attempts: int = 0
    iterations: int = 0
    training_seconds: float = 0.0
    other_seconds: float = 0.0
    seconds: float = 0.0
    total_seconds: float = 0.0

    def __add__(self, other: Waste) -> Waste:
        return Waste(**{name: getattr(self, name) + getattr(other, name) for name in vars(self)})


@dataclass(frozen=True, kw_only=True)
class Check:
    """What came of a torture; `problems` is what must not be."""

    tortured: Tortured
    waste: Waste
    longest_gap_seconds: float
    problems: Sequence[str]


def check(reference: Ledger, tortured: Tortured) -> Check:
    """Compare every study of a torture with the undisturbed one."""
    problems, waste = list(tortured.problems), Waste()
    for root in tortured.folders:
        problems += [f"{root.name}: {text}" for text in _differences(reference, Ledger(root))]
        for folder in Ledger(root).trials():
            problems += [f"{root.name}, trial {folder.trial_id}: {text}" for text in _check_trial(folder)]
            waste += _waste(folder)
    if not waste.seconds > 0:
        problems.append("nothing was wasted: the kills hit nothing")
    return Check(tortured=tortured, waste=waste, longest_gap_seconds=_longest_gap(tortured), problems=problems)


def table(result: Check) -> str:
    """The tally."""
    done, waste = result.tortured, result.waste
    kinds = Counter((hit.place, hit.text) for hit in done.hits)
    lines = [f"{number:4} × {kill}, on {place}" for (place, kill), number in sorted(kinds.items())]
    codes = ", ".join(f"{number} × {code}" for code, number in sorted(Counter(done.drivers).items()))
    figures = {
        "kills": len(done.hits),
        "studies": len(done.folders),
        "drivers and their exit codes": f"{len(done.drivers)} ({codes})",
        "attempts at trials": waste.attempts,
        "iterations trained again": waste.iterations,
        "seconds trained again": f"{waste.training_seconds:.1f}",
        "seconds of lost validations and checkpoints": f"{waste.other_seconds:.1f}",
        "waste in the ledger, seconds": f"{waste.seconds:.1f} of {waste.total_seconds:.1f}",
        "longest time from a kill to the next attempt, seconds": f"{result.longest_gap_seconds:.1f}",
        "wall time, seconds": f"{done.seconds:.0f}",
        "problems": len(result.problems),
    }
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in figures.items()), *result.problems])


def _differences(reference: Ledger, other: Ledger) -> list[str]:
    found = []
    try:
        audit(Ledger.open(other.root))
    except StudyError as error:
        found.append(f"the audit says: {error}")
    whole, torn = ({f.trial_id: f.result() for f in ledger.trials()} for ledger in (reference, other))
    if missing := [name for name, result in torn.items() if result is None]:
        found.append(f"not finished: {', '.join(missing)}")
    if set(whole) != set(torn):
        found.append(f"trials {sorted(torn)} instead of {sorted(whole)}")
    if reference.points() != other.points():
        found.append("other points were proposed")
    for name, result in torn.items():
        expected = whole.get(name)
        if result and expected and result != expected:
            found.append(
                f"trial {name} has another result: {result.weights_sha256} instead of {expected.weights_sha256}"
            )
    return [*found, *(f"{path} is left" for path in _left_over(other.root))]


def _left_over(root: Path) -> list[Path]:
    names = (".stop-*", ".probe-*", ".*.tmp", "trials/*/.*.tmp", "trials/*/attempts/.*.tmp")
    return [path for name in names for path in root.glob(name)]


def _check_trial(folder: TrialFolder) -> list[str]:
    attempts, intervals = folder.attempts(), folder.cost_intervals()
    events = Counter(event["event"] for event in folder.events())
    costs, waste = bill(attempts, intervals), _waste(folder)
    by_attempt = {a.attempt: sum(i.seconds for i in intervals if i.attempt == a.attempt) for a in attempts}
    checks = {
        f"{events['finished']} times finished": events["finished"] > 1,
        f"{events['started']} starts of {len(attempts)} attempts": events["started"] > len(attempts),
        "its bill is not the sum of its attempts": not isclose(costs.total.seconds, sum(by_attempt.values())),
        "a segment is not its attempt's": any(
            not isclose(segment.charge.seconds, by_attempt[segment.header.attempt], abs_tol=1e-9)
            for segment in costs.segments
        ),
        f"{waste.seconds} s of waste, {waste.training_seconds} + {waste.other_seconds} explained": not isclose(
            waste.seconds, waste.training_seconds + waste.other_seconds, rel_tol=1e-6, abs_tol=1e-6
        ),
        "iterations trained again and no waste": waste.iterations > 0 and not waste.training_seconds > 0,
        "attempts go back without need": [a.resumed_from_iteration for a in attempts]
        != sorted(a.resumed_from_iteration for a in attempts),
    }
    return [text for text, is_wrong in checks.items() if is_wrong]


def _waste(folder: TrialFolder) -> Waste:
    attempts, intervals = folder.attempts(), folder.cost_intervals()
    trained = [i for i in intervals if i.iteration_stop > i.iteration_start]
    times = Counter(iteration for i in trained for iteration in range(i.iteration_start, i.iteration_stop))
    costs = bill(attempts, intervals)
    return Waste(
        attempts=len(attempts),
        iterations=sum(number - 1 for number in times.values()),
        training_seconds=sum(_seconds_redone(i, trained) for i in trained),
        other_seconds=sum(i.seconds for i in intervals if _is_lost_as_a_whole(i, attempts)),
        seconds=costs.waste.seconds,
        total_seconds=costs.total.seconds,
    )


def _seconds_redone(interval: CostInterval, trained: Iterable[CostInterval]) -> float:
    """The part of a stretch whose iterations a later attempt trained again."""
    mine = range(interval.iteration_start, interval.iteration_stop)
    again = {
        iteration
        for later in trained
        if later.attempt > interval.attempt
        for iteration in range(later.iteration_start, later.iteration_stop)
    }
    return interval.seconds * len(again.intersection(mine)) / len(mine)


def _is_lost_as_a_whole(interval: CostInterval, attempts: Sequence[AttemptHeader]) -> bool:
    """A checkpoint or validation after an iteration that a later attempt trained again; a final one not the last."""
    later = [a for a in attempts if a.attempt > interval.attempt]
    if interval.phase is Phase.FINAL_VALIDATION:
        return bool(later)
    is_instant = interval.iteration_start == interval.iteration_stop and interval.phase is not Phase.SETUP
    return is_instant and any(a.resumed_from_iteration < interval.iteration_stop for a in later)


def _longest_gap(tortured: Tortured) -> float:
    """How long it took at most from a kill to the beginning of the next attempt at any trial, kills between aside."""
    begun = sorted(a.started_at for root in tortured.folders for f in Ledger(root).trials() for a in f.attempts())
    kills = sorted(hit.at for hit in tortured.hits)
    gaps = []
    for kill, following in zip(kills, [*kills[1:], float("inf")], strict=True):
        after = next((moment for moment in begun if moment > kill), None)
        if after is not None and after < following:
            gaps.append(after - kill)
    return max(gaps, default=0.0)

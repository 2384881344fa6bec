"""What a tortured study holds against an undisturbed one, and the tally of its kills.

Waste is counted here once more, iteration by iteration from the recorded intervals, without the arithmetic of the bill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isclose
from typing import TYPE_CHECKING

from study.common.errors import StudyError
from study.store.audit import audit
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.records import CostInterval, Phase
from study.store.trial_folder import TrialFolder

if TYPE_CHECKING:
    from torture import Tortured

LEFT_OVER = (".stop-*", ".probe-*", ".*.tmp", "trials/*/.*.tmp", "trials/*/attempts/.*.tmp")


@dataclass(frozen=True, kw_only=True)
class Check:
    """What came of a torture; `problems` is what must not be; `waste`, of all trials, has the names of `waste_of`."""

    tortured: Tortured
    waste: Counter[str]
    longest_gap_seconds: float
    problems: Sequence[str]


def check(reference: Ledger, tortured: Tortured) -> Check:
    """Compare every study of a torture with the undisturbed one."""
    problems, waste = list(tortured.problems), Counter[str]()
    for root in tortured.folders:
        problems += [f"{root.name}: {text}" for text in _differences(reference, Ledger(root))]
        for folder in Ledger(root).trials():
            problems += [f"{root.name}, trial {folder.trial_id}: {text}" for text in _check_trial(folder)]
            waste.update(waste_of(folder))
    if not waste["seconds"] > 0:
        problems.append("nothing was wasted: the kills hit nothing")
    return Check(tortured=tortured, waste=waste, longest_gap_seconds=_longest_gap(tortured), problems=problems)


def table(result: Check) -> str:
    """The tally."""
    done, waste = result.tortured, result.waste
    kinds = Counter((hit.place, hit.text) for hit in done.hits)
    codes = ", ".join(f"{number} × {code}" for code, number in sorted(Counter(done.drivers).items()))
    return "\n".join(
        [
            *(f"{number:4} × {kill}, on {place}" for (place, kill), number in sorted(kinds.items())),
            f"kills: {len(done.hits)}, studies: {len(done.folders)}",
            f"drivers and their exit codes: {len(done.drivers)} ({codes})",
            *(f"{name}: {value:.6g}" for name, value in waste.items()),
            f"longest time from a kill to the next attempt, seconds: {result.longest_gap_seconds:.1f}",
            f"wall time, seconds: {done.seconds:.0f}",
            f"problems: {len(result.problems)}",
            *result.problems,
        ]
    )


def _differences(reference: Ledger, other: Ledger) -> Iterator[str]:
    try:
        audit(Ledger.open(other.root))
    except StudyError as error:
        yield f"the audit says: {error}"
    whole, torn = ({f.trial_id: f.result() for f in ledger.trials()} for ledger in (reference, other))
    if missing := [name for name, result in torn.items() if result is None]:
        yield f"not finished: {', '.join(missing)}"
    if set(whole) != set(torn):
        yield f"trials {sorted(torn)} instead of {sorted(whole)}"
    if reference.points() != other.points():
        yield "other points were proposed"
    for name, result in torn.items():
        if result and whole.get(name) not in (None, result):
            yield f"trial {name} has another result: {result.weights_sha256}"
    yield from (f"{path} is left" for name in LEFT_OVER for path in other.root.glob(name))


def _check_trial(folder: TrialFolder) -> Iterator[str]:
    attempts, intervals = folder.attempts(), folder.cost_intervals()
    events, costs, waste = (
        Counter(event["event"] for event in folder.events()),
        bill(attempts, intervals),
        waste_of(folder),
    )
    by_attempt = {a.attempt: sum(i.seconds for i in intervals if i.attempt == a.attempt) for a in attempts}
    explained, starts = waste["training_seconds"] + waste["other_seconds"], [a.resumed_from_iteration for a in attempts]
    if events["finished"] > 1:
        yield f"{events['finished']} times finished"
    if events["started"] > len(attempts):
        yield f"{events['started']} starts of {len(attempts)} attempts"
    if not isclose(costs.total.seconds, sum(by_attempt.values())):
        yield "its bill is not the sum of its attempts"
    if any(not isclose(s.charge.seconds, by_attempt[s.header.attempt], abs_tol=1e-9) for s in costs.segments):
        yield "a segment is not its attempt's"
    if not isclose(waste["seconds"], explained, rel_tol=1e-6, abs_tol=1e-6):
        yield f"{waste['seconds']} s of waste, {explained} explained"
    if waste["iterations"] > 0 and not waste["training_seconds"] > 0:
        yield "iterations trained again and no waste"
    if starts != sorted(starts):
        yield "attempts go back without need"


def waste_of(folder: TrialFolder) -> dict[str, float]:
    """What a trial did again: how many iterations, their seconds, those of other phases, and all of it by the bill."""
    attempts, intervals = folder.attempts(), folder.cost_intervals()
    times, costs = Counter(n for one in intervals for n in _iterations(one)), bill(attempts, intervals)
    redone = other = 0.0
    for one in intervals:
        later = [a for a in attempts if a.attempt > one.attempt]
        mine = _iterations(one)
        if mine:
            again = {n for after in intervals if after.attempt > one.attempt for n in _iterations(after)}
            redone += one.seconds * len(again.intersection(mine)) / len(mine)
        elif one.phase is Phase.FINAL_VALIDATION:
            other += one.seconds if later else 0.0
        elif one.phase is not Phase.SETUP and any(a.resumed_from_iteration < one.iteration_stop for a in later):
            # A checkpoint or validation after an iteration that a later attempt trained again.
            other += one.seconds
    return {
        "attempts": len(attempts),
        "iterations": sum(number - 1 for number in times.values()),
        "training_seconds": redone,
        "other_seconds": other,
        "seconds": costs.waste.seconds,
        "total_seconds": costs.total.seconds,
    }


def _iterations(interval: CostInterval) -> range:
    return range(interval.iteration_start, interval.iteration_stop)


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

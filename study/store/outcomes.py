"""What a point of the search space came to: the states of its trials and the means of what they reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from study.common.errors import LedgerError
from study.store.audit import UNFORESEEN, read_trial
from study.store.costs import bill
from study.store.results import NO_METRICS, Metrics
from study.store.stopping import projected
from study.store.trial_folder import TrialFolder, TrialState


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a point stands.

    Attributes:
        state: finished when all of its trials are; infeasible when one is, else failed when one is or its records are
            damaged, else stopped when one was stopped late; else interrupted.
        values: means over the trials of a finished point of everything a searcher may optimise; what is unmeasured in
            one of them is left out. Empty unless finished.
        reason: why it is infeasible, failed or stopped, in one line.
        projected: Dice that a point of one trial was heading for when it was stopped.
    """

    state: TrialState
    values: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    projected: float | None = None


def outcome(folders: Sequence[TrialFolder], metrics: Metrics = NO_METRICS) -> Outcome:
    """The outcome of a point by what is in the ledger now.

    Args:
        folders: one per fold and seed, at least one.
        metrics: a finished trial that lacks one of them is not done: it is interrupted.
    """
    trials = [_trial(folder) for folder in folders]
    states = [trial.state for trial in trials]
    if all(state is TrialState.FINISHED for state in states):
        if any(metrics.lacking_in(folder.result()) for folder in folders if metrics.names):
            return Outcome(state=TrialState.INTERRUPTED)
        return Outcome(state=TrialState.FINISHED, values=_means([trial.values for trial in trials]))
    for ending in (TrialState.INFEASIBLE, TrialState.FAILED, TrialState.STOPPED):
        if ending in states:
            trial = trials[states.index(ending)]
            # Of several folds, one alone says nothing of the mean.
            alone = folders[0] if ending is TrialState.STOPPED and len(folders) == 1 else None
            return Outcome(state=ending, reason=trial.reason, projected=None if alone is None else projected(alone))
    return Outcome(state=TrialState.INTERRUPTED)


@dataclass(frozen=True, kw_only=True)
class _Trial:
    state: TrialState
    values: Mapping[str, float | None] = field(default_factory=dict)
    reason: str | None = None


def _trial(folder: TrialFolder) -> _Trial:
    """How a trial stands; what it reached and cost is of one that has finished and passes the audit."""
    try:
        state = folder.state()
        if state is TrialState.FINISHED:
            return _Trial(state=state, values=objectives(folder))
        return _Trial(state=state, reason=f"trial {folder.trial_id}: {folder.failure_reason()}")
    except (LedgerError, *UNFORESEEN) as error:
        return _Trial(state=TrialState.FAILED, reason=f"trial {folder.trial_id} is unreadable: {error}")


def objectives(folder: TrialFolder) -> dict[str, float | None]:
    """What a finished trial reached and cost; None is unmeasured.

    Raises:
        LedgerError: the trial has no result, or is unreadable.
    """
    records = read_trial(folder)
    if records.result is None:
        raise LedgerError(f"trial {folder.trial_id} has no result")
    training = bill(records.attempts, records.intervals).training
    return {
        "dice": records.result.dice,
        "runtime_seconds": training.seconds,
        "co2_kg": training.co2_kg,
        "energy_kwh": training.energy_kwh,
        "voxel_share": records.result.voxel_share,
        **{name: one.mean for name, one in records.result.metrics.items()},
    }


def _means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    columns = {name: [row.get(name) for row in rows] for name in rows[0]}
    known = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return {name: fmean(values) for name, values in known.items() if len(values) == len(rows)}

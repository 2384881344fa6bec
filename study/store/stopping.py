"""Late stopping: a training that is well under way ends early when its point will hardly be on a front.

It is asked at rungs, shares of its own iterations: on growing patches half of the iterations have cost an eighth of
the voxels. Its curve is the smoothed pseudo Dice of the online validation (patches), as `stop_at_dice` has it; what is
projected is the final Dice (whole volumes). Finished trainings of the same dataset, plans and configuration say how
the two differ: the gain of each is its final Dice less its own curve at the same share. With n of them, at least
`LEAST_CURVES`,

    bound = curve + the ceil((n + 1) · 0.9)-th smallest gain,

which the final Dice stays below in at least 90 % of trainings that are exchangeable with them (split conformal
prediction). The lower bound of a finished training is its Dice less the 90 % quantile, taken likewise, of how far the
end of a curve misjudges the final Dice: two Dice that are closer cannot be told apart by curves.

A training would be stopped if its bound is below the lower bound of a finished one of its fold with no more iterations
and no more voxels. Both are known before it is trained, and time, energy and CO₂ grow with both: whatever an iteration
and a voxel take on the hardware at hand, that one costs no more. One in `KEPT` of those, chosen by the trial's id, is
finished all the same: what these come to tells how often the rule is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any

from annotated_types import Predicate

from study.common.errors import LedgerError
from study.curriculum.curriculum import resolve
from study.curriculum.data_curriculum import SMOOTHED_EVALUATIONS, smoothed_dice
from study.curriculum.schemes import SCHEMES
from study.store.ledger import Ledger
from study.store.records import EpochReport
from study.store.results import TrialResult
from study.store.specification import TrainingSettings, TrialSpec
from study.store.stored import Stored
from study.store.trial_folder import RESULT, TrialFolder

ALL, LATE = "none", "late"
STOPPING: Mapping[str, str] = {
    ALL: "every training goes to its end",
    LATE: "one that will hardly be on a front is stopped at 50, 70 or 85 % of its iterations",
}
"""Ways of stopping -> meaning."""
RUNGS = (0.5, 0.7, 0.85)
LEAST_CURVES, KEPT = 10, 7
CONFIDENCE = 0.9
_TRAINING = "training."
# Shares of iterations that differ by less are one.
_SAME = 1e-9


@dataclass(frozen=True, kw_only=True)
class Curve(Stored):
    """A training as far as it is known.

    Attributes:
        trial_id: its identity.
        group: what it may be compared with: dataset, plans, configuration, validation batches; fold: of these.
        work: iterations and voxels of the whole training.
        published: whether its point is a published scheme's, which is never stopped.
        evaluations: share of its iterations, pseudo Dice and seconds of training so far, of each evaluation in order.
        dice: of the final validation, None before.
        schedule: of the learning rate: how much is still to come depends on it.
    """

    trial_id: Annotated[str, Predicate(re.compile("[0-9a-f]+").fullmatch)]
    group: tuple[str, ...]
    fold: int
    work: tuple[int, int]
    published: bool
    evaluations: tuple[tuple[float, float, float], ...]
    dice: float | None = None
    schedule: str = "poly"

    def at(self, share: float) -> float | None:
        """Smoothed pseudo Dice at a share of its iterations; None while there are too few evaluations."""
        return smoothed_dice([dice for when, dice, _ in self.evaluations if when <= share + _SAME])

    def costs_no_more(self, other: Curve) -> bool:
        """Whether it does no more work than another, whatever an iteration and a voxel cost."""
        return all(mine <= theirs for mine, theirs in zip(self.work, other.work, strict=True))


def curve_of(
    spec: TrialSpec, epochs: Sequence[EpochReport], result: TrialResult | None, searched: Collection[str] = ()
) -> Curve:
    """What is known of a training.

    Args:
        spec: of it.
        epochs: that it has reported.
        result: None before it has finished.
        searched: see `is_published`.
    """
    total = spec.curriculum.total_iterations
    whole = result is not None and result.iterations == total
    return Curve(
        trial_id=spec.trial_id,
        group=(spec.dataset, spec.plans, spec.configuration, str(spec.training.validation_batches)),
        fold=spec.fold,
        work=(total, spec.curriculum.voxels),
        published=is_published(spec, searched),
        evaluations=tuple(
            (one.iteration / total, one.pseudo_dice, one.training_seconds)
            for one in epochs
            if one.pseudo_dice is not None
        ),
        dice=result.dice if result is not None and whole else None,
        schedule=spec.training.learning_rate_schedule,
    )


def is_published(spec: TrialSpec, searched: Collection[str]) -> bool:
    """Whether a trial is a published scheme's: its patches at the trial's own budget and allocation.

    Args:
        spec: of the trial.
        searched: settings of the training that its study searches; each must be at nnU-Net's default.
    """
    nnunet = TrainingSettings().resolved(constant_patch_size=spec.curriculum.is_constant)
    if any(getattr(spec.training, name) != getattr(nnunet, name) for name in searched):
        return False
    lengths = {"epochs": spec.training.epochs, "iterations_per_epoch": spec.training.iterations_per_epoch}
    for scheme in SCHEMES.values():
        axes = replace(scheme.axes, budget=spec.axes.budget, allocation=spec.axes.allocation)
        named = resolve(spec.curriculum.geometry, axes, **lengths, seed=spec.seed)
        if named.stages == spec.curriculum.stages and named.random_draws == spec.curriculum.random_draws:
            return True
    return False


def searched_training(header: Mapping[str, Any]) -> frozenset[str]:
    """Settings of the training that the study of a header searches: those with a domain instead of a value."""
    space = header.get("space") or {}
    domains = {name for name, value in space.items() if name.startswith(_TRAINING) and isinstance(value, dict)}
    return frozenset(name.removeprefix(_TRAINING) for name in domains)


def rungs_at(shares: Sequence[float]) -> dict[int, float]:
    """Which evaluations of a training are its rungs: the first at or after each with a smoothed Dice, before the end.

    Args:
        shares: of its iterations, at each evaluation in order.

    Returns:
        Index -> rung; of two rungs with the same evaluation the later.
    """
    found: dict[int, float] = {}
    for rung in RUNGS:
        after = (i for i, s in enumerate(shares) if rung - _SAME <= s < 1 - _SAME and i >= SMOOTHED_EVALUATIONS - 1)
        if (first := next(after, None)) is not None:
            found[first] = rung
    return found


def rung_epochs(epochs: int, every: int) -> dict[int, float]:
    """Index of the epochs after which a training is asked -> rung, if it is evaluated every so many; see `rungs_at`."""
    evaluated = range(every - 1, epochs, every)
    return {evaluated[i]: rung for i, rung in rungs_at([(epoch + 1) / epochs for epoch in evaluated]).items()}


@dataclass(frozen=True, kw_only=True)
class StopDecision:
    """What was said of a training at a rung, and what it rests on.

    Attributes:
        rung: share of the iterations; iteration: at which it was asked.
        curves: finished trainings that could be compared.
        dice: smoothed pseudo Dice by then.
        projected, bound: of its final Dice; None with fewer than `LEAST_CURVES`.
        beaten_by: the finished trial that costs no more and whose lower bound is above; None where there is none.
        beaten_dice: that lower bound.
    """

    rung: float
    iteration: int
    curves: int
    dice: float
    projected: float | None = None
    bound: float | None = None
    beaten_by: str | None = None
    beaten_dice: float | None = None

    @property
    def reason(self) -> str:
        """Why a training was stopped, in a line."""
        return (
            f"late: at {self.rung:.0%} of its iterations, {self.curves} finished curves project its Dice to at most "
            f"{self.bound or 0:.4f}; trial {self.beaten_by} costs no more and has at least {self.beaten_dice or 0:.4f}"
        )


def judged(curve: Curve, others: Sequence[Curve], *, rung: float, share: float) -> StopDecision | None:
    """What a rung says of a training; None where its curve is too short.

    Args:
        curve: of the training.
        others: what else is known; those that are unfinished or of another group do not count.
        rung: that it has come to.
        share: of its iterations that it has trained.
    """
    dice = curve.at(share)
    if dice is None:
        return None
    finished = [one for one in others if one.group == curve.group and one.dice is not None]
    gains = _gains([one for one in finished if one.schedule == curve.schedule], share)
    said = StopDecision(rung=rung, iteration=round(share * curve.work[0]), curves=len(gains), dice=dice)
    if len(gains) < LEAST_CURVES:
        return said
    said = replace(said, projected=dice + gains[len(gains) // 2], bound=dice + _quantile(gains))
    ends = _gains(finished, 1.0)
    margin = _quantile(sorted(abs(gain - ends[len(ends) // 2]) for gain in ends))
    rivals = [one for one in finished if one.fold == curve.fold and one.costs_no_more(curve)]
    best = max(rivals, key=lambda one: (one.dice or 0.0, one.trial_id), default=None)
    if best is None or best.dice is None or said.bound is None or curve.published or best.dice - margin <= said.bound:
        return said
    return replace(said, beaten_by=best.trial_id, beaten_dice=best.dice - margin)


def is_kept(trial_id: str) -> bool:
    """Whether a training that would be stopped is finished all the same."""
    return int(trial_id, 16) % KEPT == 0


def on_front(curve: Curve, others: Sequence[Curve]) -> bool:
    """Whether no finished training of the fold beats a finished one in Dice, iterations and voxels.

    Every front of Dice against time, energy or CO₂ that grow with both is a part of this one.
    """
    alike = (one for one in others if (one.group, one.fold) == (curve.group, curve.fold) and one.dice is not None)
    return not any(
        one.costs_no_more(curve)
        and (one.dice or 0.0) >= (curve.dice or 0.0)
        and (one.work, one.dice) != (curve.work, curve.dice)
        for one in alike
    )


def _gains(finished: Sequence[Curve], share: float) -> list[float]:
    """By how much the final Dice is above the curve at a share of the iterations, in order."""
    pairs = [(one.dice, one.at(share)) for one in finished]
    return sorted(dice - before for dice, before in pairs if dice is not None and before is not None)


def _quantile(ordered: Sequence[float]) -> float:
    """The one that the next stays below with `CONFIDENCE`."""
    place = math.ceil((len(ordered) + 1) * CONFIDENCE)
    return ordered[place - 1] if place <= len(ordered) else math.inf


RUNG, STAYED, STOPPED = "rung", "kept", "stopped"
"""Events: a training went on, would have been stopped and goes on all the same, is stopped."""


def said_before(events: Sequence[Mapping[str, Any]], rung: float) -> bool:
    """Whether a training need not be asked at a rung: it has been, or it was to be stopped once and goes on since."""
    return any(
        event["event"] in (STAYED, STOPPED) or (event["event"] == RUNG and event.get("rung", 0.0) >= rung)
        for event in events
    )


def finished_curves(ledger: Ledger, *, group: tuple[str, ...]) -> list[Curve]:
    """The finished trainings of a group; those that cannot be read are left out."""
    searched, found = searched_training(ledger.header()), []
    for folder in ledger.trials():
        if folder.has(RESULT):
            with suppress(LedgerError):
                found.append(curve_of(folder.spec(), folder.epochs(), folder.result(), searched))
    return [one for one in found if one.group == group]


def projected(folder: TrialFolder) -> float | None:
    """The Dice that a stopped trial was heading for."""
    told = [event.get("projected") for event in folder.events() if event["event"] == STOPPED]
    return float(told[-1]) if told and isinstance(told[-1], float) else None

"""Late stopping in hindsight: what its rule would have said of finished trainings, and how often it would have erred.

Trainings are gone through in the order in which they began; each is asked at its rungs with what had finished before
it began, which is less than a running study knows by then. One that would have been stopped is not among what had
finished, unless it is one of those that are finished all the same. A stop is false if the training is on the front of
Dice, iterations and voxels of its fold, of which the fronts of Dice against time, energy or CO₂ are parts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from study.common.errors import LedgerError
from study.store.audit import read_trial, reading_many
from study.store.ledger import Ledger
from study.store.records import Phase
from study.store.stopping import STAYED, Curve, curve_of, is_kept, judged, on_front, rungs_at, searched_training
from study.store.stored import Amount, Stored, record_from_json
from study.store.trial_folder import RESULT, TrialState

CONFIDENCE = 0.95
# Below this share of false stops, as a bound, it is shown that stopping loses little.
SHOWN_BELOW = 0.05


@dataclass(frozen=True, kw_only=True)
class Past(Stored):
    """A finished training.

    Attributes:
        curve: of it.
        began, ended: seconds since the epoch.
        validation_seconds: of its final validation.
    """

    curve: Curve
    began: float
    ended: float
    validation_seconds: Amount

    @property
    def seconds(self) -> float:
        """Of training and final validation."""
        return self.curve.evaluations[-1][2] + self.validation_seconds

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Past:
        """Inverse of `to_json`; ValueError where it is none."""
        return record_from_json(cls, json.dumps(data).encode())


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A training that would have been stopped.

    Attributes:
        trial_id: of it; rung: where.
        kept: whether it would have been finished all the same.
        false: whether it is on the front.
        saved_seconds: of training and final validation; 0 if it is kept.
    """

    trial_id: str
    rung: float
    kept: bool
    false: bool
    saved_seconds: float


def history_of(ledger: Ledger, left_out: Callable[[str], None] = lambda _: None) -> list[Past]:
    """The finished trainings of a study that can be read and have a curve; those that ended at a Dice are left out.

    Args:
        ledger: of the study.
        left_out: told, in one line, which trial cannot be read, and why.
    """
    searched, found = searched_training(ledger.header()), []
    with reading_many():
        for folder in ledger.trials():
            if not folder.has(RESULT):
                continue
            try:
                records = read_trial(folder)
            except LedgerError as error:
                left_out(f"{folder.trial_id} unreadable: {error}")
                continue
            curve = curve_of(records.spec, records.epochs, records.result, searched)
            if curve.dice is None or not curve.evaluations or not records.attempts or not records.intervals:
                continue
            validation = [one.seconds for one in records.intervals if one.phase is Phase.FINAL_VALIDATION]
            found.append(
                Past(
                    curve=curve,
                    began=records.attempts[0].started_at,
                    ended=max(one.started_at + one.seconds for one in records.intervals),
                    validation_seconds=sum(validation),
                )
            )
    return found


def replayed(history: Sequence[Past]) -> list[Stop]:
    """The trainings that would have been stopped, in the order in which they began."""
    stops: list[Stop] = []
    curves, gone = [one.curve for one in history], set[str]()
    for past in sorted(history, key=lambda one: (one.began, one.curve.trial_id)):
        known = [one.curve for one in history if one.ended <= past.began and one.curve.trial_id not in gone]
        stop = _stop(past, known, curves)
        if stop is not None:
            stops.append(stop)
            gone |= set() if stop.kept else {stop.trial_id}
    return stops


def shuffled(history: Sequence[Past], seed: int) -> list[Past]:
    """The same trainings one after another in another order."""
    order = random.Random(seed).sample(range(len(history)), len(history))
    return [replace(one, began=float(place), ended=place + 0.5) for place, one in zip(order, history, strict=True)]


def _stop(past: Past, known: Sequence[Curve], curves: Sequence[Curve]) -> Stop | None:
    curve = past.curve
    for place, rung in rungs_at([share for share, _, _ in curve.evaluations]).items():
        share, _, seconds = curve.evaluations[place]
        verdict = judged(curve, known, rung=rung, share=share)
        if verdict is not None and verdict.beaten_by is not None:
            kept = is_kept(curve.trial_id)
            return Stop(
                trial_id=curve.trial_id,
                rung=rung,
                kept=kept,
                false=on_front(curve, curves),
                saved_seconds=0.0 if kept else past.seconds - seconds,
            )
    return None


def highest_share(hits: int, of: int) -> float:
    """Clopper and Pearson's upper bound of a share of which so many were seen, one-sided, 95 %."""
    from scipy.stats import beta

    return 1.0 if hits >= of else float(beta.ppf(CONFIDENCE, hits + 1, of - hits))


def false_stops(hits: int, of: int) -> str:
    """What is known of false stops, as a sentence."""
    bound = highest_share(hits, of)
    verdict = f"below {SHOWN_BELOW:.0%}" if bound < SHOWN_BELOW else f"not shown to be below {SHOWN_BELOW:.0%}"
    counted = f"{hits} of {of}" if of else "of none there was to see"
    return f"false stops: {counted}, at most {bound:.1%} (95 %, Clopper–Pearson): {verdict}"


def late_stops(studies: Sequence[Path]) -> list[str]:
    """A sentence for each study folder among some folders in which trainings were stopped late, or would have been."""
    return [said for root in studies if (root / "study.json").exists() for said in _of_study(Ledger.open(root))]


def _of_study(ledger: Ledger) -> Iterator[str]:
    folders = ledger.trials()
    stopped = sum(folder.state() is TrialState.STOPPED for folder in folders)
    kept = {folder.trial_id for folder in folders if any(event["event"] == STAYED for event in folder.events())}
    if stopped or kept:
        curves = [past.curve for past in history_of(ledger)]
        seen = [curve for curve in curves if curve.trial_id in kept]
        wrong = sum(on_front(curve, curves) for curve in seen)
        yield (
            f"Late stopping: {stopped} stopped; of those that would have been and were finished all the same, "
            f"{false_stops(wrong, len(seen))}."
        )

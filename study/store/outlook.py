"""How a study goes against its preview: what has been spent, what is still to come, and when it will be done.

What the preview rested on is recorded with the study before its first point, and is not looked up again: the searcher
`pareto` knows its costs by it, so another calibration made meanwhile changes no proposal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from study.common.errors import LedgerError
from study.common.serialize import record_to_json
from study.common.terminal import time_left
from study.store.calibration import network_of
from study.store.ledger import Ledger
from study.store.preview import Amounts, Basis, Preview, Rates
from study.store.specification import TrialSpec
from study.store.status import TrialStatus
from study.store.stored import Amount, Stored, Whole, record_from_json
from study.store.taken import Part, Shape, Trained
from study.store.trial_folder import TrialState

KEY = "preview"


@dataclass(frozen=True, kw_only=True)
class KnownShape(Stored):
    """What iterations of a patch and batch size took."""

    patch_size: tuple[Whole, ...]
    batch_size: Whole
    part: Part


@dataclass(frozen=True, kw_only=True)
class KnownNetwork(Stored):
    """What previews of a network rested on, as it is recorded.

    Attributes:
        network, hardware: of what, on what; basis: in words.
        shapes: iterations; validation, setup: of one; final: with and without test-time mirroring.
    """

    network: tuple[str, ...]
    hardware: str
    basis: str
    shapes: tuple[KnownShape, ...]
    validation: Part | None
    setup: Part | None
    final: tuple[Part | None, Part | None]

    @classmethod
    def of(cls, network: tuple[str, ...], basis: Basis) -> KnownNetwork:
        """That of a basis."""
        rates = basis.rates
        return cls(
            network=network,
            hardware=basis.hardware,
            basis=basis.words(),
            shapes=tuple(KnownShape(patch_size=s[0], batch_size=s[1], part=part) for s, part in rates.parts.items()),
            validation=_one(rates.validation),
            setup=_one(rates.setup),
            final=(_one(rates.final[True]), _one(rates.final[False])),
        )

    @cached_property
    def rates(self) -> Rates:
        """The rates it was made from."""
        shapes: dict[Shape, Part] = {(each.patch_size, each.batch_size): each.part for each in self.shapes}
        common: dict[str, Any] = {"network": self.network, "plans_sha256": "", "hardware": self.hardware}
        one: dict[str, Any] = {"validation": self.validation, "setup": self.setup, "final": self.final[0]}
        whole = Trained(shapes=shapes, mirroring=True, **one, **common)
        other = Trained(shapes={}, mirroring=False, validation=None, setup=None, final=self.final[1], **common)
        return Rates([whole, other])


def _one(amounts: Amounts | None) -> Part | None:
    if amounts is None:
        return None
    seconds, energy, carbon = amounts
    return Part(count=1, seconds=seconds, energy_kwh=energy, co2_kg=carbon)


@dataclass(frozen=True, kw_only=True)
class StudyPreview(Stored):
    """What a study was said to cost before it began.

    Attributes:
        trials: how many; seconds, energy_kwh, co2_kg: of their training loops together.
        around_seconds: of their set-ups and final validations, 0 where they are not known.
        low, high: factors between which the seconds lie, None where nothing says.
        listed: whether they are the very trials to be trained, else others stand for them.
        known: what that rested on.
    """

    trials: Amount
    seconds: Amount
    energy_kwh: Amount | None
    co2_kg: Amount | None
    around_seconds: Amount
    low: Amount | None
    high: Amount | None
    listed: bool
    known: tuple[KnownNetwork, ...]

    def of(self, spec: TrialSpec) -> Preview | None:
        """Of a trial, None where nothing was known of its network."""
        if spec.trial_id not in self._seen:
            rates = next((each.rates for each in self.known if each.network == network_of(spec)), None)
            self._seen[spec.trial_id] = None if rates is None else rates.preview(spec)
        return self._seen[spec.trial_id]

    @cached_property
    def _seen(self) -> dict[str, Preview | None]:
        """By trial: a screen asks again every second."""
        return {}


def record_preview(ledger: Ledger, preview: StudyPreview | None) -> None:
    """Keep it with a study that has no points yet; only who runs the study does."""
    if preview is not None and KEY not in ledger.header() and not ledger.points():
        ledger.amend(**{KEY: record_to_json(preview)})


def recorded_preview(ledger: Ledger) -> StudyPreview | None:
    """That of a study, None if it has none.

    Raises:
        LedgerError: it is damaged.
    """
    found = ledger.header().get(KEY)
    if found is None:
        return None
    try:
        return record_from_json(StudyPreview, json.dumps(found).encode())
    except ValueError as error:
        path = ledger.root / "study.json"
        raise LedgerError(f"{path} is damaged: {KEY}: {error}; restore it, or take {KEY} out of it") from error


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Where a study stands; training loops, but for the time left.

    Attributes:
        trials, of_trials: how many have ended, and are wanted.
        spent_seconds, spent_co2_kg: so far; None is unmeasured.
        expected_seconds, expected_co2_kg: of the whole study, by the preview.
        against: seconds of what has finished over what was expected of it, None before something has.
        left_seconds: until it is done, of wall time; low and high: between what that lies, None where nothing says.
    """

    trials: int
    of_trials: int
    spent_seconds: float
    spent_co2_kg: float | None
    expected_seconds: float
    expected_co2_kg: float | None
    against: float | None
    left_seconds: float
    low_seconds: float | None
    high_seconds: float | None

    @property
    def left(self) -> str:
        """The time left, in words; empty at the end."""
        if not self.left_seconds:
            return ""
        ends = () if self.low_seconds is None or self.high_seconds is None else (self.low_seconds, self.high_seconds)
        return f"about {time_left(self.left_seconds)}{' ({} to {})'.format(*map(time_left, ends)) if ends else ''} left"

    def words(self) -> str:
        """In one line."""
        said = [f"{self.trials} of {self.of_trials} trials"]
        said.append(f"{time_left(self.spent_seconds)} of about {time_left(self.expected_seconds)} of training")
        if self.spent_co2_kg is not None and self.expected_co2_kg is not None:
            said.append(f"{self.spent_co2_kg:.3g} of {self.expected_co2_kg:.3g} kg CO2")
        if self.against is not None:
            said.append(f"{self.against - 1:+.0%} against the preview")
        return ", ".join([*said, self.left] if self.left else said)


ENDED = (TrialState.FINISHED, TrialState.STOPPED, TrialState.INFEASIBLE)


def outlook(preview: StudyPreview, rows: Sequence[TrialStatus]) -> Outlook:
    """How a study goes against its preview.

    Args:
        preview: of it, see `recorded_preview`.
        rows: its trials; as many as run now run side by side.
    """
    known = [(row, expected) for row in rows if (expected := _expected(preview, row)) is not None]
    finished = [(row, expected) for row, (expected, _) in known if row.state is TrialState.FINISHED]
    predicted = sum(expected for _, expected in finished)
    against = sum(row.runtime_seconds for row, _ in finished) / predicted if predicted else None
    number = max(len(rows), round(preview.trials))
    share = number / preview.trials if preview.trials else 1.0
    whole = share * (preview.seconds + preview.around_seconds)
    begun = sum(sum(expected) for _, expected in known)
    to_begin = max(0.0, whole - begun) if preview.listed else whole * (1 - len(rows) / number) if number else 0.0
    left = sum((1 - _done(row)) * sum(expected) for row, expected in known) + to_begin * (number > len(rows))
    running = sum(row.state is TrialState.RUNNING for row in rows)
    left *= (against or 1.0) / max(1, running)
    carbon = [row.co2_kg for row in rows if row.co2_kg is not None]
    return Outlook(
        trials=sum(row.state in ENDED for row in rows),
        of_trials=number,
        spent_seconds=sum(row.runtime_seconds for row in rows),
        spent_co2_kg=sum(carbon) if len(carbon) == sum(row.iteration > 0 for row in rows) else None,
        expected_seconds=share * preview.seconds,
        expected_co2_kg=None if preview.co2_kg is None else share * preview.co2_kg,
        against=against,
        left_seconds=left,
        low_seconds=None if preview.low is None else left * preview.low,
        high_seconds=None if preview.high is None else left * preview.high,
    )


def study_outlook(ledger: Ledger, rows: Sequence[TrialStatus]) -> Outlook | None:
    """How a study goes against its preview, None if it was begun without one.

    Raises:
        LedgerError: the recorded preview is damaged.
    """
    preview = recorded_preview(ledger)
    return None if preview is None else outlook(preview, rows)


def _expected(preview: StudyPreview, row: TrialStatus) -> tuple[float, float] | None:
    """Seconds of a trial's training loop, and of its set-up and final validation."""
    found = None if row.spec is None else preview.of(row.spec)
    return None if found is None else (found.amounts[0], found.around[0] if found.around else 0.0)


def _done(row: TrialStatus) -> float:
    if row.state in ENDED:
        return 1.0
    return min(1.0, row.iteration / row.total_iterations) if row.total_iterations else 0.0

"""What happened to each trial and when, as its ledger tells it: started, interrupted, failed, finished, notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from study.errors import StudyError
from study.files import name_of
from study.ledger import Ledger
from study.terminal import visible

Events: TypeAlias = Sequence[tuple[str, str]]
"""Pairs of time (UTC, to the second) and words, oldest first."""

_SAID_BY_THE_TIME = ("event", "time")


def events_of(folders: Sequence[Path]) -> Mapping[tuple[str, str], Events]:
    """The events of every trial of the study folders among some folders.

    Returns:
        (study, trial_id) -> events, with a study under its folder's name and under its whole path, as tables name it.
        Tables that were read from parquet have no events. Of a trial whose events cannot be read there are none: the
        table of trials has it as unreadable.
    """
    told: dict[tuple[str, str], Events] = {}
    for root in dict.fromkeys(folder.resolve() for folder in folders):
        if not (root / "study.json").exists():
            continue
        for trial in Ledger.open(root).trials():
            events = _events(trial.events)
            told |= {(name, trial.trial_id): events for name in (name_of(root), visible(str(root)))}
    return told


def _events(read: Any) -> Events:
    try:
        return [(_time(event["time"]), _words(event)) for event in read()]
    except (StudyError, OSError, ArithmeticError, ValueError, KeyError, TypeError):
        return []


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _words(event: Mapping[str, Any]) -> str:
    """`started: attempt 0, iteration 0`."""
    details = {name: value for name, value in event.items() if name not in _SAID_BY_THE_TIME and value is not None}
    told = ", ".join(str(value) if name in ("text", "reason") else f"{name} {value}" for name, value in details.items())
    return f"{event['event']}: {told}" if told else str(event["event"])

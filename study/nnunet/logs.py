"""A `training_log_*.txt` of nnU-Net, read: what each epoch took and came to. One file for each process that trained.

Times are durations that nnU-Net printed; its clock is local and may jump: it orders logs, and only set-up and final
validation rest on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import MissingDataError

_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?): ?(.*)")
_NUMBER = r"(?:np\.float(?:32|64)\()?(-?\d+(?:[.,]\d+)?(?:e[+-]?\d+)?|nan)\)?"
_WORDS = {
    "rate": re.compile(rf"Current learning rate: {_NUMBER}"),
    "training_loss": re.compile(rf"train_loss {_NUMBER}"),
    "validation_loss": re.compile(rf"val_loss {_NUMBER}"),
    "seconds": re.compile(rf"Epoch time: {_NUMBER} s"),
}
_EPOCH = re.compile(r"Epoch (\d+)")
_DICE = re.compile(r"Pseudo dice \[(.*)\]")
_EACH = re.compile(_NUMBER)
_VALIDATES, _VALIDATED, _ON_CPU = "predicting ", "Validation complete", "torch.compile disabled because device is CPU"
# Dice is of patches; rounding takes none of it beyond 1.
_LARGEST_DICE = 1.0


@dataclass(frozen=True, kw_only=True)
class LoggedEpoch:
    """One epoch; one that was cut short has no `seconds`. A value that is no number is None."""

    number: int
    began: datetime
    seconds: float | None = None
    rate: float | None = None
    training_loss: float | None = None
    validation_loss: float | None = None
    pseudo_dice: tuple[float | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """What one process did.

    Attributes:
        began: its first line, local time.
        epochs: in order.
        validation_seconds: of the final validation, None if it did none to the end.
        on_cpu: whether it says so.
    """

    began: datetime
    epochs: Sequence[LoggedEpoch]
    validation_seconds: float | None
    on_cpu: bool


def read_log(path: Path) -> TrainingLog | None:
    """The log, None of a process that did nothing.

    Raises:
        MissingDataError: it is no log of nnU-Net's, or an epoch in it is damaged.
    """
    # Written in whatever encoding the locale had; what matters is ASCII.
    try:
        text = files.read_whole(path).decode(errors="replace")
    except OSError as error:
        raise MissingDataError(f"{path} cannot be read: {error.strerror}") from error
    lines = [found for found in map(_LINE.match, text.splitlines()) if found]
    if not lines:
        if text:
            raise MissingDataError(f"{path} is no log of nnU-Net: no line begins with a time, 2026-11-02 10:00:00")
        return None
    stamped = [(_time(path, line[1]), line[2].strip()) for line in lines]
    epochs = list(_epochs(path, stamped))
    predicting = [time for time, text in stamped if text.startswith(_VALIDATES)]
    validated = [time for time, text in stamped if text.startswith(_VALIDATED)]
    return TrainingLog(
        began=stamped[0][0],
        epochs=epochs,
        validation_seconds=(validated[-1] - predicting[0]).total_seconds() if predicting and validated else None,
        on_cpu=any(_ON_CPU in text for _, text in stamped),
    )


def _epochs(path: Path, lines: Sequence[tuple[datetime, str]]) -> Iterator[LoggedEpoch]:
    current = None
    for time, text in lines:
        begins = _EPOCH.fullmatch(text)
        if begins:
            if current is not None:
                yield _checked(path, current)
            current = LoggedEpoch(number=int(begins[1]), began=time)
        elif current is not None:
            current = _with(current, text)
    if current is not None:
        yield _checked(path, current)


def _with(epoch: LoggedEpoch, text: str) -> LoggedEpoch:
    """The epoch with what a line says of it."""
    for name, words in _WORDS.items():
        if found := words.match(text):
            values: dict[str, Any] = {name: _number(found[1])}
            return replace(epoch, **values)
    if dice := _DICE.match(text):
        numbers = [_number(found[1]) for found in _EACH.finditer(dice[1])]
        return replace(epoch, pseudo_dice=tuple(n if n is None else min(n, _LARGEST_DICE) for n in numbers))
    return epoch


def _checked(path: Path, epoch: LoggedEpoch) -> LoggedEpoch:
    if epoch.seconds is not None and (epoch.rate is None or epoch.training_loss is None or epoch.seconds < 0):
        raise MissingDataError(
            f"{path}: epoch {epoch.number} has no learning rate, training loss or time that is a number"
        )
    return epoch


def _number(text: str) -> float | None:
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None


def _time(path: Path, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise MissingDataError(f"{path} has the time {text!r}, which is none") from None

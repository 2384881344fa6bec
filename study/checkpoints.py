"""Checkpoints that survive a crash at any byte: written aside and renamed, the previous one kept until then.

Three names, newest first: `checkpoint_final.pth` (training done), `checkpoint_latest.pth`, `checkpoint_previous.pth`.
They are nnU-Net's own format with one more key, so stock nnU-Net predicts with the final one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from study.errors import TrialInterrupted
from study.files import write_atomically

FINAL, LATEST, PREVIOUS = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_previous.pth"
STATE_KEY = "pgps_study"
# Write at the end of an epoch when that costs at most this share of the time since the last checkpoint …
LARGEST_SHARE = 0.05
# … and in any case when this much work would be lost.
LONGEST_INTERVAL_SECONDS = 300.0

Report = Callable[[str], None]


class CheckpointClock:
    """Says when the next checkpoint is due, from what the last one cost."""

    def __init__(self) -> None:
        self._last_written = time.monotonic()
        self._cost_seconds = 0.0

    def due(self, *, epoch_ended: bool) -> bool:
        """Whether to write now: at the end of short epochs each time, within long ones every few minutes."""
        waited_seconds = time.monotonic() - self._last_written
        if waited_seconds >= LONGEST_INTERVAL_SECONDS:
            return True
        return epoch_ended and self._cost_seconds <= LARGEST_SHARE * waited_seconds

    def written(self, cost_seconds: float) -> None:
        """Note that a checkpoint was written, and how long that took."""
        self._last_written = time.monotonic()
        self._cost_seconds = cost_seconds


def save(folder: Path, checkpoint: dict[str, Any], *, final: bool) -> None:
    """Write a checkpoint durably; the older ones go only after it is on disk."""
    latest, previous = folder / LATEST, folder / PREVIOUS
    if final:
        _write(folder / FINAL, checkpoint)
        latest.unlink(missing_ok=True)
        previous.unlink(missing_ok=True)
        return
    fresh = folder / f".{LATEST}.new"
    _write(fresh, checkpoint)
    if latest.exists():
        latest.replace(previous)
    fresh.replace(latest)


def newest_readable(folder: Path, report: Report) -> Path | None:
    """The newest checkpoint that can be read whole; unreadable ones are reported and passed over."""
    for name in (FINAL, LATEST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=False)[STATE_KEY]
        except TrialInterrupted:
            raise
        except Exception as error:  # a damaged pickle may raise anything
            report(f"{path.name} cannot be read ({type(error).__name__}), trying an older checkpoint")
            continue
        if isinstance(state, dict):
            return path
    return None


def _write(path: Path, checkpoint: dict[str, Any]) -> None:
    write_atomically(path, lambda handle: torch.save(checkpoint, handle))

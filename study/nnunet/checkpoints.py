"""Checkpoints that survive a crash at any byte: written aside and renamed, the previous one kept until then.

They are pickles, and reading a pickle runs what is in it: only files that lie in the trial's own folder are read.

Three names, newest first: `checkpoint_final.pth` (training done), `checkpoint_latest.pth`, `checkpoint_previous.pth`.
They are nnU-Net's own format with one more key, so stock nnU-Net predicts with the final one.
"""

from __future__ import annotations

import io
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from study.common.errors import LedgerError, TrialInterrupted
from study.common.files import sync_folder, write_atomically

FINAL, LATEST, PREVIOUS = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_previous.pth"
STATE_KEY = "pgps_study"
# Write at the end of an epoch when that costs at most this share of the time since the last checkpoint …
LARGEST_SHARE = 0.05
# … and in any case when this much work would be lost.
LONGEST_INTERVAL_SECONDS = 300.0


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
    """Write a checkpoint durably; the older ones go only after it is on disk.

    Raises:
        DiskFullError: there is no room; the older ones are as they were.
    """
    latest, previous, fresh = folder / LATEST, folder / PREVIOUS, folder / f".{LATEST}.new"
    # In memory first: what goes wrong while torch writes is not always an error that says what.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    if final:
        write_atomically(folder / FINAL, lambda handle: handle.write(content.getbuffer()))
        for older in (latest, previous, fresh):
            older.unlink(missing_ok=True)
        return
    write_atomically(fresh, lambda handle: handle.write(content.getbuffer()))
    if latest.exists():
        latest.replace(previous)
    fresh.replace(latest)
    sync_folder(folder)


def newest_readable(folder: Path, report: Callable[[str], None], *, inside: Path | None = None) -> Path | None:
    """The newest checkpoint that can be read whole; the others are reported in one line each and passed over.

    Links must not leave `inside`, the trial's folder; if it is not given, `folder` itself.

    Raises:
        LedgerError: a checkpoint has another name somewhere else.
    """
    for path in (folder / name for name in (FINAL, LATEST, PREVIOUS)):
        if not path.exists():
            continue
        if not path.resolve().is_relative_to((inside or folder).resolve()):
            report(f"{path.name} is not read: it is a link to {path.resolve()}, outside the trial's folder")
            continue
        if path.stat().st_nlink > 1:
            here, copy = shlex.quote(str(path)), shlex.quote(f"{path}.own")
            raise LedgerError(
                f"{path} is a hard link, so it may be somebody else's, and is not read; if you trust it, make it a "
                f"file of its own: cp {here} {copy} && mv {copy} {here}"
            )
        try:
            state = torch.load(path, map_location="cpu", weights_only=False)[STATE_KEY]
            if not isinstance(state, dict):
                raise TypeError(f"no {STATE_KEY}")
            return path
        except TrialInterrupted:
            raise
        except Exception as error:  # a damaged pickle may raise anything
            report(f"{path.name} cannot be read ({type(error).__name__}), trying an older checkpoint")
    return None

"""Trying again what a storage that is away for a moment did not do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from study.remote.storage import StorageError

PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)

_T = TypeVar("_T")


def tried(do: Callable[[], _T], on_trouble: Callable[[StorageError, float], None] = lambda *_: None) -> _T:
    """What a call gives, tried again for about a minute.

    Args:
        do: what is tried.
        on_trouble: told of each failure but the last, and of the pause that follows in seconds.

    Raises:
        StorageError: it failed each time; the last time's error.
    """
    for pause in PAUSES_SECONDS:
        try:
            return do()
        except StorageError as error:
            on_trouble(error, pause)
            time.sleep(pause)
    return do()

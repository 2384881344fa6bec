"""When others were seen to renew their records, by our own clock: what their clocks say is never compared with ours."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field

STALE_SECONDS = 60.0


@dataclass(frozen=True)
class _Seen:
    """A record as it was seen: its stamp, and when by our own clock it was first seen with it."""

    stamp: float
    at: float


@dataclass
class Sightings:
    """Records by any name of theirs, each with the stamp that its holder renews."""

    _seen: dict[Hashable, _Seen] = field(default_factory=dict)

    def glance(self, record: Hashable, stamp: float) -> bool:
        """Note how a record looks; whether only watching it can tell if its holder lives.

        Args:
            record: which one.
            stamp: when it was renewed, seconds since the epoch by whatever clock.
        """
        before, now = self._seen.get(record), time.monotonic()
        if before is not None:
            if stamp != before.stamp:
                self._seen[record] = _Seen(stamp, now)
            return False
        age = time.time() - stamp
        fresh = abs(age) <= STALE_SECONDS
        self._seen[record] = _Seen(stamp, now - (max(age, 0) if fresh else 2 * STALE_SECONDS))
        return not fresh

    def is_alive(self, record: Hashable) -> bool:
        """Whether a record that was glanced at was renewed, as far as we could see, within the last minute."""
        return time.monotonic() - self._seen[record].at <= STALE_SECONDS

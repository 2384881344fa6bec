"""Who holds a lock: a process, named so that its own machine can tell whether it still lives.

When others were seen to renew their records, by our own clock: what their clocks say is never compared with ours.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from study.common import files
from study.common.checks import is_whole

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


# The last second of the year 9999, beyond which no date is printed.
LATEST = 253402300799


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock.

    Attributes:
        host: name of the machine; machine: its boot and process namespace, within which a pid means something.
        pid: of the process; born: when it started, in the machine's own clock ticks, because pids are used again; None
            where the machine does not tell.
        since: seconds since the epoch; token: unique to this hold.

    Raises:
        ValueError: a field is nothing that we write.
    """

    host: str
    machine: str
    pid: int
    born: int | None
    since: float
    token: str

    def __post_init__(self) -> None:
        words = all(isinstance(word, str) and word.isprintable() for word in (self.host, self.machine, self.token))
        numbers = is_whole(self.pid) and self.pid >= 0 and (self.born is None or is_whole(self.born))
        dated = isinstance(self.since, int | float) and math.isfinite(self.since) and 0 <= self.since <= LATEST
        if not (words and numbers and dated):
            raise ValueError("no record of a holder")

    def __str__(self) -> str:
        return (
            f"process {self.pid} on {self.host} since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
        )

    @classmethod
    def this_process(cls) -> Holder:
        """A new hold by this process, from now on."""
        return cls(
            host=socket.gethostname(),
            machine=this_machine(),
            pid=os.getpid(),
            born=_born(os.getpid()),
            since=time.time(),
            token=uuid4().hex,
        )

    @classmethod
    def unknown(cls, since: float) -> Holder:
        """Whoever wrote a record that cannot be read."""
        return cls(host="an unknown host", machine="", pid=0, born=None, since=min(max(since, 0), LATEST), token="")

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine, which can be looked at."""
        return self.machine == this_machine()

    @property
    def is_gone(self) -> bool:
        """Whether the process certainly ended: only knowable on its own machine."""
        return self.is_here and _has_ended(self.pid, self.born)


def this_machine() -> str:
    """What tells this boot of this machine, and this namespace of pids, from all others."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def read_record(path: Path) -> Holder | None:
    """Whose record it is; None when there is none or it was released. One that is no record is an unknown holder's."""
    try:
        data = files.read_json(path)
        return None if isinstance(data, dict) and data.get("released") is True else Holder(**data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError):
        return Holder.unknown(_time_of(path))


def _time_of(path: Path) -> float:
    with suppress(OSError):
        return path.lstat().st_mtime
    return 0.0


def _has_ended(pid: int, born: int | None) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        # Somebody else's, hence alive; /proc may hide more of it.
        pass
    now = _born(pid)
    return now == _ZOMBIE or (None not in (now, born) and now != born)


_ZOMBIE = -1


def _born(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it cannot be seen. A zombie has ended."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return _ZOMBIE if fields[0] == "Z" else int(fields[19])
    return None

"""Who holds a lock, and where it is written: numbered records of a folder; for object storage see `buckets.lease`."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from study.common import files
from study.common.errors import is_whole

STALE_SECONDS = 60.0
POLL_SECONDS = 0.2
# The last second of the year 9999, beyond which no date is printed.
LATEST = 253402300799
_ZOMBIE = -1


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock: a process, named so that its own machine can tell whether it still lives.

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
        since = datetime.fromtimestamp(self.since, UTC)
        return f"process {self.pid} on {self.host} since {since:%Y-%m-%d %H:%M:%S} UTC"

    @classmethod
    def this_process(cls) -> Holder:
        """A new hold by this process, from now on."""
        pid, host = os.getpid(), socket.gethostname()
        return cls(host=host, machine=this_machine(), pid=pid, born=_born(pid), since=time.time(), token=uuid4().hex)

    @classmethod
    def recorded(cls, data: Any, stamp: float) -> Holder | None:
        """Whose record it is, None of one that was released; one that is no record is an unknown holder's.

        Args:
            data: as it was read, whatever it is.
            stamp: when it was last renewed, seconds since the epoch.
        """
        try:
            return None if isinstance(data, dict) and data.get("released") is True else cls(**data)
        except (ValueError, TypeError):
            since = min(max(stamp, 0), LATEST)
            return cls(host="an unknown host", machine="", pid=0, born=None, since=since, token="")

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


def _has_ended(pid: int, born: int | None) -> bool:
    if not pid:
        # Nobody has it; a signal to it is to whoever sends it.
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        # Somebody else's, hence alive; /proc may hide more of it.
        pass
    now = _born(pid)
    return now == _ZOMBIE or (None not in (now, born) and now != born)


def _born(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it cannot be seen. A zombie has ended."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return _ZOMBIE if fields[0] == "Z" else int(fields[19])
    return None


@dataclass(frozen=True, kw_only=True)
class LockClaim:
    """A record of a lock.

    Attributes:
        key: its name; number: the higher one counts.
        holder: whose it is, None of one that was released.
        stamp: when it was last renewed, seconds since the epoch by the storage's clock.
    """

    key: str
    number: int
    holder: Holder | None
    stamp: float

    @property
    def may_live(self) -> bool:
        """Whether somebody holds it of whom it is not certain that he has ended."""
        return self.holder is not None and not self.holder.is_gone


class Lock(ABC):
    """Where the records of a lock are. Two that are equal are one lock."""

    poll_seconds = POLL_SECONDS

    @abstractmethod
    def claims(self) -> list[LockClaim]:
        """The records that count, the highest number last."""

    @abstractmethod
    def put(self, number: int, holder: Holder, known: Sequence[LockClaim]) -> LockClaim | None:
        """Claim the lock in the place of claims that are nobody's any more; None, and no trace, if others did so too.

        Args:
            number: the least that it may have.
            holder: this process.
            known: as they were seen.
        """

    @abstractmethod
    def renew(self, claim: LockClaim) -> None:
        """Give a sign of life."""

    @abstractmethod
    def release(self, claim: LockClaim) -> None:
        """Give it back."""

    @abstractmethod
    def now(self) -> float:
        """Seconds since the epoch by the clock that stamps the records, whatever this machine's says."""


@dataclass(frozen=True)
class FolderLock(Lock):
    """A folder with a file for each record, of which the older ones are deleted; made when the lock is first taken."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder.parent)

    def claims(self) -> list[LockClaim]:
        """The newest record."""
        newest = max(self._records(), key=_number, default=None)
        return [] if newest is None else [_claim(newest)]

    def put(self, number: int, holder: Holder, known: Sequence[LockClaim]) -> LockClaim | None:
        """Create the next record, which one process can do, and forget the older ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = self.folder / f"{number:06d}.json"
        created = _create(record, json.dumps(asdict(holder)))
        mine = _claim(record)
        if not created or self.claims()[-1].number != number:
            # Of two, the higher number holds.
            if mine.holder == holder:
                record.unlink(missing_ok=True)
            return None
        aside = [path for path in self.folder.glob(".*.tmp") if mine.stamp - _stamp(path) > STALE_SECONDS]
        for path in (*(path for path in self._records() if _number(path) < number), *aside):
            # A folder of that name, say, may stay: the highest number counts.
            with suppress(OSError):
                path.unlink()
        return mine

    def renew(self, claim: LockClaim) -> None:
        """Set the file's time."""
        os.utime(self._path(claim))

    def release(self, claim: LockClaim) -> None:
        """Say so in the record, whose number stays the highest."""
        if _claim(self._path(claim)).holder == claim.holder:
            files.write_json(self._path(claim), {"released": True})

    def now(self) -> float:
        """See `Lock`."""
        probe = self.folder / f".{uuid4().hex}.tmp"
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _records(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if _number(path)]
        except OSError:
            return []

    def _path(self, claim: LockClaim) -> Path:
        return self.folder / claim.key


def _number(record: Path) -> int:
    """Of a record, 0 for anything else."""
    digits = record.stem
    return int(digits) if record.suffix == ".json" and digits.isascii() and digits.isdigit() and len(digits) < 19 else 0


def _stamp(record: Path) -> float:
    with suppress(OSError):
        return record.lstat().st_mtime
    return 0.0


def _claim(record: Path) -> LockClaim:
    stamp = _stamp(record)
    try:
        holder = Holder.recorded(files.read_json(record), stamp)
    except FileNotFoundError:
        holder = None
    except (OSError, ValueError):
        holder = Holder.recorded(None, stamp)
    return LockClaim(key=record.name, number=_number(record), holder=holder, stamp=stamp)


def _create(record: Path, text: str) -> bool:
    """Create the record whole, unless it exists: written aside, then linked, which is atomic on network storage too."""
    aside = record.with_name(f".{uuid4().hex}.tmp")
    try:
        aside.write_text(text, encoding="utf-8")
        try:
            os.link(aside, record)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return _create_exclusively(record, text)
        return True
    finally:
        aside.unlink(missing_ok=True)


def _create_exclusively(record: Path, text: str) -> bool:
    try:
        with record.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError:
        return False
    except OSError:
        # Half a record would hold the lock for nobody.
        record.unlink(missing_ok=True)
        raise
    return True

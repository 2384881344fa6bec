"""A lock in object storage, records and rule as in `study.store.locks`: its holder is an object that all can read.

A lock is a prefix under which each who wants it puts a numbered record of its own. The highest number holds it; its
holder puts it again every `BEAT_SECONDS`, and deletes it in the end. Whoever finds nothing, or only records of holders
that are dead, puts the next number and then looks again. Of two who do so at once each put before it looked, so at
least one sees the other and withdraws; when both do, they try again after pauses of random length.

Guaranteed, where a listing shows all that was put before (S3, GCS, Azure, MinIO): never do two acquire a free lock. A
holder that was away for `STALE_SECONDS` can be taken over; it ends when it notices, at its next beat, and what it
commits until then has a lower number than its successor's commits and is not read. Nothing needs conditional puts,
which not all clients offer.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from study.buckets.storage import Storage
from study.common.errors import LockedError, StudyError
from study.store.holders import STALE_SECONDS, Holder
from study.store.locks import BEAT_SECONDS, EXIT_CODE_OF_LOSS, PATIENCE_BEATS

MOST_TRIES = 6
LONGEST_PAUSE_SECONDS = 2.0
RENEWED = "renewed"
_NAME = re.compile(r"(\d{6,18})-([0-9a-f]{32})\.json")


@dataclass(frozen=True, kw_only=True)
class Record:
    """Somebody's claim to a lock.

    Attributes:
        key: of the object; number: the higher one counts.
        holder: who put it; renewed: when it was last put, seconds since the epoch by the storage's clock.
    """

    key: str
    number: int
    holder: Holder
    renewed: float

    def is_doubtful(self, now: float) -> bool:
        """Whether only watching it tells if its holder lives: old, or in the future, by the storage's clock."""
        return abs(now - self.renewed) > STALE_SECONDS


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A lock that is held. `number` is higher than that of every earlier holder."""

    storage: Storage
    prefix: str
    key: str
    number: int

    def is_lost(self) -> bool:
        """Whether somebody took it over."""
        keys = self.storage.entries(self.prefix)
        return self.key not in keys or any(number > self.number for number in map(_number, keys))


def holder_of(storage: Storage, prefix: str) -> Record | None:
    """The record of whoever holds a lock and is, as far as can be known, alive."""
    found = records(storage, prefix)
    if not found or found[-1].holder.is_gone:
        return None
    return None if found[-1].is_doubtful(storage.clock()) else found[-1]


def records(storage: Storage, prefix: str) -> list[Record]:
    """All claims to a lock, the one that counts last."""
    found = []
    for key, entry in storage.entries(prefix).items():
        record = _record(key, storage.read(key), entry.modified) if _number(key) else None
        if record is not None:
            found.append(record)
    return sorted(found, key=lambda record: (record.number, record.key))


@contextmanager
def leased(
    storage: Storage,
    prefix: str,
    *,
    at_least: Callable[[], int] = lambda: 1,
    on_takeover: Callable[[str], None] = lambda _: None,
    on_loss: Callable[[], None] | None = None,
) -> Iterator[Lease]:
    """Hold a lock.

    Args:
        storage: where it is.
        prefix: of its records' keys.
        at_least: the lowest number that is legal, asked again before the lock counts as acquired.
        on_takeover: told, in one line, whose stale lock this one replaces.
        on_loss: called from another thread when somebody took the lock over; without it the process is ended, because
            two must not write the same records.

    Raises:
        LockedError: another process holds it; the message says who.
        StorageError: the storage cannot be written.
    """
    lease, before = _acquire(storage, prefix, at_least)
    owner, stop = os.getpid(), threading.Event()
    beating = threading.Thread(target=_beat, args=(lease, stop, on_loss or _die), daemon=True)
    beating.start()
    try:
        if before is not None:
            _let_it_notice(before)
            how = "has ended" if before.is_gone else f"has shown no sign of life for {STALE_SECONDS:g} s"
            on_takeover(f"took over from {before}, which {how}")
        yield lease
    finally:
        # A forked child that ends here holds nothing.
        if os.getpid() == owner:
            stop.set()
            beating.join()
            # What stays is stale as soon as this process has ended.
            with suppress(StudyError):
                storage.delete(lease.key)


def _acquire(storage: Storage, prefix: str, at_least: Callable[[], int]) -> tuple[Lease, Holder | None]:
    for _ in range(MOST_TRIES):
        found = records(storage, prefix)
        _refuse_if_held(storage, prefix, found)
        number = max([at_least(), *(record.number + 1 for record in found)])
        lease = _claim(storage, prefix, number)
        known = {record.key for record in found}
        rivals = [key for key in storage.entries(prefix) if _number(key) and key not in {lease.key, *known}]
        if not rivals and at_least() <= number:
            for record in found:
                storage.delete(record.key)
            return lease, found[-1].holder if found else None
        storage.delete(lease.key)
        time.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))
    raise LockedError("other processes, which all began to just now")


def _refuse_if_held(storage: Storage, prefix: str, found: list[Record]) -> None:
    alive = [record for record in found if not record.holder.is_gone]
    if not alive:
        return
    # By the storage's clock, which stamps the records, whatever this machine's says.
    now = storage.clock()
    renewed = [record for record in alive if not record.is_doubtful(now)]
    if not renewed:
        time.sleep(PATIENCE_BEATS * BEAT_SECONDS)
        renewed = [record for record in records(storage, prefix) if record not in found]
    if renewed:
        raise LockedError(str(renewed[-1].holder))


def _claim(storage: Storage, prefix: str, number: int) -> Lease:
    me = Holder.this_process()
    lease = Lease(storage=storage, prefix=prefix, key=f"{prefix}/{number:06d}-{me.token}.json", number=number)
    _put(lease, asdict(me))
    return lease


def _put(lease: Lease, holder: dict[str, object]) -> None:
    # Always of the same length: clients ask for an object's size first and then read so many bytes.
    lease.storage.write(lease.key, json.dumps({**holder, RENEWED: f"{time.time():.6f}"}).encode())


def _beat(lease: Lease, stop: threading.Event, on_loss: Callable[[], None]) -> None:
    me: dict[str, object] | None = None
    while not stop.wait(BEAT_SECONDS):
        # A storage that is away for a while is no loss.
        with suppress(StudyError):
            if lease.is_lost():
                on_loss()
                return
            me = me or json.loads(lease.storage.read(lease.key) or b"null")
            if me is not None and not stop.is_set():
                _put(lease, me)


def _let_it_notice(before: Holder) -> None:
    """One that only seemed dead, because its storage was away, ends at its next beat; touch nothing until then."""
    if not before.is_gone:
        time.sleep(2 * BEAT_SECONDS)


def _die() -> None:
    print("another process took over what this one was doing, so this one ends", file=sys.stderr, flush=True)
    os._exit(EXIT_CODE_OF_LOSS)


def _record(key: str, content: bytes | None, modified: float | None) -> Record | None:
    """A claim as it was put; None when it was deleted meanwhile. An unreadable one holds until it is stale."""
    if content is None:
        return None
    try:
        data = json.loads(content)
        renewed = float(data.pop(RENEWED))
        holder = Holder(**data)
    except (ValueError, TypeError, KeyError, AttributeError):
        renewed = time.time() if modified is None else modified
        holder = Holder(host="an unknown host", machine="", pid=0, born=None, since=renewed, token="")
    return Record(key=key, number=_number(key), holder=holder, renewed=renewed if modified is None else modified)


def _number(key: str) -> int:
    """Of a record's key, 0 for anything else."""
    match = _NAME.fullmatch(key.rpartition("/")[2])
    return int(match[1]) if match else 0

"""A lock in object storage: a prefix under which each who wants it puts a record of its own; see `study.store.locks`.

A holder puts its record again at every beat, and deletes it in the end. Whoever finds nothing, or only records of
holders that are dead, puts the next number and then looks again. Of two who do so at once each put before it looked, so
at least one sees the other and withdraws; when both do, they try again after pauses of random length.

Guaranteed, where a listing shows all that was put before (S3, GCS, Azure, MinIO): never do two acquire a free lock.
What a holder that was taken over commits until it notices has a lower number than its successor's commits and is not
read. Nothing needs conditional puts, which not all clients offer.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from study.buckets.storage import Storage
from study.store.holders import Holder, Lock, LockClaim

LONGEST_PAUSE_SECONDS = 2.0
RENEWED = "renewed"
_NAME = re.compile(r"(\d{6,18})-([0-9a-f]{32})\.json")


@dataclass(frozen=True)
class Lease(Lock):
    """A lock in object storage.

    Args:
        storage: where it is.
        prefix: of its records' keys.
        at_least: the lowest number that is legal, asked again before the lock counts as acquired.
    """

    storage: Storage
    prefix: str
    at_least: Callable[[], int] = field(default=lambda: 1, compare=False)
    poll_seconds = 2.0

    def __str__(self) -> str:
        return f"{self.storage.url}/{self.prefix}"

    def claims(self) -> list[LockClaim]:
        """See `Lock`."""
        return claims_below(self.storage, self.prefix)

    def put(self, number: int, holder: Holder, known: Sequence[LockClaim]) -> LockClaim | None:
        """See `Lock`."""
        number = max(number, self.at_least())
        mine = LockClaim(key=f"{self.prefix}/{number:06d}-{holder.token}.json", number=number, holder=holder, stamp=0.0)
        self.renew(mine)
        rivals = set(filter(_number, self.storage.entries(self.prefix))) - {mine.key, *(one.key for one in known)}
        if rivals or self.at_least() > number:
            self.release(mine)
            time.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))
            return None
        for claim in known:
            self.release(claim)
        return mine

    def renew(self, claim: LockClaim) -> None:
        """Put the record anew."""
        if claim.holder is not None:
            # Always of the same length: clients ask for an object's size first and then read so many bytes.
            record = {**asdict(claim.holder), RENEWED: f"{time.time():.6f}"}
            self.storage.write(claim.key, json.dumps(record).encode())

    def release(self, claim: LockClaim) -> None:
        """Delete the record."""
        self.storage.delete(claim.key)

    def now(self) -> float:
        """See `Lock`."""
        return self.storage.clock()


def claims_below(storage: Storage, prefix: str) -> list[LockClaim]:
    """All claims to a lock, or to all locks below a prefix, the one that counts last; deleted ones are passed over."""
    found = []
    for key, put_at in storage.entries(prefix).items():
        content = storage.read(key) if _number(key) else None
        if content is not None:
            found.append(_claim(key, content, put_at))
    return sorted(found, key=lambda claim: (claim.number, claim.key))


def _claim(key: str, content: bytes, put_at: float | None) -> LockClaim:
    """A claim as it was put. One that cannot be read holds until it is stale."""
    try:
        data = json.loads(content)
        renewed = float(data.pop(RENEWED))
    except (ValueError, TypeError, KeyError, AttributeError):
        data, renewed = None, time.time()
    stamp = renewed if put_at is None else put_at
    return LockClaim(key=key, number=_number(key), holder=Holder.recorded(data, stamp), stamp=stamp)


def _number(key: str) -> int:
    """Of a record's key, 0 for anything else."""
    match = _NAME.fullmatch(key.rpartition("/")[2])
    return int(match[1]) if match else 0

"""A lock that works on any storage that machines share: who holds it is a record that everybody can read.

A lock is a place of numbered records, see `study.store.holders`. The highest number holds it, until it is released. A
holder renews its record while it works; one that cannot have survived (its process is gone from this very machine) or
that is not seen to renew it is taken over with the next number. Clocks are never compared to call somebody dead: what
looks old, or is dated in the future, is watched until it changes or does not. Nothing here relies on `flock`, which
network file systems may ignore, emulate or refuse.

Who was taken over may have been stopped and go on. So whoever holds a lock and appends to a file opens the file, then
asks `check_held`, then writes; and a successor of somebody who may live replaces the files by copies before it writes.
What the one before had opened is then no longer there, and what it opens later it does not write to.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from study.common.errors import LockedError, StudyError
from study.common.terminal import last_words
from study.store.holders import POLL_SECONDS, STALE_SECONDS, FolderLock, Holder, Lock, LockClaim

BEAT_SECONDS = 5.0
# After so many beats without a sign of life whoever waits for one is told, and whoever only looks is sure.
PATIENCE_BEATS = 2
MOST_TRIES = 6
EXIT_CODE_OF_LOSS = 7


class Sightings:
    """When records were seen to be renewed, by our own clock: what others' clocks say is never compared with it."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[float, float]] = {}

    def glance(self, record: Hashable, stamp: float) -> bool:
        """Note how a record looks; whether only watching it can tell if its holder lives.

        Args:
            record: any name of it.
            stamp: when it was renewed, seconds since the epoch by whatever clock.
        """
        before, now = self._seen.get(record), time.monotonic()
        if before is not None:
            if stamp != before[0]:
                self._seen[record] = stamp, now
            return False
        age = time.time() - stamp
        fresh = abs(age) <= STALE_SECONDS
        self._seen[record] = stamp, now - (max(age, 0) if fresh else 2 * STALE_SECONDS)
        return not fresh

    def is_alive(self, record: Hashable) -> bool:
        """Whether a record that was glanced at was renewed, as far as we could see, within the last minute."""
        return time.monotonic() - self._seen[record][1] <= STALE_SECONDS


_sightings = Sightings()


def holder(lock: Path) -> Holder | None:
    """Who holds a folder's lock and is, as far as can be known here, alive; None for a free, stale or absent lock."""
    look([lock])
    return _seen_holder(lock)


def look(locks: Iterable[Path]) -> None:
    """Look at many locks at once, of which some may have to be watched for a few seconds; `holder` then answers."""
    doubtful = [lock for lock in locks if _glance(lock)[1]]
    deadline = time.monotonic() + PATIENCE_BEATS * BEAT_SECONDS
    while doubtful and time.monotonic() < deadline:
        time.sleep(min(POLL_SECONDS, BEAT_SECONDS))
        doubtful = [lock for lock in doubtful if _seen_holder(lock) is None]


def _seen_holder(lock: Path) -> Holder | None:
    claim, _ = _glance(lock)
    return claim.holder if claim is not None and _sightings.is_alive((lock, claim.key)) else None


def _glance(lock: Path) -> tuple[LockClaim | None, bool]:
    """Whose the lock may be, and whether only watching it tells."""
    claim = next((one for one in FolderLock(lock).claims() if one.may_live), None)
    return claim, claim is not None and _sightings.glance((lock, claim.key), claim.stamp)


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A lock that this process holds.

    Attributes:
        lock: which one; claim: the record that says so; pid: of this process.
        before: whose lock it replaces, None when it was free.
    """

    lock: Lock
    claim: LockClaim
    before: Holder | None
    pid: int = field(default_factory=os.getpid)

    @property
    def number(self) -> int:
        """Higher than that of every earlier holder."""
        return self.claim.number

    @property
    def may_be_contested(self) -> bool:
        """Whether who had it before only seemed dead, and may come back."""
        return self.before is not None and not self.before.is_gone

    def is_lost(self) -> bool:
        """Whether somebody took it over."""
        claims = self.lock.claims()
        mine = next((one.holder for one in claims if one.key == self.claim.key), None)
        if mine is None or claims[-1].number > self.number:
            return True
        # One that is damaged is still nobody else's.
        return mine != self.claim.holder and mine.token != ""


_held: dict[Lock, tuple[Hold, Callable[[], None]]] = {}


def check_held(lock: Path) -> None:
    """End this process, or do what else it wanted done on a loss, if it held the lock and has lost it.

    Raises:
        LockedError: somebody else holds the lock.
    """
    hold, on_loss = _held.get(FolderLock(lock.absolute()), (None, None))
    if hold is not None and on_loss is not None and hold.pid == os.getpid() and hold.is_lost():
        on_loss()
        raise LockedError(str(holder(lock) or "another process"))


@contextmanager
def held(
    lock: Lock | Path,
    *,
    on_takeover: Callable[[str], None] = lambda _: None,
    on_loss: Callable[[], None] | None = None,
    waiting: Callable[[], object] = lambda: None,
) -> Iterator[Hold]:
    """Hold a lock.

    Args:
        lock: a folder, or any other place.
        on_takeover: told, in one line, whose stale lock this one replaces, and whose sign of life it waits for.
        on_loss: called, maybe from another thread, when this process was so long without renewing the lock that
            somebody took it over; without it the process says so and is ended, because two must not write the same
            records.
        waiting: called now and then while a sign of life is waited for; what it raises ends that.

    Raises:
        LockedError: another process holds it.
        OSError: a folder cannot be written; a storage raises errors of its own.
    """
    place = FolderLock(lock.absolute()) if isinstance(lock, Path) else lock
    hold = _acquire(place, on_takeover, waiting)
    lose, stop = on_loss or (lambda: _die(hold)), threading.Event()
    _held[place] = hold, lose
    beating = threading.Thread(target=_beat, args=(hold, stop, lose), daemon=True)
    beating.start()
    try:
        if hold.before:
            if hold.may_be_contested:
                # Its storage was away, say: it ends at its next beat. Write nothing until then.
                time.sleep(2 * BEAT_SECONDS)
            how = "has ended" if hold.before.is_gone else f"has shown no sign of life for {STALE_SECONDS:g} s"
            on_takeover(f"took over from {hold.before}, which {how}")
        yield hold
    finally:
        # A forked child that ends here holds nothing.
        if os.getpid() == hold.pid:
            _held.pop(place, None)
            stop.set()
            beating.join()
            # What stays, for want of room say, is stale as soon as this process has ended.
            with suppress(OSError, StudyError):
                place.release(hold.claim)


def _acquire(lock: Lock, tell: Callable[[str], None], waiting: Callable[[], object]) -> Hold:
    me = Holder.this_process()
    for _ in range(MOST_TRIES):
        known = _silent(lock, tell, waiting)
        mine = lock.put(known[-1].number + 1 if known else 1, me, known)
        if mine is not None:
            return Hold(lock=lock, claim=mine, before=known[-1].holder if known else None)
    raise LockedError("other processes, which all began to just now")


def _silent(lock: Lock, tell: Callable[[str], None], waiting: Callable[[], object]) -> list[LockClaim]:
    """The claims that may be replaced, when they have been silent for long enough.

    Nobody here can see whether a process elsewhere lives. A job that is put back into the queue begins elsewhere within
    seconds of the end of the one before, and must not be refused for the sake of a process that was killed.

    Raises:
        LockedError: a holder shows a sign of life.
    """
    claims = lock.claims()
    before = [claim for claim in claims if claim.may_live]
    if not before:
        return claims
    who, age = before[-1].holder, lock.now() - max(claim.stamp for claim in before)
    if who is not None and who.is_here and abs(age) <= STALE_SECONDS:
        raise LockedError(str(who))
    # What is dated in the future may be just as old as what looks new.
    silence = PATIENCE_BEATS * BEAT_SECONDS if age > STALE_SECONDS else STALE_SECONDS - max(age, 0)
    begun, told = time.monotonic(), False
    while True:
        claims = lock.claims()
        living, waited = [claim for claim in claims if claim.may_live], time.monotonic() - begun
        if living and living != before:
            raise LockedError(str(who))
        if not living or waited >= silence:
            return claims
        if waited > PATIENCE_BEATS * BEAT_SECONDS and not told:
            tell(f"waiting up to {STALE_SECONDS:g} s for a sign of life of {who}")
            told = True
        waiting()
        time.sleep(min(lock.poll_seconds, BEAT_SECONDS))


def _beat(hold: Hold, stop: threading.Event, on_loss: Callable[[], None]) -> None:
    while not stop.wait(BEAT_SECONDS):
        # A storage that is away for a while is no loss.
        with suppress(OSError, StudyError):
            if hold.is_lost():
                on_loss()
                return
            hold.lock.renew(hold.claim)


def _die(hold: Hold) -> None:
    who = next((claim.holder for claim in reversed(hold.lock.claims()) if claim.holder), "another process")
    last_words(
        f"error: {hold.lock} was taken over by {who}, because this process had given no sign of life for "
        f"{STALE_SECONDS:g} s; it ends here, and what it recorded before is kept"
    )
    os._exit(EXIT_CODE_OF_LOSS)

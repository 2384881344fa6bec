"""A lock that works on any shared file system: who holds it is a file that everybody can read.

A lock is a folder of numbered records. The highest number holds it, until it says that it was released. A holder
renews its record's time stamp while it works; one that cannot have survived (its process is gone from this very
machine) or that is not seen to renew it is taken over by creating the next number, which one process can do. Clocks
are never compared to call somebody dead: what looks old, or is dated in the future, is watched until it changes or
does not. Nothing here relies on `flock`, which network file systems may ignore, emulate or refuse.

Who was taken over may have been stopped and go on. So whoever holds a lock and appends to a file opens the file, then
asks `check_held`, then writes; and a successor of somebody who may live replaces the files by copies before it writes.
What the one before had opened is then no longer there, and what it opens later it does not write to.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import uuid4

from study.common import files
from study.common.errors import DiskFullError, LockedError
from study.common.terminal import last_words
from study.store.holders import STALE_SECONDS, Holder, Sightings, read_record

BEAT_SECONDS = 5.0
# After so many beats without a sign of life whoever waits for one is told, and whoever only looks is sure.
PATIENCE_BEATS = 2
POLL_SECONDS = 0.2
EXIT_CODE_OF_LOSS = 7


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A lock that this process holds.

    Attributes:
        record: the file that says so; token: unique to this hold; pid: of this process.
        before: whose lock it replaces, None when it was free.
    """

    record: Path
    token: str
    before: Holder | None
    pid: int = field(default_factory=os.getpid)

    @property
    def may_be_contested(self) -> bool:
        """Whether who had it before only seemed dead, and may come back."""
        return self.before is not None and not self.before.is_gone

    def is_lost(self) -> bool:
        """Whether somebody took it over."""
        if _highest(self.record.parent) > _number(self.record):
            return True
        found = read_record(self.record)
        # One that is damaged is still nobody else's.
        return found is None or found.token not in (self.token, "")


_held: dict[Path, tuple[Hold, Callable[[], None]]] = {}


def check_held(lock: Path) -> None:
    """End this process, or do what else it wanted done on a loss, if it held the lock and has lost it.

    Raises:
        LockedError: somebody else holds the lock.
    """
    hold, on_loss = _held.get(lock.absolute(), (None, None))
    if hold is not None and on_loss is not None and hold.pid == os.getpid() and hold.is_lost():
        on_loss()
        raise LockedError(str(holder(lock) or "another process"))


def holder(lock: Path) -> Holder | None:
    """Who holds the lock and is, as far as can be known here, alive; None for a free, stale or absent lock."""
    record = _claimed(lock)
    if record is None:
        return None
    look([lock])
    return read_record(record) if _sightings.is_alive(record) else None


def look(locks: Iterable[Path]) -> None:
    """Look at many locks at once, of which some may have to be watched for a few seconds; `holder` then answers."""
    doubtful = [record for record in map(_claimed, locks) if record and _glance(record)]
    deadline = time.monotonic() + PATIENCE_BEATS * BEAT_SECONDS
    while doubtful and time.monotonic() < deadline:
        time.sleep(min(POLL_SECONDS, BEAT_SECONDS))
        doubtful = [record for record in doubtful if not (_glance(record) or _sightings.is_alive(record))]


@contextmanager
def held(
    lock: Path, *, on_takeover: Callable[[str], None] = lambda _: None, on_loss: Callable[[], None] | None = None
) -> Iterator[Hold]:
    """Hold a lock.

    Args:
        lock: its folder, made if absent.
        on_takeover: told, in one line, whose stale lock this one replaces, and whose sign of life it waits for.
        on_loss: called, maybe from another thread, when this process was so long without renewing the lock that
            somebody took it over; without it the process says so and is ended, because two must not write the same
            records.

    Raises:
        LockedError: another process holds it.
        OSError: its folder cannot be written.
    """
    lock.mkdir(parents=True, exist_ok=True)
    hold = _acquire(lock, _silent(lock, on_takeover))
    lose, stop = on_loss or (lambda: _die(hold)), threading.Event()
    _held[lock.absolute()] = hold, lose
    beating = threading.Thread(target=_beat, args=(hold, stop, lose), daemon=True)
    beating.start()
    try:
        if hold.before:
            if hold.may_be_contested:
                # Its storage was away, say: it ends at its next beat. Write nothing until then.
                time.sleep(2 * BEAT_SECONDS)
            on_takeover(f"took over from {hold.before}, which {_how_it_ended(hold.before)}")
        yield hold
    finally:
        # A forked child that ends here holds nothing.
        if os.getpid() == hold.pid:
            _held.pop(lock.absolute(), None)
            stop.set()
            beating.join()
            _release(hold)


# ------------------------------------------------------------------------------------------------------ signs of life


_sightings = Sightings()


def _glance(record: Path) -> bool:
    return _sightings.glance(record, _stamp(record) / 1e9)


def _silent(lock: Path, tell: Callable[[str], None]) -> tuple[Path, int] | None:
    """The record that may be replaced, as it was when it had been silent for long enough; None when there is none.

    Nobody here can see whether a process elsewhere lives. A job that is put back into the queue begins elsewhere within
    seconds of the end of the one before, and must not be refused for the sake of a process that was killed.

    Raises:
        LockedError: its holder shows a sign of life.
    """
    record = _newest(lock)
    found = read_record(record) if record else None
    if record is None or found is None or found.is_gone:
        return (record, _stamp(record)) if record else None
    stamp, age = _stamp(record), _clock_of(lock) - _stamp(record) / 1e9
    if found.is_here and abs(age) <= STALE_SECONDS:
        raise LockedError(str(found))
    # What is dated in the future may be just as old as what looks new.
    silence = PATIENCE_BEATS * BEAT_SECONDS if age > STALE_SECONDS else STALE_SECONDS - max(age, 0)
    begun, told = time.monotonic(), False
    while (waited := time.monotonic() - begun) < silence:
        if _newest(lock) != record or _stamp(record) != stamp:
            if read_record(record) is None:
                return record, _stamp(record)
            raise LockedError(str(found))
        if waited > PATIENCE_BEATS * BEAT_SECONDS and not told:
            tell(f"waiting up to {STALE_SECONDS:g} s for a sign of life of {found}")
            told = True
        time.sleep(min(POLL_SECONDS, BEAT_SECONDS))
    return record, stamp


def _clock_of(lock: Path) -> float:
    """Now by the clock of the storage, which stamps the records, whatever this machine's says."""
    probe = lock / f".{uuid4().hex}.tmp"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------- taken and given back


def _acquire(lock: Path, replaced: tuple[Path, int] | None) -> Hold:
    """The lock, whose newest record has been found to be nobody's any more."""
    me, record = Holder.this_process(), _newest(lock)
    before = read_record(record) if record else None
    if record and (record, _stamp(record)) != replaced and before is not None:
        raise LockedError(str(before))
    number = _number(record) + 1 if record else 1
    mine = lock / f"{number:06d}.json"
    if not _create(mine, json.dumps(asdict(me))) or _highest(lock) != number:
        # Somebody else was faster; of two, the higher number holds.
        if _holds(mine, me.token):
            mine.unlink(missing_ok=True)
        newest = _newest(lock)
        raise LockedError(str((newest and read_record(newest)) or "another process, just now"))
    _forget_older(lock, number)
    return Hold(record=mine, token=me.token, before=before)


def _how_it_ended(before: Holder) -> str:
    return "has ended" if before.is_gone else f"has shown no sign of life for {STALE_SECONDS:g} s"


def _beat(hold: Hold, stop: threading.Event, on_loss: Callable[[], None]) -> None:
    while not stop.wait(BEAT_SECONDS):
        # A storage that is away for a while is no loss.
        with suppress(OSError):
            if hold.is_lost():
                on_loss()
                return
            os.utime(hold.record)


def _die(hold: Hold) -> None:
    lock = hold.record.parent
    newest = _newest(lock)
    who = (newest and read_record(newest)) or "another process"
    last_words(
        f"error: {lock.parent} was taken over by {who}, because this process had given no sign of life for "
        f"{STALE_SECONDS:g} s; it ends here, and what it recorded before is kept"
    )
    os._exit(EXIT_CODE_OF_LOSS)


def _release(hold: Hold) -> None:
    # Without room on the disk the record stays, and is stale as soon as this process has ended.
    with suppress(OSError, DiskFullError):
        if _holds(hold.record, hold.token):
            files.write_json(hold.record, {"released": True})


def _create(record: Path, text: str) -> bool:
    """Create the record whole, unless it exists: written aside, then linked, which is atomic on network storage too."""
    aside = record.with_name(f".{uuid4().hex}.tmp")
    try:
        aside.write_text(text, encoding="utf-8")
        return _link(aside, record, text)
    finally:
        aside.unlink(missing_ok=True)


def _link(aside: Path, record: Path, text: str) -> bool:
    try:
        os.link(aside, record)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        return _create_exclusively(record, text)
    return True


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


def _forget_older(lock: Path, number: int) -> None:
    now = _stamp(lock / f"{number:06d}.json")
    old = [path for path in _records(lock) if _number(path) < number]
    for path in (*old, *(path for path in lock.glob(".*.tmp") if now - _stamp(path) > STALE_SECONDS * 1e9)):
        # A folder of that name, say, may stay: the highest number counts.
        with suppress(OSError):
            path.unlink()


# ------------------------------------------------------------------------------------------------------------- records


def _holds(record: Path, token: str) -> bool:
    found = read_record(record)
    return found is not None and found.token == token


def _claimed(lock: Path) -> Path | None:
    """The newest record if somebody holds it who may live."""
    record = _newest(lock)
    found = read_record(record) if record else None
    return None if found is None or found.is_gone else record


def _stamp(record: Path) -> int:
    """When it was last renewed, in nanoseconds by the clock that stamped it; 0 when it is not there."""
    with suppress(OSError):
        return record.lstat().st_mtime_ns
    return 0


def _newest(lock: Path) -> Path | None:
    return max(_records(lock), key=_number, default=None)


def _highest(lock: Path) -> int:
    return max(map(_number, _records(lock)), default=0)


def _records(lock: Path) -> list[Path]:
    try:
        return [path for path in lock.iterdir() if _number(path)]
    except OSError:
        return []


def _number(record: Path) -> int:
    """Of a record, 0 for anything else."""
    digits = record.stem
    return int(digits) if record.suffix == ".json" and digits.isascii() and digits.isdigit() and len(digits) < 19 else 0

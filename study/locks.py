"""A lock that works on any shared file system: who holds it is a file that everybody can read.

A lock is a folder of numbered records. The highest number holds it, until it says that it was released. A holder
renews its record's time stamp while it works; one that cannot have survived (its process is gone from this very
machine) or has not renewed for `STALE_SECONDS` is taken over by creating the next number, which one process can do.
Nothing here relies on `flock`, which network file systems may ignore, emulate or refuse.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from study import files
from study.errors import DiskFullError, LockedError

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
# After so many beats without a sign of life whoever waits for one is told.
PATIENCE_BEATS = 2
POLL_SECONDS = 0.2
RELEASED = "released"
EXIT_CODE_OF_LOSS = 7


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock.

    Attributes:
        host: name of the machine; machine: its boot and process namespace, within which a pid means something.
        pid: of the process; born: when it started, in the machine's own clock ticks, because pids are used again.
        since: seconds since the epoch; token: unique to this hold.
    """

    host: str
    machine: str
    pid: int
    born: int | None
    since: float
    token: str

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

    @property
    def is_gone(self) -> bool:
        """Whether the process certainly ended: only knowable on its own machine."""
        return self.machine == this_machine() and _born(self.pid) != self.born


def this_machine() -> str:
    """What tells this boot of this machine, and this namespace of pids, from all others."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def holder(lock: Path) -> Holder | None:
    """Who holds the lock and is, as far as can be known here, alive; None for a free, stale or absent lock."""
    number = _highest(lock)
    found = _read(_record(lock, number)) if number else None
    return found if found and not _is_stale(_record(lock, number), found, time.time()) else None


@contextmanager
def held(
    lock: Path, *, on_takeover: Callable[[str], None] = lambda _: None, on_loss: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold a lock.

    Args:
        lock: its folder, made if absent.
        on_takeover: told, in one line, whose stale lock this one replaces, and whose sign of life it waits for.
        on_loss: called from another thread when this process was so long without renewing the lock that somebody took
            it over; without it the process is killed, because two must not write the same records.

    Raises:
        LockedError: another process holds it.
        OSError: its folder cannot be written.
    """
    lock.mkdir(parents=True, exist_ok=True)
    _wait_for_a_sign(lock, on_takeover)
    record, token, before = _acquire(lock)
    owner, stop = os.getpid(), threading.Event()
    beating = threading.Thread(target=_beat, args=(record, token, stop, on_loss or _die), daemon=True)
    beating.start()
    try:
        if before:
            _let_it_notice(before)
            on_takeover(f"took over from {before}, which {_how_it_ended(before)}")
        yield
    finally:
        # A forked child that ends here holds nothing.
        if os.getpid() == owner:
            stop.set()
            beating.join()
            _release(record, token)


def _wait_for_a_sign(lock: Path, tell: Callable[[str], None]) -> None:
    """Wait until a holder elsewhere renews, releases, or becomes stale.

    Nobody here can see whether it lives. A job that is put back into the queue begins elsewhere within seconds of the
    end of the one before, and must not be refused for the sake of a process that was killed.
    """
    found = holder(lock)
    if found is None or found.machine == this_machine():
        return
    record = _record(lock, _highest(lock))
    before = _mtime(record)
    deadline = time.monotonic() + PATIENCE_BEATS * BEAT_SECONDS
    while holder(lock) == found and _mtime(record) == before:
        if deadline and time.monotonic() > deadline:
            tell(f"waiting up to {STALE_SECONDS:g} s for a sign of life of {found}")
            deadline = 0.0
        time.sleep(POLL_SECONDS)


def _acquire(lock: Path) -> tuple[Path, str, Holder | None]:
    """The new record, its token, and whose stale one it replaces."""
    me = Holder.this_process()
    number = _highest(lock)
    before = _read(_record(lock, number)) if number else None
    if before and not _is_stale(_record(lock, number), before, _clock_of(lock)):
        raise LockedError(str(before))
    record = _record(lock, number + 1)
    if not _create(record, json.dumps(asdict(me))) or _highest(lock) != number + 1:
        # Somebody else was faster; of two, the higher number holds.
        with suppress(FileNotFoundError):
            if _holds(record, me.token):
                record.unlink()
        winner = _read(_record(lock, _highest(lock)))
        raise LockedError(str(winner or "another process, just now"))
    _forget_older(lock, number + 1)
    return record, me.token, before


def _let_it_notice(before: Holder) -> None:
    """One that only seemed dead, because its storage was away, ends at its next beat; write nothing until then."""
    if not before.is_gone:
        time.sleep(2 * BEAT_SECONDS)


def _how_it_ended(before: Holder) -> str:
    return "has ended" if before.is_gone else f"has shown no sign of life for {STALE_SECONDS:g} s"


def _beat(record: Path, token: str, stop: threading.Event, on_loss: Callable[[], None]) -> None:
    while not stop.wait(BEAT_SECONDS):
        try:
            lost = _is_lost(record, token)
            if not lost:
                os.utime(record)
        except FileNotFoundError:
            lost = True
        except OSError:
            # A storage that is away for a while is no loss.
            continue
        if lost:
            on_loss()
            return


def _is_lost(record: Path, token: str) -> bool:
    if _highest(record.parent) > int(record.stem):
        return True
    try:
        data = files.read_json(record)
    except ValueError:
        # Damaged, and still nobody else's.
        return False
    return isinstance(data, dict) and data.get("token") != token


def _die() -> None:
    os._exit(EXIT_CODE_OF_LOSS)


def _release(record: Path, token: str) -> None:
    # Without room on the disk the record stays, and is stale as soon as this process has ended.
    with suppress(OSError, DiskFullError):
        if _holds(record, token):
            files.write_json(record, {RELEASED: True})


def _create(record: Path, text: str) -> bool:
    """Create the record whole, unless it exists: written aside, then linked, which is atomic on network storage too."""
    aside = record.with_name(f".{uuid4().hex}.tmp")
    try:
        aside.write_text(text)
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
        with record.open("x") as handle:
            handle.write(text)
    except FileExistsError:
        return False
    except OSError:
        # Half a record would hold the lock for nobody.
        record.unlink(missing_ok=True)
        raise
    return True


def _is_stale(record: Path, found: Holder, now: float) -> bool:
    if found.is_gone:
        return True
    with suppress(OSError):
        return now - record.stat().st_mtime > STALE_SECONDS
    return True


def _clock_of(lock: Path) -> float:
    """Now by the clock of the storage, which stamps the records, whatever this machine's says."""
    probe = lock / f".{uuid4().hex}.tmp"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _read(record: Path) -> Holder | None:
    """Whose record it is; None when it was released. An unreadable one holds until it is stale."""
    try:
        data = files.read_json(record)
        return None if RELEASED in data else Holder(**data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        return Holder(host="an unknown host", machine="", pid=0, born=None, since=_mtime(record), token="")


def _holds(record: Path, token: str) -> bool:
    found = _read(record)
    return found is not None and found.token == token


def _mtime(record: Path) -> float:
    with suppress(OSError):
        return record.stat().st_mtime
    return 0.0


def _highest(lock: Path) -> int:
    try:
        return max((int(path.stem) for path in _records(lock)), default=0)
    except OSError:
        return 0


def _record(lock: Path, number: int) -> Path:
    return lock / f"{number:06d}.json"


def _forget_older(lock: Path, number: int) -> None:
    for path in _records(lock):
        if int(path.stem) < number:
            path.unlink(missing_ok=True)
    now = _mtime(_record(lock, number))
    for path in lock.glob(".*.tmp"):
        if now - _mtime(path) > STALE_SECONDS:
            path.unlink(missing_ok=True)


def _records(lock: Path) -> list[Path]:
    return [path for path in lock.iterdir() if path.suffix == ".json" and path.stem.isdigit()]


def _born(pid: int) -> int | None:
    """When a process of this machine started, in clock ticks since boot; None when there is none."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # A zombie has ended; it only waits for its parent.
        return None if fields[0] == "Z" else int(fields[19])
    return None

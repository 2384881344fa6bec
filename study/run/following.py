"""A study's trackers while it runs: beside the driver a process for each of them sends what has changed in the ledger.

Whatever a tracker's library or server does, it does there: nothing waits for it but that process, and at the end of the
run the driver, for half a minute. A process whose driver is gone ends at once, in the midst of a sending if need be:
what was sent is told by the tracker or by a file beside it, so the next run goes on from there.

`python -m study.run.following PIPE` is such a process. It is told what to send where, says `None` or what is wrong
after every look at the ledger, and looks for a last time when it is told to end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from study.common.errors import MachineError, StudyError
from study.common.files import name_of
from study.common.trackers import TROUBLES, shown, trouble_words, troubles
from study.run.trackers import PASS_SECONDS, Teller
from study.run.trial_host import own_environment
from study.store.ledger import Ledger

# What a tracker is given for the last look of a run, and of one that is stopped.
GRACE_SECONDS, INTERRUPTED_SECONDS = 30.0, 5.0
# Of a process that should have looked by now, however long its library takes to be imported.
_SILENT_SECONDS = 180.0


@contextmanager
def following(trackers: Mapping[str, str], ledger: Ledger, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Tell trackers of a study while it runs; gives what the driver calls about once a second.

    Args:
        trackers: tracker -> target, checked.
        ledger: of the study, held by the caller.
        say: told in one line when something goes wrong with a tracker, and when it goes right again.
    """
    followers = [_Follower(tracker, target, ledger.root.resolve()) for tracker, target in trackers.items()]
    noted = dict[str, str]()
    if troubles(ledger.header()):
        _note(ledger, noted)

    def look() -> None:
        nonlocal noted
        found = {each.tracker: trouble for each in followers if (trouble := each.trouble) is not None}
        # That, not how, it goes wrong: errors name addresses in memory.
        changed = sorted(found.keys() ^ noted.keys())
        for tracker in changed:
            say(trouble_words(tracker, found[tracker]) if tracker in found else f"{tracker} is told again")
        if changed:
            noted = found
            _note(ledger, found)

    patience = INTERRUPTED_SECONDS
    try:
        yield look
        patience = GRACE_SECONDS
    finally:
        _end(followers, patience)
        look()


def _note(ledger: Ledger, found: Mapping[str, str]) -> None:
    with suppress(StudyError, OSError):  # a full disk, a storage that is away
        ledger.amend(**{TROUBLES: dict(found)})


def _end(followers: Sequence[_Follower], seconds: float) -> None:
    """Wait so long for their last look."""
    deadline = time.monotonic() + seconds
    try:
        for follower in followers:
            follower.end()
        while any(follower.is_alive for follower in followers) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        for follower in followers:
            follower.kill()


class _Follower:
    """The process of one tracker, as the driver sees it."""

    def __init__(self, tracker: str, target: str, root: Path) -> None:
        self.tracker = tracker
        self._pipe, theirs = Pipe()
        self._due = time.monotonic() + _SILENT_SECONDS
        self._said: str | None = None
        self._is_ending = False
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "study.run.following", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={"OMP_NUM_THREADS": "1", **own_environment()},
                start_new_session=True,
            )
        # Not among its words, which everybody on the machine can read: a target may hold a password.
        self._send((tracker, target, root))

    @property
    def trouble(self) -> str | None:
        """What is wrong by what it said last, or did not say, in a line."""
        with suppress(EOFError, OSError):
            while self._pipe.poll():
                self._said = self._pipe.recv()
                self._due = time.monotonic() + PASS_SECONDS[self.tracker] + _SILENT_SECONDS
        if self._process.poll() == -signal.SIGKILL and self._is_ending:
            return "it has not taken everything in time"
        if self._process.poll():
            return f"its process ended with code {self._process.returncode}"
        if time.monotonic() > self._due:
            return "it does not answer"
        return self._said

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._is_ending = True
        self._send("end")

    def _send(self, words: object) -> None:
        with suppress(OSError):  # it has ended
            self._pipe.send(words)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Follow the study that the pipe names until it says so."""
    pipe = Connection(int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):
        # The driver says when to end; a batch system tells every process.
        signal.signal(number, signal.SIG_IGN)
    os.nice(10)
    tracker, target, root = pipe.recv()
    ended = threading.Event()
    threading.Thread(target=_until_told, args=(pipe, ended), daemon=True).start()
    teller, is_last = None, False
    while not is_last:
        is_last, trouble = ended.is_set(), None
        try:
            teller = teller or Teller(tracker, target, name_of(root))
            teller.tell(Ledger(root))
        except MachineError as error:
            trouble = str(error)
        except Exception as error:  # of an import, or of a ledger that is being changed
            trouble = f"{type(error).__name__}: {shown(' '.join(str(error).split()))}"
        pipe.send(trouble)
        ended.wait(PASS_SECONDS[tracker])
    os._exit(0)


def _until_told(pipe: Connection, ended: threading.Event) -> None:
    try:
        pipe.recv()
        ended.set()
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main()

"""Commits a trial's scratch copy while it is trained, from a thread beside whoever waits for the training.

At most every `PUSH_SECONDS`, when something has changed: after an epoch and after a checkpoint, therefore, or soon
after. Another thread asks now and then whether the study is being stopped. A storage that is away is asked again; when
it stays away for `PATIENCE_SECONDS` the training is stopped with its checkpoint written, and the attempt fails saying
where that is.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from study.errors import StudyError
from study.files import read_json, write_json
from study.remote.depot import Committer, Depot
from study.remote.retries import tried
from study.remote.snapshot import Stamp, snapshot, stamps
from study.remote.storage import StorageError
from study.trial_folder import TrialFolder

PUSH_SECONDS = 3.0
STOP_POLL_SECONDS = 3.0
PATIENCE_SECONDS = 600.0
# Names the commit that a scratch copy went on from.
BASIS = ".commit.json"


class Pusher:
    """A context in which a trial's scratch copy is committed; the last time on leaving it.

    Args:
        depot: where to.
        number: of the trial's lock, which the caller holds.
        folder: the scratch copy.
        stop_file: made to stop the training.
        stop_key: key of the object that says so, None for none.
    """

    def __init__(self, depot: Depot, number: int, folder: TrialFolder, stop_file: Path, stop_key: str | None) -> None:
        self._depot, self._folder = depot, folder
        self._committer = Committer(depot, number)
        self._stop_file, self._stop_key = stop_file, stop_key
        self._committed: dict[str, Stamp] = {}
        self._log_size = 0
        self._end = threading.Event()
        # Two, because a checkpoint may take minutes to put.
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._keep_pushing, self._keep_asking)]

    def __enter__(self) -> Pusher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        try:
            tried(self._push, lambda trouble, pause: self._say(f"{trouble}; trying again in {pause:g} s"))
        except StorageError as trouble:
            raise StorageError(f"{trouble}; nothing is lost: {self._folder.path} on {socket.gethostname()}") from error

    def _keep_pushing(self) -> None:
        succeeded = time.monotonic()
        while not self._end.wait(PUSH_SECONDS):
            try:
                self._push()
                succeeded = time.monotonic()
            except StorageError as trouble:
                self._say(f"{trouble}; trying again in {PUSH_SECONDS:g} s")
                self._give_up_after(time.monotonic() - succeeded)
            except (StudyError, OSError) as trouble:
                self._say(str(trouble))

    def _keep_asking(self) -> None:
        while self._stop_key is not None and not self._end.wait(STOP_POLL_SECONDS):
            # A storage that is away cannot say so.
            with suppress(StudyError, OSError):
                if self._depot.storage.read(self._stop_key) is not None:
                    self._stop_file.touch()

    def _push(self) -> None:
        if stamps(self._folder.path) != self._committed:
            with snapshot(self._folder.path) as found:
                if found is None:
                    raise StorageError(f"{self._folder.path} changes faster than it can be read")
                commit = self._committer.commit(found)
                set_basis(self._folder, str(commit.name))
                self._committed = dict(found.stamps)
        self._push_log()

    def _push_log(self) -> None:
        with suppress(FileNotFoundError):
            content = self._folder.log_path.read_bytes()
            if len(content) != self._log_size:
                self._depot.storage.write(self._depot.log, content)
                self._log_size = len(content)

    def _give_up_after(self, seconds: float) -> None:
        if seconds > PATIENCE_SECONDS:
            self._say(f"the storage was away for {seconds / 60:.0f} minutes, so the training is stopped")
            with suppress(OSError):
                self._stop_file.touch()

    def _say(self, text: str) -> None:
        with suppress(OSError), self._folder.log_path.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def basis_of(folder: TrialFolder) -> str | None:
    """Which commit a scratch copy went on from; None when it was never committed."""
    try:
        basis = read_json(folder.path / BASIS)
    except (OSError, ValueError):
        return None
    return basis if isinstance(basis, str) else None


def set_basis(folder: TrialFolder, commit: str) -> None:
    """Note which commit a scratch copy went on from."""
    write_json(folder.path / BASIS, commit)

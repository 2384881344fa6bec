"""Where a trial of a study in object storage is trained: a scratch copy that is committed while the training goes on.

Whoever trains a trial checks it out: takes its lock in the storage, fetches its newest commit unless the scratch copy
went on from that very one, and commits the copy again and again from a thread, at the latest when the trial is handed
back. A scratch copy that went another way, because its node lost the trial to another one, is thrown away.

The training itself is another process that knows nothing of this; it writes to the scratch copy as durably as to any
study folder. Its machine may be lost at any moment: the storage then holds the last commit, a few seconds old.

A copy is committed at most every `PUSH_SECONDS`, when something has changed: soon after an epoch and a checkpoint.
Another thread asks now and then whether the study is being stopped. A storage that is away is asked again; when it
stays away for `PATIENCE_SECONDS` the training is stopped with its checkpoint written, and the attempt fails saying
where that is.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from study.buckets.archive import Archive, Committer, Stamp, snapshot, stamps, unpack
from study.buckets.lease import Lease
from study.buckets.shared_ledger import stop_key, study_ledger
from study.buckets.storage import Storage, StorageError, tried, url_of
from study.buckets.view import scratch
from study.common.errors import LedgerError, LockedError, StudyError, TrialBusyError, TrialInterrupted
from study.common.files import read_json, write_json
from study.store import locks
from study.store.locks import Hold
from study.store.results import NO_METRICS, Metrics
from study.store.trial_folder import TrialFolder

PUSH_SECONDS = 3.0
STOP_POLL_SECONDS = 3.0
PATIENCE_SECONDS = 600.0
# Names the commit that a scratch copy went on from.
BASIS = ".commit.json"


class Pusher:
    """A context in which a trial's scratch copy is committed; the last time on leaving it.

    Args:
        committer: under the trial's lock, which the caller holds.
        folder: the scratch copy.
        stop_file: made to stop the training.
        stop_key: key of the object that says so, None for none.
    """

    def __init__(self, committer: Committer, folder: TrialFolder, stop_file: Path, stop_key: str | None) -> None:
        self._committer, self._archive, self._folder = committer, committer.archive, folder
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
                if (seconds := time.monotonic() - succeeded) > PATIENCE_SECONDS:
                    self._say(f"the storage was away for {seconds / 60:.0f} minutes, so the training is stopped")
                    with suppress(OSError):
                        self._stop_file.touch()
            except (StudyError, OSError) as trouble:
                self._say(str(trouble))

    def _keep_asking(self) -> None:
        while self._stop_key is not None and not self._end.wait(STOP_POLL_SECONDS):
            # A storage that is away cannot say so.
            with suppress(StudyError, OSError):
                if self._archive.storage.read(self._stop_key) is not None:
                    self._stop_file.touch()

    def _push(self) -> None:
        if stamps(self._folder.path) != self._committed:
            with snapshot(self._folder.path) as found:
                if found is None:
                    raise StorageError(f"{self._folder.path} changes faster than it can be read")
                commit = self._committer.commit(found)
                write_json(self._folder.path / BASIS, str(commit.name))
                self._committed = dict(found.stamps)
        self._push_log()

    def _push_log(self) -> None:
        with suppress(FileNotFoundError):
            content = self._folder.log_path.read_bytes()
            if len(content) != self._log_size:
                self._archive.storage.write(self._archive.log, content)
                self._log_size = len(content)

    def _say(self, text: str) -> None:
        with suppress(OSError), self._folder.log_path.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


WAIT_SECONDS = 3.0
FETCH_TRIES = 5
KEPT = ("spec.json", "by_hand", "locks")


class Checkout:
    """A study folder as it is, on storage that all nodes share.

    Args:
        study: its path.
        stop_file: its appearance stops the trainings.
    """

    def __init__(self, study: Path, stop_file: Path) -> None:
        self.study, self._stop_file = study, stop_file

    @contextmanager
    def checked_out(self, folder: TrialFolder, metrics: Metrics = NO_METRICS) -> Iterator[Path]:
        """Have a trial at hand, to train it or to measure what it lacks of these metrics.

        Gives the file whose appearance stops the training.
        """
        yield self._stop_file

    def named(self, text: str, folder: TrialFolder) -> str:
        """A text about a trial, with names that stay valid."""
        return text


class RemoteCheckout(Checkout):
    """This machine's scratch copy of a study in object storage.

    Args:
        url: of the study.
        stop: name of the object whose appearance stops the trainings, None if nobody puts one.
        waits: whether to wait for a trial that another process has, or to refuse.
    """

    def __init__(self, url: str, stop: str | None = None, *, waits: bool = True) -> None:
        self._storage, self._stop, self._waits = Storage(url), stop, waits
        commit = tried(Archive(storage=self._storage).latest)
        if commit is None:
            raise LedgerError(f"no study at {url}")
        # Another one for a study that is later put in the same place.
        identity = url.encode() + commit.documents["study.json"].content.split(b'"space"')[0]
        root = scratch() / f"pgps-{hashlib.sha256(identity).hexdigest()[:16]}"
        super().__init__(root, root / f".stop-{uuid4().hex}")
        unpack(commit, root, durable=True)

    @contextmanager
    def checked_out(self, folder: TrialFolder, metrics: Metrics = NO_METRICS) -> Iterator[Path]:
        """See `Checkout.checked_out`; what was done is committed before this ends.

        Raises:
            TrialInterrupted: the study is being stopped while another process still has the trial.
            TrialBusyError: another process has the trial, and this one does not wait.
            StorageError: the storage cannot be read, or the last commit not be put; the scratch copy has everything.
        """
        archive = Archive(storage=self._storage, name=folder.trial_id)
        stop_file = self.study / f"{self._stop_file.name}-{folder.trial_id}"
        with ExitStack() as stack:
            if not self._is_done(archive, folder, metrics):
                lease = self._taken(archive, folder, stack)
                self._bring(archive, folder)
                stack.callback(stop_file.unlink, missing_ok=True)
                stack.enter_context(Pusher(Committer(archive, lease.number), folder, stop_file, self._stop_key))
            yield stop_file
        if folder.result() is not None:
            _make_room(folder)

    def named(self, text: str, folder: TrialFolder) -> str:
        """The text with the storage's names; see `Archive.named`."""
        archive = Archive(storage=self._storage, name=folder.trial_id)
        return archive.named(text, folder.path, archive.next_number() - 1)

    @property
    def _stop_key(self) -> str | None:
        return None if self._stop is None else stop_key(self._stop)

    def _is_done(self, archive: Archive, folder: TrialFolder, metrics: Metrics) -> bool:
        """Whether there is nothing to train and nothing to measure; its records are then at hand, its models not."""
        commit = tried(archive.latest)
        if commit is None or not commit.is_finished:
            return False
        _make_room(folder)
        unpack(commit, folder.path, durable=True)
        return not metrics.lacking_in(folder.result())

    def _taken(self, archive: Archive, folder: TrialFolder, stack: ExitStack) -> Hold:
        """The trial's lock, and nobody left who trains in this machine's scratch copy of it."""
        lock = Lease(self._storage, archive.locks, archive.next_number)
        while True:
            busy: object = locks.holder(folder.locks_path)
            if busy is None:
                try:
                    held = locks.held(lock, on_takeover=folder.note, waiting=self._check_stop)
                    return stack.enter_context(held)
                except LockedError as error:
                    busy = error
            if not self._waits:
                raise TrialBusyError(
                    f"trial {folder.trial_id} is being trained by {busy}; wait for it or stop it first"
                )
            self._check_stop()
            time.sleep(WAIT_SECONDS)

    def _check_stop(self) -> None:
        if self._stop_key is not None and tried(lambda: self._storage.read(self._stop_key or "")) is not None:
            raise TrialInterrupted("the study is being stopped")

    def _bring(self, archive: Archive, folder: TrialFolder) -> None:
        """Make the scratch copy the newest commit, unless it went on from that; only who holds the lock does."""
        basis = None
        with suppress(OSError, ValueError):
            basis = read_json(folder.path / BASIS)
        for _ in range(FETCH_TRIES):
            commit = tried(archive.latest)
            if (None if commit is None else str(commit.name)) == basis:
                return
            _empty(folder)
            basis = None
            if commit is None:
                return
            unpack(commit, folder.path, durable=True)
            log = self._storage.read(archive.log)
            if log is not None:
                folder.log_path.write_bytes(log)
            if tried(partial(archive.fetch, commit, folder.path)):
                write_json(folder.path / BASIS, str(commit.name))
                return
        raise StorageError(f"{self._storage.url}: models of trial {folder.trial_id} that its records name are missing")


def checkout_of_one(where: Path | str) -> Checkout:
    """Where a trial without a search is trained, its study made if absent; a trial that is being trained is refused.

    Args:
        where: folder or URL of the study.

    Raises:
        LedgerError: something else is there.
        StorageError: the storage cannot be written.
    """
    url = url_of(where)
    with study_ledger(where) as ledger:
        return Checkout(ledger.root, ledger.root / ".stop") if url is None else RemoteCheckout(url, waits=False)


def open_checkout(url: str | None, study: str, stop_file: str) -> Checkout:
    """Where this machine trains: the study folder itself, or a scratch copy of what is in object storage.

    Args:
        url: of the study in object storage, if it is there.
        study: its path on the driver's machine.
        stop_file: likewise.
    """
    if url is None:
        return Checkout(Path(study), Path(stop_file))
    return RemoteCheckout(url, Path(stop_file).name)


def _empty(folder: TrialFolder) -> None:
    """Leave what the ledger needs to know that there is a trial."""
    (folder.path / BASIS).unlink(missing_ok=True)
    for path in folder.path.iterdir():
        if path.name in KEPT:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _make_room(folder: TrialFolder) -> None:
    """Delete the models of a finished trial, which are in the storage."""
    (folder.path / BASIS).unlink(missing_ok=True)
    shutil.rmtree(folder.results_path, ignore_errors=True)

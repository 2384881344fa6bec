"""The ledger of whoever runs a study in object storage: a view of it, and commits of what only the driver writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.buckets.archive import Archive, Committer, snapshot
from study.buckets.lease import Lease
from study.buckets.storage import Storage, StorageError, tried, url_of
from study.buckets.view import REFRESH_SECONDS, View, url_named, viewed
from study.common.errors import LedgerError, LockedError, StudyError
from study.store.ledger import Ledger
from study.store.locks import held
from study.store.records import Confirmation

STOP = "stop"


@dataclass(frozen=True)
class RemoteLedger(Ledger):
    """A ledger whose folder shows what is in object storage. What it adds is in the storage when the call returns.

    Args:
        root: the view's folder.
        view: of the storage.
    """

    view: View
    _committers: list[Committer] = field(default_factory=list, compare=False)

    @property
    def url(self) -> str:
        """See `Ledger.url`."""
        return self.view.storage.url

    @contextmanager
    def locked(self, on_takeover: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Hold the study's lock in the storage; see `Ledger.locked`."""
        with _study_lock(self.view.storage, on_takeover) as committer:
            self.view.refresh()
            self._committers.append(committer)
            self.view.is_author = True
            try:
                yield
            finally:
                self.view.is_author = False
                self._committers.clear()
                self._withdraw_stops()

    def amend(self, **fields: Any) -> None:
        """Add fields to study.json; see `Ledger.amend`."""
        super().amend(**fields)
        self._commit()

    def conclude(self, confirmation: Confirmation) -> None:
        """See `Ledger.conclude`."""
        super().conclude(confirmation)
        self._commit()

    def _append_point(self, record: Mapping[str, Any]) -> None:
        """No worker hears of a point that is not in the storage."""
        super()._append_point(record)
        self._commit()

    def refresh(self, *, at_once: bool = False) -> None:
        """See `Ledger.refresh`; a storage that is away is no error here."""
        with suppress(StorageError):
            self.view.refresh(at_most_every=0 if at_once else REFRESH_SECONDS)

    def named(self, text: str, trial_id: str) -> str:
        """See `View.named`."""
        return self.view.named(text, trial_id)

    def post_stop(self, stop_file: Path) -> None:
        """See `Ledger.post_stop`."""
        with suppress(StorageError):  # the trainings then notice that their worker is gone
            self.view.storage.write(stop_key(stop_file.name), b"stop")

    def _withdraw_stops(self) -> None:
        with suppress(StorageError):  # nobody asks for an old one
            for key in self.view.storage.entries(STOP):
                self.view.storage.delete(key)

    def _commit(self) -> None:
        if not self._committers:
            raise LedgerError(f"{self.url} is changed by who holds its lock alone")
        _commit(self._committers[0], self.root)


@contextmanager
def study_ledger(where: Path | str, *, space: Mapping[str, Any] | None = None) -> Iterator[Ledger]:
    """The ledger of a study that is to be run or added to, made if absent.

    Args:
        where: folder or URL.
        space: see `Ledger.create`.

    Raises:
        LedgerError: another study is there.
        StorageError: the storage cannot be written.
    """
    url = url_of(where)
    if url is None:
        yield Ledger.create(Path(where), space=space)
        return
    storage = Storage(url)
    storage.check_writable()
    with viewed(url) as view:
        if not (view.root / "study.json").exists():
            _make(view, space)
        with url_named(view):
            Ledger.create(view.root, space=space)
            yield RemoteLedger(view.root, view)


def trouble_here(url: str) -> str | None:
    """Why this machine cannot work on a study that another one has put in object storage; None when it can."""
    try:
        storage = Storage(url)
        storage.check_writable()
        if Archive(storage=storage).latest() is None:
            return f"{url} is another storage there: the study is not in it"
    except StudyError as error:
        return str(error)
    return None


def stop_key(name: str) -> str:
    """Key of the object that stops a run."""
    return f"{STOP}/{name}"


def _make(view: View, space: Mapping[str, Any] | None) -> None:
    with _study_lock(view.storage, lambda _: None) as committer:
        view.refresh()
        if not (view.root / "study.json").exists():
            Ledger.create(view.root, space=space)
            _commit(committer, view.root)


@contextmanager
def _study_lock(storage: Storage, on_takeover: Callable[[str], None]) -> Iterator[Committer]:
    archive = Archive(storage=storage)
    try:
        with held(Lease(storage, archive.locks, archive.next_number), on_takeover=on_takeover) as hold:
            yield Committer(archive, hold.number)
    except LockedError as error:
        raise LedgerError(
            f"{storage.url} is being run by {error}; stop that one first, or name another study"
        ) from error


def _commit(committer: Committer, root: Path) -> None:
    with snapshot(root) as found:
        if found is None:
            raise LedgerError(f"{root} is being changed by another process")
        tried(lambda: committer.commit(found))

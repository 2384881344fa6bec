"""A study in object storage as a folder: its records, without models, as far as they have changed since the last look.

The folder is temporary and only read; the ledger's own code reads it. A lock in the storage is shown as a record of
`study.store.locks`, hence a trial that somebody trains anywhere is shown as running.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from study.buckets.archive import Archive, CommitName, unpack
from study.buckets.lease import claims_below
from study.buckets.storage import STUDY, Storage, url_of
from study.common.errors import LedgerError, MachineError
from study.common.process import large_folder
from study.store.holders import LockClaim
from study.store.ledger import Ledger
from study.store.locks import BEAT_SECONDS, PATIENCE_BEATS, Sightings

READERS = 16
REFRESH_SECONDS = 3.0
SCRATCH_VARIABLE = "PGPS_SCRATCH"


@dataclass
class View:
    """A study's records in a folder.

    Args:
        storage: where the study is.
        root: an empty folder.
        is_author: whether study.json and points.jsonl are written here, and so never fetched.
    """

    storage: Storage
    root: Path
    is_author: bool = False
    _known: dict[str, CommitName] = field(default_factory=dict)
    _refreshed: float = 0.0
    _sightings: Sightings = field(default_factory=Sightings)

    @property
    def ledger(self) -> Ledger:
        """The folder as a ledger.

        Raises:
            LedgerError: there is no study.
        """
        if STUDY not in self._known:
            raise LedgerError(f"no study at {self.storage.url}")
        return Ledger.open(self.root)

    def refresh(self, *, at_most_every: float = 0.0) -> None:
        """Fetch what has changed.

        Raises:
            StorageError: the storage cannot be read.
        """
        if time.monotonic() - self._refreshed < at_most_every:
            return
        newest: dict[str, CommitName] = {}
        for key in self.storage.entries("records"):
            name, commit = key.split("/")[1], CommitName.of(key)
            if commit is not None and (name not in newest or newest[name] < commit):
                newest[name] = commit
        if self.is_author:
            newest.pop(STUDY, None)
        changed = [name for name, commit in newest.items() if self._known.get(name) != commit]
        with ThreadPoolExecutor(READERS) as readers:
            list(readers.map(self._fetch, changed))
        self._show_locks()
        self._refreshed = time.monotonic()

    def named(self, text: str, trial_id: str) -> str:
        """A text about a trial with the storage's names instead of this folder's; see `Archive.named`."""
        commit = self._known.get(trial_id)
        archive = Archive(storage=self.storage, name=trial_id)
        return archive.named(text, self._folder(trial_id), None if commit is None else commit.number)

    def _fetch(self, name: str) -> None:
        commit = Archive(storage=self.storage, name=name).latest()
        if commit is not None:
            unpack(commit, self._folder(name), durable=False)
            self._known[name] = commit.name

    def _folder(self, name: str) -> Path:
        return self.root if name == STUDY else self.root / "trials" / name

    def _show_locks(self) -> None:
        """The storage's locks as folders of records, one with the number 1 where there is a holder."""
        claims, is_doubtful = self._claims()
        if is_doubtful:
            # Left by somebody dead, or this machine's clock is another one than the storage's: the next beat tells.
            time.sleep(PATIENCE_BEATS * BEAT_SECONDS)
            claims, _ = self._claims()
        now = time.time()
        for name in self._known:
            claim, record = claims.get(name), self._folder(name) / "locks" / "000001.json"
            if claim is None or claim.holder is None or not self._sightings.is_alive(claim.key):
                record.unlink(missing_ok=True)
                continue
            record.parent.mkdir(exist_ok=True)
            text = json.dumps(asdict(claim.holder))
            if not record.exists() or record.read_text(encoding="utf-8") != text:
                record.write_text(text, encoding="utf-8")
            os.utime(record, (now, now))

    def _claims(self) -> tuple[dict[str, LockClaim], bool]:
        """Trial, or the study -> who claims its lock; and whether only watching them tells who of them lives."""
        claims = {claim.key.split("/")[1]: claim for claim in claims_below(self.storage, "locks")}
        return claims, sum(self._sightings.glance(claim.key, claim.stamp) for claim in claims.values()) > 0


@contextmanager
def viewed(url: str) -> Iterator[View]:
    """The records of a study in object storage, in a folder that is there for as long.

    Raises:
        StorageError: the storage cannot be read.
    """
    storage = Storage(url)
    storage.check_exists()
    with tempfile.TemporaryDirectory(prefix="pgps-view-", dir=scratch(), ignore_cleanup_errors=True) as folder:
        # Reports name a study after its folder.
        root = Path(folder, url.rpartition("/")[2] or STUDY)
        root.mkdir()
        view = View(storage, root)
        view.refresh()
        yield view


@contextmanager
def reading(where: Path | str) -> Iterator[tuple[Path, View | None]]:
    """A study to read: its folder, and the view it is of when it is in object storage.

    Raises:
        StorageError: the storage cannot be read.
        LedgerError: there is no study in it.
    """
    url = url_of(where)
    if url is None:
        yield Path(where), None
        return
    with viewed(url) as view, url_named(view):
        yield view.ledger.root, view


@contextmanager
def readings(places: Sequence[Path | str]) -> Iterator[list[Path]]:
    """Folders of several studies to read, of one named twice once; see `reading`."""
    with ExitStack() as stack:
        yield [stack.enter_context(reading(where))[0] for where in dict.fromkeys(places)]


@contextmanager
def url_named(view: View) -> Iterator[None]:
    """Errors about the view's folder name what the user named."""
    try:
        yield
    except LedgerError as error:
        if str(view.root) not in str(error):
            raise
        raise LedgerError(str(error).replace(str(view.root), view.storage.url)) from error


def scratch() -> Path:
    """Where this machine keeps what it can lose: `$PGPS_SCRATCH`, or a folder of this user's among temporary ones.

    Raises:
        MachineError: somebody else made that folder, and could have put checkpoints there, which are pickles.
    """
    given = os.environ.get(SCRATCH_VARIABLE)
    folder = Path(given or Path(large_folder(), f"pgps-scratch-{os.getuid()}")).resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if given is None and (folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022):
        raise MachineError(f"{folder} can be written by others; set {SCRATCH_VARIABLE} to a folder of your own")
    return folder

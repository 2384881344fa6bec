"""A trial, or the study as a whole, in object storage: commits, of which the highest number counts.

A commit is one JSON object that holds all records and names the model files that belong to them, with their checksums.
The models of a commit are all put by the holder of the lock that made it, so who deletes what older holders left never
deletes what a commit needs.

It is made of a snapshot: what a folder of the ledger holds at one moment, while another process writes to it. Costs,
epochs and checkpoints of a trial name each other, and each of them is a file of its own. So everything is looked at,
read, and looked at again: when nothing has changed in between, it fits together. Model files are too large to be read
then; they are opened, and because they are only ever replaced whole, what is open stays as it was.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from study.buckets.storage import SCHEMA, STUDY, Storage, StorageError, pieces_of
from study.common.files import is_temporary, write_atomically, write_bytes

# Records of the ledger, by the road from the trial's or study's folder. Nothing else becomes part of a commit.
RECORD = re.compile(
    r"(study|confirmation|spec|result)\.json|points\.jsonl|by_hand|(costs|epochs|events)\.jsonl|attempts/\d{3,}\.json"
)
RESULTS, RESULT = "results", "result.json"
# Written bit by bit until the trial has finished, and not needed to resume it.
UNTIL_FINISHED = re.compile(r".*/validation/.*|.*\.(txt|png)")
TRIES, PAUSE_SECONDS = 40, 0.02
# Of what is read while a holder goes on committing and deletes what it has replaced.
READ_TRIES = 10
_COMMIT = re.compile(r"(\d{6,18})-(\d{6,18})\.json\.gz")

Stamp = tuple[int, int, int]
"""Inode, time and size: another one, another content."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A record file: its content, and when it was written, nanoseconds since the epoch."""

    content: bytes
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A folder's content; all by relative path. The model files are open."""

    stamps: Mapping[str, Stamp]
    documents: Mapping[str, Document]
    models: Mapping[str, tuple[IO[bytes], Stamp]]


@contextmanager
def snapshot(folder: Path) -> Iterator[Snapshot | None]:
    """The folder's content; None when it changed each time it was looked at."""
    for _ in range(TRIES):
        with ExitStack() as stack:
            before = stamps(folder)
            try:
                documents = {
                    name: Document(content=(folder / name).read_bytes(), mtime_ns=stamp[1])
                    for name, stamp in before.items()
                    if RECORD.fullmatch(name)
                }
                models = {
                    name: (stack.enter_context((folder / name).open("rb")), stamp)
                    for name, stamp in before.items()
                    if name not in documents
                }
            except FileNotFoundError:
                continue
            if stamps(folder) == before:
                yield Snapshot(stamps=before, documents=documents, models=models)
                return
        time.sleep(PAUSE_SECONDS)
    yield None


def stamps(folder: Path) -> dict[str, Stamp]:
    """Everything worth keeping in a folder, by relative path."""
    found = {}
    for place, below, names in os.walk(folder):
        if Path(place) == folder:
            below[:] = [name for name in below if name in ("attempts", RESULTS)]
        for path in (Path(place, name) for name in names):
            name = path.relative_to(folder).as_posix()
            is_model = name.startswith(f"{RESULTS}/") and not path.name.startswith(".") and not is_temporary(path.name)
            if (is_model or RECORD.fullmatch(name)) and not path.is_symlink():
                try:
                    seen = path.stat()
                except FileNotFoundError:
                    continue
                found[name] = seen.st_ino, seen.st_mtime_ns, seen.st_size
    if RESULT not in found:
        found = {name: stamp for name, stamp in found.items() if not UNTIL_FINISHED.fullmatch(name)}
    return found


@dataclass(frozen=True, kw_only=True, order=True)
class CommitName:
    """Number of the lock under which a commit was made, and which of its commits it is."""

    number: int
    serial: int

    def __str__(self) -> str:
        return f"{self.number:06d}-{self.serial:06d}"

    @classmethod
    def of(cls, key: str) -> CommitName | None:
        """Of a commit's key, None for anything else."""
        match = _COMMIT.fullmatch(key.rpartition("/")[2])
        return cls(number=int(match[1]), serial=int(match[2])) if match else None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model file of a commit: its key, and the SHA-256 of its content."""

    key: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What the storage holds of a trial or of the study; both by relative path."""

    name: CommitName
    documents: Mapping[str, Document]
    models: Mapping[str, Model]

    @property
    def is_finished(self) -> bool:
        """Whether it is that of a trial with a result."""
        return RESULT in self.documents

    def to_bytes(self) -> bytes:
        """The object as it is put."""
        # Any byte survives as Latin-1, damaged records too: whether they are is for who reads them to say.
        documents = {
            name: {"text": found.content.decode("latin-1"), "mtime_ns": found.mtime_ns}
            for name, found in self.documents.items()
        }
        models = {path: asdict(model) for path, model in self.models.items()}
        return gzip.compress(json.dumps({"schema": SCHEMA, "documents": documents, "models": models}).encode(), mtime=0)

    @classmethod
    def from_bytes(cls, content: bytes, name: CommitName, where: str) -> Commit:
        """Inverse of `to_bytes`. Raises StorageError, which names where it is, for what is no commit."""
        try:
            data = json.loads(gzip.decompress(content))
            if data["schema"] != SCHEMA:
                raise StorageError(
                    f"{where} has schema {data['schema']}, this version reads {SCHEMA}; update pgps-study"
                )
            documents = {
                path: Document(content=found["text"].encode("latin-1"), mtime_ns=found["mtime_ns"])
                for path, found in data["documents"].items()
            }
            models = {path: Model(**found) for path, found in data["models"].items()}
            legal = [path for path in documents if RECORD.fullmatch(path)]
            legal += [
                path for path in models if path.startswith(f"{RESULTS}/") and ".." not in PurePosixPath(path).parts
            ]
            # Paths that stay inside the folder they are unpacked into.
            if wrong := {*documents, *models}.difference(legal):
                raise ValueError(f"{wrong.pop()!r} is no file of a study")
        except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError) as error:
            said = " ".join(str(error).split())[:200]
            raise StorageError(f"{where} is damaged: {said}; restore it from a backup") from error
        return cls(name=name, documents=documents, models=models)


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One trial's place in the storage, or that of the study."""

    storage: Storage
    name: str = STUDY

    @property
    def locks(self) -> str:
        """Prefix of its lock."""
        return f"locks/{self.name}"

    @property
    def log(self) -> str:
        """Key of its log."""
        return f"logs/{self.name}.txt"

    def named(self, text: str, folder: Path, number: int | None) -> str:
        """A text with the storage's names instead of those of a folder that will be gone or without models.

        Args:
            text: names the trial's log, or its results folder in a command.
            folder: of the trial's records on this machine.
            number: of the lock under which its models were put.
        """
        text = text.replace(str(folder / "log.txt"), f"{self.storage.url}/{self.log}")
        if number is None:
            return text
        # nnU-Net reads folders only.
        copy = f"COPY_OF_{self.storage.url}/{self.model_prefix(number)}/{RESULTS}"
        return text.replace(str(folder / RESULTS), copy)

    def commits(self) -> list[CommitName]:
        """Names of the commits that are there, the one that counts last."""
        return sorted(filter(None, map(CommitName.of, self.storage.entries(f"records/{self.name}"))))

    def next_number(self) -> int:
        """The lowest number of a lock above those of all commits."""
        return 1 + max((name.number for name in self.commits()), default=0)

    def latest(self) -> Commit | None:
        """The commit that counts, None when there is none."""
        for _ in range(READ_TRIES):
            names = self.commits()
            if not names:
                return None
            key = self._key(names[-1])
            # Otherwise a newer one has replaced it.
            if (content := self.storage.read(key)) is not None:
                return Commit.from_bytes(content, names[-1], f"{self.storage.url}/{key}")
        raise StorageError(f"{self.storage.url}: records of {self.name} are replaced faster than they can be read")

    def put(self, commit: Commit) -> None:
        """Put a commit; from then on it is the one that counts."""
        self.storage.write(self._key(commit.name), commit.to_bytes())

    def keep_alone(self, commit: Commit) -> None:
        """Delete the commits that this one has replaced, and model files of its lock and earlier ones that it lacks."""
        for name in self.commits():
            if name < commit.name:
                self.storage.delete(self._key(name))
        needed = {model.key for model in commit.models.values()}
        for key in self.model_keys():
            if key not in needed and int(key.split("/")[2]) <= commit.name.number:
                self.storage.delete(key)

    def model_prefix(self, number: int) -> str:
        """Where the holder of a lock puts model files."""
        return f"models/{self.name}/{number:06d}"

    def model_keys(self) -> list[str]:
        """All model files that are there, those that no commit names included."""
        return list(self.storage.entries(f"models/{self.name}"))

    def fetch(self, commit: Commit, folder: Path) -> bool:
        """Write a commit's model files below a folder; whether all were still there."""
        for path, model in commit.models.items():
            digest = hashlib.sha256()
            pieces = _hashed(self.storage.chunks(model.key), digest)
            try:
                write_atomically(folder / path, lambda handle, found=pieces: handle.writelines(found))  # type: ignore[misc]
            except FileNotFoundError:
                return False
            if digest.hexdigest() != model.sha256:
                raise StorageError(f"{self.storage.url}/{model.key} is damaged: it is not what was put there")
        return True

    def _key(self, name: CommitName) -> str:
        return f"records/{self.name}/{name}.json.gz"


@dataclass
class Committer:
    """Commits a folder again and again under one lock, putting only the model files that have changed.

    Args:
        archive: where to.
        number: of the lock, which the caller holds.
    """

    archive: Archive
    number: int
    _serial: int = 0
    _puts: int = 0
    _put: dict[str, tuple[Stamp, Model]] = field(default_factory=dict)

    def commit(self, found: Snapshot) -> Commit:
        """Put what has changed, then the commit, then delete what it has replaced.

        Raises:
            StorageError: the storage is as before, or has the new commit.
        """
        known = dict(self._put.values())
        for path, (handle, stamp) in found.models.items():
            # A checkpoint that was renamed has the stamp that it had.
            self._put[path] = stamp, known.get(stamp) or self._put_model(path, handle)
        self._put = {path: put for path, put in self._put.items() if path in found.models}
        self._serial += 1
        models = {path: model for path, (_, model) in self._put.items()}
        name = CommitName(number=self.number, serial=self._serial)
        commit = Commit(name=name, documents=found.documents, models=models)
        self.archive.put(commit)
        self.archive.keep_alone(commit)
        return commit

    def _put_model(self, path: str, handle: IO[bytes]) -> Model:
        # Its own path when it is put for the first time; one that no commit can name otherwise.
        key, digest = f"{self.archive.model_prefix(self.number)}/{path}", hashlib.sha256()
        if path in self._put:
            self._puts += 1
            key = f"{key}.{self._puts}"
        self.archive.storage.put(key, _hashed(pieces_of(handle), digest))
        return Model(key=key, sha256=digest.hexdigest())


def _hashed(pieces: Iterator[bytes], digest: Any) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def unpack(commit: Commit, folder: Path, *, durable: bool) -> None:
    """Make a folder's records those of a commit.

    Args:
        commit: what they become.
        folder: of the trial or study.
        durable: whether they are to survive a power cut.
    """
    for path in (*folder.glob("*"), *folder.glob("attempts/*")):
        name = path.relative_to(folder).as_posix()
        if RECORD.fullmatch(name) and name not in commit.documents:
            path.unlink()
    for name, document in commit.documents.items():
        path, content = folder / name, document.content
        if not path.exists() or path.read_bytes() != content:
            write_bytes(path, content, durable=durable)
        os.utime(path, ns=(document.mtime_ns, document.mtime_ns))

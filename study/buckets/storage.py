"""Object storage behind a URL: whole objects put, read, listed and deleted by key.

What is asked of it: an object that was put is there whole or not at all, and whoever lists or reads afterwards sees
it. S3, GCS, Azure and MinIO promise both. pyarrow, which Ray needs anyway, brings the clients of S3, GCS and Azure;
other URLs go to fsspec.

What a storage that is away for a moment did not do is tried again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar
from uuid import uuid4

from study.common.errors import DISK_FULL_CODES, DiskFullError, InvalidInputError, MachineError, check_path

SEPARATOR = "://"
SCHEMA = 1
STUDY = "study"


def place(text: str) -> Path | str:
    """Where a study is kept, as a command line names it: a folder, or the URL of object storage."""
    if is_url(text) and is_url(stripped := text.rstrip("/")):
        return stripped
    check_path("where a study is", text)
    return Path(text)


def local(text: str) -> Path:
    """A path on this machine, as a command line names it."""
    check_path("a path", text)
    return Path(text)


def is_url(text: object) -> bool:
    """Whether this is the URL of object storage rather than a path."""
    return isinstance(text, str) and SEPARATOR in text


def url_of(where: Path | str) -> str | None:
    """The URL, None for a folder."""
    return where if isinstance(where, str) and is_url(where) else None


CHUNK_BYTES = 8 << 20
CONNECT_SECONDS = 10
REQUEST_SECONDS = 60
NATIVE = {"s3": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfss", "file": "file"}
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
CREDENTIAL_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)
CREDENTIAL_FILES = ("credentials", "config")
# What the clients' messages contain, and which trouble it is.
NO_BUCKET = ("NO_SUCH_BUCKET", "NoSuchBucket", "bucket does not exist")
DENIED = ("ACCESS_DENIED", "AccessDenied", "Forbidden", "FORBIDDEN", "HTTP status 403", "PERMISSION_DENIED")
REFUSED = ("INVALID_ACCESS_KEY_ID", "InvalidAccessKeyId", "SIGNATURE_DOES_NOT_MATCH", "SignatureDoesNotMatch")
UNREACHABLE = ("NETWORK_CONNECTION", "curlCode", "Could not connect", "timed out", "Connection refused", "UNAVAILABLE")


class StorageError(MachineError):
    """Object storage cannot be reached, read or written."""


@dataclass(frozen=True)
class Storage:
    """The objects below a URL. Keys are relative to it. Travels between processes as its URL.

    Args:
        url: without a slash at the end.
    """

    url: str

    def __post_init__(self) -> None:
        if without_secrets(self.url) != self.url:
            raise InvalidInputError(
                field="the URL of object storage",
                received=without_secrets(self.url),
                legal="one without a password or query, which would be read in logs and lists of processes",
                remedy="give credentials in the client's own variables or files, such as AWS_ACCESS_KEY_ID",
            )

    @cached_property
    def _connection(self) -> tuple[Any, str]:
        """A pyarrow file system, and the path in it."""
        with self._named("reached"):
            return _connect(self.url)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    def check_exists(self) -> None:
        """Raise StorageError unless the bucket is there and may be listed."""
        from pyarrow import fs

        if self.url.partition("://")[0] in ("s3", "gs", "gcs"):
            with self._named("read"):
                client, root = self._connection
                bucket = root.partition("/")[0]
                if not root or client.get_file_info(bucket).type == fs.FileType.NotFound:
                    raise StorageError(_no_bucket(self.url, bucket))
            self.entries("records")

    def check_writable(self) -> None:
        """Raise StorageError unless what is put can be read back and deleted."""
        self.check_exists()
        key, content = f"probe/{uuid4().hex}", b"probe"
        self.write(key, content)
        if self.read(key) != content:
            raise StorageError(f"{self.url} does not give back what was put; is it one storage for all?")
        self.delete(key)

    def entries(self, prefix: str) -> dict[str, float | None]:
        """Key -> when it was put, of all below a prefix: seconds since the epoch by the storage's clock, if known."""
        from pyarrow import fs

        client, root = self._connection
        selector = fs.FileSelector(f"{root}/{prefix}", recursive=True, allow_not_found=True)
        with self._named("read"):
            infos = client.get_file_info(selector)
        return {
            info.path[len(root) + 1 :]: info.mtime.timestamp() if isinstance(info.mtime, datetime) else info.mtime
            for info in infos
            if info.type == fs.FileType.File and not info.path.endswith(".part")
        }

    def read(self, key: str) -> bytes | None:
        """An object's content, None when it is not there."""
        client, root = self._connection
        try:
            with self._named("read"), client.open_input_stream(f"{root}/{key}", compression=None) as stream:
                content: bytes = stream.read()
                return content
        except FileNotFoundError:
            return None

    def chunks(self, key: str) -> Iterator[bytes]:
        """An object's content piece by piece.

        Raises:
            FileNotFoundError: it is not there.
        """
        client, root = self._connection
        with self._named("read"), client.open_input_stream(f"{root}/{key}", compression=None) as stream:
            while piece := stream.read(CHUNK_BYTES):
                yield piece

    def write(self, key: str, content: bytes) -> None:
        """Put an object."""
        self.put(key, iter([content]))

    def put(self, key: str, pieces: Iterator[bytes]) -> None:
        """Put an object piece by piece; it appears when it is whole."""
        client, root = self._connection
        with self._named("written"):
            if client.type_name == "local":
                _put_on_disk(Path(root, key), pieces)
                return
            with client.open_output_stream(f"{root}/{key}", compression=None) as stream:
                for piece in pieces:
                    stream.write(piece)

    def delete(self, key: str) -> None:
        """Delete an object if it is there."""
        client, root = self._connection
        with self._named("written"), suppress(FileNotFoundError):
            client.delete_file(f"{root}/{key}")

    def clock(self) -> float:
        """Seconds since the epoch by the storage, which stamps what is put there."""
        key = f"clock/{uuid4().hex}"
        self.write(key, b"now")
        stamp = self.entries("clock").get(key)
        self.delete(key)
        return time.time() if stamp is None else stamp

    @contextmanager
    def _named(self, done: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, ValueError, ImportError) as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL_CODES:
                raise DiskFullError(self.url) from error
            raise StorageError(_in_words(self.url, done, error)) from error


def _put_on_disk(path: Path, pieces: Iterator[bytes]) -> None:
    """A folder behaves like object storage when files are written aside."""
    aside = path.with_name(f"{path.name}.{uuid4().hex}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.open("wb") as handle:
            handle.writelines(pieces)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def without_secrets(text: str) -> str:
    """A text whose URLs name neither a password nor a query, which may be a signature."""
    text = re.sub(r"(?<=://)[^/\s@]*:[^\s@]*@", "…@", text)
    return re.sub(r"(?<=\w://)([^\s?]*)\?\S*", r"\1?…", text)


def pieces_of(handle: IO[bytes]) -> Iterator[bytes]:
    """A file's content piece by piece, from its beginning."""
    position = 0
    # By position: the same handle is read again when a put is tried again.
    while piece := os.pread(handle.fileno(), CHUNK_BYTES, position):
        position += len(piece)
        yield piece


def _connect(url: str) -> tuple[Any, str]:
    from pyarrow import fs

    scheme, _, path = url.partition("://")
    if scheme == "s3":
        endpoint, region = _endpoint(), os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region is None and endpoint is None:
            with suppress(OSError):
                region = fs.resolve_s3_region(path.partition("/")[0])
        client = fs.S3FileSystem(
            endpoint_override=endpoint,
            region=region,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=REQUEST_SECONDS,
            # Small objects then take one request instead of three.
            allow_delayed_open=True,
        )
        return client, path
    if scheme in NATIVE:
        client, root = fs.FileSystem.from_uri(f"{NATIVE[scheme]}://{path}")
        return client, root.rstrip("/")
    import fsspec

    found, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    return fs.PyFileSystem(fs.FSSpecHandler(found)), root.rstrip("/")


def _endpoint() -> str | None:
    return next((os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)), None)


def _in_words(url: str, done: str, error: Exception) -> str:
    text = without_secrets(" ".join(str(error).split()))
    is_s3, refused = url.startswith("s3://"), any(word in text for word in REFUSED)
    if isinstance(error, ImportError):
        return f"{url}: a package for this kind of storage is missing ({text}); install it with pip"
    if any(word in text for word in NO_BUCKET):
        return _no_bucket(url, url.partition("://")[2].partition("/")[0])
    if any(word in text for word in UNREACHABLE):
        where = f"at {without_secrets(_endpoint() or '')}" if _endpoint() and is_s3 else "of its provider"
        return f"{url}: the endpoint {where} does not answer; check network and AWS_ENDPOINT_URL ({text[:160]})"
    if not refused and not any(word in text for word in DENIED):
        return f"{url} cannot be {done}: {text[:300]}"
    if is_s3 and not _has_credentials():
        return (
            f"{url}: no credentials are found here; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or give this machine a role"
        )
    if refused:
        return f"{url}: the credentials found here are refused; set ones that are valid"
    return f"{url} may not be {done} with the credentials found here; have the permission granted, or use others"


def _has_credentials() -> bool:
    files = list[Path]()
    with suppress(RuntimeError):  # a user without a home
        files = [Path.home() / ".aws" / name for name in CREDENTIAL_FILES]
    return any(os.environ.get(name) for name in CREDENTIAL_VARIABLES) or any(path.exists() for path in files)


def _no_bucket(url: str, bucket: str) -> str:
    return (
        f"{url}: there is no bucket {bucket!r}, or it is not visible with these credentials; make it, or name another"
    )


PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)

_T = TypeVar("_T")


def tried(do: Callable[[], _T], on_trouble: Callable[[StorageError, float], None] = lambda *_: None) -> _T:
    """What a call gives, tried again for about a minute.

    Args:
        do: what is tried.
        on_trouble: told of each failure but the last, and of the pause that follows in seconds.

    Raises:
        StorageError: it failed each time; the last time's error.
    """
    for pause in PAUSES_SECONDS:
        try:
            return do()
        except StorageError as error:
            on_trouble(error, pause)
            time.sleep(pause)
    return do()

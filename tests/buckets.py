"""Object storage for tests: moto's S3 server in a process of its own, on the loopback address and a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from study.buckets.storage import Storage

LOOPBACK = "127.0.0.1"
BUCKET = "studies"
START_SECONDS = 600.0
needs_moto = pytest.mark.skipif(
    find_spec("moto") is None or find_spec("flask") is None, reason="moto[server], a dev dependency, is not installed"
)


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket, and where it is."""

    endpoint: str

    @property
    def environment(self) -> Mapping[str, str]:
        """What leads a client there."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def url(self, path: str) -> str:
        return f"s3://{BUCKET}/{path}"


@contextmanager
def s3_server(log: Path) -> Iterator[Bucket]:
    """A server with one bucket."""
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        port = found.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        endpoint = f"http://{LOOPBACK}:{port}"
        _wait_for(port, process)
        urlopen(Request(f"{endpoint}/{BUCKET}", method="PUT")).close()
        yield Bucket(endpoint=endpoint)
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "moto's server has ended"
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("moto's server does not answer")


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """This process' environment with other values for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture(scope="session")
def shared_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log.txt") as made:
        yield made


@pytest.fixture(scope="module")
def bucket(shared_bucket: Bucket) -> Iterator[Bucket]:
    """A bucket that this process' environment leads to; other modules have put things into it, too."""
    with environment(shared_bucket.environment):
        yield shared_bucket


@pytest.fixture(params=["file", pytest.param("s3", marks=needs_moto)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty place in each kind of storage that can be shared."""
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        return Storage(bucket.url(tmp_path.name))
    return Storage(f"file://{tmp_path}/bucket/study")

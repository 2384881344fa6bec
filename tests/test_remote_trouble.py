"""What is said of object storage that refuses, does not answer, or holds no study."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from buckets import Bucket, environment, needs_moto

from study.buckets.storage import Storage, StorageError

REPOSITORY = Path(__file__).resolve().parent.parent
SPEC_TEXT = b'{"made": "up"}'


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://user:hunter2@bucket/a", "s3://…@bucket/a"),
        ("s3://AKIA:hun/ter2+x=@bucket", "s3://…@bucket"),
        ("https://:hunter2@host/a", "https://…@host/a"),
        ("s3://bucket/a?secret_key=hunter2", "s3://bucket/a?…"),
        ("abfs://c@account.dfs.core.windows.net/a?sig=hunter2&se=2027", "abfs://c@account.dfs.core.windows.net/a?…"),
    ],
)
def test_secrets_in_a_url_are_refused_and_not_repeated(url: str, shown: str, refused: Callable[..., str]) -> None:
    said = refused("status", url)
    assert said.startswith(f"error: the URL of object storage: received '{shown}', legal is one without a password ")
    assert "hunter2" not in said


@pytest.mark.parametrize("url", ["abfs://container@account.dfs.core.windows.net/a", "s3://bucket/a:b@c", "gs://b/a@b"])
def test_other_urls_are_left_alone(url: str) -> None:
    assert Storage(url).url == url


LISTING = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"


class _Refusing(BaseHTTPRequestHandler):
    """An S3 server that shows empty buckets and lets nobody write."""

    def do_GET(self) -> None:
        self._answer(200, LISTING)

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")

    do_POST = do_PUT

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def refusing() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


S3 = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


def test_a_bucket_that_may_not_be_written_is_said_so() -> None:
    with (
        refusing() as endpoint,
        environment({**S3, "AWS_ENDPOINT_URL": endpoint}),
        pytest.raises(StorageError) as error,
    ):
        Storage("s3://b/x").check_writable()
    said = "s3://b/x may not be written with the credentials found here; have the permission granted, or use others"
    assert str(error.value) == said


def test_missing_credentials_are_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with (
        refusing() as endpoint,
        environment({"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}),
        pytest.raises(StorageError, match=r"^s3://b/x: no credentials are found here; set AWS_ACCESS_KEY_ID and"),
    ):
        Storage("s3://b/x").check_writable()


def test_an_endpoint_that_does_not_answer_is_said_so() -> None:
    with environment({**S3, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}), pytest.raises(StorageError) as error:
        Storage("s3://b/x").check_exists()
    assert str(error.value).startswith(
        "s3://b/x: the endpoint at http://127.0.0.1:1 does not answer; check network and"
    )


@needs_moto
@pytest.mark.parametrize("words", [("status",), ("run", f"{REPOSITORY}/search_spaces/smoke.yaml", "--out")])
def test_a_bucket_that_is_not_there_is_said_so_in_one_line(
    bucket: Bucket, data: Path, words: tuple[str, ...], refused: Callable[..., str]
) -> None:
    more = ("--data", str(data), "--dataset", "901", "--plans", "CubePlans", "--gpus", "0") if words[0] == "run" else ()
    assert refused(*words, "s3://nowhere/study", *more).startswith(
        "error: s3://nowhere/study: there is no bucket 'nowhere'"
    )


@needs_moto
def test_a_bucket_without_a_study_is_said_so(bucket: Bucket, refused: Callable[..., str]) -> None:
    assert refused("status", bucket.url("nothing")) == f"error: no study at {bucket.url('nothing')}\n"

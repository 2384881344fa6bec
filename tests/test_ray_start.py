"""A Ray that does not start: whatever it raises, and what ends its native code, is one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import types
from threading import Thread
from typing import Any

import pytest

from study.cluster.local import check_address, configure_ray
from study.common.errors import InvalidInputError, MachineError
from study.search.space import Resources

ERRORS: list[Exception] = [
    ValueError("a path of 120 bytes\n is too long"),
    PermissionError(13, "Permission denied", "/tmp/ray"),
    FileExistsError(17, "File exists", "/tmp/ray/session_latest"),
    AssertionError(),
    TimeoutError("timed out"),
    OSError("x" * 10_000),
    KeyError("GPU"),
    RuntimeError("the raylet died\n" * 50),
]


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_ray_raises_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, address: str | None
) -> None:
    configure_ray(address=address)
    import ray

    from study.cluster.nodes import connected

    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", refuse)
    space: Any = types.SimpleNamespace(resources=Resources(cpus=1, gpus=0, concurrent=1, data_workers=0))
    with pytest.raises(MachineError) as caught, connected(space, address):
        pytest.fail("started")
    said = str(caught.value)
    assert said.startswith(("Ray does not start on this machine (", "--address: no Ray cluster answers at "))
    assert "\n" not in said
    assert len(said) < 600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RAY_memory_usage_threshold", "abc"),
        ("RAY_worker_niceness", ""),
        ("RAY_task_retry_delay_ms", "0x"),
        ("RAY_NUM_REDIS_GET_RETRIES", "often"),
    ],
)
@pytest.mark.cluster
def test_a_setting_that_ray_cannot_read_is_named(name: str, value: str) -> None:
    ask = "from study.cluster.local import configure_ray; configure_ray(address=None)"
    environment = {**os.environ, name: value, "RAY_DEDUP_LOGS": "1", "RAY_AUTH_TOKEN": "hidden"}
    answer = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=False)
    assert f"MachineError: received {name}={value!r} in the environment, which Ray cannot read" in answer.stderr
    assert "hidden" not in answer.stderr


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b""])
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_who_listens_and_is_no_ray_is_told_at_once(scheme: str, said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        Thread(target=_answer_once, args=(server, said), daemon=True).start()
        with pytest.raises(MachineError, match=r"something else than Ray listens there \(it said (b'|nothing)"):
            check_address(address)


def test_a_grpc_server_may_be_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        Thread(target=_answer_once, args=(server, b"\0\0\0\x04\0\0\0\0\0"), daemon=True).start()
        check_address(address)


def _answer_once(server: socket.socket, said: bytes) -> None:
    with server.accept()[0] as connection:
        connection.recv(1000)
        connection.sendall(said)


def test_an_address_that_is_none_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(InvalidInputError, match="received 'nonsense', legal is auto or HOST:PORT"):
        check_address("auto")


def test_a_cluster_of_our_own_keeps_nothing_in_the_database_of_another() -> None:
    ask = "import os; from study.cluster.local import configure_ray; configure_ray(address={}); print(os.environ)"
    environment = {**os.environ, "RAY_REDIS_ADDRESS": "127.0.0.1:1"}
    for address, kept in ((None, False), ("head:6379", True)):
        command = [sys.executable, "-c", ask.format(repr(address))]
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert ("RAY_REDIS_ADDRESS" in said) == kept

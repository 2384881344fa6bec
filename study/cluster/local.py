"""What is settled before Ray is loaded: its variables, its token, whether anything answers at an address (Ray would go
on asking for minutes), and what each trial gets of a node.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from study.common.errors import InvalidInputError, MachineError
from study.common.machine import usable_cores
from study.search.space import Resources

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # When a study is stopped, Tune's thread may outlive the cluster by an instant; it must not start another one.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
# Trainings notice by their pipe that their worker is gone and write a checkpoint; Ray would kill them first.
WORKER_SETTINGS = {"RAY_kill_child_processes_on_worker_exit": "0"}
# Whoever reaches a Ray cluster can run code on it. Ray knows this setting as the one that keeps it from asking for
# firewall exceptions on desktops; on a server, too, it makes it listen on the loopback address only.
LOOPBACK_SETTINGS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
LOOPBACK = r"(127\.|localhost:|\[?::1\]?:)"
SETTINGS_OF_OWN_CLUSTER = {
    **WORKER_SETTINGS,
    **LOOPBACK_SETTINGS,
    # Ray's workers give way to everything else on the machine; a training is no less than another program.
    "RAY_worker_niceness": "0",
}
# A user who has set one of these has a token, or wants none.
TOKEN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
SETTINGS_OF_GIVEN_CLUSTER = {
    # Each try to reach one that does not answer takes 40 s; Ray's default is twenty.
    "RAY_NUM_REDIS_GET_RETRIES": "1",
}


def configure_ray(*, address: str | None) -> None:
    """Set Ray's environment variables where the user has not; call before ray is imported.

    Args:
        address: of a cluster that runs, None for one of our own.

    Raises:
        MachineError: Ray cannot read what the user has set.
    """
    _check_settings({name: value for name, value in os.environ.items() if name.startswith("RAY_")})
    more = SETTINGS_OF_OWN_CLUSTER if address is None else SETTINGS_OF_GIVEN_CLUSTER
    if address is not None and re.match(LOOPBACK, address):
        # Or Ray would look for it at the machine's outer address, where it does not listen.
        more = {**more, **LOOPBACK_SETTINGS}
    for name, value in {**SETTINGS, **more}.items():
        os.environ.setdefault(name, value)
    if address is None:
        # A cluster of our own ends with the run and keeps nothing in the database of a lasting one.
        os.environ.pop("RAY_REDIS_ADDRESS", None)
    if address is None and not any(os.environ.get(name) for name in TOKEN_VARIABLES):
        # Or Ray would write one into the home folder for everybody to read. This one is in no file.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    _keep_token_private()


def _check_settings(given: dict[str, str]) -> None:
    """Ray's native code ends the process at a number that is none, while it is imported: a child imports it first."""

    def readable(names: Iterable[str]) -> bool:
        environment = {name: value for name, value in os.environ.items() if name not in given or name in names}
        command = [sys.executable, "-c", "import ray"]
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    if given and "ray" not in sys.modules and not readable(given):
        wrong = [name for name in given if not readable([name])]
        told = ", ".join(name if "TOKEN" in name else f"{name}={given[name]!r}" for name in wrong or given)
        raise MachineError(f"received {told} in the environment, which Ray cannot read: correct or unset it")


def _keep_token_private() -> None:
    """Whoever reads the token can run code as this user; Ray leaves its file to the umask."""
    with suppress(OSError, RuntimeError):
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        if path.stat().st_mode & 0o077 and path.stat().st_uid == os.getuid():
            path.chmod(0o600)


AUTO = "auto"
CONNECT_SECONDS, GREETING_SECONDS = 5.0, 30.0
# HTTP/2 (RFC 9113): the type of a frame of settings, and how a client begins, with an empty one.
_SETTINGS = b"\x04"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0\0\0\0\0"


def check_address(address: str) -> None:
    """Raise unless the address is `auto`, which Ray resolves, or one where something listens.

    Raises:
        InvalidInputError: neither `auto` nor HOST:PORT.
        MachineError: nothing answers.
    """
    if address == AUTO:
        # As Ray resolves it.
        address = os.environ.get("RAY_ADDRESS") or AUTO
    if address == AUTO:
        return
    match = re.fullmatch(r"(?:ray://)?\[?([^\s/]+?)\]?:(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 2**16:
        raise InvalidInputError(field="--address", received=address, legal="auto or HOST:PORT of a Ray cluster")
    try:
        with socket.create_connection((match[1], int(match[2])), timeout=CONNECT_SECONDS) as connection:
            trouble = None if os.environ.get("RAY_USE_TLS", "0") != "0" else _no_grpc(connection)
    except OSError as error:
        trouble = f"nothing answers there ({error.strerror or error})"
    if trouble:
        remedy = "start a cluster with `ray start --head`, or leave --address out to use this machine alone"
        raise MachineError(f"--address: received {address!r}, {trouble}; {remedy}")


def _no_grpc(connection: socket.socket) -> str | None:
    """What is wrong with who listens: Ray would ask it for a minute. A gRPC server greets with HTTP/2 settings."""
    answer = b""
    with suppress(OSError):
        connection.settimeout(GREETING_SECONDS)
        connection.sendall(_GREETING)
        answer = connection.recv(9, socket.MSG_WAITALL)
    said = repr(answer) if answer else "nothing"
    return None if answer[3:4] == _SETTINGS else f"something else than Ray listens there (it said {said})"


# A tenth goes ten times into one in spite of binary fractions.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Node:
    """Cores and GPUs of one node."""

    cpus: float
    gpus: float


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Cores and share of a GPU of one trial, and how many trials fit on a node and in the whole cluster at a time."""

    cpus: float
    gpus: float
    per_node: int
    in_total: int

    @property
    def device(self) -> str:
        """`cuda` with a share of a GPU, else `cpu`."""
        return "cuda" if self.gpus else "cpu"


def local_node(asked: Resources) -> Node:
    """This machine as a node; its GPUs are counted only if they may be used, because that needs torch."""
    gpus = 0
    if asked.gpus != 0:
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Node(cpus=usable_cores(), gpus=gpus)


def allot(asked: Resources, nodes: Sequence[Node]) -> Shares:
    """What of a node every trial gets.

    Args:
        asked: resources of the space; None leaves a number to the nodes.
        nodes: what the cluster has, at least one node.

    Raises:
        MachineError: no node can hold a single trial.
    """
    gpus = asked.gpus if asked.gpus is not None else float(any(node.gpus >= 1 for node in nodes))
    cpus = asked.cpus if asked.cpus is not None else _share(nodes, gpus)
    counts = [_count(node, cpus, gpus) for node in nodes]
    if not any(counts):
        largest = max(nodes, key=lambda node: (node.gpus, node.cpus))
        raise MachineError(
            f"resources: received {cpus:g} CPUs and {gpus:g} GPUs per trial, but the largest node has "
            f"{largest.cpus:g} CPUs and {largest.gpus:g} GPUs; use --cpus and --gpus (--gpus 0 trains on the CPU)"
        )
    limit = asked.concurrent or sum(counts)
    return Shares(cpus=cpus, gpus=gpus, per_node=min(limit, max(counts)), in_total=min(limit, sum(counts)))


def _share(nodes: Sequence[Node], gpus: float) -> float:
    """Whole cores for each trial that a node's GPUs hold, or all of its cores; of unlike nodes, the least."""
    trials = [(node, _by_gpus(node, gpus) if gpus else 1) for node in nodes if node.cpus >= 1]
    return min((max(1.0, float(node.cpus // count)) for node, count in trials if count), default=1.0)


def _count(node: Node, cpus: float, gpus: float) -> int:
    by_cpus = _fit(node.cpus, cpus)
    return min(by_cpus, _by_gpus(node, gpus)) if gpus else by_cpus


def _by_gpus(node: Node, gpus: float) -> int:
    """A share of a GPU cannot be put together from two."""
    return int(node.gpus) * _fit(1, gpus)


def _fit(available: float, each: float) -> int:
    return math.floor(available / each + ROUNDING)

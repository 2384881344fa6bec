"""Ray clusters on this machine: a head and further nodes, each a `ray start --block` of our own, with token
authentication, on the loopback address and on ports of its own. They are ended by the id of their session.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
from studies import WAIT_SECONDS

from study.store.trial_folder import TrialFolder

REPOSITORY = Path(__file__).resolve().parent.parent
RAY = str(Path(sys.executable).with_name("ray"))
LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 80_000_000
# What makes Ray listen on the loopback address only, see `study.cluster`; those who connect need it too. With it `ray
# start` refuses to join a cluster, although that works: its command line is told otherwise.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
START = """
import types
from ray.scripts import scripts
scripts.ray_constants = types.SimpleNamespace(**{**vars(scripts.ray_constants), "ENABLE_RAY_CLUSTER": True})
scripts.main()
"""
# What a user's shell may hold that would lead to another cluster or to another token.
FOREIGN = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@dataclass(frozen=True, kw_only=True)
class RayNode:
    """One `ray start --block`."""

    process: subprocess.Popen[bytes]

    def family(self) -> list[psutil.Process]:
        """Ray's processes of this node, workers included; trainings have sessions of their own."""
        found = []
        for process in psutil.process_iter():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getsid(process.pid) == self.process.pid:
                    found.append(process)
        return found

    def kill(self) -> None:
        """End the node as a power cut does."""
        while family := [process for process in self.family() if process.status() != psutil.STATUS_ZOMBIE]:
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A head that others may join.

    Attributes:
        address: for `ray start --address` and `--address`; server: URL of the job server.
        token_path: file with the token; folder: Ray's own files.
    """

    head: RayNode
    address: str
    server: str
    token_path: Path
    folder: Path

    def environment(self, *, token: bool = True) -> dict[str, str]:
        """Environment variables of somebody who uses the cluster, with or without its token."""
        more = {"RAY_API_SERVER_ADDRESS": self.server, "RAY_USAGE_STATS_ENABLED": "0", **LOOPBACK_ONLY}
        # Ray takes a token from the home folder, too.
        with_token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_path)}
        return {**own_environment(), **more, **(with_token if token else {"RAY_AUTH_MODE": "disabled"})}

    @contextmanager
    def node(self, *, cpus: int = 1) -> Iterator[RayNode]:
        """A further node, as another machine would be."""
        arguments = [f"--address={self.address}", f"--temp-dir={self.folder}", f"--num-cpus={cpus}"]
        with _node(arguments, self.environment(), self.folder / "node.log") as node:
            yield node

    def ray(self, *words: str, token: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `ray WORDS…` from the checkout until it ends."""
        return subprocess.run(
            [RAY, *words],
            cwd=REPOSITORY,
            env=self.environment(token=token),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
        )

    def submit(self, name: str, command: Sequence[str], *more: str, token: bool = True) -> str:
        """`ray job submit --working-dir .`, without waiting for the job; what it printed.

        Raises:
            AssertionError: it was refused although a token was shown.
        """
        words = ("job", "submit", "--no-wait", "--submission-id", name, "--working-dir", ".", *more, "--", *command)
        ended = self.ray(*words, token=token)
        assert ended.returncode == 0 or not token, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def jobs(self) -> dict[str, str]:
        """State of every submitted job, by its name."""
        # By HTTP, because asking Ray's client again and again keeps a core busy with importing it.
        bearer = {"Authorization": f"Bearer {self.token_path.read_text()}"}
        with urlopen(Request(f"{self.server}/api/jobs/", headers=bearer), timeout=WAIT_SECONDS) as answer:
            return {job["submission_id"]: job["status"] for job in json.load(answer) if job["submission_id"]}

    def log(self, name: str) -> str:
        """What the job printed."""
        return self.ray("job", "logs", name).stdout


@contextmanager
def cluster(*, cpus: int = 2) -> Iterator[Cluster]:
    """A head, gone afterwards with all that it started."""
    with ExitStack() as stack:
        # Ray's sockets live there, and their paths are limited to 107 characters: pytest's folders are too deep.
        folder = Path(tempfile.mkdtemp(prefix="ray-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        token_path = folder / "token"
        token_path.touch(mode=0o600)
        token_path.write_text(secrets.token_hex(32))
        port, server, agent, client = free_ports(4)
        ports = {"port": port, "dashboard-port": server, "dashboard-agent-listen-port": agent}
        given = {**ports, "ray-client-server-port": client, "temp-dir": folder, "num-cpus": cpus}
        words = ["--head", *(f"--{name}={value}" for name, value in given.items())]
        environment = {**own_environment(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_path)}
        node = stack.enter_context(_node(words, environment, folder / "head.log"))
        address, url = f"{LOOPBACK}:{port}", f"http://{LOOPBACK}:{server}"
        made = Cluster(head=node, address=address, server=url, token_path=token_path, folder=folder)
        until(lambda: made.ray("job", "list").returncode == 0, node)
        yield made


def until(condition: Callable[[], Any], *alive: RayNode | subprocess.Popen[bytes]) -> Any:
    """What the condition gives once it gives something, while nodes and processes live."""
    deadline = time.monotonic() + WAIT_SECONDS
    processes = [each.process if isinstance(each, RayNode) else each for each in alive]
    while not (given := condition()):
        assert all(process.poll() is None for process in processes), "a node or process has ended"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return given


def reached(trial: TrialFolder) -> int:
    """The iteration after which the trial, which was stopped, says that it wrote its checkpoint."""
    event = trial.events()[-1]
    assert event["event"] == "interrupted", event
    return int(event["reason"].removeprefix("stopped after iteration ").split()[0])


def free_ports(number: int) -> list[int]:
    """Ports on which nobody listens now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def _node(words: Sequence[str], environment: dict[str, str], log: Path) -> Iterator[RayNode]:
    command = [sys.executable, "-c", START, "start", "--block", "--disable-usage-stats", *words]
    given = {"node-ip-address": LOOPBACK, "num-gpus": 0, "object-store-memory": OBJECT_STORE_BYTES}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in given.items())],
            env={**environment, **LOOPBACK_ONLY},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    node = RayNode(process=process)
    try:
        until(lambda: b"Ray runtime started" in log.read_bytes(), node)
        yield node
    finally:
        node.kill()


def own_environment() -> dict[str, str]:
    """This environment without what leads to another cluster."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN}

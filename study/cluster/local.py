"""Ray on this machine or at an address: its variables, its token, and whether anything answers before Ray is asked.

Ray would go on asking for minutes.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from study.common.errors import InvalidInputError, MachineError

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
CONNECT_SECONDS = 5.0


def check_address(address: str) -> None:
    """Raise unless the address is `auto`, which Ray resolves, or one where something listens.

    Raises:
        InvalidInputError: neither `auto` nor HOST:PORT.
        MachineError: nothing answers.
    """
    if address == AUTO:
        return
    match = re.fullmatch(r"(?:ray://)?\[?([^\s/]+?)\]?:(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 2**16:
        raise InvalidInputError(field="--address", received=address, legal="auto or HOST:PORT of a Ray cluster")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise MachineError(
            f"--address: received {address!r}, nothing answers there ({error.strerror or error}); "
            "start a cluster with `ray start --head`, or leave --address out to use this machine alone"
        ) from error

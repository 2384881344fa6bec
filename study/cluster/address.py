"""Whether something answers at a cluster's address: asked before Ray is, which would go on asking for minutes."""

from __future__ import annotations

import re
import socket

from study.errors import InvalidInputError, MachineError

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

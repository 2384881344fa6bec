"""A command in a terminal of its own, for what looks different there than in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Terminal:
    """A terminal, 200 columns wide, and the command that runs in it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._controller, terminal = pty.openpty()
        environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
        self.process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
        os.close(terminal)
        self.screen = ""

    def read_until(self, text: str) -> None:
        """Read until a text has come; fails when the command ends before."""
        while text not in self.screen:
            assert self._read(), self.screen

    def read_to_end(self) -> int:
        """Read until the command has ended; its exit code."""
        while self._read():
            pass
        return self.process.wait()

    def close(self) -> None:
        """End the command if it still runs."""
        self.process.kill()
        self.process.wait()
        os.close(self._controller)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._controller, 65536)
        except OSError:  # nobody has the terminal open any more
            chunk = b""
        self.screen += chunk.decode(errors="replace")
        return bool(chunk)


@contextmanager
def in_terminal(command: Sequence[str]) -> Iterator[Terminal]:
    """The terminal of a command that is gone afterwards."""
    terminal = Terminal(command)
    try:
        yield terminal
    finally:
        terminal.close()

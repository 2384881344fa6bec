"""A web server of this machine that answers GET and HEAD alone, with what a function makes of a path.

On any address but loopback everything is below a secret, which is compared in constant time. On loopback the name that
a browser asked for must be loopback's, too: otherwise a page from elsewhere could have its own name lead here and read
the answers.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from study.common.errors import MachineError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# A browser that connects and says nothing.
PATIENCE_SECONDS = 30
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, kw_only=True)
class Response:
    """What a path has."""

    content: bytes
    kind: str


class Listening(ThreadingHTTPServer):
    """Listens, with a thread for each browser.

    Args:
        host: a name or address of this machine.
        port: 0 takes a free one.
        handler: of requests.

    Raises:
        MachineError: the port is taken, or the host is none of this machine's.
    """

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler] = BaseHTTPRequestHandler) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise MachineError(
                f"cannot listen on {host} port {port}: {reason}; name another --port, 0 takes a free one, "
                "or a --host of this machine"
            ) from error

    def server_bind(self) -> None:
        """As the base class does, without asking a name server what this machine is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, *_: object) -> None:
        """A browser that went away is none."""


class Server:
    """Answers in threads of its own while it is entered.

    Args:
        answer: of a path relative to the address, None where there is nothing; called by several threads at a time.
        host, port: see `Listening`, also for errors.
    """

    def __init__(self, answer: Callable[[str], Response | None], host: str, port: int) -> None:
        self.is_loopback = host in LOOPBACK
        self._secret = "" if self.is_loopback else secrets.token_urlsafe(24)
        self._shown = f"[{host}]" if ":" in host else host
        self._server = Listening(host, port)
        names = {f"{f'[{name}]' if ':' in name else name}:{self.port}" for name in LOOPBACK}
        self._server.RequestHandlerClass = _handler(answer, self._secret, names if self.is_loopback else None)

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """With the secret, where there is one."""
        return f"http://{self._shown}:{self.port}/{f'{self._secret}/' if self._secret else ''}"

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(
    answer: Callable[[str], Response | None], secret: str, hosts: Sequence[str] | set[str] | None
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE_SECONDS
        server_version, sys_version = "pgps-study", ""

        def do_GET(self) -> None:
            if hosts is not None and self.headers.get("Host", "") not in hosts:
                self._send(421, Response(content=b"this address is for the machine itself\n", kind="text/plain"))
                return
            found = self._found()
            self._send(200 if found else 404, found or Response(content=b"there is nothing here\n", kind="text/plain"))

        do_HEAD = do_GET

        def __getattr__(self, name: str) -> Any:
            # Of any other method the base class looks for here.
            if name.startswith("do_"):
                return self._refuse
            raise AttributeError(name)

        def _refuse(self) -> None:
            self.close_connection = True
            self._send(405, Response(content=b"this page can only be read\n", kind="text/plain"))

        def _found(self) -> Response | None:
            path = unquote(urlsplit(self.path).path, errors="replace").removeprefix("/")
            if secret:
                given, _, path = path.partition("/")
                if not hmac.compare_digest(given.encode(errors="replace"), secret.encode()):
                    return None
            return answer(path)

        def _send(self, status: int, found: Response) -> None:
            self.send_response(status)
            more = {"Allow": "GET, HEAD"} if status == 405 else {}
            length = {"Content-Type": found.kind, "Content-Length": str(len(found.content))}
            for name, value in {**HEADERS, **length, **more}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(found.content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing of requests: the secret is in them."""

    return Handler

"""optuna-dashboard on a study: Optuna's study is rebuilt in memory whenever the ledger has changed, and served.

The ledger is only read, so a study may be looked at while it runs, by anybody who can read its folder. What is shown is
a copy: whatever somebody changes, notes or deletes in the dashboard changes nothing of the study and is soon gone.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna

from study.common.errors import LedgerError
from study.common.server import Listening
from study.search.document import begun_space
from study.search.optuna_study import rebuilt
from study.search.space import SearchSpace
from study.store.ledger import Ledger

REFRESH_SECONDS = 3.0


@dataclass(kw_only=True)
class Dashboard:
    """A study and Optuna's view of it.

    Args:
        ledger: of the study; only read.
        update: fetches a study that is elsewhere before it is read again; raises StudyError.
        complain: told in a line why what is shown is behind.

    Attributes:
        study: as it was when the ledger was last read.
    """

    ledger: Ledger
    update: Callable[[], None] = lambda: None
    complain: Callable[[str], None] = lambda _: None
    study: optuna.Study = field(init=False)
    _space: SearchSpace = field(init=False)
    _seen: object = None

    def __post_init__(self) -> None:
        self._space = searched_space(self.ledger)
        self.refresh()

    def refresh(self) -> bool:
        """Show what the ledger knows by now; returns whether that is anything new."""
        self.update()
        signature = self._signature()
        if signature == self._seen:
            return False
        self.study = rebuilt(self._space, self.ledger)
        self._seen = signature
        return True

    def serve(self, server: WSGIServer, *, ready: Callable[[], None] = lambda: None) -> None:
        """Answer browsers until KeyboardInterrupt, refreshing meanwhile; `ready` is called when they are answered."""
        self._show(server)
        answering = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        with server:
            answering.start()
            try:
                ready()
                self._keep_up(server)
            except KeyboardInterrupt:
                server.shutdown()

    def _show(self, server: WSGIServer) -> None:
        from optuna_dashboard import wsgi

        server.set_app(wsgi(self.study._storage))

    def _keep_up(self, server: WSGIServer) -> None:
        trouble = ""
        while True:
            time.sleep(REFRESH_SECONDS)
            try:
                if self.refresh():
                    self._show(server)
                trouble = ""
            except Exception as error:  # what is shown may be behind, and the next look may succeed
                said, trouble = trouble, " ".join(f"{type(error).__name__}: {error}".split())
                if trouble != said:
                    self.complain(f"showing what was known before: {trouble}")

    def _signature(self) -> object:
        return len(self.ledger.points()), [(trial.trial_id, trial.signature()) for trial in self.ledger.trials()]


def searched_space(ledger: Ledger) -> SearchSpace:
    """The search space that a study's header records; its name is the folder's.

    Raises:
        LedgerError: the study has none, or one that this version cannot read.
    """
    if not ledger.header().get("space"):
        raise LedgerError(
            f"{ledger.root} holds trials made by hand and no search, which is what the dashboard shows; "
            f"`python -m study status` lists them, `python -m study report` draws them"
        )
    try:
        space = begun_space(ledger.header(), len(ledger.points()))
    except (KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"{ledger.root / 'study.json'} has no readable search space; restore the file") from error
    # In the letters that a space's may have.
    name = re.sub(r"[^\w.+-]|^[^A-Za-z0-9]", "-", ledger.root.resolve().name, flags=re.ASCII).lstrip("-._+")
    return replace(space, name=name or "study", trials=None if space.method.whole else space.trials)


def listen(host: str, port: int) -> WSGIServer:
    """A server on a name or address of this machine that has no application yet; port 0 takes a free one.

    Raises:
        MachineError: the port is taken, or the host is none of this machine's.
    """
    server = _Server(host, port, _Handler)
    server.set_app(_no_study)
    return server


def address(server: WSGIServer, host: str) -> str:
    """Where browsers find the dashboard."""
    return f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/dashboard"


class _Server(Listening, WSGIServer):
    def server_bind(self) -> None:
        super().server_bind()
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""


def _no_study(_: object, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
    return [b"the study is being read"]

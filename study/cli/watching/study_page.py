"""The page of a study that runs: how it stands, above the newest report, which a process of its own draws meanwhile."""

from __future__ import annotations

import mimetypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from study.buckets.view import scratch
from study.cli.watching.forecast import Forecast
from study.cli.watching.server import Response
from study.cli.watching.standing import SCRIPT, STYLE, standing
from study.common.errors import StudyError
from study.store.ledger import Ledger
from study.store.status import StatusBoard, TrialStatus
from study.store.trial_folder import TrialState

LOOK_SECONDS = 2.0
# A report is drawn again after so many times as long as the last one took: the machine is for the trainings.
REST = 5.0
PAGE = "report.html"
_CHANGING = (TrialState.NEW, TrialState.RUNNING, TrialState.INTERRUPTED)
_TEXT = ("text/", "application/json", "application/javascript")
_EMPTY = (
    '<!DOCTYPE html><html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">'
    "<title>Study</title></head><body><main></main></body></html>"
)


@dataclass(kw_only=True)
class Watched:
    """A study, looked at again and again. What answers browsers only reads what the last look left.

    Args:
        ledger: of the study; only read.
        where: folder or URL of the study, as `report` takes it.
        update: fetches a study that is elsewhere; raises StudyError.
    """

    ledger: Ledger
    where: str
    update: Callable[[], None] = lambda: None
    _standing: str = ""
    _files: dict[str, Path] = field(default_factory=dict)
    _drawn: object = None
    _drawing: tuple[subprocess.Popen[bytes], object, Path, float] | None = None
    _rest_until: float = 0.0
    _trouble: str = ""
    _number: int = 0

    def __enter__(self) -> Watched:
        self._room = Path(tempfile.mkdtemp(prefix="pgps-watch-", dir=scratch()))
        self._board, self._forecast = StatusBoard(self.ledger), Forecast(self.ledger)
        self.look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawing:
            with suppress(ProcessLookupError):
                os.killpg(self._drawing[0].pid, signal.SIGKILL)
            self._drawing[0].wait()
        shutil.rmtree(self._room, ignore_errors=True)

    def keep_up(self) -> None:
        """Look until KeyboardInterrupt."""
        try:
            while True:
                time.sleep(LOOK_SECONDS)
                self.look()
        except KeyboardInterrupt:
            pass

    def look(self) -> None:
        """See how the study stands by now, and have it drawn if it has changed."""
        try:
            self.update()
            Ledger.open(self.ledger.root)
            rows = self._board.rows()
            self._standing = standing(self.ledger, rows, self._forecast.words(rows), self._note(), number=self._number)
            self._draw(rows)
        except (StudyError, OSError) as error:
            text = " ".join(str(error).replace(str(self.ledger.root), self.where).split())
            self._standing = standing(self.ledger, (), (), f"what is shown is from before: {text}", number=self._number)

    def answer(self, path: str) -> Response | None:
        """The page, how the study stands, or a file of the report: of any other path nothing."""
        if path == "":
            return Response(content=self._page().encode(errors="replace"), kind="text/html; charset=utf-8")
        if path == "standing":
            return Response(content=self._standing.encode(errors="replace"), kind="text/html; charset=utf-8")
        file = self._files.get(path)
        try:
            content = None if file is None else file.read_bytes()
        except FileNotFoundError:  # of a report that has been replaced
            return None
        return None if content is None else Response(content=content, kind=_kind(path))

    def _page(self) -> str:
        page = self.answer(PAGE)
        text = page.content.decode() if page else _EMPTY
        live = f'<style>{STYLE}</style><section id="live" data-report="{self._number}">{self._standing}</section>'
        # As a file the page may fetch nothing; served, it has the server's rules, and fetches how the study stands.
        text = re.sub(r'<meta http-equiv="?Content-Security-Policy[^>]*>', "", text)
        text = re.sub(r"<header|<main", lambda found: live + found[0], text, count=1)
        text = text.replace("</head>", '<link rel=icon href="data:,"></head>', 1)
        return text.replace("</body>", f"<script>{SCRIPT}</script></body>", 1)

    def _note(self) -> str:
        if self._trouble:
            return f"the figures could not be drawn: {self._trouble}"
        return "" if self._files else "the figures are being drawn"

    def _draw(self, rows: list[TrialStatus]) -> None:
        state = tuple((row.trial_id, row.state) for row in rows if row.state not in _CHANGING)
        if self._drawing is not None:
            self._collect(*self._drawing)
        elif state != self._drawn and time.monotonic() >= self._rest_until:
            out = Path(tempfile.mkdtemp(prefix="report-", dir=self._room))
            command = [sys.executable, "-m", "analysis", "report", self.where, "--out", str(out)]
            log = (out / "log").open("wb")
            with log:
                # In a session of its own, so that Ctrl-C is one line; and behind the trainings.
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
                )
            os.setpriority(os.PRIO_PROCESS, process.pid, 10)
            self._drawing = process, state, out, time.monotonic()

    def _collect(self, process: subprocess.Popen[bytes], state: object, out: Path, began: float) -> None:
        """Show a report that has been drawn instead of the one before."""
        if process.poll() is None:
            return
        self._drawing, self._drawn = None, state
        self._rest_until = time.monotonic() + REST * (time.monotonic() - began)
        said = (out / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        (out / "log").unlink()
        self._trouble = "" if process.returncode == 0 else (said or [f"exit code {process.returncode}"])[-1]
        if process.returncode == 0:
            for old in self._room.iterdir():
                if old != out:
                    shutil.rmtree(old, ignore_errors=True)
            self._files = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
            self._number += 1


def _kind(path: str) -> str:
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith(_TEXT) else kind

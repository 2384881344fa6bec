"""`watch`: the report's page of a study that runs, served until Ctrl-C. The study is only read, without a lock.

The page of a study that runs: how it stands, above the newest report, which a process of its own draws meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import mimetypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from study.buckets.storage import place
from study.buckets.view import reading, scratch
from study.common.errors import StudyError, check_count
from study.common.server import Response, Server
from study.common.setting import whole
from study.common.terminal import time_left, visible
from study.common.trackers import trouble_words, troubles
from study.store.calibration import network_of
from study.store.ledger import Ledger
from study.store.outlook import study_outlook
from study.store.preview import Basis, basis_for, trained_in
from study.store.status import StatusBoard, TrialStatus, counts, scheme_words
from study.store.trial_folder import TrialState

EXAMPLES = """\
  python -m study watch studies/hippo
  python -m study watch studies/hippo --port 0
  python -m study watch s3://bucket/studies/hippo
  python -m study watch studies/hippo --host 0.0.0.0
"""
HIGHEST_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `watch`."""
    parser.add_argument("study", type=place, metavar="DIR|URL", help="study folder, or where it is in object storage")
    parser.add_argument("--port", type=whole, default=8088, metavar="N", help="0 takes a free one (default: 8088)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine alone); any other has a secret in its address",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    check_count("--port", args.port, least=0, most=HIGHEST_PORT)
    with reading(args.study) as (folder, view):
        watched = Watched(
            ledger=Ledger.open(folder),
            where=str(args.study),
            update=(lambda: None) if view is None else view.refresh,
        )
        with watched, Server(watched.answer, args.host, args.port) as server:
            if not server.is_loopback:
                print("warning: whoever has this address can read the study; it is not encrypted", file=sys.stderr)
            print(f"{server.address}  (Ctrl-C ends it)", flush=True)
            watched.keep_up()
    return 0


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
            silent = itertools.starmap(trouble_words, troubles(self.ledger.header()).items())
            said = [*self._forecast.words(rows), *silent]
            self._standing = standing(self.ledger, rows, said, self._note(), number=self._number)
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


MOST_LISTED = 12
# Of a curve, in its own units; and how many epochs of it are drawn at most.
WIDTH, HEIGHT, MOST_EPOCHS = 240, 60, 240
_WAITING = (TrialState.NEW, TrialState.INTERRUPTED)
_ENDED_BADLY = (TrialState.FAILED, TrialState.INFEASIBLE, TrialState.UNREADABLE)

STYLE = """
#live { border: 1px solid var(--rule, #888); border-radius: .3rem; padding: .25rem 1rem 1rem; margin: 1rem 0; }
#live h2 { margin: .75rem 0 .25rem; } #live h3 { margin: 1rem 0 .25rem; }
#live ul { list-style: none; padding: 0; margin: 0; } #live li { margin: .4rem 0; overflow-wrap: anywhere; }
#live progress { width: 12rem; max-width: 100%; vertical-align: middle; }
#live svg { display: block; width: 15rem; max-width: 100%; height: auto; }
#live polyline { fill: none; stroke: var(--pgps, #06c); stroke-width: 1.5; }
"""
# What stands here is replaced; the whole page once its figures are newer and nobody has a card or a filter in hand.
SCRIPT = """
(() => {
  const live = document.getElementById("live");
  const idle = () => !document.querySelector("dialog[open], .filtered") && getSelection().isCollapsed;
  const look = async () => {
    try {
      const answer = await fetch("standing", {cache: "no-store"});
      if (!answer.ok) throw new Error(answer.status);
      const text = await answer.text();
      if (text !== live.dataset.seen) { live.innerHTML = text; live.dataset.seen = text; }
      const newest = live.querySelector("[data-number]");
      if (newest && newest.dataset.number !== live.dataset.report && idle()) location.reload();
    } catch (error) {
      const note = live.querySelector(".now");
      if (note) note.textContent = "nothing is served here any more: what is shown is from before";
    }
    setTimeout(look, 2000);
  };
  setTimeout(look, 2000);
})();
"""


def standing(
    ledger: Ledger, rows: Sequence[TrialStatus], outlook: Sequence[str], note: str = "", *, number: int = 0
) -> str:
    """The piece of HTML.

    Args:
        ledger: of the study.
        rows: its trials.
        outlook: what was spent and is to come, a sentence each.
        note: what else is to be said first.
        number: of the report that is served.
    """
    parts = ["<h2>As it runs</h2>", f'<p class="now muted">{_moment(ledger)}</p>']
    parts += [
        f'<p class=notice data-number="{number}">{_text(note)}</p>' if note else f'<i data-number="{number}"></i>'
    ]
    if rows:
        parts.append(f"<p>{_text(counts(rows))}</p>")
    parts += [f"<p>{_text(sentence)}</p>" for sentence in outlook]
    running = [_running(ledger, row) for row in rows if row.state is TrialState.RUNNING]
    waiting = [_line(row, f"at iteration {row.iteration}") for row in rows if row.state in _WAITING]
    failed = [
        _line(row, f"{row.state.value}: {row.last_error}; log: {row.log}") for row in rows if row.state in _ENDED_BADLY
    ]
    for heading, lines in (("Running", running), ("Waiting", waiting), ("Without a result", failed)):
        parts += _list(heading, lines)
    return "\n".join(parts)


def _moment(ledger: Ledger) -> str:
    runner = ledger.runner()
    who = f"run by {_text(str(runner))}" if runner else "nobody runs it now"
    return f"{time.strftime('%H:%M:%S')}, {who}"


def _list(heading: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        more = len(lines) - MOST_LISTED
        yield f"<h3>{heading} ({len(lines)})</h3><ul>"
        yield from (f"<li>{line}</li>" for line in lines[:MOST_LISTED])
        yield f"<li class=muted>and {more} more</li></ul>" if more > 0 else "</ul>"


def _line(row: TrialStatus, words: str) -> str:
    fold = "" if row.fold is None else f", fold {row.fold}, seed {row.seed}"
    return f"<code>{_text(row.trial_id)}</code> {_text(scheme_words(row))}{fold}: {_text(words)}"


def _running(ledger: Ledger, row: TrialStatus) -> str:
    words = f"iteration {row.iteration} of {row.total_iterations}"
    bar = f'<progress max="{row.total_iterations}" value="{row.iteration}"></progress>'
    return f"{_line(row, words)} {bar}{_curve(ledger, row)}"


def _curve(ledger: Ledger, row: TrialStatus) -> str:
    """Validation Dice by iteration, from 0 to 1 and from the training's begin to its end."""
    try:
        epochs = [epoch for epoch in ledger.trial(row.trial_id).epochs() if epoch.pseudo_dice is not None]
    except (StudyError, OSError):  # read while it is written; the next look has it
        return ""
    if not epochs:
        return ""
    shown = [*epochs[:: len(epochs) // MOST_EPOCHS + 1], epochs[-1]]
    points = " ".join(
        f"{WIDTH * epoch.iteration / row.total_iterations:.1f},{HEIGHT * (1 - (epoch.pseudo_dice or 0.0)):.1f}"
        for epoch in shown
    )
    said = f"validation Dice {epochs[-1].pseudo_dice:.3f} after epoch {epochs[-1].epoch + 1}"
    return (
        f'<svg viewBox="0 -2 {WIDTH} {HEIGHT + 4}" role=img aria-label="{said}">'
        f'<polyline points="{points}"/></svg><span class=muted>{said}</span>'
    )


def _text(words: str) -> str:
    return escape(visible(words))


class Forecast:
    """Of a study; what has finished is read again only when more has."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[tuple[str, ...], tuple[int, Basis]] = {}
        self._seconds: dict[tuple[str, int], float] = {}

    def words(self, rows: Sequence[TrialStatus]) -> list[str]:
        """What was spent and, where that can be told, what is to come, a sentence each.

        Args:
            rows: of the study; only of trials that are there, not of points that a search has yet to propose.
        """
        spent = sum(row.runtime_seconds for row in rows)
        carbon = [row.co2_kg for row in rows if row.co2_kg is not None]
        said = [f"Trained so far: {time_left(spent)}" + (f", {sum(carbon):.3g} kg CO₂." if carbon else ".")]
        if (previewed := study_outlook(self._ledger, rows)) is not None:
            return [*said, f"Against its preview: {previewed.words()}."]
        ahead = [row for row in rows if row.state in _CHANGING and row.dataset]
        if not ahead:
            return said
        finished = sum(row.state is TrialState.FINISHED for row in rows)
        try:
            left = [max(0.0, self._expected(row, finished) - row.runtime_seconds + row.waste_seconds) for row in ahead]
            basis = [known.words() for _, known in self._known.values()]
        except StudyError:
            return [*said, "How long the others will take is known once one like them has finished."]
        at_a_time = max(1, sum(row.state is TrialState.RUNNING for row in rows))
        together = max(sum(left) / at_a_time, max(left))
        said.append(
            f"About {time_left(together)} left for what has begun or waits ({len(ahead)}), {at_a_time} at a time: "
            f"training loops alone, {'; '.join(basis)}."
        )
        return said

    def _expected(self, row: TrialStatus, finished: int) -> float:
        """Seconds that a trial's training takes in all."""
        if (row.trial_id, finished) not in self._seconds:
            spec = self._ledger.trial(row.trial_id).spec()
            network = network_of(spec)
            if self._known.get(network, (-1, None))[0] != finished:
                known = basis_for(spec, trained_in([self._ledger], network), (), hardware=None, remedy="")
                self._known[network] = finished, known
            self._seconds[row.trial_id, finished] = self._known[network][1].preview(spec).amounts[0]
        return self._seconds[row.trial_id, finished]

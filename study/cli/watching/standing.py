"""How a study stands, as a piece of a web page: counts, what is left, what runs, waits or failed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from html import escape

from study.common.errors import StudyError
from study.common.terminal import visible
from study.common.trackers import trouble_words, troubles
from study.store.ledger import Ledger
from study.store.records import EpochReport
from study.store.status import TrialStatus, counts, scheme_words
from study.store.trial_folder import TrialState

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
    silent = itertools.starmap(trouble_words, troubles(ledger.header()).items())
    parts += [f"<p>{_text(sentence)}</p>" for sentence in (*outlook, *silent)]
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
    points = " ".join(f"{_x(epoch, row):.1f},{HEIGHT * (1 - (epoch.pseudo_dice or 0.0)):.1f}" for epoch in shown)
    said = f"validation Dice {epochs[-1].pseudo_dice:.3f} after epoch {epochs[-1].epoch + 1}"
    return (
        f'<svg viewBox="0 -2 {WIDTH} {HEIGHT + 4}" role=img aria-label="{said}">'
        f'<polyline points="{points}"/></svg><span class=muted>{said}</span>'
    )


def _x(epoch: EpochReport, row: TrialStatus) -> float:
    return WIDTH * epoch.iteration / row.total_iterations


def _text(words: str) -> str:
    return escape(visible(words))

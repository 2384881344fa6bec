"""`status`: the table of a study's trials, from the ledger alone; without a study, of the studies that are here."""

from __future__ import annotations

import argparse
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from study.buckets.storage import place
from study.common.errors import InvalidInputError, LedgerError, StudyError
from study.common.setting import number
from study.store import locks
from study.store.ledger import Ledger
from study.store.records import Confirmation
from study.store.trial_folder import RESULT, SPEC, TrialFolder, TrialState

if TYPE_CHECKING:
    from study.buckets.view import View
    from study.common.tables import PlainConsole
    from study.store.status import TrialStatus

EXAMPLES = """\
  python -m study status
  python -m study status studies/demo
  python -m study status studies/demo --watch
  python -m study status studies/demo --json
  python -m study status s3://bucket/studies/demo
"""
WATCH_SECONDS = 2.0
STUDIES = "studies"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `status`."""
    parser.add_argument(
        "study",
        nargs="?",
        type=place,
        metavar="DIR|URL",
        help="study folder, or where it is in object storage (default: all studies in this folder and its `studies`)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object per trial, or per study")
    parser.add_argument(
        "--watch",
        nargs="?",
        const=WATCH_SECONDS,
        type=number,
        metavar="SECONDS",
        help=f"keep showing it (default: every {WATCH_SECONDS:g} s)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table, once or again and again."""
    if args.study is None:
        return _of_all(args)
    from study.buckets.view import reading
    from study.cli.live import finishing
    from study.common.trackers import trouble_words, troubles

    with reading(args.study) as (folder, view):
        ledger = Ledger.open(folder)
        if args.json:
            print(json.dumps([row.to_json() for row in _rows(ledger, view)]))
            return 0
        if args.watch is not None:
            return _watch(ledger, view, args.watch)
        from study.common.tables import wide_console

        console, runner = wide_console(), ledger.runner()
        if runner:
            console.print(f"being run by {runner}")
        rows = _rows(ledger, view)
        _print(console, rows, _outlook(ledger, rows), ledger.confirmation())
        for tracker, trouble in troubles(ledger.header()).items():
            console.print(f"note: {trouble_words(tracker, trouble)}", soft_wrap=True)
        for line in finishing(args.study, ledger, rows):
            console.print(line, soft_wrap=True)
    return 0


def _outlook(ledger: Ledger, rows: Sequence[TrialStatus]) -> list[str]:
    from study.store.outlook import study_outlook

    found = study_outlook(ledger, rows)
    return [] if found is None else [found.words()]


def _rows(ledger: Ledger, view: View | None) -> list[TrialStatus]:
    from study.store.status import study_status

    rows = study_status(ledger)
    if view is None:
        return rows
    return [
        replace(
            row,
            log=view.named(row.log, row.trial_id),
            predict=row.predict and view.named(row.predict, row.trial_id),
        )
        for row in rows
    ]


def _print(
    console: PlainConsole, rows: Sequence[TrialStatus], outlook: Sequence[str], confirmation: Confirmation | None
) -> None:
    from study.store.status import best, contention, counts, print_table

    print_table(console, rows)
    for line in (counts(rows), *outlook):
        console.print(line)
    if confirmation is not None:
        console.print(confirmation.words())
    for row in rows:
        if row.last_error:
            console.print(f"{row.trial_id} {row.state.value}: {row.last_error}; log: {row.log}")
        for line in row.fallbacks:
            console.print(f"{row.trial_id}: {line}")
    for reason, trials in _unmeasured(rows).items():
        console.print(f"energy not measured in {', '.join(trials)}: {reason}")
    if apart := contention(rows):
        console.print(f"note: {apart}")
    for remark, many in Counter(remark for row in rows for remark in row.remarks).items():
        console.print(f"note: {remark} ({many} of {len(rows)} trials)")
    if (found := best(rows)) is not None:
        console.print(f"predict with the best model, {found.trial_id}:\n{found.predict}")


def _unmeasured(rows: Sequence[TrialStatus]) -> dict[str, list[str]]:
    """Trials by why their energy is not known."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for reason in row.unmeasured:
            found.setdefault(reason, []).append(row.trial_id)
    return found


def _watch(ledger: Ledger, view: View | None, seconds: object) -> int:
    from study.cli.live import watch
    from study.common.tables import wide_console
    from study.store.status import StatusBoard

    if not isinstance(seconds, float | int) or not 0 < seconds < 3600:
        raise InvalidInputError(field="watch", received=seconds, legal="seconds above 0 and under 3600")
    refresh = (lambda: None) if view is None else view.refresh
    watch(StatusBoard(ledger), wide_console(), seconds, refresh=refresh, more=partial(_outlook, ledger))
    return 0


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A study in a line.

    Attributes:
        study: its folder, as it is named from here.
        states: state -> number of trials.
        runner: who runs it now, if anybody does.
        next: the command to go on with.
    """

    study: str
    states: Mapping[str, int]
    runner: str | None
    next: str

    @property
    def state(self) -> str:
        """In words."""
        told = ", ".join(f"{many} {state}" for state, many in self.states.items()) or "no trials yet"
        return f"{told}; being run" if self.runner else told


def studies_here(folder: Path) -> list[Overview]:
    """The studies in a folder: itself, those in it, those in its `studies`. What is no study is passed over.

    A finished trial is told by its result being there, and none is audited: ten thousand take a second.
    """
    found = list(_studies(folder))
    trials = {ledger.root: _trials(ledger) for ledger in found}
    unfinished = [trial for each in trials.values() for trial in each if not trial.has(RESULT)]
    locks.look([*(trial.locks_path for trial in unfinished), *(ledger.root / "locks" for ledger in found)])
    return [_overview(ledger, trials[ledger.root]) for ledger in found]


def _of_all(args: argparse.Namespace) -> int:
    """Print the studies that are here."""
    from study.common.tables import PlainConsole, TextColumn, print_table

    if args.watch is not None:
        raise InvalidInputError(field="--watch", received="no study", legal="a study's folder or URL before it")
    rows, console = studies_here(Path()), PlainConsole()
    if args.json:
        print(json.dumps([asdict(row) for row in rows]))
        return 0
    if not rows:
        console.print(f"no study in {Path.cwd()} or its {STUDIES}; `pgps demo` makes one, `pgps --help` says more")
        return 0
    print_table(
        console,
        [
            TextColumn(heading="study", cells=[row.study for row in rows], keep=True),
            TextColumn(heading="trials", cells=[row.state for row in rows], keep=True),
            TextColumn(heading="next", cells=[row.next for row in rows], keep=True),
        ],
    )
    return 0


def _studies(folder: Path) -> Iterator[Ledger]:
    for path in (folder, *_folders(folder), *_folders(folder / STUDIES)):
        try:
            if (path / "study.json").is_file():
                yield Ledger.open(path)
        except (StudyError, OSError):
            continue


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def _trials(ledger: Ledger) -> list[TrialFolder]:
    found = map(TrialFolder, _folders(ledger.trials_folder))
    return [trial for trial in found if trial.has(RESULT) or trial.has(SPEC)]


def _overview(ledger: Ledger, trials: list[TrialFolder]) -> Overview:
    counted = Counter(map(_state, trials))
    states = {state.value: counted[state] for state in TrialState if counted[state]}
    runner = ledger.runner()
    return Overview(
        study=str(ledger.root),
        states=states,
        runner=None if runner is None else str(runner),
        next=_next(ledger.root, states, bool(runner)),
    )


def _state(trial: TrialFolder) -> TrialState:
    try:
        return trial.state()
    except (LedgerError, OSError):
        return TrialState.UNREADABLE


def _next(root: Path, states: Mapping[str, int], is_running: bool) -> str:
    where = shlex.quote(str(root))
    if is_running:
        return f"pgps status {where} --watch"
    if set(states) != {TrialState.FINISHED.value}:
        return f"pgps status {where}"
    return f"pgps recommend {where} --knee" if (root / "report" / "report.html").exists() else f"pgps report {where}"

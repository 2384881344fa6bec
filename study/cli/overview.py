"""The studies of a folder: what `pgps` and `pgps status` show when no study is named."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from study.common.errors import LedgerError, StudyError
from study.store import locks
from study.store.ledger import Ledger
from study.store.trial_folder import RESULT, SPEC, TrialFolder, TrialState

if TYPE_CHECKING:
    from study.common.tables import PlainConsole

STUDIES = "studies"


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


def show(console: PlainConsole, folder: Path, *, as_json: bool) -> None:
    """Print them."""
    from study.common.tables import TextColumn, print_table

    rows = studies_here(folder)
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    if not rows:
        console.print(
            f"no study in {folder.resolve()} or its {STUDIES}; `pgps demo` makes one, `pgps --help` says more"
        )
        return
    print_table(
        console,
        [
            TextColumn(heading="study", cells=[row.study for row in rows], keep=True),
            TextColumn(heading="trials", cells=[row.state for row in rows], keep=True),
            TextColumn(heading="next", cells=[row.next for row in rows], keep=True),
        ],
    )


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
    found = map(TrialFolder, _folders(ledger.root / "trials"))
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

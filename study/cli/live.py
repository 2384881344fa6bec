"""A study while it runs: a line for every trial that ends, with the time left, and in a terminal the table of all.

The lines come from the ledger alone, so they say what is safely on disk.

Showing how a study stands again and again, until Ctrl-C or until nobody reads it.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from study.common.tables import PlainConsole
from study.common.terminal import python, time_left
from study.store.ledger import Ledger
from study.store.outlook import ENDED, StudyPreview, outlook, recorded_preview
from study.store.status import StatusBoard, TrialStatus, best, counts, last_ones, print_table, rich_table, scheme_words
from study.store.trial_folder import TrialState

if TYPE_CHECKING:
    from study.nnunet.prepare import PreparationProgress
    from study.nnunet.prepare.sources import PlansRecipe


class LiveTable:
    """The lines of a run of a study. Use as a context manager.

    Args:
        ledger: of the study.
        console: to print to.
        clock: seconds, rising.
    """

    def __init__(self, ledger: Ledger, console: PlainConsole, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger, self._board, self._console, self._clock = ledger, StatusBoard(ledger), console, clock
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._told = {row.trial_id for row in self._board.rows() if row.state in ENDED}
        self._ended, self._wanted, self._began = 0, 0, clock()
        self._preview: StudyPreview | None = None

    def __enter__(self) -> LiveTable:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh(at_once=True)
        if self._live:
            self._live.stop()
        elif rows := self._board.rows():
            print_table(self._console, rows)
            for line in self._outlook(rows):
                self._console.print(line)

    def begin(self, wanted: int) -> None:
        """The trainings start.

        Args:
            wanted: how many trials this run is to bring to their end.
        """
        self._wanted, self._began = wanted, self._clock()
        self._preview = recorded_preview(self._ledger)

    def refresh(self, *, at_once: bool = False) -> None:
        """Say which trials have ended since, and draw the table where there is a terminal."""
        self._ledger.refresh(at_once=at_once)
        rows = self._board.rows()
        for row in rows:
            if row.state in ENDED and row.trial_id not in self._told:
                self._told.add(row.trial_id)
                self._ended += 1
                self._console.print(f"{ending(row)}  ({self._progress(rows)})")
        if self._live:
            table = rich_table(last_ones(rows, self._console.height), self._console.width)
            self._live.update(Group(table, *self._outlook(rows)), refresh=True)

    def _outlook(self, rows: Sequence[TrialStatus]) -> list[str]:
        return [] if self._preview is None else [outlook(self._preview, rows).words()]

    def _progress(self, rows: Sequence[TrialStatus]) -> str:
        left = self._wanted - self._ended
        if left <= 0:
            return f"{self._ended} of {self._ended}"
        if self._preview is not None:
            return f"{self._ended} of {self._wanted}, {outlook(self._preview, rows).left or 'nothing left'}"
        seconds = (self._clock() - self._began) / self._ended * left
        return f"{self._ended} of {self._wanted}, about {time_left(seconds)} left"


def ending(row: TrialStatus) -> str:
    """How a trial ended, in a line."""
    if row.dice is None:
        return f"{row.trial_id}  {scheme_words(row)}  {row.state.value}: {row.last_error}"
    return f"{row.trial_id}  {scheme_words(row)}  Dice {row.dice:.4f}  {row.runtime_seconds:.1f} s"


def closing(out: Path | str, rows: Sequence[TrialStatus], verb: str, *more: str) -> list[str]:
    """The last lines of a run: how its trials stand, the best one, and the command to go on with.

    Args:
        out: the study's folder or URL.
        rows: its trials.
        verb: of `python -m analysis`.
        *more: what it needs besides the study.
    """
    lines = [f"{out}: {counts(rows)}"]
    if (found := best(rows)) is not None:
        words = shlex.join(["-m", "analysis", verb, str(out), *more])
        lines += [f"best    {ending(found)}", f"next    {python()} {words}"]
    return lines


def finishing(out: Path | str, ledger: Ledger, rows: Sequence[TrialStatus]) -> Iterator[str]:
    """The command for each trial that was stopped late that trains it to its end all the same."""
    stopped = [row.trial_id for row in rows if row.state is TrialState.STOPPED]
    if stopped:
        from analysis.advice.text import Recipe, recorded_data, trial_command

    for trial_id in stopped:
        folder = ledger.trial(trial_id)
        command = trial_command(Recipe.of_spec(folder.spec()), out=out, data=recorded_data(folder))
        yield f"{trial_id} to its end all the same: {command}"


def watch(
    board: StatusBoard,
    console: PlainConsole,
    seconds: float,
    refresh: Callable[[], None],
    more: Callable[[Sequence[TrialStatus]], list[str]] = lambda _: [],
) -> None:
    """Draw the table every so many seconds; without a terminal, print it whenever the counts have changed.

    Args:
        board: of the study.
        console: to draw on.
        seconds: between two looks.
        refresh: fetches what is not on this disk.
        more: lines below the counts.
    """
    said = ""
    with Live(console=console, auto_refresh=False) as live:
        while not console.quiet:
            rows = board.rows()
            if console.is_terminal:
                table = rich_table(last_ones(rows, console.height), console.width)
                live.update(Group(table, counts(rows), *more(rows)), refresh=True)
            elif counts(rows) != said:
                said = counts(rows)
                print_table(console, rows)
                for line in (said, *more(rows)):
                    console.print(line)
            time.sleep(seconds)
            refresh()


@contextmanager
def bar(*columns: ProgressColumn) -> Iterator[Progress]:
    """A progress bar on standard error, gone when it is done; none where that is no terminal."""
    console = PlainConsole(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        yield shown


@contextmanager
def preparation_bar(recipe: PlansRecipe) -> Iterator[Callable[[PreparationProgress], None]]:
    """One bar for all steps of a preparation; yields what `prepare` reports to."""
    from study.nnunet.prepare.steps import step_count

    step, cases = TextColumn("{task.description:36}", markup=False), TextColumn("{task.fields[cases]}", markup=False)
    with bar(step, BarColumn(), cases, TimeElapsedColumn()) as shown:
        task = shown.add_task("checking", total=step_count(recipe), cases="")

        def report(progress: PreparationProgress) -> None:
            share = progress.done / progress.cases if progress.cases else 0.0
            cases = f"{progress.done} of {progress.cases} cases" if progress.cases else ""
            shown.update(task, description=progress.step, completed=progress.index + share, cases=cases)

        yield report

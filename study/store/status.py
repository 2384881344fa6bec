"""The state of a study, read from its ledger alone: no Ray, and while the study runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from study.common.errors import LedgerError, StudyError
from study.curriculum.schemes import SCHEMES, Axes
from study.curriculum.table import size_text
from study.store import locks
from study.store.audit import UNFORESEEN, Records, begun, read_trial, reading_many
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.prediction import predict_command
from study.store.readings import fallback_lines
from study.store.specification import TrialSpec
from study.store.taken import Work, spread, words, works
from study.store.trial_folder import TrialFolder, TrialState

if TYPE_CHECKING:
    from rich.table import Table

    from study.common.tables import PlainConsole, TextColumn

STATE_STYLES = {
    TrialState.FINISHED: "green",
    TrialState.STOPPED: "blue",
    TrialState.RUNNING: "cyan",
    TrialState.FAILED: "red",
    TrialState.INFEASIBLE: "magenta",
    TrialState.INTERRUPTED: "yellow",
    TrialState.NEW: "dim",
    TrialState.UNREADABLE: "bold red",
}

MOST_NAMED = 8
# Lines of a screen that the head of a table and what follows it take.
SCREEN_MARGIN = 6
# One that is running when nobody runs the study is about to end.
RESUMABLE = (TrialState.INTERRUPTED, TrialState.FAILED, TrialState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class TrialStatus:
    """One line of the table; costs are of the training loop, None is unmeasured or not there yet.

    Of an unreadable trial only state, reason and log are known.

    Attributes:
        iteration, total_iterations: progress of the training.
        stopped_at_iteration: where a finished trial reached the Dice to stop at; None at its end or before.
        patch_size: of the last epoch's stage, voxels per axis.
        pseudo_dice: of the last validated epoch; dice: of the final validation.
        last_error: why the trial is failed, infeasible, stopped late or unreadable.
        unmeasured: why energy is not known, a line per part.
        fallbacks: what the last attempt did not run as intended on its GPU, a line each.
        log, predict: path of the log, and the command that predicts with a finished model.
        remarks: what a reader of a finished trial's Dice must know.
        plans: name of its plans; plans_vary: whether its study searches them, not in the JSON.
        works: time of its iterations by shape, see `taken`; not in the JSON.
        spec: what it trains; not in the JSON.
    """

    trial_id: str
    state: TrialState
    scheme: str = ""
    axes: Axes | None = None
    dataset: str = ""
    plans: str = ""
    plans_vary: bool = False
    fold: int | None = None
    seed: int | None = None
    iteration: int = 0
    total_iterations: int = 0
    stopped_at_iteration: int | None = None
    patch_size: tuple[int, ...] | None = None
    pseudo_dice: float | None = None
    dice: float | None = None
    runtime_seconds: float = 0.0
    co2_kg: float | None = None
    attempts: int = 0
    waste_seconds: float = 0.0
    last_error: str | None = None
    unmeasured: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    log: str = ""
    predict: str | None = None
    remarks: tuple[str, ...] = ()
    works: Mapping[tuple[object, ...], Work] = field(default_factory=dict)
    spec: TrialSpec | None = None

    def to_json(self) -> dict[str, Any]:
        """The line as plain JSON."""
        line = {**asdict(replace(self, works={}, spec=None)), "state": self.state.value}
        del line["works"], line["spec"], line["plans_vary"]
        return line


def study_status(ledger: Ledger) -> list[TrialStatus]:
    """A line per trial, oldest first; see `StatusBoard`."""
    return StatusBoard(ledger).rows()


class StatusBoard:
    """The lines of a study again and again, reading only what has changed: of a thousand trials, few are running."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._plans_vary = ledger, False
        self._known: dict[str, tuple[object, TrialStatus]] = {}
        self._order: dict[str, tuple[int, str]] = {}
        with suppress(LedgerError):  # told where the header is needed
            self._plans_vary = isinstance((ledger.header().get("space") or {}).get("plans"), Mapping)

    def rows(self) -> list[TrialStatus]:
        """A line per trial, oldest first; one that does not pass the audit is unreadable, with the reason."""
        folders = self._folders()
        locks.look(folder.locks_path for folder in folders if not folder.has("result.json"))
        with reading_many():
            return [self._row(folder) for folder in folders]

    def _folders(self) -> list[TrialFolder]:
        """All trials in order; only new ones are looked at."""
        place = self._ledger.trials_folder
        names = {path.name for path in place.iterdir()} if place.is_dir() else set()
        for name in names - self._order.keys():
            since = begun(TrialFolder(place / name))
            if since is not None:
                self._order[name] = since, name
        return [TrialFolder(place / name) for name in sorted(names & self._order.keys(), key=self._order.__getitem__)]

    def _row(self, folder: TrialFolder) -> TrialStatus:
        before, row = self._known.get(folder.trial_id, (None, None))
        # A finished one can change no more, unless somebody takes the result away.
        if row is not None and row.state is TrialState.FINISHED and before == folder.result_stamp():
            return row
        signature: object = folder.signature()
        if row is None or before != signature or row.state is TrialState.RUNNING:
            row = replace(_status(folder), plans_vary=self._plans_vary)
            finished = row.state is TrialState.FINISHED
            self._known[folder.trial_id] = folder.result_stamp() if finished else signature, row
        return row


# Headings of the table, whether they are over numbers, and whether they always stay; what goes first stands last.
_COLUMNS = (
    ("trial", False, True),
    ("state", False, False),
    ("scheme", False, True),
    ("Dice", True, True),
    ("seconds", True, False),
    ("iteration", True, False),
    ("fold", True, False),
    ("seed", True, False),
    ("budget", True, False),
    ("patch", True, False),
    ("g CO2", True, False),
    ("waste s", True, False),
    ("attempts", True, False),
)


def rich_table(rows: Sequence[TrialStatus], width: int) -> Table:
    """The lines as a table for a terminal of so many letters."""
    from study.common.tables import fitting_table

    return fitting_table(_columns(rows), width)


def _columns(rows: Sequence[TrialStatus]) -> list[TextColumn]:
    from rich.text import Text

    from study.common.tables import TextColumn

    cells = list(zip(*map(_cells, rows), strict=True)) or [()] * len(_COLUMNS)
    states = [Text(row.state.value, style=STATE_STYLES[row.state]) for row in rows]
    columns = [
        TextColumn(heading=heading, cells=states if heading == "state" else column, right=right, keep=keep)
        for (heading, right, keep), column in zip(_COLUMNS, cells, strict=True)
    ]
    if any(row.plans_vary for row in rows):
        columns.insert(3, TextColumn(heading="plans", cells=[row.plans or "-" for row in rows], keep=True))
    return columns


def print_table(console: PlainConsole, rows: Sequence[TrialStatus]) -> None:
    """Print the lines as a table."""
    from study.common import tables

    tables.print_table(console, _columns(rows))


def last_ones(rows: Sequence[TrialStatus], height: int) -> list[TrialStatus]:
    """As many lines as a screen has room for, in order: all that are not finished, then the newest."""
    room = max(1, height - SCREEN_MARGIN)
    finished = [index for index, row in enumerate(rows) if row.state is TrialState.FINISHED]
    others = [index for index, row in enumerate(rows) if row.state is not TrialState.FINISHED]
    return [rows[index] for index in sorted([*finished, *others][-room:])]


def counts(rows: Sequence[TrialStatus]) -> str:
    """How many trials are in which state, in one line."""
    number = Counter(row.state for row in rows)
    return ", ".join(f"{number[state]} {state.value}" for state in TrialState if number[state]) or "no trials"


def contention(rows: Sequence[TrialStatus]) -> str:
    """What to say beside the seconds of these trials when the same work took them different times."""
    return words(spread(row.works for row in rows))


def found(rows: Sequence[TrialStatus], new: int) -> str:
    """What a resumed study finds, in one line.

    Args:
        rows: its trials.
        new: how many are going to be begun.
    """
    finished = sum(row.state is TrialState.FINISHED for row in rows)
    infeasible = sum(row.state is TrialState.INFEASIBLE for row in rows)
    stopped = sum(row.state is TrialState.STOPPED for row in rows)
    resumable = [row for row in rows if row.state in RESUMABLE]
    where = ", ".join(f"{row.trial_id} at {row.iteration}" for row in resumable[:MOST_NAMED])
    more = ", …" if len(resumable) > MOST_NAMED else ""
    waste = sum(row.waste_seconds for row in rows)
    return (
        f"found {finished} finished, {f'{infeasible} infeasible, ' if infeasible else ''}"
        f"{f'{stopped} stopped late, ' if stopped else ''}"
        f"{len(resumable)} resumable{f' ({where}{more})' if where else ''}, {new} new; {waste:.1f} s wasted so far"
    )


def _status(folder: TrialFolder) -> TrialStatus:
    try:
        return _read(folder, read_trial(folder))
    except (StudyError, *UNFORESEEN) as error:
        unreadable, log = TrialState.UNREADABLE, str(folder.log_path)
        return TrialStatus(trial_id=folder.trial_id, state=unreadable, last_error=str(error), log=log)


def _read(folder: TrialFolder, records: Records) -> TrialStatus:
    spec, result, attempts, intervals = records.spec, records.result, records.attempts, records.intervals
    costs = bill(attempts, intervals)
    trained = max((i.iteration_stop for i in intervals), default=0)
    dice = [epoch.pseudo_dice for epoch in records.epochs if epoch.pseudo_dice is not None]
    return TrialStatus(
        trial_id=folder.trial_id,
        state=records.state,
        scheme=spec.scheme,
        axes=spec.axes,
        dataset=spec.dataset,
        plans=spec.plans,
        fold=spec.fold,
        seed=spec.seed,
        iteration=trained,
        total_iterations=spec.curriculum.total_iterations,
        stopped_at_iteration=None if result is None else spec.stopped_at(result.iterations),
        patch_size=spec.curriculum.stage_at(trained - 1).patch_size if trained else None,
        pseudo_dice=dice[-1] if dice else None,
        dice=None if result is None else result.dice,
        runtime_seconds=costs.training.seconds,
        co2_kg=costs.training.co2_kg if trained else None,
        attempts=len(attempts),
        waste_seconds=costs.waste.seconds,
        last_error=records.failure,
        unmeasured=tuple(f"{part}: {why}" for part, why in costs.unmeasured.items()),
        fallbacks=tuple(fallback_lines(attempts[-1].execution)) if attempts else (),
        log=str(folder.log_path),
        predict=None if result is None else predict_command(folder, spec, attempts),
        remarks=() if result is None else result.remarks,
        works=works(spec, attempts, intervals),
        spec=spec,
    )


def best(rows: Sequence[TrialStatus]) -> TrialStatus | None:
    """The finished trial of the highest Dice, None when none has finished."""
    return max((row for row in rows if row.dice is not None), key=lambda row: row.dice or 0.0, default=None)


def scheme_words(row: TrialStatus) -> str:
    """The scheme, what differs from it, the plans where the study searches them, and the budget."""
    budget = "" if row.axes is None or row.axes.budget == 1 else f" at {100 * row.axes.budget:g} %"
    return f"{_scheme(row)}{f' {row.plans}' if row.plans_vary else ''}{budget}"


def _scheme(row: TrialStatus) -> str:
    if row.axes is None:
        return "-"
    named = SCHEMES.get(row.scheme)
    changed = {name: value for name, value in vars(row.axes).items() if named and value != getattr(named.axes, name)}
    # Without a part of the cases to start on, the other keys of the data curriculum are idle.
    hidden = ("budget", "allocation", *(() if row.axes.needs_ranking else ("pdl_fraction", "pdl_epochs", "pdl_metric")))
    words = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in changed.items()}
    shown = [f"{name}={word}" for name, word in words.items() if name not in hidden]
    return " ".join([row.scheme, *shown])


def _cells(row: TrialStatus) -> list[str]:
    # Marked: a trial that ended where its Dice was reached, and the pseudo Dice that stands in before the validation.
    dice = f"{row.dice:.4f}" if row.dice is not None else "-" if row.pseudo_dice is None else f"~{row.pseudo_dice:.3f}"
    return [
        row.trial_id,
        row.state.value,
        _scheme(row),
        dice,
        f"{row.runtime_seconds:.1f}",
        f"{row.iteration}/{row.total_iterations}{' Dice' if row.stopped_at_iteration else ''}",
        "-" if row.fold is None else str(row.fold),
        "-" if row.seed is None else str(row.seed),
        "-" if row.axes is None else f"{100 * row.axes.budget:g} %",
        size_text(row.patch_size) if row.patch_size else "-",
        "-" if row.co2_kg is None else f"{1000 * row.co2_kg:.3f}",
        f"{row.waste_seconds:.1f}",
        str(row.attempts),
    ]

"""Study folders as four tidy tables: trials, epochs, validation cases and cost segments.

Nothing is left out: a trial that has not finished, that failed or whose folder cannot be read is a row of `trials` with
its state and the reason. The columns are documented in `analysis.columns`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.columns import TABLES, Column, dtypes
from analysis.rows import UNREADABLE, trial_rows
from study import files
from study.audit import folders
from study.errors import LedgerError
from study.ledger import Ledger
from study.terminal import visible

__all__ = ["FINISHED", "KEY", "UNREADABLE", "Tables", "joined", "read_studies", "tables_of"]
FINISHED = "finished"
KEY = ["study", "trial_id"]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What studies hold, in the columns of `columns.TABLES`; `study` and `trial_id` join the tables.

    Attributes:
        trials: a row per trial, oldest of the first study first.
        epochs: a row per trial and epoch.
        cases: a row per trial, validation case and class.
        costs: a row per trial, attempt, phase and stage.
    """

    trials: pd.DataFrame
    epochs: pd.DataFrame
    cases: pd.DataFrame
    costs: pd.DataFrame

    def as_dict(self) -> dict[str, pd.DataFrame]:
        """The tables by name, in the order of `columns.TABLES`."""
        return {name: getattr(self, name) for name in TABLES}


def read_studies(folders: Sequence[Path]) -> Tables:
    """One or several study folders, one below the other; a folder named twice is read once.

    Raises:
        LedgerError: a folder is absent, no study, of a newer version, or not readable.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for study, ledger in _ledgers(folders):
        for folder in _trials(ledger):
            for name, more in trial_rows(study, folder).items():
                rows[name].extend(more)
    return tables_of(rows)


def tables_of(rows: Mapping[str, Iterable[dict[str, Any]]]) -> Tables:
    """Tables from rows by table; what a row does not have is missing."""
    return Tables(**{name: _frame(rows.get(name, ()), columns) for name, columns in TABLES.items()})


def joined(tables: Sequence[Tables]) -> Tables:
    """Several sets of tables as one."""
    return Tables(**{name: pd.concat([getattr(one, name) for one in tables], ignore_index=True) for name in TABLES})


def _frame(rows: Iterable[dict[str, Any]], columns: Sequence[Column]) -> pd.DataFrame:
    names = [column.name for column in columns]
    made = pd.DataFrame(list(rows), columns=names, dtype=object)
    try:
        return made.astype(dtypes(columns))
    except UnicodeEncodeError:  # names of files, in reasons say, that are no UTF-8
        return made.map(lambda cell: visible(cell) if isinstance(cell, str) else cell).astype(dtypes(columns))


def _ledgers(folders: Sequence[Path]) -> list[tuple[str, Ledger]]:
    """Each study with its name: that of its folder, or the whole path where two folders are named alike."""
    roots = list(dict.fromkeys(folder.resolve() for folder in folders))
    names = [files.name_of(root) for root in roots]
    return [
        (visible(str(root)) if names.count(name) > 1 else name, _open(root))
        for root, name in zip(roots, names, strict=True)
    ]


def _open(root: Path) -> Ledger:
    try:
        return Ledger.open(root)
    except OSError as error:
        raise LedgerError(f"cannot read {root}: {error.strerror}") from error


def _trials(ledger: Ledger) -> Sequence[Any]:
    try:
        ledger.look()
        return folders(ledger)
    except OSError as error:
        raise LedgerError(f"cannot read {ledger.root}: {error.strerror}") from error

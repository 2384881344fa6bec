"""Study folders as four tidy tables: trials, epochs, validation cases and cost segments.

Nothing is left out: a trial that has not finished, that failed or whose folder cannot be read is a row of `trials` with
its state and the reason. The columns are documented in `analysis.tables.columns`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.columns import TABLES, Column, dtypes
from analysis.tables.rows import trial_rows
from study.common import files
from study.common.errors import LedgerError
from study.common.setting import Dtype
from study.common.terminal import visible
from study.store import locks
from study.store.audit import folders, reading_ahead
from study.store.ledger import Ledger
from study.store.trial_folder import RESULT

FINISHED = "finished"
KEY = ["study", "trial_id"]


@dataclass(frozen=True, kw_only=True, eq=False)
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


def read_studies(folders: Sequence[Path], *, with_details: bool = True) -> Tables:
    """One or several study folders, one below the other; a folder named twice is read once.

    Args:
        folders: of the studies.
        with_details: whether epochs, costs and means over classes are needed, too; all is audited in any case. Without,
            there are no epochs, no foreground in the cases, and of the costs time and iterations of training by stage.

    Raises:
        LedgerError: a folder is absent, no study, of a newer version, or not readable.
    """
    trials: list[tuple[Any, ...]] = []
    names = [column.name for column in TABLES["trials"]]
    others = {name: _Below(columns) for name, columns in TABLES.items() if name != "trials"}
    for study, ledger in _ledgers(folders):
        for folder, ahead in reading_ahead(_trials(ledger)):
            row, rows = trial_rows(folder, ahead, with_details=with_details)
            trials.append(tuple(map({**row, "study": study, "trial_id": folder.trial_id}.get, names)))
            for name, below in others.items():
                below.add(rows.get(name, {}))
    values = dict(zip(names, zip(*trials, strict=True), strict=False))
    keys: dict[str, Any] = {key: _series(values.get(key, ()), "str") for key in KEY}
    return tables_of({"trials": {**values, **keys}, **{name: below.values(keys) for name, below in others.items()}})


class _Below:
    """Rows of one table, those of each trial below those of the one before, column by column."""

    def __init__(self, columns: Sequence[Column]) -> None:
        # Numbers not as objects: there may be millions.
        types = {name: dtype for name, dtype in dtypes(columns).items() if name not in KEY}
        self._cells: dict[str, Any] = {n: array("d") if dtype == "float64" else [] for n, dtype in types.items()}
        self._lengths: list[int] = []
        self._length = 0

    def add(self, rows: Mapping[str, Sequence[Any]]) -> None:
        """Put a trial's rows below; a column that it lacks is missing there."""
        for name in self._cells.keys() & rows.keys():
            self._fill(name)
            column, cells = self._cells[name], rows[name]
            is_number = isinstance(column, array) and None in cells
            column.extend([math.nan if cell is None else cell for cell in cells] if is_number else cells)
        self._lengths.append(len(next(iter(rows.values()), ())))
        self._length += self._lengths[-1]

    def values(self, keys: Mapping[str, pd.Series[Any]]) -> dict[str, Any]:
        """The columns that there are, with those that say whose each row is, given those of all trials."""
        rows = np.repeat(np.arange(len(self._lengths)), self._lengths)
        for name in self._cells:
            self._fill(name)
        return {**self._cells, **{name: of_trials.take(rows) for name, of_trials in keys.items()}}

    def _fill(self, name: str) -> None:
        column = self._cells[name]
        if missing := self._length - len(column):
            column.extend([math.nan if isinstance(column, array) else None] * missing)


def tables_of(values: Mapping[str, Mapping[str, Sequence[Any]]]) -> Tables:
    """Tables from the values of their columns; None is missing, and so is a column that is not there."""
    return Tables(**{name: _frame(values.get(name, {}), columns) for name, columns in TABLES.items()})


def joined(tables: Sequence[Tables]) -> Tables:
    """Several sets of tables as one."""
    return Tables(**{name: pd.concat([getattr(one, name) for one in tables], ignore_index=True) for name in TABLES})


def _frame(values: Mapping[str, Sequence[Any]], columns: Sequence[Column]) -> pd.DataFrame:
    # Column by column: rows of millions of cells would take a minute and gigabytes.
    return pd.DataFrame({name: _series(values.get(name, ()), dtype) for name, dtype in dtypes(columns).items()})


def _series(cells: Sequence[Any], dtype: Dtype) -> pd.Series[Any]:
    if isinstance(cells, pd.Series):
        return cells.reset_index(drop=True)
    if isinstance(cells, array):
        return pd.Series(np.array(cells))
    made = pd.Series(cells, dtype=object)
    try:
        return made.astype(dtype)
    except UnicodeEncodeError:  # names of files, in reasons say, that are no UTF-8
        return made.map(lambda cell: visible(cell) if isinstance(cell, str) else cell).astype(dtype)


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
        found = folders(ledger)
        locks.look(folder.locks_path for folder in found if not folder.has(RESULT))
        return found
    except OSError as error:
        raise LedgerError(f"cannot read {ledger.root}: {error.strerror}") from error

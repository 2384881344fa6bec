"""Study folders as four tidy tables: trials, epochs, validation cases and cost segments.

Nothing is left out: a trial that has not finished, that failed or whose folder cannot be read is a row of `trials` with
its state and the reason. The columns are documented in `analysis.tables.columns`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.columns import TABLES, Column, dtypes
from analysis.tables.rows import UNREADABLE, trial_columns
from study.common import files
from study.common.errors import LedgerError
from study.common.setting import Dtype
from study.common.terminal import visible
from study.store import locks
from study.store.audit import folders
from study.store.ledger import Ledger
from study.store.trial_folder import RESULT

__all__ = ["FINISHED", "KEY", "UNREADABLE", "Tables", "joined", "read_studies", "tables_of"]
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
        with_details: whether epochs and costs are needed, too; they are audited in any case. Without, there are no
            epochs, and of the costs the time and iterations of training by stage.

    Raises:
        LedgerError: a folder is absent, no study, of a newer version, or not readable.
    """
    values: dict[str, dict[str, Any]] = {
        name: {column.name: [] for column in columns if column.name not in KEY} for name, columns in TABLES.items()
    }
    keys, lengths = [], []
    for study, ledger in _ledgers(folders):
        for folder in _trials(ledger):
            keys.append((study, folder.trial_id))
            lengths.append(_add(trial_columns(folder, with_details=with_details), values))
    of_trials = [_series(names, "str") for names in zip(*keys, strict=True)]
    for number, name in enumerate(TABLES if keys else ()):
        rows = np.repeat(np.arange(len(keys)), [counts[number] for counts in lengths])
        values[name] |= {key: column.take(rows) for key, column in zip(KEY, of_trials, strict=True)}
    return tables_of(values)


def _add(
    columns: Mapping[str, Mapping[str, Sequence[Any]]], values: Mapping[str, Mapping[str, list[Any]]]
) -> list[int]:
    """Put a trial's rows below those of each table, and say how many they are."""
    lengths = []
    for table, mine in values.items():
        there = columns.get(table, {})
        lengths.append(len(next(iter(there.values()), ())))
        if missing := [None] * lengths[-1]:
            for name, cells in mine.items():
                cells.extend(there.get(name) or missing)
    return lengths


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

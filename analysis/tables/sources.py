"""Where tables come from: study folders, or the parquet files that a report keeps beside its page.

report/data/{trials,epochs,cases,costs}.parquet   the tables
report/data/schema.json                           version, and name, unit, dtype and meaning of every column
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO

import pandas as pd

from analysis.tables.columns import TABLES, dtypes
from analysis.tables.contention import with_paces
from analysis.tables.frame import Tables, joined, read_studies
from study.common.errors import LedgerError
from study.common.files import write_atomically

DATA = "data"
DEMO = "studies/demo"
SCHEMA_FILE = "schema.json"
SCHEMA_VERSION = 1
KEY = ("study", "trial_id")


def read(folders: Sequence[Path], *, with_details: bool = True) -> Tables:
    """The tables of study folders, reports and folders of parquet files, one below the other.

    Args:
        folders: of these.
        with_details: see `read_studies`.

    Raises:
        LedgerError: a folder is none of these, of a newer version, or not readable.
    """
    stored = {folder: _stored(folder) for folder in folders}
    studies = [folder for folder, data in stored.items() if data is None]
    parts = [read_studies(studies, with_details=with_details)] if studies else []
    parts += [_load(data) for data in dict.fromkeys(stored.values()) if data is not None]
    return with_paces(joined(parts))


def load_trials(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a parquet file of trials, for studies too large for all of them.

    Raises:
        LedgerError: the file is no such table, or lacks a column.
    """
    types = {name: dtype for name, dtype in dtypes(TABLES["trials"]).items() if name in columns}
    try:
        return pd.read_parquet(path, columns=list(columns)).astype(types)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise LedgerError(f"{path} is not a table of trials with {', '.join(columns)} ({reason})") from error


def save(tables: Tables, folder: Path) -> list[Path]:
    """Write the tables as parquet files with their schema; the folder is made if absent."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {f"{name}.parquet": frame.to_parquet(index=False) for name, frame in tables.as_dict().items()}
    content[SCHEMA_FILE] = json.dumps(schema(), indent=1, ensure_ascii=False).encode()
    for name, data in content.items():
        write_atomically(folder / name, partial(_put, data))
    return [folder / name for name in content]


def schema() -> dict[str, object]:
    """The columns of the four tables with label, unit, dtype and meaning."""
    tables = {name: [asdict(column) for column in columns] for name, columns in TABLES.items()}
    return {"schema": SCHEMA_VERSION, "missing": "an empty cell; never 0", "tables": tables}


def _stored(folder: Path) -> Path | None:
    """The folder of parquet files that is meant, None if it is to be read as a study."""
    if (folder / "study.json").exists():
        return None
    return next((data for data in (folder, folder / DATA) if (data / "trials.parquet").exists()), None)


def _load(folder: Path) -> Tables:
    _check_schema(folder)
    return Tables(**{name: _load_table(folder / f"{name}.parquet", name) for name in TABLES})


def _check_schema(folder: Path) -> None:
    path = folder / SCHEMA_FILE
    try:
        version = json.loads(path.read_text(encoding="utf-8"))["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{path} is not a readable schema ({error}); write the report anew") from error
    if version != SCHEMA_VERSION:
        raise LedgerError(f"{folder} has tables of schema {version}, this version reads {SCHEMA_VERSION}; update it")


def _load_table(path: Path, name: str) -> pd.DataFrame:
    types = dtypes(TABLES[name])
    try:
        frame = pd.read_parquet(io.BytesIO(path.read_bytes()))
        if frame.columns.isin(KEY).sum() < len(KEY):
            raise KeyError(*KEY)
        # What a report from before a column was added does not have is missing.
        return frame.reindex(columns=list(types)).astype(types)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise LedgerError(f"{path} is not a table of {name} ({reason}); write the report anew") from error


def _put(content: bytes, handle: IO[bytes]) -> None:
    handle.write(content)


def named_studies() -> list[Path]:
    """The studies of a notebook: those that `PGPS_STUDIES` names, or the demo's, in this folder or one above it."""
    named = os.environ.get("PGPS_STUDIES")
    if named:
        return [Path(name) for name in named.split(os.pathsep)]
    here = Path.cwd()
    return [next((folder / DEMO for folder in (here, *here.parents) if (folder / DEMO).is_dir()), Path(DEMO))]

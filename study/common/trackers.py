"""Trackers of experiments by name, and what can be said of a target before anything is sent there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from study.common.errors import InvalidInputError, MachineError, check_path

TRACKERS = {
    "mlflow": "MLflow's tracking server or store, such as sqlite:///runs.db",
    "wandb": "folder of offline runs of Weights & Biases, for `wandb sync`",
    "tensorboard": "folder of event files, a folder in it for each trial",
}
"""Tracker, also the name of the extra that installs it and of what is imported -> what its target is."""
TROUBLES = "trackers"
"""In study.json: tracker -> what was wrong with it when the study last ran, of those with which something was."""
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_LEGAL_URI = "http(s)://HOST:PORT, sqlite:///FILE.db, postgresql://…, mysql://…, mssql://…, databricks, or a plugin's"


def shown(target: str) -> str:
    """A target, or a text about one, without the password that may be in it."""
    return re.sub(r"//[^/\s]*@", "//…@", target)


def troubles(header: Mapping[str, Any]) -> dict[str, str]:
    """Those that a study's header names."""
    return dict(header.get(TROUBLES) or {})


def trouble_words(tracker: str, trouble: str) -> str:
    """What is wrong with a tracker, for a user."""
    return f"{tracker} is not told, trainings go on: {trouble}; `export STUDY --{tracker}` sends what it lacks"


def folder_of(tracker: str, target: str) -> Path | None:
    """The local folder that a tracker writes to, None where it is none."""
    if tracker != "mlflow":
        return Path(target)
    return Path(target.partition(":///")[2]).parent if target.startswith("sqlite:///") else None


def check_target(tracker: str, target: str, field: str) -> None:
    """Refuse a tracker that is not installed and a target that cannot be one; nothing is written, nobody asked.

    Args:
        tracker: a key of `TRACKERS`.
        target: MLflow's URI, or a folder.
        field: as the user wrote it.

    Raises:
        MachineError: the library is not installed.
        InvalidInputError: the target is none.
    """
    if find_spec(tracker) is None:
        raise MachineError(f"{tracker} is not installed; pip install 'pgps-study[{tracker}]'")
    if not target.isprintable() or not target.strip():
        raise InvalidInputError(field=field, received=target, legal=TRACKERS[tracker])
    if tracker == "mlflow" and not _is_uri(target):
        raise InvalidInputError(field=field, received=shown(target), legal=_LEGAL_URI)
    folder = folder_of(tracker, target)
    if folder is not None and tracker == "mlflow" and Path(target.partition(":///")[2]).is_dir():
        raise InvalidInputError(field=field, received=target, legal="a file for the database, sqlite:///FILE.db")
    if folder is not None:
        check_path(field, str(folder) if tracker == "mlflow" else target)
        _check_folder(tracker, folder.absolute(), field)


def _check_folder(tracker: str, folder: Path, field: str) -> None:
    """A database makes no folders."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    is_made = tracker != "mlflow" or there == folder
    if not is_made or not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        legal = "in a folder that is there" if not is_made else "a folder to write to"
        raise InvalidInputError(field=field, received=str(folder), legal=legal)


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    scheme = parts.scheme.partition("+")[0]
    if scheme in ("http", "https"):
        return bool(parts.hostname)
    if scheme in _DATABASES:
        return text.partition("://")[2].strip("/") not in ("", ":memory:")
    own = {point.name for point in entry_points(group="mlflow.tracking_store")} | {"databricks"}
    return text.partition(":")[0] in own

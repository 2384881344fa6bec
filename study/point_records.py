"""The records of a study's points: one line a point, and a line for each to which folds or seeds were added later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from study import files
from study.checks import check_name
from study.errors import LedgerError

REMEDY = "restore it from a backup: it says what the searcher proposed"


def read(path: Path) -> list[dict[str, Any]]:
    """Points in order: `number`, `point` (name -> value) and all of their `trial_ids`.

    Raises:
        LedgerError: a line is damaged, or one that another extends is missing.
    """
    points: list[dict[str, Any]] = []
    for record in files.load_lines(path, _checked, REMEDY):
        if "point" in record:
            points.append({"number": len(points), **record})
        elif record["extends"] < len(points):
            points[record["extends"]]["trial_ids"] = record["trial_ids"]
        else:
            raise LedgerError(f"{path} has lost lines: point {len(points)} is missing; {REMEDY}")
    return points


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    is_sound = isinstance(record["extends"], int) if "extends" in record else isinstance(record["point"], dict)
    if not is_sound or not all(isinstance(name, str) for name in record["trial_ids"]):
        raise TypeError("a point has settings and trials")
    for trial_id in record["trial_ids"]:
        check_name("trial_ids", trial_id)
    return record

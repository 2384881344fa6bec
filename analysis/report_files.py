"""The folder of a report: written file by file, each one whole, and cleared of what an earlier report left.

Only files that a report wrote are ever removed: those that its `files.json` names, and where a page has no such list
beside it, those that reports used to put there.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from analysis.columns import TABLES
from analysis.drawing import FIGURE_FORMATS, FIGURES, TABLE_FORMATS, Drawn
from analysis.drawing import TABLES as TABLE_FOLDER
from analysis.exhibits import STEM
from analysis.frame import Tables
from analysis.sources import DATA, SCHEMA_FILE, save
from study.files import write_atomically

PAGE, LIST = "report.html", "files.json"
DATA_FILES: tuple[str, ...] = (*(f"{DATA}/{name}.parquet" for name in TABLES), f"{DATA}/{SCHEMA_FILE}")
"""Names of the tidy tables within a report."""

_BEFORE = ("trials.parquet", "trials.csv", "trials.md", "front.csv", "pareto_dice_*.png", "pareto_dice_*.svg")
_OURS = re.compile(
    rf"{FIGURES}/{STEM.pattern}\.({'|'.join(FIGURE_FORMATS)})"
    rf"|{TABLE_FOLDER}/{STEM.pattern}\.({'|'.join(TABLE_FORMATS)})"
)


@dataclass(frozen=True)
class ReportFolder:
    """A report's folder, made when it is first written to."""

    root: Path

    def write(self, drawn: Iterable[Drawn], tables: Tables, page: str) -> None:
        """Write a report in the place of the one before.

        Args:
            drawn: its exhibits.
            tables: its data.
            page: content of the page.

        Raises:
            OSError: the folder cannot be written, or leads elsewhere.
        """
        files = {name: content for one in drawn for name, content in one.files.items()}
        if foreign := [name for name in files if not _OURS.fullmatch(name)]:
            raise ValueError(f"{foreign[0]!r} is no file of a report: the next one would not clear it")
        self.root.mkdir(parents=True, exist_ok=True)
        for name in (FIGURES, TABLE_FOLDER, DATA):
            if (self.root / name).is_symlink():
                raise OSError(errno.ELOOP, f"{self.root / name} is a link; delete it")
        self._clear()
        # First of all, so that a report that is cut short is cleared too.
        self._put(LIST, json.dumps(sorted(files), indent=1).encode())
        for name, content in (files | {PAGE: page.encode(errors="backslashreplace")}).items():
            self._put(name, content)
        save(tables, self.root / DATA)

    def _clear(self) -> None:
        for path in self._left():
            path.unlink(missing_ok=True)

    def _left(self) -> Iterator[Path]:
        """Files of the report before; a list that does not read as one names none."""
        if (self.root / PAGE).exists() and not (self.root / LIST).exists():
            for pattern in _BEFORE:
                yield from self.root.glob(pattern)
        try:
            names = json.loads((self.root / LIST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(names, list):
            yield from (self.root / name for name in names if isinstance(name, str) and _OURS.fullmatch(name))

    def _put(self, name: str, content: bytes) -> None:
        def put(handle: IO[bytes]) -> None:
            handle.write(content)

        write_atomically(self.root / name, put)

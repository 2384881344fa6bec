"""A report: figures, tables, data and a page from one or several studies, written to one folder.

    report/
      report.html                             everything to read, in one file
      figures/{stem}.png, .svg, .pdf          every figure
      tables/{stem}.csv, .md, .tex            every table; `trials` is that of all trials
      data/{trials,epochs,cases,costs}.parquet, schema.json
      files.json                              what a report wrote, so that the next one can take it away

With several datasets, stems end in the dataset's name. What is drawn is up to the sections.

The folder of a report: written file by file, each one whole, and cleared of what an earlier report left.

Only files that a report wrote are ever removed: those that its `files.json` names, and where a page has no such list
beside it, those that reports used to put there.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import pandas as pd

from analysis.comparison.reference import source
from analysis.figures.images import FIGURE_FORMATS, FIGURES, TABLE_FORMATS, Drawn, draw_all
from analysis.figures.images import TABLES as TABLE_FOLDER
from analysis.figures.sections import STEM, Exhibit, Section
from analysis.fronts.caveats import basis, constant_share, states, words_of
from analysis.page.cards import as_script, card_data, card_rows, events_of
from analysis.page.effects import effects
from analysis.page.fronts import fronts
from analysis.page.page import Page, PageExhibit, PageSection, render
from analysis.page.papers import papers
from analysis.statistics.evidence import Evidence, gather
from analysis.tables.columns import TABLES
from analysis.tables.contention import sentences as contention
from analysis.tables.format import readable, without_empty
from analysis.tables.frame import FINISHED, Tables
from analysis.tables.grid import Grid
from analysis.tables.rows import UNREADABLE
from analysis.tables.sources import DATA, SCHEMA_FILE, save
from analysis.tables.units import counted
from study import __version__
from study.common.errors import MachineError
from study.common.files import name_of, write_atomically

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


FOLDER = "report"
CHAPTERS: tuple[Callable[[Evidence], Section], ...] = (fronts, papers, effects)
"""What a report tells, in order."""
# From so many trials on, drawing in several processes saves more than starting them costs.
_MANY_TRIALS, _MOST_PROCESSES = 200, 4
_PARETO = "pareto_"
_TRIAL_TABLE = (
    *("study", "dataset", "trial_id", "state", "method", "fold", "seed", "dice", "runtime_seconds", "co2_kg"),
    *("energy_kwh", "voxel_share", "n_stages", "min_patch", "batch_growth", "order", "budget", "optimizer"),
    *("initial_learning_rate", "epochs", "iterations", "total_seconds", "waste_seconds", "attempts", "failure"),
)
# States of trials that no figure shows, and what to say of them.
_NOT_SHOWN = {
    "running": "still running: this is a study in progress, and its figures will change",
    "interrupted": "interrupted and not finished; the same command resumes",
    "failed": "failed: in the table with the reason, in no figure",
    "infeasible": "infeasible: in the table with the reason, in no figure",
    UNREADABLE: "unreadable: in the table with the reason, in no figure",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was written.

    Attributes:
        folder: of the report; page: its report.html.
        figures: the PNG files, Pareto plots first.
        missing: why something that one might expect was not drawn.
        trials: the table of trials.
    """

    folder: Path
    page: Path
    figures: tuple[Path, ...]
    missing: tuple[str, ...]
    trials: pd.DataFrame

    @property
    def pareto_figures(self) -> tuple[Path, ...]:
        """The Pareto plots among the figures."""
        return tuple(path for path in self.figures if path.name.startswith(_PARETO))


def write_report(
    studies: Sequence[Path],
    out: Path | None = None,
    country: str | None = None,
    *,
    reference: str | None = None,
    sections: Sequence[Callable[[Evidence], Section]] = CHAPTERS,
) -> Report:
    """Write the report of one or several studies.

    Args:
        studies: study folders, reports or folders of tables.
        out: folder to write to; by default `report` inside the study, or here for several studies.
        country: ISO 3166 alpha-3 code of the grid to draw CO₂ for; None takes the recorded ones.
        reference: published numbers to show beside the study's, a name out of `reference.REFERENCES`.
        sections: what it tells, in order.

    Raises:
        LedgerError: a folder is no readable study.
        InvalidInputError: no such country or reference.
        MachineError: the report cannot be written.
    """
    if reference is not None:
        source(reference)
        sections = [partial(papers, reference=reference) if one is papers else one for one in sections]
    evidence = gather(studies, grid=Grid(country=country) if country else None)
    folder = out or (studies[0] / FOLDER if len(studies) == 1 else Path(FOLDER))
    _make(folder)
    told = [section(evidence) for section in sections]
    trials = _trials(evidence.tables.trials)
    exhibits = [*(exhibit for section in told for exhibit in section.exhibits), trials]
    processes = min(os.cpu_count() or 1, _MOST_PROCESSES) if len(evidence.tables.trials) >= _MANY_TRIALS else 1
    drawn = {
        exhibit.stem: done for exhibit, done in zip(exhibits, draw_all(exhibits, processes=processes), strict=True)
    }
    page = render(_page(_title(studies), evidence, told, trials, drawn, studies))
    try:
        ReportFolder(folder).write(drawn.values(), evidence.tables, page)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return Report(
        folder=folder,
        page=folder / PAGE,
        figures=tuple(sorted(_pictures(folder, drawn), key=lambda path: not path.name.startswith(_PARETO))),
        missing=tuple(sentence for section in told for sentence in section.missing),
        trials=evidence.tables.trials,
    )


def _make(folder: Path) -> None:
    """Before anything is drawn: that takes its time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> MachineError:
    return MachineError(f"cannot write the report to {folder}: {error.strerror}; name another --out")


def _title(studies: Sequence[Path]) -> str:
    return "Study report: " + ", ".join(dict.fromkeys(name_of(study.resolve()) for study in studies))


def _pictures(folder: Path, drawn: dict[str, Drawn]) -> Iterator[Path]:
    return (folder / name for one in drawn.values() for name in one.files if name.endswith(".png"))


def _trials(trials: pd.DataFrame) -> Exhibit:
    """All trials; on the page which study and dataset only where there are several."""
    said = [name for name in ("study", "dataset") if trials[name].nunique() == 1]
    names = [name for name in without_empty(trials, _TRIAL_TABLE) if name not in said]
    caption = "Every trial, whatever its state"
    return Exhibit(stem="trials", heading="All trials", data=trials, table=readable(trials, names), caption=caption)


def _page(
    title: str,
    evidence: Evidence,
    sections: Sequence[Section],
    trials: Exhibit,
    drawn: dict[str, Drawn],
    studies: Sequence[Path],
) -> Page:
    frame = evidence.tables.trials
    return Page(
        title=title,
        subtitle=states(frame),
        basis=basis(frame, evidence.points),
        notices=list(_notices(frame, evidence.points)),
        sections=[_page_section(section, drawn) for section in sections],
        trials=_page_exhibit(trials, drawn[trials.stem]) if len(frame) else None,
        trial_ids=frame["trial_id"].tolist(),
        card_rows=card_rows(frame),
        cards=as_script(card_data(evidence, events_of(studies))),
        data_files=DATA_FILES,
        footer=f"Made by pgps-study {__version__} on {datetime.date.today().isoformat()}.",
    )


def _page_section(section: Section, drawn: dict[str, Drawn]) -> PageSection:
    return PageSection(
        anchor=section.anchor,
        heading=section.heading,
        intro=section.intro,
        exhibits=[_page_exhibit(exhibit, drawn[exhibit.stem]) for exhibit in section.exhibits],
        missing=section.missing,
    )


def _page_exhibit(exhibit: Exhibit, drawn: Drawn) -> PageExhibit:
    return PageExhibit(
        stem=exhibit.stem,
        heading=exhibit.heading,
        wide=drawn.wide,
        narrow=drawn.narrow,
        notes=exhibit.notes,
        table=exhibit.table,
        caption=exhibit.caption,
        files=list(drawn.files),
    )


def _notices(trials: pd.DataFrame, points: pd.DataFrame) -> Iterator[str]:
    if trials.empty:
        yield "The study has no trials yet: nothing to compare."
    elif not (trials["state"] == FINISHED).any():
        yield "No trial has finished, so there is no front to draw. The table says where each one stands."
    for dataset, part in points.groupby("dataset"):
        for said in [*contention(part), *constant_share(part)]:
            yield f"{dataset}: {said}"
    for reason in sorted(words_of(trials["unmeasured"])):
        count = int(trials["unmeasured"].str.contains(reason, regex=False).sum())
        yield f"Energy and CO₂ of {counted(count, 'trial')} not measured: {reason}."
    for state, words in _NOT_SHOWN.items():
        count = int((trials["state"] == state).sum())
        if count:
            yield f"{counted(count, 'trial')} {words}."

"""A report: figures, tables, data and a page from one or several studies, written to one folder.

    report/
      report.html                             everything to read, in one file
      figures/{stem}.png, .svg, .pdf          every figure
      tables/{stem}.csv, .md, .tex            every table; `trials` is that of all trials
      data/{trials,epochs,cases,costs}.parquet, schema.json
      files.json                              what a report wrote, so that the next one can take it away

With several datasets, stems end in the dataset's name. What is drawn is up to the sections.

The page needs nothing else, on a phone, in the dark, on paper, without a network. Everything can be read without its
script, which adds cards, sorting and filters. Every text that comes from a study is escaped in `page.html`, in `format`
or in `cards`.

The folder is written file by file, each one whole, and cleared of what an earlier report left. Only files that a report
wrote are ever removed, those that its `files.json` names.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from analysis.comparison.reference import source
from analysis.figures.display_items import (
    FIGURE_FORMATS,
    FIGURES,
    STEM,
    TABLE_FORMATS,
    DisplayItem,
    Drawn,
    Section,
    draw_all,
    share_styles,
)
from analysis.figures.display_items import TABLES as TABLE_FOLDER
from analysis.figures.style import PAINTS
from analysis.fronts.captions import basis, constant_share, states, words_of
from analysis.fronts.stops import late_stops
from analysis.page.answer import answers, confirmation
from analysis.page.cards import as_script, card_data, card_rows, events_of
from analysis.page.papers import papers
from analysis.page.sections import certainty, costs, effects, fronts, weaknesses
from analysis.statistics.study_results import StudyResults, gather
from analysis.tables.columns import TABLES, Column
from analysis.tables.contention import sentences as contention
from analysis.tables.format import Table, counted, html, readable, without_empty
from analysis.tables.frame import Tables
from analysis.tables.rows import UNREADABLE
from analysis.tables.sources import DATA, SCHEMA_FILE, Grid, save
from study import __version__
from study.common.errors import MachineError
from study.common.files import name_of, write_bytes

PAGE, LIST, FOLDER = "report.html", "files.json", "report"
DATA_FILES: tuple[str, ...] = (*(f"{DATA}/{name}.parquet" for name in TABLES), f"{DATA}/{SCHEMA_FILE}")
"""Names of the tidy tables within a report."""
CHAPTERS: tuple[Callable[[StudyResults], Section], ...] = (fronts, papers, costs, weaknesses, certainty, effects)
"""What a report tells, in order."""

_OURS = re.compile(
    rf"{FIGURES}/{STEM.pattern}\.({'|'.join(FIGURE_FORMATS)})"
    rf"|{TABLE_FOLDER}/{STEM.pattern}\.({'|'.join(TABLE_FORMATS)})"
)
_SCRIPTS = ("page_cards.js", "page_points.js", "page_tables.js")
_FORMATS = {"md": "Markdown", "tex": "LaTeX"}
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
    "stopped": "stopped late: in the table with the reason, on no front",
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
    sections: Sequence[Callable[[StudyResults], Section]] = CHAPTERS,
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
    results = gather(studies, grid=Grid(country=country) if country else None)
    folder = out or (studies[0] / FOLDER if len(studies) == 1 else Path(FOLDER))
    with _writing_to(folder):
        # Before anything is drawn: that takes its time.
        folder.mkdir(parents=True, exist_ok=True)
    told = _told(results, sections)
    drawn = _drawn(results, told)
    with _writing_to(folder):
        page = render(results, told, drawn=drawn, beside=folder)
        write_folder(folder, drawn.values(), results.tables, page)
    pictures = (folder / name for one in drawn.values() for name in one.files if name.endswith(".png"))
    return Report(
        folder=folder,
        page=folder / PAGE,
        figures=tuple(sorted(pictures, key=lambda path: not path.name.startswith(_PARETO))),
        missing=tuple(sentence for section in told for sentence in section.missing),
        trials=results.tables.trials,
    )


def page_of(results: StudyResults, sections: Sequence[Callable[[StudyResults], Section]] = CHAPTERS) -> str:
    """The page alone, an HTML document that needs no file beside it and writes none."""
    told = _told(results, sections)
    return render(results, told, drawn=_drawn(results, told, files=False), beside=None)


def _told(results: StudyResults, sections: Sequence[Callable[[StudyResults], Section]]) -> list[Section]:
    told = [section(results) for section in sections]
    told[1:1] = confirmation(results.folders)
    return told


def _drawn(results: StudyResults, told: Sequence[Section], *, files: bool = True) -> dict[str, Drawn]:
    """Every item by its stem, the table of trials last."""
    trials = results.tables.trials
    items = [*(item for section in told for item in section.items), _trials(trials)]
    processes = min(os.cpu_count() or 1, _MOST_PROCESSES) if len(trials) >= _MANY_TRIALS else 1
    done = draw_all(items, processes=processes, files=files)
    return {item.stem: one for item, one in zip(items, done, strict=True)}


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(f"cannot write the report to {folder}: {error.strerror}; name another --out") from error


def write_folder(root: Path, drawn: Iterable[Drawn], tables: Tables, page: str) -> None:
    """Write a report in the place of the one before.

    Args:
        root: its folder, made if need be.
        drawn: its items.
        tables: its data.
        page: content of the page.

    Raises:
        OSError: the folder cannot be written, or leads elsewhere.
    """
    contents = {name: content for one in drawn for name, content in one.files.items()}
    if foreign := [name for name in contents if not _OURS.fullmatch(name)]:
        raise ValueError(f"{foreign[0]!r} is no file of a report: the next one would not clear it")
    root.mkdir(parents=True, exist_ok=True)
    for name in (FIGURES, TABLE_FOLDER, DATA):
        if (root / name).is_symlink():
            raise OSError(errno.ELOOP, f"{root / name} is a link; delete it")
    for path in list(_left_in(root)):
        path.unlink(missing_ok=True)
    # The list first of all, so that a report that is cut short is cleared too.
    listed = {LIST: json.dumps(sorted(contents), indent=1).encode()}
    for name, content in (listed | contents | {PAGE: page.encode(errors="backslashreplace")}).items():
        write_bytes(root / name, content)
    save(tables, root / DATA)


def _left_in(root: Path) -> Iterator[Path]:
    """Files of the report before; a list that does not read as one names none."""
    try:
        names = json.loads((root / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(names, list):
        yield from (root / name for name in names if isinstance(name, str) and _OURS.fullmatch(name))


def _trials(trials: pd.DataFrame) -> DisplayItem:
    """All trials; on the page which study and dataset only where there are several."""
    said = [name for name in ("study", "dataset") if trials[name].nunique() == 1]
    names = [name for name in without_empty(trials, _TRIAL_TABLE) if name not in said]
    caption = "Every trial, whatever its state"
    return DisplayItem(stem="trials", heading="All trials", data=trials, table=readable(trials, names), caption=caption)


def render(
    results: StudyResults, sections: Sequence[Section], *, drawn: Mapping[str, Drawn], beside: Path | None
) -> str:
    """The HTML document.

    Args:
        results: what it is about.
        sections: what it tells.
        drawn: every item by its stem, and that of `trials`.
        beside: the folder that the page will lie in, from which cards lead to trials; None leads nowhere.
    """
    frame, styles = results.tables.trials, dict[str, str]()
    title = "Study report: " + ", ".join(dict.fromkeys(name_of(study.resolve()) for study in results.folders))
    items = [item for section in sections for item in section.items]
    cards = card_rows(frame)

    def table(one: Table, caption: str, row_ids: Sequence[str | None] = ()) -> Markup:
        return Markup(html(one, caption=caption, cards=cards, row_ids=row_ids))

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return environment.from_string(_text("page.html")).render(
        title=title,
        subtitle=states(frame),
        basis=basis(frame, results.points),
        notices=[*_notices(frame, results.points), *late_stops(results.folders)],
        answers=answers(results),
        choices=[item for item in items if item.choice],
        sections=[replace(one, items=[each for each in one.items if not each.choice]) for one in sections],
        trials=_trials(frame),
        # An id for the first row of each trial: two studies may hold the same trial.
        row_ids=("trial-" + frame["trial_id"]).mask(frame["trial_id"].duplicated(), "").tolist(),
        drawn=drawn,
        data_files=DATA_FILES if beside else (),
        schemas={name: _schema(columns) for name, columns in TABLES.items()},
        cards=Markup(as_script(card_data(results, events_of(results.folders), beside=beside))),
        footer=f"Made by pgps-study {__version__} on {datetime.date.today().isoformat()}.",
        stylesheet=Markup(stylesheet()),
        script=Markup("".join(map(_text, _SCRIPTS))),
        styles=styles,
        shared=lambda svg: Markup(share_styles(svg, styles)),
        table=table,
        words_of=_words_of,
    )


def stylesheet() -> str:
    """The page's CSS: colours for light and dark, paper always light, then the layout."""
    light = "".join(f"--{paint.name}:{paint.light};" for paint in PAINTS)
    dark = "".join(f"--{paint.name}:{paint.dark};" for paint in PAINTS)
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n{_text('page.css')}"


def _text(name: str) -> str:
    return (files("analysis.page") / name).read_text(encoding="utf-8")


def _words_of(name: str) -> str:
    """`figure PNG`, `table CSV`, `trials.parquet`."""
    folder, _, file = name.rpartition("/")
    kind = {FIGURES: "figure", TABLE_FOLDER: "table"}.get(folder)
    ending = file.rpartition(".")[2]
    return f"{kind} {_FORMATS.get(ending, ending.upper())}" if kind else file


def _schema(columns: Sequence[Column]) -> Table:
    headings = ("Column", "Unit", "Type", "Meaning")
    rows = tuple((column.name, column.unit, column.dtype, column.meaning) for column in columns)
    return Table(headings=headings, numeric=(False,) * len(headings), rows=rows)


def _notices(trials: pd.DataFrame, points: pd.DataFrame) -> Iterator[str]:
    for dataset, part in points.groupby("dataset"):
        for said in [*contention(part), *constant_share(part)]:
            yield f"{dataset}: {said}"
    for reason in sorted(words_of(trials["unmeasured"])):
        count = int(trials["unmeasured"].str.contains(reason, regex=False).sum())
        yield f"Energy and CO₂ of {counted(count, 'trial')} not measured: {reason}."
    for state, words in _NOT_SHOWN.items():
        if count := int((trials["state"] == state).sum()):
            yield f"{counted(count, 'trial')} {words}."

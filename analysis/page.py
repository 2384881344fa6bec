"""The page of a report: one HTML file that needs nothing else, on a phone, in the dark, on paper, without a network.

Every text that comes from a study is escaped here or in `tables`; figures come as SVG elements from `svg`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from analysis.columns import Column
from analysis.style import PAINTS
from analysis.tables import Table, html


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One figure of the page with its table.

    Attributes:
        wide, narrow: the same figure as SVG elements for large and small screens.
        notes: sentences below it.
        table: of its front; caption of that table.
    """

    wide: str
    narrow: str
    notes: Sequence[str]
    table: Table
    caption: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page says about one dataset.

    Attributes:
        heading: the dataset's name.
        charts: its figures.
        missing: why a figure that one might expect is not there.
    """

    heading: str
    charts: Sequence[Chart]
    missing: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything on the page.

    Attributes:
        title: in the window and on top; subtitle below it.
        basis: pairs of heading and sentence: what the page rests on.
        notices: sentences that matter to the whole page.
        sections: one per dataset with results.
        trials: the table of all trials, None when there is none.
        columns: descriptions of the columns in the files.
        files: names of the files beside the page.
        footer: who made it and when.
    """

    title: str
    subtitle: str
    basis: Sequence[tuple[str, str]]
    notices: Sequence[str]
    sections: Sequence[Section]
    trials: Table | None
    columns: Sequence[Column]
    files: Sequence[str]
    footer: str


def render(page: Page) -> str:
    """The HTML document."""
    parts = [
        f"<h1>{escape(page.title)}</h1>\n<p class=muted>{escape(page.subtitle)}</p>\n",
        *(_notice(sentence) for sentence in page.notices),
        _facts(page.basis),
        *(_section(section) for section in page.sections),
        _trials(page.trials),
        _columns(page.columns),
        _footer(page),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{stylesheet()}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def stylesheet() -> str:
    """The page's CSS: colours for light and dark, paper always light, then the layout."""
    light = "".join(f"--{paint.name}:{paint.light};" for paint in PAINTS)
    dark = "".join(f"--{paint.name}:{paint.dark};" for paint in PAINTS)
    rules = (files("analysis") / "page.css").read_text(encoding="utf-8")
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n{rules}"


def _notice(sentence: str) -> str:
    return f"<p class=notice>{escape(sentence)}</p>\n"


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(heading)}</dt><dd>{escape(sentence)}</dd>\n" for heading, sentence in pairs)
    return f"<h2>What this rests on</h2>\n<dl>\n{rows}</dl>\n" if rows else ""


def _section(section: Section) -> str:
    charts = "".join(_chart(chart) for chart in section.charts)
    return (
        f"<section>\n<h2>{escape(section.heading)}</h2>\n{charts}{''.join(map(_notice, section.missing))}</section>\n"
    )


def _chart(chart: Chart) -> str:
    notes = f"<figcaption>{escape(' '.join(chart.notes))}</figcaption>\n" if chart.notes else ""
    figure = f"<figure>\n{chart.wide}\n{chart.narrow}\n{notes}</figure>\n"
    return figure + html(chart.table, caption=chart.caption)


def _trials(table: Table | None) -> str:
    if table is None:
        return ""
    return f"<section>\n<h2>All trials</h2>\n{html(table, caption='Every trial, whatever its state')}</section>\n"


def _columns(columns: Sequence[Column]) -> str:
    headings = ("Column", "Unit", "Type", "Meaning")
    rows = tuple((c.name, c.unit, c.dtype, c.meaning) for c in columns)
    table = Table(headings=headings, numeric=(False,) * len(headings), rows=rows)
    body = html(table, caption="Columns of trials.csv and trials.parquet")
    return f"<details class=wrap>\n<summary>What the columns of the files mean</summary>\n{body}</details>\n"


def _footer(page: Page) -> str:
    names = ", ".join(page.files)
    beside = f"Beside this page: {names}." if names else ""
    return f"<footer class=muted><p>{escape(beside)}</p><p>{escape(page.footer)}</p></footer>\n"

"""The page of a report: one HTML file that needs nothing else, on a phone, in the dark, on paper, without a network.

Everything can be read without its script, which adds cards, sorting and filters. Every text that comes from a study is
escaped here, in `tables` or in `cards`; figures come as SVG elements from `images`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from analysis.figures.images import FIGURES, SharedStyles
from analysis.figures.images import TABLES as TABLE_FILES
from analysis.figures.style import PAINTS
from analysis.tables.columns import TABLES, Column
from analysis.tables.format import Table, html

# The page itself forbids to load anything, so that a mistake cannot.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_FORMATS = {"md": "Markdown", "tex": "LaTeX"}
_SCRIPTS = ("page_cards.js", "page_points.js", "page_tables.js")


@dataclass(frozen=True, kw_only=True)
class PageExhibit:
    """A figure, a table or both.

    Attributes:
        stem: of its files, and its anchor.
        heading: a few words.
        wide, narrow: the same figure as SVG elements for large and small screens; empty without a figure.
        notes: sentences below it.
        table, caption: None and unused without a table.
        files: names beside the page, relative to it.
    """

    stem: str
    heading: str
    wide: str = ""
    narrow: str = ""
    notes: Sequence[str] = ()
    table: Table | None = None
    caption: str = ""
    files: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class PageSection:
    """Exhibits about one question; the fields are those of `exhibits.Section`."""

    anchor: str
    heading: str
    intro: str = ""
    exhibits: Sequence[PageExhibit] = ()
    missing: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything on the page.

    Attributes:
        title: in the window and on top; subtitle below it.
        basis: pairs of heading and sentence: what the page rests on.
        notices: sentences that matter to the whole page.
        sections: in order.
        trials: all trials, None when there are none; trial_ids: of its rows.
        card_rows: identity of a trial or configuration -> id of its row in `trials`.
        cards: data of the cards, safe inside a script element.
        data_files: names of the tidy tables beside the page.
        footer: who made it and when.
    """

    title: str
    subtitle: str
    basis: Sequence[tuple[str, str]]
    notices: Sequence[str]
    sections: Sequence[PageSection]
    trials: PageExhibit | None
    trial_ids: Sequence[str]
    card_rows: Mapping[str, str]
    cards: str
    data_files: Sequence[str]
    footer: str


def render(page: Page) -> str:
    """The HTML document."""
    styles = SharedStyles()
    sections = "".join(_section(section, page.card_rows, styles) for section in page.sections)
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{escape(page.title)}</title>\n<style>\n{stylesheet()}{styles.rules}</style>\n</head>\n<body>\n",
            '<a class="skip" href="#content">Skip to the results</a>\n',
            f"<header>\n<h1>{escape(page.title)}</h1>\n<p class=muted>{escape(page.subtitle)}</p>\n",
            *(_notice(sentence) for sentence in page.notices),
            f"{_facts(page.basis)}</header>\n{_contents(page)}",
            '<div id="filters" class="filters" hidden></div>\n<main id="content" tabindex="-1">\n',
            sections,
            _trials(page),
            _data(page.data_files),
            f"</main>\n<footer class=muted><p>{escape(page.footer)}</p></footer>\n",
            f"{_cards(page.cards)}</body>\n</html>\n",
        ]
    )


def stylesheet() -> str:
    """The page's CSS: colours for light and dark, paper always light, then the layout."""
    light = "".join(f"--{paint.name}:{paint.light};" for paint in PAINTS)
    dark = "".join(f"--{paint.name}:{paint.dark};" for paint in PAINTS)
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n{_text('page.css')}"


def _text(name: str) -> str:
    return (files("analysis.page") / name).read_text(encoding="utf-8")


def _cards(data: str) -> str:
    script = "".join(map(_text, _SCRIPTS))
    return (
        '<div id="tip" class="tip" hidden></div>\n'
        '<dialog id="card" aria-labelledby="card-title"></dialog>\n'
        f'<script type="application/json" id="card-data">{data}</script>\n<script>\n"use strict";\n{script}</script>\n'
    )


def _notice(sentence: str) -> str:
    return f"<p class=notice>{escape(sentence)}</p>\n"


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(heading)}</dt><dd>{escape(sentence)}</dd>\n" for heading, sentence in pairs)
    return f"<h2>What this rests on</h2>\n<dl>\n{rows}</dl>\n" if rows else ""


def _contents(page: Page) -> str:
    ends = [("trials", "All trials")] if page.trials else []
    entries = [*(_entry(section) for section in page.sections), *(_link(*end) for end in [*ends, ("data", "Data")])]
    return (
        f"<nav aria-label=Contents>\n<ul>\n{''.join(f'<li>{entry}</li>{chr(10)}' for entry in entries)}</ul>\n</nav>\n"
    )


def _entry(section: PageSection) -> str:
    links = ", ".join(_link(exhibit.stem, exhibit.heading) for exhibit in section.exhibits)
    return f"{_link(section.anchor, section.heading)}{f': <span class=muted>{links}</span>' if links else ''}"


def _link(anchor: str, words: str) -> str:
    return f'<a href="#{escape(anchor)}">{escape(words)}</a>'


def _section(section: PageSection, card_rows: Mapping[str, str], styles: SharedStyles) -> str:
    intro = f"<p>{escape(section.intro)}</p>\n" if section.intro else ""
    exhibits = "".join(_exhibit(exhibit, card_rows, styles) for exhibit in section.exhibits)
    return (
        f'<section id="{escape(section.anchor)}">\n<h2>{escape(section.heading)}</h2>\n{intro}{exhibits}'
        f"{''.join(map(_notice, section.missing))}</section>\n"
    )


def _exhibit(exhibit: PageExhibit, card_rows: Mapping[str, str], styles: SharedStyles) -> str:
    return (
        f'<article id="{escape(exhibit.stem)}">\n<h3>{escape(exhibit.heading)}</h3>\n{_figure(exhibit, styles)}'
        f"{_table(exhibit, card_rows)}{_file_links(exhibit.files)}</article>\n"
    )


def _figure(exhibit: PageExhibit, styles: SharedStyles) -> str:
    notes = escape(" ".join(exhibit.notes))
    if not exhibit.wide:
        return f"<p class=muted>{notes}</p>\n" if notes else ""
    caption = f"<figcaption>{notes}</figcaption>\n" if notes else ""
    wide, narrow = styles.applied(exhibit.wide), styles.applied(exhibit.narrow)
    return f"<figure>\n{wide}\n{narrow}\n{caption}</figure>\n"


def _table(exhibit: PageExhibit, card_rows: Mapping[str, str], row_ids: Sequence[str | None] = ()) -> str:
    if exhibit.table is None:
        return ""
    return html(exhibit.table, caption=exhibit.caption or exhibit.heading, cards=card_rows, row_ids=row_ids)


def _file_links(names: Sequence[str]) -> str:
    links = " · ".join(f'<a href="{escape(name)}">{escape(_words_of(name))}</a>' for name in names)
    return f"<p class=files>Files: {links}</p>\n" if links else ""


def _words_of(name: str) -> str:
    """`figure PNG`, `table CSV`, `trials.parquet`."""
    folder, _, file = name.rpartition("/")
    kind = {FIGURES: "figure", TABLE_FILES: "table"}.get(folder)
    ending = file.rpartition(".")[2]
    return f"{kind} {_FORMATS.get(ending, ending.upper())}" if kind else file


def _trials(page: Page) -> str:
    if page.trials is None:
        return ""
    row_ids = list(_row_ids(page.trial_ids))
    return (
        '<section id="trials">\n<h2>All trials</h2>\n'
        f"{_table(page.trials, page.card_rows, row_ids)}{_file_links(page.trials.files)}</section>\n"
    )


def _row_ids(trial_ids: Iterable[str]) -> Iterator[str | None]:
    """An id for the first row of each trial: two studies may hold the same trial."""
    seen: set[str] = set()
    for trial_id in trial_ids:
        yield None if trial_id in seen else f"trial-{trial_id}"
        seen.add(trial_id)


def _data(names: Sequence[str]) -> str:
    schemas = "".join(_schema(name, columns) for name, columns in TABLES.items())
    return (
        '<section id="data">\n<h2>Data</h2>\n<p>The tidy tables that everything here is computed from, as parquet; '
        f"study and trial_id join them.</p>\n{_file_links(names)}{schemas}</section>\n"
    )


def _schema(name: str, columns: Sequence[Column]) -> str:
    headings = ("Column", "Unit", "Type", "Meaning")
    rows = tuple((c.name, c.unit, c.dtype, c.meaning) for c in columns)
    table = Table(headings=headings, numeric=(False,) * len(headings), rows=rows)
    body = html(table, caption=f"Columns of {name}.parquet")
    return f"<details class=wrap>\n<summary>What the columns of {name} mean</summary>\n{body}</details>\n"

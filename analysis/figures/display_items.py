"""What a report is made of: sections of display items, a figure, a table or both each, and what must be said beside it.

An item becomes files: `figures/{stem}.png`, `.svg`, `.pdf`; `tables/{stem}.csv` (numbers in files' units), `.md`,
`.tex`. Its figure is drawn for files, and for wide and narrow screens of a page.

A figure as bytes of a PNG or a PDF, as an SVG file, or as an `<svg>` element of a page.

On a page, colours become CSS variables, ids unique, and text is the page's own; in a file, text is drawn, so that it
looks the same everywhere. The same figure gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import FILE, NARROW, PAINTS, RC, WIDE, Layout
from analysis.statistics.study_results import StudyResults
from analysis.tables.format import Table, latex, markdown

STEM = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_+.-]*")
FIGURES, TABLES = "figures", "tables"
FIGURE_FORMATS, TABLE_FORMATS = ("png", "svg", "pdf"), ("csv", "md", "tex")
_DOTS_PER_INCH = 150
# What a formula begins with, in one spreadsheet or another.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def stem_of(name: str) -> str:
    """A name as a part of a stem: other letters are replaced, and told apart by a hash."""
    plain = re.sub(r"[^A-Za-z0-9_+-]", "_", name)
    return plain if plain == name else f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, kw_only=True)
class DisplayItem:
    """One figure, one table, or a figure with its table.

    Attributes:
        stem: name of its files, unique in a report, of letters, digits, `_`, `-` and `+`.
        heading: a few words, on the page above it.
        choice: of figures that differ in one word, say the cost, that word: a page shows one of them, first of all.
        folded: whether the page shows the heading alone until it is asked for more.
        draw: makes the figure in a layout (for a file, a wide page, a narrow page); None if there is none.
        alt: the figure in words, for those who do not see it: what it shows and what one reads off it.
        notes: sentences below it: how to read it, what to beware of.
        data: the rows as numbers in the files' units, for CSV; None if there is no table.
        table: the same rows for people, for the page, Markdown and LaTeX; goes with `data`.
        caption: of the table.

    Raises:
        ValueError: the stem is none.
    """

    stem: str
    heading: str
    choice: str = ""
    folded: bool = False
    draw: Callable[[Layout], Figure] | None = None
    alt: str = ""
    notes: Sequence[str] = ()
    data: pd.DataFrame | None = None
    table: Table | None = None
    caption: str = ""

    def __post_init__(self) -> None:
        if not STEM.fullmatch(self.stem):
            raise ValueError(f"{self.stem!r} is no stem of a file's name")


@dataclass(frozen=True, kw_only=True)
class Section:
    """Items about one question.

    Attributes:
        anchor: of the section on the page, a word.
        heading: of the section.
        intro: a sentence or two: the question, and how to read the answer.
        items: in order.
        missing: sentences that say why an item that one might expect is not there.
    """

    anchor: str
    heading: str
    intro: str = ""
    items: Sequence[DisplayItem] = ()
    missing: Sequence[str] = ()


Part = DisplayItem | str
"""An item, or a sentence that says why it is not there."""


def by_dataset(
    results: StudyResults, parts: Callable[[StudyResults], Iterable[Part]], *, none: str, **words: str
) -> Section:
    """A section with the parts of every dataset; of several, stems, headings and sentences name theirs.

    Args:
        results: of any number of datasets.
        parts: of one of them, in order.
        none: what is said where no dataset has a finished trial.
        words: the section's anchor, heading and intro.
    """
    items: list[DisplayItem] = []
    missing: list[str] = [] if results.datasets else [none]
    several = len(results.datasets) > 1
    for name in results.datasets:
        for part in parts(results.of(name)):
            if isinstance(part, str):
                missing.append(f"{name}: {part}" if several else part)
            elif several:
                ending, heading = stem_of(name), f"{part.heading}, {name}"
                choice = part.choice and f"{name}: {part.choice}"
                items.append(replace(part, stem=f"{part.stem}_{ending}", heading=heading, choice=choice))
            else:
                items.append(part)
    return Section(items=items, missing=missing, **words)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One item, ready to be written.

    Attributes:
        files: name within the report's folder -> content.
        wide, narrow: the figure as `<svg>` elements for large and small screens; empty without a figure.
    """

    files: Mapping[str, bytes]
    wide: str = ""
    narrow: str = ""


def draw_all(items: Sequence[DisplayItem], *, processes: int = 1, files: bool = True) -> list[Drawn]:
    """Draw and set items, in order.

    Args:
        items: of one page; their figures get ids of their own.
        processes: that share the work; starting them takes seconds, so that few small figures are drawn in this one.
        files: whether files are wanted, besides what a page shows.
    """
    jobs = [(item, f"f{number}") for number, item in enumerate(items)]
    if processes < 2:
        return [draw(item, prefix=prefix, files=files) for item, prefix in jobs]
    # Its processes take the closures that items draw with, and are not forks of one that may have threads.
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    # Processes that an earlier call of this one may have left have loaded who knows what.
    get_reusable_executor().shutdown(wait=True)
    try:
        parallel = Parallel(n_jobs=processes, pre_dispatch="all")
        return list(parallel(delayed(draw)(item, prefix=prefix, files=files) for item, prefix in jobs))
    finally:
        # They would wait for more work for five minutes, and a caller that is a process of another pool for them.
        get_reusable_executor().shutdown(wait=True)


def draw(item: DisplayItem, *, prefix: str, files: bool = True) -> Drawn:
    """Draw and set one item, the ids of its figure beginning with a prefix; without files, for a page alone."""
    contents = _contents(item) if files else {}
    if item.draw is None:
        return Drawn(files=contents)
    elements = {
        name: inline_svg(item.draw(layout), prefix=f"{prefix}{name[0]}", alt=item.alt, css_class=name)
        for name, layout in (("wide", WIDE), ("narrow", NARROW))
    }
    return Drawn(files=contents, **elements)


def _contents(item: DisplayItem) -> dict[str, bytes]:
    """Of its files, by name within the report's folder: figures, then tables."""
    tables = {f"{TABLES}/{item.stem}.{ending}": text.encode() for ending, text in _table_texts(item).items()}
    if item.draw is None:
        return tables
    figure = item.draw(FILE)
    formats = (as_png(figure, dots_per_inch=_DOTS_PER_INCH), as_svg(figure).encode(), as_pdf(figure))
    pictures = {f"{FIGURES}/{item.stem}.{end}": made for end, made in zip(FIGURE_FORMATS, formats, strict=True)}
    return pictures | tables


def _table_texts(item: DisplayItem) -> dict[str, str]:
    texts: dict[str, str] = {}
    if item.data is not None:
        words = item.data.select_dtypes(include=["object", "str"]).map(_neutral)
        texts["csv"] = item.data.assign(**words).rename(columns=_neutral).to_csv(index=False)
    if item.table is not None:
        texts["md"] = markdown(item.table)
        texts["tex"] = latex(item.table, caption=item.caption or item.heading, label=item.stem)
    return texts


def _neutral(value: object) -> object:
    """A cell that spreadsheets take for text, not for a formula."""
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(_FORMULA) else "") + value.replace("\r", " ")


_COLOURS = {paint.light: f"var(--{paint.name})" for paint in PAINTS}
_NUMBER = re.compile(r"(\d\.\d\d)\d+")
_EACH = re.compile(r'<g id="each-([^"]+)">(.*?)</g>', re.DOTALL)


def as_png(figure: Figure, *, dots_per_inch: int) -> bytes:
    """A PNG file's content."""
    return _saved(figure, {}, format="png", dpi=dots_per_inch)


def as_pdf(figure: Figure) -> bytes:
    """A PDF file's content: one page of the figure's size, with TrueType, which publishers ask for, not Type 3."""
    return _saved(figure, {"pdf.fonttype": 42}, format="pdf", metadata={"CreationDate": None})


def as_svg(figure: Figure, *, text_as_paths: bool = True) -> str:
    """An SVG file's content."""
    settings = {"svg.fonttype": "path" if text_as_paths else "none"}
    return _saved(figure, settings, format="svg", metadata={"Date": None}).decode()


def _saved(figure: Figure, settings: dict[Any, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    with mpl.rc_context({**RC, **settings}):
        figure.savefig(stream, **options)
    return stream.getvalue()


def inline_svg(figure: Figure, *, prefix: str, alt: str, css_class: str) -> str:
    """An `<svg>` element, whose points say in `data-card` which they are, and other marks in `data-of` whose.

    Args:
        figure: drawn in the light colours of `style`.
        prefix: put before every id, so that several figures fit on a page.
        alt: the figure in words.
        css_class: of the element.
    """
    text = as_svg(figure, text_as_paths=False)
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = _EACH.sub(_told_apart, text)
    text = re.sub(r' id="point-([^"]+)"', r' class="point" data-card="\1"', text)
    text = re.sub(r' id="of-([^"]+)"', r' data-of="\1"', text)
    text = re.sub(r' id="([^"]+)"', _kept_if(set(re.findall(r'(?:href="|url\()#([^")]+)', text))), text)
    text = re.sub(r'( id="|href="#|url\(#)', rf"\1{prefix}-", text)
    text = text.replace(f"font-family: '{RC['font.family']}'; ", "")
    text = re.sub("|".join(_COLOURS), lambda found: _COLOURS[found[0]], text)
    # HTML needs no namespaces, and href without prefix is the current form.
    text = _smaller(text).replace("xlink:href", "href")
    view_box = re.search(r'viewBox="[^"]+"', text)
    opening = f'<svg class="{css_class}" role="img" aria-label="{escape(alt)}" {view_box[0] if view_box else ""}>'
    return re.sub(r"<svg [^>]*>", lambda _: opening, text, count=1)


def _kept_if(used: set[str]) -> Callable[[re.Match[str]], str]:
    """Ids that something refers to; panels share names of others."""
    return lambda found: found[0] if found[1] in used else ""


def _told_apart(found: re.Match[str]) -> str:
    """A cloud of marks, each with the identity of its point; one that is a picture stays as it is."""
    names = iter(found[1].split("-"))
    definitions, end, marks = found[2].rpartition("</defs>")
    marks = re.sub(r"<(use|path) ", lambda mark: f'<{mark[1]} data-of="{next(names)}" ', marks)
    return f"<g>{definitions}{end}{marks}</g>"


def _smaller(text: str) -> str:
    """The same to the eye: a hundredth of a point, no blanks between elements."""
    geometry = r' (?:d|x|y|points|transform)="[^"]*"'
    text = re.sub(geometry, lambda found: _NUMBER.sub(r"\1", found[0]), text)
    return re.sub(r">\s*\n\s*<", "><", text)


def share_styles(elements: str, names: dict[str, str]) -> str:
    """SVG elements with classes in the place of their style attributes, which takes far fewer bytes.

    Args:
        elements: as `inline_svg` makes them.
        names: style -> class, of a page; grows.
    """

    def name(found: re.Match[str]) -> str:
        return f' class="{names.setdefault(found[1], f"s{len(names)}")}"'

    return re.sub(r' style="([^"]*)"', name, elements)

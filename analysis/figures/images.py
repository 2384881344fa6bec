"""A figure as bytes of a PNG or a PDF, as an SVG file, or as an `<svg>` element of a page.

On a page, colours become CSS variables, ids unique, and text is the page's own; in a file, text is drawn, so that it
looks the same everywhere. The same figure gives the same bytes.

One exhibit drawn and set: a figure as files of three formats and as the two SVGs of a page, a table as three files.

`figures/{stem}.png`, `.svg`, `.pdf`; `tables/{stem}.csv` (numbers in the files' units), `.md`, `.tex`.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.sections import Exhibit
from analysis.figures.style import FILE, NARROW, PAINTS, RC, WIDE, Layout
from analysis.tables.format import latex, markdown

# TrueType, which publishers ask for, instead of matplotlib's Type 3.
_PDF_RC: dict[Any, Any] = {"pdf.fonttype": 42}
_ID = re.compile(r' id="([^"]+)"')
_STYLE = re.compile(r' style="([^"]*)"')
_GEOMETRY = re.compile(r' (?:d|x|y|points|transform)="[^"]*"')
_LONG_NUMBER = re.compile(r"(\d\.\d\d)\d+")


def as_png(figure: Figure, *, dots_per_inch: int) -> bytes:
    """A PNG file's content."""
    stream = io.BytesIO()
    with mpl.rc_context(RC):
        figure.savefig(stream, format="png", dpi=dots_per_inch)
    return stream.getvalue()


def as_pdf(figure: Figure) -> bytes:
    """A PDF file's content: one page of the figure's size."""
    stream = io.BytesIO()
    with mpl.rc_context({**RC, **_PDF_RC}):
        figure.savefig(stream, format="pdf", metadata={"CreationDate": None})
    return stream.getvalue()


def as_svg(figure: Figure, *, text_as_paths: bool = True) -> str:
    """An SVG file's content; the same figure gives the same text."""
    stream = io.StringIO()
    with mpl.rc_context({**RC, "svg.fonttype": "path" if text_as_paths else "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def inline_svg(figure: Figure, *, prefix: str, alt: str, css_class: str) -> str:
    """An `<svg>` element.

    Args:
        figure: drawn in the light colours of `style`.
        prefix: put before every id, so that several figures fit on a page.
        alt: the figure in words.
        css_class: of the element.
    """
    text = as_svg(figure, text_as_paths=False)
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = _ID.sub(_numbered(prefix), text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", text)
    text = text.replace(f"font-family: '{RC['font.family']}'; ", "")
    for paint in PAINTS:
        text = text.replace(paint.light, f"var(--{paint.name})")
    text = _smaller(text)
    view_box = re.search(r'viewBox="[^"]+"', text)
    opening = f'<svg class="{css_class}" role="img" aria-label="{escape(alt)}" {view_box[0] if view_box else ""}>'
    # HTML needs no namespaces, and href without prefix is the current form.
    return re.sub(r"<svg [^>]*>", lambda _: opening, text, count=1).replace("xlink:href", "href")


def _numbered(prefix: str) -> Callable[[re.Match[str]], str]:
    """Puts the prefix before an id, and a number after one that is there already: panels may share the ids of marks."""
    seen: Counter[str] = Counter()

    def unique(found: re.Match[str]) -> str:
        name = found[1]
        seen[name] += 1
        return f' id="{prefix}-{name}{"" if seen[name] == 1 else f"-{seen[name]}"}"'

    return unique


class SharedStyles:
    """Style attributes of many SVG elements as rules of one style sheet, which takes far fewer bytes."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def applied(self, svg: str) -> str:
        """The element with classes in the place of its style attributes."""
        return _STYLE.sub(lambda found: f' class="{self._name(found[1])}"', svg)

    @property
    def rules(self) -> str:
        """CSS of all the classes so far."""
        return "".join(f".{name}{{{style}}}\n" for style, name in self._names.items())

    def _name(self, style: str) -> str:
        return self._names.setdefault(style, f"s{len(self._names)}")


def _smaller(text: str) -> str:
    """The same to the eye: a hundredth of a point, no blanks between elements."""
    text = _GEOMETRY.sub(lambda found: _LONG_NUMBER.sub(r"\1", found[0]), text)
    return re.sub(r">\s*\n\s*<", "><", text)


FIGURES, TABLES = "figures", "tables"
FIGURE_FORMATS, TABLE_FORMATS = ("png", "svg", "pdf"), ("csv", "md", "tex")
DOTS_PER_INCH = 150
# What a formula begins with, in one spreadsheet or another.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One exhibit, ready to be written.

    Attributes:
        files: name within the report's folder -> content.
        wide, narrow: the figure as `<svg>` elements for large and small screens; empty without a figure.
    """

    files: Mapping[str, bytes]
    wide: str = ""
    narrow: str = ""


def draw_all(exhibits: Sequence[Exhibit], *, processes: int = 1) -> list[Drawn]:
    """Draw and set exhibits, in order.

    Args:
        exhibits: of one page; their figures get ids of their own.
        processes: that share the work; starting them takes seconds, so that few small figures are drawn in this one.
    """
    prefixes = [f"f{number}" for number in range(len(exhibits))]
    if processes < 2:
        return [draw(exhibit, prefix=prefix) for exhibit, prefix in zip(exhibits, prefixes, strict=True)]
    # Its processes take the closures that exhibits draw with, and are not forks of one that may have threads.
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    jobs = (delayed(draw)(exhibit, prefix=prefix) for exhibit, prefix in zip(exhibits, prefixes, strict=True))
    try:
        return list(Parallel(n_jobs=processes, pre_dispatch="all")(jobs))
    finally:
        # They would wait for more work for five minutes, and a caller that is a process of another pool for them.
        get_reusable_executor().shutdown(wait=True)


def draw(exhibit: Exhibit, *, prefix: str) -> Drawn:
    """Draw and set one exhibit, the ids of its figure beginning with a prefix."""
    files = _table_files(exhibit)
    if exhibit.draw is None:
        return Drawn(files=files)
    wide, narrow = (
        inline_svg(exhibit.draw(layout), prefix=f"{prefix}{name[0]}", alt=exhibit.alt, css_class=name)
        for name, layout in (("wide", WIDE), ("narrow", NARROW))
    )
    return Drawn(files=_figure_files(exhibit.stem, exhibit.draw) | files, wide=wide, narrow=narrow)


def _figure_files(stem: str, make: Callable[[Layout], Figure]) -> dict[str, bytes]:
    figure = make(FILE)
    content = {
        "png": as_png(figure, dots_per_inch=DOTS_PER_INCH),
        "svg": as_svg(figure).encode(),
        "pdf": as_pdf(figure),
    }
    return {f"{FIGURES}/{stem}.{ending}": content[ending] for ending in FIGURE_FORMATS}


def _neutral(data: pd.DataFrame) -> pd.DataFrame:
    """The same with cells that spreadsheets take for text, none for a formula."""

    def neutral(value: object) -> object:
        if not isinstance(value, str):
            return value
        return ("'" if value.startswith(FORMULA) else "") + value.replace("\r", " ")

    words = data.select_dtypes(include=["object", "str"]).map(neutral)
    return data.assign(**words).rename(columns=neutral)


def _table_files(exhibit: Exhibit) -> dict[str, bytes]:
    texts: dict[str, str] = {}
    if exhibit.data is not None:
        texts["csv"] = _neutral(exhibit.data).to_csv(index=False)
    if exhibit.table is not None:
        texts["md"] = markdown(exhibit.table)
        texts["tex"] = latex(exhibit.table, caption=exhibit.caption or exhibit.heading, label=exhibit.stem)
    return {f"{TABLES}/{exhibit.stem}.{ending}": text.encode() for ending, text in texts.items()}

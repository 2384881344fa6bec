"""A figure as bytes of a PNG or a PDF, as an SVG file, or as an `<svg>` element of a page.

On a page, colours become CSS variables, ids unique, and text is the page's own; in a file, text is drawn, so that it
looks the same everywhere. The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from analysis.style import PAINTS, RC

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

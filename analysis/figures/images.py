"""A figure as bytes of a PNG or a PDF, as an SVG file, or as an `<svg>` element of a page.

On a page, colours become CSS variables, ids unique, and text is the page's own; in a file, text is drawn, so that it
looks the same everywhere. The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from analysis.figures.style import PAINTS, RC

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

"""A figure as bytes of a PNG, as an SVG file, or as an `<svg>` element of a page.

On a page, colours become CSS variables, ids unique, and text is the page's own; in a file, text is drawn, so that it
looks the same everywhere.
"""

from __future__ import annotations

import io
import re
from html import escape

import matplotlib as mpl
from matplotlib.figure import Figure

from analysis.style import PAINTS, RC


def as_png(figure: Figure, *, dots_per_inch: int) -> bytes:
    """A PNG file's content."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dots_per_inch)
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
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", text)
    text = text.replace(f"font-family: '{RC['font.family']}'; ", "")
    for paint in PAINTS:
        text = text.replace(paint.light, f"var(--{paint.name})")
    view_box = re.search(r'viewBox="[^"]+"', text)
    opening = f'<svg class="{css_class}" role="img" aria-label="{escape(alt)}" {view_box[0] if view_box else ""}>'
    # HTML needs no namespaces, and href without prefix is the current form.
    return re.sub(r"<svg [^>]*>", lambda _: opening, text, count=1).replace("xlink:href", "href")

"""How things look, the same everywhere: colour and marker of each method, inks, sizes of figures.

The colours of methods are Okabe and Ito's; those of PDL and its combinations are chosen to stay apart from them and
from each other for people with the common colour-blindnesses, too. The markers all differ. Files get the light colours;
a page replaces each by a CSS variable of the same name, so that it follows light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import matplotlib as mpl

from analysis.tables.methods import METHOD_LABELS, OTHER


@dataclass(frozen=True, kw_only=True)
class Paint:
    """A colour of files (`light`) with its counterpart on dark pages; `name` is that of its CSS variable."""

    name: str
    light: str
    dark: str


INK = Paint(name="ink", light="#1f2328", dark="#e8ebef")
MUTED = Paint(name="muted", light="#59626d", dark="#a3adb8")
RULE = Paint(name="rule", light="#c9ced4", dark="#4a525c")
GRID = Paint(name="grid", light="#e7eaed", dark="#2b3138")
SHADE = Paint(name="shade", light="#f4f6f8", dark="#1d2228")
SURFACE = Paint(name="surface", light="#ffffff", dark="#14181d")

_LIGHT = ("#4f576c", "#666970", "#7d7c78", "#948e77", "#aea371", "#c8b866")
_DARK = ("#7d7c78", "#948e77", "#aea371", "#c8b866", "#e5cf52", "#fee838")
LINES = tuple(
    Paint(name=f"line-{number}", light=light, dark=dark)
    for number, (light, dark) in enumerate(zip(_LIGHT, _DARK, strict=True))
)
"""Of several fronts in one figure, from dark to light: matplotlib's cividis, which any eyes tell apart."""


Marker: TypeAlias = str | tuple[int, Literal[1], int]
"""Of matplotlib: a letter, or a star by its number of points."""


@dataclass(frozen=True, kw_only=True)
class MethodStyle:
    """Colour, matplotlib marker and relative area of a method's points."""

    paint: Paint
    marker: Marker
    area: float = 1.0


_STYLES: Mapping[str, MethodStyle] = {
    "cps": MethodStyle(paint=Paint(name="cps", light="#3f4650", dark="#d0d5db"), marker="s", area=0.85),
    "pgps": MethodStyle(paint=Paint(name="pgps", light="#0072b2", dark="#4a9be0"), marker="o"),
    "pgps+": MethodStyle(paint=Paint(name="pgps-plus", light="#d55e00", dark="#f28a3d"), marker="P", area=1.15),
    "rpss": MethodStyle(paint=Paint(name="rpss", light="#009e73", dark="#2cc398"), marker="*", area=1.7),
    "efficiency": MethodStyle(paint=Paint(name="efficiency", light="#cc79a7", dark="#e39ac3"), marker="v", area=1.1),
    "performance": MethodStyle(paint=Paint(name="performance", light="#e69f00", dark="#f5b92e"), marker="^", area=1.1),
    "other": MethodStyle(paint=Paint(name="searched", light="#56b4e9", dark="#9fd8fb"), marker="D", area=0.7),
    "pdl": MethodStyle(paint=Paint(name="pdl", light="#9700fc", dark="#8823fe"), marker="X", area=1.1),
    "pdl+pgps": MethodStyle(paint=Paint(name="pdl-pgps", light="#6f2304", dark="#c9093e"), marker="p", area=1.2),
    "pdl+pgps+": MethodStyle(paint=Paint(name="pdl-pgps-plus", light="#41055b", dark="#8c5081"), marker="d", area=1.1),
    "pdl+rpss": MethodStyle(paint=Paint(name="pdl-rpss", light="#9772fe", dark="#5955ce"), marker="h", area=1.2),
    "pdl+efficiency": MethodStyle(paint=Paint(name="pdl-efficiency", light="#411305", dark="#f1e27b"), marker="<"),
    "pdl+performance": MethodStyle(paint=Paint(name="pdl-performance", light="#ed0c46", dark="#b34b02"), marker=">"),
    "pdl+other": MethodStyle(paint=Paint(name="pdl-searched", light="#5a02b2", dark="#29ffad"), marker="8", area=0.9),
    "imported": MethodStyle(paint=Paint(name="imported", light="#9c3c00", dark="#f030b4"), marker=(8, 1, 0), area=1.4),
}
SPARE_STYLES = (
    MethodStyle(paint=Paint(name="spare-1", light="#000078", dark="#488460"), marker=(4, 1, 0), area=1.6),
    MethodStyle(paint=Paint(name="spare-2", light="#a80090", dark="#901890"), marker=(6, 1, 0), area=1.4),
    MethodStyle(paint=Paint(name="spare-3", light="#54783c", dark="#78b46c"), marker=(3, 1, 0), area=1.6),
)
"""For methods that have no style of their own."""


def styles_of(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """The style of each method: its own, the next spare one, or when those are used up that of searched curricula."""
    spare = iter(SPARE_STYLES)
    return {method: _STYLES.get(method) or next(spare, _STYLES[OTHER]) for method in methods}


METHOD_STYLES: Mapping[str, MethodStyle] = styles_of(METHOD_LABELS)
"""Style of each method, in the order of legends."""

_METHOD_PAINTS = dict.fromkeys(style.paint for style in METHOD_STYLES.values())
PAINTS: tuple[Paint, ...] = (INK, MUTED, RULE, GRID, SHADE, SURFACE, *LINES, *_METHOD_PAINTS)
"""Every colour in use; no two are the same."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a figure is seen: its width in inches, and what there is room for.

    Attributes:
        width: of the figure.
        left: from its edge to the plot.
        rail: whether panels stand side by side, and legend and key in a rail to the right; otherwise below each other.
        line_letters: letters that a line of title and footnote holds.
        alone: whether title, subject and footnote are in the figure; a page has them as text around it.
    """

    width: float
    left: float
    rail: bool
    line_letters: int
    alone: bool = True


FILE = Layout(width=10.3, left=0.8, rail=True, line_letters=180)
WIDE = replace(FILE, alone=False)
NARROW = Layout(width=4.3, left=0.72, rail=False, line_letters=58, alone=False)
"""`FILE` for pictures on their own, `WIDE` and `NARROW` for pages."""

# What a figure does not look like by: how it gets to a screen.
_NOT_LOOKS = ("backend", "interactive", "toolbar", "timezone", "tk.", "webagg.", "savefig.directory", "date.epoch")

RC: dict[Any, Any] = {
    # matplotlib's own defaults, whatever a user's settings or another library (nnU-Net's seaborn) have made of them.
    **{name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith(_NOT_LOOKS)},
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK.light,
    # A dollar sign in a name is a dollar sign.
    "text.parse_math": False,
    "axes.edgecolor": RULE.light,
    "axes.labelcolor": INK.light,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID.light,
    "grid.linewidth": 0.8,
    "xtick.color": RULE.light,
    "ytick.color": RULE.light,
    "xtick.labelcolor": MUTED.light,
    "ytick.labelcolor": MUTED.light,
    "legend.frameon": False,
    "figure.facecolor": SURFACE.light,
    "axes.facecolor": SURFACE.light,
    "savefig.facecolor": SURFACE.light,
    "svg.hashsalt": "pgps-study",
}
"""matplotlib's settings for every figure."""

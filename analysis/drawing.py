"""One exhibit drawn and set: a figure as files of three formats and as the two SVGs of a page, a table as three files.

`figures/{stem}.png`, `.svg`, `.pdf`; `tables/{stem}.csv` (numbers in the files' units), `.md`, `.tex`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analysis.exhibits import Exhibit
from analysis.images import as_pdf, as_png, as_svg, inline_svg
from analysis.latex import latex
from analysis.style import FILE, NARROW, WIDE, Layout
from analysis.tables import markdown

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

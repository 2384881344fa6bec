r"""Tables for people: chosen columns of a frame as text, in Markdown or HTML. CSV and parquet files hold every column.

Amounts are scaled to the unit that fits the column's largest; a missing value is a dash, never 0. `latex` has LaTeX.

Tables for LaTeX: booktabs, escaped, to be taken in by `\input`.

A short table floats and has a caption and a label; one that fills more than a page is a longtable. The first line of
every file names the packages that it needs.

Numbers for people: the unit that fits an amount, and digits without exponents.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Any

import pandas as pd

from analysis.tables.columns import BY_NAME, Column

MISSING = "–"
NO_CARDS: Mapping[str, str] = MappingProxyType({})
_LEADING_NUMBER = re.compile(r"[<>≤≥≈\s]*([-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text cells.

    Attributes:
        headings: one per column, with units.
        numeric: whether a column holds numbers, which are set flush right.
        rows: cells, not escaped for any format.
        points: for each row the identities of the points it is about, with the last of which a filter hides it; none
            where cells name what a row is about, or it is about all.
    """

    headings: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    points: tuple[tuple[str, ...], ...] = ()


def readable(frame: pd.DataFrame, names: Sequence[str]) -> Table:
    """Some columns of a frame as text; their descriptions are those of `analysis.tables.columns`."""
    rendered = [_rendered(BY_NAME[name], frame[name]) for name in names]
    return Table(
        headings=tuple(heading for heading, _ in rendered),
        numeric=tuple(BY_NAME[name].dtype in ("Int64", "float64") for name in names),
        rows=tuple(zip(*(cells for _, cells in rendered), strict=True)),
    )


def without_empty(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Those of the columns that hold anything; all of them when the frame has no rows."""
    return [name for name in names if frame.empty or frame[name].notna().any()]


def markdown(table: Table) -> str:
    """A Markdown table."""
    rule = tuple("---:" if numeric else "---" for numeric in table.numeric)
    escaped = [tuple(_in_markdown(cell) for cell in row) for row in (table.headings, *table.rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (escaped[0], rule, *escaped[1:]))


def _in_markdown(text: str) -> str:
    """Text that is set as it is written: no HTML, links, emphasis or further cells."""
    return re.sub(r"([\\|`*~]|(?<=\])\()", r"\\\1", escape(" ".join(text.split()), quote=False))


def html(table: Table, *, caption: str, cards: Mapping[str, str] = NO_CARDS, row_ids: Sequence[str | None] = ()) -> str:
    """An HTML table in a box that scrolls sideways by itself, so that the page never does.

    Args:
        table: its cells are escaped here.
        caption: of the table, and name of the box.
        cards: what the page has a card of: identity of a trial or configuration -> id of its row in the table of all
            trials. Cells of such identities become links to that row; the page's script opens the card instead.
        row_ids: an id per row, unique on the page, or None.
    """
    head = "".join(map(_heading, table.headings, table.numeric))
    ids = [f' id="{escape(name)}"' if name else "" for name in row_ids]
    ids = ids or [f' data-of="of-{"-".join(points)}"' for points in table.points] or [""] * len(table.rows)
    body = "".join(
        f"<tr{name}>{''.join(_body_cell(*cell, cards) for cell in zip(row, table.numeric, strict=True))}</tr>\n"
        for name, row in zip(ids, table.rows, strict=True)
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">\n'
        f"<table><caption>{escape(caption)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )


def _heading(text: str, numeric: bool) -> str:
    return f'<th scope="col"{" class=number" if numeric else ""}>{escape(text)}</th>'


def _body_cell(text: str, numeric: bool, cards: Mapping[str, str]) -> str:
    if not numeric:
        return f"<td>{_linked(text, cards)}</td>"
    # What it is sorted by, unless it is a plain number; a cell without a number has none.
    found = _LEADING_NUMBER.match(text)
    value = found[1].replace("−", "-") if found else ""
    sorted_by = "" if value == text else f' data-value="{value}"'
    return f"<td{sorted_by} class=number>{escape(text)}</td>"


def _linked(text: str, cards: Mapping[str, str]) -> str:
    words = text.split()
    if not words or any(word not in cards for word in words):
        return escape(text)
    return " ".join(f'<a href="#{escape(cards[word])}" data-card="{escape(word)}">{escape(word)}</a>' for word in words)


def _rendered(column: Column, values: pd.Series[Any]) -> tuple[str, list[str]]:
    """Heading and cells of a column."""
    present = values.dropna()
    scaled = bool(column.unit) and column.dtype == "float64" and not present.empty
    scale = reading_scale(column.unit, float(present.abs().max()) if scaled else 0.0)
    factor, unit = (scale.factor, scale.unit) if scaled else (1.0, column.unit)
    return label_with_unit(column.label, unit), [_text(column, value, factor) for value in values]


def _text(column: Column, value: Any, factor: float) -> str:
    if pd.isna(value):
        return MISSING
    if column.dtype == "boolean":
        return "yes" if value else "no"
    if column.name == "batch_growth" and not value.isalpha():
        return f"{float(value):.3g}"
    if column.dtype != "float64":
        return str(value)
    if column.unit or column.decimals is not None:
        return number(value * factor, column.decimals)
    return f"{value:g}"


LONGEST_FLOAT = 40
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": "$<$",
    ">": "$>$",
    **dict.fromkeys("\n\r\t\x0b\x0c", " "),
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "Δ": r"$\Delta$",
    "₂": r"$_2$",
    "³": r"$^3$",
    "→": r"$\rightarrow$",
    "\u00a0": "~",
    "\u202f": r"\,",
}
_TRANSLATION = str.maketrans(_SPECIAL)


def latex(table: Table, *, caption: str, label: str) -> str:
    r"""A LaTeX table.

    Args:
        table: cells as people read them.
        caption: above the table; plain text.
        label: for `\ref{tab:label}`.
    """
    columns = "".join("r" if numeric else "l" for numeric in table.numeric)
    head, body = _line(table.headings), "".join(f"{_line(row)}\n" for row in table.rows)
    title = rf"\caption{{{escaped(caption)}}}\label{{tab:{label}}}"
    if len(table.rows) > LONGEST_FLOAT:
        return _long(columns, title, head, body)
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}[htbp]\n\\centering\n"
        f"{title}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\n\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is written; signs of mathematics in math mode."""
    return text.translate(_TRANSLATION)


def _long(columns: str, title: str, head: str, body: str) -> str:
    return (
        "% needs \\usepackage{booktabs,longtable}\n"
        f"\\begin{{longtable}}{{{columns}}}\n{title}\\\\\n\\toprule\n{head}\n\\midrule\n\\endfirsthead\n"
        f"\\toprule\n{head}\n\\midrule\n\\endhead\n\\bottomrule\n\\endlastfoot\n{body}\\end{{longtable}}\n"
    )


def _line(cells: Sequence[str]) -> str:
    # A bracket after the line before would be taken for the argument of its \\.
    words = [f"{{{text}}}" if (text := escaped(cell)).startswith("[") else text for cell in cells]
    return " & ".join(words) + r" \\"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A unit for reading: amount in the file's unit × factor = amount in `unit`."""

    factor: float
    unit: str


# Per unit of the files: (amounts from here on, scale), largest first. Below the last, the last is used.
_SCALES: dict[str, list[tuple[float, Scale]]] = {
    "s": [
        (3 * 3600.0, Scale(factor=1 / 3600, unit="h")),
        (180.0, Scale(factor=1 / 60, unit="min")),
        (0.0, Scale(factor=1.0, unit="s")),
    ],
    "kg": [
        (1.0, Scale(factor=1.0, unit="kg")),
        (1e-3, Scale(factor=1e3, unit="g")),
        (0.0, Scale(factor=1e6, unit="mg")),
    ],
    "kWh": [
        (1.0, Scale(factor=1.0, unit="kWh")),
        (0.0, Scale(factor=1e3, unit="Wh")),
    ],
}


def reading_scale(unit: str, largest: float) -> Scale:
    """The scale that keeps amounts up to `largest` (in the file's unit) short; unknown units stay."""
    for least, scale in _SCALES.get(unit, []):
        if largest >= least:
            return scale
    return Scale(factor=1.0, unit=unit)


def number(value: float, decimals: int | None = None) -> str:
    """A number with fixed decimals, or with three significant digits, and never an exponent."""
    if decimals is None:
        decimals = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def amount(value: float, unit: str) -> str:
    """An amount in the file's unit, as people read it: `94.0 s`, `1.57 h`, `38.1 mg`."""
    scale = reading_scale(unit, abs(value))
    return f"{number(value * scale.factor)} {scale.unit}".strip()


def label_with_unit(label: str, unit: str) -> str:
    """`Training time [s]`, or the label alone."""
    return f"{label} [{unit}]" if unit else label


def counted(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"

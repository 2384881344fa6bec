"""Tables for people: chosen columns of a frame as text, in Markdown or HTML. CSV and parquet files hold every column.

Amounts are scaled to the unit that fits the column's largest; a missing value is a dash, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from analysis.columns import BY_NAME, Column
from analysis.units import label_with_unit, number, reading_scale

MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text cells.

    Attributes:
        headings: one per column, with units.
        numeric: whether a column holds numbers, which are set flush right.
        rows: cells, not escaped for any format.
    """

    headings: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]


def readable(frame: pd.DataFrame, names: Sequence[str]) -> Table:
    """Some columns of a frame as text; their descriptions are those of `analysis.columns`."""
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
    escaped = [tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in table.rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in (table.headings, rule, *escaped))


def html(table: Table, *, caption: str) -> str:
    """An HTML table in a box that scrolls sideways by itself, so that the page never does."""
    head = "".join(_cell("th", text, numeric, ' scope="col"') for text, numeric in _columns(table, table.headings))
    body = "".join(
        f"<tr>{''.join(_cell('td', text, numeric) for text, numeric in _columns(table, row))}</tr>\n"
        for row in table.rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">\n'
        f"<table><caption>{escape(caption)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )


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
    if column.dtype != "float64":
        return str(value)
    if column.unit or column.decimals is not None:
        return number(value * factor, column.decimals)
    return f"{value:g}"


def _columns(table: Table, row: Sequence[str]) -> list[tuple[str, bool]]:
    return list(zip(row, table.numeric, strict=True))


def _cell(tag: str, text: str, numeric: bool, attributes: str = "") -> str:
    return f"<{tag}{attributes}{' class=number' if numeric else ''}>{escape(text)}</{tag}>"

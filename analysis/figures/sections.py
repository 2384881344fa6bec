"""What a report is made of: sections of exhibits, each a figure, a table or both, with what must be said beside it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import Layout
from analysis.tables.format import Table

STEM = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_+.-]*")


def stem_of(name: str) -> str:
    """A name as a part of a stem: other letters are replaced, and told apart by a hash."""
    plain = re.sub(r"[^A-Za-z0-9_+-]", "_", name)
    return plain if plain == name else f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One figure, one table, or a figure with its table.

    Attributes:
        stem: name of its files, unique in a report, of letters, digits, `_`, `-` and `+`.
        heading: a few words, on the page above it.
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
    """Exhibits about one question.

    Attributes:
        anchor: of the section on the page, a word.
        heading: of the section.
        intro: a sentence or two: the question, and how to read the answer.
        exhibits: in order.
        missing: sentences that say why an exhibit that one might expect is not there.
    """

    anchor: str
    heading: str
    intro: str = ""
    exhibits: Sequence[Exhibit] = ()
    missing: Sequence[str] = ()

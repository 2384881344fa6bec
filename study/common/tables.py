"""Tables that fit a terminal: what every row says is said once, and nothing that tells rows apart is cut short.

Rich's console for text that is not ours: paths, names and reasons are printed as they are, brackets and all.

rich takes `[...]` for markup and `:word:` for an emoji unless a console is told otherwise, so every console of the
program is made here. Output that nobody reads any more ends no work: a study whose pipe was closed goes on in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from study.common.terminal import unread, visible

if TYPE_CHECKING:
    from rich.table import Table

# Letters between two columns; rows of a table that rich lays out.
GAP, MOST_LAID_OUT = 3, 300


@dataclass(frozen=True, kw_only=True)
class TextColumn:
    """A column of a table.

    Attributes:
        heading: over it.
        cells: one a row; words or rich's text.
        right: whether they are numbers.
        keep: never left out; it may take more lines, but no word of it is broken.
    """

    heading: str
    cells: Sequence[str | Text]
    right: bool = False
    keep: bool = False

    @cached_property
    def full_width(self) -> int:
        """Letters it takes in one line."""
        return max(len(self.heading), *(len(str(cell)) for cell in self.cells), 0)

    @cached_property
    def least_width(self) -> int:
        """Letters of its longest word if it may take more lines."""
        words = [word for cell in (self.heading, *self.cells) for word in str(cell).split()]
        return max(map(len, words), default=0) if self.keep else self.full_width

    @cached_property
    def is_constant(self) -> bool:
        """Whether every one of several rows says the same."""
        return len(self.cells) > 1 and len({str(cell) for cell in self.cells}) == 1


def fitting(columns: Sequence[TextColumn], width: int) -> tuple[list[TextColumn], str]:
    """The columns that a table no wider than a terminal has, and what to say of those left out; see `fitting_table`."""
    shown, constant, left_out = list(columns), list[TextColumn](), list[TextColumn]()
    for given_up in (constant, left_out):
        # Columns that are kept take more lines before one that tells rows apart is left out.
        while _width(shown, full=given_up is constant) > width:
            spare = [column for column in shown if not column.keep and (column.is_constant or given_up is left_out)]
            if not spare:
                break
            shown.remove(spare[-1])
            given_up.insert(0, spare[-1])
    told = [f"every row: {', '.join(f'{c.heading} {c.cells[0]}' for c in constant)}"] if constant else []
    told += [f"left out at {width} letters: {', '.join(c.heading for c in left_out)}"] if left_out else []
    return shown, "; ".join(told)


def fitting_table(columns: Sequence[TextColumn], width: int, **options: Any) -> Table:
    """A table no wider than a terminal. What goes first says the same in every row, then what is farthest right.

    Args:
        columns: all there are.
        width: of the terminal.
        options: of rich's table.

    Returns:
        The table, whose caption says what was left out, and the values of columns that were constant.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown, told = fitting(columns, width)
    caption = Text(told) if told else None
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, caption=caption, caption_justify="left", **options
    )
    for column, letters in zip(shown, _shared(shown, width), strict=True):
        table.add_column(
            Text(column.heading),
            justify="right" if column.right else "left",
            no_wrap=not column.keep,
            # Rich would take as much of a column whose longest word it then sets whole as of any other.
            width=letters,
        )
    for row in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*(Text(visible(cell)) if isinstance(cell, str) else cell for cell in row))
    return table


def print_table(console: PlainConsole, columns: Sequence[TextColumn], title: str = "") -> None:
    """Print a table; rich, which lays out some hundred lines a second, does so for short ones alone."""
    if len(columns[0].cells) <= MOST_LAID_OUT:
        console.print(fitting_table(columns, console.width, title=title or None, title_justify="left"))
        return
    shown, told = fitting(columns, console.width)
    form = (" " * GAP).join(f"{{:{'>' if column.right else '<'}{column.full_width}}}" for column in shown)
    rows = zip(*((column.heading, *map(str, column.cells)) for column in shown), strict=True)
    console.file.write(f"{title}\n" if title else "")
    for row in rows:
        console.file.write(f"{visible(form.format(*row)).rstrip()}\n")
    console.print(told) if told else None


def _shared(columns: Sequence[TextColumn], width: int) -> list[int]:
    """Letters for each column: what is too much is taken from those that may take more lines, the most spare first."""
    widths = [column.full_width for column in columns]
    for place in sorted(range(len(columns)), key=lambda n: columns[n].least_width - widths[n]):
        excess = max(0, sum(widths) + GAP * (len(widths) - 1) - width)
        widths[place] -= min(excess, widths[place] - columns[place].least_width)
    return widths


def fits(columns: Sequence[TextColumn], width: int, *, full: bool = True) -> bool:
    """Whether a terminal of so many letters shows all columns, each row in one line or, if not full, in several."""
    return _width(columns, full=full) <= width


def blocks(columns: Sequence[TextColumn]) -> Iterator[str]:
    """Lines of rows whose table is too wide: a value a line, an empty line after each row."""
    width = max(len(column.heading) for column in columns)
    for row in zip(*(column.cells for column in columns), strict=True):
        yield from (
            f"  {column.heading:{width}}  {visible(str(cell))}" for column, cell in zip(columns, row, strict=True)
        )
        yield ""


def _width(columns: Sequence[TextColumn], *, full: bool) -> int:
    widths = [column.full_width if full else column.least_width for column in columns]
    return sum(widths) + GAP * (len(widths) - 1)


# Columns of a table that goes to a file or pipe, where there is no width to fit.
FILE_WIDTH = 200


class PlainConsole(Console):
    """A console without markup, emoji or highlighting.

    Args:
        file: to print to, standard output by default.
        stderr: print to standard error instead.
        width: columns, those of the terminal by default.
    """

    def __init__(self, file: IO[str] | None = None, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(
            file=file, stderr=stderr, width=width, markup=False, emoji=False, highlight=False, soft_wrap=True
        )

    def render_str(self, text: str, **options: Any) -> Text:
        """Text as it is printed: escape sequences in it are shown, not obeyed."""
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> None:
        """Be silent from now on."""
        self.quiet = True
        unread(self.file)


def wide_console() -> PlainConsole:
    """A console on standard output whose tables are cut to a terminal's width, but not in a file or pipe."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=FILE_WIDTH)

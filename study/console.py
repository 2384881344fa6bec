"""Rich's console for text that is not ours: paths, names and reasons are printed as they are, brackets and all.

rich takes `[...]` for markup and `:word:` for an emoji unless a console is told otherwise, so every console of the
program is made here. Output that nobody reads any more ends no work: a study whose pipe was closed goes on in silence.
"""

from __future__ import annotations

from typing import IO, Any

from rich.console import Console
from rich.text import Text

from study.terminal import unread, visible

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

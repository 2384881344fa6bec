"""`completion`: the script with which a shell completes `pgps`. It is printed once; the shell then starts no Python."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace

EXAMPLES = """\
  python -m study completion bash > ~/.local/share/bash-completion/completions/pgps
  python -m study completion zsh > ~/.zfunc/_pgps
  python -m study completion fish > ~/.config/fish/completions/pgps.fish
"""
SHELLS = ("bash", "zsh", "fish")
_PLACES = re.compile(r"DIR|FILE|STUDY|SPACE|URL")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `completion`."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from study.__main__ import PROGRAM, VERBS

    parser = replace(PROGRAM, name="pgps").parser(*VERBS)
    _complete_places(parser)
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _complete_places(parser: argparse.ArgumentParser) -> None:
    """Names of files where an argument is a place."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _complete_places(child)
        elif isinstance(action.metavar, str) and _PLACES.search(action.metavar):
            action.complete = shtab.FILE  # type: ignore[attr-defined]

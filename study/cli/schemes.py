"""`schemes`: the curricula with a name, and the card of one: when to use it, what to set, what it costs."""

from __future__ import annotations

import argparse

from study.common.errors import check_choice
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import CARDS, SCHEMES, named_axes, parts

EXAMPLES = """\
  python -m study schemes
  python -m study schemes pgps+
"""
MOST_LETTERS = 100
NAMES = tuple(dict.fromkeys((*SCHEMES, *CARDS)))
# A plan of nnU-Net's for large volumes, where the stages of a chain are most.
PLAN = Geometry(patch_size=(128, 128, 128), divisors=(32, 32, 32), batch_size=2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `schemes`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"show its card: {', '.join(NAMES)}")


def run(args: argparse.Namespace) -> int:
    """Print the table, or one card."""
    from rich.markdown import Markdown

    from study.common.tables import PlainConsole, TextColumn, print_table

    console = PlainConsole()
    if args.name is not None:
        check_choice("NAME", args.name, NAMES)
        text = Markdown(f"# {args.name}\n\n{card(args.name)}")
        console.print(text, width=min(console.width, MOST_LETTERS), soft_wrap=False)
        return 0
    print_table(
        console,
        [
            TextColumn(heading="scheme", cells=NAMES, keep=True),
            TextColumn(heading="voxels", cells=[_voxel_share(name) for name in NAMES], right=True, keep=True),
            TextColumn(
                heading="when",
                cells=[CARDS[name].when.replace("`", "") if name in CARDS else "" for name in NAMES],
                keep=True,
            ),
        ],
    )
    console.print("voxels: of constant patch size, on a plan of 128x128x128. `pgps schemes NAME` shows a card.")
    return 0


def card(name: str) -> str:
    """A scheme's card in Markdown; of one without, where it is from."""
    if name not in CARDS:
        return f"**Source.** {SCHEMES[name].source}"
    return "\n\n".join(f"**{title}.** {text}" for title, text in parts(name).items())


def _voxel_share(name: str) -> str:
    return f"{resolve(PLAN, named_axes(name)).voxel_share:.1%}" if name in SCHEMES else "of its scheme"

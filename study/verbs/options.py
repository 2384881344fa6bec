"""Options that several verbs share, and what they resolve to."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from study.chain import CHAIN_ORDERS, CHAIN_STARTS
from study.checks import check_range, is_whole
from study.curriculum import ALLOCATIONS, SCHEMES, STAGE_ORDERS, STEPWISE, Axes, named_axes
from study.data_curriculum import DEFAULT_EPOCHS, DEFAULT_METRIC, METRICS
from study.errors import InvalidInputError
from study.stopping import STALL_SECONDS


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """`--data`."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with nnUNet_raw and nnUNet_preprocessed inside; without it nnU-Net's variables are used",
    )


def add_stall_option(group: argparse._ActionsContainer, help_text: str) -> None:
    """`--stall-minutes`."""
    default = STALL_SECONDS / 60
    group.add_argument(
        "--stall-minutes", type=number, default=default, metavar="X", help=f"{help_text} (default: {default:g})"
    )


def stall_seconds_of(args: argparse.Namespace) -> float:
    """What `--stall-minutes` says, in seconds."""
    check_range("--stall-minutes", args.stall_minutes, 0, 7 * 24 * 60, above_low=True)
    return float(60 * args.stall_minutes)


def add_curriculum_options(parser: argparse.ArgumentParser) -> None:
    """`--scheme` and the axes that override it."""
    group = parser.add_argument_group("curriculum (the flags after --scheme override its axes)")
    group.add_argument("--scheme", default="pgps", help=f"one of {', '.join(SCHEMES)} (default: pgps)")
    group.add_argument(
        "--min-patch", type=number, metavar="0..1", help="where on the chain to start: 0 smallest, 1 full"
    )
    group.add_argument("--stages", type=whole, metavar="N", help="how many sizes of the chain are used")
    group.add_argument("--batch-growth", type=growth, metavar=f"0..1|{STEPWISE}", help="0 constant, 1 constant voxels")
    group.add_argument("--budget", type=number, metavar="0.1..1", help="share of the iterations per epoch")
    group.add_argument("--allocation", help=f"iterations to stages: {' or '.join(ALLOCATIONS)}")
    group.add_argument("--chain", help=f"growth order of axes: {' or '.join(CHAIN_ORDERS)}")
    group.add_argument(
        "--chain-start", help=f"smallest size of the chain: {' or '.join(CHAIN_STARTS)} (at the bottleneck)"
    )
    group.add_argument("--order", help=f"order of stages: {', '.join(STAGE_ORDERS)}")


def add_data_curriculum_options(parser: argparse.ArgumentParser) -> None:
    """Options of the data curriculum: which training cases come first."""
    group = parser.add_argument_group("data curriculum (PDL; needs the ranking that `python -m study rank` makes)")
    group.add_argument(
        "--pdl-fraction",
        type=number,
        metavar="0..1",
        help="share of the cases, most dissimilar first (default: 0, all)",
    )
    group.add_argument(
        "--pdl-epochs",
        type=count_or_share,
        metavar="N|0..1",
        help=f"epochs on these cases alone, or a share of them (default: {DEFAULT_EPOCHS:g})",
    )
    group.add_argument("--pdl-metric", metavar="NAME", help=f"one of {', '.join(METRICS)} (default: {DEFAULT_METRIC})")


def axes_from(args: argparse.Namespace) -> Axes:
    """The axes that the curriculum options name, those of data among them if the verb has them; see `named_axes`."""
    names = [field.name for field in fields(Axes)]
    return named_axes(args.scheme, **{name: getattr(args, name, None) for name in names})


def number(text: str) -> Any:
    """A number, or the text itself, which the check of the field then refuses in its own words."""
    try:
        return text if "_" in text else float(text)
    except ValueError:
        return text


def whole(text: str) -> Any:
    """A whole number, or the text itself; see `number`."""
    try:
        # Not as in Python's own source, where 1_0 is 10: in YAML it is a word.
        return text if "_" in text else int(text)
    except ValueError:
        return text


def count_or_share(text: str) -> Any:
    """A whole number, else a number, or the text itself; see `number`."""
    count = whole(text)
    return number(text) if count is text else count


def absolute(text: str) -> str:
    """A path from the root on: whoever uses it may be in another folder."""
    return str(Path(text).expanduser().absolute())


def growth(text: str) -> Any:
    """A batch growth: a number or `stepwise`; see `number`."""
    return text if text == STEPWISE else number(text)


def need_whole(field: str, value: Any) -> int:
    """Raise InvalidInputError unless an option's value is a whole number."""
    if not is_whole(value):
        raise InvalidInputError(field=field, received=value, legal="a whole number")
    return int(value)

"""Options that several verbs share, and what they resolve to."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from study.buckets.storage import local
from study.common.errors import InvalidInputError, check_count, check_range, is_whole
from study.common.setting import Switch, Words, number, settings_of, whole
from study.common.trackers import TRACKERS
from study.curriculum.data_curriculum import STALL_SECONDS
from study.curriculum.schemes import SCHEMES, Axes, named_axes
from study.store.specification import TrainingSettings

_DATA_AXES = "pdl_"
LEARNING_RATE = ("optimizer", *(name for name in settings_of(TrainingSettings) if "learning_rate" in name))


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """`--data`."""
    parser.add_argument(
        "--data",
        type=local,
        metavar="DIR",
        help="folder with nnUNet_raw and nnUNet_preprocessed inside; without it nnU-Net's variables are used",
    )


def add_stall_option(group: argparse._ActionsContainer, help_text: str) -> None:
    """`--stall-minutes`."""
    default = STALL_SECONDS / 60
    group.add_argument(
        "--stall-minutes", type=number, default=default, metavar="X", help=f"{help_text} (default: {default:g})"
    )


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Where trials run, and what is put up with."""
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="Ray cluster to use, `auto` for the running one (default: $RAY_ADDRESS, which a submitted job has, or "
        "a Ray of its own on this machine)",
    )
    parser.add_argument(
        "--previous-stage",
        type=local,
        metavar="DIR",
        help="for a cascade: a study (or one of its trials) with all folds of the stage before, or nnU-Net's folder",
    )
    faults = parser.add_argument_group("faults")
    faults.add_argument(
        "--retries",
        type=whole,
        default=2,
        metavar="N",
        help="how often a broken training is started again from its checkpoint without progress (default: 2)",
    )
    add_stall_option(faults, "end a training that makes no progress for so long")
    faults.add_argument("--retry-infeasible", action="store_true", help="try trials again that had run out of memory")


def add_resource_options(group: argparse._ActionsContainer) -> None:
    """What a trial gets of the machine: the fields of `space.Resources`."""
    group.add_argument("--cpus", type=number, metavar="X", help="per trial")
    group.add_argument("--gpus", type=number, metavar="X", help="per trial, 0 for the CPU, a fraction to share one")
    group.add_argument("--concurrent", type=whole, metavar="N", help="trials at a time at most")
    group.add_argument("--data-workers", type=whole, metavar="N", help="processes that make batches, per trial")
    group.add_argument("--compile-cache", type=absolute, metavar="DIR", help="on each node, for compiled kernels")


def add_tracker_options(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """An option for every tracker of `common.trackers`."""
    group = parser.add_argument_group(title)
    for name, target in TRACKERS.items():
        group.add_argument(f"--{name}", metavar="URI" if name == "mlflow" else "DIR", help=target)
    return group


def trackers_of(args: argparse.Namespace) -> dict[str, str]:
    """What `add_tracker_options` says."""
    return {name: target for name in TRACKERS if (target := getattr(args, name)) is not None}


RESOURCES = ("cpus", "gpus", "concurrent", "data_workers", "compile_cache")


def patience_of(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_cluster_options` says of faults, as fields of `cluster.tuning.Patience`."""
    check_count("--retries", args.retries, least=0, most=1000)
    return {
        "retries": args.retries,
        "stall_seconds": stall_seconds_of(args),
        "retry_infeasible": args.retry_infeasible,
    }


def stall_seconds_of(args: argparse.Namespace) -> float:
    """What `--stall-minutes` says, in seconds."""
    check_range("--stall-minutes", args.stall_minutes, 0, 7 * 24 * 60, above_low=True)
    return float(60 * args.stall_minutes)


def add_curriculum_options(parser: argparse.ArgumentParser) -> None:
    """`--scheme` and the axes that override it."""
    group = parser.add_argument_group("curriculum (the flags after --scheme override its axes)")
    group.add_argument("--scheme", default="pgps", help=f"one of {', '.join(SCHEMES)} (default: pgps)")
    _add_settings(group, Axes, lambda name: not name.startswith(_DATA_AXES))


def add_data_curriculum_options(parser: argparse.ArgumentParser) -> None:
    """Options of the data curriculum: which training cases come first."""
    group = parser.add_argument_group("data curriculum (PDL; needs the ranking that `python -m study rank` makes)")
    _add_settings(group, Axes, lambda name: name.startswith(_DATA_AXES), defaults=True)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """An option for every training setting."""
    _add_settings(parser.add_argument_group("training (nnU-Net's unless given)"), TrainingSettings, defaults=True)


def add_learning_rate_options(parser: argparse.ArgumentParser) -> None:
    """Options of the settings that decide the learning rate; see `training_from`."""
    group = parser.add_argument_group("learning rate (shown by stage where one of these is given)")
    _add_settings(group, TrainingSettings, lambda name: name in LEARNING_RATE, defaults=True)


def _add_settings(
    group: argparse._ArgumentGroup,
    record: type,
    wanted: Callable[[str], bool] = lambda name: True,
    *,
    defaults: bool = False,
) -> None:
    for name, each in settings_of(record).items():
        if each.option is None or not wanted(name):
            continue
        if isinstance(each.kind, Switch):
            turned = not each.default
            group.add_argument(each.option, dest=name, action="store_const", const=turned, help=f"not {each.meaning}")
            continue
        words = f": {', '.join(each.kind.words)}" if isinstance(each.kind, Words) else ""
        default = each.shown_default.replace("`", "").replace("null", "none")
        told = f" (default: {default})" if defaults else ""
        optional: dict[str, Any] = {"nargs": "?", "const": each.bare} if each.bare else {}
        text = f"{each.meaning.replace('`', '')}{words}{told}".replace("%", "%%")
        group.add_argument(
            each.option, dest=name, type=each.kind.parse, metavar=each.kind.metavar, help=text, **optional
        )


def training_from(args: argparse.Namespace) -> TrainingSettings:
    """What the training options say."""
    given = {name: getattr(args, name, None) for name in settings_of(TrainingSettings)}
    return TrainingSettings(**{name: value for name, value in given.items() if value is not None})


def axes_from(args: argparse.Namespace) -> Axes:
    """The axes that the curriculum options name, those of data among them if the verb has them; see `named_axes`."""
    return named_axes(args.scheme, **{name: getattr(args, name, None) for name in settings_of(Axes)})


def absolute(text: str) -> str:
    """A path from the root on: whoever uses it may be in another folder."""
    return str(local(text).expanduser().absolute())


def need_whole(field: str, value: Any) -> int:
    """Raise InvalidInputError unless an option's value is a whole number."""
    if not is_whole(value):
        raise InvalidInputError(field=field, received=value, legal="a whole number")
    return int(value)

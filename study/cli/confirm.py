"""`confirm`: further folds and seeds of the points that may be on the front. The same command again goes on."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from study.buckets.storage import place
from study.cli.options import (
    RESOURCES,
    add_cluster_options,
    add_data_option,
    add_resource_options,
    add_tracker_options,
    patience_of,
    trackers_of,
)
from study.common.errors import InvalidInputError, check_count, check_range
from study.common.serialize import record_to_json
from study.common.setting import number, whole
from study.common.terminal import say, time_left
from study.store.records import OFF, UNDECIDED, Confirmation, Confirmed
from study.store.results import DEFAULT_TOLERANCE_MM, NSD, Metrics
from study.store.trial_folder import RESULT, TrialFolder

if TYPE_CHECKING:
    from study.nnunet.datasets import DataPaths
    from study.search.contenders import Aim
    from study.search.space import SearchSpace
    from study.search.trials import Lookup
    from study.store.ledger import Ledger

EXAMPLES = """\
  python -m study confirm studies/hippo --data data --max-gpu-hours 40
  python -m study confirm studies/hippo --data data --dry-run
  python -m study confirm studies/hippo --data data --folds 1 2 3 4 --seeds 0 1
  python -m study confirm s3://bucket/studies/hippo --data data --address auto
"""
MOST_HOURS = 1e7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `confirm`."""
    parser.add_argument("study", type=place, metavar="STUDY", help="study folder, or where it is in object storage")
    add_data_option(parser)
    parser.add_argument("--folds", type=whole, nargs="+", metavar="N", help="to train (default: all of the split)")
    seeds = "to train (default: the study's; a new one if it saw all of these folds)"
    parser.add_argument("--seeds", type=whole, nargs="+", metavar="N", help=seeds)
    hours = "for the whole confirmation, earlier runs included (default: no limit)"
    parser.add_argument("--max-gpu-hours", type=number, metavar="X", help=hours)
    objectives = "Dice and costs, as dice,runtime_seconds (default: the study's)"
    parser.add_argument("--objectives", metavar="NAMES", help=objectives)
    parser.add_argument("--dry-run", action="store_true", help="say how the points stand, train nothing")
    parser.add_argument("--json", action="store_true", help="with --dry-run: print it as one JSON object")
    machine = parser.add_argument_group("instead of what the study's last training had")
    add_resource_options(machine)
    add_cluster_options(parser)
    add_tracker_options(parser, "trackers, told while trials run")


def run(args: argparse.Namespace) -> int:
    """Check everything, train what tells most, say who is on the front."""
    from study.cli.run import ADDRESS_VARIABLE, check_trackers, previous_stage, start
    from study.nnunet.datasets import data_paths
    from study.search.confirming import Confirmer
    from study.search.trials import check_data, prepared_lookup

    _check_options(args)
    paths = data_paths(args.data)
    lookup = prepared_lookup(paths)
    space = _space(args, paths)
    check_trackers(space)
    aim = _aim(args, space, lookup)
    folds = tuple(dict.fromkeys(fold for fold, _ in aim.pairs))
    check_data(replace(space, folds=folds), lookup)
    if args.dry_run:
        return _dry_run(args, space, aim, lookup)
    patience = patience_of(args)
    code = start(
        space,
        paths,
        args.study,
        address=args.address or os.environ.get(ADDRESS_VARIABLE) or None,
        previous_stage=previous_stage(space, args),
        patience=patience,
        is_begun=True,
        folds=folds,
        work=partial(Confirmer, space, aim=aim, retry_infeasible=patience["retry_infeasible"]),
    )
    with _ledger(args) as ledger:
        found = ledger.confirmation()
    if found is not None:
        _print(found)
    return code


def _check_options(args: argparse.Namespace) -> None:
    for option, numbers in (("--folds", args.folds), ("--seeds", args.seeds)):
        for each in numbers or ():
            check_count(option, each, least=0)
        if numbers and len(set(numbers)) < len(numbers):
            raise InvalidInputError(field=option, received=numbers, legal="each number once")
    if args.max_gpu_hours is not None:
        check_range("--max-gpu-hours", args.max_gpu_hours, 0, MOST_HOURS, above_low=True)
    if args.json and not args.dry_run:
        legal, remedy = "given with --dry-run", "after a run the same object is in STUDY/confirmation.json"
        raise InvalidInputError(field="--json", received="no --dry-run", legal=legal, remedy=remedy)


@contextmanager
def _ledger(args: argparse.Namespace) -> Iterator[Ledger]:
    """The study, to read."""
    from study.buckets.view import reading
    from study.store.ledger import Ledger

    with reading(args.study) as (folder, _):
        yield Ledger.open(folder)


def _space(args: argparse.Namespace, paths: DataPaths) -> SearchSpace:
    """The study's own, with what its last training had of the machine unless something else is asked for."""
    from study.search.document import begun_space
    from study.search.space import resolved_space

    with _ledger(args) as ledger:
        header = ledger.header()
        space = begun_space(header, len(points := ledger.points()))
        ended = [
            folder for point in points for name in point["trial_ids"] if (folder := ledger.trial(name)).has(RESULT)
        ]
        given = {name: getattr(args, name) for name in RESOURCES} | trackers_of(args)
        if ended:
            space = replace(space, metrics=_metrics(ended[-1]) if not space.metrics.names else space.metrics)
            given = {**_machine(ended[-1]), **{name: value for name, value in given.items() if value is not None}}
    return resolved_space(space.with_overrides(**given), paths, header)


def _machine(folder: TrialFolder) -> dict[str, Any]:
    last = folder.attempts()[-1]
    gpus = last.gpus if last.device == "cuda" else 0.0
    return {"cpus": last.cpus, "gpus": gpus, "data_workers": last.data_workers}


def _metrics(folder: TrialFolder) -> Metrics:
    """What a finished trial has beside Dice."""
    result = folder.result()
    found = {} if result is None else result.metrics
    tolerance = found[NSD].tolerance_mm if NSD in found else None
    return Metrics(names=tuple(found), nsd_tolerance_mm=DEFAULT_TOLERANCE_MM if tolerance is None else tolerance)


def _aim(args: argparse.Namespace, space: SearchSpace, lookup: Lookup) -> Aim:
    from study.search.contenders import aim_of

    objectives = args.objectives.split(",") if args.objectives else None
    most = math.inf if args.max_gpu_hours is None else args.max_gpu_hours
    folds = args.folds or _all_folds(space, lookup)
    return aim_of(space, folds, args.seeds, objectives, most)


def _all_folds(space: SearchSpace, lookup: Lookup) -> list[int]:
    """Those that every dataset of the study has."""
    found: list[int] = []
    with suppress(InvalidInputError):
        for fold in count():
            for dataset, plans in space.planned:
                lookup(dataset, plans, space.configuration, fold)
            found.append(fold)
    return found or list(space.folds)


def _dry_run(args: argparse.Namespace, space: SearchSpace, aim: Aim, lookup: Lookup) -> int:
    from study.search.confirming import standing_of
    from study.search.contenders import contenders
    from study.store.audit import audit

    with _ledger(args) as ledger:
        audit(ledger)
        field, missing = contenders(space, ledger, lookup, aim)
        standing = standing_of(ledger, aim, field, retry_infeasible=args.retry_infeasible)
        found = standing.conclusion()
    if args.json:
        print(json.dumps(record_to_json(found), indent=1))
        return 0
    _print(found)
    if missing:
        say(f"{missing} points have no result and are not judged")
    if (first := standing.next()) is not None:
        one, (fold, seed), _ = first
        say(f"first: point {one.number}, fold {fold}, seed {seed}, about {time_left(3600 * one.hours)}")
    return 0


def _print(found: Confirmation) -> None:
    """The points that are or may be on the front, and those that it was said of on other folds than the search's."""
    from study.common.tables import TextColumn, print_table, wide_console

    console = wide_console()
    shown = [point for point in found.points if point.verdict != OFF or point.trainings]
    several = len({point.dataset for point in found.points}) > 1
    cells = [_cells(point, several=several) for point in sorted(shown, key=lambda each: [*each.costs.values()])]
    if cells:
        columns = [
            TextColumn(heading=heading, cells=column, right=heading not in _WORDS, keep=True)
            for heading, column in zip(cells[0], zip(*(row.values() for row in cells), strict=True), strict=True)
        ]
        print_table(console, columns)
    console.print(found.words())
    if others := len(found.points) - len(shown):
        console.print(f"{others} others are not on the front by what the search saw")
    if any(point.verdict == UNDECIDED for point in found.points):
        console.print("undecided: more GPU-hours, --folds or --seeds would tell")


_WORDS = ("settings", "verdict", "dataset", "folds")


def _cells(point: Confirmed, *, several: bool) -> dict[str, str]:
    settings = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in point.settings.items())
    return {
        "point": str(point.number),
        **({"dataset": point.dataset} if several else {}),
        "settings": settings,
        **{name: f"{value:.4g}" for name, value in point.costs.items()},
        "Dice, search": f"{point.dice_of_search:.4f}",
        "Dice, judged": "-" if point.dice is None else f"{point.dice:.4f}",
        "folds": " ".join(map(str, point.folds)) or "-",
        "hours": f"{point.gpu_hours:.3g}",
        "P": f"{point.probability:.2f}",
        "verdict": point.verdict,
    }

"""`run`: a study on Ray Tune. The same command again continues where it stopped.

`run --dry-run`: the trials of a study before anything is trained, and what they will cost.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from study.buckets.storage import is_url, place
from study.cli.costs import Costs, Sources, add_costs_option, at_a_time, memory_lines, sources_of, study_preview
from study.cli.options import (
    RESOURCES,
    add_cluster_options,
    add_data_option,
    add_resource_options,
    add_tracker_options,
    patience_of,
    trackers_of,
)
from study.common import terminal
from study.common.errors import InvalidInputError, LedgerError, MissingDataError
from study.common.setting import number, whole
from study.common.tables import PlainConsole, wide_console
from study.common.trackers import check_target, folder_of
from study.curriculum.table import data_words, rich_table, shortfalls, summary
from study.nnunet.datasets import DataPaths, data_paths, find_dataset
from study.search.algorithms import draws
from study.search.space import Point, SearchSpace, resolved_space
from study.search.trials import Lookup, check_data, prepared_lookup, specs
from study.store.ledger import Ledger, check_same_space
from study.store.outlook import StudyPreview
from study.store.specification import TrialSpec
from study.store.status import TrialStatus, study_status
from study.store.stopping import STOPPING
from study.store.trial_folder import TrialState

EXAMPLES = """\
  python -m study run search_spaces/pgps.yaml --data data --dataset 4 --out studies/hippo --trials 12
  python -m study run search_spaces/paper_lung.yaml --data data --out studies/lung --address auto
  python -m study run search_spaces/pgps.yaml --data data --dataset 4 --gpus 0 --epochs 10 \\
      --iterations-per-epoch 30 --out studies/small
  python -m study run search_spaces/pgps.yaml --data data --dataset 4 --out s3://bucket/studies/hippo
  python -m study run search_spaces/smoke.yaml --data data --dry-run
  python -m study run search_spaces/pgps.yaml --data data --dataset 4 --dry-run --costs-from studies/hippo
"""
SOME_FAILED = 1
ADDRESS_VARIABLE = "RAY_ADDRESS"
# Where Ray unpacks the working directory of a submitted job; it goes with the job.
JOB_FOLDER = "runtime_resources"
NO_STORAGE = "--optuna-storage is gone: `python -m study dashboard DIR` shows a study live, its --storage keeps a copy"
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `run`."""
    parser.add_argument("space", type=Path, metavar="SPACE.yaml", help="search space, see search_spaces/README.md")
    add_data_option(parser)
    parser.add_argument("--out", type=place, metavar="DIR|URL", help="study folder or s3://…, gs://…, made if absent")
    parser.add_argument("--dry-run", action="store_true", help="list trials and stage tables, train nothing")
    add_costs_option(parser)
    parser.add_argument("--optuna-storage", help=argparse.SUPPRESS)
    space = parser.add_argument_group("instead of what the space says")
    space.add_argument("--trials", type=whole, metavar="N", help="number of points")
    space.add_argument("--dataset", metavar="ID|NAME")
    space.add_argument("--plans", metavar="NAME")
    space.add_argument("--configuration", metavar="NAME")
    space.add_argument("--folds", type=whole, nargs="+", metavar="N")
    space.add_argument("--seeds", type=whole, nargs="+", metavar="N")
    space.add_argument("--epochs", type=whole, metavar="N")
    space.add_argument("--iterations-per-epoch", type=whole, metavar="N", help="at full budget")
    space.add_argument("--stop-at-dice", type=number, metavar="0..1", help="end each training at this validation Dice")
    space.add_argument(
        "--stopping", metavar="WORD", help=f"{' or '.join(STOPPING)}: whether trainings are stopped late"
    )
    space.add_argument("--country", metavar="ISO3", help="grid of the CO2 figures")
    add_resource_options(space)
    add_cluster_options(parser)
    add_tracker_options(parser, "trackers, told while trials run, beside those of the space")


def run(args: argparse.Namespace) -> int:
    """Check everything, then run what is left to run."""
    from study.buckets.view import readings
    from study.run.meter import check_country

    if args.optuna_storage is not None:
        terminal.complain(NO_STORAGE)
    written = load(args)
    check_country(written.energy.country)
    check_trackers(written)
    paths = data_paths(args.data)
    header = _header(args.out)
    space = resolved_space(written, paths, header)
    if space.searcher != written.searcher:
        terminal.complain(f"the study was begun with the searcher {space.searcher} and keeps it")
    if space.stopping != written.stopping:
        terminal.complain(f"the study was begun with `stopping: {space.stopping}` and keeps it")
    check_data(space, prepared_lookup(paths))
    with readings([*(args.costs_from or ()), *([args.out] if header else [])]) as found:
        sources = sources_of(space, data=args.data, found=found, space_file=args.space, strict=bool(args.costs_from))
        if args.address:
            # Whatever its nodes are: one kind of hardware is taken.
            sources = replace(sources, hardware=None, card="")
        if args.dry_run:
            if header:
                check_same_space(header, space.identity(), args.out)
            return show(space, prepared_lookup(paths), sources)
        if args.out is None:
            raise MissingDataError("--out DIR is needed to run a study; --dry-run lists its trials without")
        preview = None if header else _told_preview(space, paths, sources)
    return start(
        space,
        paths,
        _outside_job_folder(args.out),
        preview=preview,
        address=args.address or os.environ.get(ADDRESS_VARIABLE) or None,
        previous_stage=previous_stage(space, args),
        patience=patience_of(args),
    )


def _told_preview(space: SearchSpace, paths: DataPaths, sources: Sources) -> StudyPreview | None:
    """What a new study is to cost, said before anything is trained; None where nothing says."""
    costs = Costs(sources)
    preview = study_preview(space, prepared_lookup(paths), costs)
    for line in costs.lines(at_a_time(space)) if preview else ():
        terminal.say(line)
    return preview


def _header(out: Path | str | None) -> dict[str, Any]:
    """Header of the study that is to be continued, empty when there is none yet."""
    from study.buckets.view import reading

    try:
        if out is not None and (is_url(out) or (Path(out) / "study.json").exists()):
            with reading(out) as (folder, _):
                return Ledger(folder).header()
    except LedgerError:
        # Told, if it is one, when the study is opened to be run.
        pass
    return {}


def load(args: argparse.Namespace) -> SearchSpace:
    """The search space of the command line."""
    from study.search.document import load_space

    names = ("dataset", "plans", "configuration", "epochs", "iterations_per_epoch", "stop_at_dice", "country")
    return load_space(args.space, trials=args.trials).with_overrides(
        **{name: getattr(args, name) for name in (*names, "stopping", *RESOURCES)},
        folds=tuple(args.folds) if args.folds else None,
        seeds=tuple(args.seeds) if args.seeds else None,
        **trackers_of(args),
    )


def start(
    space: SearchSpace,
    paths: DataPaths,
    out: Path | str,
    *,
    address: str | None = None,
    and_then: Sequence[str] = ("report",),
    patience: Mapping[str, Any] = NO_OPTIONS,
    is_begun: bool = False,
    **more: Any,
) -> int:
    """Run the study with its live table; then print what went wrong.

    Args:
        space: what is searched; its data has been checked.
        paths: prepared data.
        out: the study folder, or the URL of object storage.
        address: of a Ray cluster, None for one of our own that only this machine reaches.
        and_then: words of the command of `python -m analysis` to go on with; none: the last lines are the caller's.
        patience: fields of `cluster.tuning.Patience`.
        is_begun: the study is there, and the space is its own.
        more: further fields of `cluster.driver.Run`.

    Returns:
        0, or 1 when trials have failed.
    """
    from study.buckets.shared_ledger import study_ledger
    from study.cli.live import closing, finishing
    from study.cluster.local import configure_ray

    _check_cluster(space, address)
    console = wide_console()
    with study_ledger(out, space=None if is_begun else space.identity()) as ledger:
        configure_ray(address=address)
        complaints = _with_live_table(
            console, patience, space=space, ledger=ledger, data=paths, address=address, **more
        )
        rows = [replace(row, log=ledger.named(row.log, row.trial_id)) for row in study_status(ledger)]
        commands = list(finishing(out, ledger, rows))
    code = _tell_troubles(console, rows, complaints)
    for line in commands:
        console.print(line, soft_wrap=True)
    for line in closing(out, rows, *and_then) if and_then else ():
        console.print(line)
    return code


def _check_cluster(space: SearchSpace, address: str | None) -> None:
    """Refuse what no trial fits on, or an address that is none, before anything is written."""
    from study.cluster.local import allot, check_address, local_node

    if address is None:
        allot(space.resources, [local_node(space.resources)])
    else:
        check_address(address)


def _with_live_table(console: PlainConsole, patience: Mapping[str, Any], **run: Any) -> list[str]:
    """What the study complains of; imports Ray, so it must be configured."""
    from study.cli.live import LiveTable
    from study.cluster.driver import Run, run_study
    from study.cluster.tuning import Patience

    with LiveTable(run["ledger"], console) as table:
        shown = {"say": console.print, "on_begin": table.begin, "on_refresh": table.refresh}
        return run_study(Run(patience=Patience(**patience), **{**run, **shown}))


def _tell_troubles(console: PlainConsole, rows: Sequence[TrialStatus], complaints: Sequence[str]) -> int:
    """A line for each trial that has no Dice and for each point that was lost; the exit code."""
    for row in rows:
        if row.last_error:
            console.print(f"{row.trial_id} {row.state.value}: {row.last_error}; log: {row.log}")
    for complaint in complaints:
        console.print(f"lost: {complaint}")
    return SOME_FAILED if complaints or any(row.state is TrialState.FAILED for row in rows) else 0


def check_trackers(space: SearchSpace) -> None:
    """Refuse what cannot be told of the study, before anything is written."""
    for tracker, target in space.trackers.items():
        check_target(tracker, target, f"trackers.{tracker}")
        if (folder := folder_of(tracker, target)) is not None:
            _outside_job_folder(folder, f"trackers.{tracker}")


def _outside_job_folder(out: Path | str, field: str = "--out") -> Path | str:
    """A folder, unless it would vanish with a submitted job's working directory."""
    if not is_url(out) and JOB_FOLDER in Path(out).resolve().parts:
        raise InvalidInputError(
            field=field,
            received=str(out),
            legal="an absolute path on storage that outlives the job and that all nodes share",
        )
    return out


def previous_stage(space: SearchSpace, args: argparse.Namespace) -> Path | None:
    """The segmentations of the stage before, for a cascade."""
    from study.nnunet.paths import previous_stage_folder

    folder = None
    for name, plans in space.planned:
        dataset = find_dataset(data_paths(args.data), name)
        chosen = dataset.choose_plans(plans)
        folder = previous_stage_folder(dataset, chosen, space.configuration, args.previous_stage)
        if folder is not None and len(space.planned) > 1:
            legal = "one dataset with one plan for a cascade: each reads the segmentations of its own previous stage"
            received = [list(each) for each in space.planned]
            raise InvalidInputError(field="datasets, plans", received=received, legal=legal)
    return folder


# Draws that stand for the points of a search that decides as it goes.
PROBES = 100


def show(space: SearchSpace, lookup: Lookup, sources: Sources) -> int:
    """Print every trial of points known in advance, once; of others, the domains they will be drawn from.

    Args:
        space: of the study.
        lookup: finds its data.
        sources: say what the trials will cost.
    """
    console, costs = PlainConsole(), Costs(sources)
    if space.method.points is None:
        console.print(f"{space.trials} points proposed by {space.searcher} as results come in, from")
        for name, domain in space.searched.items():
            console.print(f"  {name}: {domain.to_json()}")
        drawn = list(islice(draws(space.searched, space.seed), PROBES))
        shown = [spec for point in drawn for spec in specs(space, point, lookup)]
        for spec in shown:
            costs.add(spec)
        costs.stand_for(draws=len(drawn), of=space.trials or 0)
    else:
        shown, seen = list[TrialSpec](), set[str]()
        for point in space.points():
            for spec in specs(space, point, lookup):
                known = spec.trial_id in seen
                _show_trial(console, point, spec, known=known, cost="" if known else costs.add(spec))
                seen.add(spec.trial_id)
                shown.append(spec)
        console.print(f"{len(seen)} trials")
    beside = at_a_time(space) if sources.hardware else None
    for line in (*costs.lines(beside), *memory_lines(space, shown, sources)):
        console.print(line)
    return 0


def _show_trial(console: PlainConsole, point: Point, spec: TrialSpec, *, known: bool, cost: str) -> None:
    searched = ", ".join(f"{name.split('.')[-1]} {value}" for name, value in point.items())
    title = f"trial {spec.trial_id}  {spec.dataset}  fold {spec.fold}  seed {spec.seed}  {searched}"
    if known:
        console.print(f"{title}: the same trial as above")
        return
    console.print(title, rich_table(spec.curriculum), summary(spec.curriculum), sep="\n")
    if spec.data is not None:
        console.print(f"data: {data_words(spec.axes, spec.data)}")
    for note in shortfalls(spec.curriculum, spec.axes):
        console.print(f"note: {note}")
    if cost:
        console.print(f"cost: about {cost}")
    console.print()

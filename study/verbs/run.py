"""`run`: a study on Ray Tune. The same command again continues where it stopped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from study.verbs.options import add_data_option, number, whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from study.datasets import DataPaths
    from study.ledger import Ledger
    from study.spaces import SearchSpace

EXAMPLES = """\
  python -m study run search_spaces/pgps.yaml --data data --dataset 4 --out studies/hippo --trials 12
  python -m study run search_spaces/paper_lung.yaml --data data --out studies/lung --address auto
  python -m study run search_spaces/pgps.yaml --data data --dataset 4 --gpus 0 --epochs 10 \\
      --iterations-per-epoch 30 --out studies/small
  python -m study run search_spaces/smoke.yaml --data data --dry-run
"""
SOME_FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `run`."""
    parser.add_argument("space", type=Path, metavar="SPACE.yaml", help="search space, see search_spaces/README.md")
    add_data_option(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="study folder, made if absent")
    parser.add_argument("--address", metavar="ADDRESS", help="Ray cluster to use, `auto` for the running one")
    parser.add_argument("--dry-run", action="store_true", help="list trials and stage tables, train nothing")
    parser.add_argument("--previous-stage", type=Path, metavar="DIR", help="for a cascade: its predicted_next_stage")
    space = parser.add_argument_group("instead of what the space says")
    space.add_argument("--trials", type=whole, metavar="N", help="number of points")
    space.add_argument("--dataset", metavar="ID|NAME")
    space.add_argument("--plans", metavar="NAME")
    space.add_argument("--configuration", metavar="NAME")
    space.add_argument("--folds", type=whole, nargs="+", metavar="N")
    space.add_argument("--seeds", type=whole, nargs="+", metavar="N")
    space.add_argument("--epochs", type=whole, metavar="N")
    space.add_argument("--iterations-per-epoch", type=whole, metavar="N", help="at full budget")
    space.add_argument("--country", metavar="ISO3", help="grid of the CO2 figures")
    space.add_argument("--cpus", type=number, metavar="X", help="per trial")
    space.add_argument("--gpus", type=number, metavar="X", help="per trial, 0 for the CPU, a fraction to share one")
    space.add_argument("--concurrent", type=whole, metavar="N", help="trials at a time at most")
    space.add_argument("--data-workers", type=whole, metavar="N", help="processes that make batches, per trial")


def run(args: argparse.Namespace) -> int:
    """Check everything, then run what is left to run."""
    from study.datasets import data_paths
    from study.emissions import check_country
    from study.errors import MissingDataError
    from study.spaces import check_data
    from study.specs import prepared_lookup

    space = load(args)
    check_country(space.energy.country)
    paths = data_paths(args.data)
    check_data(space, prepared_lookup(paths))
    if args.dry_run:
        from study.dry_run import show

        return show(space, prepared_lookup(paths))
    if args.out is None:
        raise MissingDataError("--out DIR is needed to run a study; --dry-run lists its trials without")
    previous_stage = _previous_stage(space, args)
    return start(space, paths, args.out, address=args.address, previous_stage=previous_stage)


def load(args: argparse.Namespace) -> SearchSpace:
    """The search space of the command line."""
    from study.spaces import load_space

    names = ("trials", "dataset", "plans", "configuration", "epochs", "iterations_per_epoch", "country")
    resources = ("cpus", "gpus", "concurrent", "data_workers")
    return load_space(args.space).with_overrides(
        **{name: getattr(args, name) for name in (*names, *resources)},
        folds=tuple(args.folds) if args.folds else None,
        seeds=tuple(args.seeds) if args.seeds else None,
    )


def start(
    space: SearchSpace,
    paths: DataPaths,
    out: Path,
    *,
    address: str | None = None,
    previous_stage: Path | None = None,
) -> int:
    """Run the study with its live table, then print how it ended.

    Args:
        space: what is searched; its data has been checked.
        paths: prepared data.
        out: the study folder.
        address: of a Ray cluster, None for one of our own that only this machine reaches.
        previous_stage: for cascades.

    Returns:
        0, or 1 when trials have failed.
    """
    from study.cluster import configure_ray
    from study.cluster.address import check_address
    from study.cluster.allotment import allot, local_node
    from study.ledger import Ledger
    from study.status import counts, found, study_status
    from study.terminal import wide_console

    if address is None:
        allot(space.resources, [local_node(space.resources)])
    else:
        check_address(address)
    ledger = Ledger.create(out, space=space.identity())
    configure_ray(own_cluster=address is None)
    from study.cluster.driver import Run, run_study

    console = wide_console()
    before = study_status(ledger)
    if before:
        console.print(found(before))
    with _LiveTable(ledger, console) as table:
        complaints = run_study(
            Run(
                space=space,
                ledger=ledger,
                data=paths,
                address=address,
                previous_stage=previous_stage,
                on_refresh=table.refresh,
            )
        )
    rows = study_status(ledger)
    console.print(f"{out}: {counts(rows)}")
    failed = [row for row in rows if row.last_error]
    for row in failed:
        console.print(f"{row.trial_id} failed: {row.last_error}; log: {row.log}")
    for complaint in complaints:
        if not any(row.trial_id in complaint for row in failed):
            console.print(f"failed: {complaint}")
    return SOME_FAILED if failed or complaints else 0


def _previous_stage(space: SearchSpace, args: argparse.Namespace) -> Path | None:
    from study.datasets import data_paths, find_dataset
    from study.nnunet_paths import previous_stage_folder

    folder = None
    for name in space.datasets:
        dataset = find_dataset(data_paths(args.data), name)
        plans = dataset.choose_plans(space.plans)
        folder = previous_stage_folder(dataset, plans, space.configuration, args.previous_stage)
    return folder


class _LiveTable:
    """The table of trials, redrawn while the study runs; without a terminal a line whenever the counts change."""

    def __init__(self, ledger: Ledger, console: Console) -> None:
        from rich.live import Live

        self._ledger, self._console = ledger, console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._said = ""

    def __enter__(self) -> _LiveTable:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()
        if self._live:
            self._live.stop()
        elif self._said:
            self._console.print(self._table())

    def refresh(self) -> None:
        """Draw the table, or say what changed."""
        from study.status import counts, study_status

        if self._live:
            self._live.update(self._table(), refresh=True)
            return
        rows = study_status(self._ledger)
        said = counts(rows)
        if rows and said != self._said:
            self._console.print(said)
            self._said = said

    def _table(self) -> Table:
        from study.status import rich_table, study_status

        return rich_table(study_status(self._ledger))

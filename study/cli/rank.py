"""`rank`: a fold's training cases by image similarity, the most dissimilar first, once per dataset and fold."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from study.cli.options import add_data_option, need_whole
from study.common.checks import check_choice
from study.common.setting import whole
from study.common.terminal import say
from study.curriculum.data_curriculum import DEFAULT_METRIC, METRICS

if TYPE_CHECKING:
    from study.ranking.make import Made, Report
    from study.ranking.work import Spread

LISTED_CASES = 5
EXAMPLES = """\
  # register to the medoid, compare every case with all others
  python -m study rank --data data --dataset 4 --workers 2
  # the list and the picture of another metric, at no cost: all metrics are kept
  python -m study rank --data data --dataset 4 --metric ssim
  # cheap: every case with one reference alone
  python -m study rank --data data --dataset 4 --fold 1 --compare reference --reference hippocampus_001
  # on the nodes of a Ray cluster that share the data's folder
  python -m study rank --data /shared/data --dataset 4 --address auto
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `rank`."""
    add_data_option(parser)
    parser.add_argument("--dataset", required=True, metavar="ID|NAME", help="4 or Dataset004_Hippocampus")
    parser.add_argument("--plans", metavar="NAME", help="default: the dataset's only plans, or nnUNetPlans")
    parser.add_argument("--configuration", default="3d_fullres", help="default: 3d_fullres")
    parser.add_argument("--fold", type=whole, default=0, metavar="N", help="whose training cases (default: 0)")
    parser.add_argument(
        "--metric",
        default=DEFAULT_METRIC,
        help=f"what is listed and drawn, all are kept: {', '.join(METRICS)} (default: {DEFAULT_METRIC})",
    )
    decides = parser.add_argument_group("what decides the ranking")
    decides.add_argument("--reference", default="medoid", metavar="medoid|CASE", help="all are registered to it")
    decides.add_argument("--transform", default="rigid", help="rigid, affine or none (default: rigid)")
    decides.add_argument(
        "--compare", default="others", help="a case with all others, or with the reference alone (default: others)"
    )
    machine = parser.add_argument_group("machine (does not change the result)")
    machine.add_argument("--workers", type=whole, metavar="N", help="processes (default: one per core)")
    machine.add_argument("--address", metavar="ADDR", help="a Ray cluster to use instead: auto or HOST:PORT")
    machine.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for rankings (default: beside the preprocessed data)"
    )


def run(args: argparse.Namespace) -> int:
    """Rank the cases, or say that they are ranked; list the first and draw the picture."""
    from study.common.machine import usable_cores
    from study.nnunet.datasets import data_paths, find_dataset
    from study.ranking.files import FOLDER
    from study.ranking.make import RankingSettings, make_ranking
    from study.ranking.picture import draw, is_drawn

    check_choice("--metric", args.metric, METRICS)
    workers = usable_cores() if args.workers is None else need_whole("--workers", args.workers)
    dataset = find_dataset(data_paths(args.data), args.dataset)
    settings = RankingSettings(
        plans=dataset.choose_plans(args.plans),
        configuration=args.configuration,
        transform=args.transform,
        reference=args.reference,
        compare=args.compare,
    )
    rankings = None if args.out is None else args.out.expanduser().resolve()
    fold = need_whole("--fold", args.fold)
    where = rankings or dataset.folder / FOLDER
    with _terminal() as (report, say), _spread(args.address, where) as (spread, cores):
        made = make_ranking(
            dataset, fold, settings, workers=cores or workers, spread=spread, rankings=rankings, report=report, say=say
        )
        drawn_before = is_drawn(made, args.metric)
        if not drawn_before:
            draw(made, dataset, args.metric)
    _print(made, args.metric, drawn_before, elsewhere=dataset.folder / FOLDER if rankings else None)
    return 0


@contextmanager
def _spread(address: str | None, folder: Path) -> Iterator[tuple[Spread | None, int]]:
    """What does the work if not processes here, and how many cores it has."""
    if address is None:
        yield None, 0
        return
    from study.cluster.local import configure_ray

    configure_ray(address=address)
    from study.cluster.nodes import nodes
    from study.cluster.ranking import spread_over

    with spread_over(address, folder) as spread:
        yield spread, max(1, int(sum(node.cpus for node in nodes())))


@contextmanager
def _terminal() -> Iterator[tuple[Report, Callable[[str], None]]]:
    """One bar on the terminal; yields what `make_ranking` reports to and what it says its lines to."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from study.common.tables import PlainConsole

    console = PlainConsole(stderr=True)
    columns = (TextColumn("{task.description:18}", markup=False), BarColumn(), MofNCompleteColumn())
    with Bar(
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        tasks = dict[str, int]()

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done)  # type: ignore[arg-type]

        yield report, console.print


def _print(made: Made, metric: str, drawn_before: bool, *, elsewhere: Path | None) -> None:
    from study.ranking.files import PICTURE, TABLE

    ranking = made.ranking
    what = f"{ranking.dataset} fold {ranking.fold}"
    nothing = ", nothing to do" if drawn_before else f", its picture now shows {metric}"
    print(f"{what} was already ranked{nothing}" if made.already_done else f"{what} is ranked, in {made.seconds:.0f} s")
    for name in (TABLE, PICTURE):
        say(f"  {name:16} {made.folder / name}")
    rows = ranking.of(metric)
    print(f"  {'cases':16} {len(rows)}, reference {made.record['layout']['reference']}; {_registrations(made)}")
    print(f"  {'label check':16} {_label_check(made)}")
    print(f"  {'most dissimilar':16} {_listed(made, metric, first=True)}")
    print(f"  {'most similar':16} {_listed(made, metric, first=False)}")
    if elsewhere:
        say(f"  {'note':16} trials look in {elsewhere}: put fold_{ranking.fold} there before you use it")
    print(f"  {'not registered':16} {_unregistered(made, metric)}")
    for row in sorted(rows, key=lambda row: row.case):
        if row.registration == "unregistered" or row.value is None:
            say(f"  {'note':16} {row.case}: {row.registration}, {row.reason}, rank {row.rank}")


def _registrations(made: Made) -> str:
    found = [row.registration for row in made.ranking.of(DEFAULT_METRIC)]
    kinds = ("registered", "identity", "unregistered")
    return ", ".join(f"{found.count(kind)} {kind}" for kind in kinds)


def _unregistered(made: Made, metric: str) -> str:
    """How many cases could not be registered, of all and of those that a training would start on."""
    rows = made.ranking.of(metric)
    parts = []
    for share, words in ((1.0, "cases"), (0.5, "most dissimilar half"), (0.25, "most dissimilar quarter")):
        first = made.ranking.most_dissimilar(metric)[: math.floor(share * len(rows) + 0.5)]
        count = sum(row.registration == "unregistered" and row.case in first for row in rows)
        parts.append(f"{count} of {len(first)} {words}")
    return ", ".join(parts)


def _label_check(made: Made) -> str:
    """Whether registration brought the labelled classes of the training cases nearer to the reference's."""
    reference = made.record["layout"]["reference"]
    found = [off for case, off in made.record.get("class_centres_off_mm", {}).items() if case != reference]
    if not found:
        return "no case has labelled classes in common with the reference, or the ranking is of an earlier version"
    before, after = (median(values) for values in zip(*found, strict=True))
    vetoed = sum("centres of the classes apart" in row.reason for row in made.ranking.of(DEFAULT_METRIC))
    stays = f"; {vetoed} stay where they were because it grew" if vetoed else ""
    return f"class centres {before:.1f} mm off the reference's before, {after:.1f} mm after (median){stays}"


def _listed(made: Made, metric: str, *, first: bool) -> str:
    rows = made.ranking.of(metric)
    chosen = rows[:LISTED_CASES] if first else rows[::-1][:LISTED_CASES]
    return ", ".join(f"{row.case} ({'undefined' if row.value is None else f'{row.value:.4g}'})" for row in chosen)

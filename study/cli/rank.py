"""`rank`: a fold's training cases by image similarity, the most dissimilar first, once per dataset and fold.

The picture of a ranking: slices of the most dissimilar and the most similar cases, and all values behind them.

To the left, on the common grid, the reference, the first and the last cases by one metric, each in the middle slice
along every axis; what lies outside a case is blue. To the right the matrix of all comparisons in the order of the
ranking, where all were made, and the distribution of the cases' values. For the mean of ranks both show SSIM.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.buckets.storage import local
from study.cli.options import add_data_option, need_whole
from study.common import files
from study.common.errors import MissingDataError, check_choice
from study.common.setting import whole
from study.common.terminal import say
from study.curriculum.data_curriculum import DEFAULT_METRIC, METRICS
from study.nnunet.datasets import PreparedDataset, data_paths, find_dataset
from study.ranking.files import FOLDER, MEAN_RANK, PAIRS, PICTURE, TABLE, RankedCase, read_table
from study.ranking.images import CommonLayout, case_folder
from study.ranking.make import Made, RankingSettings, Report, make_ranking
from study.ranking.similarity import GridImage
from study.ranking.work import Spread, lay_on_grid

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
        "--out", type=local, metavar="DIR", help="folder for rankings (default: beside the preprocessed data)"
    )


def run(args: argparse.Namespace) -> int:
    """Rank the cases, or say that they are ranked; list the first and draw the picture."""
    from study.common.machine import usable_cores

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
    from study.cluster.nodes import nodes, spread_over

    with spread_over(address, folder) as spread:
        yield spread, max(1, int(sum(node.cpus for node in nodes())))


@contextmanager
def _terminal() -> Iterator[tuple[Report, Callable[[str], None]]]:
    """One bar on the terminal; yields what `make_ranking` reports to and what it says its lines to."""
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from study.cli.live import bar

    columns = (TextColumn("{task.description:18}", markup=False), BarColumn(), MofNCompleteColumn())
    with bar(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as shown:
        tasks = dict[str, TaskID]()

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = shown.add_task(step, total=total)
            shown.update(tasks[step], completed=done)

        yield report, shown.console.print


def _print(made: Made, metric: str, drawn_before: bool, *, elsewhere: Path | None) -> None:
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


SHOWN_CASES = 6
DOTS_PER_INCH = 130
WORDS = {
    "mse": "MSE",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "uqi": "UQI",
    MEAN_RANK: "the mean of their ranks by MSE, SSIM and UQI",
}
# The matrix of a mean of ranks is that of a measure that goes into it.
MATRIX_OF = {MEAN_RANK: "ssim"}
_PLANES = {3: ("axis 0", "axis 1", "axis 2"), 2: ("slice",)}
_DARK, _LIGHT, _LINE = "#3f4650", "#d55e00", "#0072b2"
_OUTSIDE = "#c3d5e8"
_IDENTITY = "Ranking"


Panel = tuple[GridImage, str]
"""One case on the common grid, with its caption."""


def is_drawn(made: Made, metric: str) -> bool:
    """Whether the picture that is there shows this ranking by this metric."""
    from PIL import Image

    try:
        with Image.open(made.folder / PICTURE) as picture:
            return bool(picture.info.get(_IDENTITY) == _identity(made, metric))
    except OSError:
        return False


def draw(made: Made, dataset: PreparedDataset, metric: str) -> None:
    """Draw the picture of a ranking by a metric, in place of the one that is there."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = made.ranking.of(metric)
    shown = min(SHOWN_CASES, max(1, len(rows) // 2))
    panels = _panels(made, dataset, [*rows[:shown], *rows[len(rows) - shown :]])
    figure: Any = Figure(figsize=(15.5, 8.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_title(made, metric), x=0.01, ha="left", fontsize=12)
    left, right = figure.subfigures(1, 2, width_ratios=(2.1, 1))
    first, last = left.subfigures(2, 1)
    _draw_cases(first, [panels[0], *panels[1 : shown + 1]], "Most dissimilar, rank 1 first")
    _draw_cases(last, [panels[0], *panels[:shown:-1]], "Most similar, last rank first")
    _draw_values(right, made, metric, rows)
    settings = {"dpi": DOTS_PER_INCH, "format": "png", "metadata": {_IDENTITY: _identity(made, metric)}}
    files.write_atomically(made.folder / PICTURE, lambda handle: figure.savefig(handle, **settings))


def _identity(made: Made, metric: str) -> str:
    return f"{made.ranking.sha256} by {metric}"


def _title(made: Made, metric: str) -> str:
    settings = made.record["settings"]
    compared = "all others" if settings["compare"] == "others" else "the reference"
    return (
        f"{made.ranking.dataset}, fold {made.ranking.fold}: {len(made.record['cases'])} training cases by "
        f"{WORDS[metric]}, each compared with {compared}; {settings['transform']} registration"
    )


def _panels(made: Made, dataset: PreparedDataset, rows: Sequence[RankedCase]) -> list[Panel]:
    """The reference, then the cases of the rows."""
    record, settings = made.record, made.record["settings"]
    stored: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in record["layout"].items()}
    layout = CommonLayout(**stored)
    cases = case_folder(dataset, dataset.plan(settings["plans"], settings["configuration"]))

    def panel(case: str, caption: str) -> Panel:
        parameters = record["transforms"].get(case, ())
        image = lay_on_grid(cases, layout, case, transform=settings["transform"], parameters=parameters)
        short = case if len(case) <= 18 else f"{case[:8]}…{case[-8:]}"
        return image, caption.format(case=short)

    panels = [panel(layout.reference, "reference\n{case}")]
    for row in rows:
        value = "undefined" if row.value is None else f"{row.value:.4g}"
        panels.append(panel(row.case, f"{{case}}\nrank {row.rank}: {value}"))
    return panels


def _draw_cases(figure: Any, panels: Sequence[Panel], title: str) -> None:
    """Middle slices along each axis of the first channel; where a case is not defined the background shows."""
    figure.suptitle(title, fontsize=11, color=_DARK, x=0.01, ha="left")
    planes = _PLANES[panels[0][0].inside.ndim]
    grid = figure.subplots(len(planes), len(panels), squeeze=False)
    for column, (image, caption) in enumerate(panels):
        grid[0][column].set_title(caption, fontsize=8)
        voxels = np.where(image.inside, image.voxels[0], np.nan)
        inside = voxels[image.inside]
        low, high = np.percentile(inside, (0.5, 99.5)) if inside.size else (0.0, 1.0)
        for row, axes in enumerate(grid[:, column]):
            plane = voxels if len(planes) == 1 else np.take(voxels, voxels.shape[row] // 2, axis=row)
            brightest = high if high > low else low + 1
            axes.imshow(plane, cmap="gray", vmin=low, vmax=brightest, interpolation="nearest", origin="lower")
            axes.set(xticks=[], yticks=[], facecolor=_OUTSIDE)
            if column == 0:
                axes.set_ylabel(planes[row], fontsize=8)


def _draw_values(figure: Any, made: Made, metric: str, rows: Sequence[RankedCase]) -> None:
    measure = MATRIX_OF.get(metric, metric)
    if made.record["settings"]["compare"] == "others":
        upper, lower = figure.subplots(2, 1, height_ratios=(1.5, 1))
        _draw_matrix(figure, upper, _matrix(made.folder / PAIRS, [row.case for row in rows], measure), measure)
    else:
        lower = figure.subplots(1, 1)
    _draw_distribution(lower, rows, {row.case: row.value for row in made.ranking.of(measure)}, measure)


def _draw_matrix(figure: Any, axes: Any, matrix: NDArray[np.float64], metric: str) -> None:
    # Bright is similar whatever the metric.
    colours = "viridis_r" if metric == "mse" else "viridis"
    finite = matrix[np.isfinite(matrix)]
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)
    extent = (0.5, len(matrix) + 0.5, len(matrix) + 0.5, 0.5)
    drawn = axes.imshow(matrix, cmap=colours, vmin=low, vmax=high, interpolation="nearest", extent=extent)
    axes.set(title="all comparisons, in the order of the ranking", xlabel="rank", ylabel="rank")
    axes.title.set_fontsize(10)
    figure.colorbar(drawn, ax=axes, label=WORDS[metric], shrink=0.9, extend="both")


def _draw_distribution(axes: Any, rows: Sequence[RankedCase], values: Mapping[str, float | None], metric: str) -> None:
    """Each case's value at its rank; a mean of ranks would be near a straight line, so a measure stands for it."""
    for kinds, colour, words in (
        (("registered", "reference"), _LINE, "registered, and the reference"),
        (("unregistered",), _LIGHT, "unregistered"),
        (("identity",), _DARK, "no transform was better"),
    ):
        found = [row for row in rows if row.registration in kinds]
        places = [(row.rank, values[row.case]) for row in found if values[row.case] is not None]
        if places:
            axes.scatter(*zip(*places, strict=True), s=10, color=colour, label=f"{words} ({len(found)})")
    if axes.collections:
        axes.legend(fontsize=8, frameon=False)
    axes.set(title="every case's mean over its comparisons", xlabel="rank (1 is most dissimilar)", ylabel=WORDS[metric])
    axes.title.set_fontsize(10)
    axes.spines[["top", "right"]].set_visible(False)


def _matrix(path: Path, order: Sequence[str], metric: str) -> NDArray[np.float64]:
    """Values of all comparisons, rows and columns in the given order; NaN on the diagonal and where undefined."""
    place = {case: index for index, case in enumerate(order)}
    matrix = np.full((len(order), len(order)), np.nan)
    try:
        pairs = read_table(path)
    except (OSError, ValueError) as error:
        raise MissingDataError(f"{path} cannot be read; remove the folder and rank again") from error
    for pair in pairs:
        if pair[metric] is not None:
            row, column = place[pair["first"]], place[pair["second"]]
            matrix[row, column] = matrix[column, row] = pair[metric]
    return matrix

"""`calibrate`: what each size of patch and batch takes on this machine, in a minute or two, for previews of cost."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from study.buckets.storage import local
from study.cli.options import add_data_option
from study.common.errors import InvalidInputError, check_range
from study.common.setting import number, whole
from study.common.terminal import output_to, say
from study.curriculum.schemes import SCHEMES
from study.store.specification import TrialSpec

if TYPE_CHECKING:
    from study.nnunet.datasets import DataPaths
    from study.run.provenance import Workplace
    from study.search.space import SearchSpace
    from study.search.trials import Lookup
    from study.store.calibration import Calibration

EXAMPLES = """\
  python -m study calibrate --data data --dataset 4
  python -m study calibrate search_spaces/pgps.yaml --data data --dataset 4 --seconds 300
  python -m study calibrate --data data --dataset 4 --device cpu --cpus 1 --out calibration.json
  python -m study run search_spaces/pgps.yaml --data data --dataset 4 --dry-run --costs-from calibration.json
"""
SECONDS, FEWEST_SECONDS, MOST_SECONDS = 90.0, 5.0, 24 * 3600.0
# Points of a space that are looked at for their sizes.
MOST_POINTS = 1000
SHOWN_SHAPES = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `calibrate`."""
    parser.add_argument(
        "space",
        nargs="?",
        type=Path,
        metavar="SPACE.yaml",
        help="time the sizes of this search space, with its settings (default: those of all named schemes)",
    )
    add_data_option(parser)
    parser.add_argument("--dataset", metavar="ID|NAME", help="4 or Dataset004_Hippocampus")
    parser.add_argument("--plans", metavar="NAME", help="default: the dataset's only plans, or nnUNetPlans")
    parser.add_argument("--configuration", metavar="NAME", help="default: 3d_fullres, or the space's")
    parser.add_argument(
        "--fold", type=whole, metavar="N", help="whose cases are used (default: 0, or the space's first)"
    )
    parser.add_argument(
        "--seconds", type=number, default=SECONDS, metavar="X", help=f"that it may take (default: {SECONDS:g})"
    )
    parser.add_argument(
        "--out", type=local, metavar="FILE", help="default: beside the prepared data, where it is found"
    )
    machine = parser.add_argument_group("machine (as a trial will have it)")
    machine.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    machine.add_argument("--cpus", type=number, metavar="X", help="cores (default: as a study shares this machine out)")
    machine.add_argument("--data-workers", type=whole, metavar="N", help="processes that make batches")
    machine.add_argument("--country", metavar="ISO3", help="grid of the CO2 figures (default: world average)")


def run(args: argparse.Namespace) -> int:
    """Time each network of the space, and write what was found."""
    from study.nnunet.datasets import data_paths, find_dataset
    from study.run.calibrate import calibrate
    from study.run.meter import check_country
    from study.search.trials import check_data, prepared_lookup
    from study.store.calibration import check_writable, network_of, usual_path

    check_range("--seconds", args.seconds, FEWEST_SECONDS, MOST_SECONDS)
    space, paths = _space(args), data_paths(args.data)
    check_country(space.energy.country)
    lookup = prepared_lookup(paths)
    check_data(space, lookup)
    workplace = _workplace(args, space, paths)
    networks: dict[tuple[str, ...], list[TrialSpec]] = {}
    for spec in specs_of(space, lookup):
        networks.setdefault(network_of(spec), []).append(spec)
    if args.out is not None and len(networks) > 1:
        legal = f"left out for {len(networks)} networks, which are a file each"
        raise InvalidInputError(field="--out", received=str(args.out), legal=legal)
    folders = {found[0].dataset: find_dataset(paths, found[0].dataset).folder for found in networks.values()}
    for folder in folders.values():
        check_writable(args.out or usual_path(folder, next(iter(networks)), ""))
    for network, found in networks.items():
        shapes = {(stage.patch_size, stage.batch_size) for spec in found for stage in spec.curriculum.stages}
        say(
            f"timing {len(shapes)} sizes of {' '.join(network)}: {args.seconds:g} s, and up to a case's validation more"
        )
        with tempfile.TemporaryDirectory(prefix="pgps-log-") as logs, output_to(Path(logs) / "log.txt"):
            taken = calibrate(found[0], sorted(shapes), workplace, seconds=args.seconds)
        path = args.out or usual_path(folders[found[0].dataset], network, taken.hardware)
        taken.write(path)
        say(_text(taken))
        say(f"written to {path}")
    return 0


def _space(args: argparse.Namespace) -> SearchSpace:
    """The space that was named, or every named scheme, with what the command line says of data and machine."""
    from study.search.document import load_space, space_from

    schemes = {"name": "schemes", "searcher": "grid", "curriculum": {"scheme": list(SCHEMES)}}
    space = space_from(schemes) if args.space is None else load_space(args.space)
    return space.with_overrides(
        **{name: getattr(args, name) for name in ("dataset", "plans", "configuration", "cpus", "country")},
        data_workers=args.data_workers,
        folds=(args.fold if args.fold is not None else space.folds[0],),
        seeds=space.seeds[:1],
        gpus=0 if args.device == "cpu" else None,
    )


def specs_of(space: SearchSpace, lookup: Lookup) -> Iterator[TrialSpec]:
    """The first trial of each point, of drawn ones where the points are too many or not known in advance."""
    from study.search.algorithms import draws
    from study.search.trials import specs

    points = [] if space.method.points is None else list(islice(space.points(), MOST_POINTS + 1))
    if not 0 < len(points) <= MOST_POINTS:
        # The first of a grid have one value of its slowest axes, the plans say.
        points = list(islice(draws(space.searched, space.seed), MOST_POINTS))
    for point in points:
        yield specs(space, point, lookup)[0]


def _workplace(args: argparse.Namespace, space: SearchSpace, paths: DataPaths) -> Workplace:
    from study.cli.costs import shares_here
    from study.common.machine import MachineShare, resolve_device
    from study.run.provenance import Workplace

    resources, shares = space.resources, shares_here(space)
    device = resolve_device("cpu" if resources.gpus == 0 else args.device)
    share = MachineShare(
        device=device,
        cpus=shares.cpus if shares else resources.cpus,
        data_workers=resources.data_workers,
        compile_cache=resources.compile_cache,
    )
    return Workplace(data=paths, resources=share, energy=space.energy)


def _text(taken: Calibration) -> str:
    """What was measured, the smallest sizes and the largest."""
    from study.curriculum.table import size_text

    rows = sorted(taken.shapes, key=lambda shape: (shape.seconds, shape.patch_size))
    lines = [f"{taken.hardware}, {taken.took_seconds:.0f} s"]
    for row in rows if len(rows) <= SHOWN_SHAPES else [*rows[: SHOWN_SHAPES // 2], *rows[-SHOWN_SHAPES // 2 :]]:
        memory = "" if row.peak_memory_bytes is None else f"  {row.peak_memory_bytes / 2**30:.1f} GiB"
        lines.append(
            f"  {size_text(row.patch_size):>13} x {row.batch_size:<4} {1000 * row.seconds:8.1f} ms "
            f"({1000 * row.low_seconds:.1f} to {1000 * row.high_seconds:.1f}, {row.count} iterations){memory}"
        )
    others = (("set-up", taken.setup), ("validation batch", taken.validation), ("final validation", taken.final))
    lines += [f"  {name}: {'not timed' if found is None else f'{found.seconds:.3g} s'}" for name, found in others]
    if taken.left_out:
        lines.append(f"  no time for {taken.left_out} sizes, which lie between those above; give more --seconds")
    return "\n".join(lines)

"""`demo`: the embedded study. Made-up data, real nnU-Net, real Ray Tune, a Pareto plot, in minutes on two cores."""

from __future__ import annotations

import argparse
from pathlib import Path

from study.datasets import DataPaths
from study.terminal import say

EXAMPLES = """\
  python -m study demo --out studies/demo
  python -m study status studies/demo
"""
SPACE = Path("smoke.yaml")
PATCH_SIZE, MAX_FEATURES, BATCH_SIZE = (32, 32, 32), 32, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `demo`."""
    parser.add_argument("--out", type=Path, default=Path("studies/demo"), metavar="DIR", help="default: studies/demo")


def run(args: argparse.Namespace) -> int:
    """Make and prepare the data inside the study folder, run the space, report."""
    from analysis.report import write_report
    from study.ledger import Ledger
    from study.live_table import closing
    from study.spaces import check_data, load_space
    from study.specs import prepared_lookup
    from study.status import study_status
    from study.verbs.run import start

    space = load_space(SPACE)
    Ledger.create(args.out, space=space.identity())
    paths = prepare_phantoms(args.out / "data")
    check_data(space, prepared_lookup(paths))
    code = start(space, paths, args.out, and_then=())
    report = write_report([args.out])
    for figure in report.pareto_figures:
        say(f"plot    {figure}")
    say(f"report  {report.page}")
    for line in closing(args.out, study_status(Ledger.open(args.out)), "recommend", "--knee"):
        say(line)
    return code


def prepare_phantoms(folder: Path) -> DataPaths:
    """Embedded data under a folder, made and prepared with a small plan unless it is there already."""
    from study.datasets import data_paths
    from study.phantom import NAME, write_phantom_dataset
    from study.prepare import Recipe, prepare, raw_source
    from study.small_plan import SmallPlan
    from study.verbs.prepare import progress_bar

    paths = data_paths(folder)
    assert paths.raw is not None
    raw = paths.raw / NAME
    if not (raw / "dataset.json").exists():
        write_phantom_dataset(paths.raw)
    recipe = Recipe(small=SmallPlan(patch_size=PATCH_SIZE, max_features=MAX_FEATURES, batch_size=BATCH_SIZE))
    with progress_bar(recipe) as report:
        prepare(raw_source(raw, None), paths, recipe, report=report)
    return paths

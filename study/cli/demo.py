"""`demo`: the embedded study. Made-up data, real nnU-Net, real Ray Tune, a Pareto plot, in minutes on two cores."""

from __future__ import annotations

import argparse
from pathlib import Path

from study.buckets.storage import local
from study.common.terminal import say
from study.nnunet.datasets import DataPaths, data_paths
from study.nnunet.plans import SmallPlan

EXAMPLES = """\
  python -m study demo --out studies/demo
  python -m study status studies/demo
"""
SPACE = Path("smoke.yaml")
PATCH_SIZE, MAX_FEATURES, BATCH_SIZE = (32, 32, 32), 32, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `demo`."""
    parser.add_argument("--out", type=local, default=Path("studies/demo"), metavar="DIR", help="default: studies/demo")


def run(args: argparse.Namespace) -> int:
    """Make and prepare the data inside the study folder, run the space, report."""
    from analysis.page.report import write_report
    from study.cli.live import closing
    from study.cli.run import start
    from study.search.document import load_space
    from study.search.trials import check_data, prepared_lookup
    from study.store.ledger import Ledger
    from study.store.status import study_status

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
    from study.cli.live import preparation_bar
    from study.nnunet.phantom import NAME, write_phantom_dataset
    from study.nnunet.prepare import prepare
    from study.nnunet.prepare.sources import PlansRecipe, raw_source

    paths = data_paths(folder)
    assert paths.raw is not None
    raw = paths.raw / NAME
    if not (raw / "dataset.json").exists():
        write_phantom_dataset(paths.raw)
    recipe = PlansRecipe(small=SmallPlan(patch_size=PATCH_SIZE, max_features=MAX_FEATURES, batch_size=BATCH_SIZE))
    with preparation_bar(recipe) as report:
        prepare(raw_source(raw, None), paths, recipe, report=report)
    return paths

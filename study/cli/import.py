"""`import`: finished trainings of stock nnU-Net as trials of a study."""

from __future__ import annotations

import argparse
from pathlib import Path

from study.buckets.storage import place, url_of
from study.common.errors import InvalidInputError
from study.common.terminal import complain, say

EXAMPLES = """\
  # every finished fold of all models of a dataset, or of one
  python -m study import nnUNet_results/Dataset004_Hippocampus --out studies/stock
  python -m study import Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres --out studies/stock
  # then both in one report
  python -m study compare studies/hippo studies/stock --baseline imported --against pgps
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `import`."""
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR", help="TRAINER__PLANS__CONFIGURATION, or above it")
    parser.add_argument("--out", type=place, required=True, metavar="STUDY", help="study folder, made if absent")


def run(args: argparse.Namespace) -> int:
    """Read all runs, then record them."""
    from study.nnunet.imported import add_run, read_runs
    from study.store.ledger import Ledger

    if url_of(args.out) is not None:
        raise InvalidInputError(field="--out", received=args.out, legal="a folder")
    runs, left_out = read_runs(args.results)
    ledger = Ledger.create(args.out)
    for run in runs:
        folder, is_new = add_run(ledger, run)
        was = "imported" if is_new else "was imported before"
        spec, result = folder.spec(), run.result
        seconds = sum(interval.seconds for interval in run.intervals if interval.phase.value == "training")
        say(
            f"{folder.trial_id} {was}: {spec.imported}, {spec.configuration}, fold {spec.fold}, seed {spec.seed}, "
            f"Dice {result.dice:.4f}, {seconds:.1f} s by its log, energy unmeasured"
        )
    for line in left_out:
        complain(line)
    say(f"next: python -m study report {args.out}")
    return 0

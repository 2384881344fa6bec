"""Command line: `python -m study VERB …`, also installed as `pgps`. Each verb is a module of `study.cli`,
of `analysis.cli`, which has a command line of its own too, or of `benchmarks`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from study.cli.program import CommandLine

VERBS = {
    "demo": "run the embedded study: made-up data, six trials, a Pareto plot",
    "prepare": "convert, verify, plan and preprocess a dataset with nnU-Net, once",
    "rank": "rank a fold's training cases by image similarity, the most dissimilar first",
    "schemes": "the curricula with a name, and when to use which",
    "plan": "print the stage table of a curriculum and its voxel share",
    "calibrate": "time each size of patch and batch on this machine, for previews of cost",
    "trial": "train one trial, without Ray",
    "run": "run a study on Ray Tune",
    "confirm": "train further folds of the points that may be on the front, until it is known who is",
    "status": "table of a study's trials, or of the studies here",
    "watch": "the report's page, served on this machine while a study runs",
    "report": "Pareto fronts, tables and a page from one or several studies",
    "front": "the non-dominated configurations",
    "compare": "schemes against a baseline, case by case, in trials or in published numbers",
    "recommend": "the configuration for a budget, or at the knee, with the commands that use it",
    "replay-stops": "what late stopping would have saved in finished studies, and what it would have lost",
    "export": "a configuration's models for stock nnU-Net, or all trials into MLflow, W&B or TensorBoard",
    "import": "finished trainings of stock nnU-Net as points of a study",
    "dashboard": "optuna-dashboard on a study, from its ledger alone",
    "bench": "measure start-up, overhead and stage changes",
    "completion": "the script with which bash, zsh or fish completes `pgps`",
    "doctor": "what will be used here and what is missing",
}
PROGRAM = CommandLine(
    name="python -m study",
    description="A hyperparameter study of Progressive Growing of Patch Size on nnU-Net v2.",
    package="study.cli",
    verbs=VERBS,
    elsewhere={
        "bench": "benchmarks.bench",
        "replay-stops": "analysis.cli.replay_stops",
        **{verb: f"analysis.cli.{verb}" for verb in ("report", "front", "compare", "recommend")},
    },
    alone="status",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; see `CommandLine.run`."""
    return PROGRAM.run(arguments)


if __name__ == "__main__":
    sys.exit(main())

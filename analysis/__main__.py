"""Command line: `python -m analysis VERB …`. Each verb is a module of `analysis.cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from study.cli.program import CommandLine

PROGRAM = CommandLine(
    name="python -m analysis",
    description="From a study's ledger to Pareto fronts, tables and a page.",
    package="analysis.cli",
    verbs={
        "report": "Pareto fronts, tables and a page from one or several studies",
        "front": "the non-dominated configurations",
        "recommend": "the configuration for a budget, or at the knee, with the commands that use it",
        "compare": "schemes against a baseline, case by case, in trials or in published numbers",
        "power": "the smallest difference of Dice that a study can show, and what more seeds would",
        "replay-stops": "what late stopping would have saved in finished studies, and what it would have lost",
        "bench": "how long fronts and reports of large studies take",
    },
    elsewhere={"bench": "benchmarks.bench_reports"},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; see `CommandLine.run`."""
    return PROGRAM.run(arguments)


if __name__ == "__main__":
    sys.exit(main())

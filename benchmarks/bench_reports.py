"""`python -m analysis bench`: how long fronts and reports of large studies take on this machine."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.common.errors import check_count
from study.common.setting import whole

if TYPE_CHECKING:
    from benchmarks.reports import FrontBench, ReportBench

EXAMPLES = """  python -m analysis bench front
  python -m analysis bench report --trials 200 --json"""
DEFAULT_TRIALS = {"front": 1_000_000, "report": 1_000}
MOST_TRIALS = {"front": 10_000_000, "report": 100_000}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument(
        "benchmark",
        nargs="?",
        choices=list(DEFAULT_TRIALS),
        help="what to measure (default: both, one after the other)",
    )
    parser.add_argument("--trials", type=whole, metavar="N", help="default: 1000000 for the front, 1000 for the report")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    chosen = [args.benchmark] if args.benchmark else list(DEFAULT_TRIALS)
    for benchmark in chosen:
        if args.trials is not None:
            check_count("--trials", args.trials, most=MOST_TRIALS[benchmark])
    figures = {benchmark: _measure(benchmark, args.trials or DEFAULT_TRIALS[benchmark]) for benchmark in chosen}
    told: dict[str, Callable[[Any], str]] = {"front": _front_text, "report": _report_text}
    if args.json:
        print(json.dumps({benchmark: asdict(one) for benchmark, one in figures.items()}))
    else:
        print("\n".join(told[benchmark](one) for benchmark, one in figures.items()))
    return 0


def _measure(benchmark: str, trials: int) -> Any:
    from benchmarks.reports import measure_front, measure_report

    with tempfile.TemporaryDirectory(prefix="pgps-bench-") as folder:
        return (measure_front if benchmark == "front" else measure_report)(Path(folder), trials=trials)


def _front_text(figures: FrontBench) -> str:
    return (
        f"front    {figures.trials} trials, three objectives, {figures.on_front} on the front\n"
        f"         {figures.load_seconds:.2f} s parquet to frame, {figures.front_seconds:.2f} s frame to front "
        f"({figures.front_by_sorting:.1f} times sorting it), {figures.peak_memory_mib:.0f} MiB"
    )


def _report_text(figures: ReportBench) -> str:
    return (
        f"report   {figures.trials} trials, {figures.figures} figures in {figures.seconds:.1f} s "
        f"({figures.read_by_report:.0%} of it reading)\n"
        f"         page {figures.page_mib:.1f} MiB, memory {figures.peak_memory_mib:.0f} MiB"
    )

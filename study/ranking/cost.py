"""What a ranking will cost: how many registrations and comparisons, and a time from one of each, timed here and now."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from study.machine import usable_cores
from study.ranking.registration import NONE
from study.ranking.similarity import compare
from study.ranking.survey import Layout
from study.ranking.tasks import Block, Job, align_case, load_alignment


def cost(job: Job, layout: Layout, cases: Sequence[str], blocks: Sequence[Block], workers: int) -> str:
    """What is to be done, and about how long it takes, from one registration and one comparison that are timed."""
    to_align = [
        case for case in [case for case in cases if not job.aligned_path(case).exists()] if case != layout.reference
    ]
    pairs = sum(len(block.pairs) for block in blocks if not job.block_path(block).exists())
    seconds = _registration_seconds(job, layout, to_align) * max(0, len(to_align) - 1)
    seconds += _comparison_seconds(job, layout, cases) * pairs
    registrations = 0 if job.transform == NONE else len(to_align)
    return (
        f"{len(cases)} cases, reference {layout.reference}: {registrations} registrations and {pairs} comparisons, "
        f"about {duration(seconds / min(workers, usable_cores()))} with --workers {workers} (one of each timed)"
    )


def _registration_seconds(job: Job, layout: Layout, to_align: Sequence[str]) -> float:
    """Of the first case there is to register, which is done then."""
    if not job.aligned_path(layout.reference).exists():
        align_case(job, layout, layout.reference)
    if not to_align:
        return 0.0
    started = time.perf_counter()
    align_case(job, layout, to_align[0])
    return time.perf_counter() - started


def _comparison_seconds(job: Job, layout: Layout, cases: Sequence[str]) -> float:
    """Of the reference with a case, the second time, when libraries are loaded."""
    other = next(case for case in cases if case != layout.reference and job.aligned_path(case).exists())
    seconds = math.inf
    for _ in range(2):
        ours, theirs = load_alignment(job, layout.reference).image, load_alignment(job, other).image
        started = time.perf_counter()
        compare(ours, theirs, layout.data_ranges)
        seconds = min(seconds, time.perf_counter() - started)
    return seconds


def duration(seconds: float) -> str:
    """A time in the words of an estimate."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

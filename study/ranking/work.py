"""The pieces of work of a ranking, each a function of its arguments that leaves one file: done once, in any order.

They run in other processes. A file appears whole or not at all, so what is there after a kill is done.

`run_all` calls one over many items in several processes, which end with the one that started them. `cost` says how many
registrations and comparisons a ranking needs, and how long they take, from one of each, timed here and now.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from study.common import files
from study.common.errors import MachineError
from study.common.machine import usable_cores
from study.ranking.files import CasePair
from study.ranking.images import Centred, centred, on_grid
from study.ranking.order import Placement
from study.ranking.registration import NONE, REFERENCE, Alignment, align, kept_transform
from study.ranking.similarity import GridImage, compare
from study.ranking.survey import CaseFolder, CaseSurvey, CommonLayout, survey

_T = TypeVar("_T")
Spread = Callable[[Callable[[Any], None], Sequence[Any], Callable[[int], None]], None]
"""Calls a function once per item, somewhere, and reports how many are done."""
_LOOK_SECONDS = 0.3
_MODULES = ["nnunetv2.training.dataloading.nnunet_dataset", "SimpleITK", "skimage.metrics", "study.ranking.work"]


def run_all(function: Callable[[_T], None], items: Sequence[_T], workers: int, report: Callable[[int], None]) -> None:
    """Call a function once per item, in no particular order.

    Args:
        function: can be pickled, and leaves its result somewhere.
        items: can be pickled.
        workers: processes; one means this one.
        report: told how many items are done, several times a second.

    Raises:
        MachineError: a process died.
        StudyError: whatever the function raises; what has not begun then is not done.
    """
    report(0)
    if min(workers, len(items)) <= 1:
        for done, item in enumerate(items, start=1):
            function(item)
            report(done)
        return
    # Not forked from here: threads of libraries do not survive a fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    pool = ProcessPoolExecutor(min(workers, len(items)), mp_context=context, initializer=_begin)
    try:
        _follow([pool.submit(function, item) for item in items], report)
    except BrokenProcessPool as error:
        raise MachineError(
            "a ranking process died, which a lack of memory can do; the same command goes on from here, "
            "with fewer --workers it needs less memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _follow(futures: Sequence[Future[None]], report: Callable[[int], None]) -> None:
    waiting: set[Future[None]] = set(futures)
    while waiting:
        finished, waiting = wait(waiting, timeout=_LOOK_SECONDS, return_when=FIRST_EXCEPTION)
        for future in finished:
            future.result()
        report(len(futures) - len(waiting))


def _begin() -> None:
    """Leave interruptions to the parent, and end with it.

    A killed parent would leave processes that wait for work for ever, because they hold both ends of its pipe.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


# Cases on either side of a block of comparisons: so many are in memory twice, and a kill loses one block.
BLOCK_CASES = 8


@dataclass(frozen=True, kw_only=True)
class RankingJob:
    """What every piece of work needs.

    Attributes:
        cases: the preprocessed cases; work: folder of the unfinished ranking.
        transform: see `registration.TRANSFORMS`.
    """

    cases: CaseFolder
    work: Path
    transform: str

    def survey_path(self, case: str) -> Path:
        """Where a case's survey is kept."""
        return self.work / "surveys" / f"{case}.npz"

    def aligned_path(self, case: str) -> Path:
        """Where a case on the common grid is kept."""
        return self.work / "aligned" / f"{case}.npz"

    def block_path(self, block: Block) -> Path:
        """Where the values of a block of comparisons are kept."""
        return self.work / "pairs" / f"block_{block.number:06d}.json"


@dataclass(frozen=True, kw_only=True)
class Block:
    """Comparisons that are made together: pairs of cases."""

    number: int
    pairs: tuple[tuple[str, str], ...]


def survey_case(job: RankingJob, case: str) -> None:
    """Look at a case; see `survey` for what is kept."""
    _save(job.survey_path(case), survey(job.cases.read(case)).arrays())


def load_survey(job: RankingJob, case: str) -> CaseSurvey:
    """What `survey_case` left."""
    with _loaded(job.survey_path(case)) as arrays:
        return CaseSurvey.from_arrays(arrays)


def align_case(job: RankingJob, layout: CommonLayout, case: str) -> None:
    """Bring a case onto the common grid; see `align`."""
    reference = _centred(job.cases, layout, layout.reference)
    if case == layout.reference:
        alignment = Alignment(image=_on_own_grid(reference), registration=REFERENCE, reason="")
    else:
        alignment = align(read_centred(job.cases, layout, case), reference, job.transform)
    contents = {
        # What comes out of the resampling has single precision.
        "voxels": alignment.image.voxels.astype(np.float32),
        "inside": alignment.image.inside,
        "parameters": np.asarray(alignment.parameters, dtype=np.float64),
        "registration": np.asarray(alignment.registration),
        "reason": np.asarray(alignment.reason),
        "off_mm": np.asarray([alignment.off_before_mm, alignment.off_after_mm], dtype=np.float64),
    }
    _save(job.aligned_path(case), contents)


def load_alignment(job: RankingJob, case: str) -> Alignment:
    """What `align_case` left."""
    with _loaded(job.aligned_path(case)) as arrays:
        return Alignment(
            image=GridImage(voxels=arrays["voxels"].astype(np.float64), inside=arrays["inside"]),
            registration=str(arrays["registration"]),
            reason=str(arrays["reason"]),
            parameters=tuple(float(p) for p in arrays["parameters"]),
        )


def load_off_mm(job: RankingJob, case: str) -> tuple[float, float] | None:
    """How far the centres of a case's classes were from the reference's before and after; None without labels."""
    with _loaded(job.aligned_path(case)) as arrays:
        before, after = (float(distance) for distance in arrays["off_mm"])
        return None if math.isnan(before) else (before, after)


def load_placement(job: RankingJob, case: str) -> tuple[Placement, tuple[float, ...]]:
    """How a case came onto the common grid, and the parameters of its transform."""
    with _loaded(job.aligned_path(case)) as arrays:
        placement = Placement(case=case, registration=str(arrays["registration"]), reason=str(arrays["reason"]))
        return placement, tuple(float(p) for p in arrays["parameters"])


def compare_block(job: RankingJob, layout: CommonLayout, block: Block) -> None:
    """Compare the pairs of a block."""
    images = {case: load_alignment(job, case).image for case in sorted({case for pair in block.pairs for case in pair})}
    files.write_json(job.block_path(block), [_compared(images, pair, layout) for pair in block.pairs])


def load_block(job: RankingJob, block: Block) -> list[CasePair]:
    """What `compare_block` left."""
    return [CasePair(**pair) for pair in files.read_json(job.block_path(block))]


def read_centred(cases: CaseFolder, layout: CommonLayout, case: str) -> Centred:
    """A case as it is registered: flat axes dropped, coarsened, centred."""
    return centred(cases.read(case).without(layout.dropped_axes), layout.factors)


def lay_on_grid(
    cases: CaseFolder, layout: CommonLayout, case: str, *, transform: str, parameters: Sequence[float]
) -> GridImage:
    """A case on the common grid by the transform that its registration found."""
    reference = _centred(cases, layout, layout.reference)
    return on_grid(
        read_centred(cases, layout, case),
        reference.defined,
        kept_transform(transform, len(reference.shape), parameters),
    )


def blocks_of_all(cases: Sequence[str]) -> list[Block]:
    """All pairs of different cases, in blocks of few cases each."""
    groups = [cases[start : start + BLOCK_CASES] for start in range(0, len(cases), BLOCK_CASES)]
    pairs = [
        tuple((first, second) for first in ours for second in theirs if first < second)
        for index, ours in enumerate(groups)
        for theirs in groups[index:]
    ]
    return [Block(number=number, pairs=found) for number, found in enumerate(filter(None, pairs))]


def blocks_of_reference(cases: Sequence[str], reference: str) -> list[Block]:
    """Every case with the reference, which is compared with itself too."""
    starts = range(0, len(cases), 2 * BLOCK_CASES)
    groups = [cases[start : start + 2 * BLOCK_CASES] for start in starts]
    return [
        Block(number=number, pairs=tuple((case, reference) for case in group)) for number, group in enumerate(groups)
    ]


@lru_cache(maxsize=1)
def _centred(cases: CaseFolder, layout: CommonLayout, case: str) -> Centred:
    return read_centred(cases, layout, case)


def _on_own_grid(reference: Centred) -> GridImage:
    return on_grid(reference, reference.defined, kept_transform("", len(reference.shape), ()))


def _compared(images: dict[str, GridImage], pair: tuple[str, str], layout: CommonLayout) -> dict[str, Any]:
    first, second = pair
    found = compare(images[first], images[second], layout.data_ranges)
    return asdict(CasePair(first=first, second=second, values=dict(found.values), reasons=dict(found.reasons)))


def _save(path: Path, arrays: dict[str, Any]) -> None:
    files.write_atomically(path, lambda handle: np.savez(handle, **arrays))


@contextmanager
def _loaded(path: Path) -> Iterator[Any]:
    with np.load(path, allow_pickle=False) as arrays:
        yield arrays


def cost(job: RankingJob, layout: CommonLayout, cases: Sequence[str], blocks: Sequence[Block], workers: int) -> str:
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


def _registration_seconds(job: RankingJob, layout: CommonLayout, to_align: Sequence[str]) -> float:
    """Of the first case there is to register, which is done then."""
    if not job.aligned_path(layout.reference).exists():
        align_case(job, layout, layout.reference)
    if not to_align:
        return 0.0
    started = time.perf_counter()
    align_case(job, layout, to_align[0])
    return time.perf_counter() - started


def _comparison_seconds(job: RankingJob, layout: CommonLayout, cases: Sequence[str]) -> float:
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

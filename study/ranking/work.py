"""The pieces of work of a ranking, each a function of its arguments that leaves one file: done once, in any order.

They run in other processes. A file appears whole or not at all, so what is there after a kill is done: whoever calls a
piece again reads its file.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from study.common import files
from study.common.errors import MachineError
from study.ranking.files import CasePair
from study.ranking.images import CaseFolder, CaseSurvey, Centred, CommonLayout, centred, on_grid, survey
from study.ranking.registration import REFERENCE, Alignment, align, kept_transform
from study.ranking.similarity import GridImage, compare

_T = TypeVar("_T")
Spread = Callable[[Callable[[Any], object], Sequence[Any], Callable[[int], None]], None]
"""Calls a function once per item, somewhere, and reports how many are done."""
_LOOK_SECONDS = 0.3
# Cases on either side of a block of comparisons: so many are in memory twice, and a kill loses one block.
BLOCK_CASES = 8


def run_all(
    function: Callable[[_T], object], items: Sequence[_T], report: Callable[[int], None], *, workers: int
) -> None:
    """Call a function once per item, in no particular order, in processes that end with this one.

    Args:
        function: can be pickled, and leaves its result somewhere.
        items: can be pickled.
        report: told how many items are done.
        workers: processes; one means this one.

    Raises:
        MachineError: a process died.
        StudyError: whatever the function raises; what has not begun then is not done.
    """
    report(0)
    workers = min(workers, len(items))
    if workers <= 1:
        for done, item in enumerate(items, start=1):
            function(item)
            report(done)
        return
    # That pieces are cut off with the command needs no saying.
    warnings.filterwarnings("ignore", message="[0-9]+ tasks which were still being processed")
    if not isinstance(threading.excepthook, _ThreadsSaid):
        threading.excepthook = _ThreadsSaid(threading.excepthook)
    try:
        with parallel_config("loky", initializer=_end_with, initargs=(os.getpid(),)):
            parallel = Parallel(n_jobs=workers, batch_size=1, return_as="generator_unordered")
            with _interruptions_held():
                ended = parallel(delayed(call)(function, item) for item in items)
            for done, _ in enumerate(ended, start=1):
                report(done)
    except TerminatedWorkerError as error:
        raise MachineError(
            "a ranking process died, which a lack of memory can do; the same command goes on from here, "
            "with fewer --workers it needs less memory"
        ) from error


@dataclass(frozen=True)
class _ThreadsSaid:
    """Says what threads raise, but for joblib's own when it is cut off.

    Its thread forgets all pieces that have not begun, then looks for those that it was about to hand on (joblib 1.6).
    """

    before: Callable[[Any], object]

    def __call__(self, raised: Any) -> None:
        if raised.exc_type is not KeyError or getattr(raised.thread, "name", "") != "ExecutorManagerThread":
            self.before(raised)


@contextmanager
def _interruptions_held() -> Iterator[None]:
    """What is started in the block leaves Ctrl-C to this process from its first moment on, and this one to its end."""
    # Started within, it would let the signal through again.
    resource_tracker.ensure_running()
    received: list[int] = []
    # A library's thread that lets the signal through has its handler called in the main one all the same.
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number)) if is_main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if is_main:
            signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


def _end_with(parent: int) -> None:
    """Have this worker end when its parent has: it would finish what it has begun, and wait for more."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def call(function: Callable[[_T], object], item: _T) -> None:
    """Call a function for what it leaves: what it returns stays in its process."""
    function(item)


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


@dataclass(frozen=True, kw_only=True)
class Block:
    """Comparisons that are made together: pairs of cases."""

    number: int
    pairs: tuple[tuple[str, str], ...]


def survey_case(job: RankingJob, case: str) -> CaseSurvey:
    """A first look at a case."""
    return _kept(job.work / "surveys" / f"{case}.pkl", lambda: survey(job.cases.read(case)))


def align_case(job: RankingJob, layout: CommonLayout, case: str) -> Alignment:
    """A case on the common grid."""

    def make() -> Alignment:
        reference = _centred(job.cases, layout, layout.reference)
        if case == layout.reference:
            still = kept_transform("", len(reference.shape), ())
            found = Alignment(image=on_grid(reference, reference.defined, still), registration=REFERENCE, reason="")
        else:
            found = align(read_centred(job.cases, layout, case), reference, job.transform)
        # What comes out of the resampling has single precision.
        return replace(found, image=_as(np.float32, found.image))

    return _kept(job.work / "aligned" / f"{case}.pkl", make)


def compare_block(job: RankingJob, layout: CommonLayout, block: Block) -> list[CasePair]:
    """The comparisons of a block."""

    def make() -> list[CasePair]:
        cases = sorted({case for pair in block.pairs for case in pair})
        images = {case: _as(np.float64, align_case(job, layout, case).image) for case in cases}
        return [compare_pair(images, pair) for pair in block.pairs]

    def compare_pair(images: dict[str, GridImage], pair: tuple[str, str]) -> CasePair:
        first, second = pair
        found = compare(images[first], images[second], layout.data_ranges)
        return CasePair(first=first, second=second, values=found.values, reasons=found.reasons)

    return _kept(job.work / "pairs" / f"{block.number:06d}.pkl", make)


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
    pairs = [(case, reference) for case in cases]
    size = 2 * BLOCK_CASES
    return [
        Block(number=start // size, pairs=tuple(pairs[start : start + size])) for start in range(0, len(pairs), size)
    ]


def read_centred(cases: CaseFolder, layout: CommonLayout, case: str) -> Centred:
    """A case as it is registered: flat axes dropped, coarsened, centred."""
    return centred(cases.read(case).without(layout.dropped_axes), layout.factors)


_centred = lru_cache(maxsize=1)(read_centred)


def lay_on_grid(
    cases: CaseFolder, layout: CommonLayout, case: str, *, transform: str, parameters: Sequence[float]
) -> GridImage:
    """A case on the common grid by the transform that its registration found."""
    reference = _centred(cases, layout, layout.reference)
    moved = kept_transform(transform, len(reference.shape), parameters)
    return on_grid(read_centred(cases, layout, case), reference.defined, moved)


def _as(kind: Any, image: GridImage) -> GridImage:
    return GridImage(voxels=image.voxels.astype(kind), inside=image.inside)


def _kept(path: Path, make: Callable[[], _T]) -> _T:
    """What a file holds, made first where it is not there."""
    if path.exists():
        found: _T = pickle.loads(path.read_bytes())
        return found
    made = make()
    files.write_atomically(path, lambda handle: pickle.dump(made, handle, protocol=pickle.HIGHEST_PROTOCOL))
    return made

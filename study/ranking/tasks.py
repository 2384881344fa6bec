"""The pieces of work of a ranking, each a function of its arguments that leaves one file: done once, in any order.

They run in other processes. A file appears whole or not at all, so what is there after a kill is done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from study import files
from study.ranking.files import Pair
from study.ranking.images import Centred, centred, on_grid
from study.ranking.order import Placement
from study.ranking.reading import CaseFolder
from study.ranking.registration import REFERENCE, Alignment, align, kept_transform
from study.ranking.similarity import GridImage, compare
from study.ranking.survey import CaseSurvey, Layout, survey

# Cases on either side of a block of comparisons: so many are in memory twice, and a kill loses one block.
BLOCK_CASES = 8


@dataclass(frozen=True, kw_only=True)
class Job:
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


def survey_case(job: Job, case: str) -> None:
    """Look at a case; see `survey` for what is kept."""
    _save(job.survey_path(case), survey(job.cases.read(case)).arrays())


def load_survey(job: Job, case: str) -> CaseSurvey:
    """What `survey_case` left."""
    with _loaded(job.survey_path(case)) as arrays:
        return CaseSurvey.from_arrays(arrays)


def align_case(job: Job, layout: Layout, case: str) -> None:
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


def load_alignment(job: Job, case: str) -> Alignment:
    """What `align_case` left."""
    with _loaded(job.aligned_path(case)) as arrays:
        return Alignment(
            image=GridImage(voxels=arrays["voxels"].astype(np.float64), inside=arrays["inside"]),
            registration=str(arrays["registration"]),
            reason=str(arrays["reason"]),
            parameters=tuple(float(p) for p in arrays["parameters"]),
        )


def load_off_mm(job: Job, case: str) -> tuple[float, float] | None:
    """How far the centres of a case's classes were from the reference's before and after; None without labels."""
    with _loaded(job.aligned_path(case)) as arrays:
        before, after = (float(distance) for distance in arrays["off_mm"])
        return None if math.isnan(before) else (before, after)


def load_placement(job: Job, case: str) -> tuple[Placement, tuple[float, ...]]:
    """How a case came onto the common grid, and the parameters of its transform."""
    with _loaded(job.aligned_path(case)) as arrays:
        placement = Placement(case=case, registration=str(arrays["registration"]), reason=str(arrays["reason"]))
        return placement, tuple(float(p) for p in arrays["parameters"])


def compare_block(job: Job, layout: Layout, block: Block) -> None:
    """Compare the pairs of a block."""
    images = {case: load_alignment(job, case).image for case in sorted({case for pair in block.pairs for case in pair})}
    files.write_json(job.block_path(block), [_compared(images, pair, layout) for pair in block.pairs])


def load_block(job: Job, block: Block) -> list[Pair]:
    """What `compare_block` left."""
    return [Pair(**pair) for pair in files.read_json(job.block_path(block))]


def read_centred(cases: CaseFolder, layout: Layout, case: str) -> Centred:
    """A case as it is registered: flat axes dropped, coarsened, centred."""
    return centred(cases.read(case).without(layout.dropped_axes), layout.factors)


def lay_on_grid(
    cases: CaseFolder, layout: Layout, case: str, *, transform: str, parameters: Sequence[float]
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
def _centred(cases: CaseFolder, layout: Layout, case: str) -> Centred:
    return read_centred(cases, layout, case)


def _on_own_grid(reference: Centred) -> GridImage:
    return on_grid(reference, reference.defined, kept_transform("", len(reference.shape), ()))


def _compared(images: dict[str, GridImage], pair: tuple[str, str], layout: Layout) -> dict[str, Any]:
    first, second = pair
    found = compare(images[first], images[second], layout.data_ranges)
    return asdict(Pair(first=first, second=second, values=dict(found.values), reasons=dict(found.reasons)))


def _save(path: Path, arrays: dict[str, Any]) -> None:
    files.write_atomically(path, lambda handle: np.savez(handle, **arrays))


@contextmanager
def _loaded(path: Path) -> Iterator[Any]:
    with np.load(path, allow_pickle=False) as arrays:
        yield arrays

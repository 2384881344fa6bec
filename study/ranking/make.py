"""Making a ranking: look at every case, register each to the reference, compare, rank, write. Resumable at every step.

What is compared to what is a setting. `others`: every case with every other one, n(n-1)/2 cheap comparisons on the
common grid after n-1 registrations. `reference`: every case with the reference alone, n comparisons. Pairs are never
registered to each other.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from study.common import files
from study.common.checks import check_count
from study.common.errors import LockedError, MachineError
from study.nnunet.datasets import PreparedDataset
from study.ranking import files as stored
from study.ranking.files import CasePair, Ranking, load_ranking
from study.ranking.order import OTHERS, RankingSettings, Request, checked, is_there, ranked
from study.ranking.survey import CommonLayout, case_folder, lay_out
from study.ranking.work import (
    Block,
    RankingJob,
    Spread,
    align_case,
    blocks_of_all,
    blocks_of_reference,
    compare_block,
    cost,
    load_block,
    load_off_mm,
    load_placement,
    load_survey,
    run_all,
    survey_case,
)
from study.store import locks

LIBRARIES = ("numpy", "pyarrow", "scikit-image", "scipy", "SimpleITK")
WORK, LOCK = "work", ".lock"


@dataclass(frozen=True, kw_only=True)
class RankingProgress:
    """How far a ranking is: what is being done, how many pieces of it are done, and how many there are."""

    step: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a call of `make_ranking` left.

    Attributes:
        ranking: the ranking; folder: where it is; record: content of its ranking.json.
        already_done: whether it was there before; seconds: what the call took.
    """

    ranking: Ranking
    folder: Path
    record: dict[str, Any]
    already_done: bool
    seconds: float


def make_ranking(
    dataset: PreparedDataset,
    fold: int,
    settings: RankingSettings,
    *,
    workers: int = 1,
    spread: Spread | None = None,
    rankings: Path | None = None,
    report: Callable[[RankingProgress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda text: None,
) -> Made:
    """Rank the training cases of a fold, or find that they are ranked.

    With more than one worker the script that calls this needs the usual `if __name__ == "__main__":`.

    Args:
        dataset: the prepared dataset.
        fold: of its splits_final.json; its validation cases are never opened.
        settings: see `RankingSettings`.
        workers: processes; the result is the same with any number of them.
        spread: does the pieces of work instead of processes here.
        rankings: folder for rankings; `rankings` beside the preprocessed data unless given.
        report: told how far it is.
        say: told in one line each what will be done, what it will cost, and what had to be taken over.

    Raises:
        InvalidInputError: a setting is not legal, fewer than two training cases, or another ranking is there.
        MissingDataError: cases or plans are missing or cannot be read, or the ranking that is there is damaged.
        MachineError: the folder cannot be written, another process makes the ranking, or one died.
        DataIntegrityError: the cases differ in their number of channels.
    """
    started = time.perf_counter()
    check_count("--workers", workers)
    task = checked(dataset, fold, settings, rankings)
    already_done = is_there(task)
    if not already_done:
        with _locked(task, say):
            # Another process may have made it just before.
            already_done = is_there(task)
            if not already_done:
                _make(task, workers, spread or partial(_here, workers), report, say)
    shutil.rmtree(task.folder / WORK, ignore_errors=True)
    return Made(
        ranking=load_ranking(dataset, fold, rankings=rankings),
        folder=task.folder,
        record=files.read_json(task.folder / stored.RECORD),
        already_done=already_done,
        seconds=time.perf_counter() - started,
    )


@contextmanager
def _locked(task: Request, say: Callable[[str], None]) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            files.make_folder(task.folder)
            stack.enter_context(locks.held(task.folder / LOCK, on_takeover=say))
        except LockedError as error:
            who = f"fold {task.fold} of {task.dataset.name} is being ranked by {error}"
            raise MachineError(f"{who}; wait for it") from error
        except OSError as error:
            why = f"{task.folder} cannot be written ({error.strerror})"
            raise MachineError(f"{why}; give --out DIR, a folder that can") from error
        yield


def _here(workers: int, function: Callable[[Any], None], items: Sequence[Any], report: Callable[[int], None]) -> None:
    run_all(function, items, workers, report)


def _make(
    task: Request,
    workers: int,
    spread: Spread,
    report: Callable[[RankingProgress], None],
    say: Callable[[str], None],
) -> None:
    cases = task.cases
    job = RankingJob(
        cases=case_folder(task.dataset, task.plan),
        work=task.folder / WORK,
        transform=task.settings.transform,
    )
    _begin(task, job.work, say)
    _step("looking at cases", partial(survey_case, job), _missing(cases, job.survey_path), len(cases), spread, report)
    layout = lay_out({case: load_survey(job, case) for case in cases}, task.settings.reference)
    blocks = _blocks(task.settings, cases, layout.reference)
    say(cost(job, layout, cases, blocks, workers))
    _step(
        "registering cases",
        partial(align_case, job, layout),
        _missing(cases, job.aligned_path),
        len(cases),
        spread,
        report,
    )
    left = [block for block in blocks if not job.block_path(block).exists()]
    _step("comparing cases", partial(compare_block, job, layout), left, len(blocks), spread, report)
    _write(task, job, layout, cases, blocks)


def _begin(task: Request, work: Path, say: Callable[[str], None]) -> None:
    """Keep what an interrupted ranking of the same settings left, and nothing else."""
    identity, path = {**task.identity(), "versions": _versions()}, work / "identity.json"
    try:
        same = files.read_json(path) == identity
    except (OSError, ValueError):
        same = False
    if work.exists() and not same:
        say("what an interrupted ranking with other settings left is removed")
        shutil.rmtree(work)
    if same:
        say("going on with an interrupted ranking")
        files.sweep(work)
    files.write_json(path, identity)


def _step(
    name: str,
    function: Callable[[Any], None],
    items: Sequence[Any],
    total: int,
    spread: Spread,
    report: Callable[[RankingProgress], None],
) -> None:
    before = total - len(items)
    spread(function, items, lambda done: report(RankingProgress(step=name, done=before + done, total=total)))


def _missing(cases: Sequence[str], path: Callable[[str], Path]) -> list[str]:
    return [case for case in cases if not path(case).exists()]


def _blocks(settings: RankingSettings, cases: Sequence[str], reference: str) -> list[Block]:
    return blocks_of_all(cases) if settings.compare == OTHERS else blocks_of_reference(cases, reference)


def _write(task: Request, job: RankingJob, layout: CommonLayout, cases: Sequence[str], blocks: Sequence[Block]) -> None:
    placed = [load_placement(job, case) for case in cases]
    pairs: list[CasePair] = sorted(
        (pair for block in blocks for pair in load_block(job, block)), key=lambda pair: (pair.first, pair.second)
    )
    rows = ranked([placement for placement, _ in placed], pairs, both_sides=task.settings.compare == OTHERS)
    stored.write_pairs(task.folder, pairs)
    stored.write_rows(task.folder, rows)
    files.write_json(
        task.folder / stored.RECORD,
        {
            **task.identity(),
            "sha256": stored.rows_sha256(rows),
            "cases": cases,
            "layout": asdict(layout),
            "class_centres_off_mm": {case: off for case in cases if (off := load_off_mm(job, case)) is not None},
            "transforms": {placement.case: parameters for placement, parameters in placed if parameters},
            "versions": _versions(),
        },
    )


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in LIBRARIES}

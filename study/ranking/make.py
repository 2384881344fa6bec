"""Making a ranking: look at every case, register each to the reference, compare, rank, write. Resumable at every step.

What is compared to what is a setting. `others`: every case with every other one, n(n-1)/2 cheap comparisons on the
common grid after n-1 registrations. `reference`: every case with the reference alone, n comparisons. Pairs are never
registered to each other.

A case's value is its mean similarity to what it was compared to, rank 1 is the most dissimilar: a high MSE, and a low
PSNR, SSIM or UQI. `mean-rank` is the mean of the ranks by MSE, SSIM and UQI, in which cases of equal value share the
mean of their ranks; PSNR is left out because it repeats the MSE. A case without a value cannot be called dissimilar: it
comes last. Equal cases are ordered by name.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

from study.common import files
from study.common.errors import InvalidInputError, LockedError, MachineError, check_choice, check_count
from study.curriculum.data_curriculum import METRICS
from study.nnunet.datasets import PreparedDataset, Split
from study.nnunet.plans import NetworkPlan
from study.ranking import files as stored
from study.ranking.files import MEAN_RANK, MEASURES, CasePair, RankedCase, Ranking, Values, load_ranking
from study.ranking.images import MEDOID, CommonLayout, case_folder, lay_out
from study.ranking.registration import NONE, TRANSFORMS
from study.ranking.work import (
    Block,
    RankingJob,
    Spread,
    align_case,
    blocks_of_all,
    blocks_of_reference,
    compare_block,
    run_all,
    survey_case,
)
from study.store import locks

OTHERS, REFERENCE = "others", "reference"
LEAST_CASES = 2
LIBRARIES = ("numpy", "pyarrow", "scikit-image", "scipy", "SimpleITK")
WORK, LOCK = "work", ".lock"


@dataclass(frozen=True, kw_only=True)
class RankingSettings:
    """What decides a ranking besides the data.

    Attributes:
        plans, configuration: whose preprocessed cases are compared.
        transform: see `registration`; reference: a training case, or `medoid`; compare: `others` or `reference`.
    """

    plans: str
    configuration: str
    transform: str = "rigid"
    reference: str = MEDOID
    compare: str = OTHERS

    def __post_init__(self) -> None:
        check_choice("--transform", self.transform, TRANSFORMS)
        check_choice("--compare", self.compare, (OTHERS, REFERENCE))


Report = Callable[[str, int, int], None]
"""Told what is being done, how many pieces of it are done, and how many there are."""


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
    report: Report = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Made:
    """Rank a fold's training cases by their dissimilarity; nothing is done twice.

    Args:
        dataset: a prepared dataset.
        fold: whose training cases are ranked; validation cases are never opened.
        settings: what decides the ranking.
        workers: processes; the result is the same with any number of them.
        spread: does the pieces of work instead of processes here.
        rankings: folder for rankings; `rankings` beside the preprocessed data unless given.
        report: told how far it is.
        say: told in one line each what will be done, and what had to be taken over.

    Raises:
        InvalidInputError: a setting is not legal, fewer than two training cases, or another ranking is there.
        MissingDataError: cases or plans are missing or cannot be read, or the ranking that is there is damaged.
        MachineError: the folder cannot be written, another process makes the ranking, or one died.
        DataIntegrityError: the cases differ in their number of channels.
    """
    started = time.perf_counter()
    check_count("--workers", workers)
    request = _checked(dataset, fold, settings, rankings)
    already_done = request.is_there()
    if not already_done:
        with _locked(request, say):
            # Another process may have made it just before.
            already_done = request.is_there()
            if not already_done:
                request.make(spread or partial(run_all, workers=workers), report, say)
    shutil.rmtree(request.folder / WORK, ignore_errors=True)
    return Made(
        ranking=load_ranking(dataset, fold, rankings=rankings),
        folder=request.folder,
        record=files.read_json(request.folder / stored.RECORD),
        already_done=already_done,
        seconds=time.perf_counter() - started,
    )


def _checked(dataset: PreparedDataset, fold: int, settings: RankingSettings, rankings: Path | None) -> _Request:
    plan = dataset.plan(settings.plans, settings.configuration)
    dataset.check_preprocessed(plan)
    split = dataset.split(fold)
    training = len(set(split.training))
    if training < LEAST_CASES:
        legal = f"at least {LEAST_CASES} to compare"
        raise InvalidInputError(field=f"training cases of fold {fold}", received=training, legal=legal)
    if settings.reference != MEDOID and settings.reference not in split.training:
        kind = "a validation case" if settings.reference in split.validation else "no case"
        legal = f"{MEDOID}, or a training case of fold {fold}; this is {kind} of it"
        raise InvalidInputError(field="--reference", received=settings.reference, legal=legal)
    dataset.check_cases(plan, Split(training=split.training, validation=()))
    folder = stored.fold_folder(dataset, fold, rankings)
    return _Request(dataset=dataset, fold=fold, split=split, plan=plan, settings=settings, folder=folder)


@contextmanager
def _locked(request: _Request, say: Callable[[str], None]) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            files.make_folder(request.folder)
            stack.enter_context(locks.held(request.folder / LOCK, on_takeover=say))
        except LockedError as error:
            who = f"fold {request.fold} of {request.dataset.name} is being ranked by {error}"
            raise MachineError(f"{who}; wait for it") from error
        except OSError as error:
            why = f"{request.folder} cannot be written ({error.strerror})"
            raise MachineError(f"{why}; give --out DIR, a folder that can") from error
        yield


@dataclass(frozen=True, kw_only=True)
class _Request:
    """A ranking that can be made, and where it belongs."""

    dataset: PreparedDataset
    fold: int
    split: Split
    plan: NetworkPlan
    settings: RankingSettings
    folder: Path

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "format": stored.FORMAT,
            "dataset": self.dataset.name,
            "fold": self.fold,
            "split_sha256": self.split.sha256,
            "plan_sha256": self.plan.sha256,
            "settings": asdict(self.settings),
        }

    def is_there(self) -> bool:
        """Whether the ranking is complete; another one in its place is refused."""
        record = stored.read_record(self.folder)
        if record is None:
            return False
        ours, theirs = ({**each, **each.get("settings", {}), "settings": None} for each in (self.identity, record))
        changed = [name for name in ours if ours[name] != theirs.get(name)]
        if changed:
            legal = f"{', '.join(f'{name} {theirs.get(name)}' for name in changed)} of the ranking in {self.folder}"
            raise InvalidInputError(
                field="ranking",
                received=", ".join(f"{name} {ours[name]}" for name in changed),
                legal=legal,
                remedy="remove that folder to rank again, or give --out DIR",
            )
        return True

    def make(self, spread: Spread, report: Report, say: Callable[[str], None]) -> None:
        cases = sorted(set(self.split.training))
        job = RankingJob(
            cases=case_folder(self.dataset, self.plan),
            work=self.folder / WORK,
            transform=self.settings.transform,
        )

        def step(name: str, function: Callable[[Any], object], items: Sequence[Any]) -> None:
            spread(function, items, lambda done: report(name, done, len(items)))

        self._take_over(job.work, say)
        step("looking at cases", partial(survey_case, job), cases)
        layout = lay_out({case: survey_case(job, case) for case in cases}, self.settings.reference)
        with_all = self.settings.compare == OTHERS
        blocks = blocks_of_all(cases) if with_all else blocks_of_reference(cases, layout.reference)
        registrations = 0 if job.transform == NONE else len(cases) - 1
        comparisons = sum(len(block.pairs) for block in blocks)
        say(
            f"{len(cases)} cases, reference {layout.reference}: {registrations} registrations and {comparisons} "
            "comparisons"
        )
        step("registering cases", partial(align_case, job, layout), cases)
        step("comparing cases", partial(compare_block, job, layout), blocks)
        self._write(job, layout, cases, blocks)

    def _take_over(self, work: Path, say: Callable[[str], None]) -> None:
        """Keep what an interrupted ranking of the same settings left, and nothing else."""
        identity, path = {**self.identity, "versions": _versions()}, work / "identity.json"
        try:
            same = files.read_json(path) == identity
        except (OSError, ValueError):
            same = False
        if same:
            say("going on with an interrupted ranking")
            files.sweep(work)
        elif work.exists():
            say("what an interrupted ranking with other settings left is removed")
            shutil.rmtree(work)
        files.write_json(path, identity)

    def _write(self, job: RankingJob, layout: CommonLayout, cases: Sequence[str], blocks: Sequence[Block]) -> None:
        aligned = {case: align_case(job, layout, case) for case in cases}
        pairs = sorted(
            (pair for block in blocks for pair in compare_block(job, layout, block)),
            key=lambda pair: (pair.first, pair.second),
        )
        placed = {case: (each.registration, each.reason) for case, each in aligned.items()}
        rows = ranked(placed, pairs, both_sides=self.settings.compare == OTHERS)
        stored.write_pairs(self.folder, pairs)
        stored.write_rows(self.folder, rows)
        files.write_json(
            self.folder / stored.RECORD,
            {
                **self.identity,
                "sha256": stored.rows_sha256(rows),
                "cases": cases,
                "layout": asdict(layout),
                "class_centres_off_mm": {case: a.off_mm for case, a in aligned.items() if a.off_mm is not None},
                "transforms": {case: each.parameters for case, each in aligned.items() if each.parameters},
                "versions": _versions(),
            },
        )


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in LIBRARIES}


RANKED_TOGETHER = ("mse", "ssim", "uqi")
# High values of these, and low values of the others, mean dissimilar.
_HIGH_IS_DISSIMILAR = ("mse",)


def ranked(
    placed: Mapping[str, tuple[str, str]], pairs: Sequence[CasePair], *, both_sides: bool = True
) -> tuple[RankedCase, ...]:
    """The rows of a ranking, by metric in the order of `METRICS`, then by rank.

    Args:
        placed: training case -> how it came onto the common grid, and why; see `RankedCase.registration`.
        pairs: all comparisons; a case's value is the mean over those that are its own and have a value.
        both_sides: whether a comparison is its second case's too, or the first's alone.
    """
    values = {measure: _means(placed, pairs, measure, both_sides) for measure in MEASURES}
    values[MEAN_RANK] = _mean_ranks(values)
    rows = []
    for metric in METRICS:
        for rank, case in enumerate(_ordered(metric, values[metric]), start=1):
            registration, reason = placed[case]
            value = values[metric][case]
            undefined = _why_undefined(case, metric, pairs) if value is None else ""
            reason = "; ".join(filter(None, (reason, undefined)))
            row = RankedCase(case=case, metric=metric, value=value, rank=rank, registration=registration, reason=reason)
            rows.append(row)
    return tuple(rows)


def _means(cases: Iterable[str], pairs: Iterable[CasePair], measure: str, both_sides: bool) -> Values:
    found: dict[str, list[float]] = {case: [] for case in cases}
    for pair in pairs:
        value = pair.values[measure]
        if value is not None:
            for case in (pair.first, pair.second) if both_sides else (pair.first,):
                found[case].append(value)
    # Exactly rounded sums do not depend on the order of the pairs.
    return {case: math.fsum(values) / len(values) if values else None for case, values in found.items()}


def _mean_ranks(values: Mapping[str, Values]) -> Values:
    """Mean of ranks in which cases of equal value share the mean of theirs; None without any value."""
    from scipy.stats import rankdata

    cases = list(values[MEASURES[0]])
    ranks = [rankdata([_key(metric, values[metric][case]) for case in cases]).tolist() for metric in RANKED_TOGETHER]
    defined = {case for metric in RANKED_TOGETHER for case, value in values[metric].items() if value is not None}
    return {case: fmean(found) if case in defined else None for case, *found in zip(cases, *ranks, strict=True)}


def _ordered(metric: str, values: Values) -> list[str]:
    return sorted(values, key=lambda case: (_key(metric, values[case]), case))


def _key(metric: str, value: float | None) -> float:
    """Smaller is more dissimilar; undefined is largest."""
    if value is None:
        return math.inf
    return -value if metric in _HIGH_IS_DISSIMILAR else value


def _why_undefined(case: str, metric: str, pairs: Iterable[CasePair]) -> str:
    measure = RANKED_TOGETHER[0] if metric == MEAN_RANK else metric
    reasons = (pair.reasons[measure] for pair in pairs if case in (pair.first, pair.second) and measure in pair.reasons)
    return f"{metric} undefined: {next(reasons, 'compared to nothing')}"

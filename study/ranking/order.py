"""From comparisons to ranks: a case's value is its mean similarity to what it was compared to, rank 1 is the smallest.

Most dissimilar means a high MSE, and a low PSNR, SSIM or UQI. `mean-rank` is the mean of the ranks by MSE, SSIM and
UQI, in which cases of equal value share the mean of their ranks; PSNR is left out because it repeats the MSE. A case
without a value cannot be called dissimilar: it comes last. Equal cases are ordered by name.

What a ranking is asked for: settings, checked against the dataset and against the ranking that is already there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from study.common.checks import check_choice
from study.common.errors import InvalidInputError
from study.curriculum.data_curriculum import METRICS
from study.nnunet.datasets import PreparedDataset, Split
from study.nnunet.plans import NetworkPlan
from study.ranking import files as stored
from study.ranking.files import MEAN_RANK, MEASURES, CasePair, RankedCase, Values
from study.ranking.registration import TRANSFORMS
from study.ranking.survey import MEDOID

RANKED_TOGETHER = ("mse", "ssim", "uqi")
# High values of these, and low values of the others, mean dissimilar.
_HIGH_IS_DISSIMILAR = ("mse",)
_NOT_COMPARED = "compared to nothing"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a case came onto the common grid: `reference`, `registered`, `identity` or `unregistered`, and why."""

    case: str
    registration: str
    reason: str


def ranked(
    placements: Sequence[Placement], pairs: Sequence[CasePair], *, both_sides: bool = True
) -> tuple[RankedCase, ...]:
    """The rows of a ranking, by metric in the order of `METRICS`, then by rank.

    Args:
        placements: one per training case.
        pairs: all comparisons; a case's value is the mean over those that are its own and have a value.
        both_sides: whether a comparison is its second case's too, or the first's alone.
    """
    cases = sorted(placement.case for placement in placements)
    values: dict[str, dict[str, float | None]] = {
        measure: _means(cases, pairs, measure, both_sides) for measure in MEASURES
    }
    values[MEAN_RANK] = _mean_ranks(cases, values)
    placed = {placement.case: placement for placement in placements}
    return tuple(
        _row(placed[case], metric, values[metric][case], rank, pairs)
        for metric in METRICS
        for rank, case in enumerate(_ordered(cases, metric, values[metric]), start=1)
    )


def _row(placement: Placement, metric: str, value: float | None, rank: int, pairs: Sequence[CasePair]) -> RankedCase:
    undefined = _why_undefined(placement.case, metric, pairs) if value is None else ""
    return RankedCase(
        case=placement.case,
        metric=metric,
        value=value,
        rank=rank,
        registration=placement.registration,
        reason="; ".join(filter(None, (placement.reason, undefined))),
    )


def _means(cases: Iterable[str], pairs: Iterable[CasePair], measure: str, both_sides: bool) -> dict[str, float | None]:
    found: dict[str, list[float]] = {case: [] for case in cases}
    for pair in pairs:
        value = pair.values[measure]
        if value is not None:
            for case in (pair.first, pair.second) if both_sides else (pair.first,):
                found[case].append(value)
    # Exactly rounded sums do not depend on the order of the pairs.
    return {case: math.fsum(values) / len(values) if values else None for case, values in found.items()}


def _mean_ranks(cases: Sequence[str], values: Mapping[str, Values]) -> dict[str, float | None]:
    shared = {metric: _shared_ranks(cases, metric, values[metric]) for metric in RANKED_TOGETHER}
    return {
        case: math.fsum(shared[metric][case] for metric in RANKED_TOGETHER) / len(RANKED_TOGETHER)
        if any(values[metric][case] is not None for metric in RANKED_TOGETHER)
        else None
        for case in cases
    }


def _shared_ranks(cases: Sequence[str], metric: str, values: Values) -> dict[str, float]:
    """Ranks in which cases of equal value share the mean of theirs."""
    places: dict[float, list[int]] = {}
    for rank, case in enumerate(_ordered(cases, metric, values), start=1):
        places.setdefault(_key(metric, values[case]), []).append(rank)
    return {case: sum(ranks) / len(ranks) for case in cases for ranks in [places[_key(metric, values[case])]]}


def _ordered(cases: Iterable[str], metric: str, values: Values) -> list[str]:
    return sorted(cases, key=lambda case: (_key(metric, values[case]), case))


def _key(metric: str, value: float | None) -> float:
    """Smaller is more dissimilar; undefined is largest."""
    if value is None:
        return math.inf
    return -value if metric in _HIGH_IS_DISSIMILAR else value


def _why_undefined(case: str, metric: str, pairs: Iterable[CasePair]) -> str:
    measure = RANKED_TOGETHER[0] if metric == MEAN_RANK else metric
    reasons = (pair.reasons[measure] for pair in pairs if case in (pair.first, pair.second) and measure in pair.reasons)
    return f"{metric} undefined: {next(reasons, _NOT_COMPARED)}"


OTHERS, REFERENCE = "others", "reference"
COMPARISONS = (OTHERS, REFERENCE)
LEAST_CASES = 2
_REMEDY = "remove that folder to rank again, or give --out DIR"


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
        check_choice("--compare", self.compare, COMPARISONS)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A ranking that can be made.

    Attributes:
        dataset: the prepared dataset; fold, split: whose training cases are ranked.
        plan: whose cases are read; settings: see above.
        rankings: folder for rankings, None for that beside the preprocessed data.
    """

    dataset: PreparedDataset
    fold: int
    split: Split
    plan: NetworkPlan
    settings: RankingSettings
    rankings: Path | None

    @property
    def cases(self) -> list[str]:
        """The training cases by name."""
        return sorted(set(self.split.training))

    @property
    def folder(self) -> Path:
        """Where the ranking is, or belongs."""
        return stored.fold_folder(self.dataset, self.fold, self.rankings)

    def identity(self) -> dict[str, Any]:
        """What must be the same for a ranking to be this one."""
        return {
            "format": stored.FORMAT,
            "dataset": self.dataset.name,
            "fold": self.fold,
            "split_sha256": self.split.sha256,
            "plan_sha256": self.plan.sha256,
            "settings": asdict(self.settings),
        }


def checked(dataset: PreparedDataset, fold: int, settings: RankingSettings, rankings: Path | None) -> Request:
    """A request that can be fulfilled; see `make_ranking` for errors."""
    plan = dataset.plan(settings.plans, settings.configuration)
    dataset.check_preprocessed(plan)
    split = dataset.split(fold)
    training = len(set(split.training))
    if training < LEAST_CASES:
        raise InvalidInputError(
            field=f"training cases of fold {fold}", received=training, legal=f"at least {LEAST_CASES} to compare"
        )
    if settings.reference != MEDOID and settings.reference not in split.training:
        kind = "a validation case" if settings.reference in split.validation else "no case"
        legal = f"{MEDOID}, or a training case of fold {fold}; this is {kind} of it"
        raise InvalidInputError(field="--reference", received=settings.reference, legal=legal)
    dataset.check_cases(plan, Split(training=split.training, validation=()))
    return Request(dataset=dataset, fold=fold, split=split, plan=plan, settings=settings, rankings=rankings)


def is_there(request: Request) -> bool:
    """Whether the ranking is complete; another one in its place is refused."""
    record = stored.read_record(request.folder)
    if record is None:
        return False
    ours, theirs = _flat(request.identity()), _flat(record)
    changed = [name for name in ours if ours[name] != theirs.get(name)]
    if changed:
        raise InvalidInputError(
            field="ranking",
            received=", ".join(f"{name} {ours[name]}" for name in changed),
            legal=f"{', '.join(f'{name} {theirs.get(name)}' for name in changed)} of the ranking in {request.folder}",
            remedy=_REMEDY,
        )
    return True


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    return {**identity, **identity.get("settings", {}), "settings": None}

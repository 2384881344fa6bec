"""What a ranking is asked for: settings, checked against the dataset and against the ranking that is already there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from study.checks import check_choice
from study.datasets import PreparedDataset, Split
from study.errors import InvalidInputError
from study.plan import NetworkPlan
from study.ranking import files as stored
from study.ranking.registration import TRANSFORMS
from study.ranking.survey import MEDOID

OTHERS, REFERENCE = "others", "reference"
COMPARISONS = (OTHERS, REFERENCE)
LEAST_CASES = 2
_REMEDY = "remove that folder to rank again, or give --out DIR"


@dataclass(frozen=True, kw_only=True)
class Settings:
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
    settings: Settings
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


def checked(dataset: PreparedDataset, fold: int, settings: Settings, rankings: Path | None) -> Request:
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

"""What a study's results rest on besides their specifications: our code, the libraries, the bytes of the prepared data.

A study keeps its provenance. Going on under another one would put numbers side by side that are not comparable, so a
change is named and refused; there is no option to accept it, a new study folder is the honest place for it.

Where and with what a trial runs, and whether that fits its specification.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from study.common.errors import LedgerError
from study.common.machine import MachineShare
from study.common.serialize import sha256_of_json
from study.curriculum.data_curriculum import STALL_SECONDS
from study.nnunet.datasets import DataPaths, PreparedDataset, find_dataset
from study.nnunet.identity import (
    changed_inputs,
    check_neighbours,
    deciding_versions,
    files_subject,
    preprocessed_sizes,
    trial_inputs,
    version_changes,
)
from study.nnunet.paths import check_previous_stage
from study.nnunet.plans import NetworkPlan
from study.ranking.files import load_ranking
from study.search.space import SearchSpace
from study.store.ledger import Ledger
from study.store.results import NO_METRICS, Metrics
from study.store.specification import Energy, TrialSpec

_KEY = "provenance"
# Files of a change that are named.
MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What results rest on.

    Attributes:
        versions: of code and libraries that decide a result, and for an Optuna study of what decides the proposals.
        inputs: subject -> SHA-256 of plans, splits and all that the study's trials read, see `nnunet.identity`.
        files: subject -> names and sizes of preprocessed files, to say which of them have changed.
        rankings: dataset/fold -> SHA-256 of the ranking of its training cases, if the study orders cases by it.
    """

    versions: Mapping[str, str]
    inputs: Mapping[str, str]
    files: Mapping[str, Mapping[str, int]]
    rankings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def here(cls, space: SearchSpace, paths: DataPaths, previous_stage: Path | None = None) -> Self:
        """That of this machine for a study.

        Args:
            space: of the study.
            paths: prepared data.
            previous_stage: the previous stage's segmentations, for a cascade.

        Raises:
            StudyError: the data is not there.
        """
        searching = {name: metadata.version(name) for name in space.method.libraries}
        inputs: dict[str, str] = {}
        sizes = {}
        for dataset, plan in _planned(space, paths):
            sizes[files_subject(dataset, plan)] = preprocessed_sizes(dataset.folder / plan.data_identifier)
            inputs[f"plans {plan.plans} of {dataset.name}"] = plan.sha256
            for fold in sorted(space.folds):
                inputs[f"split of {dataset.name} fold {fold}"] = dataset.split(fold).sha256
                inputs |= trial_inputs(dataset, plan, fold, previous_stage)
        return cls(
            versions={**deciding_versions(), **searching},
            inputs=inputs,
            files=sizes,
            rankings=_rankings(space, paths) if space.data_axes else {},
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def differences(self, before: Mapping[str, Any]) -> list[str]:
        """What is not as it was, in words, one item each. What was added since is none.

        Args:
            before: JSON of an earlier provenance.
        """
        changed = changed_inputs(before.get("inputs", {}), self.inputs)
        # Studies from before there were rankings recorded none.
        rankings = changed_inputs(before.get("rankings", {}), self.rankings)
        return [
            *version_changes(before["versions"], self.versions),
            *(self._words(subject, before.get("files", {}).get(subject)) for subject in changed),
            *(f"ranking of the training cases of {name}" for name in rankings),
        ]

    def _words(self, subject: str, before: Mapping[str, int] | None) -> str:
        """A subject that has changed; of files, which are other ones, the first few by name."""
        now = self.files.get(subject)
        if before is None or now is None:
            return subject

        def size(files: Mapping[str, int], name: str) -> str:
            return f"{files[name]} bytes" if name in files else "absent"

        names = [name for name in sorted({*now, *before}) if now.get(name) != before.get(name)]
        told = [f"{name} {size(now, name)}, was {size(before, name)}" for name in names[:MOST_NAMED]]
        more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
        return f"{subject} ({'; '.join([*told, *more])})"


def check_provenance(ledger: Ledger, space: SearchSpace, paths: DataPaths, now: Provenance) -> None:
    """Record what the study rests on, or compare it with what it rested on before.

    Args:
        ledger: of the study, whose lock is held.
        space: of the study, perhaps with folds or seeds added.
        paths: prepared data.
        now: what is here.

    Raises:
        LedgerError: something has changed, or a trial made by hand in this folder rests on something else.
    """
    before = ledger.header().get(_KEY) or {"versions": {}}
    folds = (ledger.header().get("space") or {}).get("folds", space.folds)
    changed = [*now.differences(before), *_earlier_form(before.get("data", {}), folds, space, paths)]
    if changed:
        raise LedgerError(
            f"{ledger.root} rests on something else than what is here: {'; '.join(changed)}; "
            "restore it to continue this study, or name another --out to start a new one"
        )
    check_neighbours(ledger, (folder for folder in ledger.trials() if folder.by_hand), now.inputs)
    known = {name: {**before.get(name, {}), **found} for name, found in now.to_json().items()}
    if known != before:
        ledger.amend(**{_KEY: known})
    ledger.adopt(space.identity())


def _earlier_form(before: Mapping[str, str], folds: Sequence[int], space: SearchSpace, paths: DataPaths) -> list[str]:
    """What has changed since a study recorded one SHA-256 for a dataset's plans, splits and files together."""
    changed = []
    for dataset, plan in _planned(space, paths) if before else ():
        name, folder = f"{dataset.name}/{plan.plans}/{space.configuration}", dataset.folder / plan.data_identifier
        splits = {str(fold): dataset.split(fold).sha256 for fold in sorted(folds)}
        # Caches that nnU-Net unpacked may have been there then.
        found = {
            sha256_of_json({"plans": plan.sha256, "split": splits, "files": preprocessed_sizes(folder, caches=caches)})
            for caches in (False, True)
        }
        if before.get(name) not in found:
            changed.append(f"plans, split or preprocessed files of {name}")
    return changed


def _rankings(space: SearchSpace, paths: DataPaths) -> dict[str, str]:
    datasets = [find_dataset(paths, name) for name in space.datasets]
    return {f"{d.name}/fold_{fold}": load_ranking(d, fold).sha256 for d in datasets for fold in sorted(space.folds)}


def _planned(space: SearchSpace, paths: DataPaths) -> Iterator[tuple[PreparedDataset, NetworkPlan]]:
    for name, plans in space.planned:
        dataset = find_dataset(paths, name)
        yield dataset, dataset.plan(dataset.choose_plans(plans), space.configuration)


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where and with what a trial runs; none of it decides the result.

    Attributes:
        data: folders with prepared data.
        resources: what the trial is allotted.
        energy: how energy is measured; its country has been checked.
        previous_stage: segmentations of the previous stage, for cascades.
        metrics: what is measured beside Dice; of a finished trial, what its result lacks of them.
        stall_seconds: how long to wait for a batch; see `TrainingJob`.
        helpers: ids of processes that work for the trial and are no children of the one that trains.
    """

    data: DataPaths
    resources: MachineShare = field(default_factory=MachineShare)
    energy: Energy = field(default_factory=Energy)
    previous_stage: Path | None = None
    metrics: Metrics = NO_METRICS
    stall_seconds: float = STALL_SECONDS
    helpers: tuple[int, ...] = ()


def inputs_of(spec: TrialSpec, workplace: Workplace) -> dict[str, str]:
    """What a trial reads besides its specification, see `identity.trial_inputs`."""
    dataset = find_dataset(workplace.data, spec.dataset)
    plan = dataset.plan(spec.plans, spec.configuration)
    return trial_inputs(dataset, plan, spec.fold, workplace.previous_stage)


def check_workplace(spec: TrialSpec, workplace: Workplace) -> None:
    """Raise StudyError when the prepared data is missing or has changed since the specification was made."""
    dataset = find_dataset(workplace.data, spec.dataset)
    plan, split = dataset.plan(spec.plans, spec.configuration), dataset.split(spec.fold)
    dataset.check_cases(plan, split)
    check_previous_stage(plan, split, workplace.previous_stage)
    if plan.sha256 != spec.plans_sha256 or split.sha256 != spec.split_sha256:
        raise LedgerError(
            f"plans or splits of {spec.dataset} have changed since trial {spec.trial_id} was specified; "
            "restore them, or start a new study"
        )

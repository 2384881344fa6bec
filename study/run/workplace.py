"""Where and with what a trial runs, and whether that fits its specification."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from study.common.errors import LedgerError
from study.common.machine import MachineShare
from study.curriculum.data_curriculum import STALL_SECONDS
from study.nnunet.datasets import DataPaths, find_dataset
from study.nnunet.identity import trial_inputs
from study.nnunet.paths import check_previous_stage
from study.store.results import NO_METRICS, Metrics
from study.store.specification import Energy, TrialSpec


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

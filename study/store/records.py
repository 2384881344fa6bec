"""What a trial leaves besides its result: reports of epochs, intervals of cost, headers of attempts.

Everything here is frozen, keyword-only and made of numbers and words; `study.common.serialize` writes and reads it.

What confirming a study came to: a verdict for each point, stored beside the ledger's records and made from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from study.store.readings import Kwh, MeterInfo, NodeUse, OwnEnergy, Seconds, StageExecution, StagePart
from study.store.stored import Amount, Stored, Whole, one_of

Positive = Annotated[Whole, Ge(1)]
Time = Annotated[float, Ge(0), Le(1e10)]
"""Seconds since the epoch, before the year 2286."""
Dice = Annotated[float, Ge(0), Le(1)]


class Phase(str, Enum):
    """What a second of a trial was spent on."""

    SETUP = "setup"
    TRAINING = "training"
    ONLINE_VALIDATION = "online_validation"
    FINAL_VALIDATION = "final_validation"


# Runtime in the sense of the papers: the training loop, whose validation batches nnU-Net runs every epoch.
TRAINING_PHASES = (Phase.TRAINING, Phase.ONLINE_VALIDATION)


@dataclass(frozen=True, kw_only=True)
class EpochReport(Stored):
    """State of a training at the end of one epoch.

    Attributes:
        epoch: index of the epoch that ended.
        iteration: iterations trained so far, of the whole training.
        stage: index of the last iteration's stage; `patch_size` and `batch_size` are that stage's.
        learning_rate: of this epoch.
        training_loss: mean over the epoch's iterations.
        validation_loss, pseudo_dice: over the fixed validation batches at the full patch; None when not evaluated.
        pseudo_dice_per_class: same order as nnU-Net's foreground labels or regions; NaN becomes None.
        training_seconds: seconds in the training loop so far, summed over attempts, redone iterations not counted.
        voxels: voxels trained on so far, redone iterations not counted.
    """

    epoch: Whole
    iteration: Whole
    stage: Whole
    patch_size: tuple[Whole, ...]
    batch_size: Whole
    learning_rate: Amount
    training_loss: float
    validation_loss: float | None
    pseudo_dice: Dice | None
    pseudo_dice_per_class: tuple[Dice | None, ...]
    training_seconds: Amount
    voxels: Whole


@dataclass(frozen=True, kw_only=True)
class CostInterval(Stored):
    """One stretch of one attempt: what it did, how long it took, what energy the whole node used meanwhile.

    Attributes:
        attempt: index of the process that did it.
        phase: what it was spent on.
        stage: index of the curriculum's stage, None outside the training loop.
        iteration_start, iteration_stop: training iterations covered, half open; equal outside training.
        started_at: seconds since the epoch; seconds: wall time.
        cpu_kwh, gpu_kwh, ram_kwh: energy as the meter gave it, before sharing; None is unmeasured, never 0.
        own: what of it the trial is charged; None in ledgers of before, which are charged by share of cores and cards.
        use: who used the node's cores meanwhile; None in ledgers of before.
        reasons: part (`cpu`, `gpu`, `ram`) -> why it is unmeasured from here on.
        parts: of a stretch whose iterations drew their stages, what each stage had; none in ledgers of before.
    """

    attempt: Whole
    phase: Phase
    stage: Whole | None
    iteration_start: Whole
    iteration_stop: Whole
    started_at: Time
    seconds: Seconds
    cpu_kwh: Kwh | None
    gpu_kwh: Kwh | None
    ram_kwh: Kwh | None
    own: OwnEnergy | None = None
    use: NodeUse | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[StagePart, ...] = ()

    def by_stage(self) -> list[tuple[int | None, int, float]]:
        """Stages with their iterations and share of the time; energy is shared likewise."""
        if not self.parts:
            return [(self.stage, self.iteration_stop - self.iteration_start, 1.0)]
        return [(part.stage, part.iterations, part.seconds / self.seconds) for part in self.parts]


@dataclass(frozen=True, kw_only=True)
class AttemptHeader(Stored):
    """One process that worked on a trial from an iteration on, written before it starts to train.

    Attributes:
        cpus, gpus: what the trial was allotted; cpus_of_node: what the node has; the ratio is the share of the node's
            CPU and RAM energy that a trial is charged whose intervals do not say what it drew itself.
        concurrent_trials: how many trials the study runs on the node at most.
        gpu_ids: integer NVML indices that were measured.
        device: `cpu` or `cuda`; data_workers: processes that make batches.
        execution: how each stage was run, in the order of their beginning; empty in records of earlier versions.
        inputs: what it read besides its specification, see `nnunet.identity`; preprocessed: nnU-Net's folder of it.
            Neither is known of attempts from before they were recorded.
        peak_memory_bytes: the most that torch reserved on the card; card_memory_bytes: what that has. Noted when the
            attempt has ended well; None on a CPU.
    """

    attempt: Whole
    started_at: Time
    hostname: str
    pid: Whole
    resumed_from_iteration: Whole
    device: Annotated[str, one_of("cpu", "cuda")]
    cpu_name: str
    gpu_names: tuple[str, ...]
    gpu_ids: tuple[Whole, ...]
    cpus: Annotated[float, Gt(0)]
    cpus_of_node: Positive
    gpus: Amount
    concurrent_trials: Positive
    data_workers: Whole
    meter: MeterInfo
    versions: Mapping[str, str]
    execution: tuple[StageExecution, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    preprocessed: str | None = None
    peak_memory_bytes: Whole | None = None
    card_memory_bytes: Whole | None = None

    @property
    def cpu_share(self) -> float:
        """Share of the node's CPU and RAM energy charged to a trial whose intervals do not say what was its own."""
        return min(1.0, self.cpus / self.cpus_of_node)

    @property
    def gpu_share(self) -> float:
        """Share of the measured GPUs' energy charged to the trial."""
        return min(1.0, self.gpus or 1.0) if self.gpu_ids else 1.0


@dataclass(frozen=True, kw_only=True)
class ImportedFrom(Stored):
    """Where a trial comes from that this project did not train.

    Attributes:
        path: nnU-Net's folder of the fold, when it was imported.
        trainer: nnU-Net's class.
        files: name -> SHA-256 of what was read: logs, summary, checkpoint, plans and dataset.json.
    """

    path: str
    trainer: str
    files: Mapping[str, str]


Verdict = Literal["on the front", "not on the front", "undecided"]
ON: Verdict = "on the front"
OFF: Verdict = "not on the front"
UNDECIDED: Verdict = "undecided"
Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, kw_only=True)
class Confirmed(Stored):
    """A point and what is said of it.

    Attributes:
        number: of the point in the ledger; settings: name -> value of what was searched.
        probability: P(on front).
        dice: mean over the trainings that it is judged on, folds weighing the same; None if there are none.
        dice_of_search: mean over those of the search.
        costs: objective -> what the search measured.
        folds, seeds, trainings: that it is judged on.
        gpu_hours: spent on confirming it.
        trial_ids: of the search, then those that it is judged on.
    """

    number: Whole
    dataset: str
    settings: Mapping[str, str | float | int | bool | None]
    verdict: Verdict
    probability: Share
    dice: Share | None
    dice_of_search: Share
    costs: Mapping[str, Amount]
    folds: tuple[Whole, ...]
    seeds: tuple[Whole, ...]
    trainings: Whole
    gpu_hours: Amount
    trial_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Confirmation(Stored):
    """All points with a result, by number.

    Attributes:
        objectives: Dice and costs; folds, seeds: that may be trained.
        max_gpu_hours: that may be spent, None for no limit.
        gpu_hours: spent, or predicted for what is under way; gpu_hours_of_everything: of all points on all these folds.
        trainings: finished that points are judged on.
    """

    objectives: tuple[str, ...]
    folds: tuple[Whole, ...]
    seeds: tuple[Whole, ...]
    max_gpu_hours: Amount | None
    gpu_hours: Amount
    gpu_hours_of_everything: Amount
    trainings: Whole
    points: tuple[Confirmed, ...]

    def words(self) -> str:
        """How it stands, in a line."""
        count = Counter(point.verdict for point in self.points)
        verdicts = f"{count[ON]} on the front, {count[OFF]} not, {count[UNDECIDED]} undecided"
        limit = "" if self.max_gpu_hours is None else f" of {self.max_gpu_hours:.3g}"
        return (
            f"confirmed: {verdicts}; {self.trainings} trainings, {self.gpu_hours:.3g}{limit} GPU-hours "
            f"(all points on these folds: {self.gpu_hours_of_everything:.3g})"
        )

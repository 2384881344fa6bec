"""Networks of the paper, and small records that the tests of specs, ledgers and costs start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from study.curriculum.chain import Geometry
from study.curriculum.curriculum import Curriculum, resolve
from study.curriculum.schemes import named_axes
from study.store.readings import MeterInfo
from study.store.records import AttemptHeader, CostInterval, EpochReport, Phase
from study.store.results import TrialResult
from study.store.specification import TrainingSettings, TrialSpec
from study.store.trial_folder import TrialFolder

BRAIN = Geometry(patch_size=(128, 128, 128), divisors=(32, 32, 32), batch_size=2)
LUNG = Geometry(patch_size=(80, 192, 160), divisors=(16, 32, 32), batch_size=2)
HIPPOCAMPUS = Geometry(patch_size=(40, 56, 40), divisors=(8, 8, 8), batch_size=9)


def sizes(curriculum: Curriculum) -> list[tuple[int, ...]]:
    return [stage.patch_size for stage in curriculum.stages]


def batches(curriculum: Curriculum) -> list[int]:
    return [stage.batch_size for stage in curriculum.stages]


def make_spec(
    scheme: str = "pgps",
    *,
    seed: int = 0,
    training: TrainingSettings | dict[str, Any] | None = None,
    geometry: Geometry = BRAIN,
    of: Mapping[str, Any] | None = None,
    **axes: Any,
) -> TrialSpec:
    """A trial of a named scheme, some of its axes overridden, ten epochs of 250 iterations unless told otherwise.

    Args:
        of: other fields of the specification.
    """
    point = named_axes(scheme, **axes)
    if not isinstance(training, TrainingSettings):
        training = TrainingSettings(**{"epochs": 10, **(training or {})})
    length = {"epochs": training.epochs, "iterations_per_epoch": training.iterations_per_epoch}
    curriculum = resolve(geometry, point, **length, seed=seed)
    made = TrialSpec(
        dataset="Dataset001_BrainTumour",
        plans="nnUNetPlans",
        configuration="3d_fullres",
        fold=0,
        seed=seed,
        scheme=scheme,
        axes=point,
        curriculum=curriculum,
        training=training.resolved(constant_patch_size=curriculum.is_constant),
        plans_sha256="a" * 64,
        split_sha256="b" * 64,
    )
    return replace(made, **(of or {}))


METER = MeterInfo(
    name="codecarbon",
    version="3.3.2",
    methods={"cpu": "estimated", "gpu": "measured", "ram": "estimated"},
    country="FRA",
    carbon_intensity_kg_per_kwh=0.05,
    pue=1.2,
)


HEADER = AttemptHeader(
    attempt=0,
    started_at=1000.0,
    hostname="node",
    pid=1,
    resumed_from_iteration=0,
    device="cuda",
    cpu_name="Some CPU",
    gpu_names=("Some GPU",),
    gpu_ids=(1,),
    cpus=4.0,
    cpus_of_node=16,
    gpus=1.0,
    concurrent_trials=2,
    data_workers=2,
    meter=METER,
    versions={"nnunetv2": "2.8.1"},
)
EPOCH = EpochReport(
    epoch=0,
    iteration=10,
    stage=0,
    patch_size=(64, 32, 32),
    batch_size=2,
    learning_rate=0.01,
    training_loss=0.5,
    validation_loss=0.4,
    pseudo_dice=0.7,
    pseudo_dice_per_class=(0.6, 0.8),
    training_seconds=10.0,
    voxels=1000,
)


def make_interval(start: int, stop: int, **changes: Any) -> CostInterval:
    """One second, 0.4 kWh of CPU, 0.1 of GPU and 0.2 of RAM per training iteration, as the node's meter gave it."""
    length = stop - start
    usual = CostInterval(
        attempt=0,
        phase=Phase.TRAINING,
        stage=0,
        iteration_start=start,
        iteration_stop=stop,
        started_at=1000.0 + start,
        seconds=float(length),
        cpu_kwh=0.4 * length,
        gpu_kwh=0.1 * length,
        ram_kwh=0.2 * length,
    )
    return replace(usual, **changes)


def finish(folder: TrialFolder) -> None:
    """All that a trial writes which was trained and validated at one go."""
    spec = folder.spec()
    each = spec.iterations_per_epoch
    folder.begin_attempt(HEADER)
    for epoch in range(spec.training.epochs):
        folder.append_cost(make_interval(epoch * each, (epoch + 1) * each))
    complete(folder)


def complete(folder: TrialFolder, *, attempt: int = 0, dice: float = 0.75) -> None:
    """What a trial writes when its training is paid for: epochs that nobody has reported yet, validation, result."""
    spec = folder.spec()
    each, total = spec.iterations_per_epoch, spec.curriculum.total_iterations
    for epoch in range(len(folder.epochs()), spec.training.epochs):
        folder.append_epoch(replace(EPOCH, epoch=epoch, iteration=(epoch + 1) * each))
    folder.append_cost(make_interval(total, total, phase=Phase.FINAL_VALIDATION, seconds=5.0, attempt=attempt))
    folder.finish(result_of(spec, dice=dice), attempt=attempt)


RESULT = TrialResult(
    dice=0.75,
    dice_per_class={"1": 0.7, "2": 0.8},
    dice_per_case={"case_1": 0.75, "case_2": None},
    dice_per_case_and_class={"case_1": {"1": 0.7, "2": 0.8}, "case_2": {"1": None, "2": None}},
    iterations=2500,
    voxels=10_000,
    voxel_share=0.38,
    weights_sha256="c" * 64,
)


def result_of(spec: TrialSpec, *, dice: float = 0.75) -> TrialResult:
    """A result with the iterations and voxels of a specification."""
    return replace(
        RESULT,
        dice=dice,
        dice_per_class={"1": dice, "2": dice},
        dice_per_case={"case_1": dice, "case_2": None},
        dice_per_case_and_class={"case_1": {"1": dice, "2": dice}, "case_2": {"1": None, "2": None}},
        iterations=spec.curriculum.total_iterations,
        voxels=spec.curriculum.voxels,
        voxel_share=spec.curriculum.voxel_share,
    )

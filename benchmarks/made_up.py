"""Made-up studies as large as one likes: nothing in them was trained or measured.

Dice rises and costs rise with voxels, with noise, so that fronts have a plausible number of points.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from study.curriculum.chain import Geometry
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import Axes
from study.store.ledger import Ledger
from study.store.readings import MeterInfo, NodeUse, OwnEnergy
from study.store.records import AttemptHeader, CostInterval, EpochReport, Phase
from study.store.results import TrialResult
from study.store.specification import TrainingSettings, TrialSpec
from study.store.trial_folder import TrialFolder

DATASET = "Dataset999_Synthetic"
GEOMETRY = Geometry(patch_size=(80, 192, 160), divisors=(16, 32, 32), batch_size=2)
TRAINING = TrainingSettings(epochs=10, iterations_per_epoch=250).resolved(constant_patch_size=False)
CASES = 52
SECONDS_PER_VOXEL, KILOWATTS = 4e-9, 0.3
HEADER = AttemptHeader(
    attempt=0,
    started_at=1.0e9,
    hostname="none",
    pid=1,
    resumed_from_iteration=0,
    device="cuda",
    cpu_name="made up",
    gpu_names=("made up",),
    gpu_ids=(0,),
    cpus=8,
    cpus_of_node=8,
    gpus=1,
    concurrent_trials=1,
    data_workers=7,
    meter=MeterInfo(
        name="none",
        version="",
        methods={"cpu": "estimated", "gpu": "measured", "ram": "estimated"},
        country="world",
        carbon_intensity_kg_per_kwh=0.475,
        pue=1.0,
    ),
    versions={},
)


def write_study(root: Path, count: int, *, seed: int = 0) -> Ledger:
    """A study folder of finished trials, each of other axes, written through the ledger as real ones are."""
    rng = np.random.default_rng(seed)
    study = Ledger.create(root)
    while len(study.trials()) < count:
        for _ in range(count - len(study.trials())):
            folder = study.add(_spec(rng))
            if folder.result() is None:
                voxels = folder.spec().curriculum.voxels
                dice = 0.9 - 0.2 * float(np.exp(-voxels / 1e10)) - float(rng.exponential(0.02))
                write_records(folder, dice=dice, noise=rng.normal(0, 0.05, CASES))
    return study


def write_records(
    folder: TrialFolder, *, dice: float, noise: np.ndarray, header: AttemptHeader = HEADER, started_at: float = 1.0e9
) -> None:
    """All that a trial writes which is trained at one go and comes to a Dice, with a validation case for each noise."""
    spec = folder.spec()
    folder.begin_attempt(replace(header, started_at=started_at))
    folder.append_cost(_interval(Phase.SETUP, None, 0, 0, 5.0, started_at))
    first, seconds = 0, 0.0
    for report in _epochs(spec, dice):
        spent = report.training_seconds - seconds
        folder.append_cost(_interval(Phase.TRAINING, report.stage, first, report.iteration, 0.9 * spent, started_at))
        first, seconds = report.iteration, report.training_seconds
        folder.append_cost(_interval(Phase.ONLINE_VALIDATION, report.stage, first, first, 0.1 * spent, started_at))
        folder.append_epoch(report)
    folder.append_cost(_interval(Phase.FINAL_VALIDATION, None, first, first, 20.0, started_at))
    folder.finish(_result(spec, dice, noise), attempt=header.attempt)


def _spec(rng: np.random.Generator) -> TrialSpec:
    axes = Axes(
        min_patch=float(rng.random()),
        stages=int(rng.integers(1, 10)),
        batch_growth=float(rng.random()),
        budget=float(rng.choice([0.1, 0.25, 0.5, 1.0])),
    )
    curriculum = resolve(GEOMETRY, axes, epochs=TRAINING.epochs, iterations_per_epoch=TRAINING.iterations_per_epoch)
    return TrialSpec(
        dataset=DATASET,
        plans="nnUNetPlans",
        configuration="3d_fullres",
        fold=0,
        seed=int(rng.integers(0, 1000)),
        scheme="pgps",
        axes=axes,
        curriculum=curriculum,
        training=TRAINING,
        plans_sha256="0" * 64,
        split_sha256="0" * 64,
    )


def _interval(
    phase: Phase, stage: int | None, first: int, stop: int, seconds: float, started_at: float
) -> CostInterval:
    kwh = KILOWATTS * seconds / 3600
    return CostInterval(
        attempt=0,
        phase=phase,
        stage=stage,
        iteration_start=first,
        iteration_stop=stop,
        started_at=started_at,
        seconds=seconds,
        cpu_kwh=0.2 * kwh,
        gpu_kwh=0.7 * kwh,
        ram_kwh=0.1 * kwh,
        own=OwnEnergy(cpu_kwh=0.1 * kwh, idle_cpu_kwh=0.1 * kwh, gpu_kwh=0.7 * kwh, ram_kwh=0.1 * kwh),
        use=NodeUse(own_cpu_seconds=4 * seconds, cpu_seconds=5 * seconds, trials=1),
    )


def _epochs(spec: TrialSpec, dice: float) -> list[EpochReport]:
    curriculum, each = spec.curriculum, spec.iterations_per_epoch
    reports = []
    for epoch in range(spec.training.epochs):
        iteration, part = (epoch + 1) * each, (epoch + 1) / spec.training.epochs
        number = max(n for n, stage in enumerate(curriculum.stages) if stage.first_iteration < iteration)
        reports.append(
            EpochReport(
                epoch=epoch,
                iteration=iteration,
                stage=number,
                patch_size=curriculum.stages[number].patch_size,
                batch_size=curriculum.stages[number].batch_size,
                learning_rate=1e-2 * (1 - epoch / spec.training.epochs) ** 0.9,
                training_loss=-dice * part**0.3,
                validation_loss=0.02 - dice * part**0.3,
                pseudo_dice=dice * part**0.3,
                pseudo_dice_per_class=(dice * part**0.3,) * 2,
                training_seconds=curriculum.voxels * part * SECONDS_PER_VOXEL,
                voxels=int(curriculum.voxels * part),
            )
        )
    return reports


def _result(spec: TrialSpec, dice: float, noise: np.ndarray) -> TrialResult:
    noise = np.clip(noise, -0.05, 0.05)
    around = dice + noise - noise.mean()
    by_class = {f"case_{n:03d}": {"1": mean + 0.03, "2": mean - 0.03} for n, mean in enumerate(around.tolist())}
    return TrialResult(
        dice=dice,
        dice_per_class={"1": dice + 0.03, "2": dice - 0.03},
        dice_per_case={case: sum(classes.values()) / 2 for case, classes in by_class.items()},
        dice_per_case_and_class=by_class,
        iterations=spec.curriculum.total_iterations,
        voxels=spec.curriculum.voxels,
        voxel_share=spec.curriculum.voxel_share,
        weights_sha256="0" * 64,
    )

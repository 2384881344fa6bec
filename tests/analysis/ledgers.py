"""Made-up studies, written through the real ledger: specs from real curricula, attempts, costs, results. And points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import examples
import numpy as np
import pandas as pd
from examples import HEADER, METER, result_of

from analysis.statistics.case_dice import CaseDice
from analysis.tables.columns import POINT_COLUMNS
from study.curriculum.chain import Geometry
from study.curriculum.data_curriculum import DataCurriculum
from study.store.ledger import Ledger
from study.store.records import AttemptHeader, CostInterval, EpochReport, Phase
from study.store.results import TrialResult
from study.store.specification import TrainingSettings, TrialSpec
from study.store.trial_folder import TrialFolder

# Finer in the last axis, so that no two schemes resolve to the same stage table.
GEOMETRY = Geometry(patch_size=(40, 56, 40), divisors=(8, 8, 4), batch_size=2)
CODECARBON = replace(METER, methods={"cpu": "estimated", "gpu": "absent", "ram": "estimated"})
NO_METER = replace(CODECARBON, name="none", version="", methods=dict.fromkeys(("cpu", "gpu", "ram"), "unmeasured"))
UNMEASURED = dict.fromkeys(("cpu_kwh", "gpu_kwh", "ram_kwh"))
SETUP_SECONDS, FINAL_VALIDATION_SECONDS = 5.0, 20.0
# Of the whole node, and the half of it that a trial with two of four cores is charged.
NODE_KILOWATTS, CPU_SHARE = 0.05, 0.5


def make_spec(
    scheme: str = "pgps",
    *,
    dataset: str = "Dataset004_Hippocampus",
    fold: int = 0,
    training: TrainingSettings | None = None,
    plans: str = "nnUNetPlans",
    geometry: Geometry = GEOMETRY,
    data: DataCurriculum | None = None,
    **more: Any,
) -> TrialSpec:
    """The specification of a trial of a named scheme, some of its axes overridden."""
    training = training or TrainingSettings(optimizer="adamw", epochs=10, iterations_per_epoch=20)
    files = {"plans": plans, "plans_sha256": "0" * 64, "split_sha256": f"{fold:064d}"}
    of = {"dataset": dataset, "fold": fold, "data": data, **files}
    return examples.make_spec(scheme, training=training, geometry=geometry, of=of, **more)


def make_header(attempt: int = 0, **changes: Any) -> AttemptHeader:
    """The header of an attempt on a two-core share of a four-core machine without GPU."""
    share: dict[str, Any] = {"cpus": 2, "cpus_of_node": 4, "gpus": 0, "concurrent_trials": 1, "data_workers": 1}
    on = {"device": "cpu", "cpu_name": "Example CPU", "gpu_names": (), "gpu_ids": (), "meter": CODECARBON}
    at = {"attempt": attempt, "started_at": 1.0e9 + 1000 * attempt, "versions": {"python": "3.11", "torch": "2.15.0"}}
    return replace(HEADER, **{**share, **on, **at, **changes})


def make_interval(
    phase: Phase, seconds: float, *, attempt: int = 0, start: int = 0, stop: int = 0, **energy: Any
) -> CostInterval:
    """A stretch of work; by default the node's CPU takes 40 W, its RAM 10 W."""
    hours = seconds / 3600
    work = {"phase": phase, "stage": 0 if phase is Phase.TRAINING else None, "seconds": seconds, "attempt": attempt}
    usual = {"cpu_kwh": 0.04 * hours, "gpu_kwh": 0.0, "ram_kwh": 0.01 * hours}
    return examples.make_interval(start, stop, started_at=1.0e9, **{**work, **usual, **energy})


def make_result(spec: TrialSpec, dice: float, *, n_cases: int = 1) -> TrialResult:
    """A result of two classes, whose cases are those of the fold and spread evenly around the mean."""
    spread = np.linspace(-0.06, 0.06, n_cases) if n_cases > 1 else np.zeros(1)
    rng = np.random.default_rng([spec.fold, spec.seed, int(spec.trial_id, 16) % 2**32])
    noise = rng.permutation(np.linspace(-0.01, 0.01, n_cases)) if n_cases > 1 else np.zeros(1)
    cases = {
        f"case_{spec.fold}_{n:03d}": float(dice + s + e) for n, (s, e) in enumerate(zip(spread, noise, strict=True))
    }
    return replace(
        result_of(spec, dice=dice),
        dice_per_class=_by_class(dice),
        dice_per_case=cases,
        dice_per_case_and_class={case: _by_class(mean) for case, mean in cases.items()},
        weights_sha256="ab" * 32,
    )


def _by_class(mean: float) -> dict[str, float]:
    apart = min(0.02, mean, 1 - mean)
    return {"1": mean + apart, "2": mean - apart}


def make_epochs(spec: TrialSpec, *, dice: float, seconds: float) -> list[EpochReport]:
    """A learning curve that rises to `dice` in `seconds`."""
    curriculum, per_epoch = spec.curriculum, spec.iterations_per_epoch
    reports = []
    for epoch in range(spec.training.epochs):
        iteration = (epoch + 1) * per_epoch
        stage = max(n for n, s in enumerate(curriculum.stages) if s.first_iteration < iteration)
        part = iteration / curriculum.total_iterations
        reports.append(
            EpochReport(
                epoch=epoch,
                iteration=iteration,
                stage=stage,
                patch_size=curriculum.stages[stage].patch_size,
                batch_size=curriculum.stages[stage].batch_size,
                learning_rate=spec.training.initial_learning_rate * (1 - epoch / spec.training.epochs) ** 0.9,
                training_loss=1 - dice * part**0.5,
                validation_loss=1.02 - dice * part**0.5,
                pseudo_dice=dice * part**0.5,
                pseudo_dice_per_class=(dice * part**0.5,) * 2,
                training_seconds=seconds * part,
                voxels=int(curriculum.voxels * part),
            )
        )
    return reports


def start_trial(study: Ledger, spec: TrialSpec, *, seconds: float, measured: bool = True, **header: Any) -> TrialFolder:
    """A trial that has trained for some seconds and not finished; a tenth of them was online validation."""
    folder = study.add(spec)
    folder.begin_attempt(make_header(**{**({} if measured else {"meter": NO_METER}), **header}))
    energy = {} if measured else UNMEASURED
    end = spec.curriculum.total_iterations
    folder.append_cost(make_interval(Phase.SETUP, SETUP_SECONDS, **energy))
    folder.append_cost(make_interval(Phase.TRAINING, 0.9 * seconds, start=0, stop=end, **energy))
    folder.append_cost(make_interval(Phase.ONLINE_VALIDATION, 0.1 * seconds, start=end, stop=end, **energy))
    return folder


def finish_trial(
    study: Ledger,
    spec: TrialSpec,
    *,
    dice: float,
    seconds: float,
    measured: bool = True,
    n_cases: int = 1,
    curve: bool = False,
    **header: Any,
) -> TrialFolder:
    """A finished trial, with its epochs and its final validation; without `curve`, no epoch was validated."""
    folder = start_trial(study, spec, seconds=seconds, measured=measured, **header)
    result = make_result(spec, dice, n_cases=n_cases)
    return complete(folder, result, seconds=seconds, measured=measured, curve=curve)


def complete(
    folder: TrialFolder,
    result: TrialResult,
    *,
    attempt: int = 0,
    seconds: float = 30.0,
    measured: bool = True,
    curve: bool = False,
    validation_seconds: float = FINAL_VALIDATION_SECONDS,
) -> TrialFolder:
    """All that a trained trial writes to be finished."""
    spec, energy = folder.spec(), {} if measured else UNMEASURED
    trained = folder.cost_intervals()[-1].iteration_stop
    at = {"attempt": attempt, "start": trained, "stop": trained}
    folder.append_cost(make_interval(Phase.FINAL_VALIDATION, validation_seconds, **at, **energy))
    for report in make_epochs(spec, dice=result.dice, seconds=seconds)[
        : result.iterations // spec.iterations_per_epoch
    ]:
        folder.append_epoch(report if curve else replace(report, pseudo_dice=None, pseudo_dice_per_class=()))
    folder.finish(result, attempt=attempt)
    return folder


def make_study(
    root: Path,
    *,
    measured: bool = True,
    folds: tuple[int, ...] = (0,),
    budgets: tuple[float, ...] = (1.0,),
    n_cases: int = 1,
    curve: bool = False,
    dataset: str = "Dataset004_Hippocampus",
) -> Ledger:
    """A study of the six schemes and two searched curricula on every fold at every budget.

    Args:
        n_cases: validation cases per fold; curve: whether trials have epochs.
    """
    study = Ledger.create(root)
    points: list[tuple[str, dict[str, Any], float, float]] = [
        ("cps", {}, 0.812, 94.0),
        ("pgps", {}, 0.815, 36.0),
        ("pgps+", {}, 0.818, 45.0),
        ("rpss", {}, 0.790, 37.0),
        ("efficiency", {}, 0.779, 31.0),
        ("performance", {}, 0.821, 78.0),
        ("pgps", {"min_patch": 0.4, "stages": 3}, 0.801, 52.0),
        ("pgps", {"stages": 2, "batch_growth": 0.5}, 0.806, 33.0),
    ]
    for budget in budgets:
        for fold in folds:
            for scheme, axes, dice, seconds in points:
                spec = make_spec(scheme, fold=fold, budget=budget, dataset=dataset, **axes)
                reached = dice - 0.05 * (1 - budget) - 0.004 * fold
                cost = seconds * budget + fold
                finish_trial(study, spec, dice=reached, seconds=cost, measured=measured, n_cases=n_cases, curve=curve)
    return study


def make_points(**columns: list) -> pd.DataFrame:
    """Points with the given columns; the rest is filled with what says nothing."""
    count = len(next(iter(columns.values())))
    blank = {"str": "x", "Int64": 1, "float64": 1.0, "boolean": True}
    frame = pd.DataFrame({c.name: [blank[c.dtype]] * count for c in POINT_COLUMNS})
    return frame.assign(point_id=[f"p{i}" for i in range(count)], folds="0", **columns)


def sample_of(dice: np.ndarray, folds: Sequence[int] | None = None, points: Sequence[str] | None = None) -> CaseDice:
    """Trainings × cases (× classes) as they come from a study; without folds and points, of one configuration in one.

    Of several folds, a training has seen the cases where it has a Dice.
    """
    dice = dice if dice.ndim == 3 else dice[:, :, None]
    seen = np.ones(dice.shape[:2], dtype=bool) if folds is None else ~np.isnan(dice).all(axis=2)
    return CaseDice(
        point_ids=np.array(points or ["p"] * len(dice), dtype=object),
        folds=np.array(folds or [0] * len(dice)),
        cases=tuple(f"c{n}" for n in range(dice.shape[1])),
        labels=tuple(f"{n}" for n in range(dice.shape[2])),
        dice=dice,
        seen=seen,
    )

"""Finished trainings of stock nnU-Net as trials of a study: what their folders say, and nothing that they do not.

A folder `DATASET/TRAINER__PLANS__CONFIGURATION` has `plans.json`, `dataset.json` and a `fold_K` each. Dice is that of
nnU-Net's `validation/summary.json`; time is the sum of the `Epoch time` of its logs, one log for each process that
trained the fold: the time between them is in no sum, and epochs that were trained twice are waste.
Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import LedgerError, MissingDataError, TrialFailedError
from study.common.serialize import record_to_json, sha256_of_json
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import named_axes
from study.nnunet.identity import check_neighbours, description_sha256, description_subject
from study.nnunet.logs import TrainingLog, read_log
from study.nnunet.plans import NetworkPlan, read_plan
from study.store.ledger import Ledger
from study.store.prediction import CHECKPOINT, TRAINER_NAME
from study.store.readings import MeterInfo
from study.store.records import AttemptHeader, CostInterval, EpochReport, ImportedFrom, Phase
from study.store.results import TrialResult, base_name, result_from, result_problem
from study.store.specification import TrainingSettings, TrialSpec
from study.store.stored import record_from_json
from study.store.trial_folder import IMPORTED, TrialFolder

REASON = "nnU-Net does not measure energy (imported run)"
PARTS = ("cpu", "gpu", "ram")
# nnU-Net's, where debug.json does not say.
_ITERATIONS, _VALIDATION_BATCHES = 250, 50
_MODEL = re.compile(r"(?P<trainer>[^_].*?)__(?P<plans>.+?)__(?P<configuration>.+)")


@dataclass(frozen=True, kw_only=True)
class StockRun:
    """One fold of a model folder.

    Attributes:
        spec: with seed 0; result, attempts, intervals, epochs: as a trial of ours has them.
        source: where it is, and the hashes of what was read.
    """

    spec: TrialSpec
    result: TrialResult
    attempts: Sequence[AttemptHeader]
    intervals: Sequence[CostInterval]
    epochs: Sequence[EpochReport]
    source: ImportedFrom


def read_runs(folder: Path) -> tuple[list[StockRun], list[str]]:
    """The finished folds of all model folders at or below a folder, or a fold, and what was left out, a line each.

    Raises:
        MissingDataError: there is no model folder, or none of its folds is finished; or a file is damaged.
    """
    models = [folder] if (folder / "plans.json").is_file() else sorted(p.parent for p in folder.glob("*/plans.json"))
    models = models or sorted(path.parent for path in folder.glob("*/*/plans.json"))
    folds = [fold for model in models for fold in sorted(model.glob("fold_*"))]
    if folder.name.startswith("fold_") and (folder.parent / "plans.json").is_file():
        folds = [folder]
    if not folds:
        raise MissingDataError(
            f"{folder} is no results folder of nnU-Net: no TRAINER__PLANS__CONFIGURATION with plans.json and a fold_0 "
            "is in it"
        )
    runs, left_out = list[StockRun](), list[str]()
    for fold in folds:
        reason = _unfinished(fold)
        if reason:
            left_out.append(f"{fold} is left out: {reason}")
        else:
            runs.append(_run(fold))
    if not runs:
        raise MissingDataError(f"no fold in {folder} can be imported: {'; '.join(left_out)}")
    return runs, left_out


def add_run(ledger: Ledger, run: StockRun) -> tuple[TrialFolder, bool]:
    """Record a run as a trial, and say whether it is new.

    Raises:
        LedgerError: the study holds trials of other data, or this training with another validation.
    """
    mine, hashes = [], run.source.files
    for trial in ledger.trials():
        known = trial.imported()
        if known is None:
            continue
        if known.files[CHECKPOINT] == hashes[CHECKPOINT]:
            if known.files != hashes:
                changed = sorted(name for name in {*hashes, *known.files} if hashes.get(name) != known.files.get(name))
                raise LedgerError(
                    f"{run.source.path} was imported as trial {trial.trial_id} with another {' and '.join(changed)}; "
                    f"delete {trial.path} to import it anew"
                )
            if trial.result() is not None:
                return trial, False
        mine.append(trial.trial_id)
    check_neighbours(ledger, ledger.trials(), run.attempts[0].inputs)
    # nnU-Net draws its seeds from nowhere: another training of the same fold is numbered.
    seed = 0
    while (spec := replace(run.spec, seed=seed)).trial_id in mine and ledger.trial(spec.trial_id).result() is not None:
        seed += 1
    folder = ledger.add(spec, by_hand=True)
    with folder.locked():
        _write(folder, run)
    return folder, True


def _write(folder: TrialFolder, run: StockRun) -> None:
    """Anew from the start where an import was interrupted: nothing of it is a cost."""
    for name in ("costs.jsonl", "epochs.jsonl", "events.jsonl"):
        (folder.path / name).unlink(missing_ok=True)
    files.write_json(folder.path / IMPORTED, record_to_json(run.source))
    for header in run.attempts:
        folder.begin_attempt(header)
    folder.note(f"imported from {run.source.path}")
    for interval in run.intervals:
        folder.append_cost(interval)
    for report in run.epochs:
        folder.append_epoch(report)
    folder.finish(run.result, attempt=len(run.attempts) - 1)


def _unfinished(fold: Path) -> str:
    if not fold.name.removeprefix("fold_").isdigit():
        return "it was trained on all cases, so it has no validation" if fold.name == "fold_all" else "it is no fold"
    missing = [name for name in (CHECKPOINT, "validation/summary.json") if not (fold / name).is_file()]
    if missing:
        return f"it is not finished, without {' and '.join(missing)}"
    return "" if any(fold.glob("training_log*.txt")) else "it has no training_log_*.txt, so what it took is not known"


def _run(fold: Path) -> StockRun:
    trainer, plan, description = _model(fold.parent)
    debug = _json(fold / "debug.json") if (fold / "debug.json").is_file() else {}
    names = sorted(fold.glob("training_log*.txt"))
    logs = sorted((log for log in map(read_log, names) if log is not None), key=lambda log: log.began)
    spec = _spec(fold, trainer, plan, debug, logs)
    run = StockRun(
        spec=spec,
        result=_result(fold, spec, description),
        attempts=_attempts(spec, description, debug, logs),
        intervals=list(_intervals(spec, logs)),
        epochs=list(_reports(spec, logs)),
        source=ImportedFrom(
            path=str(fold.resolve()),
            trainer=trainer,
            files={
                **{str(path.relative_to(fold)): _sha256(path) for path in (*names, fold / "validation/summary.json")},
                CHECKPOINT: _sha256(fold / CHECKPOINT),
                **{name: _sha256(fold.parent / name) for name in ("plans.json", "dataset.json")},
            },
        ),
    )
    if wrong := _unreadable(run):
        raise MissingDataError(f"{fold} cannot be imported, for nobody could read the trial: {wrong}")
    return run


def _unreadable(run: StockRun) -> str | None:
    """What a reader of the trial would refuse: a Dice above 1, a time beyond any."""
    try:
        for record in (run.result, *run.attempts, *run.intervals, *run.epochs):
            record_from_json(type(record), json.dumps(record_to_json(record)).encode())
    except ValueError as error:
        return str(error)
    return result_problem(run.result, run.spec)


def _model(folder: Path) -> tuple[str, NetworkPlan, dict[str, Any]]:
    """Trainer, plan and dataset.json of a model folder."""
    named = _MODEL.fullmatch(folder.name)
    if named is None or not folder.name.isprintable():
        raise MissingDataError(f"{folder} is not named as nnU-Net does, TRAINER__PLANS__CONFIGURATION")
    if named["trainer"] == TRAINER_NAME:
        raise MissingDataError(f"{folder} was trained by this project: name its study, nothing has to be imported")
    plan = read_plan(folder / "plans.json", named["configuration"])
    if plan.plans != named["plans"]:
        raise MissingDataError(f"{folder} holds the plans {plan.plans}, not {named['plans']} as its name says")
    description = _json(folder / "dataset.json")
    if not isinstance(description.get("labels"), dict) or not isinstance(description.get("file_ending"), str):
        raise MissingDataError(f"{folder / 'dataset.json'} names no labels or file_ending")
    return named["trainer"], plan, description


def _spec(
    fold: Path, trainer: str, plan: NetworkPlan, debug: Mapping[str, Any], logs: Sequence[TrainingLog]
) -> TrialSpec:
    done = {epoch.number for log in logs for epoch in log.epochs if epoch.seconds is not None}
    count = max(done, default=-1) + 1
    missing = next((number for number in range(count) if number not in done), None)
    expected = int(_debug_number(debug, "num_epochs") or count)
    if missing is not None or count < expected or not count:
        lacks = (
            f"epoch {missing}"
            if missing is not None
            else f"epochs from {count} of {expected}"
            if count
            else "any epoch"
        )
        raise MissingDataError(
            f"the logs of {fold} do not have {lacks}, so what it took is not known; put all of its "
            "training_log_*.txt there"
        )
    training = TrainingSettings(
        epochs=count,
        iterations_per_epoch=int(_debug_number(debug, "num_iterations_per_epoch") or _ITERATIONS),
        validation_batches=int(_debug_number(debug, "num_val_iterations_per_epoch") or _VALIDATION_BATCHES),
        initial_learning_rate=_debug_number(debug, "initial_lr"),
        weight_decay=_or(_debug_number(debug, "weight_decay"), TrainingSettings.weight_decay),
        foreground_oversampling=_debug_number(debug, "oversample_foreground_percent"),
        optimizer="adamw" if str(debug.get("optimizer", "")).startswith("AdamW") else "sgd",
    )
    axes = named_axes("cps")
    curriculum = resolve(plan.geometry, axes, epochs=count, iterations_per_epoch=training.iterations_per_epoch, seed=0)
    return TrialSpec(
        dataset=plan.dataset,
        plans=plan.plans,
        configuration=plan.configuration,
        fold=int(fold.name.removeprefix("fold_")),
        seed=0,
        scheme="cps",
        axes=axes,
        curriculum=curriculum,
        training=training.resolved(constant_patch_size=True),
        plans_sha256=plan.sha256,
        # Its training cases are written nowhere.
        split_sha256=sha256_of_json(sorted(map(base_name, _cases(_json(fold / "validation" / "summary.json"), fold)))),
        imported=trainer,
    )


def _result(fold: Path, spec: TrialSpec, description: Mapping[str, Any]) -> TrialResult:
    path = fold / "validation" / "summary.json"
    with files.damage_named(path, "validate the fold again with nnUNetv2_train --val"):
        try:
            return result_from(
                _json(path),
                file_ending=description["file_ending"],
                iterations=spec.curriculum.total_iterations,
                voxels=spec.curriculum.voxels,
                voxel_share=spec.curriculum.voxel_share,
                checksum=_sha256(fold / CHECKPOINT),
                remarks=(
                    f"imported from nnU-Net ({spec.imported}): time is by its log, settings that debug.json does not "
                    "name are nnU-Net's defaults, the seed is a mere number",
                ),
            )
        except TrialFailedError as error:
            raise MissingDataError(f"{path}: {error}") from error


def _cases(summary: Mapping[str, Any], fold: Path) -> list[str]:
    try:
        return [str(case["reference_file"]) for case in summary["metric_per_case"]]
    except (LookupError, TypeError) as error:
        wrong = f"{type(error).__name__}: {error}"
        raise MissingDataError(f"{fold}/validation/summary.json is no summary of nnU-Net ({wrong})") from error


def _attempts(
    spec: TrialSpec, description: Mapping[str, Any], debug: Mapping[str, Any], logs: Sequence[TrainingLog]
) -> list[AttemptHeader]:
    on_cpu = str(debug.get("device", "cpu" if any(log.on_cpu for log in logs) else "cuda")).startswith("cpu")
    gpu = str(debug.get("gpu_name", "GPU not known"))
    meter = MeterInfo(
        name="none",
        version="",
        methods={part: "absent" if part == "gpu" and on_cpu else "unmeasured" for part in PARTS},
        country="world",
        carbon_intensity_kg_per_kwh=0.0,
        pue=1.0,
        reasons=dict.fromkeys(PARTS, REASON),
    )
    return [
        AttemptHeader(
            attempt=index,
            started_at=max(0.0, log.began.timestamp()),
            hostname=str(debug.get("hostname", "not known")),
            pid=0,
            resumed_from_iteration=_first(log) * spec.iterations_per_epoch,
            device="cpu" if on_cpu else "cuda",
            cpu_name="CPU not known",
            gpu_names=() if on_cpu else (gpu,),
            gpu_ids=(),
            cpus=1.0,
            cpus_of_node=1,
            gpus=0.0 if on_cpu else 1.0,
            concurrent_trials=1,
            data_workers=0,
            meter=meter,
            versions={"torch": str(debug["torch_version"])} if "torch_version" in debug else {},
            inputs={description_subject(spec.dataset): description_sha256(description)},
        )
        for index, log in enumerate(_trained(spec, logs))
    ]


def _trained(spec: TrialSpec, logs: Sequence[TrainingLog]) -> list[TrainingLog]:
    """Logs of processes that trained; a later validation is part of the last one's."""
    trained = [log for log in logs if any(epoch.seconds is not None for epoch in log.epochs)]
    validation = next((log.validation_seconds for log in reversed(logs) if log.validation_seconds is not None), None)
    return [*trained[:-1], replace(trained[-1], validation_seconds=validation)]


def _first(log: TrainingLog) -> int:
    return log.epochs[0].number


def _intervals(spec: TrialSpec, logs: Sequence[TrainingLog]) -> Iterator[CostInterval]:
    each, trained = spec.iterations_per_epoch, _trained(spec, logs)
    for attempt, log in enumerate(trained):
        began, start = log.epochs[0].began, _first(log) * each
        yield _interval(attempt, Phase.SETUP, start, 0, log.began, (began - log.began).total_seconds())
        for epoch in log.epochs:
            if epoch.seconds is not None:
                yield _interval(attempt, Phase.TRAINING, epoch.number * each, each, epoch.began, epoch.seconds)
    end, seconds = spec.curriculum.total_iterations, trained[-1].validation_seconds
    # Where no log has it, it is not known, and no sum with it is.
    if seconds is not None:
        yield _interval(len(trained) - 1, Phase.FINAL_VALIDATION, end, 0, trained[-1].began, seconds)


def _interval(attempt: int, phase: Phase, start: int, length: int, began: datetime, seconds: float) -> CostInterval:
    return CostInterval(
        attempt=attempt,
        phase=phase,
        stage=0 if phase is Phase.TRAINING else None,
        iteration_start=start,
        iteration_stop=start + length,
        started_at=max(0.0, began.timestamp()),
        seconds=max(0.0, seconds),
        cpu_kwh=None,
        gpu_kwh=None,
        ram_kwh=None,
    )


def _reports(spec: TrialSpec, logs: Sequence[TrainingLog]) -> Iterator[EpochReport]:
    """In order of training, epochs that were trained again twice."""
    (stage,), each, seconds = spec.curriculum.stages, spec.iterations_per_epoch, dict[int, float]()
    for epoch in (epoch for log in _trained(spec, logs) for epoch in log.epochs if epoch.seconds is not None):
        seconds[epoch.number] = epoch.seconds or 0.0
        known = [dice for dice in epoch.pseudo_dice if dice is not None]
        iteration = (epoch.number + 1) * each
        yield EpochReport(
            epoch=epoch.number,
            iteration=iteration,
            stage=0,
            patch_size=stage.patch_size,
            batch_size=stage.batch_size,
            learning_rate=epoch.rate or 0.0,
            training_loss=epoch.training_loss or 0.0,
            validation_loss=epoch.validation_loss,
            pseudo_dice=sum(known) / len(known) if known else None,
            pseudo_dice_per_class=epoch.pseudo_dice,
            training_seconds=sum(time for number, time in seconds.items() if number <= epoch.number),
            voxels=stage.voxels_per_iteration * iteration,
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(files.read_json(path))
    except FileNotFoundError:
        raise MissingDataError(f"no {path}: nnU-Net writes it beside every model") from None
    except (OSError, ValueError, TypeError) as error:
        raise MissingDataError(f"{path} is damaged: {error}; copy it again") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _debug_number(debug: Mapping[str, Any], name: str) -> float | None:
    """debug.json has everything in words."""
    try:
        return float(debug[name])
    except (KeyError, ValueError, TypeError):
        return None


def _or(value: float | None, default: float) -> float:
    return default if value is None else value

"""From a folder of images to a dataset that trials run on: converted, verified, planned and preprocessed, once.

nnU-Net does the work with its own functions; here is only what it lacks: steps that survive an interruption, a second
call that does nothing, sources as people download them, errors in one line, and plans small enough for a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from study.common import files
from study.common.checks import check_count
from study.common.errors import DataIntegrityError, InvalidInputError, MachineError, MissingDataError
from study.common.machine import usable_cores
from study.nnunet.datasets import (
    FOLDS,
    RAW_VARIABLE,
    DataPaths,
    PreparedDataset,
    dataset_id,
    find_dataset,
    too_few_cases,
)
from study.nnunet.prepare.process import PreparationProgress, run_job
from study.nnunet.prepare.sources import (
    PlansRecipe,
    RawFolder,
    is_converted_from,
    is_inventory,
    msd_source,
    raw_source,
    read_record,
)
from study.nnunet.prepare.steps import SPLITS, PreparationJob, preprocessed_cases, step_count

__all__ = [
    "PlansRecipe",
    "Preparation",
    "PreparationProgress",
    "RawFolder",
    "msd_source",
    "prepare",
    "raw_source",
    "step_count",
]

# nnU-Net's own number of processes.
MOST_DEFAULT_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a call of `prepare` left.

    Attributes:
        dataset: the prepared dataset.
        plans: name of the plans asked for.
        already_done: whether everything was there before.
        seconds: what the call took.
        notes: what had to be assumed.
    """

    dataset: PreparedDataset
    plans: str
    already_done: bool
    seconds: float
    notes: tuple[str, ...] = ()


def prepare(
    source: RawFolder,
    paths: DataPaths,
    recipe: PlansRecipe | None = None,
    *,
    workers: int | None = None,
    report: Callable[[PreparationProgress], None] = lambda progress: None,
) -> Preparation:
    """Prepare a dataset, or find that it is prepared.

    The script that calls this needs the usual `if __name__ == "__main__":`, because processes are spawned.

    Args:
        source: see `msd_source` and `raw_source`.
        paths: nnU-Net's raw and preprocessed folders.
        recipe: what is made; nnU-Net's default plans and 3d_fullres unless given.
        workers: processes, None for as many as there are cores, at most 8.
        report: told how far it is.

    Raises:
        InvalidInputError: the id or the name of the plans is taken by something else, or a setting does not fit.
        DataIntegrityError: the dataset contradicts itself, or has changed since it was prepared.
        MissingDataError: nnU-Net's raw folder is not known.
        MachineError: a folder cannot be written, nnU-Net broke, or another preparation of the dataset is at work.
    """
    started, recipe, notes = time.perf_counter(), recipe or PlansRecipe(), list[str]()
    workers = min(MOST_DEFAULT_WORKERS, usable_cores()) if workers is None else workers
    check_count("--workers", workers)
    job = _checked_job(source, paths, recipe, workers)
    already_done = _is_done(job)
    if not already_done:
        _make_folders(job)
        run_job(job, report, notes.append)
    return Preparation(
        dataset=find_dataset(paths, source.dataset),
        plans=recipe.plans,
        already_done=already_done,
        seconds=time.perf_counter() - started,
        notes=tuple(notes),
    )


def _checked_job(source: RawFolder, paths: DataPaths, recipe: PlansRecipe, workers: int) -> PreparationJob:
    if paths.raw is None:
        raise MissingDataError(f"preparing needs nnU-Net's raw folder: give --data DIR or set {RAW_VARIABLE}")
    job = PreparationJob(source=source, raw=paths.raw, preprocessed=paths.preprocessed, recipe=recipe, workers=workers)
    _check_id(job)
    _check_source(job)
    _check_recipe(job)
    _check_cases(job)
    return job


def _check_id(job: PreparationJob) -> None:
    number = dataset_id(job.source.dataset)
    for root in (job.raw, job.preprocessed):
        # nnU-Net takes every name that begins so for the id: 100 is also that of Dataset1000.
        others = {p.name for p in root.glob(f"Dataset{number:03d}*")} - {job.source.dataset}
        if others:
            legal = f"an id that is free in {root}, where {number} is {sorted(others)[0]}"
            raise InvalidInputError(field="--id", received=number, legal=legal)


def _check_cases(job: PreparationJob) -> None:
    """Refuse what cannot be split into folds before hours of preprocessing."""
    splits, cases = job.folder / SPLITS, job.source.case_count()
    if cases < FOLDS and not splits.exists():
        raise too_few_cases(job.source.dataset, cases, splits)


def _check_source(job: PreparationJob) -> None:
    """Refuse when the name stands for other images, or for other versions of them."""
    source, target = job.source, job.raw_folder
    remedy = f"give a free --id, or remove {target} and {job.folder}"
    if source.kind == "raw" and target.exists() and target.resolve() != source.folder:
        legal = f"the folder that {source.dataset} stands for, {target.resolve()}"
        raise InvalidInputError(field="--raw", received=str(source.folder), legal=legal, remedy=remedy)
    if source.kind == "msd" and target.exists() and not is_converted_from(target, source):
        raise DataIntegrityError(f"{target} was not made from {source.folder} as it is now; {remedy}")
    verified = read_record(job.folder).get("inventory")
    # Without plans, what there is belongs to an interrupted preparation and is made again.
    if target.exists() and verified and job.prepared.plans_names() and not is_inventory(verified, target):
        raise DataIntegrityError(f"{target} has changed since it was prepared; {remedy}")


def _check_recipe(job: PreparationJob) -> None:
    """Refuse when plans of that name exist and are others."""
    recipe, path = job.recipe, job.folder / f"{job.recipe.plans}.json"
    if not path.exists():
        return
    if recipe.plans not in job.prepared.plans_names():
        raise MissingDataError(f"{path} is no plans file as nnU-Net writes it; remove it")
    made = read_record(job.folder)["plans"].get(recipe.plans, {}).get("recipe")
    wanted = recipe.identity()
    if made is None:
        planner = files.read_json(path).get("experiment_planner_used")
        made = {"planner": planner, "small": None, "small_configurations": None}
    if made != wanted:
        differences = ", ".join(f"{k} {made[k]} (asked for {wanted[k]})" for k in made if made[k] != wanted[k])
        legal = f"a name not in use: {job.source.dataset} has these plans with {differences}"
        raise InvalidInputError(field="--plans-name", received=recipe.plans, legal=legal)


def _is_done(job: PreparationJob) -> bool:
    """Whether plans, preprocessed cases and splits are there; a split that is missing is written."""
    if not (job.folder / f"{job.recipe.plans}.json").exists():
        return False
    dataset = find_dataset(DataPaths(raw=job.raw, preprocessed=job.preprocessed), job.source.dataset)
    for configuration in job.recipe.configurations:
        plan = dataset.plan(job.recipe.plans, configuration)
        # A case more or less than dataset.json tells is an interrupted or outdated preprocessing by hand.
        if len(preprocessed_cases(job.folder / plan.data_identifier)) != dataset.description.get("numTraining"):
            return False
        dataset.ensure_splits(plan.data_identifier)
    return True


def _make_folders(job: PreparationJob) -> None:
    for folder in (job.folder, *(() if job.raw_folder.exists() else (job.raw,))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".pgps_probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise MachineError(f"{folder} cannot be written ({error.strerror}); name another --data") from error

"""From a folder of images to a dataset that trials run on: converted, verified, planned and preprocessed, once.

nnU-Net does the work with its own functions; here is only what it lacks: steps that survive an interruption, a second
call that does nothing, sources as people download them, errors in one line, and plans small enough for a CPU.

It works in a process of its own, so that nnU-Net's chatter, environment variables and pools stay out of ours. That
process leads its own group, which is ended with everything in it when the caller stops. It writes to the log in the
dataset's folder and holds a lock on it as long as it lives, so two preparations never mix.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.util import get_temp_dir
from typing import Any

from study.common import files
from study.common.errors import (
    DataIntegrityError,
    InvalidInputError,
    LockedError,
    MachineError,
    MissingDataError,
    StudyError,
    check_count,
)
from study.common.machine import usable_cores
from study.nnunet.datasets import (
    FOLDS,
    NNUNET_PREFIX,
    RAW_VARIABLE,
    SPLITS,
    DataPaths,
    PreparedDataset,
    dataset_id,
    find_dataset,
    too_few_cases,
)
from study.nnunet.prepare.sources import PlansRecipe, RawFolder, is_converted_from
from study.nnunet.prepare.steps import PreparationJob, Step, preprocessed_cases, run_steps
from study.store import locks

# nnU-Net's own number of processes.
MOST_DEFAULT_WORKERS = 8
LOG_NAME, LOCK_NAME = "pgps_prepare.log", "pgps_prepare.locks"
LOOK_INTERVAL_SECONDS = 0.3


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


@dataclass(frozen=True, kw_only=True)
class PreparationProgress:
    """How far a preparation is: the index of the step at work, its name, cases done and to do (0 when unknown)."""

    index: int
    step: str
    done: int
    cases: int


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
        report: told of every step and, a few times a second, how far it is.

    Raises:
        InvalidInputError: the id or the name of the plans is taken by something else, or a setting does not fit.
        DataIntegrityError: the dataset contradicts itself, or has changed since it was prepared.
        MissingDataError: nnU-Net's raw folder is not known.
        MachineError: a folder cannot be written, nnU-Net broke, or another preparation of the dataset is at work.
    """
    started, recipe, notes = time.perf_counter(), recipe or PlansRecipe(), list[str]()
    workers = min(MOST_DEFAULT_WORKERS, usable_cores()) if workers is None else workers
    check_count("--workers", workers)
    if paths.raw is None:
        raise MissingDataError(f"preparing needs nnU-Net's raw folder: give --data DIR or set {RAW_VARIABLE}")
    job = PreparationJob(source=source, raw=paths.raw, preprocessed=paths.preprocessed, recipe=recipe, workers=workers)
    _check_source(job)
    _check_recipe(job)
    # What cannot be split into folds is refused before hours of preprocessing.
    splits, cases = job.folder / SPLITS, source.case_count()
    if cases < FOLDS and not splits.exists():
        raise too_few_cases(source.dataset, cases, splits)
    already_done = _is_done(job)
    if not already_done:
        _make_folders(job)
        _run(job, report, notes.append)
    return Preparation(
        dataset=find_dataset(paths, source.dataset),
        plans=recipe.plans,
        already_done=already_done,
        seconds=time.perf_counter() - started,
        notes=tuple(notes),
    )


def _check_source(job: PreparationJob) -> None:
    """Refuse when the id or the name stands for other images, or for other versions of them."""
    source, target, number = job.source, job.raw_folder, dataset_id(job.source.dataset)
    for root in (job.raw, job.preprocessed):
        # nnU-Net takes every name that begins so for the id: 100 is also that of Dataset1000.
        others = {p.name for p in root.glob(f"Dataset{number:03d}*")} - {source.dataset}
        if others:
            legal = f"an id that is free in {root}, where {number} is {sorted(others)[0]}"
            raise InvalidInputError(field="--id", received=number, legal=legal)
    remedy = f"give a free --id, or remove {target} and {job.folder}"
    if source.kind == "raw" and target.exists() and target.resolve() != source.folder:
        legal = f"the folder that {source.dataset} stands for, {target.resolve()}"
        raise InvalidInputError(field="--raw", received=str(source.folder), legal=legal, remedy=remedy)
    if source.kind == "msd" and target.exists() and not is_converted_from(target, source):
        raise DataIntegrityError(f"{target} was not made from {source.folder} as it is now; {remedy}")
    # Without plans, what there is belongs to an interrupted preparation and is made again.
    if target.exists() and job.prepared.plans_names() and job.is_verified() is False:
        raise DataIntegrityError(f"{target} has changed since it was prepared; {remedy}")


def _check_recipe(job: PreparationJob) -> None:
    """Refuse when plans of that name exist and are others."""
    recipe, path = job.recipe, job.folder / f"{job.recipe.plans}.json"
    if not path.exists():
        return
    if recipe.plans not in job.prepared.plans_names():
        raise MissingDataError(f"{path} is no plans file as nnU-Net writes it; remove it")
    made = job.record()["plans"].get(recipe.plans, {}).get("recipe")
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


def _run(job: PreparationJob, report: Callable[[PreparationProgress], None], note: Callable[[str], None]) -> None:
    """Run a preparation's steps in a new process and wait for it."""
    spawn = multiprocessing.get_context("spawn")
    # The process inherits it for its sockets. One of its own would stay when it is killed.
    get_temp_dir()
    # Of nnU-Net's pools, which an error leaves to be killed: the last line said is ours.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    ours, theirs = spawn.Pipe(duplex=False)
    process: Any = spawn.Process(target=_work, args=(job, theirs))
    process.start()
    theirs.close()
    try:
        _follow(ours, report, note)
        process.join()
    except EOFError:
        process.join()
        log = job.folder / LOG_NAME
        raise MachineError(
            f"the preparing process died (exit code {process.exitcode}), which a lack of memory can do; "
            f"the same command goes on from here, with fewer --workers it needs less memory; see {log}"
        ) from None
    finally:
        if process.is_alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()
        process.close()


def _follow(messages: Connection, report: Callable[[PreparationProgress], None], note: Callable[[str], None]) -> None:
    index, step = 0, Step(name="starting nnU-Net")
    while True:
        report(PreparationProgress(index=index, step=step.name, done=step.cases_done(), cases=step.cases))
        if not messages.poll(LOOK_INTERVAL_SECONDS):
            continue
        message = messages.recv()
        if message is None:
            return
        if isinstance(message, StudyError):
            raise message
        if isinstance(message, str):
            note(message)
        else:
            index, step = index + 1, message


def _work(job: PreparationJob, messages: Connection) -> None:
    """What the new process does: the last message is None, or the error that ended it."""
    os.setsid()
    log = job.folder / LOG_NAME
    try:
        with locks.held(job.folder / LOCK_NAME):
            descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            for standard in (1, 2):
                os.dup2(descriptor, standard)
            os.close(descriptor)
            for name in [name for name in os.environ if name.startswith(NNUNET_PREFIX)]:
                del os.environ[name]
            # nnU-Net reads the first when it is imported and the second, which must not be 0, when it plans.
            os.environ.update(nnUNet_def_n_proc=str(job.workers), nnUNet_n_proc_DA=str(job.workers))
            _import_once()
            run_steps(job, messages.send, messages.send)
    except LockedError as error:
        messages.send(MachineError(f"{job.folder.name} is being prepared by another process, {error}; see {log}"))
    except StudyError as error:
        messages.send(error)
    except Exception as error:  # nnU-Net raises what it likes
        traceback.print_exc()
        sys.stderr.flush()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        messages.send(MachineError(f"preparing {job.source.dataset}: {reason}; see {log}"))
    else:
        messages.send(None)


def _import_once() -> None:
    """Give nnU-Net's pools workers forked from a server that imports torch once, while this process does the same.

    nnU-Net spawns four pools one after another and another one whenever it lists files. Every spawned worker would take
    seconds and up to a gigabyte for its imports: most of the time of a small dataset.
    """
    multiprocessing.set_start_method("forkserver", force=True)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["nnunetv2.experiment_planning.plan_and_preprocess_api"])
    forkserver.ensure_running()
    stock = multiprocessing.get_context

    def get_context(method: str | None = None) -> Any:
        return server if method == "spawn" else stock(method)

    multiprocessing.get_context = get_context

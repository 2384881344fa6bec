"""One trial, without Ray: train along the curriculum, validate the fold, leave model, costs and result in the ledger.

`run_trial` is idempotent: a finished trial returns its stored result, an interrupted one continues at the iteration
its newest readable checkpoint holds. Every second is charged: set-up, training, validation, and what a crash made to
be done again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import (
    DataIntegrityError,
    InfeasibleTrialError,
    LedgerError,
    MissingDataError,
    StudyError,
    TrialFailedError,
    TrialInterrupted,
    disk_full,
    out_of_memory,
)
from study.common.machine import cpu_name, hostname, resolve_device
from study.nnunet.datasets import find_dataset
from study.nnunet.identity import check_trial_inputs, deciding_versions, recorded_versions, version_changes
from study.nnunet.paths import nnunet_environment
from study.nnunet.surfaces import add_lacking, measure
from study.nnunet.training_job import Parts, Stopwatch, make_trainer
from study.run.meter import Accounts
from study.run.progress import Progress, StopRequest, forecast, remarks
from study.run.provenance import Workplace, check_workplace, inputs_of
from study.store.audit import audit_trial, check_resumable
from study.store.costs import Bill, bill
from study.store.ledger import Ledger
from study.store.readings import StageExecution
from study.store.records import AttemptHeader, EpochReport, Phase
from study.store.results import TrialResult, result_from
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder, TrialState

# A killed process loses at most so much of the bill of its final validation, or a case if that takes longer.
REPORT_INTERVAL_SECONDS = 5.0
# How nnU-Net's log begins the line of a case of the final validation.
CASE_BEGINS = "predicting "


@dataclass(frozen=True, kw_only=True)
class FinishedTrial:
    """A result and its bill."""

    folder: TrialFolder
    spec: TrialSpec
    result: TrialResult
    bill: Bill


def run_trial(
    spec: TrialSpec,
    ledger: Ledger,
    workplace: Workplace,
    *,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> FinishedTrial:
    """Run a trial to its end, or return what it left when it has already finished.

    Args:
        spec: what to train.
        ledger: where it is kept.
        workplace: data, resources, meter.
        progress: told what happens.
        stop: asked after every iteration.

    Raises:
        TrialInterrupted: stopped on request; the same call resumes.
        InfeasibleTrialError: out of memory, or its numbers are not finite; the reason is in the ledger.
        TrialFailedError: the training broke; the reason is in the ledger.
        DiskFullError: there is no room for its records; the same call resumes when there is.
        StudyError: data, device or ledger are not fit for it; nothing was started.
    """
    folder, progress = ledger.add(spec), progress or Progress()
    if folder.result() is not None:
        # Without its data a result is as good as it was.
        with suppress(MissingDataError):
            check_trial_inputs(folder, inputs_of(spec, workplace))
    else:
        with folder.locked():
            # Another process may have finished it while this one waited for the disk.
            if folder.result() is None:
                folder.sweep()
                audit_trial(folder)
                _Attempt(spec, folder, workplace, progress, stop or StopRequest()).run()
    audit_trial(folder)
    if workplace.metrics.lacking_in(folder.result()):
        with folder.locked():
            add_lacking(folder, workplace.data, workplace.metrics, progress.alive)
    return finished_trial(folder)


def finished_trial(folder: TrialFolder) -> FinishedTrial:
    """A finished trial as the ledger holds it.

    Raises:
        LedgerError: the trial is not finished.
    """
    result = folder.result()
    if result is None:
        raise LedgerError(f"trial {folder.trial_id} has no result; it is {folder.state().value}")
    costs = bill(folder.attempts(), folder.cost_intervals())
    return FinishedTrial(folder=folder, spec=folder.spec(), result=result, bill=costs)


class _Attempt:
    """One process' work on one trial."""

    def __init__(
        self, spec: TrialSpec, folder: TrialFolder, workplace: Workplace, progress: Progress, stop: StopRequest
    ) -> None:
        self._spec, self._folder, self._workplace = spec, folder, workplace
        self._progress, self._stop = progress, stop
        self._index = len(folder.attempts())
        self._gpus = 1.0 if workplace.resources.gpus is None else workplace.resources.gpus
        self._accounts = Accounts(
            workplace.energy, cpus=workplace.resources.usable_cpus, gpus=self._gpus, helpers=workplace.helpers
        )
        self._validation: Stopwatch | None = None
        self._header: AttemptHeader | None = None
        self._inputs: dict[str, str] = {}
        self._remarks: tuple[str, ...] = ()
        self._predicted = 0

    def run(self) -> None:
        try:
            # Before anything else, so that no second of the set-up is without its energy.
            with self._stop.deferred():
                self._accounts.start()
            check_workplace(self._spec, self._workplace)
            self._inputs = inputs_of(self._spec, self._workplace)
            check_trial_inputs(self._folder, self._inputs)
            self._run(resolve_device(self._workplace.resources.device))
        finally:
            self._accounts.close()

    def _run(self, device: str) -> None:
        try:
            with nnunet_environment(self._folder, self._workplace.data, processes=self._workplace.resources.threads):
                self._train_and_validate(device)
        except TrialInterrupted as interruption:
            if not self._stop.recorded:
                self._folder.append_event("interrupted", attempt=self._index, reason=str(interruption))
            raise
        except (LedgerError, DataIntegrityError):
            # Damaged or foreign records or data: nothing that training again would mend.
            raise
        except Exception as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> StudyError:
        """Record why the training broke; what to raise for it."""
        full = disk_full(error)
        if full is not None:
            with suppress(OSError, StudyError):
                self._folder.append_event("interrupted", attempt=self._index, reason=str(full))
            return full
        reason = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
        if out_of_memory(error):
            reason = f"out of memory: {reason}"
        infeasible = isinstance(error, InfeasibleTrialError) or out_of_memory(error)
        self._folder.fail(
            attempt=self._index, reason=reason, state=TrialState.INFEASIBLE if infeasible else TrialState.FAILED
        )
        kind = InfeasibleTrialError if infeasible else TrialFailedError
        return kind(f"trial {self._folder.trial_id}: {reason}; see {self._folder.log_path}")

    def _train_and_validate(self, device: str) -> None:
        from study.nnunet.torch_tools import cpu_threads, weights_sha256

        with cpu_threads(self._workplace.resources.threads):
            trainer = self._make_trainer(device)
            self._begin(trainer, device)
            untrained = not trainer.is_trained
            if untrained:
                trainer.on_train_start()
                if self._progress.wants_forecast:
                    # On a CPU, where it may be weeks, by a step; on a GPU the first steps at a shape say little.
                    self._progress.remark(forecast(trainer, self._spec.curriculum, timed=device == "cpu"))
            self.interval_done(Phase.SETUP, None, trainer.iteration, trainer.iteration, self._accounts.seconds)
            if untrained:
                self._train(trainer)
            trainer.set_deep_supervision_enabled(True)
            checksum = weights_sha256(trainer.network)
            result = self._validate(trainer, checksum)
            if device == "cuda":
                self._note_memory()
        self._folder.finish(result, attempt=self._index)

    def _make_trainer(self, device: str) -> Any:
        spec, workplace = self._spec, self._workplace
        dataset = find_dataset(workplace.data, spec.dataset)
        trainer = make_trainer(
            spec,
            dataset,
            device=device,
            data_workers=workplace.resources.workers_for(device),
            validation_processes=workplace.resources.threads,
            previous_stage=workplace.previous_stage,
            compile_cache=workplace.resources.compile_cache_folder,
            stall_seconds=workplace.stall_seconds,
            observer=self,
        )
        # Before the training, what its Dice will rest on, or that there is none.
        self._remarks = remarks(spec, trainer, dataset)
        for remark in self._remarks:
            self._progress.remark(remark)
            if not self._index:
                self._folder.note(remark)
        trainer.initialize()
        self._resume(trainer)
        return trainer

    def _resume(self, trainer: Any) -> None:
        """Go on from the newest checkpoint, if the ledger knows what it holds."""
        from study.nnunet.checkpoints import newest_readable

        for place in (self._folder.path, self._folder.path.parent):
            if place.is_symlink():
                raise LedgerError(f"{place} is a link, so no checkpoint is read there; put the folder in its place")
        checkpoint = newest_readable(Path(trainer.output_folder), self._folder.note, inside=self._folder.path)
        if checkpoint is not None:
            self._check_versions()
            trainer.load_checkpoint(str(checkpoint))
        elif self._index:
            self._folder.note("no checkpoint is left of earlier attempts: the training starts anew")
        check_resumable(self._folder, iteration=trainer.iteration, epoch=trainer.current_epoch)

    def _check_versions(self) -> None:
        """Half a training by one version and half by another would be the result of neither."""
        now = deciding_versions()
        changes = [change for attempt in self._folder.attempts() for change in version_changes(attempt.versions, now)]
        if changes:
            raise LedgerError(
                f"trial {self._folder.trial_id} was begun with other versions: {'; '.join(dict.fromkeys(changes))}; "
                "install those to resume it, or train it anew in another study folder"
            )

    def _begin(self, trainer: Any, device: str) -> None:
        from study.nnunet.torch_tools import cuda_device_names, cuda_device_uuids

        resources, on_gpu = self._workplace.resources, device == "cuda"
        stages = range(len(self._spec.curriculum.stages))
        measured, gpu_ids = self._accounts.describe((cuda_device_uuids()[:1] or ("no name",)) if on_gpu else ())
        header = AttemptHeader(
            attempt=self._index,
            started_at=self._accounts.started_at,
            hostname=hostname(),
            pid=os.getpid(),
            resumed_from_iteration=trainer.iteration,
            device=device,
            cpu_name=cpu_name(),
            gpu_names=cuda_device_names()[:1] if on_gpu else (),
            gpu_ids=gpu_ids,
            cpus=resources.usable_cpus,
            cpus_of_node=os.cpu_count() or 1,
            gpus=self._gpus if on_gpu else 0.0,
            concurrent_trials=resources.concurrent_trials,
            data_workers=resources.workers_for(device),
            meter=measured,
            versions=recorded_versions(),
            execution=() if on_gpu else tuple(StageExecution(stage=stage) for stage in (*stages, None)),
            inputs=self._inputs,
            preprocessed=str(self._workplace.data.preprocessed.resolve()),
        )
        self._folder.begin_attempt(header)
        self._header = header
        self._progress.begin(self._spec, trainer.iteration)

    def _note_memory(self) -> None:
        from study.nnunet.torch_tools import reserved_memory

        if self._header is not None:
            peak, card = reserved_memory()
            self._header = replace(self._header, peak_memory_bytes=peak, card_memory_bytes=card)
            with self._stop.deferred():
                self._folder.amend_attempt(self._header)

    def _train(self, trainer: Any) -> None:
        self._progress.phase(Phase.TRAINING)
        with self._stop.deferred():
            trainer.run_training()
        if trainer.has_reached_dice:
            reached = f"validation Dice {self._spec.training.stop_at_dice:g} is reached"
            self._folder.note(f"{reached} after iteration {trainer.iteration}: the training ends")

    def _validate(self, trainer: Any, checksum: str) -> TrialResult:
        self._progress.phase(Phase.FINAL_VALIDATION)
        done = trainer.iteration
        self._validation = Stopwatch(
            lambda seconds: self.interval_done(Phase.FINAL_VALIDATION, None, done, done, seconds)
        )
        try:
            trainer.perform_actual_validation()
            return self._measured(trainer, checksum)
        finally:
            self._validation.close()
            self._validation = None

    def _measured(self, trainer: Any, checksum: str) -> TrialResult:
        spec, workplace = self._spec, self._workplace
        result = result_from(
            files.read_json(Path(trainer.output_folder) / "validation" / "summary.json"),
            file_ending=trainer.dataset_json["file_ending"],
            iterations=trainer.iteration,
            voxels=trainer.voxels,
            voxel_share=spec.curriculum.share_of_cps(trainer.voxels, trainer.iteration),
            checksum=checksum,
            remarks=self._remarks,
        )
        cases = result.dice_per_case_and_class
        metrics = measure(self._folder, spec, workplace.data, workplace.metrics, cases, self.alive)
        return replace(result, metrics=metrics)

    # What the trainer tells its observer.

    def alive(self, doing: str = "") -> None:
        self._progress.alive()
        if self._validation is not None and doing.startswith(CASE_BEGINS):
            self._predicted += 1
            self._progress.validating(self._predicted)
        if self._validation is not None and self._validation.seconds >= REPORT_INTERVAL_SECONDS:
            self._validation.close()

    def iteration_done(self, report: Any) -> None:
        self._progress.iteration_done(report)

    def stage_ready(self, execution: StageExecution) -> None:
        self._progress.alive()
        if self._header is not None:
            others = [known for known in self._header.execution if known.stage != execution.stage]
            self._header = replace(self._header, execution=(*others, execution))
            with self._stop.deferred():
                self._folder.amend_attempt(self._header)

    def epoch_done(self, report: EpochReport) -> None:
        self._folder.append_epoch(report)
        self._progress.epoch_done(report)
        self._stop.epoch_done(report)

    def stop_requested(self) -> bool:
        return self._stop.requested

    def interval_done(
        self, phase: Phase, stage: int | None, start: int, stop: int, seconds: float, parts: Parts = ()
    ) -> None:
        with self._stop.deferred():
            used = self._accounts.interval(
                phase, attempt=self._index, stage=stage, start=start, stop=stop, seconds=seconds
            )
            self._folder.append_cost(replace(used, parts=parts))

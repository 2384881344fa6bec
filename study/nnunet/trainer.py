"""The nnU-Net trainer with a curriculum: a subclass of stock nnU-Net 2.8, found by its own command lines.

What changes against nnU-Net: batches come from `batches.py` (iteration-indexed, patch and batch size by stage), the
loop can stop and resume at any iteration, and optimiser and validation follow `TrainingSettings`. Network, loss,
steps, augmentation, mixed precision and the final sliding-window validation are nnU-Net's own.

Attach a `TrainingJob` before `initialize`. Without one, as under `nnUNetv2_train -tr nnUNetTrainerPGPS`, the trainer
follows PGPS' published chain and allocation with nnU-Net's own settings, see `training_job.published_job`.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from study.common.errors import InfeasibleTrialError, NoBatchError, TrialInterrupted
from study.curriculum.data_curriculum import stopping_epoch
from study.nnunet import checkpoints
from study.nnunet.batches import Batches, Schedule, seed_forward, seed_weights
from study.nnunet.cuda_steps import make_steps
from study.nnunet.feed import Feed
from study.nnunet.presets import Decisions, decided, take_statistics
from study.nnunet.steps import IterationTimer, OnlineValidation, StockSteps, log_none, read_losses, use_compile_cache
from study.nnunet.torch_tools import all_finite, allow_one_voxel, make_optimizer
from study.nnunet.training_job import IterationReport, TrainingJob, published_job
from study.nnunet.transforms import augmentations
from study.store.readings import StageExecution, StagePart
from study.store.records import EpochReport, Phase
from study.store.training_settings import LearningRates

# An open stretch of training is reported at least this often, so that a killed process loses little of its bill.
REPORT_INTERVAL_SECONDS = 5.0


class nnUNetTrainerPGPS(nnUNetTrainer):  # type: ignore[misc]
    """Trains the configuration of a plan along a curriculum. See the module's text."""

    # nnU-Net's attributes, which it does not annotate.
    network: Any
    optimizer: Any
    lr_scheduler: Any
    initial_lr: Any
    dataloader_train: Any
    oversample_foreground_percent: Any
    inference_allowed_mirroring_axes: Any

    # nnU-Net reflects on this signature: no parameter may be added.
    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's default
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.job: TrainingJob | None = None
        self.iteration = 0
        self.training_seconds = 0.0
        self.voxels = 0
        # Of the epoch so far; on a GPU they stay there until they are read.
        self._epoch_losses: list[float | torch.Tensor] = []
        # Pseudo Dice by epoch, None where it was not evaluated.
        self._curve: list[float | None] = []
        self._checkpoint_clock = checkpoints.CheckpointClock()
        self._steps = StockSteps(self)

    # --- set-up ------------------------------------------------------------------------------------------------

    def attach(self, job: TrainingJob) -> None:
        """Take on what to train; call before `initialize`."""
        self.job = job
        settings = job.settings
        self.num_epochs = settings.epochs
        self.num_iterations_per_epoch = job.curriculum.total_iterations // settings.epochs
        self.num_val_iterations_per_epoch = settings.validation_batches
        self.initial_lr = settings.initial_learning_rate
        self.weight_decay = settings.weight_decay
        self.oversample_foreground_percent = settings.foreground_oversampling
        if job.previous_stage is not None:
            self.folder_with_segs_from_previous_stage = str(job.previous_stage)

    def initialize(self) -> None:
        """Build network, optimiser and loss from seeded weights."""
        if self.job is None:
            workers = get_allowed_n_proc_DA()
            self.attach(published_job(self.plans_manager.plans, self.configuration_name, data_workers=workers))
        if self.device.type == "cuda":
            use_compile_cache(self._job.compile_cache)
        seed_weights(self._job.seed)
        super().initialize()
        if self._job.curriculum.has_one_voxel_stage:
            allow_one_voxel(self.network)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, LearningRates]:
        """Optimiser of the settings, fused on a GPU, and what sets its learning rate."""
        optimizer = make_optimizer(self._job.settings, self.network.parameters(), fused=self.device.type == "cuda")
        return optimizer, LearningRates(self._job.settings, self._job.curriculum, optimizer)

    def get_dataloaders(self) -> tuple[Feed, None]:
        """One iterator over training and validation batches in the order of use, from the current iteration on."""
        feed = Feed(
            self.make_batches(),
            self._schedule(),
            workers=self._job.data_workers,
            pin_memory=self.device.type == "cuda",
            stop_requested=self._job.observer.stop_requested,
            stall_seconds=self._job.stall_seconds,
        )
        return feed, None

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Decisions:
        """nnU-Net's decisions for the patch of its configuration, by the augmentation preset."""
        return decided(self, self._job.settings.augmentation_preset)

    def make_batches(self) -> Batches:
        """Every batch of the job, by index."""
        training_cases, validation_cases = self.get_tr_and_val_datasets()
        return Batches(
            trainer=self,
            curriculum=self._job.curriculum,
            data=self._job.data,
            seed=self._job.seed,
            foreground_oversampling=self.oversample_foreground_percent,
            augmentations=augmentations(self, self._job.curriculum, self._job.settings.augmentation),
            training_cases=training_cases,
            validation_cases=validation_cases,
        )

    def plot_network_architecture(self) -> None:
        """Do nothing: nnU-Net's plot needs a library that is gone."""

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Write to nnU-Net's log file only: the terminal belongs to the progress display."""
        if getattr(self, "job", None) is not None:
            # nnU-Net's validation logs every case, and tells nobody else.
            self._job.observer.alive(" ".join(map(str, args)))
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)

    # --- the loop ----------------------------------------------------------------------------------------------

    @property
    def is_trained(self) -> bool:
        """Whether nothing but the final validation is left to do."""
        return bool(self.current_epoch >= self.num_epochs) or self.has_reached_dice

    @property
    def has_reached_dice(self) -> bool:
        """Whether the validation Dice to stop at has been reached, see `data_curriculum`."""
        return stopping_epoch(self._curve, self._job.settings.stop_at_dice) is not None

    def run_training(self) -> None:
        """Train from the current iteration to the end, or to the Dice to stop at; see also `Observer.stop_requested`.

        Raises:
            TrialInterrupted: a stop was requested; the checkpoint is written.
            InfeasibleTrialError: loss or weights are no longer finite.
            NoBatchError: the data workers deliver no more; the checkpoint is written.
        """
        if self.dataloader_train is None:
            self.on_train_start()
        self._steps = make_steps(self, self._stage_ready)
        while not self.is_trained:
            self._train_epoch(self.current_epoch)
        self._steps.close()
        self.on_train_end()

    def on_train_end(self) -> None:
        """Write the final checkpoint, drop the interim ones, stop the loader's processes."""
        self._save(final=True)
        self.logger.plot_progress_png(self.output_folder)
        self.dataloader_train = None
        self.print_to_log_file("Training done.")

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's own prediction and evaluation of the fold, with test-time mirroring as the settings say."""
        axes, processes = self.inference_allowed_mirroring_axes, stock.default_num_processes
        if not self._job.settings.test_time_mirroring:
            self.inference_allowed_mirroring_axes = None
        # nnU-Net read it from the environment when it was first imported, whoever did that.
        stock.default_num_processes = self._job.validation_processes or processes
        try:
            super().perform_actual_validation(save_probabilities)
        finally:
            self.inference_allowed_mirroring_axes, stock.default_num_processes = axes, processes

    def _train_epoch(self, epoch: int) -> None:
        self.on_epoch_start()
        self.on_train_epoch_start()
        self._train_iterations(stop=(epoch + 1) * self.num_iterations_per_epoch)
        losses = read_losses(self._epoch_losses)
        self._check_numbers(epoch, losses)
        self.on_train_epoch_end([{"loss": np.array(loss)} for loss in losses])
        validation = self._validate_epoch(epoch)
        self.logger.log("epoch_end_timestamps", time.time(), epoch)
        self._job.observer.epoch_done(self._epoch_report(epoch, losses, validation))
        self._epoch_losses = []
        self._curve.append(validation.dice)
        self.current_epoch += 1
        if not self.is_trained and self._checkpoint_clock.due(epoch_ended=True):
            self._save()

    def _train_iterations(self, *, stop: int) -> None:
        stretch = IterationTimer(lambda: self.iteration, self._spend_training, self._steps)
        try:
            while self.iteration < stop:
                stage = self._job.curriculum.stage_index(self.iteration)
                if not self._job.curriculum.random_draws:
                    stretch.enter(stage)
                self._train_iteration(stage)
                if self._job.curriculum.random_draws:
                    stretch.drawn(stage)
                self._pause(stretch)
        except NoBatchError as error:
            stretch.close()
            self._end_without_batch(error)
        finally:
            stretch.close()

    def _pause(self, stretch: IterationTimer) -> None:
        """What may come between two iterations: a stop, a report, a checkpoint."""
        if self._job.observer.stop_requested():
            stretch.close()
            self._stop()
        if stretch.seconds >= REPORT_INTERVAL_SECONDS:
            stretch.close()
        if self._checkpoint_clock.due(epoch_ended=False):
            stretch.close()
            self._save()
            stretch.reopen()

    def _end_without_batch(self, error: NoBatchError) -> NoReturn:
        if self._job.observer.stop_requested():
            self._stop()
        self._save()
        raise error

    def _stop(self) -> NoReturn:
        self._save()
        total = self._job.curriculum.total_iterations
        raise TrialInterrupted(f"stopped after iteration {self.iteration} of {total}")

    def _train_iteration(self, stage: int) -> None:
        started = time.perf_counter()
        self.lr_scheduler.at(self.iteration)
        batch = next(self.dataloader_train)
        fetched = time.perf_counter()
        self._steps.ready(stage, batch, self.iteration)
        readied = time.perf_counter()
        seed_forward(self._job.seed, self.iteration)
        seeded = time.perf_counter()
        loss = self._steps.train(stage, batch)
        done = time.perf_counter()
        self._epoch_losses.append(loss)
        self.voxels += self._job.curriculum.stages[stage].voxels_per_iteration
        report = IterationReport(
            iteration=self.iteration,
            stage=stage,
            loss=loss,
            fetch_seconds=fetched - started,
            step_seconds=readied - fetched + done - seeded,
        )
        self.iteration += 1
        self._job.observer.iteration_done(report)

    def _validate_epoch(self, epoch: int) -> OnlineValidation:
        if not self._schedule().validates(epoch):
            log_none(self.logger, self.label_manager)
            return OnlineValidation()
        started, missing = time.perf_counter(), None
        try:
            outputs = self._validation_outputs()
        except NoBatchError as error:
            missing = error
        self._spend(Phase.ONLINE_VALIDATION, time.perf_counter() - started)
        if missing is not None:
            self._end_without_batch(missing)
        if self._job.observer.stop_requested():
            self._stop()
        self.on_validation_epoch_end(outputs)
        return OnlineValidation.logged(self.logger)

    @torch.no_grad()
    def _validation_outputs(self) -> list[dict[str, Any]]:
        """nnU-Net's outputs for the fixed batches, or for the first of them when a stop is requested meanwhile."""
        take_statistics(self, lambda: self._steps.observe(next(self.dataloader_train)))
        self.on_validation_epoch_start()
        outputs: list[Any] = []
        while len(outputs) < self._job.settings.validation_batches and not self._job.observer.stop_requested():
            outputs.append(self._steps.validate(next(self.dataloader_train), self.iteration))
        return self._steps.outputs(outputs)

    def _check_numbers(self, epoch: int, losses: list[float]) -> None:
        """A network of NaN predicts background: without this a broken training would be a Dice of 0."""
        finite_losses = all(math.isfinite(loss) for loss in losses)
        if not (finite_losses and all_finite(self.network.parameters())):
            what = "weights are" if finite_losses else "training loss is"
            raise InfeasibleTrialError(f"{what} not finite in epoch {epoch}; lower the learning rate")

    def _epoch_report(self, epoch: int, losses: list[float], validation: OnlineValidation) -> EpochReport:
        stage = self._job.curriculum.stages[self._stage_of_last]
        return EpochReport(
            epoch=epoch,
            iteration=self.iteration,
            stage=self._stage_of_last,
            patch_size=stage.patch_size,
            batch_size=stage.batch_size,
            learning_rate=self.lr_scheduler(self.iteration - 1),
            training_loss=float(np.mean(losses)),
            validation_loss=validation.loss,
            pseudo_dice=validation.dice,
            pseudo_dice_per_class=validation.dice_per_class,
            training_seconds=self.training_seconds,
            voxels=self.voxels,
        )

    # --- checkpoints -------------------------------------------------------------------------------------------

    def _save(self, *, final: bool = False) -> None:
        started = time.perf_counter()
        checkpoints.save(Path(self.output_folder), self._checkpoint(), final=final)
        cost_seconds = time.perf_counter() - started
        self._spend(Phase.TRAINING, cost_seconds)
        self._checkpoint_clock.written(cost_seconds)

    def _checkpoint(self) -> dict[str, Any]:
        """nnU-Net's checkpoint with our position in the training as one more key."""
        return {
            "network_weights": self.network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch,
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            checkpoints.STATE_KEY: {
                "iteration": self.iteration,
                "epoch_losses": read_losses(self._epoch_losses),
                "curve": self._curve,
                "training_seconds": self.training_seconds,
                "voxels": self.voxels,
            },
        }

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Continue from a checkpoint of this trainer, at the very iteration it was written."""
        super().load_checkpoint(filename_or_checkpoint)
        checkpoint = torch.load(filename_or_checkpoint, map_location="cpu", weights_only=False)
        state = checkpoint[checkpoints.STATE_KEY]
        self.iteration, self.voxels = state["iteration"], state["voxels"]
        self.training_seconds = state["training_seconds"]
        self._epoch_losses = list(state["epoch_losses"])
        self._curve = list(state["curve"])

    # --- helpers -----------------------------------------------------------------------------------------------

    @property
    def _job(self) -> TrainingJob:
        if self.job is None:
            raise RuntimeError("attach a job before using the trainer")
        return self.job

    @property
    def _stage_of_last(self) -> int:
        return self._job.curriculum.stage_index(max(0, self.iteration - 1))

    def _spend(self, phase: Phase, seconds: float) -> None:
        self.training_seconds += seconds
        self._job.observer.interval_done(phase, self._stage_of_last, self.iteration, self.iteration, seconds)

    def _spend_training(self, stage: int | None, start: int, seconds: float, parts: tuple[StagePart, ...]) -> None:
        self.training_seconds += seconds
        self._job.observer.interval_done(Phase.TRAINING, stage, start, self.iteration, seconds, parts)

    def _schedule(self) -> Schedule:
        return Schedule.of(self._job.settings, self._job.curriculum, self.current_epoch, self.iteration)

    def _do_i_compile(self) -> bool:
        """Never through nnU-Net, which compiles the network for good: `cuda_steps` compiles stages where it pays."""
        return False

    def _stage_ready(self, execution: StageExecution) -> None:
        self.print_to_log_file(f"{execution}")
        self._job.observer.stage_ready(execution)

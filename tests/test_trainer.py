"""The trainer without ledger or command line: settings reach nnU-Net, every iteration is told of, seeds decide."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prepared import CUBE, FULL, MakeTrainer, plans_document

from study.common.errors import TrialFailedError
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import named_axes
from study.nnunet.batches import Item
from study.nnunet.plans import plan_from_document
from study.nnunet.torch_tools import cpu_threads, weights_sha256
from study.nnunet.trainer import nnUNetTrainerPGPS
from study.nnunet.training_job import IterationReport, Parts, SilentObserver
from study.store.records import EpochReport, Phase


class Notes(SilentObserver):
    """Keeps everything that a training tells."""

    def __init__(self) -> None:
        self.iterations: list[IterationReport] = []
        self.epochs: list[EpochReport] = []
        self.intervals: list[tuple[Phase, int | None, int, int, float]] = []
        self.parts: list[Parts] = []

    def iteration_done(self, report: IterationReport) -> None:
        self.iterations.append(report)

    def epoch_done(self, report: EpochReport) -> None:
        self.epochs.append(report)

    def interval_done(
        self, phase: Phase, stage: int | None, start: int, stop: int, seconds: float, parts: Parts = ()
    ) -> None:
        self.intervals.append((phase, stage, start, stop, seconds))
        self.parts.append(parts)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    with cpu_threads(1):
        yield


ADAMW = {"optimizer": "adamw", "initial_learning_rate": 0.02, "momentum": 0.8, "weight_decay": 0.1}
STOCK = {"lr": 0.01, "weight_decay": 3e-5}


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        (ADAMW, torch.optim.AdamW, {"lr": 0.02, "betas": (0.8, 0.999), "weight_decay": 0.1}),
        ({"optimizer": "sgd"}, torch.optim.SGD, {**STOCK, "momentum": 0.99, "nesterov": True}),
        ({"optimizer": "sgd", "momentum": 0.5}, torch.optim.SGD, {**STOCK, "momentum": 0.5, "nesterov": True}),
        ({"optimizer": "sgd", "momentum": 0.0}, torch.optim.SGD, {**STOCK, "momentum": 0.0, "nesterov": False}),
    ],
)
def test_the_optimizer_is_as_asked_or_nnunets(
    make_trainer: MakeTrainer, settings: dict[str, Any], kind: Any, expected: dict[str, Any]
) -> None:
    length = {"epochs": 5, "iterations_per_epoch": 8, "validation_batches": 7}
    trainer = make_trainer(budget=0.5, training={**length, **settings})
    trainer.initialize()
    assert type(trainer.optimizer) is kind
    (group,) = trainer.optimizer.param_groups
    assert {name: group[name] for name in expected} == expected
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (5, 4, 7)


def test_without_a_task_it_is_the_published_method(make_trainer: MakeTrainer, data: Path) -> None:
    trainer = make_trainer()
    trainer.job = None
    trainer.initialize()
    document = plans_document(data)
    plan = plan_from_document(document, document["configurations"], FULL)
    assert trainer.job.curriculum == resolve(plan.geometry, named_axes("pgps", allocation="reference"))
    lengths = trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch
    assert lengths == (1000, 250, 50)
    assert type(trainer.optimizer) is torch.optim.SGD
    assert trainer.oversample_foreground_percent == 0.5
    assert trainer.job.settings.test_time_mirroring


def foreground_samples(trainer: nnUNetTrainerPGPS) -> float:
    """Share of samples of the smallest stage whose patch holds foreground."""
    batches = trainer.make_batches()
    labels = [batches[Item(index=index)]["target"][0] for index in range(20)]
    return float(np.mean([bool((sample > 0).any()) for batch in labels for sample in batch]))


def test_foreground_oversampling_reaches_the_batches(make_trainer: MakeTrainer) -> None:
    given = {share: {"foreground_oversampling": share, "iterations_per_epoch": 100} for share in (0.0, 1.0)}
    assert make_trainer("cps").oversample_foreground_percent == 0.33
    assert make_trainer("pgps").oversample_foreground_percent == 0.5
    assert make_trainer("cps", training=given[1.0]).oversample_foreground_percent == 1.0
    never, always = (foreground_samples(make_trainer(training=given[share])) for share in (0.0, 1.0))
    assert never < 0.8
    assert always >= 0.95


def test_a_training_from_first_to_last_iteration(make_trainer: MakeTrainer) -> None:
    notes = Notes()
    training = {"epochs": 3, "iterations_per_epoch": 8, "validation_every_epochs": 2, "test_time_mirroring": False}
    trainer = make_trainer(observer=notes, training=training)
    trainer.run_training()
    curriculum = trainer.job.curriculum
    assert trainer.is_trained
    assert [report.iteration for report in notes.iterations] == list(range(24))
    assert [report.stage for report in notes.iterations] == [curriculum.stage_index(i) for i in range(24)]
    assert all(report.fetch_seconds > 0 and report.step_seconds > 0 for report in notes.iterations)
    _check_epochs(trainer, notes)
    _check_intervals(trainer, notes)
    # nnU-Net's own mirroring, whatever the validation does.
    checkpoint = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["inference_allowed_mirroring_axes"] == (0, 1, 2)
    assert checkpoint["trainer_name"] == "nnUNetTrainerPGPS"
    assert checkpoint["init_args"]["configuration"] == FULL
    assert checkpoint["init_args"]["plans"]["plans_name"] == CUBE


def _check_epochs(trainer: nnUNetTrainerPGPS, notes: Notes) -> None:
    epochs, curriculum = notes.epochs, trainer.job.curriculum
    assert [(report.epoch, report.iteration) for report in epochs] == [(0, 8), (1, 16), (2, 24)]
    assert [report.learning_rate for report in epochs] == pytest.approx([0.003 * (1 - e / 3) ** 0.9 for e in range(3)])
    losses = [[r.loss for r in notes.iterations[8 * e : 8 * e + 8]] for e in range(3)]
    assert [report.training_loss for report in epochs] == pytest.approx([np.mean(part) for part in losses])
    for report in epochs:
        stage = curriculum.stage_at(report.iteration - 1)
        assert (report.patch_size, report.batch_size) == (stage.patch_size, stage.batch_size)
        assert report.voxels == sum(curriculum.stage_at(i).voxels_per_iteration for i in range(report.iteration))
    assert epochs[-1].voxels == curriculum.voxels
    # Every second epoch is validated, and the last.
    assert (epochs[0].validation_loss, epochs[0].pseudo_dice, epochs[0].pseudo_dice_per_class) == (None, None, ())
    for report in epochs[1:]:
        assert report.pseudo_dice is not None
        assert 0 <= report.pseudo_dice <= 1
        assert report.validation_loss is not None
        assert len(report.pseudo_dice_per_class) == 2


def _check_intervals(trainer: nnUNetTrainerPGPS, notes: Notes) -> None:
    curriculum = trainer.job.curriculum
    trained = [(stage, start, stop) for phase, stage, start, stop, _ in notes.intervals if phase is Phase.TRAINING]
    covering = [(stage, start, stop) for stage, start, stop in trained if stop > start]
    assert [start for _, start, _ in covering] + [24] == [0] + [stop for _, _, stop in covering]
    for stage, start, stop in covering:
        assert {curriculum.stage_index(i) for i in range(start, stop)} == {stage}
    validations = [start for phase, _, start, _, _ in notes.intervals if phase is Phase.ONLINE_VALIDATION]
    assert validations == [16, 24]
    assert sum(seconds for *_, seconds in notes.intervals) == pytest.approx(trainer.training_seconds)
    steps = sum(report.fetch_seconds + report.step_seconds for report in notes.iterations)
    assert steps < trainer.training_seconds
    for earlier, later in pairwise(notes.epochs):
        assert earlier.training_seconds < later.training_seconds <= trainer.training_seconds


def test_random_draws_are_reported_with_what_each_stage_had(make_trainer: MakeTrainer) -> None:
    notes = Notes()
    trainer = make_trainer("rpss", observer=notes, training={"epochs": 2, "iterations_per_epoch": 6})
    trainer.run_training()
    assert len({report.stage for report in notes.iterations}) > 3
    stretches = [(stage, start, stop) for phase, stage, start, stop, _ in notes.intervals if stop > start]
    assert stretches == [(None, 0, 6), (None, 6, 12)]
    told = [(row[2:], parts) for row, parts in zip(notes.intervals, notes.parts, strict=True) if parts]
    assert [row[:2] for row, _ in told] == [(0, 6), (6, 12)]
    for (start, stop, seconds), parts in told:
        drawn = Counter(report.stage for report in notes.iterations[start:stop])
        assert {part.stage: part.iterations for part in parts} == drawn
        assert sum(part.seconds for part in parts) == pytest.approx(seconds)
    assert trainer.voxels == trainer.job.curriculum.voxels


def test_first_weights_depend_on_the_seed_alone(make_trainer: MakeTrainer) -> None:
    digests = []
    for scheme, seed in (("pgps", 0), ("cps", 0), ("pgps", 1)):
        torch.manual_seed(len(digests))
        trainer = make_trainer(scheme, seed=seed)
        trainer.initialize()
        digests.append(weights_sha256(trainer.network))
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_covers_names_shapes_types_and_bytes() -> None:
    def digest(weight: torch.Tensor, name: str = "w") -> str:
        module = torch.nn.Module()
        module.register_buffer(name, weight)
        return weights_sha256(module)

    weight = torch.arange(6, dtype=torch.float32)
    assert digest(weight) == digest(weight.clone())
    others = [
        digest(weight, "v"),
        digest(weight.reshape(2, 3)),
        digest(weight.view(torch.int32)),
        digest(torch.nextafter(weight, torch.tensor(9.0))),
    ]
    assert len({digest(weight), *others}) == 5
    assert digest(weight.reshape(2, 3).T) == digest(weight.reshape(2, 3).T.contiguous())


@pytest.mark.parametrize(("poisoned", "what"), [("loss", "training loss is"), ("weights", "weights are")])
def test_numbers_that_are_none_end_a_training(make_trainer: MakeTrainer, poisoned: str, what: str) -> None:
    class Poisoned(Notes):
        def iteration_done(self, report: IterationReport) -> None:
            if report.iteration == at:
                with torch.no_grad():
                    next(trainer.network.parameters()).fill_(math.nan)

    # After the epoch's last step the losses are still fine.
    at = {"loss": 1, "weights": 3}[poisoned]
    trainer = make_trainer(observer=Poisoned(), training={"epochs": 1, "iterations_per_epoch": 4})
    with pytest.raises(TrialFailedError, match=f"{what} not finite in epoch 0; lower the learning rate"):
        trainer.run_training()
    assert not list(Path(trainer.output_folder).glob("*.pth"))

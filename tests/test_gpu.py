"""Trainings on a GPU: captured steps do what nnU-Net's own do, and all around them holds. `make gpu` runs them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prepared import FLAT_2D, MakeTrainer, spec_of, train, workplace, write_variant
from references import kill_and_resume, resumed_from
from test_trainer import Notes

from study.common.errors import InfeasibleTrialError
from study.common.machine import MachineShare
from study.nnunet.cuda_steps import CudaSteps
from study.nnunet.datasets import data_paths
from study.nnunet.steps import StockSteps
from study.nnunet.trainer import nnUNetTrainerPGPS
from study.run.trial import run_trial
from study.run.trial_host import Ending, TrialHost
from study.run.trial_process import FINISHED, TrialJob
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.readings import StageExecution
from study.store.specification import Energy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here; `make gpu` on a machine with one"),
]
# nnU-Net's optimizer: AdamW divides rounding errors by themselves in its first steps.
FIFTY = {"optimizer": "sgd", "epochs": 5, "iterations_per_epoch": 10, "validation_batches": 2}


class Watching(Notes):
    """Keeps losses, reports, and how stages were run."""

    def __init__(self) -> None:
        super().__init__()
        self.executions: list[StageExecution] = []

    def stage_ready(self, execution: StageExecution) -> None:
        self.executions.append(execution)

    @property
    def losses(self) -> list[float]:
        return [float(report.loss) for report in self.iterations]


def trained(make: MakeTrainer, scheme: str = "pgps", *, like_nnunet: bool = False, **spec: Any) -> Watching:
    """A training on the GPU, by captured steps or by nnU-Net's own."""
    watching = Watching()
    trainer = make(scheme, observer=watching, device="cuda", **{"training": FIFTY, **spec})
    if like_nnunet:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("study.nnunet.trainer.make_steps", lambda trainer, announce: StockSteps(trainer))
            trainer.run_training()
    else:
        trainer.run_training()
    return watching


def relabelled(labels: dict[str, Any], *, order: tuple[int, ...] | None = None) -> Any:
    """Makes phantoms with an ignored border."""

    def ignore_a_border(array: Any) -> Any:
        changed = array.copy()
        changed[:12] = 3
        return changed

    return lambda data, root: {"variant": write_variant(root, data, labels, relabel=ignore_a_border, order=order)}


def two_dimensions(data: Path, root: Path) -> dict[str, Any]:
    flat = {"plans": "PlannedPlans", "configuration": FLAT_2D}
    whole = {"background": 0, "lump": 1}
    return {"variant": write_variant(root, data, whole, relabel=lambda a: (a > 0).astype(np.uint8), **flat), **flat}


KINDS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "plain": lambda data, root: {},
    "ignoring": relabelled({"background": 0, "body": 1, "bud": 2, "ignore": 3}),
    "regions": relabelled({"background": 0, "whole": [1, 2], "bud": 2, "ignore": 3}, order=(1, 2)),
    "two dimensions": two_dimensions,
    "one voxel": lambda data, root: {"scheme": "efficiency"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_captured_steps_train_what_nnunets_own_do(
    make_trainer: MakeTrainer, data: Path, tmp_path: Path, kind: str
) -> None:
    spec = KINDS[kind](data, tmp_path / "variant")
    captured, eager = trained(make_trainer, **spec), trained(make_trainer, like_nnunet=True, **spec)
    assert {row.mode for row in captured.executions} == {"captured"}
    assert [row.reason for row in captured.executions if row.reason] == []
    np.testing.assert_allclose(captured.losses, eager.losses, rtol=1e-3)
    for ours, theirs in zip(captured.epochs, eager.epochs, strict=True):
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=5e-3)
        assert ours.pseudo_dice == pytest.approx(theirs.pseudo_dice, abs=5e-3)


def test_every_stage_is_captured_once_and_random_order_keeps_them_all(make_trainer: MakeTrainer) -> None:
    growing = trained(make_trainer)
    stages = [row.stage for row in growing.executions if row.stage is not None]
    assert stages == sorted(set(stages)) == list(range(9))
    drawn = trained(make_trainer, "rpss")
    assert [row.stage for row in drawn.executions] == [*reversed(range(9)), None]
    eager = trained(make_trainer, "rpss", like_nnunet=True)
    np.testing.assert_allclose(drawn.losses, eager.losses, rtol=1e-3)


@pytest.mark.parametrize("scheme", ["cps", "pgps", "rpss"])
def test_memory_is_nnunets_own_within_a_tenth(make_trainer: MakeTrainer, scheme: str) -> None:
    def peak(**how: Any) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        trained(make_trainer, **how)
        return torch.cuda.max_memory_allocated()

    assert peak(scheme=scheme) <= 1.1 * peak(scheme="cps", like_nnunet=True)


def test_an_infinite_step_is_skipped_and_leaves_no_trace(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("cps", device="cuda", training=FIFTY)
    trainer.on_train_start()
    trainer.network.train()
    steps = CudaSteps(trainer, lambda _: None)
    batch = next(trainer.dataloader_train)
    steps.ready(0, batch, 0)
    before = [parameter.detach().clone() for parameter in trainer.network.parameters()]
    trainer.grad_scaler.load_state_dict({**trainer.grad_scaler.state_dict(), "scale": 2.0**100})
    assert math.isfinite(float(steps.train(0, batch)))
    for parameter, old in zip(trainer.network.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
    assert trainer.grad_scaler.get_scale() == 2.0**99
    trainer.grad_scaler.load_state_dict({**trainer.grad_scaler.state_dict(), "scale": 2.0**10})
    steps.train(0, batch)
    assert any(not torch.equal(p, old) for p, old in zip(trainer.network.parameters(), before, strict=True))
    assert all(bool(torch.isfinite(parameter).all()) for parameter in trainer.network.parameters())
    steps.close()


def test_a_loss_that_is_no_number_ends_the_training_within_its_epoch(make_trainer: MakeTrainer) -> None:
    class Poisoned(Watching):
        def iteration_done(self, report: Any) -> None:
            super().iteration_done(report)
            if report.iteration == 13:
                with torch.no_grad():
                    next(trainer.network.parameters()).fill_(math.nan)

    watching = Poisoned()
    trainer = make_trainer("cps", observer=watching, device="cuda", training=FIFTY)
    with pytest.raises(InfeasibleTrialError, match="training loss is not finite in epoch 1"):
        trainer.run_training()
    assert len(watching.epochs) == 1


class AskingLoss(torch.nn.Module):
    """A loss that waits for the GPU, which cannot be captured."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output: Any, target: Any) -> Any:
        found = self.loss(output, target)
        return found if found.item() < math.inf else found * 0


class Asking(nnUNetTrainerPGPS):
    def _build_loss(self) -> Any:
        return AskingLoss(super()._build_loss())


def test_what_cannot_be_captured_runs_eagerly_and_says_why(make_trainer: MakeTrainer) -> None:
    asking = trained(make_trainer, trainer=Asking)
    assert {row.mode for row in asking.executions} == {"eager"}
    assert all(row.reason.startswith("not captured: ") and row.autotuned for row in asking.executions)
    np.testing.assert_allclose(asking.losses, trained(make_trainer, like_nnunet=True).losses, rtol=1e-3)


def test_stages_compile_when_told_to(make_trainer: MakeTrainer) -> None:
    training = {**FIFTY, "compile_network": "always"}
    compiled = trained(make_trainer, stages=2, training=training)
    assert {row.mode for row in compiled.executions} == {"compiled and captured"}
    eager = trained(make_trainer, like_nnunet=True, stages=2)
    np.testing.assert_allclose(compiled.losses, eager.losses, rtol=5e-3)


def test_a_missing_compiler_is_a_note(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch._dynamo.reset()
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    training = {**FIFTY, "epochs": 1, "compile_network": "always"}
    watching = trained(make_trainer, stages=2, training=training)
    assert {row.mode for row in watching.executions} == {"captured"}
    assert all(row.reason.startswith("not compiled: ") for row in watching.executions)


def test_a_killed_training_goes_on_inside_its_stage_and_its_header_says_how_it_ran(data: Path, tmp_path: Path) -> None:
    ledger, spec = Ledger.create(tmp_path / "study"), spec_of(data_paths(data))
    folder = kill_and_resume(ledger, spec, data_paths(data), {"halt_at": 12}, device="cuda")
    assert resumed_from(folder) == [0, 8]
    assert [report.epoch for report in folder.epochs()] == [0, 1, 2]
    for header in folder.attempts():
        assert header.device == "cuda"
        assert header.execution
        assert {row.mode for row in header.execution} == {"captured"}


def test_the_energy_of_a_gpu_is_charged(data: Path, tmp_path: Path) -> None:
    ledger, spec = Ledger.create(tmp_path / "study"), spec_of(data_paths(data))
    place = workplace(data_paths(data), device="cuda", energy=Energy())
    trial = run_trial(spec, ledger, place)
    assert trial.result.iterations == spec.curriculum.total_iterations
    (header,) = trial.folder.attempts()
    assert header.meter.methods["gpu"].startswith("measured"), header.meter
    assert sum(interval.gpu_kwh or 0.0 for interval in trial.folder.cost_intervals()) > 0
    charged = bill(trial.folder.attempts(), trial.folder.cost_intervals()).total
    assert charged.energy_kwh is not None
    assert charged.energy_kwh > 0


def test_two_trainings_share_a_gpu(data: Path, tmp_path: Path) -> None:
    paths, ledger = data_paths(data), Ledger.create(tmp_path / "study")
    folders = [ledger.add(spec_of(paths, seed=seed)) for seed in (0, 1)]
    resources = MachineShare(device="cuda", cpus=1, gpus=0.5, data_workers=1, concurrent_trials=2)
    shared = replace(workplace(paths), resources=resources)
    job = TrialJob(study=ledger.root, trial_id="", workplace=shared, stop_file=tmp_path / "stop")
    endings: list[Ending] = []

    def run(folder: Any) -> None:
        with TrialHost(stall_seconds=300) as host:
            endings.append(host.run(replace(job, trial_id=folder.trial_id), folder.log_path))

    threads = [threading.Thread(target=run, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ending.code for ending in endings] == [FINISHED, FINISHED]
    assert all(folder.result() is not None for folder in folders)


def test_a_checkpoint_changes_device(data: Path, tmp_path: Path) -> None:
    paths, ledger = data_paths(data), Ledger.create(tmp_path / "study")
    for optimizer in ("sgd", "adamw"):
        spec = spec_of(paths, training={"optimizer": optimizer})
        train(spec, ledger, workplace(paths), after=8)
        train(spec, ledger, workplace(paths, device="cuda"), after=16)
        folder = train(spec, ledger, workplace(paths))
        assert resumed_from(folder) == [0, 8, 16]
        assert [header.device for header in folder.attempts()] == ["cpu", "cuda", "cpu"]

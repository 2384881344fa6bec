"""What captured steps rest on, where a CPU can show it: nnU-Net's counts and losses, optimizers that change device,
kernels that a second process finds compiled. The steps themselves are tested on a GPU (`test_gpu`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from study.nnunet.steps import Compiler, hits, read_losses, use_compile_cache, without_branches
from study.nnunet.torch_tools import all_finite, make_optimizer
from study.store.readings import CACHE_VARIABLE
from study.store.specification import TrainingSettings

PLAIN = {"background": 0, "one": 1, "two": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
IGNORED = 3


def labels_of(*, regions: bool, ignored: bool) -> LabelManager:
    names: dict[str, Any] = {**(REGIONS if regions else PLAIN), **({"ignore": IGNORED} if ignored else {})}
    return LabelManager(names, [1, 2] if regions else None)


def batch_of(labels: LabelManager, shape: tuple[int, ...], *, all_ignored: bool = False) -> tuple[Any, Any]:
    """Logits and targets of two samples."""
    torch.manual_seed(0)
    logits = torch.randn(2, labels.num_segmentation_heads, *shape)
    if labels.has_regions:
        return logits, torch.rand(2, 2 + labels.has_ignore_label, *shape) > 0.6
    target = torch.randint(0, 3 + labels.has_ignore_label, (2, 1, *shape), dtype=torch.int16)
    return logits, torch.full_like(target, IGNORED) if all_ignored else target


@pytest.mark.parametrize("shape", [(6, 5, 4), (7, 5)])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_counts_are_those_of_nnunets_validation_step(regions: bool, ignored: bool, shape: tuple[int, ...]) -> None:
    labels = labels_of(regions=regions, ignored=ignored)
    logits, target = batch_of(labels, shape)
    stock = SimpleNamespace(
        device=torch.device("cpu"),
        network=lambda data: [logits],
        loss=lambda output, target: torch.tensor(0.0),
        enable_deep_supervision=True,
        label_manager=labels,
    )
    expected = nnUNetTrainer.validation_step(stock, {"data": torch.zeros(1), "target": [target.clone()]})
    for name, counted in zip(("tp_hard", "fp_hard", "fn_hard"), hits(logits, target, labels), strict=True):
        np.testing.assert_array_equal(counted.numpy(), expected[name])


@pytest.mark.parametrize("all_ignored", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_the_loss_with_an_ignored_label_is_nnunets_without_its_decision(deep: bool, all_ignored: bool) -> None:
    logits, target = batch_of(labels_of(regions=False, ignored=True), (6, 5, 4), all_ignored=all_ignored)
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    stock: Any = DC_and_CE_loss(dice, {}, ignore_label=IGNORED, dice_class=MemoryEfficientSoftDiceLoss)
    if deep:
        stock, logits, target = DeepSupervisionWrapper(stock, [0.8, 0.2]), [logits, -logits], [target, target]
    found = []
    for loss in (stock, without_branches(stock)):
        leaf = [tensor.clone().requires_grad_() for tensor in logits] if deep else logits.clone().requires_grad_()
        value = loss(leaf, target)
        value.backward()
        found.append((value.detach(), leaf[0].grad if deep else leaf.grad))
    (value, gradient), (value_without, gradient_without) = found
    torch.testing.assert_close(value_without, value)
    torch.testing.assert_close(gradient_without, gradient)
    assert torch.isfinite(value_without)


def test_losses_that_decide_nothing_stay_as_they_are() -> None:
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    for loss in (DC_and_CE_loss(dice, {}), DC_and_BCE_loss({}, dice, use_ignore_label=True), torch.nn.MSELoss()):
        assert without_branches(loss) is loss
        deep = DeepSupervisionWrapper(loss, [1.0])
        assert without_branches(deep) is deep


def test_losses_are_read_in_their_order_wherever_they_are_and_one_that_is_no_number_is_found() -> None:
    losses = [0.5, torch.tensor(1.5), 2.5, torch.tensor(3.5)]
    assert read_losses(losses) == [0.5, 1.5, 2.5, 3.5]
    assert read_losses([]) == []
    fine = torch.ones(3)
    assert all_finite([fine, fine])
    for bad in (float("nan"), float("inf")):
        assert not all_finite([fine, torch.tensor([1.0, bad])])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_optimizer_keeps_its_kernels_when_it_loads_another_devices_state(optimizer: Any) -> None:
    settings = TrainingSettings(optimizer=optimizer).resolved(constant_patch_size=True)

    def stepped(fused: bool) -> Any:
        weight = torch.nn.Parameter(torch.ones(4))
        made = make_optimizer(settings, [weight], fused=fused)
        weight.grad = torch.arange(4.0)
        made.step()
        return made

    for fused in (False, True):
        loader, state = stepped(fused), stepped(not fused).state_dict()
        loader.load_state_dict(state)
        assert bool(loader.param_groups[0]["fused"]) is fused
        assert loader.param_groups[0]["lr"] == settings.initial_learning_rate
        loader.step()


COMPILE = """
import sys
from pathlib import Path
import torch
from torch._dynamo.utils import counters
from study.nnunet.steps import Compiler, use_compile_cache
use_compile_cache(Path(sys.argv[1]))
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.InstanceNorm3d(4, affine=True))
compiler = Compiler(network, torch.nn.MSELoss, shapes=2)
for size in (4, 6):
    output = compiler.network(torch.ones(1, 1, size, size, size))
    compiler.loss(output, torch.zeros_like(output)).backward()
found = counters["inductor"]
print(found["fxgraph_cache_miss"], found["fxgraph_cache_hit"])
"""


@pytest.mark.cluster
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    def compile_all() -> tuple[int, int]:
        command = [sys.executable, "-c", COMPILE, str(tmp_path / "cache")]
        # The cache of whole autograd graphs would answer before that of their kernels is asked.
        environment = {**os.environ, "TORCHINDUCTOR_AUTOGRAD_CACHE": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        missed, hit = done.stdout.split()
        return int(missed), int(hit)

    missed, _ = compile_all()
    assert missed == 4  # forward and backward at two shapes
    assert compile_all() == (0, missed)


def test_compiling_that_failed_is_not_tried_again_in_this_training_but_memory_is_an_error() -> None:
    compiler, tries = Compiler(torch.nn.Identity(), torch.nn.MSELoss, shapes=1), []

    def fail(network: Any, loss: Any) -> None:
        tries.append(network)
        raise [MemoryError(), RuntimeError("no\ncompiler")][len(tries) - 1]

    with pytest.raises(MemoryError):
        compiler.tried(fail)
    for _ in range(2):
        assert compiler.tried(fail) is None
        assert compiler.broken == "RuntimeError: no compiler"
    assert len(tries) == 2


@pytest.fixture
def without_cache_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    # Set first, so that what the test sets is taken back.
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return monkeypatch


def test_kernels_lie_in_the_users_cache_unless_somebody_says_otherwise(
    without_cache_variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setenv = without_cache_variables.setenv
    home = tmp_path / "home" / ".cache" / "pgps-study" / "inductor"
    assert use_compile_cache(None) == home
    assert os.environ[CACHE_VARIABLE] == str(home)
    assert home.stat().st_mode & 0o077 == 0
    setenv(CACHE_VARIABLE, str(tmp_path / "said"))
    assert use_compile_cache(None) == tmp_path / "said"
    assert use_compile_cache(tmp_path / "given") == tmp_path / "given"
    setenv(CACHE_VARIABLE, "")
    setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert use_compile_cache(None) == tmp_path / "xdg" / "pgps-study" / "inductor"


@pytest.mark.parametrize("owner", [None, 12345])
def test_a_cache_that_cannot_be_trusted_is_not_used(
    without_cache_variables: pytest.MonkeyPatch, tmp_path: Path, owner: int | None
) -> None:
    """A file in the way, or somebody else's folder."""
    if owner is None:
        (tmp_path / "cache").write_text("in the way", encoding="utf-8")
    elif os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    else:
        (tmp_path / "cache").mkdir()
        os.chown(tmp_path / "cache", owner, owner)
    chosen = use_compile_cache(tmp_path / "cache")
    assert chosen != tmp_path / "cache"
    assert chosen.stat().st_uid == os.getuid()
    chosen.rmdir()

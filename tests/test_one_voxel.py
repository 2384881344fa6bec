"""The follow-up's first stage, one voxel at the bottleneck: it trains, resumes, and changes nothing elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import FLAT_2D, FULL, MakeTrainer, model_folder, plans_document, spec_of, train, workplace
from references import assert_same_training, reference_of, resumed_from

from study.nnunet.datasets import data_paths
from study.nnunet.plans import plan_from_document
from study.nnunet.torch_tools import allow_one_voxel
from study.store.ledger import Ledger

KINDS = (torch.nn.InstanceNorm1d, torch.nn.InstanceNorm2d, torch.nn.InstanceNorm3d)


@pytest.mark.parametrize(("axes", "kind"), enumerate(KINDS, start=1))
@pytest.mark.parametrize("affine", [True, False])
def test_one_voxel_gives_the_bias_and_no_gradient_to_what_came_before(axes: int, kind: Any, affine: bool) -> None:
    norm = kind(3, affine=affine)
    if affine:
        torch.nn.init.normal_(norm.bias)
    batch = torch.randn(2, 3, *[1] * axes, requires_grad=True)
    with pytest.raises(ValueError, match="Expected more than 1 spatial element"):
        norm(batch)
    allow_one_voxel(norm)
    out = norm(batch)
    expected = norm.bias if affine else torch.zeros(3)
    # To rounding: torch scales before it subtracts, and the scale is 1 / sqrt(eps).
    assert torch.allclose(out, expected.reshape(1, 3, *[1] * axes).expand_as(out), atol=1e-3)
    out.square().sum().backward()
    assert torch.allclose(batch.grad, torch.zeros_like(batch), atol=1e-3)
    if affine:
        assert torch.allclose(norm.bias.grad, 4 * norm.bias, atol=1e-2)


@pytest.mark.parametrize(("axes", "kind"), enumerate(KINDS, start=1))
def test_more_voxels_come_out_bit_for_bit_as_before(axes: int, kind: Any) -> None:
    norm, batch = kind(4, affine=True), torch.randn(2, 4, *[5] * axes, requires_grad=True)
    before = norm(batch)
    (slope,) = torch.autograd.grad(before.square().sum(), batch)
    allow_one_voxel(norm)
    after = norm(batch)
    assert torch.equal(before, after)
    assert torch.equal(slope, torch.autograd.grad(after.square().sum(), batch)[0])
    assert isinstance(norm, kind)
    assert list(norm.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize(("scheme", "changed"), [("pgps", False), ("efficiency", True)])
def test_only_trainings_with_such_a_stage_are_touched(make_trainer: MakeTrainer, scheme: str, changed: bool) -> None:
    trainer = make_trainer(scheme)
    trainer.initialize()
    norms = [module for module in trainer.network.modules() if isinstance(module, KINDS)]
    assert norms
    assert all((type(norm) not in KINDS) is changed for norm in norms)


def test_it_trains_through_that_stage_and_resumes_within_it(data: Path, tmp_path: Path) -> None:
    """In two dimensions, with several crops from one volume."""
    paths = data_paths(data)
    length = {"epochs": 2, "iterations_per_epoch": 3, "validation_batches": 1}
    spec = spec_of(paths, "performance", plans="PlannedPlans", configuration=FLAT_2D, training=length, stages=2)
    first = spec.curriculum.stages[0]
    assert first.patch_size == spec.curriculum.geometry.divisors
    assert first.iterations == 3
    reference = reference_of(spec, paths, tmp_path / "reference")
    ledger = Ledger.create(tmp_path / "study")
    train(spec, ledger, workplace(paths), after=2)
    folder = train(spec, ledger, workplace(paths))
    assert resumed_from(folder) == [0, 2]
    assert_same_training(folder, reference)
    assert (model_folder(folder) / "checkpoint_final.pth").is_file()


def test_batch_norm_takes_one_voxel_as_it_is(data: Path) -> None:
    document = plans_document(data)
    network = document["configurations"][FULL]["architecture"]["arch_kwargs"]
    network["norm_op"] = "torch.nn.modules.batchnorm.BatchNorm3d"
    geometry = plan_from_document(document, document["configurations"], FULL).geometry
    assert geometry.processable(geometry.divisors)

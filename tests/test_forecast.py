"""How long a training takes is told before it starts, and telling it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import spec_of

from study.nnunet.datasets import data_paths
from study.run.progress import FOR_A_CPU, training_seconds, unknown, words


def test_a_forecast_leaves_weights_and_random_state_alone(make_trainer: Any) -> None:
    trainer = make_trainer("pgps")
    trainer.initialize()
    weights = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    state, curriculum = torch.get_rng_state(), trainer.job.curriculum
    whole = training_seconds(trainer, curriculum, 0)
    assert whole > 0
    assert training_seconds(trainer, curriculum, curriculum.total_iterations) == 0
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainer.network.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("seconds", "warned"), [(90.0, False), (86_400.0, False), (1_000_000.0, True)])
def test_days_on_a_cpu_are_warned_of(seconds: float, warned: bool) -> None:
    assert words(90.0).startswith("the training takes about 0:01:30 here")
    assert (FOR_A_CPU in words(seconds)) is warned


@pytest.mark.parametrize(
    ("axes", "iteration", "said"),
    [
        ({}, 0, "24 iterations to go, 9 stages, "),
        ({}, 20, "4 iterations to go, 9 stages, "),
        ({"scheme": "cps"}, 0, "24 iterations to go, 1 stage, 100% of the voxels "),
        ({"scheme": "rpss"}, 0, "24 iterations to go, 9 stages, "),
    ],
)
def test_on_a_gpu_the_work_is_told_and_no_time_is_made_up(data: Path, axes: Any, iteration: int, said: str) -> None:
    curriculum = spec_of(data_paths(data), **axes).curriculum
    told = unknown(curriculum, iteration)
    assert told.startswith(said) and f"{curriculum.voxel_share:.0%} of the voxels" in told
    assert "not known" in told and "\n" not in told

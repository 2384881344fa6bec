"""How long a training takes is told before it starts, and telling it changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from study.forecast import FOR_A_CPU, training_seconds, words


def test_a_forecast_leaves_weights_and_random_state_alone(make_trainer: Any) -> None:
    trainer = make_trainer("pgps")
    trainer.initialize()
    weights = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    state, curriculum = torch.get_rng_state(), trainer.task.curriculum
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

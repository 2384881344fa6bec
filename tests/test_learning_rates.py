"""Learning rates are those of nnU-Net's and PyTorch's own schedulers, and a function of the iteration alone."""

from __future__ import annotations

import math
import shlex
from typing import Any

import pytest
import torch
from examples import HIPPOCAMPUS, make_spec
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.lr_scheduler.warmup import Lin_incr_LRScheduler, PolyLRScheduler_offset

from study.__main__ import main
from study.curriculum.curriculum import Curriculum, resolve
from study.curriculum.schemes import named_axes
from study.store.training_settings import LEARNING_RATE_SCHEDULES, LearningRates, TrainingSettings, scheduled_share

EPOCHS, EACH = 10, 20
TOTAL = EPOCHS * EACH


def settings(schedule: str = "poly", **more: Any) -> TrainingSettings:
    made = TrainingSettings(learning_rate_schedule=schedule, epochs=EPOCHS, iterations_per_epoch=EACH, **more)
    return made.resolved(constant_patch_size=False)


def curriculum(scheme: str = "pgps+", **axes: Any) -> Curriculum:
    return resolve(HIPPOCAMPUS, named_axes(scheme, **axes), epochs=EPOCHS, iterations_per_epoch=EACH)


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)


def rates(made: TrainingSettings) -> list[float]:
    rate = LearningRates(made, curriculum("cps"))
    return [rate(iteration) for iteration in range(TOTAL)]


@pytest.mark.parametrize("exponent", [0.9, 0.0, 2.5])
def test_poly_is_nnunets_bit_for_bit(exponent: float) -> None:
    stepped = optimizer()
    stock = PolyLRScheduler(stepped, 1e-2, EPOCHS, exponent)
    wanted = []
    for epoch in range(EPOCHS):
        stock.step(epoch)
        wanted += [stepped.param_groups[0]["lr"]] * EACH
    assert rates(settings(learning_rate_exponent=exponent)) == wanted


def test_warm_up_is_nnunets_by_iterations() -> None:
    stepped, rising, wanted = optimizer(), TOTAL // 20, []
    up, down = Lin_incr_LRScheduler(stepped, 1e-2, rising), PolyLRScheduler_offset(stepped, 1e-2, TOTAL, rising)
    for iteration in range(TOTAL):
        (up if iteration < rising else down).step(iteration)
        wanted.append(stepped.param_groups[0]["lr"])
    assert rates(settings("warmup")) == pytest.approx(wanted)


def test_cosine_and_one_cycle_are_pytorchs() -> None:
    for schedule in ("cosine", "one-cycle"):
        stepped, wanted = optimizer(), []
        stock: Any = torch.optim.lr_scheduler.CosineAnnealingLR(stepped, T_max=TOTAL)
        if schedule == "one-cycle":
            stock = torch.optim.lr_scheduler.OneCycleLR(stepped, 1e-2, total_steps=TOTAL)
        for _ in range(TOTAL):
            wanted.append(stepped.param_groups[0]["lr"])
            stepped.step()
            stock.step()
        assert rates(settings(schedule)) == pytest.approx(wanted, abs=1e-12)


@given(st.sampled_from(LEARNING_RATE_SCHEDULES), st.integers(1, 500), st.floats(0, 10), st.data())
def test_a_share_is_from_0_to_1_however_short_the_training(
    schedule: str, total: int, exponent: float, data: st.DataObject
) -> None:
    epochs = data.draw(st.sampled_from([n for n in range(1, total + 1) if total % n == 0]))
    made = TrainingSettings(learning_rate_schedule=schedule, learning_rate_exponent=exponent, epochs=epochs)
    shares = [scheduled_share(made, iteration, total) for iteration in range(total)]
    assert all(0 <= share <= 1 for share in shares)
    assert max(shares) > 0.9 or schedule == "one-cycle"


@pytest.mark.parametrize(("scaling", "exponent"), [("none", 0.0), ("sqrt", 0.5), ("linear", 1.0)])
@pytest.mark.parametrize("scheme", ["pgps+", "rpss"])
def test_a_larger_batch_scales_the_rate(scheme: str, scaling: str, exponent: float) -> None:
    of_stages = curriculum(scheme, batch_growth="stepwise")
    scaled, plain = (LearningRates(settings(learning_rate_scaling=name), of_stages) for name in (scaling, "none"))
    larger = [of_stages.stage_at(iteration).batch_size / 9 for iteration in range(TOTAL)]
    assert max(larger) > 2
    for iteration, share in enumerate(larger):
        assert scaled(iteration) == pytest.approx(plain(iteration) * share**exponent)


def test_the_rate_is_set_where_the_optimizer_takes_it() -> None:
    stepped, made = optimizer(), settings("cosine")
    setter = LearningRates(made, curriculum("cps"), stepped)
    # Makes groups of its own, as a checkpoint does.
    stepped.load_state_dict(stepped.state_dict())
    for iteration in (0, 7, TOTAL - 1):
        setter.at(iteration)
        assert stepped.param_groups[0]["lr"] == pytest.approx(1e-2 * (1 + math.cos(math.pi * iteration / TOTAL)) / 2)
    setter.step(3)
    assert stepped.param_groups[0]["lr"] == setter(3 * EACH)


def test_what_decides_nothing_names_no_trial() -> None:
    def name(scheme: str = "pgps+", **training: Any) -> str:
        return make_spec(scheme, training=training).trial_id

    assert name() == name(learning_rate_schedule="poly", learning_rate_exponent=0.9, learning_rate_scaling="none")
    assert name(learning_rate_exponent=1.0) != name()
    cosine = name(learning_rate_schedule="cosine")
    assert cosine == name(learning_rate_schedule="cosine", learning_rate_exponent=2.0) != name()
    assert name(learning_rate_schedule="warmup") != name(learning_rate_schedule="warmup", learning_rate_exponent=2.0)
    assert name("pgps") == name("pgps", learning_rate_scaling="linear")
    assert len({name(learning_rate_scaling=scaling) for scaling in ("none", "sqrt", "linear")}) == 3


def test_plan_shows_the_rate_of_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split("plan --patch-size 40 56 40 --divisors 8 8 8 --batch-size 9 --scheme pgps+")
    given = ["--learning-rate-schedule", "cosine", "--learning-rate-scaling", "linear"]
    assert main([*words, *given]) == 0
    first = next(line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["1"])
    assert first[-2:] == ["0.027", "0.026"]
    assert main(words) == 0
    assert "learning rate" not in capsys.readouterr().out

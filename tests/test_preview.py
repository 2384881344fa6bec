"""What trials will cost before they are trained, from made-up ones whose time is a constant and so much a voxel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples import HEADER, METER, complete, make_interval
from searching import lookup, space_of

from study.cli.dry_run import show
from study.common.errors import InvalidInputError
from study.search.trials import specs
from study.store.ledger import Ledger
from study.store.preview import LEAST_FOR_ERRORS, errors, preview, trained_in, trust
from study.store.records import Phase
from study.store.specification import TrialSpec

SCHEMES = ["cps", "pgps", "pgps+", "rpss", "efficiency", "performance"]
SPACE: dict[str, Any] = {
    "searcher": "grid",
    "trials": None,
    "folds": [0],
    "objectives": None,
    "curriculum": {"scheme": SCHEMES, "budget": [0.5, 1]},
    "training": {"epochs": 10},
}


def spec_of(scheme: str, budget: float) -> TrialSpec:
    (spec,) = specs(space_of(**SPACE), {"curriculum.scheme": scheme, "curriculum.budget": budget}, lookup)
    return spec


def seconds_of(voxels: int, scale: float = 1.0) -> float:
    return scale * (0.05 + 1e-7 * voxels)


def train(ledger: Ledger, spec: TrialSpec, *, gpu: str = "Some GPU", scale: float = 1.0, measured: bool = True) -> None:
    folder = ledger.add(spec)
    folder.begin_attempt(replace(HEADER, cpus=16.0, gpu_names=(gpu,), meter=METER))
    for number, stage in enumerate(spec.curriculum.stages):
        seconds = seconds_of(stage.voxels_per_iteration, scale) * stage.iterations
        start = stage.first_iteration
        energy = dict.fromkeys(("cpu_kwh", "gpu_kwh", "ram_kwh"), 1e-4 * seconds if measured else None)
        row = make_interval(start, start + stage.iterations, stage=number, **energy)
        folder.append_cost(replace(row, seconds=seconds))
    total = spec.curriculum.total_iterations
    row = make_interval(total, total, phase=Phase.ONLINE_VALIDATION, stage=None)
    folder.append_cost(replace(row, seconds=scale * 0.1 * spec.training.epochs * spec.training.validation_batches))
    complete(folder)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "study", space=space_of(**SPACE).identity())


@pytest.mark.parametrize(("scheme", "budget"), [("pgps", 1.0), ("pgps+", 0.5), ("rpss", 1.0), ("performance", 1.0)])
def test_shapes_that_were_trained_cost_what_they_did_and_others_are_placed_by_voxels(
    ledger: Ledger, scheme: str, budget: float
) -> None:
    for name in ("cps", "efficiency"):
        train(ledger, spec_of(name, 1.0))
    spec = spec_of(scheme, budget)
    found = preview(spec, trained_in([ledger], spec))
    stages = sum(seconds_of(stage.voxels_per_iteration) * stage.iterations for stage in spec.curriculum.stages)
    validation = 0.1 * spec.training.epochs * spec.training.validation_batches
    seconds, energy, carbon = found.amounts
    assert seconds == pytest.approx(stages + validation, rel=1e-6)
    assert carbon == pytest.approx((energy or 0) * METER.carbon_intensity_kg_per_kwh * METER.pue)
    assert (found.placed > 0) is (scheme in ("pgps+", "performance"))


def test_energy_that_is_unmeasured_stays_so(ledger: Ledger) -> None:
    train(ledger, spec_of("cps", 1.0), measured=False)
    spec = spec_of("cps", 0.5)
    assert preview(spec, trained_in([ledger], spec)).amounts[1:] == (None, None)


def test_what_a_preview_is_worth_is_measured_on_the_trials_themselves(ledger: Ledger) -> None:
    for number, scheme in enumerate(("cps", "pgps", "efficiency", "pgps+")):
        train(ledger, spec_of(scheme, 1.0), scale=1.0 + 0.2 * (number == 3))
        known = trained_in([ledger], spec_of("cps", 1.0))
        assert ("too few to say" in trust(known)) is (number + 1 < LEAST_FOR_ERRORS)
    assert max(errors(known)) == pytest.approx(1 - 1 / 1.2, abs=0.05)
    assert trust(known).startswith("by 4 finished trials on cuda: Some GPU, 16 CPUs; each of them predicted")


@pytest.mark.parametrize(
    ("gpus", "received"),
    [([], "no finished trial of them"), (["H100", "A100"], "cuda: A100, 16 CPUs; cuda: H100, 16 CPUs")],
)
def test_costs_are_not_carried_from_one_kind_of_hardware_to_another(
    ledger: Ledger, gpus: list[str], received: str
) -> None:
    for budget, gpu in zip((0.5, 1.0), gpus, strict=False):
        train(ledger, spec_of("cps", budget), gpu=gpu)
    with pytest.raises(InvalidInputError, match=f"--costs-from: received '{received}', legal is studies of one kind"):
        trained_in([ledger], spec_of("pgps", 1.0))


@pytest.mark.parametrize(
    ("searcher", "said"),
    [
        (
            {},
            [
                "cost: about 0:",
                "12 trials\ntogether about ",
                "Dataset001_Brain: by 2 finished trials on cuda: Some GPU",
            ],
        ),
        (
            {"searcher": "pareto", "trials": 50, "objectives": ["dice", "co2_kg"]},
            ["50 points proposed by pareto", "if points were drawn evenly (mean of 12 draws); training loops alone"],
        ),
    ],
)
def test_a_dry_run_says_what_a_study_will_cost(
    ledger: Ledger, searcher: dict[str, Any], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for scheme in ("cps", "efficiency"):
        train(ledger, spec_of(scheme, 1.0))
    show(space_of(**{**SPACE, **searcher}), lookup, [ledger.root])
    printed = capsys.readouterr().out
    assert all(each in printed for each in said)
    assert "None" not in printed

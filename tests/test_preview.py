"""What trials will cost before they are trained, from made-up ones whose time is a constant and so much a voxel."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples import HEADER, METER, complete, make_interval
from hypothesis import given
from hypothesis import strategies as st
from searching import lookup, space_of

from study.buckets.checkout import RemoteCheckout
from study.buckets.shared_ledger import study_ledger
from study.buckets.storage import place
from study.buckets.view import SCRATCH_VARIABLE, readings
from study.cli.costs import Sources, opened
from study.cli.run import show
from study.common.errors import InvalidInputError
from study.search.trials import specs
from study.store.calibration import FORMAT, Calibration, ShapeTiming, Timing, network_of
from study.store.ledger import Ledger
from study.store.preview import LEAST_FOR_ERRORS, Basis, basis_for, trained_in
from study.store.records import Phase
from study.store.specification import TrialSpec
from study.store.taken import Part, Shape

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


HARDWARE = "cuda: Some GPU, 16 CPUs"
REMEDY = "run `calibrate`, or name a study with --costs-from"


def basis_of(ledger: Ledger, spec: TrialSpec, *files: Calibration, hardware: str | None = HARDWARE) -> Basis:
    return basis_for(spec, trained_in([ledger], network_of(spec)), files, hardware=hardware, remedy=REMEDY)


def timing(seconds: float) -> dict[str, Any]:
    low, high = 0.9 * seconds, 1.2 * seconds
    return {"seconds": seconds, "low_seconds": low, "high_seconds": high, "count": 20, "energy_kwh": 1e-4 * seconds}


def calibration(spec: TrialSpec, shapes: list[Shape] | None = None, **changes: Any) -> Calibration:
    """A quarter slower than `train`."""
    sizes = shapes or [(stage.patch_size, stage.batch_size) for stage in spec.curriculum.stages]
    rows = tuple(
        ShapeTiming(patch_size=patch, batch_size=batch, **timing(seconds_of(math.prod(patch) * batch, 1.25)))
        for patch, batch in sizes
    )
    made = Calibration(
        format=FORMAT,
        network=network_of(spec),
        plans_sha256=spec.plans_sha256,
        hardware=HARDWARE,
        hostname="node",
        taken_at=1000.0,
        versions={},
        meter=METER,
        card_memory_bytes=80 * 2**30,
        setup=Timing(**timing(10.0)),
        validation=Timing(**timing(0.125)),
        final=Timing(**timing(60.0)),
        mirroring=True,
        shapes=rows,
        left_out=0,
        took_seconds=90.0,
    )
    return replace(made, **changes)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "study", space=space_of(**SPACE).identity())


@pytest.mark.parametrize(("scheme", "budget"), [("pgps", 1.0), ("pgps+", 0.5), ("rpss", 1.0), ("performance", 1.0)])
def test_shapes_that_were_trained_cost_what_they_did_and_others_are_placed(
    ledger: Ledger, scheme: str, budget: float
) -> None:
    for name in ("cps", "efficiency"):
        train(ledger, spec_of(name, 1.0))
    spec = spec_of(scheme, budget)
    found = basis_of(ledger, spec).preview(spec)
    stages = sum(seconds_of(stage.voxels_per_iteration) * stage.iterations for stage in spec.curriculum.stages)
    validation = 0.1 * spec.training.epochs * spec.training.validation_batches
    seconds, energy, carbon = found.amounts
    assert seconds == pytest.approx(stages + validation, rel=1e-3)
    assert carbon == pytest.approx((energy or 0) * METER.carbon_intensity_kg_per_kwh * METER.pue)
    assert (found.placed > 0) is (scheme in ("pgps+", "performance"))


def test_trials_too_short_to_time_a_size_tell_nothing(ledger: Ledger) -> None:
    short = space_of(**{**SPACE, "training": {"epochs": 1, "iterations_per_epoch": 4}})
    for budget in (0.5, 1.0):
        (spec,) = specs(short, {"curriculum.scheme": "cps", "curriculum.budget": budget}, lookup)
        train(ledger, spec)
    with pytest.raises(InvalidInputError, match="received 'trials that are too short', legal is 10 iterations of a si"):
        basis_of(ledger, spec)
    train(ledger, spec_of("cps", 1.0))
    assert basis_of(ledger, spec).preview(spec).amounts[0] > 0


def test_what_is_named_twice_counts_once(ledger: Ledger) -> None:
    assert len(opened([ledger.root, ledger.root / "." / ".." / "study"])[0]) == 1


def test_a_study_in_object_storage_counts_as_one_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCRATCH_VARIABLE, str(tmp_path / "scratch"))
    url, spec = f"file://{tmp_path}/bucket/study", spec_of("cps", 1.0)
    with study_ledger(url):
        checkout = RemoteCheckout(url, waits=False)
        ledger = Ledger.open(checkout.study)
        with checkout.checked_out(ledger.add(spec)):
            train(ledger, spec)
    with readings([place(url), place(f"{url}/")]) as found:
        [bucket], _ = opened(found)
        assert basis_of(bucket, spec).preview(spec).amounts == basis_of(ledger, spec).preview(spec).amounts


def test_energy_that_is_unmeasured_stays_so(ledger: Ledger) -> None:
    train(ledger, spec_of("cps", 1.0), measured=False)
    spec = spec_of("cps", 0.5)
    assert basis_of(ledger, spec).preview(spec).amounts[1:] == (None, None)


def test_what_a_preview_is_worth_is_measured_on_the_trials_themselves(ledger: Ledger) -> None:
    for number, scheme in enumerate(("cps", "pgps", "efficiency", "pgps+")):
        train(ledger, spec_of(scheme, 1.0), scale=1.0 + 0.2 * (number == 3))
        basis = basis_of(ledger, spec_of("cps", 1.0))
        assert ("too few" in basis.words()) is (number + 1 < LEAST_FOR_ERRORS)
    assert max(factor for factor, *_ in basis.factors) == pytest.approx(1.2, abs=0.05)
    assert basis.words().startswith("by 4 finished trials on cuda: Some GPU, 16 CPUs; each of them predicted")
    low, high = basis.interval or (0.0, 0.0)
    assert 0.9 < low < 1 < high == pytest.approx(1.13, abs=0.03)


def test_a_calibration_counts_until_enough_trials_have_finished_and_then_fills_in(ledger: Ledger) -> None:
    spec, dear = spec_of("pgps", 1.0), spec_of("pgps+", 1.0)
    file = calibration(dear)
    alone = basis_of(ledger, spec, calibration(spec))
    stages = sum(seconds_of(stage.voxels_per_iteration) * stage.iterations for stage in spec.curriculum.stages)
    validation = 0.1 * spec.training.epochs * spec.training.validation_batches
    assert alone.preview(spec).amounts[0] == pytest.approx(1.25 * (stages + validation), rel=1e-3)
    assert alone.preview(spec).total[0] == pytest.approx(1.25 * (stages + validation) + 70, rel=1e-3)
    assert alone.interval == pytest.approx((0.9, 1.2))
    for number, (scheme, budget) in enumerate((("cps", 1.0), ("pgps", 1.0), ("efficiency", 1.0), ("cps", 0.5))):
        train(ledger, spec_of(scheme, budget))
        basis = basis_of(ledger, spec, file)
        assert basis.by_trials is (number + 1 >= LEAST_FOR_ERRORS)
    # The pace is that of the trials, of which it shares the last stages.
    sizes = sum(seconds_of(stage.voxels_per_iteration) * stage.iterations for stage in dear.curriculum.stages)
    assert basis.preview(dear).amounts[0] == pytest.approx(sizes + validation, rel=0.02)
    assert basis.preview(dear).placed == 0


@pytest.mark.parametrize(
    ("changes", "hardware", "said"),
    [
        ({}, "cuda: Other GPU, 16 CPUs", "received 'those of cuda: Some GPU, 16 CPUs', legal is those of cuda: Other"),
        (
            {"plans_sha256": "0" * 64},
            HARDWARE,
            "received 'those of other plans of that name', legal is finished",
        ),
        ({"network": ("Dataset002_X", "p", "c")}, HARDWARE, "received 'none', legal is finished trials or a calibra"),
        (None, None, "received 'none', legal is finished trials or a calibration of Dataset001_Brain nnUNetPlans"),
    ],
)
def test_costs_are_not_carried_to_other_hardware_or_another_plan(
    ledger: Ledger, changes: dict[str, Any] | None, hardware: str | None, said: str
) -> None:
    spec = spec_of("cps", 0.5)
    files = [] if changes is None else [calibration(spec, **changes)]
    with pytest.raises(InvalidInputError, match=re.escape(f"costs: {said}")) as error:
        basis_of(ledger, spec, *files, hardware=hardware)
    assert str(error.value).endswith(REMEDY)


@pytest.mark.parametrize(("name", "value"), [("normalization", "batch"), ("augmentation_preset", "da5")])
def test_costs_are_not_carried_to_iterations_that_do_other_work(ledger: Ledger, name: str, value: str) -> None:
    known = spec_of("cps", 1.0)
    train(ledger, known)
    other = replace(known, training=replace(known.training, **{name: value}))
    with pytest.raises(InvalidInputError, match=f"calibration of .* {name}-{value}"):
        basis_of(ledger, other)
    assert basis_of(ledger, replace(known, training=replace(known.training, weight_decay=0.0))).words()


def test_of_unknown_hardware_one_kind_alone_is_taken(ledger: Ledger) -> None:
    spec = spec_of("pgps", 1.0)
    train(ledger, spec_of("cps", 0.5), gpu="H100")
    assert basis_of(ledger, spec, hardware=None).hardware == "cuda: H100, 16 CPUs"
    train(ledger, spec_of("cps", 1.0), gpu="A100")
    with pytest.raises(InvalidInputError, match="those of cuda: A100, 16 CPUs; cuda: H100, 16 CPUs"):
        basis_of(ledger, spec, hardware=None)


@given(scale=st.floats(1, 20), cpu=st.floats(0.01, 100), seconds=st.floats(0.01, 1000), stretch=st.floats(1, 5))
def test_a_neighbour_changes_neither_the_work_nor_its_power(
    scale: float, cpu: float, seconds: float, stretch: float
) -> None:
    alone = Part(count=3, seconds=cpu, energy_kwh=3e-4 * cpu, co2_kg=1e-4 * cpu, cpu_seconds=cpu, cpu_kwh=1e-4 * cpu)
    slowed = replace(alone, seconds=scale * cpu, energy_kwh=(1 + 2 * scale) * 1e-4 * cpu)
    slowed = replace(slowed, co2_kg=(slowed.energy_kwh or 0) / 3)
    one, other = alone.stretched(stretch), slowed.stretched(stretch)
    assert (one.seconds, one.energy_kwh, one.co2_kg) == pytest.approx((other.seconds, other.energy_kwh, other.co2_kg))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("searcher", "said"),
    [
        ({}, ["cost: about 0:", "12 trials\n", "together about ", "Dataset001_Brain: by 2 finished trials on cuda: S"]),
        (
            {"searcher": "pareto", "trials": 50, "objectives": ["dice", "co2_kg"]},
            ["50 points proposed by pareto", "if points were drawn evenly (mean of 12 draws); training loops"],
        ),
    ],
)
def test_a_dry_run_says_what_a_study_will_cost(
    ledger: Ledger, searcher: dict[str, Any], said: list[str], named: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for scheme in ("cps", "efficiency"):
        train(ledger, spec_of(scheme, 1.0))
    sources = Sources(ledgers=[ledger] * named, command="calibrate")
    show(space_of(**{**SPACE, **searcher}), lookup, sources)
    printed = capsys.readouterr().out
    assert all((each in printed) is named for each in said if "trials\n" not in each and "proposed" not in each)
    assert ("no costs are told: costs: received 'none'" in printed) is not named
    assert "None" not in printed

"""The bill of a trial, against sums done by hand.

In the examples one iteration takes a second and the node's meter shows 0.4 kWh of CPU, 0.1 of GPU and 0.2 of RAM. The
trial has a quarter of the node's cores and its own GPU: 0.1 + 0.1 + 0.05 = 0.25 kWh. At 0.05 kg/kWh and a PUE of 1.2
that is 0.015 kg.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from examples import HEADER, METER, make_interval
from hypothesis import given
from hypothesis import strategies as st

from study.store.costs import Bill, Charge, bill, total, unmeasured_reasons
from study.store.readings import OwnEnergy
from study.store.records import AttemptHeader, Phase

KWH_PER_ITERATION = 0.25
KG_PER_ITERATION = 0.015
RESUMED = replace(HEADER, attempt=1, resumed_from_iteration=50, started_at=2000.0)
# The first attempt dies after iteration 80, its last checkpoint is from iteration 50: 50 to 80 are trained twice.
CRASHED_AT_80 = [make_interval(0, 40), make_interval(40, 80), make_interval(50, 100, attempt=1)]


def energies(charge: Charge) -> tuple[float | None, ...]:
    return (charge.cpu_kwh, charge.gpu_kwh, charge.ram_kwh, charge.energy_kwh)


def test_one_attempt() -> None:
    whole = bill([HEADER], [make_interval(0, 60), make_interval(60, 100)])
    assert whole.training.seconds == 100
    assert energies(whole.training) == pytest.approx((10, 10, 5, 25))
    assert whole.training.co2_kg == pytest.approx(1.5)
    assert energies(whole.waste) == (0, 0, 0, 0)
    assert whole.waste.seconds == 0


def test_iterations_done_twice_are_cost_and_shown_as_waste() -> None:
    costs = bill([HEADER, RESUMED], CRASHED_AT_80)
    assert costs.training.seconds == 130
    assert costs.training.energy_kwh == pytest.approx(130 * KWH_PER_ITERATION)
    assert costs.training.co2_kg == pytest.approx(130 * KG_PER_ITERATION)
    assert costs.waste.seconds == pytest.approx(30)
    assert costs.waste.energy_kwh == pytest.approx(30 * KWH_PER_ITERATION)
    assert costs.waste.co2_kg == pytest.approx(30 * KG_PER_ITERATION)


def test_each_attempt_is_one_segment() -> None:
    first, second = bill([HEADER, RESUMED], CRASHED_AT_80).segments
    assert (first.iteration_start, first.iteration_stop, first.charge.seconds) == (0, 80, 80)
    assert (second.iteration_start, second.iteration_stop, second.charge.seconds) == (50, 100, 50)
    assert (first.started_at, first.ended_at) == (1000, 1080)
    assert (first.waste.seconds, second.waste.seconds) == (30, 0)
    assert second.header is RESUMED


def test_an_attempt_that_left_no_interval_is_a_segment_without_cost() -> None:
    killed = replace(RESUMED, resumed_from_iteration=0)
    (segment,) = bill([killed], []).segments
    assert (segment.iteration_start, segment.iteration_stop, segment.charge.seconds) == (0, 0, 0)
    assert segment.started_at == segment.ended_at == 2000


def test_a_checkpoint_lost_twice_wastes_both_attempts() -> None:
    again = replace(HEADER, attempt=2, resumed_from_iteration=20)
    intervals = [make_interval(0, 80), make_interval(50, 60, attempt=1), make_interval(20, 100, attempt=2)]
    costs = bill([HEADER, RESUMED, again], intervals)
    assert [segment.waste.seconds for segment in costs.segments] == pytest.approx([60, 10, 0])
    assert costs.training.seconds - costs.waste.seconds == pytest.approx(100)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=6), st.integers(1, 100))
def test_cost_less_waste_is_every_iteration_once(crashes: list[tuple[int, int]], length: int) -> None:
    """However often it dies (lost iterations, progress), what is not waste is the training from 0 to its end."""
    reached, headers, intervals = length, [HEADER], [make_interval(0, length)]
    for lost, progress in crashes:
        start = max(0, reached - lost)
        reached = start + progress
        headers.append(replace(HEADER, attempt=len(headers), resumed_from_iteration=start))
        intervals.append(make_interval(start, reached, attempt=len(headers) - 1))
    costs = bill(headers, intervals)
    assert costs.training.seconds - costs.waste.seconds == pytest.approx(reached)
    assert sum(segment.charge.seconds for segment in costs.segments) == costs.total.seconds


def test_phases_are_told_apart_and_only_the_training_loop_is_runtime() -> None:
    phases = [
        make_interval(0, 0, phase=Phase.SETUP, seconds=5.0),
        make_interval(0, 10),
        make_interval(10, 10, phase=Phase.ONLINE_VALIDATION, seconds=2.0),
        make_interval(10, 10, phase=Phase.FINAL_VALIDATION, seconds=20.0),
    ]
    costs = bill([HEADER], phases)
    assert {phase: charge.seconds for phase, charge in costs.by_phase.items()} == {
        Phase.SETUP: 5,
        Phase.TRAINING: 10,
        Phase.ONLINE_VALIDATION: 2,
        Phase.FINAL_VALIDATION: 20,
    }
    assert (costs.training.seconds, costs.total.seconds) == (12, 37)
    assert costs.segments[0].by_phase == costs.by_phase


@pytest.mark.parametrize(
    ("phase", "iteration", "wasted"),
    [
        (Phase.SETUP, 60, False),  # a process that starts anew must set up anew, whatever became of the last
        (Phase.ONLINE_VALIDATION, 50, False),
        (Phase.ONLINE_VALIDATION, 60, True),
        (Phase.FINAL_VALIDATION, 80, True),
    ],
)
def test_what_besides_training_is_wasted_by_a_restart(phase: Phase, iteration: int, wasted: bool) -> None:
    other = make_interval(iteration, iteration, phase=phase, seconds=3.0)
    costs = bill([HEADER, RESUMED], [*CRASHED_AT_80, other])
    assert costs.waste.seconds == pytest.approx(33 if wasted else 30)


def test_an_unmeasured_part_makes_the_sum_unmeasured_never_zero() -> None:
    costs = bill([HEADER, RESUMED], [make_interval(0, 50), make_interval(50, 100, attempt=1, gpu_kwh=None)])
    assert costs.training.seconds == 100
    assert energies(costs.training) == (pytest.approx(10), None, pytest.approx(5), None)
    assert costs.training.co2_kg is None
    first, second = costs.segments
    assert first.charge.energy_kwh == pytest.approx(50 * KWH_PER_ITERATION)
    assert (second.charge.energy_kwh, second.charge.co2_kg) == (None, None)


def test_waste_is_unmeasured_only_where_what_was_wasted_is() -> None:
    unmeasured_late = [make_interval(0, 40), make_interval(40, 80, cpu_kwh=None), make_interval(50, 100, attempt=1)]
    unmeasured_early = [make_interval(0, 40, cpu_kwh=None), make_interval(40, 80), make_interval(50, 100, attempt=1)]
    assert bill([HEADER, RESUMED], unmeasured_late).waste.energy_kwh is None
    assert bill([HEADER, RESUMED], unmeasured_early).waste.energy_kwh == pytest.approx(30 * KWH_PER_ITERATION)


def test_without_any_work_there_is_no_cost() -> None:
    assert total([]) == Charge(seconds=0, cpu_kwh=0, gpu_kwh=0, ram_kwh=0, co2_kg=0)


@pytest.mark.parametrize(
    ("header", "cpu", "gpu", "ram"),
    [
        (HEADER, 1.0, 1.0, 0.5),
        (replace(HEADER, cpus=16.0), 4.0, 1.0, 2.0),
        (replace(HEADER, cpus=64.0), 4.0, 1.0, 2.0),
        (replace(HEADER, gpus=0.5), 1.0, 0.5, 0.5),
        (replace(HEADER, gpus=2.0, gpu_ids=(0, 1)), 1.0, 1.0, 0.5),
        (replace(HEADER, gpus=0.0, gpu_ids=()), 1.0, 1.0, 0.5),
    ],
)
def test_energy_of_the_node_is_charged_by_share(header: AttemptHeader, cpu: float, gpu: float, ram: float) -> None:
    charge = bill([header], [make_interval(0, 10)]).total
    assert energies(charge) == pytest.approx((cpu, gpu, ram, cpu + gpu + ram))


def test_what_is_the_trials_own_is_charged_as_it_is_and_idle_power_said_apart() -> None:
    own = OwnEnergy(cpu_kwh=1.0, idle_cpu_kwh=0.25, gpu_kwh=3.0, ram_kwh=0.5)
    charge = bill([HEADER], [make_interval(0, 10, own=own), make_interval(10, 20, own=own)]).total
    assert energies(charge) == pytest.approx((2.5, 6.0, 1.0, 9.5))
    assert charge.idle_cpu_kwh == 0.5
    assert charge.co2_kg == pytest.approx(9.5 * 0.06)
    # Ledgers of before do not know it.
    assert bill([HEADER], [make_interval(0, 10)]).total.idle_cpu_kwh is None


def test_a_gpu_that_the_meter_could_not_name_is_unmeasured_in_ledgers_of_before_too() -> None:
    unnamed = replace(HEADER, gpu_ids=(), meter=replace(METER, methods={**METER.methods, "gpu": "absent"}))
    charge = bill([unnamed], [make_interval(0, 10, gpu_kwh=0.0)]).total
    assert (charge.gpu_kwh, charge.energy_kwh, charge.co2_kg) == (None, None, None)
    assert unmeasured_reasons([unnamed], []) == {"gpu": "NVML did not name the trial's card"}
    on_cpu = replace(unnamed, device="cpu")
    assert bill([on_cpu], [make_interval(0, 10, gpu_kwh=0.0)]).total.gpu_kwh == 0
    assert unmeasured_reasons([on_cpu], []) == {}


def test_reasons_come_from_headers_and_intervals_the_first_of_each_part() -> None:
    header = replace(HEADER, meter=replace(METER, reasons={"gpu": "no permission"}))
    intervals = [
        make_interval(0, 1, reasons={"ram": "first", "gpu": "later"}),
        make_interval(1, 2, reasons={"ram": "x"}),
    ]
    assert unmeasured_reasons([header], intervals) == {"gpu": "no permission", "ram": "first"}


@pytest.mark.parametrize(
    ("override", "kg"),
    [
        ({}, 25 * 0.05 * 1.2),
        ({"carbon_intensity_kg_per_kwh": 0.4}, 25 * 0.4 * 1.2),
        ({"pue": 1.0}, 25 * 0.05),
        ({"carbon_intensity_kg_per_kwh": 0.4, "pue": 2.0}, 25 * 0.8),
        ({"carbon_intensity_kg_per_kwh": 0.0}, 0.0),
    ],
)
def test_carbon_is_energy_times_intensity_times_pue(override: dict[str, float], kg: float) -> None:
    costs = bill([HEADER], [make_interval(0, 100)], **override)
    assert costs.total.co2_kg == pytest.approx(kg)
    assert costs.total.energy_kwh == pytest.approx(25)


def test_attempts_on_different_grids_keep_their_own_intensity() -> None:
    elsewhere = replace(RESUMED, meter=replace(METER, country="POL", carbon_intensity_kg_per_kwh=0.7, pue=1.0))
    costs = bill([HEADER, elsewhere], [make_interval(0, 50), make_interval(50, 100, attempt=1)])
    assert costs.total.co2_kg == pytest.approx(12.5 * 0.06 + 12.5 * 0.7)


def test_intervals_without_a_header_are_passed_over() -> None:
    with_stray: Bill = bill([HEADER], [make_interval(0, 10), make_interval(0, 10, attempt=5)])
    assert with_stray == bill([HEADER], [make_interval(0, 10)])

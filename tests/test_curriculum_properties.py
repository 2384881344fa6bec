"""What holds for every curriculum of every network, and what illegal input is answered with."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from examples import BRAIN, batches, sizes
from hypothesis import given, settings
from hypothesis import strategies as st

from study.common.errors import InvalidInputError
from study.curriculum.chain import CHAIN_ORDERS, CHAIN_STARTS, Geometry, patch_chain
from study.curriculum.curriculum import Curriculum, Stage, available_sizes, resolve, scaled_iterations_per_epoch
from study.curriculum.schemes import ALLOCATIONS, STAGE_ORDERS, Axes, named_axes


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    axes = draw(st.integers(1, 3))
    divisors = tuple(draw(st.integers(1, 40)) for _ in range(axes))
    return Geometry(
        patch_size=tuple(d * draw(st.integers(1, 7)) for d in divisors),
        divisors=divisors,
        batch_size=draw(st.integers(1, 12)),
        min_bottleneck_voxels=draw(st.integers(1, 3)),
    )


POINTS = st.builds(
    Axes,
    chain=st.sampled_from(CHAIN_ORDERS),
    chain_start=st.sampled_from(CHAIN_STARTS),
    min_patch=st.floats(0, 1),
    stages=st.none() | st.integers(1, 25),
    batch_growth=st.floats(0, 1) | st.just("stepwise"),
    shared_crops=st.booleans(),
    order=st.sampled_from(STAGE_ORDERS),
    cycles=st.integers(1, 4),
    budget=st.floats(0.1, 1),
    allocation=st.sampled_from(ALLOCATIONS),
)
LENGTHS = {"epochs": st.integers(1, 30), "iterations_per_epoch": st.integers(1, 25), "seed": st.integers(0, 2**63 - 1)}


@st.composite
def curricula(draw: st.DrawFn) -> tuple[Curriculum, Axes, dict[str, int]]:
    geometry, axes = draw(geometries()), draw(POINTS)
    length = {name: draw(values) for name, values in LENGTHS.items()}
    return resolve(geometry, axes, **length), axes, length


def cycles(curriculum: Curriculum, axes: Axes) -> list[tuple[Stage, ...]]:
    """Stages by cycle: in cyclic order each ends with the full patch."""
    if axes.order != "cyclic":
        return [curriculum.stages]
    full = [index for index, size in enumerate(sizes(curriculum), 1) if size == curriculum.geometry.patch_size]
    return [curriculum.stages[start:end] for start, end in itertools.pairwise([0, *full])]


@given(geometries(), st.sampled_from(CHAIN_ORDERS), st.sampled_from(CHAIN_STARTS))
def test_chains_grow_one_divisor_of_one_axis_at_a_time(geometry: Geometry, order: Any, start: Any) -> None:
    chain = patch_chain(geometry, order, start)
    assert chain[-1] == geometry.patch_size
    assert all(n % d == 0 and n > 0 for size in chain for n, d in zip(size, geometry.divisors, strict=True))
    if start == "trainable":
        assert all(map(geometry.processable, chain)) or chain == [geometry.patch_size]
    else:
        assert chain[0] == geometry.divisors
    for smaller, larger in itertools.pairwise(chain):
        steps = [(b - a) / d for a, b, d in zip(smaller, larger, geometry.divisors, strict=True)]
        assert sorted(steps) == [0] * (len(steps) - 1) + [1]


@given(curricula())
def test_stages_come_from_the_chain_and_end_where_they_should(drawn: Any) -> None:
    curriculum, axes, _ = drawn
    available = available_sizes(curriculum.geometry, axes)
    table, *more = [[stage.patch_size for stage in cycle] for cycle in cycles(curriculum, axes)]
    assert more == [table] * min(len(more), axes.cycles - 1)
    table = table[:: -1 if axes.order == "shrinking" else 1]
    assert table == [size for size in available if size in set(table)]
    assert table[-1] == curriculum.geometry.patch_size
    assert len(table) == 1 or table[0] == available[0]
    assert len(table) <= (axes.stages or len(available))


@given(curricula())
def test_iterations_sum_to_the_budget_and_follow_the_allocation(drawn: Any) -> None:
    curriculum, axes, length = drawn
    per_epoch = scaled_iterations_per_epoch(length["iterations_per_epoch"], axes.budget)
    counts = [stage.iterations for stage in curriculum.stages]
    assert sum(counts) == curriculum.total_iterations == length["epochs"] * per_epoch
    if curriculum.random_draws:
        return
    assert min(counts) >= 1
    if axes.allocation == "even":
        assert max(counts) - min(counts) <= 1
    else:
        for cycle in cycles(curriculum, axes):
            *early, last = [stage.iterations for stage in cycle]
            assert set(early) <= {(sum(early) + last) // per_epoch // len(cycle) * per_epoch}
        assert sum(map(len, cycles(curriculum, axes))) == len(counts)


@given(curricula())
def test_every_iteration_has_exactly_one_stage_and_the_table_says_which(drawn: Any) -> None:
    curriculum, _, _ = drawn
    looked_up = [curriculum.stage_index(i) for i in range(curriculum.total_iterations)]
    for index, stage in enumerate(curriculum.stages):
        first = looked_up.index(index) if index in looked_up else curriculum.total_iterations
        assert (stage.first_iteration, stage.iterations) == (first, looked_up.count(index))
    if not curriculum.random_draws:
        assert looked_up == sorted(looked_up)
    for outside in (-1, curriculum.total_iterations):
        with pytest.raises(InvalidInputError, match=f"iteration: received {outside}, legal is"):
            curriculum.stage_index(outside)


@given(curricula())
def test_batches_are_at_least_the_plans_and_stay_within_the_voxels_of_the_full_patch(drawn: Any) -> None:
    curriculum, axes, _ = drawn
    geometry = curriculum.geometry
    # Only the PGPS+ rule may exceed the plan's voxels: it ends at two samples even where the plan has one.
    largest = max(geometry.batch_size, 2 if axes.batch_growth == "stepwise" else 1)
    for stage in curriculum.stages:
        assert stage.batch_size >= geometry.batch_size
        assert stage.voxels_per_iteration <= largest * geometry.patch_voxels
        crops = math.ceil(stage.batch_size / geometry.batch_size)
        assert stage.crops_per_volume == (crops if axes.shared_crops else 1)
    assert 0 < curriculum.voxel_share <= largest / geometry.batch_size


@given(geometries())
def test_batch_growth_zero_keeps_the_batch_and_one_keeps_the_voxels(geometry: Geometry) -> None:
    constant, full = (resolve(geometry, Axes(batch_growth=growth)) for growth in (0.0, 1.0))
    assert set(batches(constant)) == {geometry.batch_size}
    for stage in full.stages:
        assert stage.batch_size == geometry.batch_size * geometry.patch_voxels // math.prod(stage.patch_size)


@given(geometries())
def test_the_pgps_plus_rule_never_drops_voxels_above_the_plans_batch(geometry: Geometry) -> None:
    stages = resolve(geometry, named_axes("pgps+")).stages
    for smaller, larger in itertools.pairwise(stages):
        at_floor = smaller.batch_size == max(geometry.batch_size, 2)
        assert at_floor or smaller.voxels_per_iteration <= larger.voxels_per_iteration


LEGAL_GEOMETRY: dict[str, Any] = {"patch_size": (64, 64), "divisors": (16, 16), "batch_size": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": (100, 64)}, "patch size, axis 0: received 100, legal is a multiple of the divisor 16"),
        ({"patch_size": (0, 64)}, "patch size, axis 0: received 0, legal is a whole number from 1 to 1000000"),
        ({"patch_size": (64, -16)}, "patch size, axis 1: received -16, legal is a whole number from 1"),
        ({"patch_size": (64.0, 64)}, "patch size, axis 0: received 64.0, legal is a whole number"),
        ({"patch_size": (64, True)}, "patch size, axis 1: received True, legal is a whole number"),
        ({"patch_size": ()}, "patch size: received (), legal is one to three whole numbers"),
        ({"patch_size": (64,) * 4}, "patch size: received (64, 64, 64, 64), legal is one to three whole numbers"),
        ({"patch_size": 64}, "patch size: received 64, legal is one to three whole numbers"),
        ({"patch_size": "64"}, "patch size: received '64', legal is one to three whole numbers"),
        ({"divisors": (16,)}, "divisors: received (16,), legal is one per axis of the patch (64, 64)"),
        ({"divisors": (16, 0)}, "divisors, axis 1: received 0, legal is a whole number from 1"),
        ({"batch_size": 0}, "batch size: received 0, legal is a whole number from 1"),
        ({"batch_size": 10**400}, "legal is a whole number from 1 to 1000000"),
        ({"min_bottleneck_voxels": 0}, "min_bottleneck_voxels: received 0, legal is"),
        (
            {"patch_size": (10**6, 10**6), "divisors": (1, 1)},
            "patch size: received (1000000, 1000000), legal is at most 10000 sizes above the divisors (1, 1)",
        ),
    ],
)
def test_illegal_geometry_names_field_value_and_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Geometry(**{**LEGAL_GEOMETRY, **changes})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chain": "spiral"}, "chain: received 'spiral', legal is one of cyclic, smallest-first"),
        ({"order": None}, "order: received None, legal is one of growing, shrinking, random"),
        ({"allocation": "odd"}, "allocation: received 'odd', legal is one of even, reference"),
        ({"min_patch": 1.01}, "min_patch: received 1.01, legal is a number from 0 to 1"),
        ({"min_patch": math.nan}, "min_patch: received nan, legal is a number from 0 to 1"),
        ({"min_patch": "0"}, "min_patch: received '0', legal is a number from 0 to 1"),
        ({"stages": 0}, "stages: received 0, legal is a whole number of at least 1"),
        ({"stages": 2.0}, "stages: received 2.0, legal is a whole number of at least 1"),
        ({"batch_growth": -0.1}, "batch_growth: received -0.1, legal is a number from 0 to 1, or the word 'stepwise'"),
        ({"batch_growth": "steps"}, "batch_growth: received 'steps', legal is a number from 0 to 1, or the word"),
        ({"shared_crops": 1}, "shared_crops: received 1, legal is true or false"),
        ({"budget": 0.05}, "budget: received 0.05, legal is a number from 0.1 to 1"),
        ({"budget": math.inf}, "budget: received inf, legal is a number from 0.1 to 1"),
        ({"pdl_fraction": 1.1}, "pdl_fraction: received 1.1, legal is a number from 0 to 1"),
        ({"pdl_fraction": True}, "pdl_fraction: received True"),
        ({"pdl_epochs": 0}, "pdl_epochs: received 0, legal is a whole number of epochs of at least 1, or a share"),
        *(({"pdl_epochs": n}, f"pdl_epochs: received {n!r}") for n in (0.0, 1.0, True, math.nan, "long")),
        ({"pdl_metric": "dice"}, "pdl_metric: received 'dice', legal is one of mse, psnr, ssim, uqi, mean-rank"),
    ],
)
def test_illegal_axes_name_field_value_and_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Axes(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"iterations_per_epoch": 0}, "iterations_per_epoch"),
        ({"iterations_per_epoch": 10**400}, "iterations_per_epoch"),
        ({"epochs": 10**6, "iterations_per_epoch": 250}, "epochs times iterations_per_epoch times budget"),
        ({"seed": -1}, "seed"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_illegal_lengths_name_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        resolve(BRAIN, named_axes("rpss"), **changes)
    assert caught.value.field == field


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers() | st.floats() | st.text(max_size=2), max_size=4),
)


FIELDS = {
    **dict.fromkeys(LEGAL_GEOMETRY | {"min_bottleneck_voxels": 1}, "geometry"),
    **dict.fromkeys(Axes.__dataclass_fields__, "axes"),
    **dict.fromkeys(LENGTHS, "length"),
}


@settings(max_examples=180)
@given(st.sampled_from(sorted(FIELDS)), JUNK)
def test_anything_else_is_refused_or_works(field: str, junk: Any) -> None:
    """No exception but InvalidInputError, whose message is one line, and no table without iterations."""
    given_by = {kind: {field: junk} if FIELDS[field] == kind else {} for kind in ("geometry", "axes", "length")}
    try:
        geometry, axes = Geometry(**{**LEGAL_GEOMETRY, **given_by["geometry"]}), Axes(**given_by["axes"])
        curriculum = resolve(geometry, axes, **given_by["length"])
    except InvalidInputError as error:
        assert "\n" not in str(error)
        assert error.legal
    else:
        assert sum(stage.iterations for stage in curriculum.stages) == curriculum.total_iterations >= 1


def test_a_geometry_from_lists_equals_one_from_tuples() -> None:
    assert Geometry(patch_size=[64, 64], divisors=[16, 16], batch_size=2) == Geometry(**LEGAL_GEOMETRY)  # type: ignore[arg-type]

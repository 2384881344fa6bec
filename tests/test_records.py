"""Records survive JSON, and a trial's identity is what decides its result, nothing more and nothing less."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from examples import EPOCH, HEADER, RESULT, make_interval, make_spec
from hypothesis import given
from hypothesis import strategies as st

from study.common.errors import InvalidInputError
from study.common.serialize import record_to_json, sha256_of_json
from study.curriculum.schemes import ALLOCATIONS, SCHEMES
from study.store.readings import NodeUse, OwnEnergy, StageExecution
from study.store.records import AttemptHeader, CostInterval, EpochReport, Phase
from study.store.results import TrialResult
from study.store.specification import TRIAL_ID_LENGTH, TrainingSettings, TrialSpec
from study.store.stored import record_from_json, records_from_lines


def through_json(record: Any) -> Any:
    return json.loads(json.dumps(record_to_json(record), allow_nan=False))


def read(kind: Any, data: Any) -> Any:
    if kind is TrialSpec:
        return TrialSpec.from_json(data)
    content = json.dumps(data).encode()
    record = record_from_json(kind, content)
    assert records_from_lines(kind, [content, content]) == [record, record]
    return record


# ----------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize(
    "record",
    [
        HEADER,
        replace(HEADER, execution=(StageExecution(stage=0, captured=True), StageExecution(stage=None, reason="why"))),
        EPOCH,
        RESULT,
        *(make_interval(3, 7, phase=phase) for phase in Phase),
        make_interval(0, 0, stage=None, cpu_kwh=None, gpu_kwh=None, ram_kwh=None),
        *(make_spec(scheme) for scheme in SCHEMES),
        make_spec("pgps", stages=3, min_patch=0.25, batch_growth=0.5, order="shrinking", budget=0.3),
        make_spec("cps", training={"optimizer": "adamw", "momentum": 0.8, "test_time_mirroring": False}),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_read_back_equals_the_one_written(record: Any) -> None:
    assert read(type(record), through_json(record)) == record


numbers = st.floats(allow_nan=False, allow_infinity=False)
amounts, shares, counts = st.floats(0, 1e6), st.floats(0, 1), st.integers(0, 10**9)

KWH = ("cpu_kwh", "idle_cpu_kwh", "gpu_kwh", "ram_kwh")


@given(
    st.builds(
        EpochReport,
        epoch=counts,
        iteration=counts,
        stage=counts,
        patch_size=st.lists(counts, min_size=1, max_size=3).map(tuple),
        batch_size=counts,
        learning_rate=amounts,
        training_loss=numbers,
        validation_loss=st.none() | numbers,
        pseudo_dice=st.none() | shares,
        pseudo_dice_per_class=st.lists(st.none() | shares, max_size=4).map(tuple),
        training_seconds=amounts,
        voxels=counts,
    )
)
def test_any_epoch_report_survives_json(report: EpochReport) -> None:
    assert read(EpochReport, through_json(report)) == report


@given(
    st.builds(
        CostInterval,
        attempt=counts,
        phase=st.sampled_from(Phase),
        stage=st.none() | counts,
        iteration_start=counts,
        iteration_stop=counts,
        started_at=amounts,
        seconds=amounts,
        cpu_kwh=st.none() | amounts,
        gpu_kwh=st.none() | amounts,
        ram_kwh=st.none() | amounts,
        own=st.none() | st.builds(OwnEnergy, **dict.fromkeys(KWH, st.none() | amounts)),
        use=st.none()
        | st.builds(NodeUse, own_cpu_seconds=amounts, cpu_seconds=amounts, trials=st.none() | st.integers(1, 9)),
        reasons=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2),
    )
)
def test_any_cost_interval_survives_json(interval: CostInterval) -> None:
    assert read(CostInterval, through_json(interval)) == interval


def test_records_of_before_say_nothing_of_what_was_the_trials_own() -> None:
    interval, header = through_json(make_interval(0, 10)), through_json(HEADER)
    for name in ("own", "use", "reasons"):
        del interval[name]
    for name in ("reasons", "cpu_tdp_watts"):
        del header["meter"][name]
    assert read(CostInterval, interval) == make_interval(0, 10)
    assert read(AttemptHeader, header) == HEADER


@given(st.dictionaries(st.text(max_size=8), st.none() | shares, min_size=1, max_size=5), shares)
def test_any_result_survives_json(dice_per_case: dict[str, float | None], dice: float) -> None:
    result = replace(RESULT, dice=dice, dice_per_case=dice_per_case)
    assert read(TrialResult, through_json(result)) == result


def test_what_is_not_a_number_becomes_null() -> None:
    report = replace(EPOCH, pseudo_dice=math.nan, validation_loss=math.inf, pseudo_dice_per_class=(math.nan, 0.5))
    data = through_json(report)
    assert data["pseudo_dice"] is None
    assert data["validation_loss"] is None
    assert data["pseudo_dice_per_class"] == [None, 0.5]
    nested = replace(RESULT, dice_per_case_and_class={"case": {"1": -math.inf}})
    assert through_json(nested)["dice_per_case_and_class"] == {"case": {"1": None}}


def test_a_header_of_an_earlier_version_says_nothing_of_execution() -> None:
    data = through_json(HEADER)
    del data["execution"]
    assert read(AttemptHeader, data).execution == ()


def test_hashes_do_not_depend_on_order_or_containers() -> None:
    assert sha256_of_json({"a": [1, 2], "b": None}) == sha256_of_json({"b": math.nan, "a": (1, 2)})
    assert sha256_of_json([1, 2]) != sha256_of_json([2, 1])


# -------------------------------------------------------------------------------------------------------- identity


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (make_spec("cps"), make_spec("cps", stages=3)),
        (make_spec("cps"), make_spec("pgps", min_patch=1.0)),
        (make_spec("cps"), make_spec("pgps", stages=1)),
        (make_spec("pgps"), make_spec("pgps", stages=9)),
        (make_spec("pgps"), make_spec("pgps", stages=100)),
        (make_spec("rpss", min_patch=1.0), make_spec("cps")),
        (make_spec("pgps", budget=0.5), make_spec("pgps", training={"iterations_per_epoch": 125})),
        (make_spec("cps", training={"momentum": 0}), make_spec("cps", training={"momentum": 0.0})),
        (make_spec("cps"), make_spec("cps", training={"initial_learning_rate": 0.01, "momentum": 0.99})),
    ],
)
def test_points_that_resolve_to_the_same_training_are_the_same_trial(one: TrialSpec, other: TrialSpec) -> None:
    assert one.trial_id == other.trial_id


@pytest.mark.parametrize(
    "other",
    [
        make_spec("pgps", seed=1),
        make_spec("cps"),
        make_spec("rpss"),
        make_spec("pgps", order="shrinking"),
        make_spec("pgps", budget=0.5),
        make_spec("pgps", allocation="reference"),
        make_spec("pgps", training={"epochs": 11}),
        make_spec("pgps", training={"optimizer": "adamw"}),
        make_spec("pgps", training={"foreground_oversampling": 0.33}),
        make_spec("pgps", training={"test_time_mirroring": False}),
        *(replace(make_spec("pgps"), **{name: "other"}) for name in ("dataset", "plans", "configuration")),
        *(replace(make_spec("pgps"), **{name: "0" * 64}) for name in ("plans_sha256", "split_sha256")),
        replace(make_spec("pgps"), fold=1),
    ],
)
def test_whatever_decides_the_result_is_part_of_the_identity(other: TrialSpec) -> None:
    assert make_spec("pgps").trial_id != other.trial_id


@pytest.mark.parametrize(
    ("written", "meant", "named"),
    [
        (None, "auto", "21727d3cebb6"),
        (False, "never", "21727d3cebb6"),
        ("never", "never", "21727d3cebb6"),
        ("auto", "auto", "21727d3cebb6"),
        (True, "always", "65187553eb3b"),
        ("always", "always", "65187553eb3b"),
    ],
)
def test_trials_keep_the_names_they_had_when_compiling_was_a_boolean(written: Any, meant: str, named: str) -> None:
    spec = make_spec("pgps", training={} if written is None else {"compile_network": written})
    assert (spec.training.compile_network, spec.trial_id) == (meant, named)
    assert TrialSpec.from_json(through_json(spec)) == spec


def test_seeds_of_unused_draws_are_not_part_of_the_identity() -> None:
    spec, drawn = make_spec("pgps"), make_spec("rpss")
    assert replace(spec, curriculum=replace(spec.curriculum, seed=7)).trial_id == spec.trial_id
    assert replace(drawn, curriculum=replace(drawn.curriculum, seed=7)).trial_id != drawn.trial_id


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_identity_survives_json(scheme: str, allocation: str) -> None:
    spec = make_spec(scheme, allocation=allocation)
    assert TrialSpec.from_json(through_json(spec)).trial_id == spec.trial_id
    assert len(spec.trial_id) == TRIAL_ID_LENGTH
    assert int(spec.trial_id, 16) >= 0


def test_a_spec_knows_its_iterations_per_epoch_after_the_budget() -> None:
    assert make_spec("pgps", budget=0.3).iterations_per_epoch == 75


# ------------------------------------------------------------------------------------------------ settings, shares


def test_defaults_depend_on_the_optimizer_and_on_the_curriculum() -> None:
    constant = TrainingSettings().resolved(constant_patch_size=True)
    assert (constant.initial_learning_rate, constant.momentum, constant.foreground_oversampling) == (0.01, 0.99, 0.33)
    adamw = TrainingSettings(optimizer="adamw").resolved(constant_patch_size=False)
    assert (adamw.initial_learning_rate, adamw.momentum, adamw.foreground_oversampling) == (3e-3, 0.9, 0.5)


def test_given_settings_are_kept() -> None:
    given = TrainingSettings(initial_learning_rate=0.5, momentum=0.0, foreground_oversampling=0.0)
    assert given.resolved(constant_patch_size=True) == given


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer", "adam"),
        ("epochs", 0),
        ("iterations_per_epoch", 2.5),
        ("initial_learning_rate", 0),
        ("initial_learning_rate", math.nan),
        ("momentum", 1.0),
        ("weight_decay", -1e-5),
        ("foreground_oversampling", 1.5),
        ("validation_batches", 0),
        ("test_time_mirroring", "yes"),
    ],
)
def test_illegal_settings_name_field_value_and_range(field: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        TrainingSettings(**{field: value})
    assert (caught.value.field, repr(caught.value.received)) == (field, repr(value))
    assert caught.value.legal


@pytest.mark.parametrize("field", ["fold", "seed"])
def test_folds_and_seeds_are_counted_from_zero(field: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{field}: received -1, legal is a whole number of at least 0"):
        replace(make_spec(), **{field: -1})


@pytest.mark.parametrize(
    ("changes", "cpu_share", "gpu_share"),
    [
        ({}, 0.25, 1.0),
        ({"cpus": 32.0}, 1.0, 1.0),
        ({"gpus": 0.5}, 0.25, 0.5),
        ({"gpus": 2.0, "gpu_ids": (0, 1)}, 0.25, 1.0),
        ({"gpus": 0.0, "gpu_ids": ()}, 0.25, 1.0),
    ],
)
def test_a_trial_is_charged_what_it_was_allotted(changes: Any, cpu_share: float, gpu_share: float) -> None:
    header: AttemptHeader = replace(HEADER, **changes)
    assert (header.cpu_share, header.gpu_share) == (cpu_share, gpu_share)

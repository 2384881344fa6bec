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
from study.store.readings import StageExecution
from study.store.records import AttemptHeader, CostInterval, EpochReport, Phase
from study.store.results import TrialResult
from study.store.specification import TrainingSettings, TrialSpec
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


@pytest.mark.parametrize(
    "record",
    [
        HEADER,
        replace(HEADER, execution=(StageExecution(stage=0, captured=True), StageExecution(stage=None, reason="why"))),
        EPOCH,
        RESULT,
        *(make_interval(3, 7, phase=phase) for phase in Phase),
        make_interval(0, 0, stage=None, cpu_kwh=None, gpu_kwh=None, ram_kwh=None),
        *(make_spec(scheme, allocation=allocation) for scheme in SCHEMES for allocation in ALLOCATIONS),
        make_spec("pgps", stages=3, min_patch=0.25, batch_growth=0.5, order="shrinking", budget=0.3),
        make_spec("cps", training={"optimizer": "adamw", "momentum": 0.8, "test_time_mirroring": False}),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_read_back_equals_the_one_written(record: Any) -> None:
    again = read(type(record), through_json(record))
    assert again == record
    assert not isinstance(record, TrialSpec) or (again.trial_id == record.trial_id and len(again.trial_id) == 12)


numbers = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, numbers)


@given(st.from_type(EpochReport))
def test_any_epoch_report_survives_json(report: EpochReport) -> None:
    assert read(EpochReport, through_json(report)) == report


@given(st.from_type(CostInterval))
def test_any_cost_interval_survives_json(interval: CostInterval) -> None:
    assert read(CostInterval, through_json(interval)) == interval


def test_records_of_before_say_nothing_of_what_was_the_trials_own() -> None:
    interval, header = through_json(make_interval(0, 10)), through_json(HEADER)
    for name in ("own", "use", "reasons"):
        del interval[name]
    for name in ("reasons", "cpu_tdp_watts"):
        del header["meter"][name]
    for name in ("execution", "inputs", "preprocessed"):
        del header[name]
    assert read(CostInterval, interval) == make_interval(0, 10)
    assert read(AttemptHeader, header) == HEADER


@given(st.dictionaries(st.text(max_size=8), st.none() | st.floats(0, 1), min_size=1, max_size=5), st.floats(0, 1))
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


def test_hashes_do_not_depend_on_order_or_containers() -> None:
    assert sha256_of_json({"a": [1, 2], "b": None}) == sha256_of_json({"b": math.nan, "a": (1, 2)})
    assert sha256_of_json([1, 2]) != sha256_of_json([2, 1])


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


def test_a_spec_knows_its_iterations_per_epoch_after_the_budget() -> None:
    assert make_spec("pgps", budget=0.3).iterations_per_epoch == 75


def test_defaults_depend_on_the_optimizer_and_on_the_curriculum() -> None:
    constant = TrainingSettings().resolved(constant_patch_size=True)
    assert (constant.initial_learning_rate, constant.momentum, constant.foreground_oversampling) == (0.01, 0.99, 0.33)
    adamw = TrainingSettings(optimizer="adamw").resolved(constant_patch_size=False)
    assert (adamw.initial_learning_rate, adamw.momentum, adamw.foreground_oversampling) == (3e-3, 0.9, 0.5)


def test_given_settings_are_kept() -> None:
    given = TrainingSettings(initial_learning_rate=0.5, momentum=0.0, foreground_oversampling=0.0)
    assert given.resolved(constant_patch_size=True) == given


@pytest.mark.parametrize("field", ["fold", "seed"])
def test_folds_and_seeds_are_counted_from_zero(field: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{field}: received -1, legal is a whole number of at least 0"):
        replace(make_spec(), **{field: -1})


def test_specifications_that_differ_in_fold_seed_and_axes_are_read_as_one_alone() -> None:
    """As files hold them, in our layout or another; what else they hold is read once."""
    specs = [replace(make_spec("pgps", min_patch=share), fold=n, seed=n) for n, share in enumerate([0.0, 0.01])]
    read = [TrialSpec.from_file((json.dumps(spec.to_json(), indent=1) + "\n").encode()) for spec in specs]
    assert read == specs == [TrialSpec.from_file(json.dumps(spec.to_json()).encode()) for spec in specs]
    assert [spec.trial_id for spec in read] == [spec.trial_id for spec in specs]
    assert [spec.to_json() for spec in read] == [spec.to_json() for spec in specs]
    assert read[0].curriculum is read[1].curriculum


@pytest.mark.parametrize("name", ["fold", "training", "curriculum", "axes"])
@pytest.mark.parametrize("text", ['"x"', "-1", "[", "1,\n 2"])
def test_a_member_of_another_kind_is_refused_in_whatever_layout(name: str, text: str) -> None:
    plain = make_spec("pgps").to_json()
    refused = []
    for indent in (1, None):
        content = json.dumps({**plain, name: 987654321}, indent=indent).replace("987654321", text) + "\n"
        with pytest.raises((ValueError, TypeError, KeyError, AttributeError, InvalidInputError)) as caught:
            TrialSpec.from_file(content.encode())
        refused.append(type(caught.value))
    assert refused[0] is refused[1]

"""Averaging over folds and seeds; which published scheme a curriculum is, also with a data curriculum or a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ledgers import complete, finish_trial, make_result, make_spec, make_study, start_trial

from analysis.tables.columns import POINT_COLUMNS
from analysis.tables.frame import read_studies
from analysis.tables.methods import METHOD_LABELS, method_of, point_id
from analysis.tables.points import average_points, axes_of, training_of
from study.curriculum.data_curriculum import DataCurriculum
from study.curriculum.schemes import SCHEMES, Axes
from study.store.ledger import Ledger
from study.store.specification import TrainingSettings, TrialSpec


def points_of(study: Ledger) -> pd.DataFrame:
    return average_points(read_studies([study.root]).trials)


def test_folds_and_seeds_become_one_point_with_their_mean(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for fold, seed, dice, seconds in ((0, 0, 0.80, 30), (1, 0, 0.84, 34), (1, 1, 0.82, 32)):
        finish_trial(study, make_spec(fold=fold, seed=seed), dice=dice, seconds=seconds)
    points = points_of(study)
    assert len(points) == 1
    point = points.iloc[0]
    # Seeds of a fold first, then folds: (0.80 + (0.84 + 0.82) / 2) / 2.
    assert point["dice"] == pytest.approx(0.815)
    assert (point["dice_min"], point["dice_max"]) == (0.80, 0.84)
    assert point["runtime_seconds"] == pytest.approx(31.5)
    assert (point["n_trials"], point["n_folds"], point["n_seeds"]) == (3, 2, 2)
    assert (point["folds"], point["seeds"]) == ("0 1", "0 1")
    assert len(point["trial_ids"].split()) == 3


def test_seeds_of_random_draws_become_one_point_though_their_tables_differ(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    specs = [make_spec("rpss", seed=seed) for seed in (0, 1)]
    assert specs[0].curriculum.stages != specs[1].curriculum.stages
    for spec in specs:
        finish_trial(study, spec, dice=0.8, seconds=30)
    assert points_of(study)["n_seeds"].tolist() == [2]


def test_what_decides_a_result_keeps_points_apart(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    slow = TrainingSettings(optimizer="adamw", epochs=10, iterations_per_epoch=20, initial_learning_rate=1e-4)
    different = [
        make_spec(),
        make_spec(budget=0.5),
        make_spec("cps"),
        make_spec(training=slow),
        make_spec(dataset="Dataset001_Other"),
    ]
    for spec in different:
        finish_trial(study, spec, dice=0.8, seconds=30)
    assert len(points_of(study)) == len(different)


def test_only_finished_trials_count(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(fold=0), dice=0.8, seconds=30)
    start_trial(study, make_spec(fold=1), seconds=1)
    start_trial(study, make_spec("cps"), seconds=1)
    points = points_of(study)
    assert points["runtime_seconds"].tolist() == pytest.approx([30])
    assert points["n_trials"].tolist() == [1]


def test_a_cost_missing_in_one_fold_is_missing_in_the_mean(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(fold=0), dice=0.8, seconds=30)
    finish_trial(study, make_spec(fold=1), dice=0.8, seconds=30, measured=False)
    point = points_of(study).iloc[0]
    assert pd.isna(point["co2_kg"])
    assert point["runtime_seconds"] == pytest.approx(30)


def test_columns_and_types_are_the_documented_ones_even_without_points(tmp_path: Path) -> None:
    documented = {column.name: column.dtype for column in POINT_COLUMNS}
    for study in (make_study(tmp_path / "full"), Ledger.create(tmp_path / "empty")):
        assert {name: str(dtype) for name, dtype in points_of(study).dtypes.items()} == documented


def test_hardware_of_all_averaged_trials_is_named(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for fold, name in enumerate(("Slow CPU", "Fast CPU", "Slow CPU")):
        finish_trial(study, make_spec(fold=fold), dice=0.8, seconds=30, cpu_name=name)
    assert points_of(study)["hardware"].tolist() == ["Slow CPU | Fast CPU"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("budget", [1.0, 0.25])
@pytest.mark.parametrize("allocation", ["even", "reference"])
def test_a_named_scheme_is_recognised_at_any_budget(scheme: str, budget: float, allocation: str) -> None:
    assert method_of(make_spec(scheme, budget=budget, allocation=allocation)) == scheme


def test_the_method_follows_from_the_table_not_from_the_name() -> None:
    assert method_of(make_spec("pgps", min_patch=1.0)) == "cps"
    assert method_of(make_spec("pgps", batch_growth="stepwise")) == "pgps+"
    assert method_of(make_spec("performance", batch_growth=0.0)) == "efficiency"
    for axes in ({"stages": 3}, {"min_patch": 0.4}, {"order": "shrinking"}, {"batch_growth": 0.5}):
        assert method_of(make_spec("pgps", **axes)) == "other"
    for axes in ({"stages": 3}, {"min_patch": 0.4}, {"batch_growth": 1.0}, {"chain": "smallest-first"}):
        assert method_of(make_spec("rpss", **axes)) == "other"
    # What is idle in random order, or more stages than there are, draws from the same sizes.
    for axes in ({"growth": 2.0}, {"stages": 100}, {"allocation": "reference"}, {"budget": 0.1}):
        assert method_of(make_spec("rpss", **axes)) == "rpss"


def test_the_summary_names_the_curriculum_and_what_differs(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", budgets=(1.0, 0.5))
    summaries = set(points_of(study)["summary"])
    assert {"CPS, budget 50%", "PGPS+, budget 100%", "2 stages from 16×8×4, batch 26–2, budget 100%"} <= summaries
    single = make_study(tmp_path / "single")
    assert {"CPS", "PGPS+", "3 stages from 32×32×12"} <= set(points_of(single)["summary"])


def test_an_axis_that_a_scheme_fixes_is_told_of_searched_curricula_alone(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for spec in (make_spec("cps"), make_spec("rpss"), make_spec("pgps", growth=2.0)):
        finish_trial(study, spec, dice=0.8, seconds=30)
    summaries = points_of(study)["summary"].tolist()
    assert summaries[:2] == ["CPS", "RPSS"]
    assert summaries[2] == "19 stages from 16×8×4, stages growing by 2"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axes_and_training_come_back_as_they_went_in(tmp_path: Path, scheme: str) -> None:
    study = Ledger.create(tmp_path / "study")
    spec = make_spec(scheme, stages=3, budget=0.5)
    finish_trial(study, spec, dice=0.8, seconds=30)
    point = points_of(study).iloc[0]
    assert Axes(**axes_of(point)) == spec.axes
    assert TrainingSettings(**training_of(point)) == spec.training


def test_fold_and_seed_do_not_change_the_identity_of_a_configuration() -> None:
    def identity(**changes: int) -> str:
        spec: TrialSpec = make_spec("rpss", **changes)
        return point_id(spec)

    assert identity(fold=0, seed=0) == identity(fold=3, seed=7)
    assert point_id(make_spec("pgps")) != point_id(make_spec("rpss"))


FIRST = DataCurriculum(cases=("a", "b"), until_iteration=60)


def pdl_spec(scheme: str = "pgps", *, cases: tuple[str, ...] = FIRST.cases, until: int = 60, **spec: Any) -> TrialSpec:
    """A trial whose first cases a ranking might have given."""
    data = DataCurriculum(cases=cases, until_iteration=until)
    return make_spec(scheme, data=data, **{"pdl_fraction": 0.25, "pdl_epochs": 3, **spec})


@pytest.fixture
def study(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "study")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_method_has_its_counterpart_with_a_data_curriculum(scheme: str) -> None:
    method = method_of(pdl_spec(scheme))
    assert method == ("pdl" if scheme == "cps" else f"pdl+{scheme}")
    assert METHOD_LABELS[method] == ("PDL" if scheme == "cps" else f"PDL × {METHOD_LABELS[scheme]}")
    assert method_of(make_spec(scheme, pdl_fraction=1.0)) == scheme


def test_the_patches_decide_the_rest_of_the_name() -> None:
    assert method_of(pdl_spec("pgps", min_patch=1.0)) == "pdl"
    assert method_of(pdl_spec("pgps", stages=3)) == "pdl+other"


def test_folds_with_other_cases_are_one_configuration(study: Ledger) -> None:
    folds = [pdl_spec(fold=0), pdl_spec(fold=1, cases=("b", "c"))]
    assert len({spec.trial_id for spec in folds}) == 2
    assert len({point_id(spec) for spec in folds}) == 1
    others = [pdl_spec(pdl_fraction=0.5), pdl_spec(pdl_metric="mse"), pdl_spec(until=80), make_spec("pgps")]
    assert len({point_id(spec) for spec in (folds[0], *others)}) == 5
    for spec in folds:
        finish_trial(study, spec, dice=0.8, seconds=30)
    points = points_of(study)
    assert points["folds"].tolist() == ["0 1"]
    assert points[["method", "pdl_fraction", "pdl_iterations"]].iloc[0].tolist() == ["pdl+pgps", 0.25, 60]


@pytest.mark.parametrize("pdl_epochs", [0.3, 3])
@pytest.mark.parametrize("stop", [None, 0.9])
def test_axes_and_training_with_a_data_curriculum_come_back_as_they_went_in(
    study: Ledger, pdl_epochs: int | float, stop: float | None
) -> None:
    training = TrainingSettings(optimizer="adamw", epochs=10, iterations_per_epoch=20, stop_at_dice=stop)
    spec = pdl_spec(pdl_epochs=pdl_epochs, pdl_metric="ssim", training=training)
    finish_trial(study, spec, dice=0.8, seconds=30)
    point = points_of(study).iloc[0]
    assert Axes(**axes_of(point)) == spec.axes
    assert type(axes_of(point)["pdl_epochs"]) is type(pdl_epochs)
    assert TrainingSettings(**training_of(point)) == spec.training


def test_a_stopped_trial_says_where(study: Ledger) -> None:
    training = TrainingSettings(optimizer="adamw", epochs=10, iterations_per_epoch=20, stop_at_dice=0.7)
    whole, spec = make_spec("cps", training=training), make_spec("pgps", training=training)
    finish_trial(study, whole, dice=0.8, seconds=30)
    folder = start_trial(study, spec, seconds=30)
    voxels = sum(spec.curriculum.stage_at(iteration).voxels_per_iteration for iteration in range(120))
    trained = {"iterations": 120, "voxels": voxels, "voxel_share": spec.curriculum.share_of_cps(voxels, 120)}
    complete(
        folder,
        replace(
            make_result(spec, 1.0),
            dice=1.0,
            dice_per_class={"1": 1.0},
            dice_per_case={"case": 1.0},
            dice_per_case_and_class={"case": {"1": 1.0}},
            **trained,
        ),
        curve=True,
        seconds=30,
    )
    trials = read_studies([study.root]).trials.set_index("trial_id")
    assert trials.loc[spec.trial_id, ["iterations", "stopped_at_iteration", "stop_at_dice"]].tolist() == [200, 120, 0.7]
    assert trials["stopped_at_iteration"].isna().sum() == 1


def test_the_summary_names_the_data_curriculum_and_the_stop(study: Ledger) -> None:
    stopping = TrainingSettings(optimizer="adamw", epochs=10, iterations_per_epoch=20, stop_at_dice=0.9)
    for spec in (
        make_spec("cps"),
        make_spec("cps", training=stopping),
        pdl_spec("cps"),
        pdl_spec("cps", cases=("a", "b", "c"), pdl_fraction=0.5),
        pdl_spec("pgps", stages=3),
    ):
        finish_trial(study, spec, dice=0.8, seconds=30)
    assert points_of(study)["summary"].tolist() == [
        "CPS",
        "CPS, to Dice 0.9",
        "PDL, 25% of the cases first",
        "PDL, 50% of the cases first",
        "PDL × 3 stages from 16×8×4, 25% of the cases first",
    ]

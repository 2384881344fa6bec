"""Trials with a data curriculum, or that stopped at a Dice, as methods, rows, points and words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledgers import complete, finish_trial, make_result, make_spec, start_trial

from analysis.tables.frame import read_studies
from analysis.tables.methods import METHOD_LABELS, method_of, point_id
from analysis.tables.points import average_points, axes_of, training_of
from study.curriculum.data_curriculum import DataCurriculum
from study.curriculum.schemes import SCHEMES, Axes
from study.store.ledger import Ledger
from study.store.specification import TrainingSettings, TrialSpec

FIRST = DataCurriculum(cases=("a", "b"), until_iteration=60)


def pdl_spec(scheme: str = "pgps", *, cases: tuple[str, ...] = FIRST.cases, until: int = 60, **spec: Any) -> TrialSpec:
    """A trial whose first cases a ranking might have given."""
    data = DataCurriculum(cases=cases, until_iteration=until)
    return make_spec(scheme, data=data, **{"pdl_fraction": 0.25, "pdl_epochs": 3, **spec})


@pytest.fixture
def study(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "study")


def points_of(study: Ledger) -> Any:
    return average_points(read_studies([study.root]).trials)


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
def test_axes_and_training_come_back_as_they_went_in(
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


def test_the_summary_names_what_differs(study: Ledger) -> None:
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

"""From a point of a space to the specifications of its trials."""

from __future__ import annotations

from typing import Any

import pytest
from examples import HIPPOCAMPUS
from searching import paper_lookup as lookup
from searching import plan_of

from study.common.errors import InvalidInputError, MissingDataError
from study.curriculum.schemes import Axes, named_axes
from study.search.document import space_from
from study.search.trials import check_data, make_spec, specs
from study.store.specification import TrainingSettings, TrialSpec


def document(**keys: Any) -> dict[str, Any]:
    return {"name": "test", "searcher": "grid", **keys}


# -------------------------------------------------------------------------------------------------------------- trials


def spec(scheme: str, *, fold: int = 0, seed: int = 0, axes: Axes | None = None, **training: Any) -> TrialSpec:
    return make_spec(
        plan=plan_of(HIPPOCAMPUS),
        split_sha256="s" * 64,
        fold=fold,
        seed=seed,
        scheme=scheme,
        axes=axes or named_axes(scheme),
        training=TrainingSettings(**{"epochs": 10, "iterations_per_epoch": 50, **training}),
    )


@pytest.mark.parametrize(
    ("scheme", "training", "filled_in"),
    [
        ("cps", {}, {"foreground_oversampling": 0.33}),
        *((scheme, {}, {"foreground_oversampling": 0.5}) for scheme in ("pgps", "rpss", "pgps+")),
        ("cps", {"foreground_oversampling": 0.8}, {"foreground_oversampling": 0.8}),
        ("pgps", {"optimizer": "sgd"}, {"initial_learning_rate": 1e-2, "momentum": 0.99}),
        ("pgps", {"optimizer": "adamw"}, {"initial_learning_rate": 3e-3, "momentum": 0.9}),
    ],
)
def test_defaults_that_follow_from_curriculum_and_optimizer_are_filled_in(
    scheme: str, training: dict[str, Any], filled_in: dict[str, float]
) -> None:
    made = spec(scheme, **training).training
    assert {name: getattr(made, name) for name in filled_in} == filled_in


def test_a_budget_scales_the_curriculum_and_leaves_the_settings() -> None:
    made = spec("pgps", axes=named_axes("pgps", budget=0.5))
    assert (made.training.iterations_per_epoch, made.iterations_per_epoch) == (50, 25)
    assert made.curriculum.total_iterations == 250


def test_points_with_the_same_stage_table_are_the_same_trial_and_the_seed_decides_random_draws() -> None:
    assert spec("pgps", axes=Axes(min_patch=1.0)).trial_id == spec("cps").trial_id
    assert len({spec("pgps").trial_id, spec("cps").trial_id, spec("cps", seed=1).trial_id}) == 3
    first, again, other = (spec("rpss", seed=seed).curriculum for seed in (0, 0, 1))
    assert first == again
    assert [s.iterations for s in first.stages] != [s.iterations for s in other.stages]


@pytest.mark.parametrize("wrong", [{"fold": -1}, {"seed": -1}, {"seed": 0.5}])
def test_folds_and_seeds_are_whole_numbers(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        spec("pgps", **wrong)


def test_a_point_is_one_trial_per_fold_and_seed() -> None:
    written = document(datasets=[4], folds=[0, 3], seeds=[0, 5], curriculum={"scheme": ["cps", "pgps+"], "budget": 0.5})
    space = space_from({**written, "training": {"epochs": 4, "iterations_per_epoch": 10, "optimizer": "adamw"}})
    made = specs(space, {"curriculum.scheme": "pgps+"}, lookup)
    assert [(spec.fold, spec.seed) for spec in made] == [(0, 0), (0, 5), (3, 0), (3, 5)]
    assert [spec.split_sha256 for spec in made] == ["split-0", "split-0", "split-3", "split-3"]
    assert {(spec.scheme, spec.iterations_per_epoch, spec.training.optimizer) for spec in made} == {
        ("pgps+", 5, "adamw")
    }
    assert len({spec.trial_id for spec in made}) == 4


def test_dataset_plans_and_configuration_reach_the_lookup() -> None:
    space = space_from(document(datasets=[1, 4], plans="otherPlans", configuration="3d_lowres"))
    made = [specs(space, point, lookup)[0] for point in space.points()]
    assert [(one.dataset, one.plans, one.configuration) for one in made] == [
        ("Dataset001_X", "otherPlans", "3d_lowres"),
        ("Dataset004_X", "otherPlans", "3d_lowres"),
    ]
    assert space.datasets == (1, 4)


@pytest.mark.parametrize("point", [{}, {"curriculum.budget": 1.0, "x": 1}, {"curriculum.stages": 1}])
def test_a_point_of_another_space_is_refused(point: dict[str, Any]) -> None:
    space = space_from(document(datasets=[4], curriculum={"budget": [0.5, 1.0]}))
    with pytest.raises(InvalidInputError, match="point: received"):
        specs(space, point, lookup)


@pytest.mark.parametrize(
    ("written", "error", "words"),
    [
        ({}, InvalidInputError, "give --dataset"),
        ({"datasets": [4, 5]}, MissingDataError, "received 5"),
        ({"datasets": [4], "folds": [0, 7]}, InvalidInputError, "fold: received 7"),
    ],
)
def test_missing_data_is_found_before_anything_starts(
    written: dict[str, Any], error: type[Exception], words: str
) -> None:
    check_data(space_from(document(datasets=[1, 4, 6], folds=[0, 4])), lookup)
    with pytest.raises(error, match=words):
        check_data(space_from(document(**written)), lookup)

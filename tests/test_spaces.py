"""Search spaces: domains, points, trials, identity, overrides. The file format is tested in test_space_format."""

from __future__ import annotations

import json
import pickle
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.common.errors import InvalidInputError, MissingDataError
from study.curriculum.chain import CHAIN_ORDERS, CHAIN_STARTS, Geometry
from study.curriculum.schemes import ALLOCATIONS, SCHEMES, STAGE_ORDERS
from study.nnunet.plans import NetworkPlan
from study.search.document import space_from
from study.search.domains import Choice, Domain, Fixed, Integer, LogUniform, Uniform, domain_from
from study.search.space import SearchSpace
from study.search.trials import check_data, specs

GEOMETRIES = {
    1: Geometry(patch_size=(128, 128, 128), divisors=(32, 32, 32), batch_size=2),
    6: Geometry(patch_size=(80, 192, 160), divisors=(16, 32, 32), batch_size=2),
    4: Geometry(patch_size=(40, 56, 40), divisors=(8, 8, 8), batch_size=9),
}


def lookup(dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
    """Three geometries of the papers by dataset id, five folds each."""
    if dataset not in GEOMETRIES:
        raise MissingDataError(f"dataset: received {dataset!r}")
    if fold > 4:
        raise InvalidInputError(field="fold", received=fold, legal="0 to 4")
    plan = NetworkPlan(
        dataset=f"Dataset{dataset:03d}_X",
        plans=plans or "nnUNetPlans",
        configuration=configuration,
        geometry=GEOMETRIES[int(dataset)],
        data_identifier="x",
        previous_stage=None,
        sha256="p" * 64,
    )
    return plan, f"split-{fold}"


def document(**keys: Any) -> dict[str, Any]:
    return {"name": "test", "searcher": "grid", **keys}


def search(searcher: str = "random", trials: int = 20, **keys: Any) -> SearchSpace:
    axes = {"curriculum": {"min_patch": {"uniform": [0, 1]}, "budget": [0.1, 0.5, 1.0]}}
    return space_from(document(searcher=searcher, trials=trials, **{**axes, **keys}))


# Domains and points

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "scheme": st.sampled_from(list(SCHEMES)),
    "chain": st.sampled_from(CHAIN_ORDERS),
    "chain_start": st.sampled_from(CHAIN_STARTS),
    "min_patch": st.floats(0, 1),
    "stages": st.none() | st.integers(1, 40),
    "batch_growth": st.floats(0, 1) | st.just("stepwise"),
    "shared_crops": st.booleans(),
    "order": st.sampled_from(STAGE_ORDERS),
    "budget": st.floats(0.1, 1),
    "allocation": st.sampled_from(ALLOCATIONS),
}
RANGES = {"min_patch": (0.0, 1.0), "batch_growth": (0.0, 1.0), "budget": (0.1, 1.0)}


@st.composite
def written_domains(draw: st.DrawFn, name: str) -> Any:
    """A value, list or domain as a file may write it for one curriculum setting."""
    kinds = ["value", "list", *(["range"] if name in RANGES else []), *(["integer"] if name == "stages" else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "value":
        return draw(FIELDS[name])
    if kind == "integer":
        low = draw(st.integers(1, 20))
        return {"integer": [low, low + draw(st.integers(1, 20))]}
    if kind == "list":
        return draw(st.lists(FIELDS[name], min_size=1, max_size=4, unique=True))
    low, high = sorted(draw(st.lists(st.floats(*RANGES[name]), min_size=2, max_size=2, unique=True)))
    word = draw(st.sampled_from(["uniform", "log_uniform"])) if low > 0 else "uniform"
    return {word: [low, high]}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dataset=st.sampled_from(list(GEOMETRIES)), generator=st.randoms(use_true_random=False))
def test_any_point_a_domain_may_propose_resolves(data: st.DataObject, dataset: int, generator: random.Random) -> None:
    names = data.draw(st.lists(st.sampled_from(list(FIELDS)), min_size=1, max_size=5, unique=True))
    curriculum = {name: data.draw(written_domains(name)) for name in names}
    training = {
        "epochs": {"integer": [1, 12]},
        "iterations_per_epoch": [1, 7],
        "optimizer": ["sgd", "adamw"],
        "initial_learning_rate": [None, 0.1],
        "foreground_oversampling": {"uniform": [0, 1]},
    }
    space = space_from(
        document(searcher="random", trials=5, datasets=[dataset], curriculum=curriculum, training=training)
    )
    for _ in range(5):
        point = {name: domain.sample(generator) for name, domain in space.searched.items()}
        [made] = specs(space, json.loads(json.dumps(point)), lookup)
        assert made.curriculum.total_iterations == made.training.epochs * made.iterations_per_epoch
        full = [stage.patch_size for stage in made.curriculum.stages]
        assert GEOMETRIES[dataset].patch_size in full


@given(low=st.floats(1e-300, 1e300), high=st.floats(1e-300, 1e300), seed=st.integers(0, 99))
def test_draws_stay_inside_their_interval(low: float, high: float, seed: int) -> None:
    if not low < high:
        return
    generator = random.Random(seed)
    for domain in (Uniform(low, high), LogUniform(low, high)):
        for _ in range(20):
            drawn = domain.sample(generator)
            assert isinstance(drawn, float)
            assert low <= drawn <= high


class Extreme(random.Random):
    """Draws the upper end of every interval."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_rounding_does_not_leave_the_interval() -> None:
    highs = [index / 1000 for index in range(1, 1000)]
    assert all(LogUniform(1e-4, high).sample(Extreme()) <= high for high in highs)


def test_a_logarithmic_interval_is_drawn_evenly_in_the_logarithm() -> None:
    generator = random.Random(0)
    drawn = [LogUniform(1e-4, 1.0).sample(generator) for _ in range(4000)]
    decades = Counter(f"{value:e}"[-3:] for value in drawn)
    assert all(abs(decades[decade] - 1000) < 150 for decade in ("-01", "-02", "-03", "-04"))


@pytest.mark.parametrize(
    "domain",
    [Fixed(None), Fixed("pgps"), Choice((0, 0.5, "stepwise")), Integer(1, 9), Uniform(0.0, 1.0), LogUniform(1e-4, 1.0)],
)
def test_a_domain_written_out_reads_as_itself(domain: Domain) -> None:
    assert domain_from("field", json.loads(json.dumps(domain.to_json()))) == domain


def test_a_grid_is_every_combination_in_a_fixed_order() -> None:
    written = {"budget": [1.0, 0.5], "scheme": ["cps", "pgps"]}
    space = space_from(document(datasets=[6, 4], curriculum=written, training={"epochs": {"integer": [1, 2]}}))
    points = list(space.points())
    assert len(points) == 16
    assert list(points[0]) == ["dataset", "curriculum.scheme", "curriculum.budget", "training.epochs"]
    assert [tuple(point.values()) for point in points[:5]] == [
        (6, "cps", 1.0, 1),
        (6, "cps", 1.0, 2),
        (6, "cps", 0.5, 1),
        (6, "cps", 0.5, 2),
        (6, "pgps", 1.0, 1),
    ]
    assert list(space.with_overrides(trials=5).points()) == points[:5]
    assert list(space.with_overrides(trials=99).points()) == points


def test_a_random_search_repeats_with_its_seed_and_grows_at_the_end() -> None:
    points = list(search(trials=30).points())
    assert len(points) == 30
    assert list(search(trials=30).points()) == points
    assert list(search(trials=12).points()) == points[:12]
    assert list(search(trials=30, seed=1).points()) != points


def test_the_order_of_keys_in_the_file_changes_nothing() -> None:
    forwards, backwards = (
        search(curriculum=dict(items))
        for items in (
            [("min_patch", {"uniform": [0, 1]}), ("stages", {"integer": [1, 9]})],
            [("stages", {"integer": [1, 9]}), ("min_patch", {"uniform": [0, 1]})],
        )
    )
    assert list(forwards.points()) == list(backwards.points())
    assert forwards == backwards


def test_a_random_search_proposes_no_point_twice_and_ends_when_there_are_no_more() -> None:
    space = search(trials=50, curriculum={"budget": [0.1, 0.5, 1.0], "stages": {"integer": [1, 4]}})
    points = [tuple(point.values()) for point in space.points()]
    assert len(points) == len(set(points)) == 12


def test_optuna_has_no_points_in_advance() -> None:
    with pytest.raises(InvalidInputError, match="searcher: received 'optuna'"):
        search("optuna").points()


def test_optuna_has_the_papers_objectives_unless_told_otherwise() -> None:
    assert search("optuna").objectives == ("dice", "runtime_seconds", "co2_kg")


def test_null_among_the_choices_is_what_the_scheme_has() -> None:
    space = space_from(document(datasets=[4], curriculum={"scheme": ["cps", "pgps"], "min_patch": [None, 0.5]}))
    shares = [specs(space, point, lookup)[0].curriculum.voxel_share for point in space.points()]
    cps, cps_half, pgps, pgps_half = shares
    assert cps == 1.0
    assert cps_half == pgps_half
    assert pgps < pgps_half


# Trials


def test_a_point_is_one_trial_per_fold_and_seed() -> None:
    written = document(datasets=[4], folds=[0, 3], seeds=[0, 5], curriculum={"scheme": ["cps", "pgps+"], "budget": 0.5})
    space = space_from({**written, "training": {"epochs": 4, "iterations_per_epoch": 10, "optimizer": "adamw"}})
    made = specs(space, {"curriculum.scheme": "pgps+"}, lookup)
    assert [(spec.fold, spec.seed) for spec in made] == [(0, 0), (0, 5), (3, 0), (3, 5)]
    assert [spec.split_sha256 for spec in made] == ["split-0", "split-0", "split-3", "split-3"]
    assert {spec.scheme for spec in made} == {"pgps+"}
    assert {spec.iterations_per_epoch for spec in made} == {5}
    assert {spec.training.optimizer for spec in made} == {"adamw"}
    assert len({spec.trial_id for spec in made}) == 4


def test_the_dataset_may_be_an_axis() -> None:
    space = space_from(document(datasets=[1, 4]))
    datasets = [specs(space, point, lookup)[0].dataset for point in space.points()]
    assert datasets == ["Dataset001_X", "Dataset004_X"]
    assert space.datasets == (1, 4)


def test_plans_and_configuration_reach_the_lookup() -> None:
    space = space_from(document(datasets=[4], plans="otherPlans", configuration="3d_lowres"))
    [made] = specs(space, {}, lookup)
    assert (made.plans, made.configuration) == ("otherPlans", "3d_lowres")


@pytest.mark.parametrize("point", [{}, {"curriculum.budget": 1.0, "x": 1}, {"curriculum.stages": 1}])
def test_a_point_of_another_space_is_refused(point: dict[str, Any]) -> None:
    space = space_from(document(datasets=[4], curriculum={"budget": [0.5, 1.0]}))
    with pytest.raises(InvalidInputError, match="point: received"):
        specs(space, point, lookup)


def test_a_space_without_a_dataset_asks_for_one() -> None:
    space = space_from(document())
    for ask in (lambda: specs(space, {}, lookup), lambda: check_data(space, lookup)):
        with pytest.raises(InvalidInputError, match="give --dataset"):
            ask()


def test_missing_data_is_found_before_anything_starts() -> None:
    check_data(space_from(document(datasets=[1, 4, 6], folds=[0, 4])), lookup)
    with pytest.raises(MissingDataError, match="received 5"):
        check_data(space_from(document(datasets=[4, 5])), lookup)
    with pytest.raises(InvalidInputError, match="fold: received 7"):
        check_data(space_from(document(datasets=[4], folds=[0, 7])), lookup)


def test_a_space_travels_to_other_processes() -> None:
    space = search(datasets=[4])
    assert pickle.loads(pickle.dumps(space)) == space


# Identity and overrides


def test_identity_is_plain_json_and_knows_nothing_of_trials_machine_and_label() -> None:
    space = search(datasets=[4])
    identity = space.identity()
    assert json.loads(json.dumps(identity)) == identity
    same = [
        search(datasets=[4], trials=500),
        search(datasets=["004"], name="renamed", resources={"cpus": 8, "gpus": 1, "concurrent": 2}),
        search(datasets=[4], training={"epochs": 1000, "optimizer": "sgd"}),
        search(datasets=[4], folds=[0], configuration="3d_fullres"),
    ]
    assert all(other.identity() == identity for other in same)


def test_identity_lists_no_setting_left_at_its_default() -> None:
    identity = space_from(document(training={"epochs": 1000, "momentum": 0.9})).identity()
    assert [key for key in identity if key.startswith(("training.", "curriculum.", "dataset"))] == ["training.momentum"]


@pytest.mark.parametrize(
    "change",
    [
        {"searcher": "optuna"},
        {"seed": 1},
        {"datasets": [6]},
        {"plans": "otherPlans"},
        {"configuration": "2d"},
        {"folds": [0, 1]},
        {"seeds": [1]},
        {"energy": {"country": "FRA"}},
        {"energy": {"pue": 1.5}},
        {"energy": {"meter": "none"}},
        {"curriculum": {"min_patch": {"uniform": [0, 0.9]}, "budget": [0.1, 0.5, 1.0]}},
        {"curriculum": {"min_patch": {"uniform": [0, 1]}, "budget": [0.5, 0.1, 1.0]}},
        {"curriculum": {"min_patch": {"log_uniform": [0.1, 1]}, "budget": [0.1, 0.5, 1.0]}},
        {"training": {"epochs": 999}},
        {"training": {"test_time_mirroring": False}},
    ],
)
def test_identity_changes_with_everything_that_matters(change: dict[str, Any]) -> None:
    assert search(**{"datasets": [4], **change}).identity() != search(datasets=[4]).identity()


def test_the_objectives_are_part_of_the_identity() -> None:
    fewer = search("optuna", objectives=["dice", "co2_kg"])
    assert fewer.identity() != search("optuna").identity()


def test_the_searchers_seed_means_nothing_to_a_grid() -> None:
    assert space_from(document(seed=1)).identity() == space_from(document(seed=2)).identity()


def test_flags_override_the_file() -> None:
    space = search(datasets=[4], training={"epochs": {"integer": [1, 9]}})
    changed = space.with_overrides(
        trials=7,
        cpus=2.0,
        gpus=0.5,
        concurrent=3,
        data_workers=1,
        dataset="006",
        plans="otherPlans",
        configuration="2d",
        folds=(1, 2),
        seeds=(3,),
        country="FRA",
        epochs=20,
        iterations_per_epoch=30,
    )
    assert (changed.trials, changed.datasets, changed.plans, changed.configuration) == (7, (6,), "otherPlans", "2d")
    assert (changed.folds, changed.seeds, changed.energy.country) == ((1, 2), (3,), "FRA")
    assert (changed.resources.cpus, changed.resources.gpus) == (2.0, 0.5)
    assert (changed.resources.concurrent, changed.resources.data_workers) == (3, 1)
    assert changed.axes["training.epochs"] == Fixed(20)
    assert changed.axes["training.iterations_per_epoch"] == Fixed(30)
    assert set(changed.searched) == set(space.searched) - {"training.epochs"}
    assert space.with_overrides() == space


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"trials": 0}, "trials: received 0"),
        ({"cpus": -1.0}, "resources.cpus: received -1.0"),
        ({"gpus": 4.0}, "resources.gpus: received 4.0"),
        ({"dataset": "hippo"}, "dataset: received 'hippo'"),
        ({"folds": ()}, r"folds: received \[\]"),
        ({"country": "XX"}, "energy.country: received 'XX'"),
        ({"epochs": 0}, "training.epochs: received 0"),
    ],
)
def test_flags_meet_the_same_checks(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        search(datasets=[4]).with_overrides(**flags)

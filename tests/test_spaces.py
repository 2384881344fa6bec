"""Search spaces: domains, points, what a point trains, what makes two spaces one study; and the spaces we ship."""

from __future__ import annotations

import json
import pickle
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from examples import HIPPOCAMPUS
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_data import BARE as DATASET
from raw_data import bare_dataset
from searching import GEOMETRIES
from searching import paper_lookup as lookup

from study.common.errors import InvalidInputError
from study.curriculum.chain import CHAIN_ORDERS, CHAIN_STARTS
from study.curriculum.schemes import ALLOCATIONS, SCHEMES, STAGE_ORDERS
from study.nnunet.datasets import DataPaths
from study.search.document import space_from
from study.search.domains import Choice, Domain, Fixed, Integer, LogUniform, Uniform, domain_from
from study.search.space import SearchSpace
from study.search.trials import prepared_lookup, specs


def document(**keys: Any) -> dict[str, Any]:
    return {"name": "test", "searcher": "grid", **keys}


def search(searcher: str = "random", trials: int = 20, **keys: Any) -> SearchSpace:
    axes = {"curriculum": {"min_patch": {"uniform": [0, 1]}, "budget": [0.1, 0.5, 1.0]}}
    return space_from(document(searcher=searcher, trials=trials, **{**axes, **keys}))


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
    space = search(trials=5, datasets=[dataset], curriculum=curriculum, training=training)
    for _ in range(5):
        point = {name: domain.sample(generator) for name, domain in space.searched.items()}
        [made] = specs(space, json.loads(json.dumps(point)), lookup)
        assert made.curriculum.total_iterations == made.training.epochs * made.iterations_per_epoch
        assert GEOMETRIES[dataset].patch_size in [stage.patch_size for stage in made.curriculum.stages]


class Extreme(random.Random):
    """Draws the upper end of every interval."""

    def uniform(self, a: float, b: float) -> float:
        return b


@given(low=st.floats(1e-300, 1e300), high=st.floats(1e-300, 1e300), seed=st.integers(0, 99))
def test_draws_stay_inside_their_interval(low: float, high: float, seed: int) -> None:
    if not low < high:
        return
    for domain in (Uniform(low, high), LogUniform(low, high)):
        for generator in (Extreme(), *[random.Random(seed)] * 20):
            drawn = domain.sample(generator)
            assert isinstance(drawn, float)
            assert low <= drawn <= high


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


def test_a_random_search_repeats_with_its_seed_grows_at_the_end_and_proposes_no_point_twice() -> None:
    points = list(search(trials=30).points())
    assert len(points) == 30
    assert list(search(trials=30).points()) == points
    assert list(search(trials=12).points()) == points[:12]
    assert list(search(trials=30, seed=1).points()) != points
    few = search(trials=50, curriculum={"stages": {"integer": [1, 4]}, "budget": [0.1, 0.5, 1.0]})
    listed = [tuple(point.values()) for point in few.points()]
    assert len(listed) == len(set(listed)) == 12
    # The order of keys in the file changes nothing.
    turned = search(trials=50, curriculum={"budget": [0.1, 0.5, 1.0], "stages": {"integer": [1, 4]}})
    assert turned == few and list(turned.points()) == list(few.points())


def test_optuna_has_no_points_in_advance_and_the_papers_objectives_unless_told_otherwise() -> None:
    with pytest.raises(InvalidInputError, match="searcher: received 'optuna'"):
        search("optuna").points()
    assert search("optuna").objectives == ("dice", "runtime_seconds", "co2_kg")


def test_null_among_the_choices_is_what_the_scheme_has() -> None:
    space = space_from(document(datasets=[4], curriculum={"scheme": ["cps", "pgps"], "min_patch": [None, 0.5]}))
    shares = [specs(space, point, lookup)[0].curriculum.voxel_share for point in space.points()]
    cps, cps_half, pgps, pgps_half = shares
    assert cps == 1.0
    assert cps_half == pgps_half
    assert pgps < pgps_half


@pytest.fixture
def prepared(tmp_path: Path) -> DataPaths:
    return bare_dataset(tmp_path)


def test_the_lookup_reads_plan_and_split_each_file_once(prepared: DataPaths) -> None:
    lookup = prepared_lookup(prepared)
    found, first = lookup(4, None, "3d_fullres", 0)
    by_name, second = lookup(DATASET, "nnUNetPlans", "3d_fullres", 1)
    assert found == by_name
    assert (found.dataset, found.plans, found.geometry) == (DATASET, "nnUNetPlans", HIPPOCAMPUS)
    assert len(first) == 64 and first != second
    for path in (prepared.preprocessed / DATASET).glob("*.json"):
        path.unlink()
    assert lookup(4, None, "3d_fullres", 0) == (found, first)


def test_a_dataset_without_a_split_is_given_nnunets(prepared: DataPaths) -> None:
    path = prepared.preprocessed / DATASET / "splits_final.json"
    path.unlink()
    prepared_lookup(prepared)(4, None, "3d_fullres", 4)
    split = json.loads(path.read_text())
    assert sorted(case for fold in split for case in fold["val"]) == [f"case_{c}" for c in range(10)]


def test_identity_is_plain_json_that_knows_nothing_of_trials_machine_label_and_defaults() -> None:
    space = search(datasets=[4])
    identity = space.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert pickle.loads(pickle.dumps(space)) == space
    same = [
        search(datasets=[4], trials=500),
        search(datasets=["004"], name="renamed", resources={"cpus": 8, "gpus": 1, "concurrent": 2}),
        search(datasets=[4], training={"epochs": 1000, "optimizer": "sgd"}),
        search(datasets=[4], folds=[0], configuration="3d_fullres"),
    ]
    assert all(other.identity() == identity for other in same)
    named = space_from(document(training={"epochs": 1000, "momentum": 0.9})).identity()
    assert [key for key in named if key.startswith(("training.", "curriculum.", "dataset"))] == ["training.momentum"]
    # The searcher's seed means nothing to a grid.
    assert space_from(document(seed=1)).identity() == space_from(document(seed=2)).identity()


@pytest.mark.parametrize(
    "change",
    [
        {"searcher": "optuna"},
        {"searcher": "optuna", "objectives": ["dice", "co2_kg"]},
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
    identity = search(**{"datasets": [4], **change}).identity()
    assert identity != search(datasets=[4]).identity()
    if "objectives" in change:
        assert identity != search("optuna", datasets=[4]).identity()


def test_flags_override_the_file() -> None:
    space = search(datasets=[4], training={"epochs": {"integer": [1, 9]}})
    own = {"trials": 7, "configuration": "2d", "folds": (1, 2), "seeds": (3,)}
    resources = {"cpus": 2.0, "gpus": 0.5, "concurrent": 3, "data_workers": 1}
    training = {"epochs": 20, "iterations_per_epoch": 30}
    changed = space.with_overrides(dataset="006", plans="otherPlans", country="FRA", **own, **resources, **training)
    assert {name: getattr(changed, name) for name in own} == own
    assert changed.planned == [(6, "otherPlans")]
    assert {name: getattr(changed.resources, name) for name in resources} == resources
    assert (changed.datasets, changed.energy.country) == ((6,), "FRA")
    assert {name: changed.axes[f"training.{name}"] for name in training} == {n: Fixed(v) for n, v in training.items()}
    assert set(changed.searched) == set(space.searched) - {"training.epochs"}
    assert space.with_overrides() == space

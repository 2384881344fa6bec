"""Search spaces: domains, points, what a point trains, what makes two spaces one study; and the spaces we ship."""

from __future__ import annotations

import json
import pickle
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from examples import BRAIN, HIPPOCAMPUS, LUNG
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_data import BARE as DATASET
from raw_data import bare_dataset
from searching import plan_of

from study.common.errors import InvalidInputError, MissingDataError
from study.curriculum.chain import CHAIN_ORDERS, CHAIN_STARTS, Geometry
from study.curriculum.schemes import ALLOCATIONS, SCHEMES, STAGE_ORDERS, Axes, named_axes
from study.nnunet.datasets import DataPaths
from study.nnunet.plans import NetworkPlan
from study.search.document import BLOCKS, SETTINGS, SpaceDocument, load_space, space_from
from study.search.domains import Choice, Domain, Fixed, Integer, LogUniform, Uniform, domain_from
from study.search.space import SearchSpace
from study.search.trials import check_data, make_spec, prepared_lookup, specs
from study.store.specification import TrainingSettings, TrialSpec

GEOMETRIES = {1: BRAIN, 6: LUNG, 4: HIPPOCAMPUS}


def lookup(dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
    """Three geometries of the papers by dataset id, five folds each."""
    if dataset not in GEOMETRIES:
        raise MissingDataError(f"dataset: received {dataset!r}")
    if fold > 4:
        raise InvalidInputError(field="fold", received=fold, legal="0 to 4")
    name = f"Dataset{dataset:03d}_X"
    return plan_of(GEOMETRIES[int(dataset)], dataset=name, plans=plans, configuration=configuration), f"split-{fold}"


def document(**keys: Any) -> dict[str, Any]:
    return {"name": "test", "searcher": "grid", **keys}


def search(searcher: str = "random", trials: int = 20, **keys: Any) -> SearchSpace:
    axes = {"curriculum": {"min_patch": {"uniform": [0, 1]}, "budget": [0.1, 0.5, 1.0]}}
    return space_from(document(searcher=searcher, trials=trials, **{**axes, **keys}))


# ------------------------------------------------------------------------------------------------------------- domains

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


# -------------------------------------------------------------------------------------------------------------- points


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


# ------------------------------------------------------------------------------------------------------- prepared data


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


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ((5, None, "3d_fullres", 0), MissingDataError, "dataset: received '5'"),
        ((4, "otherPlans", "3d_fullres", 0), MissingDataError, "plans: received 'otherPlans'"),
        ((4, None, "2d", 0), InvalidInputError, "configuration: received '2d'"),
        ((4, None, "3d_fullres", 5), InvalidInputError, "fold: received 5"),
    ],
)
def test_what_is_missing_is_named(
    prepared: DataPaths, asked: tuple[int, str | None, str, int], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        prepared_lookup(prepared)(*asked)


def test_missing_preprocessed_cases_are_named(prepared: DataPaths) -> None:
    for path in (prepared.preprocessed / DATASET / "nnUNetPlans_3d_fullres").iterdir():
        path.unlink()
    with pytest.raises(MissingDataError, match="no preprocessed cases"):
        prepared_lookup(prepared)(4, None, "3d_fullres", 0)


def test_importing_loads_nothing_heavy() -> None:
    heavy = "[m for m in ('torch', 'ray', 'nnunetv2', 'numpy') if m in sys.modules]"
    code = f"import sys, study.search.trials, study.search.document; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------- identity and overrides


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
    own = {"trials": 7, "plans": "otherPlans", "configuration": "2d", "folds": (1, 2), "seeds": (3,)}
    resources = {"cpus": 2.0, "gpus": 0.5, "concurrent": 3, "data_workers": 1}
    training = {"epochs": 20, "iterations_per_epoch": 30}
    changed = space.with_overrides(dataset="006", country="FRA", **own, **resources, **training)
    assert {name: getattr(changed, name) for name in own} == own
    assert {name: getattr(changed.resources, name) for name in resources} == resources
    assert (changed.datasets, changed.energy.country) == ((6,), "FRA")
    assert {name: changed.axes[f"training.{name}"] for name in training} == {n: Fixed(v) for n, v in training.items()}
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


# --------------------------------------------------------------------------------------------------- the spaces we ship

FOLDER = Path(__file__).resolve().parents[1] / "search_spaces"
PATHS = sorted(FOLDER.glob("*.yaml"))


class RankedData:
    """What a space finds of data that is not there: a plan of the geometry, and the ranking of 24 training cases."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry

    def __call__(self, dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
        return plan_of(self._geometry, plans=plans, configuration=configuration), f"split-{fold}"

    def ranked(self, dataset: int | str, fold: int, metric: str) -> tuple[str, ...]:
        return tuple(f"case_{fold}_{number:02d}" for number in range(24))


def shipped(name: str, geometry: Geometry = HIPPOCAMPUS, **changes: Any) -> tuple[SearchSpace, list[TrialSpec]]:
    """A space and the first trial of each of its points; of Optuna's, of the corners."""
    space = load_space(FOLDER / f"{name}.yaml").with_overrides(**changes)
    if not space.datasets:
        space = space.with_overrides(dataset=4)
    if space.method.points:
        points = list(space.points())
    else:
        ends = [(domain.probes()[0], domain.probes()[-1]) for domain in space.searched.values()]
        points = [dict(zip(space.searched, corner, strict=True)) for corner in zip(*ends, strict=True)]
    return space, [specs(space, point, RankedData(geometry))[0] for point in points]


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=["brain", "lung", "hippocampus"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_point_resolves_on_every_geometry(path: Path, geometry: Geometry) -> None:
    # The number of iterations is not at issue here, and drawing a quarter of a million sizes takes a while.
    space, made = shipped(path.stem, geometry, iterations_per_epoch=10)
    assert space.name == path.stem
    for spec in made:
        assert spec.curriculum.stages[-1].patch_size == geometry.patch_size
        assert spec.curriculum.voxel_share > 0


def test_the_demo_is_six_cheap_trials_that_differ() -> None:
    space, made = shipped("smoke")
    assert len(made) == len({spec.trial_id for spec in made}) == 6
    training = made[0].training
    assert training.epochs * training.iterations_per_epoch <= 500
    assert not training.test_time_mirroring
    assert space.resources.gpus == 0


def test_the_search_has_the_four_axes() -> None:
    assert list(shipped("pgps")[0].searched) == [
        f"curriculum.{name}" for name in ("min_patch", "stages", "batch_growth", "budget")
    ]


@pytest.mark.parametrize(("name", "points", "datasets"), [("paper_lung", 12, (6,)), ("paper_msd", 30, range(1, 11))])
def test_the_papers_spaces_are_reference_runs(name: str, points: int, datasets: range | tuple[int]) -> None:
    space, made = shipped(name, BRAIN)
    assert (len(made), space.datasets, space.folds) == (points, tuple(datasets), (0, 1, 2, 3, 4))
    for point in space.points():
        settings = space.settings(point)
        assert (settings.training, settings.axes.allocation) == (TrainingSettings(), "reference")
    if name == "paper_msd":
        shares = {spec.scheme: round(100 * spec.curriculum.voxel_share, 2) for spec in made}
        assert shares == {"cps": 100.0, "pgps": 38.08, "pgps+": 51.78}


def test_the_posters_space_trains_once_to_its_highest_threshold() -> None:
    _, made = shipped("paper_pdl", iterations_per_epoch=10)
    assert all(spec.curriculum.is_constant and spec.training.stop_at_dice == 0.95 for spec in made)
    found = [spec.data and (len(spec.data.cases), spec.data.until_iteration) for spec in made]
    assert found == [None, (6, 100), (12, 100)]


def test_the_two_curricula_are_combined_in_every_way() -> None:
    _, made = shipped("pdl_pgps", iterations_per_epoch=10)
    seen = {(spec.scheme, len(spec.data.cases) if spec.data else 24) for spec in made}
    assert seen == {(scheme, cases) for scheme in ("cps", "pgps", "rpss") for cases in (6, 12, 24)}
    assert len({spec.trial_id for spec in made}) == 9


def test_the_readme_documents_every_key_and_file_and_names_no_other() -> None:
    text = (FOLDER / "README.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    blocks = {key for block in BLOCKS.values() for key in block.model_fields}
    keys = {*SpaceDocument.model_fields, *blocks, *(key for legal in SETTINGS.values() for key in legal)}
    sections = {*BLOCKS, *SETTINGS}
    assert documented == keys - sections
    assert all(re.search(rf"^`{section}`: ", text, flags=re.MULTILINE) for section in sections)
    assert all(f"| `{path.name}` |" in text for path in PATHS)

"""The format of space files: what a key means, how YAML is read, and what is refused in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.common.errors import InvalidInputError, StudyError
from study.search.algorithms import SEARCHERS
from study.search.document import load_space, parse_yaml, space_from
from study.search.domains import Choice, Fixed, Integer, LogUniform, Uniform


def document(**keys: Any) -> dict[str, Any]:
    return {"name": "test", "searcher": "grid", **keys}


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        """
        name: all-of-it
        searcher: optuna
        trials: 12
        seed: 3
        objectives: [dice, voxel_share]
        datasets: [004]
        plans: nnUNetResEncUNetMPlans
        configuration: 3d_lowres
        folds: [0, 2]
        seeds: [0, 1]
        resources: {cpus: 2.5, gpus: 0.5, concurrent: 3, data_workers: 0}
        energy: {meter: none, country: FRA, pue: 1.4}
        trackers: {mlflow: "http://host:5000", wandb: null}
        training: {optimizer: [sgd, adamw], initial_learning_rate: {log_uniform: [1e-4, 1e-1]}, epochs: 5}
        curriculum:
          scheme: {choice: [pgps, pgps+]}
          stages: {integer: [1, 9]}
          min_patch: {uniform: [0, 1]}
        """
    )
    space = load_space(path)
    assert (space.name, space.searcher, space.trials, space.seed) == ("all-of-it", "optuna", 12, 3)
    assert space.objectives == ("dice", "voxel_share")
    assert (space.datasets, space.planned, space.configuration) == ((4,), [(4, "nnUNetResEncUNetMPlans")], "3d_lowres")
    assert (space.folds, space.seeds) == ((0, 2), (0, 1))
    assert (space.resources.cpus, space.resources.gpus) == (2.5, 0.5)
    assert (space.resources.concurrent, space.resources.data_workers) == (3, 0)
    assert (space.energy.meter, space.energy.country, space.energy.pue) == ("none", "FRA", 1.4)
    assert space.trackers == {"mlflow": "http://host:5000"} and "trackers" not in space.identity()
    assert space.axes["training.epochs"] == Fixed(5)
    assert space.searched == {
        "curriculum.scheme": Choice(("pgps", "pgps+")),
        "curriculum.min_patch": Uniform(0.0, 1.0),
        "curriculum.stages": Integer(1, 9),
        "training.optimizer": Choice(("sgd", "adamw")),
        "training.initial_learning_rate": LogUniform(1e-4, 1e-1),
    }


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e-3", 1e-3),
        ("3e-5", 3e-5),
        ("1E4", 1e4),
        (".5", 0.5),
        ("-1.", -1.0),
        ("7", 7),
        ("0", 0),
        ("true", True),
        ("NO", "NO"),
        ("yes", "yes"),
        ("on", "on"),
        ("012", "012"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
        ("'1e-3'", "1e-3"),
        ("null", None),
        ("~", None),
        ("", None),
        ("<<", "<<"),
    ],
)
def test_yaml_is_read_as_people_mean_it(written: str, read: object) -> None:
    value = parse_yaml(f"key: {written}")["key"]
    assert value == read
    assert type(value) is type(read)


REFUSED_TEXT = [
    ("name: a\nname: b", "line 2: received 'name', legal is each key once"),
    ("training:\n  epochs: 1\n  epochs: 2", "line 3: received 'epochs', legal is each key once"),
    ("1: a", "line 1: received 1, legal is words as keys"),
    ("? [a]\n: b", "legal is words as keys"),
    ("a: [1", "line 1, column 6"),
    ("a: !!python/object:os.system x", "could not determine a constructor"),
    ("a: !!int x", "legal is well-formed YAML"),
    ("a: 1\n---\nb: 2", "legal is well-formed YAML"),
    ("a: \x00", "legal is well-formed YAML"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED_TEXT)
def test_broken_yaml_is_one_line_with_a_place(text: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_yaml(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


REFUSED = [
    # keys
    (document(trails=3), "unknown key trails: received 'trails', legal is one of name, searcher, trials", "'trials'"),
    (document(training={"epoch": 3}), "unknown key training.epoch: received 'epoch', legal is one of opt", "'epochs'"),
    (document(curriculum={"min_pach": 0}), "unknown key curriculum.min_pach", "'min_patch'"),
    (document(resources={"cpu": 1}), "unknown key resources.cpu: received 'cpu', legal is one of cpus, gp", "'cpus'"),
    (document(energy={"contry": "FRA"}), "unknown key energy.contry", "did you mean 'country'?"),
    (document(trackers={"tensorbord": "x"}), "unknown key trackers.tensorbord", "did you mean 'tensorboard'?"),
    ({"name": "a", "seacher": "grid"}, "unknown key seacher", "did you mean 'searcher'?"),
    ({"name": "a"}, "searcher: received None", "the key is required"),
    ([], "search space: received []", "keys with values"),
    # types
    (document(trials="ten"), "trials: received 'ten'", "a whole number"),
    (document(trials=1.5), "trials: received 1.5", "a whole number"),
    (document(seed=True), "seed: received True", "a whole number"),
    (document(folds=3), "folds: received 3", "a list"),
    (document(folds=[0, "x"]), "folds.1: received 'x'", "a whole number"),
    (document(resources=3), "resources: received 3", "keys with values"),
    (document(training=None), "training: received None", "keys with values"),
    (document(trackers=["mlflow"]), "trackers: received ['mlflow']", "keys with values"),
    (document(trackers={"wandb": True}), "trackers.wandb: received True", "a word"),
    (document(plans=3), "plans: received 3", "a word"),
    # ranges of the study
    (document(name="a b"), "name: received 'a b'", "letters"),
    (document(searcher="gird"), "searcher: received 'gird'", ", ".join(SEARCHERS)),
    (document(trials=0), "trials: received 0", "from 1 to 100000"),
    (document(seed=-1), "seed: received -1", "at least 0"),
    (document(folds=[]), "folds: received []", "each once"),
    (document(folds=[1, 1]), "folds: received [1, 1]", "each once"),
    (document(seeds=[-1]), "seeds: received -1", "at least 0"),
    (document(resources={"cpus": 0}), "resources.cpus: received 0", "above 0"),
    (document(resources={"gpus": 2}), "resources.gpus: received 2", "from 0 to 1"),
    (document(resources={"concurrent": 0}), "resources.concurrent: received 0", "at least 1"),
    (document(resources={"data_workers": -1}), "resources.data_workers: received -1", "from 0 to 1024"),
    (document(resources={"data_workers": 1025}), "resources.data_workers: received 1025", "from 0 to 1024"),
    (document(resources={"compile_cache": "/a\0b"}), "resources.compile_cache: received '/a\\x00b'", "a path"),
    (document(energy={"meter": "watt"}), "energy.meter: received 'watt'", "codecarbon, none"),
    (document(energy={"country": "DE"}), "energy.country: received 'DE'", "three-letter"),
    (document(energy={"country": "fra"}), "energy.country: received 'fra'", "three-letter"),
    (document(energy={"pue": 0.9}), "energy.pue: received 0.9", "from 1 to 10"),
    # datasets
    (document(datasets=[]), "datasets: received []", "at least one value"),
    (document(datasets=[0]), "dataset: received 0", "Dataset004_Hippocampus"),
    (document(datasets=["hippo"]), "dataset: received 'hippo'", "Dataset004_Hippocampus"),
    (document(datasets=[4, "004"]), "datasets: received [4, 4]", "each value once"),
    (document(datasets=[4, None]), "datasets: received None", "--dataset"),
    (document(searcher="random", trials=3, datasets=[4, 6], curriculum={"budget": [0.5, 1]}), "datasets: rec", "grid"),
    # domains
    (document(curriculum={"min_patch": []}), "curriculum.min_patch: received []", "at least one value"),
    (document(curriculum={"min_patch": {"choice": []}}), "curriculum.min_patch.choice: received []", "at least one"),
    (document(curriculum={"min_patch": {"choice": 0.5}}), "curriculum.min_patch.choice: received 0.5", "a list"),
    (document(curriculum={"min_patch": [0, 0.0]}), "curriculum.min_patch: received [0, 0.0]", "each value once"),
    (document(curriculum={"min_patch": {"unifrom": [0, 1]}}), "received 'unifrom'", "did you mean 'uniform'?"),
    (document(curriculum={"min_patch": {}}), "curriculum.min_patch: received {}", "choice, uniform"),
    (document(curriculum={"min_patch": {"uniform": [0, 1], "choice": [0]}}), "curriculum.min_patch", "alone"),
    (document(curriculum={"min_patch": {"uniform": [1, 0]}}), "curriculum.min_patch.uniform: received [1", "low below"),
    (document(curriculum={"min_patch": {"uniform": [0, 0]}}), "curriculum.min_patch.uniform", "low below high"),
    (document(curriculum={"min_patch": {"uniform": [0]}}), "curriculum.min_patch.uniform: received [0]", "two numbers"),
    (document(curriculum={"min_patch": {"uniform": [0, float("nan")]}}), "curriculum.min_patch.uniform", "two numbers"),
    (document(curriculum={"min_patch": {"uniform": [0, float("inf")]}}), "curriculum.min_patch.uniform", "two numbers"),
    (document(curriculum={"min_patch": {"uniform": [0, 10**400]}}), "curriculum.min_patch.uniform", "two numbers"),
    (document(curriculum={"min_patch": {"uniform": ["a", 1]}}), "curriculum.min_patch.uniform", "two numbers"),
    (document(curriculum={"stages": {"integer": [1, 2.5]}}), "curriculum.stages.integer", "two whole numbers"),
    (document(training={"weight_decay": {"log_uniform": [0, 1]}}), "training.weight_decay.log_uniform", "above 0"),
    (document(curriculum={"min_patch": [[0], 1]}), "curriculum.min_patch: received [0]", "a number, a word"),
    # values of settings, each of every domain
    (document(curriculum={"scheme": "pgsp"}), "curriculum.scheme: received 'pgsp'", "cps, pgps, pgps+"),
    (document(curriculum={"scheme": ["cps", "pgsp"]}), "curriculum.scheme: received 'pgsp'", "cps, pgps, pgps+"),
    (document(curriculum={"min_patch": [0.5, 1.5]}), "curriculum.min_patch: received 1.5", "from 0 to 1"),
    (document(curriculum={"min_patch": "0.5"}), "curriculum.min_patch: received '0.5'", "a number from 0 to 1"),
    (document(curriculum={"stages": {"integer": [0, 3]}}), "curriculum.stages: received 0", "at least 1"),
    (document(training={"epochs": {"uniform": [1, 5]}}), "training.epochs: received {'uniform': [1.0, 5.0]}", "whole"),
    (document(training={"epochs": [1, 10**6], "iterations_per_epoch": [1, 10**6]}), "epochs times", "10000000"),
    # searchers
    (document(curriculum={"min_patch": {"uniform": [0, 1]}}), "curriculum.min_patch: received {'uni", "in a grid"),
    (document(training={"weight_decay": {"log_uniform": [1, 2]}}), "training.weight_decay: received", "in a grid"),
    (document(training={"epochs": {"integer": [1, 200_000]}, "iterations_per_epoch": 1}), "searcher", "100000 points"),
    (document(searcher="random", curriculum={"budget": [0.5, 1]}), "trials: received None", "whole number"),
    (document(searcher="random", trials=3), "searcher: received 'random'", "grid"),
    (document(searcher="optuna", trials=3), "searcher: received 'optuna'", "grid"),
    (document(objectives=["dice"]), "objectives: received ['dice']", "left out"),
]
REFUSED += [
    (document(searcher="optuna", trials=3, curriculum={"budget": [0.5, 1]}, **keys), *words)
    for keys, *words in [
        (
            {"objectives": ["dise"]},
            "objectives: received 'dise'",
            "dice, runtime_seconds, co2_kg, energy_kwh, voxel_share",
        ),
        ({"objectives": []}, "objectives: received []", "each one once"),
        ({"objectives": ["dice", "dice"]}, "objectives: received ['dice', 'dice']", "each one once"),
        ({"energy": {"meter": "none"}}, "objectives: received 'co2_kg'", "while energy.meter is none"),
        ({"metrics": ["NSD"]}, "metrics: received 'NSD'", "one of nsd, hd95_mm"),
        ({"metrics": "nsd"}, "metrics: received 'nsd'", "a list"),
        ({"metrics": ["nsd", "nsd"]}, "metrics: received ['nsd', 'nsd']", "each one once"),
        ({"metrics": ["nsd"], "nsd_tolerance_mm": -1}, "nsd_tolerance_mm: received -1", "from 0 to 1000"),
        ({"objectives": ["nsd", "runtime_seconds"]}, "objectives: received 'nsd'", "listed under metrics"),
        ({"metrics": ["nsd"], "objectives": ["hd95_mm"]}, "objectives: received 'hd95_mm'", "listed under"),
    ]
]


@pytest.mark.parametrize(("written", "received", "legal"), REFUSED, ids=lambda value: str(value)[:60])
def test_bad_input_is_one_line_with_received_and_legal(written: Any, received: str, legal: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        space_from(written)
    message = str(caught.value)
    assert received in message
    assert legal in message
    assert "\n" not in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.sampled_from(["pgps", "sgd", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choice", "uniform", "log_uniform", "integer", "z"]), inner, max_size=2)
    ),
    max_leaves=5,
)
KEYS = ("trials", "seed", "objectives", "datasets", "plans", "folds", "seeds", "resources", "energy", "other")


@settings(max_examples=300, deadline=None)
@given(
    searcher=st.sampled_from(sorted(SEARCHERS)),
    top=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=2),
    block=st.sampled_from(["curriculum", "training", "resources", "energy"]),
    keys=st.lists(
        st.sampled_from(["scheme", "stages", "min_patch", "epochs", "optimizer", "momentum", "cpus", "pue", "country"]),
        max_size=2,
    ),
    data=st.data(),
)
def test_no_document_raises_anything_but_a_user_error(
    searcher: str, top: dict[str, Any], block: str, keys: list[str], data: st.DataObject
) -> None:
    inner = {key: data.draw(JSON) for key in keys}
    try:
        space = space_from({"name": "a", "searcher": searcher, **top, block: inner})
    except StudyError as error:
        assert "\n" not in str(error)
    else:
        json.dumps(space.identity(), allow_nan=False)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab1:-[]{}&*!,'\"#|>?%@ \n\t\x00é", max_size=40))
def test_no_text_raises_anything_but_a_user_error(text: str) -> None:
    try:
        parse_yaml(text)
    except InvalidInputError as error:
        assert error.legal


SEARCH: dict[str, Any] = {"name": "a", "searcher": "optuna", "trials": 2, "curriculum": {"stages": {"integer": [1, 3]}}}


def test_metrics_may_change_while_a_study_goes_on_but_not_the_tolerance_of_an_objective() -> None:
    plain = space_from(SEARCH).identity()
    asked = space_from({**SEARCH, "metrics": ["nsd", "hd95_mm"], "nsd_tolerance_mm": 2})
    assert (asked.metrics.names, asked.metrics.nsd_tolerance_mm) == (("nsd", "hd95_mm"), 2)
    assert asked.identity() == plain
    searched = {**SEARCH, "metrics": ["nsd"], "objectives": ["nsd", "runtime_seconds"]}
    one, other = (space_from({**searched, "nsd_tolerance_mm": mm}).identity() for mm in (1, 2))
    assert one != other

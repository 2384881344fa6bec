"""Plans as an axis: each trial's curriculum on its own plan's geometry, and what is refused before any training."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import BRAIN, HIPPOCAMPUS
from raw_data import BARE, bare_dataset
from searching import FINISHED, end, plan_of

from study.cli.calibrate import specs_of
from study.cli.run import previous_stage
from study.common import files
from study.common.errors import InvalidInputError, LedgerError, MissingDataError
from study.nnunet.datasets import DataPaths
from study.nnunet.plans import NetworkPlan
from study.search.dashboard import searched_space
from study.search.document import begun_space, space_from
from study.search.domains import PLANS
from study.search.pareto import Pareto, published
from study.search.samplers import AdaptiveSampler, make_sampler
from study.search.space import SearchSpace, resolved_space
from study.search.trials import check_data, prepared_lookup, specs
from study.store.ledger import Ledger
from study.store.outcomes import Outcome
from study.store.status import scheme_words, study_status

PLAIN, RESIDUAL = "nnUNetPlans", "nnUNetResEncUNetLPlans"
GEOMETRIES = {PLAIN: BRAIN, RESIDUAL: HIPPOCAMPUS}
SPACE: dict[str, Any] = {
    "name": "plans",
    "searcher": "grid",
    "datasets": [4],
    "plans": [PLAIN, RESIDUAL],
    "curriculum": {"scheme": ["cps", "pgps"]},
    "training": {"epochs": 4, "iterations_per_epoch": 25},
}
ADAPTIVE: dict[str, Any] = {
    **SPACE,
    "trials": 14,
    "objectives": ["dice", "runtime_seconds"],
    "curriculum": {"min_patch": [0, 0.3, 0.6, 1], "budget": [0.25, 0.5, 1]},
}


def lookup(dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
    """A geometry for each plan."""
    assert plans is not None
    return plan_of(GEOMETRIES[plans], plans=plans, configuration=configuration), f"split-{fold}"


def space_of(**changes: Any) -> SearchSpace:
    return space_from({**SPACE, **changes})


def adaptive(searcher: str) -> SearchSpace:
    listed = {"objectives": []} if searcher == "random" else {}
    return space_from({**ADAPTIVE, **listed, "searcher": searcher})


def test_the_curriculum_of_a_trial_is_resolved_on_the_geometry_of_its_own_plan() -> None:
    space = space_of()
    made = [specs(space, point, lookup)[0] for point in space.points()]
    assert [(one.plans, one.scheme) for one in made] == [
        *((PLAIN, "cps"), (PLAIN, "pgps"), (RESIDUAL, "cps"), (RESIDUAL, "pgps"))
    ]
    for one in made:
        geometry = GEOMETRIES[one.plans]
        assert one.curriculum.geometry == geometry
        assert one.curriculum.stages[-1].patch_size == geometry.patch_size
    # They are the trials of two studies with one plan each.
    alone = [space_of(plans=name) for name in (PLAIN, RESIDUAL)]
    assert [one.trial_id for one in made] == [
        spec.trial_id for each in alone for point in each.points() for spec in specs(each, point, lookup)
    ]


def test_calibrate_sees_the_sizes_of_every_plan_however_large_the_grid() -> None:
    budgets = [percent / 100 for percent in range(10, 101)]
    space = space_of(curriculum={"budget": budgets, "min_patch": [step / 12 for step in range(13)]})
    assert {one.plans for one in specs_of(space, lookup)} == {PLAIN, RESIDUAL}


@pytest.mark.parametrize("written", [PLAIN, [PLAIN], {"choice": [PLAIN]}])
def test_one_plan_is_no_axis_and_the_study_that_it_always_was(written: Any) -> None:
    space = space_of(plans=written)
    assert PLANS not in space.searched and space.identity()[PLANS] == PLAIN
    assert space.identity() == space_of(plans=None).with_overrides(plans=PLAIN).identity()
    assert space_of(plans=None).identity()[PLANS] is None


REFUSED_SPACES: list[tuple[Any, str]] = [
    (3, "plans: received 3, legal is a word"),
    (True, "plans: received True, legal is a word"),
    ("", "plans: received '', legal is a word"),
    ([], "plans: received [], legal is a list of at least one value"),
    ([PLAIN, 7], "plans: received 7, legal is a word"),
    ([PLAIN, None], "plans: received None, legal is names"),
    ([PLAIN, PLAIN], f"plans: received ['{PLAIN}', '{PLAIN}'], legal is each value once"),
    ([PLAIN, [RESIDUAL]], "plans: received ['nnUNetResEncUNetLPlans'], legal is a number, a word"),
    ({"uniform": [0, 1]}, "plans: received {'uniform': [0.0, 1.0]}, legal is a word"),
    ({"integer": [1, 3]}, "plans: received 1, legal is a word"),
    ({"choices": [PLAIN, RESIDUAL]}, "plans: received 'choices', legal is one of choice"),
    ([PLAIN, "../other/nnUNetPlans"], "plans: received '../other/nnUNetPlans', legal is a word"),
    ("/data/nnUNetPlans.json", "plans: received '/data/nnUNetPlans.json', legal is a word"),
    ([PLAIN, "a\nb"], r"plans: received 'a\nb', legal is a word"),
]


@pytest.mark.parametrize(("written", "words"), REFUSED_SPACES)
def test_what_are_no_plans_is_one_line(written: Any, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        space_of(plans=written)
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


def test_what_does_not_go_with_an_axis_of_plans_is_one_line() -> None:
    with pytest.raises(InvalidInputError, match=f"--plans: received 'Other', legal is left out where .*: {PLAIN}, "):
        space_of().with_overrides(plans="Other")
    with pytest.raises(InvalidInputError, match="objectives: received 'voxel_share', legal is runtime_seconds, energy"):
        space_from({**ADAPTIVE, "searcher": "optuna", "objectives": ["dice", "voxel_share"]})


@pytest.mark.parametrize("searcher", ["random", "optuna", "pareto"])
def test_an_interrupted_search_over_plans_proposes_what_an_undisturbed_one_would(searcher: str, tmp_path: Path) -> None:
    space = adaptive(searcher)
    whole, parts = (Ledger.create(tmp_path / name, space=space.identity()) for name in ("whole", "parts"))

    def some(ledger: Ledger, most: int) -> None:
        sampler = make_sampler(space, ledger, lookup)
        for _ in range(most):
            if (proposal := sampler.propose()) is not None:
                sampler.tell(proposal.number, end(ledger, space, proposal, FINISHED, lookup))

    some(whole, 14)
    for _ in range(4):
        some(parts, 4)
    points = [record["point"] for record in whole.points()]
    assert points == [record["point"] for record in parts.points()] and len(points) == 14
    assert {point[PLANS] for point in points} == {PLAIN, RESIDUAL}


def test_pareto_begins_with_the_published_schemes_of_every_plan_and_models_the_plan(tmp_path: Path) -> None:
    space = adaptive("pareto")
    first = [(point[PLANS], point["curriculum.min_patch"]) for point in published(space)]
    assert {plans for plans, _ in first} == {PLAIN, RESIDUAL} and len(first) == 2 * len({each for _, each in first})
    sampler = make_sampler(space, Ledger.create(tmp_path / "s", space=space.identity()), lookup)
    assert isinstance(sampler, AdaptiveSampler) and isinstance(sampler.strategy, Pareto)
    twins = [{PLANS: name, "curriculum.min_patch": 0.5, "curriculum.budget": 1} for name in (PLAIN, RESIDUAL)]
    rows = sampler.strategy._encoding.rows(twins)
    assert not np.array_equal(rows[0], rows[1])


def test_a_cost_is_not_carried_to_another_plan_that_has_its_own(tmp_path: Path) -> None:
    space = adaptive("pareto")
    sampler = make_sampler(space, Ledger.create(tmp_path / "s", space=space.identity()), lookup)
    assert isinstance(sampler, AdaptiveSampler) and isinstance(sampler.strategy, Pareto)
    pareto, known = sampler.strategy, []
    work = np.array(pareto._work)[:, 2] * 1e-8
    paces = {PLAIN: 1.0, RESIDUAL: 50.0}
    truth = np.array([each * paces[str(p[PLANS])] for each, p in zip(work, pareto.points, strict=True)])
    for number, place in enumerate(range(0, len(work), 2)):
        pareto.begin(number, pareto.points[place])
        values = {"dice": 0.8, "runtime_seconds": float(truth[place])}
        pareto.tell(number, Outcome(state=FINISHED, values=values))
        known.append(place)
    assert {pareto.points[place][PLANS] for place in known} == {PLAIN, RESIDUAL}
    assert pareto._cost("runtime_seconds", known) == pytest.approx(truth, rel=0.05)


def write_plans(paths: DataPaths, name: str, **changes: Any) -> None:
    """Another plan of the bare dataset, with its preprocessed cases."""
    folder = paths.preprocessed / BARE
    document = files.read_json(folder / f"{PLAIN}.json")
    files.write_json(folder / f"{name}.json", {**document, "plans_name": name, **changes})


@pytest.fixture
def prepared(tmp_path: Path) -> DataPaths:
    return bare_dataset(tmp_path)


def test_a_study_over_plans_is_the_same_whatever_its_dataset_is_called_and_another_with_other_plans(
    prepared: DataPaths, tmp_path: Path
) -> None:
    write_plans(prepared, RESIDUAL)
    write_plans(prepared, "third")
    made = resolved_space(space_of(), prepared, {})
    assert made.resolved == {BARE: [PLAIN, RESIDUAL]}
    check_data(made, prepared_lookup(prepared))
    ledger = Ledger.create(tmp_path / "study", space=made.identity())
    again = resolved_space(space_of(datasets=[BARE]), prepared, ledger.header())
    assert Ledger.create(tmp_path / "study", space=again.identity()).root == ledger.root
    for plans in ([PLAIN, RESIDUAL, "third"], PLAIN, None):
        other = resolved_space(space_of(plans=plans), prepared, ledger.header())
        with pytest.raises(LedgerError, match="belongs to another study: plans differ"):
            Ledger.create(tmp_path / "study", space=other.identity())
    # What is rebuilt from the header is searched over the same plans.
    for found in (begun_space(ledger.header(), 4), searched_space(ledger)):
        assert [*found.points()] == [*made.points()]
    assert begun_space(ledger.header(), 4).planned == [(4, PLAIN), (4, RESIDUAL)]


def test_a_plan_that_is_not_prepared_is_named_with_the_command_that_prepares_it(prepared: DataPaths) -> None:
    with pytest.raises(MissingDataError) as caught:
        resolved_space(space_of(), prepared, {})
    assert str(caught.value).startswith(f"plans: received '{RESIDUAL}', legal for {BARE} is one of {PLAIN}; ")
    root = prepared.preprocessed.parent
    command = f"prepare --raw FOLDER --id 4 --data {root} --planner nnUNetPlannerResEncL`"
    assert str(caught.value).endswith(f"-m study {command}")
    # What `prepare` noted says the images and how small the plans are.
    small = {"max_features": 16, "patch_size": [24, 24, 24], "batch_size": 2}
    recipe = {"planner": "ExperimentPlanner", "small": small, "small_configurations": ["3d_fullres"]}
    noted = {"source": {"kind": "msd", "folder": "/a b/Task04"}, "plans": {f"{PLAIN}Small": {"recipe": recipe}}}
    files.write_json(prepared.preprocessed / BARE / "pgps_prepared.json", noted)
    for wanted, command in (
        (f"{RESIDUAL}Small", "--planner nnUNetPlannerResEncL --max-features 16 --patch-size 24 24 24 --batch-size 2`"),
        ("Mine", "--planner PLANNER --plans-name Mine`"),
    ):
        with pytest.raises(MissingDataError) as caught:
            resolved_space(space_of(plans=[PLAIN, wanted]), prepared, {})
        assert str(caught.value).endswith(f"--msd '/a b/Task04' --id 4 --data {root} {command}")


def test_what_a_plan_lacks_is_named_before_anything_starts(prepared: DataPaths) -> None:
    configurations = files.read_json(prepared.preprocessed / BARE / f"{PLAIN}.json")["configurations"]
    elsewhere = {"3d_fullres": {**configurations["3d_fullres"], "data_identifier": "own_3d_fullres"}}
    for changes, words in (
        ({"configurations": {"2d": configurations["3d_fullres"]}}, f"one of 2d, the configurations of {RESIDUAL}"),
        ({"configurations": elsewhere}, f"no preprocessed cases for {BARE} {RESIDUAL} 3d_fullres at .*own_3d_fullres"),
        ({"dataset_name": "Dataset005_X"}, f"{RESIDUAL}.json holds {RESIDUAL} of Dataset005_X by its own words"),
        ({"plans_name": "Moved"}, f"{RESIDUAL}.json holds Moved of {BARE} by its own words, not {RESIDUAL}"),
    ):
        write_plans(prepared, RESIDUAL, **changes)
        space = resolved_space(space_of(), prepared, {})
        with pytest.raises((InvalidInputError, MissingDataError), match=words) as caught:
            check_data(space, prepared_lookup(prepared))
        assert "\n" not in str(caught.value)


def test_a_cascade_is_of_one_dataset_and_one_plan(prepared: DataPaths, tmp_path: Path) -> None:
    configurations = files.read_json(prepared.preprocessed / BARE / f"{PLAIN}.json")["configurations"]
    cascade = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    for name in (PLAIN, RESIDUAL):
        write_plans(prepared, name, configurations={**configurations, "3d_cascade_fullres": cascade})
    shutil.copytree(prepared.preprocessed / BARE, prepared.preprocessed / "Dataset005_Other")
    other = prepared.preprocessed / "Dataset005_Other" / f"{PLAIN}.json"
    files.write_json(other, {**files.read_json(other), "dataset_name": "Dataset005_Other"})
    args = argparse.Namespace(data=prepared.preprocessed.parent, previous_stage=tmp_path)
    alone = {"plans": PLAIN, "configuration": "3d_cascade_fullres"}
    assert previous_stage(space_of(**alone), args) == tmp_path
    with pytest.raises(InvalidInputError, match=r"--previous-stage: received .*legal is left out: 3d_fullres of"):
        previous_stage(space_of(plans=PLAIN), args)
    with pytest.raises(InvalidInputError, match=f"datasets: received .*legal is each one once: they are {BARE}"):
        resolved_space(space_of(plans=PLAIN, datasets=[4, BARE]), prepared, {})
    for several in ({"plans": [PLAIN, RESIDUAL]}, {"datasets": [4, 5]}):
        with pytest.raises(InvalidInputError, match="legal is one dataset with one plan for a cascade") as caught:
            previous_stage(space_of(**{**alone, **several}), args)
        assert "\n" not in str(caught.value)


def test_plans_are_told_where_a_study_searches_them(tmp_path: Path) -> None:
    for space, words in ((space_of(), f"pgps {RESIDUAL}"), (space_of(plans=RESIDUAL), "pgps")):
        ledger = Ledger.create(tmp_path / words.replace(" ", "-"), space=space.identity())
        for point in space.points():
            ledger.add(specs(space, point, lookup)[0])
        told = [scheme_words(row) for row in study_status(ledger)]
        assert words in told and len({*told}) == len([*space.points()])
        assert {row.to_json()["plans"] for row in study_status(ledger)} >= {RESIDUAL}

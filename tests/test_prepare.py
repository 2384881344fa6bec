"""Preparation: sources as people have them, contradictions in one line, steps that survive, a second call that is none.

Every call that works starts nnU-Net in a process of its own, so a few of them have to show everything.
"""

from __future__ import annotations

import argparse
import inspect
import multiprocessing
import os
import pickle
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prepared import NAME, NUMBER
from raw_data import CASES, rewrite, with_label_seven

from study import __main__
from study.cli import trial
from study.common import files
from study.common.errors import DataIntegrityError, InvalidInputError, MachineError, MissingDataError
from study.nnunet.datasets import DataPaths, data_paths, find_dataset
from study.nnunet.phantom import write_phantom_dataset
from study.nnunet.plans import PLANS_OF_PLANNER, SmallPlan
from study.nnunet.prepare import Preparation, PreparationProgress, prepare
from study.nnunet.prepare.sources import PlansRecipe, RawFolder, msd_source, raw_source
from study.nnunet.prepare.steps import planner_class, step_count
from study.store.locks import held

SMALL = SmallPlan(max_features=8, patch_size=(32, 32, 32))
# What the `data` fixture was prepared with.
PREPARED = PlansRecipe(configurations=("3d_fullres", "2d"), plans_name="PlannedPlans", small=SmallPlan(max_features=16))


class Steps:
    """Notes the steps of a preparation; stops it when a certain one begins."""

    def __init__(self, *, stop_at: str = "never") -> None:
        self.names: list[str] = []
        self._stop_at = stop_at

    def __call__(self, progress: PreparationProgress) -> None:
        if progress.step not in self.names:
            self.names.append(progress.step)
        assert progress.done <= progress.cases
        if progress.step.startswith(self._stop_at):
            raise KeyboardInterrupt

    @property
    def kinds(self) -> list[str]:
        return [name.split()[0] for name in self.names]


def run(source: RawFolder, paths: DataPaths, recipe: PlansRecipe, steps: Steps) -> Preparation:
    return prepare(source, paths, recipe, workers=2, report=steps)


def test_a_raw_dataset_is_refused_corrected_interrupted_and_prepared(raw: Path, paths: DataPaths) -> None:
    source, recipe = raw_source(raw), PlansRecipe(small=SMALL)
    label = raw / "labelsTr" / "phantom_003.nii.gz"
    sound = label.read_bytes()
    rewrite(label, with_label_seven)
    with pytest.raises(DataIntegrityError, match=r"phantom_003.nii.gz: label value 7 is not .* legal is one of 0 1 2$"):
        run(source, paths, recipe, Steps())
    with pytest.raises(MissingDataError):
        find_dataset(paths, NUMBER)

    label.write_bytes(sound)
    with pytest.raises(KeyboardInterrupt):
        run(source, paths, recipe, Steps(stop_at="preprocessing"))
    folder = paths.preprocessed / NAME
    assert not (folder / "nnUNetPlans_3d_fullres").exists()
    with pytest.raises(MissingDataError, match=r"python -m study prepare"):
        find_dataset(paths, NUMBER)

    steps = Steps()
    done = run(source, paths, recipe, steps)
    assert steps.kinds == ["starting", "planning", "preprocessing"]
    assert not done.already_done
    assert_complete(done, cases=CASES)
    geometry = done.dataset.plan(done.plans, "3d_fullres").geometry
    assert (geometry.patch_size, geometry.divisors, geometry.batch_size) == ((32, 32, 32), (8, 8, 8), 2)
    assert done.dataset.plans_names() == ["nnUNetPlansSmall"]
    assert (paths.raw or Path()).joinpath(NAME).resolve() == raw, "the raw dataset is used where it lies"

    before = modified(folder)
    steps = Steps()
    assert run(source, paths, recipe, steps).already_done
    assert (steps.names, modified(folder)) == ([], before)


@pytest.mark.cluster
def test_a_real_download_is_converted_and_prepared(shared_data: Path, tmp_path: Path, paths: DataPaths) -> None:
    # With a label stored as float32, as in the real thing.
    cases = ["001", "003", "004", "006", "007"]
    task = poor_download(shared_data / "Task04_Hippocampus", tmp_path / "Task04_Hippo_campus", cases)
    steps = Steps()
    done = run(msd_source(task), paths, PlansRecipe(), steps)
    assert done.dataset.name == "Dataset004_Hippocampus"
    assert steps.kinds == ["starting", "converting", "verifying", "measuring", "planning", "preprocessing"]
    assert len(steps.names) <= step_count(PlansRecipe())
    assert "z-score" in " ".join(done.notes)
    assert_complete(done, cases=5)
    assert done.dataset.plans_names() == ["nnUNetPlans"]
    raw = (paths.raw or Path()) / done.dataset.name
    assert files.read_json(raw / "dataset.json")["numTraining"] == len(list((raw / "imagesTr").iterdir())) == 5

    # A small plan beside it takes over the preprocessed cases.
    preprocessed = modified(done.dataset.folder / "nnUNetPlans_3d_fullres")
    steps = Steps()
    smaller = run(msd_source(task), paths, PlansRecipe(small=SmallPlan(max_features=64)), steps)
    assert steps.kinds == ["starting", "planning"]
    assert modified(done.dataset.folder / "nnUNetPlans_3d_fullres") == preprocessed
    assert smaller.dataset.plans_names() == ["nnUNetPlans", "nnUNetPlansSmall"]
    assert smaller.dataset.choose_plans(None) == "nnUNetPlans"
    stock, small = (smaller.dataset.plan(name, "3d_fullres") for name in smaller.dataset.plans_names())
    assert small.geometry.patch_size == stock.geometry.patch_size

    # Another image in the download makes it another dataset.
    (task / "imagesTr" / "more_0.nii.gz").touch()
    with pytest.raises(DataIntegrityError, match=r"was not made from .*Task04_Hippo_campus as it is now"):
        run(msd_source(task), paths, PlansRecipe(), Steps())


def poor_download(task: Path, folder: Path, cases: list[str]) -> Path:
    """A task of links, without what many downloads lack, with what macOS leaves."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
        for case in cases:
            name = f"hippocampus_{case}.nii.gz"
            (folder / part / name).symlink_to(task / part / name)
            (folder / part / f"._{name}").write_text("not an image")
    description = files.read_json(task / "dataset.json")
    files.write_json(folder / "dataset.json", {"name": "Hippocampus", "labels": description["labels"]})
    folder.chmod(0o555)
    return folder


def assert_complete(done: Preparation, *, cases: int) -> None:
    dataset = done.dataset
    plan = dataset.plan(done.plans, "3d_fullres")
    dataset.check_preprocessed(plan)
    assert len(list((dataset.folder / plan.data_identifier).glob("*.pkl"))) == cases
    assert len(list((dataset.folder / "gt_segmentations").iterdir())) == cases
    split = dataset.split(0)
    assert (len(split.training), len(split.validation)) == (cases - 1, 1)
    assert "####" in (dataset.folder / "pgps_prepare.log").read_text(), "nnU-Net's chatter goes to the log"
    leftovers = [path for path in dataset.folder.parent.iterdir() if path != dataset.folder]
    assert leftovers == []


def modified(folder: Path) -> dict[str, int]:
    paths = [path for path in folder.rglob("*") if path.suffix != ".log"]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


def prepared_source(data: Path) -> RawFolder:
    return raw_source(data_paths(data).raw / NAME)  # type: ignore[operator]


@pytest.mark.parametrize(
    "other",
    [
        {"small": SmallPlan(max_features=32)},
        {"small": SmallPlan(max_features=16, batch_size=3)},
        {"small": None},
        {"planner": "nnUNetPlannerResEncM"},
        {"configurations": ("2d",)},
    ],
)
def test_other_options_under_the_same_name_are_refused(data: Path, other: dict[str, Any]) -> None:
    recipe = PlansRecipe(**{**vars(PREPARED), **other})
    with pytest.raises(InvalidInputError, match=r"--plans-name: received 'PlannedPlans', legal is a name not in use"):
        prepare(prepared_source(data), data_paths(data), recipe)


def test_plans_that_nnunet_made_by_itself_are_used(data: Path, tmp_path: Path) -> None:
    source, paths = prepared_source(data), DataPaths(raw=data_paths(data).raw, preprocessed=tmp_path)
    theirs, mine = tmp_path / NAME, data_paths(data).preprocessed / NAME
    theirs.mkdir()
    for name in ("dataset.json", "splits_final.json", "nnUNetPlans_3d_fullres"):
        (theirs / name).symlink_to(mine / name)
    plans = {**files.read_json(mine / "PlannedPlans.json"), "plans_name": "nnUNetPlans"}
    files.write_json(theirs / "nnUNetPlans.json", plans)
    assert prepare(source, paths, PlansRecipe()).already_done
    with pytest.raises(InvalidInputError, match=r"planner ExperimentPlanner \(asked for nnUNetPlannerResEncL\)"):
        prepare(source, paths, PlansRecipe(planner="nnUNetPlannerResEncL", plans_name="nnUNetPlans"))
    # They count as well when images have changed since: what lies beside them is not ours to drop.
    files.write_json(theirs / "pgps_prepared.json", {"inventory": "of other files"})
    with pytest.raises(DataIntegrityError, match="has changed since it was prepared"):
        prepare(source, paths, PREPARED)
    (theirs / "nnUNetPlans.json").write_text("{")
    with pytest.raises(MissingDataError, match=r"nnUNetPlans.json is no plans file"):
        prepare(source, paths)


def test_what_is_taken_or_unknown_or_cannot_be_written_is_one_line(raw: Path, paths: DataPaths, tmp_path: Path) -> None:
    source, here = raw_source(raw), paths.preprocessed / NAME
    with pytest.raises(MissingDataError, match="set nnUNet_raw"):
        prepare(source, DataPaths(raw=None, preprocessed=tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"cannot be written .*; name another --data"):
        prepare(source, data_paths(tmp_path / "file"))
    here.mkdir(parents=True)
    busy = rf"{NAME} is being prepared by another process, process {os.getpid()} on \S+ since "
    with held(here / "pgps_prepare.locks"), pytest.raises(MachineError, match=busy):
        prepare(source, paths)
    assert paths.raw is not None
    (paths.raw / NAME).unlink(missing_ok=True)
    write_phantom_dataset(paths.raw, cases=1)
    with pytest.raises(InvalidInputError, match=r"--raw: received '.*elsewhere.*', legal is the folder that"):
        prepare(source, paths)
    here.rename(here.with_name("Dataset901_Other"))
    with pytest.raises(InvalidInputError, match=r"--id: received 901, .* where 901 is Dataset901_Other"):
        prepare(source, paths)


def test_a_process_that_dies_is_one_line(raw: Path, paths: DataPaths) -> None:
    def kill(progress: PreparationProgress) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(MachineError, match=r"died \(exit code -9\), .* the same command goes on from here"):
        prepare(raw_source(raw), paths, report=kill)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"planner": "BestPlanner"}, r"--planner: received 'BestPlanner', legal is one of ExperimentPlanner"),
        ({"configurations": ("3d",)}, r"--configurations: received '3d', legal is one of 2d"),
        ({"configurations": ()}, r"--configurations: received 'nothing'"),
        ({"plans_name": "a__b"}, r"--plans-name: received 'a__b'"),
        ({"plans_name": "../a"}, r"--plans-name: received '\.\./a'"),
    ],
)
def test_recipes_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        PlansRecipe(**settings)


@pytest.mark.parametrize(
    ("settings", "plans", "planned_as"),
    [
        ({}, "nnUNetPlans", "nnUNetPlans"),
        ({"small": SMALL}, "nnUNetPlansSmall", "nnUNetPlans"),
        ({"planner": "nnUNetPlannerResEncL", "small": SMALL}, "nnUNetResEncUNetLPlansSmall", "nnUNetResEncUNetLPlans"),
        ({"plans_name": "Mine"}, "Mine", "Mine"),
        ({"plans_name": "Tiny", "small": SMALL}, "Tiny", "nnUNetPlans"),
        ({"planner": "Another", "plans_name": "Mine", "small": SMALL}, "Mine", "Mine"),
    ],
)
def test_plans_are_named(settings: dict[str, Any], plans: str, planned_as: str) -> None:
    recipe = PlansRecipe(**settings)
    assert (recipe.plans, recipe.planned_as) == (plans, planned_as)


def test_the_planners_named_are_nnunets_with_their_names_of_plans() -> None:
    for planner, plans in PLANS_OF_PLANNER.items():
        assert inspect.signature(planner_class(planner)).parameters["plans_name"].default == plans
    with pytest.raises(InvalidInputError, match="--planner: received 'BestPlanner'"):
        planner_class("BestPlanner")


def words(data: Path, *more: str) -> list[str]:
    return ["prepare", "--raw", str(prepared_source(data).folder), "--data", str(data), *more]


@pytest.mark.parametrize(("device", "most"), [("cpu", 1000), ("cuda", 250_000)])
def test_the_verb_says_that_nothing_is_to_be_done_and_what_comes_next(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, device: str, most: int
) -> None:
    monkeypatch.setattr("study.common.machine.resolve_device", lambda _: device)
    # In another order than they were prepared in.
    options = ["--plans-name", "PlannedPlans", "--max-features", "16", "--configurations", "2d", "3d_fullres"]
    assert __main__.main(words(data, *options)) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{NAME} was already prepared, nothing to do\n")
    assert "3d_fullres     patch " in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("next: ")]
    parser = argparse.ArgumentParser()
    trial.add_arguments(parser)
    said = shlex.split(line.removeprefix("next: python -m study trial "))
    spec = trial._spec(parser.parse_args(said))
    assert (spec.dataset, spec.plans, spec.configuration, spec.fold) == (NAME, "PlannedPlans", "2d", 0)
    assert spec.curriculum.total_iterations <= most
    assert (spec.training.optimizer == "adamw") is ("cpu" in said) is (device == "cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-features", "many"], "max features: received 'many'"),
        (["--patch-size", "32", "x", "32"], "patch size, axis 1: received 'x'"),
        (["--workers", "two"], "--workers: received 'two'"),
        (["--workers", "0"], "--workers: received 0"),
        (["--id", "four"], "--id: received 'four'"),
        (["--configurations", "4d"], "--configurations: received '4d'"),
    ],
)
def test_bad_options_are_one_line(data: Path, refused: Callable[..., str], options: list[str], message: str) -> None:
    assert refused(*words(data, *options)).startswith(f"error: {message}")


def test_errors_come_back_from_other_processes_whole() -> None:
    error = InvalidInputError(field="--patch-size", received=(30, 30), legal="multiples of 8", remedy="try 32 32")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (InvalidInputError, str(error), vars(error))

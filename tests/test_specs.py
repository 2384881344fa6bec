"""From settings and prepared data to the specification of a trial."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from study.common.errors import InvalidInputError, MissingDataError
from study.curriculum.chain import Geometry
from study.curriculum.schemes import Axes, named_axes
from study.nnunet.datasets import DataPaths
from study.nnunet.plans import NetworkPlan
from study.search.trials import make_spec, prepared_lookup
from study.store.specification import TrainingSettings, TrialSpec

HIPPOCAMPUS = Geometry(patch_size=(40, 56, 40), divisors=(8, 8, 8), batch_size=9)
DATASET = "Dataset004_Hippocampus"


def plan(geometry: Geometry = HIPPOCAMPUS) -> NetworkPlan:
    return NetworkPlan(
        dataset=DATASET,
        plans="nnUNetPlans",
        configuration="3d_fullres",
        geometry=geometry,
        data_identifier="nnUNetPlans_3d_fullres",
        previous_stage=None,
        sha256="p" * 64,
    )


def spec(scheme: str, *, fold: int = 0, seed: int = 0, axes: Axes | None = None, **training: object) -> TrialSpec:
    return make_spec(
        plan=plan(),
        split_sha256="s" * 64,
        fold=fold,
        seed=seed,
        scheme=scheme,
        axes=axes or named_axes(scheme),
        training=TrainingSettings(**{"epochs": 10, "iterations_per_epoch": 50, **training}),  # type: ignore[arg-type]
    )


def test_everything_that_decides_a_result_is_carried_over() -> None:
    made = spec("pgps", fold=2, seed=7)
    assert (made.dataset, made.plans, made.configuration) == (DATASET, "nnUNetPlans", "3d_fullres")
    assert (made.fold, made.seed, made.scheme, made.axes) == (2, 7, "pgps", Axes())
    assert (made.plans_sha256, made.split_sha256) == ("p" * 64, "s" * 64)
    assert made.curriculum.geometry == HIPPOCAMPUS
    assert made.curriculum.total_iterations == 500
    assert made.curriculum.stages[-1].patch_size == (40, 56, 40)


@pytest.mark.parametrize(("scheme", "oversampling"), [("cps", 0.33), ("pgps", 0.5), ("rpss", 0.5), ("pgps+", 0.5)])
def test_oversampling_follows_the_curriculum_unless_given(scheme: str, oversampling: float) -> None:
    assert spec(scheme).training.foreground_oversampling == oversampling
    assert spec(scheme, foreground_oversampling=0.8).training.foreground_oversampling == 0.8


@pytest.mark.parametrize(("optimizer", "rate", "momentum"), [("sgd", 1e-2, 0.99), ("adamw", 3e-3, 0.9)])
def test_the_optimizers_defaults_are_filled_in(optimizer: str, rate: float, momentum: float) -> None:
    training = spec("pgps", optimizer=optimizer).training
    assert (training.initial_learning_rate, training.momentum) == (rate, momentum)


def test_a_budget_scales_the_curriculum_and_leaves_the_settings() -> None:
    made = spec("pgps", axes=named_axes("pgps", budget=0.5))
    assert made.training.iterations_per_epoch == 50
    assert made.iterations_per_epoch == 25
    assert made.curriculum.total_iterations == 250


def test_points_with_the_same_stage_table_are_the_same_trial() -> None:
    assert spec("pgps", axes=Axes(min_patch=1.0)).trial_id == spec("cps").trial_id
    assert spec("pgps").trial_id != spec("cps").trial_id
    assert spec("cps", seed=1).trial_id != spec("cps").trial_id


def test_the_seed_decides_random_draws() -> None:
    first, again, other = (spec("rpss", seed=seed).curriculum for seed in (0, 0, 1))
    assert first == again
    assert [s.iterations for s in first.stages] != [s.iterations for s in other.stages]


@pytest.mark.parametrize("wrong", [{"fold": -1}, {"seed": -1}, {"seed": 0.5}])
def test_folds_and_seeds_are_whole_numbers(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        spec("pgps", **wrong)


@pytest.fixture
def prepared(tmp_path: Path) -> DataPaths:
    """A preprocessed dataset of ten cases without images, as a trial's checks read it."""
    folder = tmp_path / "nnUNet_preprocessed" / DATASET
    cases = folder / "nnUNetPlans_3d_fullres"
    cases.mkdir(parents=True)
    for case in range(10):
        (cases / f"case_{case}.pkl").touch()
        (cases / f"case_{case}.b2nd").touch()
        (folder / "gt_segmentations").mkdir(exist_ok=True)
        (folder / "gt_segmentations" / f"case_{case}").touch()
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "organ": 1}}))
    split = [{"train": [f"case_{c}" for c in range(10) if c % 5 != k], "val": [f"case_{k}"]} for k in range(5)]
    (folder / "splits_final.json").write_text(json.dumps(split))
    strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    network = {"arch_kwargs": {"strides": strides, "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d"}}
    configuration = {
        "patch_size": [40, 56, 40],
        "batch_size": 9,
        "data_identifier": "nnUNetPlans_3d_fullres",
        "architecture": network,
    }
    document = {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "configurations": {"3d_fullres": configuration},
    }
    (folder / "nnUNetPlans.json").write_text(json.dumps(document))
    return DataPaths(raw=None, preprocessed=tmp_path / "nnUNet_preprocessed")


def test_the_lookup_reads_plan_and_split(prepared: DataPaths) -> None:
    lookup = prepared_lookup(prepared)
    found, first = lookup(4, None, "3d_fullres", 0)
    by_name, second = lookup(DATASET, "nnUNetPlans", "3d_fullres", 1)
    assert found == by_name
    assert (found.dataset, found.plans, found.geometry) == (DATASET, "nnUNetPlans", HIPPOCAMPUS)
    assert len(first) == 64
    assert first != second


def test_the_lookup_reads_a_file_once(prepared: DataPaths) -> None:
    lookup = prepared_lookup(prepared)
    answer = lookup(4, None, "3d_fullres", 0)
    for path in (prepared.preprocessed / DATASET).glob("*.json"):
        path.unlink()
    assert lookup(4, None, "3d_fullres", 0) == answer


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


@pytest.mark.parametrize("module", ["study.search.trials", "study.search"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'ray', 'nnunetv2', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

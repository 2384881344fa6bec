"""What a search may choose beside the curriculum is trained for real: stopped or killed, resumed, predicted with."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from examples import BRAIN, HIPPOCAMPUS, make_spec
from hypothesis import given
from hypothesis import strategies as st
from prepared import CUBE, FLAT, FULL, MakeTrainer, model_folder, plans_document, spec_of, train, workplace
from references import assert_same_training, reference_of, resumed_from, training_process

from study.common.errors import InvalidInputError
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import ALLOCATIONS, named_axes
from study.nnunet.batches import Item
from study.nnunet.datasets import DataPaths, data_paths
from study.nnunet.plans import plan_from_document
from study.nnunet.presets import PRESETS, GroupedNorm, with_normalization
from study.nnunet.transforms import Pipeline
from study.run.trial import run_trial
from study.store.ledger import Ledger
from study.store.prediction import predict_command, stock_command
from study.store.specification import TrainingSettings
from study.store.training_settings import AUGMENTATION_PRESETS, STATISTICS_BATCHES

# Of 24 iterations in 3 epochs: within the second.
WITHIN = 14
# Every value that is not the default, several axes in each training.
POINTS: dict[str, dict[str, Any]] = {
    "cosine, group norm, no augmentation": {
        "training": {"learning_rate_schedule": "cosine", "normalization": "group", "augmentation_preset": "none"}
    },
    "warm-up, batch norm, no mirroring": {
        "training": {
            "learning_rate_schedule": "warmup",
            "learning_rate_exponent": 2.0,
            "normalization": "batch",
            "augmentation_preset": "no-mirroring",
        }
    },
    "one cycle, DA5, cyclic": {
        "order": "cyclic",
        "cycles": 2,
        "training": {"learning_rate_schedule": "one-cycle", "augmentation_preset": "da5"},
    },
    "scaled": {"scheme": "pgps+", "training": {"learning_rate_scaling": "sqrt"}},
}
ALL_AT_ONCE: dict[str, Any] = {
    "scheme": "pgps+",
    "order": "cyclic",
    "stages": 2,
    "training": {
        "epochs": 2,
        "iterations_per_epoch": 5,
        "learning_rate_schedule": "one-cycle",
        "learning_rate_scaling": "sqrt",
        "normalization": "batch",
        "augmentation_preset": "da5",
    },
}


@pytest.fixture(scope="module")
def paths(data: Path) -> DataPaths:
    return data_paths(data)


@pytest.mark.cluster
def test_a_stop_changes_nothing(paths: DataPaths, tmp_path: Path, ledger: Ledger) -> None:
    spec = spec_of(paths, **ALL_AT_ONCE)
    reference = reference_of(spec, paths, tmp_path / "reference")
    for after in (3, 5):
        train(spec, ledger, workplace(paths), after=after)
    folder = train(spec, ledger, workplace(paths))
    assert resumed_from(folder) == [0, 3, 5]
    assert_same_training(folder, reference)
    # The plan's batch at the last stages, a larger one at the first.
    assert [epoch.learning_rate for epoch in folder.epochs()][1] < 1e-5
    weights = torch.load(model_folder(folder) / "checkpoint_final.pth", weights_only=False)["network_weights"]
    taken = {int(tensor) for name, tensor in weights.items() if name.endswith("num_batches_tracked")}
    assert taken == {STATISTICS_BATCHES}


@pytest.mark.cluster
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_training_resumes_to_the_same_weights(
    point: str, paths: DataPaths, tmp_path: Path, ledger: Ledger
) -> None:
    spec = spec_of(paths, **{"stages": 3, **POINTS[point]})
    reference = reference_of(spec, paths, tmp_path / "reference")
    folder = ledger.add(spec)
    with training_process(ledger, spec, paths, halt_at=WITHIN) as (process, pipe):
        os.kill(pipe.recv(), signal.SIGKILL)
        process.join()
    with training_process(ledger, spec, paths) as (process, _):
        process.join()
        assert process.exitcode == 0
    assert resumed_from(folder) == [0, 8]
    assert_same_training(folder, reference)


@pytest.mark.cluster
@pytest.mark.parametrize(("normalization", "preset"), [("batch", "no-mirroring"), ("group", "default")])
def test_stock_nnunet_predicts_what_the_validation_did(
    normalization: str, preset: str, paths: DataPaths, ledger: Ledger, tmp_path: Path
) -> None:
    changes = {"normalization": normalization, "augmentation_preset": preset, "test_time_mirroring": True}
    spec = spec_of(paths, "cps", training={"epochs": 1, **changes})
    folder = run_trial(spec, ledger, workplace(paths)).folder
    command = predict_command(folder, spec)
    assert (" --disable_tta" in command) is (preset == "no-mirroring")
    checkpoint = torch.load(model_folder(folder) / "checkpoint_final.pth", weights_only=False)
    assert (checkpoint["inference_allowed_mirroring_axes"] is None) is (preset == "no-mirroring")
    case = next(iter(folder.result().dice_per_case))  # type: ignore[union-attr]
    assert paths.raw is not None
    (tmp_path / "input").mkdir()
    name = f"{case}_0000.nii.gz"
    (tmp_path / "input" / name).symlink_to(next(paths.raw.glob(f"*/imagesTr/{name}")))
    words = command.replace("INPUT", str(tmp_path / "input")).replace("OUTPUT", str(tmp_path / "output"))
    # Beside this Python, where nnU-Net has put its commands.
    words = f"PATH={Path(sys.executable).parent}:{os.environ['PATH']} {words} -npp 1 -nps 1"
    subprocess.run(["env", *shlex.split(words)], check=True, capture_output=True)
    import SimpleITK

    predicted, validated = (
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(place / f"{case}.nii.gz")))
        for place in (tmp_path / "output", model_folder(folder) / "validation")
    )
    assert np.array_equal(predicted, validated)


@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (320, 8), (12, 6), (7, 7), (4, 4), (1, 1), (11, 1)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    assert GroupedNorm(channels).num_groups == groups


@pytest.mark.parametrize(("normalization", "layer"), [("batch", torch.nn.BatchNorm3d), ("group", GroupedNorm)])
def test_nnunet_builds_the_network_from_the_plans_kept_with_the_trial(
    normalization: str, layer: type, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(training={"normalization": normalization})
    trainer.initialize()
    kinds = {type(module) for module in trainer.network.modules()}
    assert layer in kinds
    assert torch.nn.InstanceNorm3d not in kinds
    named = trainer.plans_manager.plans["configurations"][FULL]["architecture"]["arch_kwargs"]["norm_op"]
    assert named.endswith(layer.__name__)


def test_a_network_without_a_norm_to_replace_is_refused(data: Path) -> None:
    document = plans_document(data)
    document["configurations"][FULL]["architecture"]["arch_kwargs"]["norm_op"] = None
    assert with_normalization(document, FULL, "instance") == document
    with pytest.raises(InvalidInputError, match=r"received 'group', legal is instance for .*PlainConvUNet"):
        with_normalization(document, FULL, "group")


def test_a_network_for_one_patch_size_is_refused(data: Path) -> None:
    document = plans_document(data)
    document["configurations"][FULL]["architecture"] = {"network_class_name": "primus.Primus", "arch_kwargs": {}}
    with pytest.raises(
        InvalidInputError, match=r"architecture: received 'primus.Primus', legal is a network of strided"
    ):
        plan_from_document(document, document["configurations"], FULL)


def test_a_model_with_a_layer_of_ours_is_not_exported() -> None:
    command = stock_command(make_spec(training={"normalization": "batch"}), [0], None)
    assert command.startswith("nnUNetv2_predict")
    with pytest.raises(InvalidInputError, match="normalization: received 'group', legal is a model of nnU-Net's"):
        stock_command(make_spec(training={"normalization": "group"}), [0], None)


@pytest.mark.parametrize("plans", [CUBE, FLAT])
@pytest.mark.parametrize("preset", ["da5", "none", "no-mirroring"])
def test_a_preset_augments_patches_of_every_size_as_its_trainer_says(
    preset: str, plans: str, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer("pgps", plans=plans, training={"augmentation_preset": preset})
    batches = trainer.make_batches()
    stages = trainer.job.curriculum.stages
    for stage in (stages[0], stages[-1]):
        for index in range(stage.first_iteration, stage.first_iteration + stage.iterations):
            batch = batches[Item(index=index)]
            assert batch["data"].shape[2:] == stage.patch_size
            assert torch.isfinite(batch["data"]).all()
            assert torch.equal(batch["data"], trainer.make_batches()[Item(index=index)]["data"])
    assert (trainer.inference_allowed_mirroring_axes is None) is (preset != "da5")


@pytest.mark.parametrize("patch", [(1, 8, 8), (2, 16, 16), (3, 5, 9), (4, 4, 4)])
def test_da5_takes_axes_shorter_than_nnunet_ever_gives_it(patch: tuple[int, ...]) -> None:
    made = PRESETS["da5"].transforms(patch, (-0.5, 0.5), [[1, 1, 1]], (0, 1, 2), False)  # type: ignore[misc]
    pipeline = Pipeline(made, patch)
    for seed in range(60):
        torch.manual_seed(seed)
        np.random.seed(seed)
        drawn = pipeline.draw_rotation((1, *(2 * n for n in patch)))
        size = [2 * n for n in patch] if drawn else list(patch)
        sample = pipeline.apply(torch.rand(1, *size), torch.zeros((1, *size), dtype=torch.int16), drawn)
        assert sample["image"].shape[1:] == patch


def test_what_a_preset_trains_without_it_predicts_without() -> None:
    mirrored = {name: TrainingSettings(augmentation_preset=name).predicts_mirrored for name in AUGMENTATION_PRESETS}
    assert mirrored == {"default": True, "da5": True, "none": False, "no-mirroring": False}
    assert not TrainingSettings(test_time_mirroring=False).predicts_mirrored


@given(
    st.integers(1, 100),
    st.integers(1, 60),
    st.integers(1, 20),
    st.floats(-3, 3),
    st.sampled_from(ALLOCATIONS),
)
def test_a_cycle_grows_and_starts_again(cycles: int, epochs: int, each: int, growth: float, allocation: Any) -> None:
    axes = named_axes("pgps+", order="cyclic", cycles=cycles, growth=growth, allocation=allocation)
    made = resolve(HIPPOCAMPUS, axes, epochs=epochs, iterations_per_epoch=each)
    ends = [stage.first_iteration + stage.iterations for stage in made.stages]
    assert [stage.first_iteration for stage in made.stages] == [0, *ends[:-1]]
    assert ends[-1] == made.total_iterations == epochs * each
    assert min(stage.iterations for stage in made.stages) >= 1
    begun = [index for index, stage in enumerate(made.stages) if stage.patch_size == made.stages[0].patch_size]
    assert len(made.stages) % len(begun) == 0
    assert len(begun) == min(cycles, epochs if allocation == "reference" else epochs * each) or len(made.stages) == 1
    assert made.stages[-1].patch_size == HIPPOCAMPUS.patch_size


def test_cycles_are_as_long_as_each_other() -> None:
    made = resolve(BRAIN, named_axes("pgps", order="cyclic", cycles=3, stages=2), epochs=1, iterations_per_epoch=12)
    assert [stage.iterations for stage in made.stages] == [2] * 6
    assert made.voxels == resolve(BRAIN, named_axes("pgps", stages=2), epochs=1, iterations_per_epoch=12).voxels


def test_cycles_name_no_trial_where_they_are_idle() -> None:
    name = make_spec("pgps").trial_id
    assert name == make_spec("pgps", cycles=5).trial_id == make_spec("pgps", order="cyclic", cycles=1).trial_id
    assert len({name, *(make_spec("pgps", order="cyclic", cycles=n).trial_id for n in (2, 3))}) == 3

"""What a reader of a Dice must know of its data and curriculum, and how long a training takes: said beforehand."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from examples import finish, make_spec
from prepared import NAME, MakeTrainer, plans_document, spec_of

from analysis.fronts.captions import basis
from analysis.statistics.study_results import gather
from study.__main__ import main
from study.common import files
from study.common.errors import DataIntegrityError
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import named_axes
from study.curriculum.table import shortfalls
from study.nnunet.datasets import data_paths, find_dataset
from study.run.progress import FOR_A_CPU, absent_classes, remarks, training_seconds, unknown, words
from study.store.ledger import Ledger

REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "bud": 3}


def references(folder: Path, *values: Sequence[int]) -> list[Path]:
    """Segmentations of two slices, the first empty, in which some values are."""
    paths = [folder / f"case_{number}.nii.gz" for number in range(len(values))]
    for path, labels in zip(paths, values, strict=True):
        voxels = np.zeros((2, 1, max(1, len(labels))), np.uint8)
        voxels[1, 0, : len(labels)] = labels
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(path))
    return paths


def trainer_of(data: Path, labels: Mapping[str, Any], order: Sequence[int] | None) -> Any:
    """nnU-Net's own readers and labels, as a trainer has them."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = LabelManager(dict(labels), regions_class_order=None if order is None else tuple(order))
    return SimpleNamespace(label_manager=manager, plans_manager=PlansManager(plans_document(data)))


@pytest.mark.parametrize(
    ("labels", "order", "cases", "absent"),
    [
        ({"background": 0, "a": 1, "b": 2}, None, [[1], [2]], []),
        ({"background": 0, "a": 1, "b": 2}, None, [[1], []], ["2"]),
        ({"background": 0, "a": 1, "b": 2, "c": 3}, None, [[2]], ["1", "3"]),
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, None, [[1, 3]], ["2"]),
        (REGIONS, [1, 2, 3], [[1, 2, 3]], []),
        # A region is there with any of its labels.
        (REGIONS, [1, 2, 3], [[3]], []),
        (REGIONS, [1, 2, 3], [[2]], ["3"]),
        (REGIONS, [1, 2, 3], [[1], [1]], ["(2, 3)", "3"]),
        ({**REGIONS, "ignore": 4}, [1, 2, 3], [[1, 4]], ["(2, 3)", "3"]),
    ],
)
def test_classes_that_no_validation_case_shows_are_named(
    data: Path, tmp_path: Path, labels: dict[str, Any], order: list[int] | None, cases: Any, absent: list[str]
) -> None:
    assert absent_classes(trainer_of(data, labels, order), references(tmp_path, *cases)) == absent


@pytest.mark.parametrize("values", [[], [3]])
def test_a_fold_without_any_class_is_refused(data: Path, tmp_path: Path, values: list[int]) -> None:
    trainer = trainer_of(data, {"background": 0, "a": 1, "b": 2, "ignore": 3}, None)
    with pytest.raises(DataIntegrityError, match=r"no validation case .* shows any foreground class .*another fold"):
        absent_classes(trainer, references(tmp_path, values, values))


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_validation_cases_that_are_trained_on_are_counted(
    data: Path, tmp_path: Path, make_trainer: MakeTrainer, shared: int
) -> None:
    paths = data_paths(tmp_path / "data")
    folder = Path(shutil.copytree(data_paths(data).preprocessed / NAME, paths.preprocessed / NAME))
    [first, *others] = files.read_json(folder / "splits_final.json")
    first["train"] += first["val"][:shared]
    files.write_json(folder / "splits_final.json", [first, *others])
    said = remarks(spec_of(paths, "cps"), make_trainer("cps", variant=paths), find_dataset(paths, NAME))
    words = f"{shared} of {len(first['val'])} validation cases of fold 0 are training cases too (the first is "
    assert [remark.startswith(words) and remark.endswith("Dice is too high") for remark in said] == [True] * bool(
        shared
    )


@pytest.mark.parametrize(
    ("patch", "divisors", "batch", "scheme", "is_constant"),
    [
        ((56, 40), (8, 8), 366, "pgps+", True),
        ((512, 512), (128, 128), 12, "pgps+", True),
        ((256, 256), (64, 64), 49, "pgps+", True),
        ((128, 128, 128), (32, 32, 32), 2, "pgps+", False),
        ((512, 512), (128, 128), 12, "performance", False),
        ((56, 40), (8, 8), 366, "pgps", False),
        ((56, 40), (8, 8), 366, "cps", False),
    ],
)
def test_a_batch_that_leaves_none_larger_is_said(
    patch: Any, divisors: Any, batch: int, scheme: str, is_constant: bool
) -> None:
    geometry, axes = Geometry(patch_size=patch, divisors=divisors, batch_size=batch), named_axes(scheme)
    curriculum = resolve(geometry, axes, epochs=10, iterations_per_epoch=50)
    plain = resolve(geometry, named_axes("pgps"), epochs=10, iterations_per_epoch=50)
    said = f"the plan's batch of {batch} leaves no stage a larger one: this is constant batch size"
    assert (said in shortfalls(curriculum, axes)) is is_constant
    if is_constant:
        assert curriculum.stages == plain.stages


REMARK = "1 of 2 validation cases of fold 0 are training cases too (the first is a): Dice is too high"


def test_remarks_stand_beside_the_dice_in_status_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger.create(tmp_path / "study")
    folders = [ledger.add(make_spec(seed=seed)) for seed in (0, 1)]
    for folder in folders:
        finish(folder)
    path = folders[1].path / "result.json"
    files.write_json(path, {**files.read_json(path), "remarks": [REMARK]})
    assert main(["status", str(ledger.root)]) == 0
    assert f"note: {REMARK} (1 of 2 trials)" in " ".join(capsys.readouterr().out.split())
    found = gather([ledger.root])
    assert dict(basis(found.tables.trials, found.points))["Remarks"] == REMARK
    assert sorted(found.tables.trials["remarks"].fillna("")) == ["", REMARK]


def test_a_forecast_leaves_weights_and_random_state_alone(make_trainer: Any) -> None:
    trainer = make_trainer("pgps")
    trainer.initialize()
    weights = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    state, curriculum = torch.get_rng_state(), trainer.job.curriculum
    whole = training_seconds(trainer, curriculum, 0)
    assert whole > 0
    assert training_seconds(trainer, curriculum, curriculum.total_iterations) == 0
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainer.network.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("seconds", "warned"), [(90.0, False), (86_400.0, False), (1_000_000.0, True)])
def test_days_on_a_cpu_are_warned_of(seconds: float, warned: bool) -> None:
    assert words(90.0).startswith("the training takes about 0:01:30 here")
    assert (FOR_A_CPU in words(seconds)) is warned


@pytest.mark.parametrize(
    ("axes", "iteration", "said"),
    [
        ({}, 0, "24 iterations to go, 9 stages, "),
        ({}, 20, "4 iterations to go, 9 stages, "),
        ({"scheme": "cps"}, 0, "24 iterations to go, 1 stage, 100% of the voxels "),
        ({"scheme": "rpss"}, 0, "24 iterations to go, 9 stages, "),
    ],
)
def test_on_a_gpu_the_work_is_told_and_no_time_is_made_up(data: Path, axes: Any, iteration: int, said: str) -> None:
    curriculum = spec_of(data_paths(data), **axes).curriculum
    told = unknown(curriculum, iteration)
    assert told.startswith(said) and f"{curriculum.voxel_share:.0%} of the voxels" in told
    assert "not known" in told and "\n" not in told

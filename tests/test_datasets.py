"""Prepared folders as nnU-Net leaves them: found, checked, and split."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from study.common import files
from study.common.errors import InvalidInputError, MissingDataError
from study.nnunet.datasets import DataPaths, PreparedDataset, Split, data_paths, dataset_id, find_dataset
from study.search.trials import prepared_lookup

NAME = "Dataset004_Hippocampus"
PLANS = {
    "dataset_name": NAME,
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "batch_size": 2,
            "patch_size": [64, 64],
            "architecture": {"arch_kwargs": {"strides": [1, 2, 2], "norm_op": "torch.nn.InstanceNorm2d"}},
        }
    },
}
SPLITS = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["a", "c"], "val": ["b"]}]
# A case's name may contain dots.
CASES = [f"case_{index}.v2" for index in range(12)]


@pytest.fixture
def paths(tmp_path: Path) -> DataPaths:
    """Two prepared datasets, of which Hippocampus is complete."""
    folder = tmp_path / "nnUNet_preprocessed" / NAME
    files.write_json(folder / "dataset.json", {"labels": {"background": 0, "hippocampus": 1}})
    files.write_json(folder / "nnUNetPlans.json", PLANS)
    files.write_json(folder / "splits_final.json", SPLITS)
    (folder / "nnUNetPlans_2d").mkdir()
    for case in CASES:
        (folder / "nnUNetPlans_2d" / f"{case}.pkl").touch()
        (folder / "nnUNetPlans_2d" / f"{case}.b2nd").touch()
    (folder.parent / "Dataset014_Other").mkdir()
    return data_paths(tmp_path)


@pytest.fixture
def dataset(paths: DataPaths) -> PreparedDataset:
    return find_dataset(paths, 4)


# ------------------------------------------------------------------------------------------------------------ paths


def test_a_data_folder_holds_both_of_nnunets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_preprocessed", "/elsewhere")
    expected = DataPaths(raw=tmp_path / "data/nnUNet_raw", preprocessed=tmp_path / "data/nnUNet_preprocessed")
    assert data_paths(Path("data")) == expected


def test_without_a_data_folder_nnunets_variables_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", "/prepared")
    monkeypatch.setenv("nnUNet_raw", "/raw")
    assert data_paths(None) == DataPaths(raw=Path("/raw"), preprocessed=Path("/prepared"))
    monkeypatch.delenv("nnUNet_raw")
    assert data_paths(None) == DataPaths(raw=None, preprocessed=Path("/prepared"))


@pytest.mark.parametrize("value", [None, ""])
def test_without_either_both_ways_are_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    if value is not None:
        monkeypatch.setenv("nnUNet_preprocessed", value)
    with pytest.raises(MissingDataError, match="give --data DIR or set nnUNet_preprocessed"):
        data_paths(None)


# --------------------------------------------------------------------------------------------------------- datasets


@pytest.mark.parametrize("wanted", [4, "4", "04", "004", NAME])
def test_a_dataset_is_found_by_number_or_name(paths: DataPaths, wanted: str | int) -> None:
    found = find_dataset(paths, wanted)
    assert (found.name, found.folder) == (NAME, paths.preprocessed / NAME)
    assert found.description["labels"] == {"background": 0, "hippocampus": 1}
    assert dataset_id(found.name) == 4


@pytest.mark.parametrize("wanted", [5, "Hippocampus", "Dataset004", "", "*", "-4"])
def test_what_is_not_there_is_answered_with_what_is(paths: DataPaths, wanted: str | int) -> None:
    with pytest.raises(MissingDataError) as caught:
        find_dataset(paths, wanted)
    assert f"dataset: received {str(wanted)!r}, found {NAME}, Dataset014_Other in " in str(caught.value)


def test_a_number_that_two_datasets_have_is_not_guessed(paths: DataPaths) -> None:
    (paths.preprocessed / "Dataset004_Copy").mkdir()
    with pytest.raises(MissingDataError, match=f"found Dataset004_Copy, {NAME} in .* give the full name"):
        find_dataset(paths, 4)
    assert find_dataset(paths, NAME).name == NAME


def test_an_absent_folder_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"found nothing in .*; run `python -m study prepare`"):
        find_dataset(data_paths(tmp_path / "absent"), 4)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"])
def test_a_broken_description_is_named(paths: DataPaths, content: str | None) -> None:
    path = paths.preprocessed / NAME / "dataset.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(MissingDataError, match=r"dataset.json (is missing or broken|names no labels)"):
        find_dataset(paths, 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["background", "a"]}, "labels is .*, legal are values by name"),
        ({"labels": {}}, "labels is {}, which has no background"),
        ({"labels": {"background": 0, "a": None}}, "labels is .*, legal are values by name"),
        ({"labels": {"background": 0, "a": 1, "b": 3}}, "label values are 0 1 3, legal are consecutive ones"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}}, "regions_class_order is None, legal is a list"),
        ({"file_ending": "nii.gz"}, "file_ending is 'nii.gz', legal is the end"),
        ({"channel_names": ["T1"]}, r"channel_names is \['T1'\], legal are names by number"),
    ],
)
def test_a_description_edited_into_nonsense_is_refused(paths: DataPaths, change: dict[str, Any], words: str) -> None:
    path = paths.preprocessed / NAME / "dataset.json"
    files.write_json(path, {**files.read_json(path), **change})
    with pytest.raises(MissingDataError, match=f"^{path}: {words}"):
        find_dataset(paths, 4)


# ------------------------------------------------------------------------------------------------------------ plans


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"a":' * 100_000, json.dumps(PLANS).encode("utf-16")])
def test_plans_that_are_none_are_named(dataset: PreparedDataset, content: str | bytes) -> None:
    (dataset.folder / "Mine.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert dataset.choose_plans(None) == "nnUNetPlans"
    with pytest.raises(MissingDataError, match=r"Mine.json is no plans file as nnU-Net writes it"):
        dataset.choose_plans("Mine")


def test_only_plans_are_taken_for_plans(dataset: PreparedDataset) -> None:
    (dataset.folder / "broken.json").write_text("{")
    assert dataset.plans_names() == ["nnUNetPlans"]
    assert dataset.choose_plans(None) == dataset.choose_plans("nnUNetPlans") == "nnUNetPlans"
    assert dataset.plan("nnUNetPlans", "2d").geometry.divisors == (4, 4)


def test_among_several_plans_nnunets_default_is_meant(dataset: PreparedDataset) -> None:
    files.write_json(dataset.folder / "SmallPlans.json", {**PLANS, "plans_name": "SmallPlans"})
    assert dataset.choose_plans(None) == "nnUNetPlans"
    assert dataset.choose_plans("SmallPlans") == "SmallPlans"


def test_the_only_plans_are_meant_whatever_their_name(dataset: PreparedDataset) -> None:
    (dataset.folder / "nnUNetPlans.json").rename(dataset.folder / "SmallPlans.json")
    assert dataset.choose_plans(None) == "SmallPlans"


def test_unknown_plans_list_those_there_are(dataset: PreparedDataset) -> None:
    with pytest.raises(
        MissingDataError, match=r"plans: received 'other', legal for Dataset004_.* is one of nnUNetPlans"
    ):
        dataset.choose_plans("other")
    (dataset.folder / "nnUNetPlans.json").unlink()
    with pytest.raises(MissingDataError, match=r"no plans in .*; run `python -m study prepare`"):
        dataset.choose_plans(None)


def test_preprocessed_cases_are_looked_for(dataset: PreparedDataset) -> None:
    plan = dataset.plan("nnUNetPlans", "2d")
    dataset.check_preprocessed(plan)
    for path in (dataset.folder / "nnUNetPlans_2d").iterdir():
        path.unlink()
    with pytest.raises(MissingDataError, match=r"no preprocessed cases for .* 2d at .*nnUNetv2_preprocess -c 2d"):
        dataset.check_preprocessed(plan)


# ----------------------------------------------------------------------------------------------------------- splits


def test_a_fold_has_its_cases(dataset: PreparedDataset) -> None:
    assert dataset.split(1) == Split(training=("a", "c"), validation=("b",))
    assert dataset.split(0).sha256 != dataset.split(1).sha256
    assert dataset.split(0).sha256 != Split(training=("c", "b"), validation=("a",)).sha256


@pytest.mark.parametrize("fold", [-1, 2])
def test_a_fold_that_is_not_there_names_the_range(dataset: PreparedDataset, fold: int) -> None:
    with pytest.raises(InvalidInputError, match=f"fold: received {fold}, legal is 0 to 1"):
        dataset.split(fold)


BROKEN_SPLITS = [
    *("", "[{", "7", "[7]", "null", '[{"train": []}]', '[{"train": 3, "val": []}]', "[" * 200_000),
    *('[{"train": "abc", "val": ["d"]}]', '[{"train": ["b"], "val": "a"}]', '[{"train": {"b": 1}, "val": ["a"]}]'),
    *(json.dumps(SPLITS).encode("utf-16"), json.dumps(SPLITS).encode("utf-8-sig")),
]


@pytest.mark.parametrize("content", BROKEN_SPLITS)
def test_a_broken_split_is_named_in_one_line(dataset: PreparedDataset, content: str | bytes) -> None:
    (dataset.folder / "splits_final.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert dataset.plans_names() == ["nnUNetPlans"]
    with pytest.raises(MissingDataError, match=r"splits_final.json is no split as nnU-Net writes it") as caught:
        dataset.split(0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        ([], ["a"], "has no training cases"),
        (["b"], [], "has no validation cases"),
        (["b", "b"], ["a"], "names some twice, or by no word, of its training cases"),
        (["b"], [1], "names some twice, or by no word, of its validation cases"),
        ([["b"]], ["a"], "names some twice, or by no word, of its training cases"),
        (["b"], [None], "names some twice, or by no word, of its validation cases"),
    ],
)
def test_a_fold_that_cannot_be_trained_is_refused(dataset: PreparedDataset, train: Any, val: Any, words: str) -> None:
    files.write_json(dataset.folder / "splits_final.json", [{"train": train, "val": val}])
    with pytest.raises(MissingDataError, match=f"splits_final.json: fold 0 {words}; correct the file"):
        dataset.trainable_split(0)


def test_a_split_without_folds_is_none(dataset: PreparedDataset) -> None:
    files.write_json(dataset.folder / "splits_final.json", [])
    with pytest.raises(MissingDataError, match=r"splits_final.json has no fold; delete it, and nnU-Net's own split"):
        dataset.split(0)


def test_cases_that_are_not_there_are_named_before_anything_is_trained(paths: DataPaths) -> None:
    # The same for a study's dry run as for a trial: fold 0 is sound, fold 1 names a case that nobody prepared.
    folder = paths.preprocessed / NAME
    train, val = CASES[1:], CASES[:1]
    files.write_json(folder / "splits_final.json", [{"train": train, "val": val}, {"train": [*train, "x"], "val": val}])
    (folder / "gt_segmentations").mkdir()
    (folder / "gt_segmentations" / val[0]).touch()
    lookup = prepared_lookup(paths)
    lookup(4, None, "2d", 0)
    with pytest.raises(MissingDataError, match=r"1 files of .* are missing, the first is .*x.pkl; run .* or correct"):
        lookup(4, None, "2d", 1)


def test_an_existing_split_is_kept(dataset: PreparedDataset) -> None:
    dataset.ensure_splits("nnUNetPlans_2d")
    assert json.loads((dataset.folder / "splits_final.json").read_text()) == SPLITS


def test_a_missing_split_is_nnunets_own(dataset: PreparedDataset) -> None:
    (dataset.folder / "splits_final.json").unlink()
    with pytest.raises(MissingDataError, match="run `python -m study prepare`"):
        dataset.split(0)
    dataset.ensure_splits("nnUNetPlans_2d")
    splits = [dataset.split(fold) for fold in range(5)]
    assert sorted(case for split in splits for case in split.validation) == sorted(CASES)
    assert all(sorted({*split.training, *split.validation}) == sorted(CASES) for split in splits)
    assert splits == [_as_split(fold) for fold in _splits_of_the_trainer()]


def _splits_of_the_trainer() -> list[Any]:
    """What nnU-Net's own trainer writes (nnUNetTrainer.do_split): KFold(5, shuffle, 12345) over the sorted cases."""
    from sklearn.model_selection import KFold

    cases = sorted(CASES)
    folds = KFold(n_splits=5, shuffle=True, random_state=12345).split(cases)
    return [{"train": [cases[i] for i in train], "val": [cases[i] for i in val]} for train, val in folds]


def _as_split(fold: dict[str, list[str]]) -> Split:
    return Split(training=tuple(fold["train"]), validation=tuple(fold["val"]))


def test_too_few_cases_for_five_folds_are_counted(dataset: PreparedDataset) -> None:
    (dataset.folder / "splits_final.json").unlink()
    for case in CASES[4:]:
        for path in (dataset.folder / "nnUNetPlans_2d").glob(f"{case}.*"):
            path.unlink()
    with pytest.raises(
        MissingDataError,
        match=r"has 4 cases, .* write your own .*splits_final.json, a list",
    ):
        dataset.ensure_splits("nnUNetPlans_2d")


def test_without_preprocessed_cases_there_is_nothing_to_split(dataset: PreparedDataset) -> None:
    (dataset.folder / "splits_final.json").unlink()
    (dataset.folder / "empty").mkdir()
    for identifier in ("absent", "empty"):
        with pytest.raises(MissingDataError, match=f"{identifier} holds no preprocessed cases"):
            dataset.ensure_splits(identifier)


def test_a_missing_split_in_a_read_only_folder_says_why_that_is_a_problem(dataset: PreparedDataset) -> None:
    (dataset.folder / "splits_final.json").unlink()
    dataset.folder.chmod(0o500)
    try:
        if os.access(dataset.folder, os.W_OK):
            pytest.skip("this user writes everywhere")
        with pytest.raises(MissingDataError, match=r"is missing and cannot be written .* trials would race to make it"):
            dataset.ensure_splits("nnUNetPlans_2d")
    finally:
        dataset.folder.chmod(0o700)

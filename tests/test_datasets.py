"""Prepared folders as nnU-Net leaves them: found, checked, and split."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from raw_data import BARE as NAME
from raw_data import bare_dataset

from study.common import files
from study.common.errors import InvalidInputError, MissingDataError
from study.nnunet.datasets import DataPaths, PreparedDataset, Split, data_paths, dataset_id, find_dataset
from study.search.trials import prepared_lookup

SPLITS = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["a", "c"], "val": ["b"]}]
# A case's name may contain dots.
CASES = [f"case_{index}.v2" for index in range(12)]


@pytest.fixture
def paths(tmp_path: Path) -> DataPaths:
    """Two prepared datasets, of which Hippocampus is complete."""
    paths = bare_dataset(tmp_path, CASES)
    files.write_json(paths.preprocessed / NAME / "splits_final.json", SPLITS)
    (paths.preprocessed / "Dataset014_Other").mkdir()
    return paths


@pytest.fixture
def dataset(paths: DataPaths) -> PreparedDataset:
    return find_dataset(paths, 4)


def put(path: Path, content: Any) -> None:
    """Bytes and texts as they are, anything else as JSON."""
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_data_is_where_the_option_or_nnunets_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (None, ""):
        if value is not None:
            monkeypatch.setenv("nnUNet_preprocessed", value)
        with pytest.raises(MissingDataError, match="give --data DIR or set nnUNet_preprocessed"):
            data_paths(None)
    monkeypatch.setenv("nnUNet_preprocessed", "/prepared")
    assert data_paths(None) == DataPaths(raw=None, preprocessed=Path("/prepared"))
    monkeypatch.setenv("nnUNet_raw", "/raw")
    assert data_paths(None) == DataPaths(raw=Path("/raw"), preprocessed=Path("/prepared"))
    expected = DataPaths(raw=tmp_path / "data/nnUNet_raw", preprocessed=tmp_path / "data/nnUNet_preprocessed")
    assert data_paths(Path("data")) == expected


@pytest.mark.parametrize("wanted", [4, "4", "04", "004", NAME])
def test_a_dataset_is_found_by_number_or_name(paths: DataPaths, wanted: str | int) -> None:
    found = find_dataset(paths, wanted)
    assert (found.name, found.folder) == (NAME, paths.preprocessed / NAME)
    assert found.description["labels"] == {"background": 0, "organ": 1}
    assert dataset_id(found.name) == 4


@pytest.mark.parametrize("wanted", [5, "Hippocampus", "Dataset004", "", "*", "-4"])
def test_what_is_not_there_is_answered_with_what_is(paths: DataPaths, wanted: str | int) -> None:
    with pytest.raises(MissingDataError) as caught:
        find_dataset(paths, wanted)
    assert f"dataset: received {str(wanted)!r}, found {NAME}, Dataset014_Other in " in str(caught.value)
    with pytest.raises(MissingDataError, match=r"found nothing in .*; run `python -m study prepare`"):
        find_dataset(data_paths(paths.preprocessed / "absent"), wanted)


def test_a_number_that_two_datasets_have_is_not_guessed(paths: DataPaths) -> None:
    (paths.preprocessed / "Dataset004_Copy").mkdir()
    with pytest.raises(MissingDataError, match=f"found Dataset004_Copy, {NAME} in .* give the full name"):
        find_dataset(paths, 4)
    assert find_dataset(paths, NAME).name == NAME


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *((broken, "is missing or broken") for broken in (None, "", "{")),
        *((other, "names no labels") for other in ("[]", "{}")),
        ({"labels": ["background", "a"]}, "labels is .*, legal are values by name"),
        ({"labels": {"background": 0, "a": 1, "b": 3}}, "label values are 0 1 3, legal are consecutive ones"),
        ({"labels": {"background": 0}, "file_ending": "nii.gz"}, "file_ending is 'nii.gz', legal is the end"),
        ({"labels": {"background": 0}, "channel_names": ["T1"]}, r"channel_names is \['T1'\], legal are names by"),
    ],
)
def test_a_description_that_is_broken_or_edited_into_nonsense_is_named(
    paths: DataPaths, content: Any, words: str
) -> None:
    path = paths.preprocessed / NAME / "dataset.json"
    path.unlink()
    if content is not None:
        put(path, content)
    with pytest.raises(MissingDataError, match=f"^{path}:? {words}"):
        find_dataset(paths, 4)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"a":' * 100_000, '{"plans_name": "", "configurations": {}}'.encode("utf-16")]
)
def test_only_plans_are_taken_for_plans(dataset: PreparedDataset, content: str | bytes) -> None:
    put(dataset.folder / "Mine.json", content)
    assert dataset.plans_names() == ["nnUNetPlans"]
    assert dataset.choose_plans(None) == dataset.choose_plans("nnUNetPlans") == "nnUNetPlans"
    assert dataset.plan("nnUNetPlans", "3d_fullres").geometry.divisors == (8, 8, 8)
    with pytest.raises(MissingDataError, match=r"Mine.json is no plans file as nnU-Net writes it"):
        dataset.choose_plans("Mine")


def test_the_only_plans_are_meant_or_among_several_nnunets_default(dataset: PreparedDataset) -> None:
    stock = dataset.folder / "nnUNetPlans.json"
    files.write_json(dataset.folder / "SmallPlans.json", {**files.read_json(stock), "plans_name": "SmallPlans"})
    assert dataset.choose_plans(None) == "nnUNetPlans"
    assert dataset.choose_plans("SmallPlans") == "SmallPlans"
    stock.unlink()
    assert dataset.choose_plans(None) == "SmallPlans"
    with pytest.raises(MissingDataError, match=r"plans: received 'other', legal for Dataset004_.* is one of SmallPl"):
        dataset.choose_plans("other")
    (dataset.folder / "SmallPlans.json").unlink()
    with pytest.raises(MissingDataError, match=r"no plans in .*; run `python -m study prepare`"):
        dataset.choose_plans(None)


def test_a_fold_has_its_cases(dataset: PreparedDataset) -> None:
    dataset.ensure_splits("nnUNetPlans_3d_fullres")
    assert dataset.split(1) == Split(training=("a", "c"), validation=("b",)), "a split that is there is kept"
    shas = {dataset.split(0).sha256, dataset.split(1).sha256, Split(training=("c", "b"), validation=("a",)).sha256}
    assert len(shas) == 3
    for fold in (-1, 2):
        with pytest.raises(InvalidInputError, match=f"fold: received {fold}, legal is 0 to 1"):
            dataset.split(fold)


BROKEN_SPLITS = [
    *("", "[{", "7", "[7]", "null", '[{"train": []}]', '[{"train": 3, "val": []}]', "[" * 200_000),
    *('[{"train": "abc", "val": ["d"]}]', '[{"train": ["b"], "val": "a"}]', '[{"train": {"b": 1}, "val": ["a"]}]'),
    *(json.dumps(SPLITS).encode("utf-16"), json.dumps(SPLITS).encode("utf-8-sig")),
]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *((content, " is no split as nnU-Net writes it") for content in BROKEN_SPLITS),
        ("[]", " has no fold; delete it, and nnU-Net's own split"),
        ([{"train": [], "val": ["a"]}], ": fold 0 has no training cases; correct the file"),
        ([{"train": ["b"], "val": []}], ": fold 0 has no validation cases"),
        ([{"train": ["b", "b"], "val": ["a"]}], ": fold 0 names some twice, or by no word, of its training cases"),
        ([{"train": [["b"]], "val": ["a"]}], ": fold 0 names some twice, or by no word, of its training cases"),
        ([{"train": ["b"], "val": [None]}], ": fold 0 names some twice, or by no word, of its validation cases"),
    ],
)
def test_a_split_that_cannot_be_trained_is_named_in_one_line(
    dataset: PreparedDataset, content: Any, words: str
) -> None:
    put(dataset.folder / "splits_final.json", content)
    assert dataset.plans_names() == ["nnUNetPlans"]
    with pytest.raises(MissingDataError, match=f"splits_final.json{words}") as caught:
        dataset.trainable_split(0)
    assert "\n" not in str(caught.value)


def test_cases_that_are_not_there_are_named_before_anything_is_trained(paths: DataPaths) -> None:
    # The same for a study's dry run as for a trial: fold 0 is sound, fold 1 names a case that nobody prepared.
    folder = paths.preprocessed / NAME
    train, val = CASES[1:], CASES[:1]
    files.write_json(folder / "splits_final.json", [{"train": train, "val": val}, {"train": [*train, "x"], "val": val}])
    lookup = prepared_lookup(paths)
    lookup(4, None, "3d_fullres", 0)
    with pytest.raises(MissingDataError, match=r"1 files of .* are missing, the first is .*x.pkl; run .* or correct"):
        lookup(4, None, "3d_fullres", 1)
    for path in (folder / "nnUNetPlans_3d_fullres").iterdir():
        path.unlink()
    remedy = "nnUNetv2_preprocess -plans_name nnUNetPlans -c 3d_fullres"
    with pytest.raises(MissingDataError, match=rf"no preprocessed cases for .* 3d_fullres at .*{remedy}"):
        prepared_lookup(paths)(4, None, "3d_fullres", 0)


def test_a_missing_split_is_nnunets_own(dataset: PreparedDataset) -> None:
    """That of nnUNetTrainer.do_split: KFold(5, shuffle, 12345) over the sorted cases."""
    from sklearn.model_selection import KFold

    (dataset.folder / "splits_final.json").unlink()
    with pytest.raises(MissingDataError, match="run `python -m study prepare`"):
        dataset.split(0)
    dataset.ensure_splits("nnUNetPlans_3d_fullres")
    cases = sorted(CASES)
    folds = KFold(n_splits=5, shuffle=True, random_state=12345).split(cases)
    assert [dataset.split(fold) for fold in range(5)] == [
        Split(training=tuple(cases[i] for i in train), validation=tuple(cases[i] for i in val)) for train, val in folds
    ]


def test_what_cannot_be_split_says_why(dataset: PreparedDataset) -> None:
    (dataset.folder / "splits_final.json").unlink()
    (dataset.folder / "empty").mkdir()
    for identifier in ("absent", "empty"):
        with pytest.raises(MissingDataError, match=f"{identifier} holds no preprocessed cases"):
            dataset.ensure_splits(identifier)
    dataset.folder.chmod(0o500)
    if not os.access(dataset.folder, os.W_OK):
        with pytest.raises(MissingDataError, match=r"is missing and cannot be written .* trials would race to make it"):
            dataset.ensure_splits("nnUNetPlans_3d_fullres")
    dataset.folder.chmod(0o700)
    for case in CASES[4:]:
        for path in (dataset.folder / "nnUNetPlans_3d_fullres").glob(f"{case}.*"):
            path.unlink()
    with pytest.raises(MissingDataError, match=r"has 4 cases, .* write your own .*splits_final.json, a list"):
        dataset.ensure_splits("nnUNetPlans_3d_fullres")

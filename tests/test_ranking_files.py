"""A ranking on disk: read back as it was written, and refused when it is damaged or belongs to something else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rankable import NAME, anatomy, write_dataset
from rankings import write_ranking

from study.common import files
from study.common.errors import InvalidInputError, MissingDataError
from study.curriculum.data_curriculum import METRICS
from study.nnunet.datasets import PreparedDataset, data_paths, find_dataset
from study.ranking.files import RECORD, TABLE, load_ranking, read_rows, write_rows

CASES = ("c", "a", "d", "b")


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    return write_dataset(tmp_path, dict.fromkeys(CASES, anatomy((8, 8, 8))), {"held_out": anatomy((8, 8, 8))})


def change(path: Path, **changes: Any) -> None:
    files.write_json(path, {**files.read_json(path), **changes})


def test_it_is_read_as_it_was_written(dataset: PreparedDataset) -> None:
    folder = write_ranking(dataset, 0, ["d", "a", "c", "b"])
    ranking = load_ranking(dataset, 0)
    assert (ranking.dataset, ranking.fold) == (NAME, 0)
    assert ranking.split_sha256 == dataset.split(0).sha256
    assert ranking.sha256 == files.read_json(folder / RECORD)["sha256"]
    for metric in METRICS:
        expected = ("b", "c", "a", "d") if metric == "ssim" else ("d", "a", "c", "b")
        assert ranking.most_dissimilar(metric) == expected


def test_the_same_rows_are_the_same_bytes(dataset: PreparedDataset, tmp_path: Path) -> None:
    rows = read_rows(write_ranking(dataset))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name, rows)
    assert (tmp_path / "one" / TABLE).read_bytes() == (tmp_path / "two" / TABLE).read_bytes()
    assert read_rows(tmp_path / "one") == rows


def test_another_folder_can_hold_it(dataset: PreparedDataset, tmp_path: Path) -> None:
    folder = write_ranking(dataset)
    shutil.move(folder, tmp_path / "elsewhere" / NAME / "fold_0")
    assert load_ranking(dataset, 0, rankings=tmp_path / "elsewhere").fold == 0
    with pytest.raises(MissingDataError):
        load_ranking(dataset, 0)


def test_without_one_the_command_that_makes_it_is_told(dataset: PreparedDataset) -> None:
    with pytest.raises(MissingDataError, match=r"no ranking in .*; `python -m study rank --dataset 902 --fold 0`"):
        load_ranking(dataset, 0)


@pytest.mark.parametrize("name", [RECORD, TABLE])
def test_half_a_ranking_is_none(dataset: PreparedDataset, name: str) -> None:
    (write_ranking(dataset) / name).unlink()
    with pytest.raises(MissingDataError, match="no ranking in"):
        load_ranking(dataset, 0)


def test_one_of_an_older_layout_is_none(dataset: PreparedDataset) -> None:
    change(write_ranking(dataset) / RECORD, format=0)
    with pytest.raises(MissingDataError, match="no ranking in"):
        load_ranking(dataset, 0)


def test_an_unknown_metric_is_refused(dataset: PreparedDataset) -> None:
    write_ranking(dataset)
    with pytest.raises(InvalidInputError, match="metric: received 'dice', legal is one of mse, psnr, ssim, uqi, mean"):
        load_ranking(dataset, 0).most_dissimilar("dice")


def test_a_fold_that_is_not_there_is_refused(dataset: PreparedDataset) -> None:
    with pytest.raises(InvalidInputError, match="fold: received 1, legal is 0 to 0"):
        load_ranking(dataset, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset": "Dataset004_Other"},
            "received 'Dataset004_Other fold 0', legal is one of Dataset902_Rankable fold 0",
        ),
        ({"fold": 3}, "received 'Dataset902_Rankable fold 3', legal is one of Dataset902_Rankable fold 0"),
        ({"split_sha256": "0" * 64}, "received 'another split of the cases'"),
    ],
)
def test_one_of_something_else_is_refused(dataset: PreparedDataset, changes: dict[str, Any], message: str) -> None:
    change(write_ranking(dataset) / RECORD, **changes)
    with pytest.raises(InvalidInputError, match=message) as refused:
        load_ranking(dataset, 0)
    assert "then `python -m study rank --dataset 902 --fold 0`" in str(refused.value)


def test_a_split_that_has_changed_is_noticed(dataset: PreparedDataset, tmp_path: Path) -> None:
    write_ranking(dataset)
    files.write_json(dataset.folder / "splits_final.json", [{"train": ["a", "b", "held_out"], "val": ["c", "d"]}])
    with pytest.raises(InvalidInputError, match="another split"):
        load_ranking(find_dataset(data_paths(tmp_path), NAME), 0)


def test_rows_of_other_cases_are_refused(dataset: PreparedDataset) -> None:
    write_ranking(dataset, 0, ["a", "b", "c", "held_out"])
    with pytest.raises(InvalidInputError, match="received 'other cases', legal is one of the training cases"):
        load_ranking(dataset, 0)


@pytest.mark.parametrize("how", ["other rows", "cut short", "nonsense"])
def test_damage_is_noticed(dataset: PreparedDataset, how: str) -> None:
    folder = write_ranking(dataset)
    content = (folder / TABLE).read_bytes()
    if how == "other rows":
        write_rows(folder, read_rows(folder)[::-1])
    else:
        (folder / TABLE).write_bytes(content[: len(content) // 2] if how == "cut short" else b"nonsense")
    with pytest.raises(MissingDataError, match=r"is damaged: .*; remove the folder, then `python -m study rank"):
        load_ranking(dataset, 0)


def test_importing_it_needs_the_standard_library_alone() -> None:
    program = "import sys, study.ranking.files; print(*{name.partition('.')[0] for name in sys.modules})"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"numpy", "pyarrow", "pandas", "SimpleITK", "skimage", "torch"} & set(answer.stdout.split()) == set()

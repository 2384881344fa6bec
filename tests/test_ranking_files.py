"""A ranking on disk: read back as it was written, and refused when it is damaged or belongs to something else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rankable import NAME, anatomy, write_dataset
from rankings import write_ranking

from study.common import files
from study.common.errors import InvalidInputError, MissingDataError
from study.curriculum.data_curriculum import METRICS
from study.nnunet.datasets import PreparedDataset, data_paths, find_dataset
from study.ranking.files import RECORD, TABLE, load_ranking, read_rows, write_rows

CASES = ("c", "a", "d", "b")
COMMAND = "python -m study rank --dataset 902 --fold 0"


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    return write_dataset(tmp_path, dict.fromkeys(CASES, anatomy((8, 8, 8))), {"held_out": anatomy((8, 8, 8))})


def test_it_is_read_as_it_was_written(dataset: PreparedDataset, tmp_path: Path) -> None:
    folder = write_ranking(dataset, 0, ["d", "a", "c", "b"])
    ranking = load_ranking(dataset, 0)
    assert (ranking.dataset, ranking.fold, ranking.split_sha256) == (NAME, 0, dataset.split(0).sha256)
    assert ranking.sha256 == files.read_json(folder / RECORD)["sha256"]
    for metric in METRICS:
        expected = ("b", "c", "a", "d") if metric == "ssim" else ("d", "a", "c", "b")
        assert ranking.most_dissimilar(metric) == expected
    with pytest.raises(InvalidInputError, match="metric: received 'dice', legal is one of mse, psnr, ssim, uqi, mean"):
        ranking.most_dissimilar("dice")
    with pytest.raises(InvalidInputError, match="fold: received 1, legal is 0 to 0"):
        load_ranking(dataset, 1)
    # The same rows are the same bytes.
    (tmp_path / "again").mkdir()
    write_rows(tmp_path / "again", read_rows(folder))
    assert (tmp_path / "again" / TABLE).read_bytes() == (folder / TABLE).read_bytes()


def test_another_folder_can_hold_it(dataset: PreparedDataset, tmp_path: Path) -> None:
    folder = write_ranking(dataset)
    shutil.move(folder, tmp_path / "elsewhere" / NAME / "fold_0")
    assert load_ranking(dataset, 0, rankings=tmp_path / "elsewhere").fold == 0
    with pytest.raises(MissingDataError, match=f"no ranking in .*; `{COMMAND}`"):
        load_ranking(dataset, 0)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def changed(**changes: object) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        files.write_json(folder / RECORD, {**files.read_json(folder / RECORD), **changes})

    return harm


def table(harm: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / TABLE).write_bytes(harm((folder / TABLE).read_bytes())) and None


def turned(folder: Path) -> None:
    write_rows(folder, read_rows(folder)[::-1])


HARMS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no record": (without(RECORD), "no ranking in"),
    "no table": (without(TABLE), "no ranking in"),
    "an older layout": (changed(format=0), "no ranking in"),
    "another dataset": (
        changed(dataset="Dataset004_Other"),
        f"received 'Dataset004_Other fold 0', legal is one of {NAME} fold 0",
    ),
    "another fold": (changed(fold=3), f"received '{NAME} fold 3', legal is one of {NAME} fold 0"),
    "another split": (changed(split_sha256="0" * 64), "received 'another split of the cases'"),
    "other rows": (turned, "is damaged: .*; remove the folder"),
    "cut short": (table(lambda content: content[: len(content) // 2]), "is damaged: .*; remove the folder"),
    "nonsense": (table(lambda _: b"nonsense"), "is damaged: .*; remove the folder"),
}


@pytest.mark.parametrize("name", HARMS)
def test_a_ranking_that_is_not_whole_or_of_something_else_is_refused_with_the_command_that_makes_it(
    dataset: PreparedDataset, name: str
) -> None:
    harm, message = HARMS[name]
    harm(write_ranking(dataset))
    with pytest.raises((InvalidInputError, MissingDataError), match=message) as refused:
        load_ranking(dataset, 0)
    assert f"`{COMMAND}`" in str(refused.value)


def test_a_split_that_has_changed_is_noticed(dataset: PreparedDataset, tmp_path: Path) -> None:
    write_ranking(dataset, 0, ["a", "b", "c", "held_out"])
    with pytest.raises(InvalidInputError, match="received 'other cases', legal is one of the training cases"):
        load_ranking(dataset, 0)
    files.write_json(dataset.folder / "splits_final.json", [{"train": ["a", "b", "held_out"], "val": ["c", "d"]}])
    with pytest.raises(InvalidInputError, match="another split"):
        load_ranking(find_dataset(data_paths(tmp_path), NAME), 0)


def test_importing_it_needs_the_standard_library_alone() -> None:
    program = "import sys, study.ranking.files; print(*{name.partition('.')[0] for name in sys.modules})"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"numpy", "pyarrow", "pandas", "SimpleITK", "skimage", "torch"} & set(answer.stdout.split()) == set()

"""`python -m study rank` as a person types it: what it prints, draws, refuses, and does not do twice."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rankable import NAME, SHAPE, anatomy, noisy, write_dataset

from study.__main__ import main
from study.cli.rank import EXAMPLES


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four cases of one anatomy, another anatomy, a constant; one held out."""
    cases = {f"case{index}": noisy(anatomy(), index) for index in range(4)}
    strange = {"stranger": noisy(anatomy(seed=9), 9), "zero": np.zeros(SHAPE, dtype=np.float32)}
    write_dataset(tmp_path / "my data", {**cases, **strange}, {"held_out": anatomy(seed=3)})
    return tmp_path / "my data"


def words_of(root: Path, words: str = "") -> list[str]:
    return ["rank", "--data", str(root), "--dataset", "902", "--workers", "1", *shlex.split(words)]


def rank(root: Path, words: str = "") -> int:
    return main(words_of(root, words))


def folder(root: Path) -> Path:
    return root / "nnUNet_preprocessed" / NAME / "rankings" / "fold_0"


FILES = ("ranking.parquet", "pairs.parquet", "ranking.json", "ranking.png")


def test_it_ranks_lists_and_draws_and_does_nothing_twice(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank(root, "--transform none --metric ssim") == 0
    printed = capsys.readouterr()
    assert "6 cases, reference case" in printed.err
    assert "0 registrations and 15 comparisons" in printed.err
    lines = printed.out.splitlines()
    assert lines[0].startswith(f"{NAME} fold 0 is ranked, in ")
    listed = {line[2:18].strip(): line[19:] for line in lines[1:]}
    assert listed["ranking.parquet"] == str(folder(root) / "ranking.parquet")
    assert listed["most dissimilar"].startswith(("stranger (", "zero ("))
    assert listed["most similar"].startswith("case")
    assert {path.name for path in folder(root).iterdir() if not path.name.startswith(".")} == set(FILES)
    assert_the_picture_shows_something(root)

    def again(words: str, said: str) -> list[str]:
        """What another call says and which files it changes."""
        before = {name: (folder(root) / name).read_bytes() for name in FILES}
        assert rank(root, f"--transform none {words}") == 0
        printed = capsys.readouterr()
        assert printed.out.startswith(f"{NAME} fold 0 was already ranked, {said}\n")
        assert printed.err == ""
        return [name for name in FILES if (folder(root) / name).read_bytes() != before[name]]

    assert again("--metric ssim", "nothing to do") == []
    # Another metric draws another picture, and nothing else.
    assert again("--metric mse", "its picture now shows mse") == ["ranking.png"]


def test_what_is_not_registered_is_listed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank(root) == 0
    printed = capsys.readouterr().out
    assert "1 unregistered" in printed
    summary = next(line for line in printed.splitlines() if line.startswith("  not registered"))
    ranked = pd.read_parquet(folder(root) / "ranking.parquet").query("metric == 'mean-rank'").sort_values("rank")
    for share, words in ((1, "cases"), (0.5, "most dissimilar half"), (0.25, "most dissimilar quarter")):
        first = ranked.head(math.floor(share * len(ranked) + 0.5))
        assert f"{(first['registration'] == 'unregistered').sum()} of {len(first)} {words}" in summary
    assert "  note             zero: unregistered, it is constant, rank " in printed


@pytest.mark.parametrize("words", ["--compare reference --reference case1", "--transform affine"])
@pytest.mark.cluster
def test_the_picture_of_another_ranking_shows_something(root: Path, words: str) -> None:
    assert rank(root, words) == 0
    assert_the_picture_shows_something(root)


def assert_the_picture_shows_something(root: Path) -> None:
    with Image.open(folder(root) / "ranking.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] > 1500
    left, right = pixels[:, : pixels.shape[1] // 2], pixels[:, pixels.shape[1] // 2 :]
    assert left.std() > 30
    assert right.std() > 20


def test_another_folder_is_named_to_trials(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank(root, f"--transform none --out '{tmp_path / 'rankings'}'") == 0
    assert (tmp_path / "rankings" / NAME / "fold_0" / "ranking.parquet").exists()
    assert not folder(root).exists()
    assert f"trials look in {folder(root).parent}: put fold_0 there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--metric dice", "--metric: received 'dice', legal is one of mse, psnr, ssim, uqi, mean-rank"),
        ("--reference held_out", "--reference: received 'held_out', legal is medoid, or a training case of fold 0"),
        ("--reference nobody", "--reference: received 'nobody', legal is medoid, or a training case of fold 0"),
        ("--transform elastic", "--transform: received 'elastic', legal is one of rigid, affine, none"),
        ("--compare none", "--compare: received 'none', legal is one of others, reference"),
        ("--fold 7", "fold: received 7, legal is 0 to 0"),
        ("--fold one", "--fold: received 'one', legal is a whole number"),
        ("--workers 0", "--workers: received 0, legal is a whole number of at least 1"),
        ("--workers two", "--workers: received 'two', legal is a whole number"),
        ("--address 127.0.0.1:1", "--address: received '127.0.0.1:1', nothing answers there (Connection refused)"),
        ("--dataset 903", "dataset: received '903', found Dataset902_Rankable in"),
        ("--configuration 4d", "configuration: received '4d', legal is one of 3d_fullres"),
        ("--plans other", "plans: received 'other', legal for Dataset902_Rankable is one of nnUNetPlans"),
    ],
)
def test_bad_input_is_one_line(root: Path, words: str, message: str, refused: Callable[..., str]) -> None:
    assert message in refused(*words_of(root, words))
    assert not folder(root).exists()


def test_a_place_that_cannot_be_written_is_one_line(root: Path, refused: Callable[..., str]) -> None:
    folder(root).parent.write_text("in the way")
    assert "cannot be written" in refused(*words_of(root))


def test_the_examples_of_the_help_are_commands() -> None:
    from study.__main__ import PROGRAM

    for line in EXAMPLES.splitlines():
        if not line.strip().startswith("#"):
            PROGRAM.parser("rank").parse_args(shlex.split(line.partition(" study ")[2]))

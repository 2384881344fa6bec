"""From comparisons to ranks, what all comparisons of a ranking have in common, and a ranking on disk: read back as it
was written, and refused when it is damaged or belongs to something else.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rankable import NAME, SHAPE, anatomy, noisy, write_dataset, write_ranking

from study.common import files
from study.common.errors import DataIntegrityError, InvalidInputError, MissingDataError
from study.curriculum.data_curriculum import METRICS
from study.nnunet.datasets import PreparedDataset, data_paths, find_dataset
from study.ranking.files import (
    MEAN_RANK,
    MEASURES,
    RECORD,
    TABLE,
    CasePair,
    RankedCase,
    load_ranking,
    read_rows,
    write_rows,
)
from study.ranking.images import MEDOID, CaseImage, CaseSurvey, lay_out, medoid, survey
from study.ranking.make import ranked
from study.ranking.work import blocks_of_all, blocks_of_reference

SAME = {"mse": 0.0, "psnr": 100.0, "ssim": 1.0, "uqi": 1.0}
ALIKE = {"mse": 1.0, "psnr": 30.0, "ssim": 0.9, "uqi": 0.8}
APART = {"mse": 5.0, "psnr": 20.0, "ssim": 0.4, "uqi": 0.2}
NOTHING: dict[str, float | None] = dict.fromkeys(MEASURES)


def pair(first: str, second: str, values: Mapping[str, float | None]) -> CasePair:
    reasons = {measure: "some reason" for measure in MEASURES if values[measure] is None}
    return CasePair(first=first, second=second, values=values, reasons=reasons)


def rank(pairs: list[CasePair], *, both_sides: bool = True) -> tuple[RankedCase, ...]:
    cases = {case for one in pairs for case in (one.first, one.second)}
    return ranked(dict.fromkeys(sorted(cases, reverse=True), ("registered", "")), pairs, both_sides=both_sides)


def order(rows: tuple[RankedCase, ...], metric: str) -> list[str]:
    found = [row for row in rows if row.metric == metric]
    assert [row.rank for row in found] == list(range(1, len(found) + 1))
    return [row.case for row in found]


def values(rows: tuple[RankedCase, ...], metric: str) -> dict[str, float | None]:
    return {row.case: row.value for row in sorted(rows, key=lambda row: row.case) if row.metric == metric}


def test_a_value_is_the_mean_over_all_comparisons_and_the_case_apart_from_all_others_is_first() -> None:
    rows = rank([pair("a", "b", ALIKE), pair("a", "c", APART), pair("b", "c", APART)])
    assert all(order(rows, metric) == ["c", "a", "b"] for metric in METRICS)
    assert values(rows, "mse") == {"a": 3.0, "b": 3.0, "c": 5.0}
    assert values(rows, "psnr")["b"] == 25.0


def test_with_the_reference_alone_a_comparison_is_the_other_cases() -> None:
    rows = rank([pair("a", "b", APART), pair("b", "b", SAME), pair("c", "b", ALIKE)], both_sides=False)
    assert order(rows, "mse") == order(rows, MEAN_RANK) == ["a", "c", "b"]
    assert values(rows, "mse")["b"] == 0.0


def test_equal_cases_are_in_the_order_of_their_names_and_share_their_ranks_where_ranks_are_averaged() -> None:
    rows = rank([pair("a", "b", ALIKE), pair("a", "c", ALIKE), pair("b", "c", ALIKE)])
    assert all(order(rows, metric) == ["a", "b", "c"] for metric in METRICS)
    assert set(values(rows, MEAN_RANK).values()) == {2.0}


def test_the_mean_rank_is_of_mse_ssim_and_uqi() -> None:
    found = {"a": (9.0, 10.0, 0.1, 0.3), "b": (5.0, 5.0, 0.3, 0.2), "c": (1.0, 1.0, 0.2, 0.1)}
    rows = rank([pair(case, "c", dict(zip(MEASURES, of, strict=True))) for case, of in found.items()], both_sides=False)
    # By MSE a b c, by SSIM a c b, by UQI c b a; PSNR, which would say c b a, has no say.
    assert values(rows, MEAN_RANK) == {"a": 5 / 3, "b": 7 / 3, "c": 2.0}
    assert order(rows, MEAN_RANK) == ["a", "c", "b"]
    assert order(rows, "psnr") == ["c", "b", "a"]


def test_a_case_without_a_value_is_last_with_its_reason_and_one_undefined_measure_does_not_hide_the_others() -> None:
    rows = rank([pair("a", "b", NOTHING), pair("a", "c", NOTHING), pair("b", "c", APART)])
    for metric in METRICS:
        assert order(rows, metric) == ["b", "c", "a"]
        assert values(rows, metric)["a"] is None
    assert all(("undefined: some reason" in row.reason) is (row.case == "a") for row in rows)
    flat = {**APART, "uqi": None}
    rows = rank([pair("a", "b", ALIKE), pair("a", "c", flat), pair("b", "c", flat)])
    assert (order(rows, "mse"), order(rows, "uqi")) == (["c", "a", "b"], ["a", "b", "c"])
    # First by MSE and SSIM, last by UQI.
    assert values(rows, MEAN_RANK)["c"] == pytest.approx(5 / 3)


@given(st.randoms(use_true_random=False), st.integers(2, 9))
def test_ranks_do_not_depend_on_the_order_of_the_comparisons(random: Any, count: int) -> None:
    cases = [f"case{index}" for index in range(count)]
    draw = np.random.default_rng(count)
    pairs = [
        pair(first, second, dict(zip(MEASURES, draw.normal(size=4).tolist(), strict=True)))
        for first in cases
        for second in cases
        if first < second
    ]
    rows, shuffled = rank(pairs), list(pairs)
    random.shuffle(shuffled)
    assert rows == rank(shuffled)
    assert all(sorted(order(rows, metric)) == cases for metric in METRICS)


@given(st.integers(2, 60))
def test_the_blocks_hold_every_pair_once(count: int) -> None:
    cases = [f"{index:03d}" for index in range(count)]
    blocks = blocks_of_all(cases)
    pairs = [found for block in blocks for found in block.pairs]
    assert sorted(pairs) == [(a, b) for a in cases for b in cases if a < b]
    assert [block.number for block in blocks] == list(range(len(blocks)))
    against = [found for block in blocks_of_reference(cases, "001") for found in block.pairs]
    assert against == [(case, "001") for case in cases]


def look(*channels: np.ndarray) -> CaseSurvey:  # type: ignore[type-arg]
    return survey(CaseImage(voxels=np.stack(channels).astype(np.float32), spacing=(1.0,) * channels[0].ndim))


def test_the_medoid_is_in_the_middle_of_the_others() -> None:
    cases = {f"case{index}": look(noisy(anatomy(), index, 0.6)) for index in range(4)}
    cases["clean"] = look(anatomy())
    cases["stranger"] = look(anatomy(seed=9))
    thumbnails = {case: found.thumbnail for case, found in cases.items()}
    assert medoid(thumbnails, list(cases)) == "clean"
    assert medoid(thumbnails, ["case1", "stranger"]) == "case1"
    assert lay_out(cases, MEDOID).reference == "clean"
    assert lay_out(cases, "stranger").reference == "stranger"


@pytest.mark.parametrize("poor", [np.full(SHAPE, 0.5), np.full(SHAPE, np.nan), anatomy()[12:13], anatomy()[:, :9]])
def test_a_poor_reference_is_passed_over(poor: np.ndarray) -> None:  # type: ignore[type-arg]
    """Strangers to each other, from all of which a constant would differ least."""
    cases = {f"case{index}": look(anatomy(seed=index)) for index in range(1, 5)}
    cases["a"] = look(poor)
    assert lay_out(cases, MEDOID).reference != "a"
    assert lay_out({"a": look(poor), "b": look(poor)}, MEDOID).reference == "a"


def test_the_size_of_a_case_does_not_hide_what_it_shows() -> None:
    whole, half = look(anatomy()), look(anatomy()[::2, ::2, ::2])
    other = look(anatomy(seed=4))
    assert whole.thumbnail.shape == half.thumbnail.shape == (16, 16, 16)

    def apart(first: CaseSurvey, second: CaseSurvey) -> float:
        return float(np.mean((first.thumbnail - second.thumbnail) ** 2))

    assert apart(whole, half) < 0.2 * apart(whole, other)


def test_every_channel_has_its_own_range_and_one_outlier_does_not_set_it_for_everybody() -> None:
    cases = {f"case{index}": look(noisy(anatomy(), index)) for index in range(4)}
    without = lay_out(cases, "case0").data_ranges
    cases["loud"] = look(1000 * anatomy())
    assert lay_out(cases, "case0").data_ranges == pytest.approx(without, rel=0.05)
    low, high = np.percentile(anatomy(), (0.5, 99.5))
    assert without == pytest.approx((high - low,), rel=0.05)
    first, second = lay_out({case: look(anatomy(), 10 * anatomy()) for case in "ab"}, "a").data_ranges
    assert second == pytest.approx(10 * first, rel=1e-5)
    assert look(np.full((8, 8, 8), np.nan)).ranges == (0.0,)


def test_axes_of_one_voxel_in_every_case_are_dropped() -> None:
    flat = {case: look(anatomy((1, 30, 30))) for case in "ab"}
    assert lay_out(flat, "a").dropped_axes == (0,)
    assert len(lay_out(flat, "a").factors) == 2
    mixed = {**flat, "c": look(anatomy((4, 30, 30)))}
    assert lay_out(mixed, "a").dropped_axes == ()


def test_different_numbers_of_channels_are_refused() -> None:
    with pytest.raises(DataIntegrityError, match="cases of 1 and 2 channels cannot be compared"):
        lay_out({"a": look(anatomy()), "b": look(anatomy(), anatomy())}, "a")


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

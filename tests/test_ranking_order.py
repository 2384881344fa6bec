"""From comparisons to ranks, and what all comparisons of a ranking have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rankable import SHAPE, anatomy, noisy

from study.common.errors import DataIntegrityError
from study.curriculum.data_curriculum import METRICS
from study.ranking.files import MEAN_RANK, MEASURES, CasePair, RankedCase
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


# --------------------------------------------------------------------------------------------------------------- ranks


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


# ----------------------------------------------------------------------------------------------------- what is compared


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

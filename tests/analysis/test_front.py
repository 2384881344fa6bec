"""Dominance: hand-drawn tables, brute force on random points, and what a front says about points left out.

Hypervolume: rectangles counted by hand and by grid, reference points, contributions, the table of sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import finish_trial, make_points, make_spec, make_study

from analysis.__main__ import main
from analysis.fronts.captions import caveats, left_out
from analysis.fronts.front import contributions, hypervolume, nondominated, pareto_front
from analysis.fronts.hypervolume import box_of, contribution_shares, hypervolume_rows, volume_share
from analysis.statistics.study_results import gather
from analysis.tables.columns import OBJECTIVES, POINT_COLUMNS
from analysis.tables.frame import read_studies
from analysis.tables.points import average_points
from study.common.errors import InvalidInputError
from study.store.ledger import Ledger
from study.store.results import NSD, measured

# Dice up, seconds down. Drawn by hand:      0.9 |              d
#                                            0.8 |      b e    f(=b)
#                                            0.7 |  a     c
#                                                +---1---2--3---4- seconds
TABLE = [
    ("a", 0.7, 1.0, True),
    ("b", 0.8, 2.0, True),
    ("c", 0.7, 2.5, False),  # a is cheaper at the same Dice
    ("d", 0.9, 4.0, True),
    ("e", 0.8, 3.0, False),  # b is cheaper at the same Dice
    ("f", 0.8, 2.0, True),  # a copy of b
    ("g", 0.85, 4.0, False),  # d is better at the same cost
]


def test_the_hand_drawn_table() -> None:
    values = [(dice, seconds) for _, dice, seconds, _ in TABLE]
    assert nondominated(values, maximise=(True, False)).tolist() == [on_front for *_, on_front in TABLE]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(0.8, 1.0, 5.0), (0.8, 2.0, 4.0), (0.8, 2.0, 5.0)], [True, True, False]),
        ([(0.8, math.nan, 1.0), (0.1, 9.0, 9.0)], [False, True]),
        ([(0.8, 1.0, -math.inf), (math.inf, 0.0, 0.0), (0.1, 9.0, 9.0)], [False, False, True]),
        ([(math.nan, math.nan, math.nan)], [False]),
        ([], []),
    ],
)
def test_three_objectives_and_rows_that_are_no_numbers(values: list, expected: list[bool]) -> None:
    assert nondominated(values, maximise=(True, False, False)).tolist() == expected


def brute_force(rows: list[tuple[float, ...]], maximise: tuple[bool, ...]) -> list[bool]:
    """The definition of dominance, spelled out."""
    costs = [tuple(-x if up else x for x, up in zip(row, maximise, strict=True)) for row in rows]

    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    finite = [all(map(math.isfinite, cost)) for cost in costs]
    return [
        finite[i] and not any(finite[j] and dominates(other, cost) for j, other in enumerate(costs))
        for i, cost in enumerate(costs)
    ]


# Few different values, so that ties and duplicates are common.
VALUES = st.sampled_from([0.0, -0.0, 0.25, 0.5, 0.75, 1.0, 1e-300, 1e300, math.nan, math.inf, -math.inf])


@given(st.data(), st.integers(2, 5))
@settings(max_examples=120, deadline=None)
def test_against_brute_force(data: st.DataObject, objectives: int) -> None:
    rows = data.draw(st.lists(st.tuples(*[VALUES | st.floats(-1, 1)] * objectives), max_size=25))
    maximise = data.draw(st.tuples(*[st.booleans()] * objectives))
    assert nondominated(rows, maximise=maximise).tolist() == brute_force(rows, maximise)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_a_front_is_never_empty_and_every_other_point_is_beaten_by_it(rows: list[tuple[float, float]]) -> None:
    table = np.array(rows)
    flags = nondominated(table, maximise=(True, False))
    best = table[flags]
    assert flags.any()
    for dice, cost in table[~flags]:
        assert ((best[:, 0] >= dice) & (best[:, 1] <= cost)).any()


def test_numbers_run_along_the_front_and_copies_stay() -> None:
    points = make_points(dice=[row[1] for row in TABLE], runtime_seconds=[row[2] for row in TABLE])
    front = pareto_front(points, ("dice", "runtime_seconds"))
    assert front.best["number"].tolist() == [1, 2, 3, 4]
    assert front.best["point_id"].tolist() == ["p0", "p1", "p5", "p3"]
    assert front.points["number"].isna().sum() == 3


def test_points_without_a_value_are_dropped_and_counted() -> None:
    points = make_points(
        dice=[0.8, math.nan, 0.7, 0.9], runtime_seconds=[1.0, 2.0, math.inf, 3.0], co2_kg=[1.0, 1.0, 1.0, math.nan]
    )
    front = pareto_front(points, ("dice", "runtime_seconds", "co2_kg"))
    assert front.points["point_id"].tolist() == ["p0"]
    assert front.n_dropped == 3
    assert front.dropped == {"dice": 1, "runtime_seconds": 1, "co2_kg": 1}
    assert left_out(front) == [f"1 point left out, without a value for {name}." for name in front.dropped]


def test_datasets_are_never_compared() -> None:
    points = make_points(dataset=["A", "A", "B"], dice=[0.9, 0.8, 0.1], runtime_seconds=[1.0, 2.0, 99.0])
    best = pareto_front(points, ("dice", "runtime_seconds")).best
    assert best[["dataset", "number"]].to_numpy().tolist() == [["A", 1], ["B", 1]]


def test_a_front_for_each_value_of_a_column() -> None:
    points = make_points(budget=[0.5, 0.5, 1.0, 1.0], dice=[0.9, 0.8, 0.7, 0.6], runtime_seconds=[1.0, 2.0, 3.0, 4.0])
    assert len(pareto_front(points, ("dice", "runtime_seconds")).best) == 1
    best = pareto_front(points, ("dice", "runtime_seconds"), by="budget").best
    assert best[["budget", "number"]].to_numpy().tolist() == [[0.5, 1], [1.0, 1]]


def test_a_group_may_be_a_missing_value() -> None:
    points = make_points(stages=[3, None], dice=[0.9, 0.8], runtime_seconds=[1.0, 2.0])
    best = pareto_front(points.astype({"stages": "Int64"}), ("dice", "runtime_seconds"), by="stages").best
    assert best["number"].tolist() == [1, 1]


@pytest.mark.parametrize("names", [("dice", "speed"), ("dice",), ("dice", "dice"), ()])
def test_wrong_objectives_are_answered_with_the_legal_ones(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match="runtime_seconds"):
        pareto_front(make_points(dice=[0.5]), names)


def test_only_dice_and_nsd_are_maximised_and_every_objective_is_a_column() -> None:
    assert [name for name, objective in OBJECTIVES.items() if objective.maximise] == ["dice", "nsd"]
    assert set(OBJECTIVES) <= {column.name for column in POINT_COLUMNS}
    assert all(objective.label for objective in OBJECTIVES.values())


def front_of(study: Ledger, *objectives: str):
    return pareto_front(average_points(read_studies([study.root]).trials), objectives)


def test_a_front_of_surface_metrics_is_of_those_that_have_them(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme, nsd, seconds in (("cps", 0.9, 90), ("pgps", 0.95, 30), ("rpss", None, 20)):
        folder = finish_trial(study, make_spec(scheme), dice=0.8, seconds=seconds)
        result = folder.result()
        assert result is not None
        cases = {case: {"1": nsd, "2": nsd} for case in result.dice_per_case}
        if nsd is not None:
            folder.complete(replace(result, metrics={"nsd": measured(cases, 2.0), "hd95_mm": measured(cases, None)}))
    tables = read_studies([study.root])
    told = tables.trials.set_index("scheme")
    assert told["nsd"].tolist()[:2] == [0.9, 0.95]
    assert told.loc["rpss", ["nsd", "hd95_mm", "nsd_tolerance_mm"]].isna().all()
    assert told.loc["cps", "nsd_tolerance_mm"] == "2"
    case = tables.cases[tables.cases["trial_id"] == told.loc["pgps", "trial_id"]]
    assert set(case["label"]) == {"foreground", "1", "2"}
    assert set(case["nsd"]) == {0.95}
    front = front_of(study, "nsd", "runtime_seconds")
    assert front.best["scheme"].tolist() == ["pgps"]
    assert front.n_dropped == 1


def test_mixed_hardware_is_said_of_costs_that_depend_on_it(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec("cps"), dice=0.8, seconds=90, cpu_name="Slow CPU")
    finish_trial(study, make_spec("pgps"), dice=0.8, seconds=30, cpu_name="Fast CPU", concurrent_trials=4)
    said = " ".join(caveats(front_of(study, "dice", "runtime_seconds")))
    assert "different hardware" in said
    assert "different numbers of trials" in said
    assert "hardware" not in " ".join(caveats(front_of(study, "dice", "voxel_share")))


def test_different_hardware_of_different_datasets_is_no_matter() -> None:
    points = make_points(dataset=["A", "B"], hardware=["Slow CPU", "Fast CPU"], dice=[0.8, 0.8])
    assert "hardware" not in " ".join(caveats(pareto_front(points, ("dice", "runtime_seconds"))))


def test_estimated_energy_is_said_of_energy_alone(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", folds=(0, 1))
    assert caveats(front_of(study, "dice", "runtime_seconds")) == []
    assert caveats(front_of(study, "dice", "co2_kg")) == [
        "Energy of CPU and RAM is estimated, not measured (codecarbon 3.3.2)."
    ]


def test_single_and_unequal_folds_are_said(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme, folds in (("cps", (0, 1)), ("pgps", (0,))):
        for fold in folds:
            finish_trial(study, make_spec(scheme, fold=fold), dice=0.8, seconds=30)
    said = caveats(front_of(study, "dice", "runtime_seconds"))
    assert any("one fold (hollow): 1 of 2 points" in sentence for sentence in said)
    assert any("different folds" in sentence for sentence in said)


def test_a_front_of_one_class(tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]) -> None:
    study = make_study(tmp_path / "study", n_cases=9)
    whole, one = gather([study.root]), gather([study.root]).of_class("2")
    # Class 2 is 0.02 below the mean over classes in every case.
    assert one.points["dice"].tolist() == pytest.approx((whole.points["dice"] - 0.02).tolist())
    assert one.points["dice_low"].tolist() == pytest.approx((whole.points["dice_low"] - 0.02).tolist(), abs=1e-3)
    assert main(["front", str(study.root), "--class", "2"]) == 0
    assert "points are on the front, Dice of class 2" in capsys.readouterr().out
    assert "class: received 'liver', legal is one of 1, 2" in refused("front", study.root, "--class", "liver")


def test_a_front_of_one_class_has_its_surface_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme in ("cps", "pgps"):
        folder = finish_trial(study, make_spec(scheme), dice=0.8, seconds=30, n_cases=3)
        nsd = {f"case_0_{n:03d}": {"1": 0.9, "2": (0.3, 0.5, None)[n]} for n in range(3)}
        folder.complete(replace(folder.result(), metrics={NSD: measured(nsd, 1.0)}))
    one = gather([study.root]).of_class("2")
    # Over the cases that have it; HD95, which nobody asked for, stays missing.
    assert one.points["nsd"].tolist() == pytest.approx([0.4, 0.4])
    assert one.points["hd95_mm"].isna().all()
    assert main(["front", str(study.root), "--class", "2", "--objectives", "nsd,voxels"]) == 0
    assert "Dice and NSD of class 2" in capsys.readouterr().out
    assert main(["front", str(study.root), "--class", "2", "--objectives", "dice,hd95_mm"]) == 0
    assert "2 points left out, without a value for hd95_mm." in capsys.readouterr().err


RUNTIME = (OBJECTIVES["dice"], OBJECTIVES["runtime_seconds"])
# Dice up, cost down: three steps of a staircase under the reference (0, 10), and a point in its shade.
STAIRS = [(0.5, 2.0), (0.8, 5.0), (0.9, 9.0), (0.4, 6.0)]


def test_a_staircase_by_hand() -> None:
    covered = 0.5 * (10 - 2) + 0.3 * (10 - 5) + 0.1 * (10 - 9)
    assert hypervolume(STAIRS, reference=(0, 10), maximise=(True, False)) == pytest.approx(covered)
    lost = contributions(STAIRS, reference=(0, 10), maximise=(True, False))
    assert lost.tolist() == pytest.approx([0.5 * (5 - 2), (0.8 - 0.5) * (9 - 5), (0.9 - 0.8) * (10 - 9), 0.0])


def test_rows_that_are_no_numbers_or_beyond_the_reference_count_for_nothing() -> None:
    odd = [*STAIRS, (math.nan, 1.0), (math.inf, 1.0), (0.9, math.nan), (0.95, 11.0)]
    whole = hypervolume(STAIRS, reference=(0, 10), maximise=(True, False))
    assert hypervolume(odd, reference=(0, 10), maximise=(True, False)) == pytest.approx(whole)
    assert hypervolume([(math.nan, 1.0)], reference=(0, 10), maximise=(True, False)) == 0.0
    assert hypervolume([], reference=(0, 10), maximise=(True, False)) == 0.0
    assert contributions(odd, reference=(0, 10), maximise=(True, False))[4:].tolist() == [0.0] * 4


WHOLE = st.integers(0, 6)


@given(st.lists(st.tuples(WHOLE, WHOLE, WHOLE), max_size=9))
def test_three_objectives_against_counted_cells(rows: list[tuple[int, int, int]]) -> None:
    # Dice from 0 up, two costs from 7 down: a cell of the grid is covered if a row is at least as good there.
    cells = np.array(np.meshgrid(range(6), range(7), range(7), indexing="ij")).reshape(3, -1).T
    covered = sum(any(d > cell[0] and a <= cell[1] and b <= cell[2] for d, a, b in rows) for cell in cells)
    assert hypervolume(rows, reference=(0, 7, 7), maximise=(True, False, False)) == pytest.approx(covered)


@given(st.lists(st.tuples(WHOLE, WHOLE), min_size=1, max_size=9, unique=True))
def test_a_contribution_of_the_front_is_what_removing_a_point_costs(rows: list[tuple[int, int]]) -> None:
    setting = {"reference": (-1, 7), "maximise": (True, False)}
    best = [r for r in rows if not any(o != r and o[0] >= r[0] and o[1] <= r[1] for o in rows)]
    whole = hypervolume(best, **setting)
    lost = [whole - hypervolume([o for o in best if o != r], **setting) for r in best]
    assert contributions(best, **setting).tolist() == pytest.approx(lost)


def test_the_reference_is_a_tenth_of_the_range_beyond_the_worst() -> None:
    points = make_points(dice=[0.6, 0.8], runtime_seconds=[10.0, 30.0])
    box = box_of(points, RUNTIME)
    assert box.reference == pytest.approx((0.58, 32.0))
    assert box.ideal == (0.8, 10.0)
    assert box.words == "Dice 0.5800, Training time 32.0 s"
    assert volume_share(points, box) == pytest.approx((0.02 * 22 + 0.2 * 2) / (0.22 * 22))


@pytest.mark.parametrize(("dice", "expected"), [([0.02, 0.9], 0.0), ([0.8, 0.8], 0.72), ([0.0, 0.0], 0.0)])
def test_the_reference_of_dice_never_falls_below_0(dice: list[float], expected: float) -> None:
    box = box_of(make_points(dice=dice, runtime_seconds=[1.0, 2.0]), RUNTIME)
    assert box.reference[0] == pytest.approx(expected)


def test_a_point_that_is_best_in_everything_covers_the_box() -> None:
    points = make_points(dice=[0.9, 0.5], runtime_seconds=[1.0, 2.0])
    box = box_of(points, RUNTIME)
    assert volume_share(points, box) == pytest.approx(1.0)
    assert contribution_shares(points, box).tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("dice", [0.8, 0.0])
def test_a_single_point_has_a_share(dice: float) -> None:
    points = make_points(dice=[dice], runtime_seconds=[5.0])
    assert 0 <= volume_share(points, box_of(points, RUNTIME)) <= 1


def test_sets_share_one_reference_and_never_cover_more_than_all(tmp_path: Path) -> None:
    points = gather([make_study(tmp_path / "study", budgets=(1.0, 0.5)).root]).points
    rows = hypervolume_rows(pareto_front(points, ("dice", "runtime_seconds")))
    assert rows["group"].tolist() == ["all", *["scheme"] * 7, *["budget"] * 2]
    assert rows["reference_dice"].nunique() == rows["reference_runtime_seconds"].nunique() == 1
    assert (rows["share"] <= rows["share"].iloc[0] + 1e-12).all()
    assert rows.loc[rows["group"] == "scheme", "points"].sum() == rows["points"].iloc[0] == 16
    assert rows["share"].iloc[0] == pytest.approx(rows["hypervolume"].iloc[0] / box_of(points, RUNTIME).volume)

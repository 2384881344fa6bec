"""Attainment against its definition, on random runs; which runs and configurations take part; the figure's lines."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import finish_trial, make_spec, make_study

from analysis.figures.display_items import as_png, as_svg
from analysis.figures.style import FILE, NARROW
from analysis.fronts.attainment import attainments, levels
from analysis.fronts.figures import attainment_figure
from analysis.fronts.front import attained_by
from analysis.statistics.study_results import gather
from analysis.tables.columns import OBJECTIVES
from study.store.ledger import Ledger

RUNTIME = (OBJECTIVES["dice"], OBJECTIVES["runtime_seconds"])
FEW = st.integers(0, 5).map(float)


@given(
    st.lists(st.tuples(FEW, FEW, st.integers(0, 4)), min_size=1, max_size=20),
    st.integers(1, 5),
    st.tuples(st.booleans(), st.booleans()),
)
@settings(max_examples=150)
def test_surfaces_against_the_definition(rows: list, at_least: int, maximise: tuple[bool, bool]) -> None:
    values, runs = [row[:2] for row in rows], [row[2] for row in rows]
    surface = attained_by(values, runs, at_least=at_least, maximise=maximise)

    def as_good(a: tuple[float, float], goal: tuple[float, float]) -> bool:
        return all(x >= g if up else x <= g for x, g, up in zip(a, goal, maximise, strict=True))

    for goal in ((x, y) for x in np.arange(-0.5, 6, 0.5) for y in np.arange(-0.5, 6, 0.5)):
        attaining = {run for *value, run in rows if as_good(tuple(value), goal)}
        assert any(as_good(tuple(corner), goal) for corner in surface) == (len(attaining) >= at_least)


@given(st.lists(st.tuples(FEW, FEW, FEW, st.integers(0, 2)), min_size=1, max_size=10), st.integers(1, 3))
@settings(max_examples=60)
def test_three_objectives_against_the_definition(rows: list, at_least: int) -> None:
    surface = attained_by(
        [row[:3] for row in rows], [row[3] for row in rows], at_least=at_least, maximise=(True, False, False)
    )
    for goal in ((x, y, z) for x in range(6) for y in range(6) for z in range(6)):
        attaining = {run for d, a, b, run in rows if d >= goal[0] and a <= goal[1] and b <= goal[2]}
        reached = any(d >= goal[0] and a <= goal[1] and b <= goal[2] for d, a, b in surface)
        assert reached == (len(attaining) >= at_least)


@pytest.mark.parametrize("runs", range(1, 31))
def test_every_number_of_runs_has_its_surface(runs: int) -> None:
    values = [(float(run), 1.0) for run in range(runs)]
    for at_least in range(1, runs + 1):
        surface = attained_by(values, range(runs), at_least=at_least, maximise=(True, False))
        assert surface.tolist() == [[float(runs - at_least), 1.0]]


def test_rows_that_are_no_numbers_attain_nothing() -> None:
    values = [(0.8, 1.0), (math.nan, 0.0), (0.9, math.inf), (0.7, 1.0)]
    assert attained_by(values, [0, 0, 1, 1], at_least=2, maximise=(True, False)).tolist() == [[0.7, 1.0]]
    assert attained_by([(math.nan, 1.0)], [0], at_least=1, maximise=(True, False)).shape == (0, 2)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (2, {"best": 1, "worst": 2}),
        (3, {"best": 1, "median": 2, "worst": 3}),
        (5, {"best": 1, "median": 3, "worst": 5}),
    ],
)
def test_levels(runs: int, expected: dict[str, int]) -> None:
    assert levels(runs) == expected


def trials_of(*rows: tuple[str, int, float, float]) -> pd.DataFrame:
    """Finished PGPS trials: configuration, fold, Dice, seconds."""
    frame = pd.DataFrame(rows, columns=["point_id", "fold", "dice", "runtime_seconds"])
    return frame.assign(method="pgps", seed=0, state="finished")


def test_best_and_worst_by_hand() -> None:
    found = attainments(trials_of(("a", 0, 0.8, 10), ("a", 1, 0.7, 12), ("b", 0, 0.9, 30), ("b", 1, 0.6, 20)), RUNTIME)
    assert [(one.runs, one.configurations, one.left_out) for one in found] == [(2, 2, 0)]
    assert found[0].surfaces["best"].to_numpy().tolist() == [[0.8, 10], [0.9, 30]]
    assert found[0].surfaces["worst"].to_numpy().tolist() == [[0.7, 12]]


def test_runs_that_lack_a_configuration_do_not_look_worse_for_it() -> None:
    rows = [("a", 0, 0.8, 10), ("a", 1, 0.8, 10), ("b", 0, 0.9, 30), ("b", 1, 0.9, 30), ("a", 2, 0.8, 10)]
    (one,) = attainments(trials_of(*rows), RUNTIME)
    assert (one.runs, one.configurations, one.left_out) == (2, 2, 1)
    assert one.surfaces["worst"]["dice"].max() == 0.9


@pytest.mark.parametrize(
    "rows",
    [[], [("a", 0, 0.8, 10)], [("a", 0, 0.8, 10), ("b", 1, 0.8, 10)], [("a", 0, 0.8, 9), ("a", 1, 0.8, math.nan)]],
)
def test_nothing_without_two_runs_of_a_configuration(rows: list) -> None:
    assert attainments(trials_of(*rows), RUNTIME) == []


def test_unfinished_trials_and_other_schemes_do_not_count(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for fold in (0, 1):
        finish_trial(study, make_spec("cps", fold=fold), dice=0.8, seconds=90)
    finish_trial(study, make_spec("pgps"), dice=0.8, seconds=30)
    assert [one.method for one in attainments(gather([study.root]).tables.trials, RUNTIME)] == ["cps"]


@pytest.mark.parametrize("layout", [FILE, NARROW])
def test_the_figure_has_a_panel_per_scheme_and_a_line_per_surface(tmp_path: Path, layout) -> None:
    trials = gather([make_study(tmp_path / "study", folds=(0, 1, 2)).root]).tables.trials
    found = attainments(trials, RUNTIME)
    figure = attainment_figure(found, RUNTIME[1], subject="A subject", notes=["A note."], layout=layout)
    assert len(figure.axes) == len(found) == 7
    text = as_svg(figure, text_as_paths=False)
    for one in found:
        for level in ("best", "median", "worst"):
            assert f'id="attainment-{one.method}-{level}"' in text
    assert "Training time [s]" in text
    assert as_png(figure, dots_per_inch=40).startswith(b"\x89PNG")

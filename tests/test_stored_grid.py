"""The grid that is stored with the program: what it holds, searched and replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.fronts.stops import Past, replayed
from benchmarks.grid import STORED, load
from benchmarks.search import measure_stored
from study.common.errors import MissingDataError
from study.search.document import load_space


def test_it_holds_a_training_for_each_curriculum_of_its_space() -> None:
    stored, space = load(), load_space(STORED.with_suffix(".yaml"))
    tables = [stored.curriculum_of(point) for point in stored.points]
    wanted = {stored.curriculum_of(point).stages for point in space.points()}
    assert {table.stages for table in tables} == wanted
    assert len(tables) == len(wanted) == 48
    assert STORED.stat().st_size < 300_000
    for table, trial in zip(tables, stored.content["trials"], strict=True):
        past = Past.from_json(trial["past"])
        assert past.to_json() == {**trial["past"], "curve": past.to_json()["curve"]}
        assert past.curve.work == (table.total_iterations, table.voxels)
        assert len(past.curve.evaluations) == space.axes["training.epochs"].probes()[0]
        dice = trial["dice_per_case"].values()
        assert past.curve.dice == pytest.approx(sum(dice) / len(dice), abs=0.02)


def test_it_is_searched_from_what_is_stored() -> None:
    figures = measure_stored(STORED, seeds=2, searchers=("random", "grid", "oracle"), jobs=1)
    assert {(each.searcher, each.surfaces) for each in figures.spendings} == {("random", 2), ("grid", 1), ("oracle", 1)}
    shares = {(each.searcher, each.goal): each.median for each in figures.spendings}
    assert shares["oracle", 0.95] <= min(shares["random", 0.95], shares["grid", 0.95])
    assert "2 seeds" in figures.as_text()
    with pytest.raises(MissingDataError, match="no stored grid"):
        load(Path("nowhere.json"))


def test_it_is_replayed() -> None:
    pasts = [Past.from_json(trial["past"]) for trial in load().content["trials"]]
    assert not any(stop.false for stop in replayed(pasts))

"""Yesterday's studies, ids, weights, proposals and tables come out as they did; see `goldens`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from goldens import GOLDEN, KINDS, SEARCHERS, proposals, trained, trial_ids, write_tables
from prepared import data_paths

from study.__main__ import main
from study.common import files
from study.nnunet.identity import deciding_versions, version_changes
from study.store.ledger import Ledger

TABLES = sorted(path.name for path in (GOLDEN / "tables").glob("*.parquet"))


def test_specifications_keep_their_ids() -> None:
    now = trial_ids()
    assert len(now) == 30
    assert now == files.read_json(GOLDEN / "ids.json")


@pytest.mark.parametrize("kind", KINDS)
def test_trainings_come_to_the_same_weights(kind: str, data: Path, tmp_path: Path) -> None:
    """Bit for bit on a processor of the kind they were recorded on, elsewhere but for rounding."""
    before = files.read_json(GOLDEN / "weights.json")[kind]
    now = trained(data_paths(data), tmp_path / "study", kind)
    assert now["losses"] == pytest.approx(before["losses"], rel=1e-3)
    assert now["norm_of_weights"] == pytest.approx(before["norm_of_weights"], rel=1e-4)
    if now["exact_on"] == before["exact_on"]:
        assert now == before


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_resumed_search_proposes_what_it_proposed(searcher: str, tmp_path: Path) -> None:
    before = files.read_json(GOLDEN / "proposals.json")[searcher]
    assert len(before) > 3
    for point, recorded in zip(proposals(tmp_path / "study", searcher), before, strict=True):
        assert point == {name: pytest.approx(value) if _is_number(value) else value for name, value in recorded.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, float)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A copy: a reader of a folder writes nothing, but that is for other tests to say."""
    return Path(shutil.copytree(GOLDEN / "study", tmp_path / "study"))


@pytest.mark.parametrize("table", TABLES)
def test_a_study_is_read_to_the_same_tables(table: str, study: Path, tmp_path: Path) -> None:
    write_tables(study, tmp_path / "tables")
    # Trials come in the order of their folders' times, which a checkout does not keep.
    before, now = (
        pd.read_parquet(folder / table).sort_values("trial_id", kind="stable", ignore_index=True)
        for folder in (GOLDEN / "tables", tmp_path / "tables")
    )
    pd.testing.assert_frame_equal(now[list(before)], before, rtol=1e-12)


def test_every_state_is_read(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(study), "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    states = sorted((row["scheme"], row["state"]) for row in rows)
    assert states == [
        ("cps", "finished"),
        ("pgps", "failed"),
        ("pgps", "finished"),
        ("pgps", "finished"),
        ("pgps", "infeasible"),
        ("pgps+", "interrupted"),
        ("rpss", "finished"),
    ]


def test_the_front_is_the_same(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(study), "--objectives", "dice,voxels", "--json"]) == 0
    now = json.loads(capsys.readouterr().out)
    before = files.read_json(GOLDEN / "front.json")
    assert [(point["point_id"], point["objectives"]) for point in now] == [
        (point["point_id"], point["objectives"]) for point in before
    ]


def test_trials_of_the_study_may_be_resumed() -> None:
    """Its code trains as this one does."""
    for folder in Ledger.open(GOLDEN / "study").trials():
        for attempt in folder.attempts():
            now = {name: version for name, version in deciding_versions().items() if name == "code"}
            assert version_changes(attempt.versions, now) == []

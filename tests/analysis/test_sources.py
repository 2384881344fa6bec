"""Tables on disk: what is saved is what is read, from a report as from its study; anything else is one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from ledgers import make_study

from analysis.tables.columns import TABLES
from analysis.tables.frame import Tables, read_studies
from analysis.tables.points import average_points, axes_of, training_of
from analysis.tables.sources import SCHEMA_FILE, read, save
from study.common.errors import LedgerError
from study.store.ledger import Ledger


@pytest.fixture
def study(tmp_path: Path) -> Ledger:
    return make_study(tmp_path / "hippo", n_cases=3, curve=True)


def assert_same(one: Tables, other: Tables) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))


def test_saved_tables_are_read_back_as_they_were(study: Ledger, tmp_path: Path) -> None:
    tables = read([study.root])
    save(tables, tmp_path / "tables")
    assert_same(read([tmp_path / "tables"]), tables)


def test_an_empty_study_is_saved_and_read_too(tmp_path: Path) -> None:
    tables = read([Ledger.create(tmp_path / "empty").root])
    save(tables, tmp_path / "tables")
    assert_same(read([tmp_path / "tables"]), tables)


def test_a_report_stands_for_its_study(study: Ledger, tmp_path: Path) -> None:
    save(read_studies([study.root]), tmp_path / "report" / "data")
    assert_same(read([tmp_path / "report"]), read([study.root]))


def test_studies_and_tables_go_together_and_none_is_read_twice(study: Ledger, tmp_path: Path) -> None:
    other = make_study(tmp_path / "other")
    save(read_studies([other.root]), tmp_path / "report" / "data")
    tables = read([tmp_path / "report", study.root, tmp_path / "report" / "data", study.root])
    assert tables.trials["study"].value_counts().to_dict() == {"hippo": 8, "other": 8}


def test_a_report_without_columns_that_were_added_later_is_read(study: Ledger, tmp_path: Path) -> None:
    tables = read([study.root])
    save(tables, tmp_path)
    added = ["chain_start", "augmentation", "nsd", "nsd_tolerance_mm"]
    before = tables.trials.drop(columns=added)
    before.to_parquet(tmp_path / "trials.parquet", index=False)
    again = read([tmp_path]).trials
    assert again.dtypes.equals(tables.trials.dtypes)
    assert again[added].isna().all(axis=None)
    pd.testing.assert_frame_equal(again.drop(columns=added), before)
    recipe = average_points(again).iloc[0]
    assert axes_of(recipe)["chain_start"] == "trainable"
    assert training_of(recipe)["augmentation"] == "full-patch"


def test_the_schema_file_explains_every_column(study: Ledger, tmp_path: Path) -> None:
    save(read_studies([study.root]), tmp_path)
    tables = json.loads((tmp_path / SCHEMA_FILE).read_text(encoding="utf-8"))["tables"]
    for name, columns in tables.items():
        assert [column["name"] for column in columns] == list(pd.read_parquet(tmp_path / f"{name}.parquet").columns)
        assert all(column["meaning"] for column in columns)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (SCHEMA_FILE, b'{"schema": 99}', "schema 99, this version reads 1"),
        (SCHEMA_FILE, b"{", "not a readable schema"),
        ("trials.parquet", b"PAR1", "not a table of trials"),
        ("cases.parquet", None, "not a table of cases"),
    ],
)
def test_tables_that_cannot_be_read_are_one_clear_line(
    study: Ledger, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    folder = tmp_path / "tables"
    save(read_studies([study.root]), folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(LedgerError, match=words) as caught:
        read([folder])
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_neither_study_nor_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="not a study folder"):
        read([tmp_path])

"""What a study rests on: recorded once, and a change of it named and refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from prepared import CUBE, NAME
from studies import write_space

from study.common.errors import LedgerError
from study.nnunet.datasets import data_paths, find_dataset
from study.nnunet.identity import EARLIER_CODE, deciding_versions, recorded_versions, version_changes
from study.run.provenance import Provenance, check_provenance
from study.search.document import load_space
from study.search.space import SearchSpace
from study.store.ledger import Ledger


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    return load_space(write_space(tmp_path))


def test_a_study_records_what_it_rests_on_and_goes_on_under_the_same(
    space: SearchSpace, data: Path, tmp_path: Path
) -> None:
    ledger = Ledger.create(tmp_path / "study", space=space.identity())
    here = Provenance.here(space, data_paths(data))
    check_provenance(ledger, space, data_paths(data), here)
    assert ledger.header()["provenance"] == here.to_json()
    check_provenance(ledger, space, data_paths(data), Provenance.here(space, data_paths(data)))
    assert sorted(here.inputs) == [
        f"labels, channels or file ending in dataset.json of {NAME}",
        f"plans {CUBE} of {NAME}",
        f"preprocessed files of {NAME}/nnUNetPlans_3d_fullres",
        f"reference segmentations of {NAME} fold 0",
        f"split of {NAME} fold 0",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torch", "torch 0.0, was "),
        ("nnunetv2", "nnunetv2 0.0, was "),
        ("optuna", "optuna 0.0, was "),
        ("code", "this project's training 0.0, was "),
    ],
)
def test_another_version_is_named_and_refused(
    name: str, words: str, space: SearchSpace, data: Path, tmp_path: Path
) -> None:
    ledger = Ledger.create(tmp_path / "study", space=space.identity())
    here = Provenance.here(space, data_paths(data))
    check_provenance(ledger, space, data_paths(data), here)
    other = replace(here, versions={**here.versions, name: "0.0"})
    with pytest.raises(LedgerError) as refused:
        check_provenance(ledger, space, data_paths(data), other)
    assert words in str(refused.value)
    assert "name another --out to start a new one" in str(refused.value)
    assert ledger.header()["provenance"] == here.to_json()


def test_what_only_measures_or_shows_may_change() -> None:
    recorded = recorded_versions()
    changed = {**recorded, "codecarbon": "0.0", "ray": "0.0", "pgps-study": "0.0"}
    assert version_changes(changed, deciding_versions()) == []
    assert version_changes({}, deciding_versions()) == []
    assert version_changes({**recorded, "numpy": "0.0"}, deciding_versions()) == [f"numpy {recorded['numpy']}, was 0.0"]


def test_other_preprocessed_files_are_other_data(space: SearchSpace, data: Path, tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study", space=space.identity())
    check_provenance(ledger, space, data_paths(data), Provenance.here(space, data_paths(data)))
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    check_provenance(ledger, space, data_paths(copy), Provenance.here(space, data_paths(copy)))
    dataset = find_dataset(data_paths(copy), NAME)
    case = next((dataset.folder / dataset.plan(CUBE, "3d_fullres").data_identifier).glob("*.b2nd"))
    case.write_bytes(case.read_bytes() + b"\0")
    with pytest.raises(LedgerError, match=f"preprocessed files of {NAME}/nnUNetPlans_3d_fullres .*, was "):
        check_provenance(ledger, space, data_paths(copy), Provenance.here(space, data_paths(copy)))


def test_studies_that_recorded_a_digest_of_the_same_code_go_on() -> None:
    now = deciding_versions()
    for digest in EARLIER_CODE:
        assert version_changes({**now, "code": digest}, now) == []
    assert version_changes({**now, "code": "0" * 12}, now) == [f"this project's training {now['code']}, was {'0' * 12}"]

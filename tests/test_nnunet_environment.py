"""nnU-Net's own switches in the environment: none of them reaches a trial, and all are there again afterwards."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest
from examples import make_spec

from study.nnunet.datasets import DataPaths
from study.nnunet.paths import nnunet_environment
from study.run import trial_host
from study.store.ledger import Ledger

OURS = {"nnUNet_preprocessed", "nnUNet_results", "nnUNet_raw", "nnUNet_def_n_proc", "nnUNet_n_proc_DA"}


def switches() -> set[str]:
    """Every word of this form in the installed nnU-Net, those that it reads from the environment among them."""
    spec = importlib.util.find_spec("nnunetv2")
    assert spec is not None
    assert spec.submodule_search_locations
    sources = Path(spec.submodule_search_locations[0]).rglob("*.py")
    return {name for path in sources for name in re.findall(r"\bnnUNet_\w+", path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("value", ["1", "true", "abc", ""])
def test_a_trial_sees_only_what_we_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    found = switches()
    assert {"nnUNet_compile", "nnUNet_wandb_enabled", "nnUNet_extTrainer", "nnUNet_keep_files_open", *OURS} <= found
    for name in (*found, "nnUNet_added_later"):
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    folder = Ledger.create(tmp_path / "study").add(make_spec())
    data = DataPaths(raw=tmp_path / "raw", preprocessed=tmp_path / "prepared")
    with nnunet_environment(folder, data, processes=3):
        seen = {name: text for name, text in os.environ.items() if name.startswith("nnUNet_")}
        monkeypatch.setenv("nnUNet_set_by_itself", "1")
    assert seen == {
        "nnUNet_raw": str(data.raw),
        "nnUNet_preprocessed": str(data.preprocessed),
        "nnUNet_results": str(folder.results_path),
        "nnUNet_def_n_proc": "3",
        "nnUNet_n_proc_DA": "1",
    }
    assert dict(os.environ) == before


def test_the_server_of_trainings_is_started_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It imports nnU-Net, which then reads some of them, before it knows of a trial."""
    monkeypatch.setenv("nnUNet_def_n_proc", "many")
    assert [name for name in trial_host._environment() if name.startswith("nnUNet_")] == []

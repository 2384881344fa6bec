"""A cascade from trials of our own: all folds of the stage before are gathered, every case once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from examples import finish
from prepared import NAME, cascade_plans, spec_of, train, workplace

from study.common.errors import LedgerError
from study.nnunet.datasets import find_dataset
from study.nnunet.paths import check_previous_stage, previous_stage_folder
from study.run.trial import run_trial
from study.search.trials import prepared_lookup
from study.store.ledger import Ledger

PLANS, LOW, CASCADE = "CascadePlans", "3d_lowres", "3d_cascade_fullres"


@pytest.mark.cluster
def test_trials_of_all_folds_feed_a_cascade(data: Path, tmp_path: Path) -> None:
    paths = cascade_plans(data, tmp_path)
    dataset, ledger = find_dataset(paths, NAME), Ledger.create(tmp_path / "low")
    short = {"epochs": 1, "iterations_per_epoch": 2}
    first = spec_of(paths, "cps", plans=PLANS, configuration=LOW, training=short)
    # The first fold is trained; the others are as if they were.
    trained = run_trial(first, ledger, workplace(paths)).folder
    place = Path("results") / NAME / f"nnUNetTrainerPGPS__{PLANS}__{LOW}" / "predicted_next_stage" / CASCADE
    assert {path.stem for path in (trained.path / place).iterdir()} == set(dataset.split(0).validation)
    for fold in range(1, 5):
        _, split_sha256 = prepared_lookup(paths)(NAME, PLANS, LOW, fold)
        folder = ledger.add(replace(first, fold=fold, split_sha256=split_sha256))
        finish(folder)
        (folder.path / place).mkdir(parents=True)
        for case in dataset.split(fold).validation:
            shutil.copy(tmp_path / "previous" / f"{case}.b2nd", folder.path / place)

    plan = dataset.plan(PLANS, CASCADE)
    found = previous_stage_folder(dataset, PLANS, CASCADE, ledger.root)
    assert found is not None
    for fold in range(5):
        check_previous_stage(plan, dataset.split(fold), found)
    assert previous_stage_folder(dataset, PLANS, CASCADE, trained.path) == found
    spec = spec_of(paths, plans=PLANS, configuration=CASCADE, training=short)
    cascade = train(spec, Ledger.create(tmp_path / "cascade"), replace(workplace(paths), previous_stage=found))
    assert len(cascade.epochs()) == 1

    # With a second point one has to be named.
    other = ledger.add(spec_of(paths, "cps", seed=1, plans=PLANS, configuration=LOW, training=short))
    finish(other)
    with pytest.raises(LedgerError, match=f"trials of 2 points of {LOW}: name one of a trial, .*{trained.trial_id}"):
        previous_stage_folder(dataset, PLANS, CASCADE, ledger.root)
    assert previous_stage_folder(dataset, PLANS, CASCADE, trained.path) == found
    with pytest.raises(LedgerError, match=f"has no finished trial of {NAME}, {PLANS}, {LOW}"):
        previous_stage_folder(dataset, PLANS, CASCADE, Ledger.create(tmp_path / "empty").root)

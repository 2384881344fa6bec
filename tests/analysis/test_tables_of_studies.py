"""Epochs, cases and cost segments: what the ledger holds, nothing twice, nothing lost, unknown is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ledgers import (
    CODECARBON,
    CPU_SHARE,
    NODE_KILOWATTS,
    finish_trial,
    make_epochs,
    make_header,
    make_interval,
    make_spec,
    make_study,
    start_trial,
)

from analysis.tables.columns import TABLES
from analysis.tables.frame import KEY, Tables, read_studies
from study.store.ledger import Ledger
from study.store.records import Phase

KWH_PER_SECOND = NODE_KILOWATTS * CPU_SHARE / 3600
KG_PER_KWH = CODECARBON.carbon_intensity_kg_per_kwh * CODECARBON.pue


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return read_studies([make_study(tmp_path_factory.mktemp("s") / "study", folds=(0, 1), n_cases=4, curve=True).root])


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_the_documented_ones_with_their_types(tables: Tables, name: str) -> None:
    documented = {column.name: column.dtype for column in TABLES[name]}
    assert {column: str(dtype) for column, dtype in getattr(tables, name).dtypes.items()} == documented
    assert all(column.label and column.meaning for column in TABLES[name])


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_study_has_the_same_columns_and_types(tmp_path: Path, tables: Tables, name: str) -> None:
    empty = getattr(read_studies([Ledger.create(tmp_path / "study").root]), name)
    assert empty.empty
    assert empty.dtypes.equals(getattr(tables, name).dtypes)


def test_every_row_belongs_to_a_trial(tables: Tables) -> None:
    known = set(tables.trials[KEY].itertuples(index=False, name=None))
    for frame in tables.as_dict().values():
        assert set(frame[KEY].itertuples(index=False, name=None)) == known


def test_cases_are_long_with_their_mean_over_classes(tables: Tables) -> None:
    assert len(tables.cases) == 16 * 4 * 3
    wide = tables.cases.pivot(index=[*KEY, "case"], columns="label", values="dice")
    assert list(wide.columns) == ["1", "2", "foreground"]
    assert wide["foreground"].to_numpy() == pytest.approx((wide["1"] + wide["2"]).to_numpy() / 2)


def test_cost_segments_add_up_to_the_trials_bill(tables: Tables) -> None:
    sums = tables.costs.groupby(KEY)[["seconds", "energy_kwh", "co2_kg"]].sum()
    trials = tables.trials.set_index(KEY)
    assert sums["seconds"].to_dict() == pytest.approx(trials["total_seconds"].to_dict())
    assert sums["energy_kwh"].to_dict() == pytest.approx(trials["total_energy_kwh"].to_dict())
    assert sums["co2_kg"].to_dict() == pytest.approx(trials["total_co2_kg"].to_dict())


def test_intervals_of_an_attempt_phase_and_stage_are_one_segment(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    folder = start_trial(study, make_spec(), seconds=20.0)
    folder.append_cost(make_interval(Phase.TRAINING, 6.0, start=200, stop=200))
    costs = read_studies([study.root]).costs.set_index("phase")
    assert costs.loc["training", ["seconds", "iteration_start", "iteration_stop"]].tolist() == [24.0, 0, 200]
    assert sorted(costs.index) == ["online_validation", "setup", "training"]
    assert costs.loc["training", "stage"] == 0
    assert costs["stage"].isna().sum() == 2


def test_a_curve_tells_what_each_epoch_had_cost(tmp_path: Path) -> None:
    """Twenty iterations an epoch, a second each; the crash after iteration 70 sends it back to 50."""
    study, spec = Ledger.create(tmp_path / "study"), make_spec()
    folder = study.add(spec)
    folder.begin_attempt(make_header(0))
    folder.append_cost(make_interval(Phase.TRAINING, 40.0, start=0, stop=40))
    folder.append_cost(make_interval(Phase.TRAINING, 30.0, start=40, stop=70))
    folder.begin_attempt(make_header(1, resumed_from_iteration=50))
    folder.append_cost(make_interval(Phase.TRAINING, 50.0, attempt=1, start=50, stop=100))
    for report in make_epochs(spec, dice=0.8, seconds=200.0)[:5]:
        folder.append_epoch(report)
    epochs = read_studies([study.root]).epochs
    seconds = np.array([20, 40, 60, 80, 100])
    assert epochs["iteration"].tolist() == seconds.tolist()
    assert epochs["energy_kwh"].to_numpy() == pytest.approx(seconds * KWH_PER_SECOND)
    assert epochs["co2_kg"].to_numpy() == pytest.approx(seconds * KWH_PER_SECOND * KG_PER_KWH)
    stage = spec.curriculum.stages[epochs["stage"].iloc[0]]
    assert epochs["patch_size"].iloc[0] == "×".join(map(str, stage.patch_size))


def test_waste_is_a_part_of_its_segment(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    folder = study.add(make_spec())
    folder.begin_attempt(make_header(0))
    folder.append_cost(make_interval(Phase.TRAINING, 70.0, start=0, stop=70))
    folder.begin_attempt(make_header(1, resumed_from_iteration=50, hostname="other"))
    folder.append_cost(make_interval(Phase.TRAINING, 50.0, attempt=1, start=50, stop=100))
    for report in make_epochs(folder.spec(), dice=0.8, seconds=100)[:5]:
        folder.append_epoch(report)
    tables = read_studies([study.root])
    assert tables.costs["waste_seconds"].tolist() == pytest.approx([20.0, 0.0])
    assert tables.costs["waste_energy_kwh"].tolist() == pytest.approx([20 * KWH_PER_SECOND, 0.0])
    assert tables.costs["hostname"].tolist() == ["node", "other"]
    assert tables.trials["waste_seconds"].tolist() == pytest.approx([20.0])


def test_unmeasured_energy_is_missing_in_every_table(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(), dice=0.8, seconds=30, measured=False, curve=True)
    tables = read_studies([study.root])
    assert tables.costs[["cpu_kwh", "energy_kwh", "co2_kg"]].isna().all(axis=None)
    assert tables.epochs[["energy_kwh", "co2_kg"]].isna().all(axis=None)
    assert tables.costs["seconds"].notna().all()


def test_a_trial_that_cannot_be_read_is_in_the_trials_alone(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    broken = finish_trial(study, make_spec(), dice=0.8, seconds=30, curve=True)
    (broken.path / "epochs.jsonl").write_text("[]\n")
    tables = read_studies([study.root])
    assert tables.trials["state"].tolist() == ["unreadable"]
    assert tables.epochs.empty
    assert tables.costs.empty

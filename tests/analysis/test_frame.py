"""Tables of studies: every trial is a row, numbers are the ledger's, nothing twice or lost, unknown is never 0."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledgers import (
    CODECARBON,
    CPU_SHARE,
    FINAL_VALIDATION_SECONDS,
    NODE_KILOWATTS,
    SETUP_SECONDS,
    finish_trial,
    make_epochs,
    make_header,
    make_interval,
    make_result,
    make_spec,
    make_study,
    start_trial,
)

from analysis.statistics.intervals import with_intervals
from analysis.statistics.study_results import gather
from analysis.tables.columns import POINT_COLUMNS, TABLES, TRIAL_COLUMNS
from analysis.tables.frame import KEY, Tables, read_studies
from study.store.ledger import Ledger
from study.store.records import Phase


def only_row(study: Ledger) -> pd.Series:
    frame = read_studies([study.root]).trials
    assert len(frame) == 1
    return frame.iloc[0]


@pytest.mark.parametrize("columns", [TRIAL_COLUMNS, POINT_COLUMNS])
def test_column_names_are_unique_and_every_column_is_explained(columns: tuple) -> None:
    assert len({column.name for column in columns}) == len(columns)
    assert all(column.label and column.meaning for column in columns)
    for ending, unit in (("_seconds", "s"), ("_kwh", "kWh"), ("_kg", "kg")):
        assert {column.unit for column in columns if column.name.endswith(ending)} == {unit}


def test_a_row_says_what_the_trial_is(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "hippo")
    spec = make_spec("pgps+", fold=2, seed=3, stages=4, budget=0.5)
    finish_trial(study, spec, dice=0.8, seconds=30)
    row = only_row(study)
    assert (row["study"], row["trial_id"], row["state"]) == ("hippo", spec.trial_id, "finished")
    assert (row["fold"], row["seed"], row["scheme"], row["stages"]) == (2, 3, "pgps+", 4)
    assert (row["batch_growth"], row["budget"], row["chain"]) == ("stepwise", 0.5, "cyclic")
    assert (row["optimizer"], row["initial_learning_rate"], row["epochs"]) == ("adamw", 3e-3, 10)
    assert (row["n_stages"], row["iterations"]) == (4, 100)
    assert (row["dice"], row["voxels"], row["weights_sha256"]) == (0.8, spec.curriculum.voxels, "ab" * 32)
    stages = json.loads(row["stage_table"])
    assert [stage["patch_size"] for stage in stages] == [list(s.patch_size) for s in spec.curriculum.stages]
    assert [stage["iterations"] for stage in stages] == [s.iterations for s in spec.curriculum.stages]


def test_costs_are_the_trials_share_of_the_machine(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(), dice=0.8, seconds=36.0)
    row = only_row(study)
    kwh = 36.0 / 3600 * NODE_KILOWATTS * CPU_SHARE
    total_seconds = 36.0 + SETUP_SECONDS + FINAL_VALIDATION_SECONDS
    assert row["runtime_seconds"] == pytest.approx(36.0)
    assert row["energy_kwh"] == pytest.approx(kwh)
    rate = CODECARBON.carbon_intensity_kg_per_kwh * CODECARBON.pue
    assert row["co2_kg"] == pytest.approx(kwh * rate)
    assert row["total_seconds"] == pytest.approx(total_seconds)
    assert row["total_co2_kg"] == pytest.approx(kwh * rate * total_seconds / 36.0)
    assert row["waste_seconds"] == 0
    assert row["energy_methods"] == "cpu estimated by share of cores, gpu absent, ram estimated"
    assert (row["meter"], row["country"], row["hardware"]) == ("codecarbon 3.3.2", "FRA", "Example CPU")


def test_a_finished_trial_that_lost_its_records_did_not_train_for_free(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    spec = make_spec()
    folder = study.add(spec)
    folder.begin_attempt(make_header())
    folder.finish(make_result(spec, 0.8), attempt=0)
    row = only_row(study)
    assert row["state"] == "unreadable"
    assert "epochs.jsonl is damaged: it has 0 of the 10 epochs" in row["failure"]
    assert row[["dice", "runtime_seconds", "energy_kwh", "co2_kg", "total_seconds", "total_co2_kg"]].isna().all()


def test_trials_in_every_state_are_rows(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    new = study.add(make_spec("cps"))
    interrupted = start_trial(study, make_spec("pgps"), seconds=12)
    failed = start_trial(study, make_spec("pgps+"), seconds=3)
    failed.fail(attempt=0, reason="CUDA out\nof memory")
    running = start_trial(study, make_spec("rpss"), seconds=7)
    finished = finish_trial(study, make_spec("performance"), dice=0.8, seconds=30)
    with running.locked():
        frame = read_studies([study.root]).trials.set_index("trial_id")
    expected = {new: "new", interrupted: "interrupted", failed: "failed", running: "running", finished: "finished"}
    assert frame["state"].to_dict() == {folder.trial_id: state for folder, state in expected.items()}
    assert frame["failure"].dropna().to_dict() == {failed.trial_id: "CUDA out of memory"}
    assert frame.loc[interrupted.trial_id, "runtime_seconds"] == pytest.approx(12)
    assert frame.loc[new.trial_id, "attempts"] == 0
    assert frame["dice"].notna().sum() == 1


@pytest.mark.parametrize("name", ["spec.json", "result.json", "attempts/000.json"])
@pytest.mark.parametrize("content", ["{", "[]", "{}", "3"])
def test_a_broken_file_makes_the_row_unreadable_and_leaves_the_others(tmp_path: Path, name: str, content: str) -> None:
    study = Ledger.create(tmp_path / "study")
    broken = finish_trial(study, make_spec("cps"), dice=0.7, seconds=90)
    finish_trial(study, make_spec("pgps"), dice=0.8, seconds=30)
    (broken.path / name).write_text(content)
    tables = read_studies([study.root])
    frame = tables.trials.set_index("trial_id")
    assert sorted(frame["state"]) == ["finished", "unreadable"]
    assert str(broken.path / name) in frame.loc[broken.trial_id, "failure"]
    assert broken.trial_id not in {*tables.epochs["trial_id"], *tables.cases["trial_id"], *tables.costs["trial_id"]}


def test_studies_concatenate_and_a_folder_named_twice_is_read_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        finish_trial(Ledger.create(tmp_path / name), make_spec(), dice=0.8, seconds=30)
    frame = read_studies([tmp_path / "one", tmp_path / "two", tmp_path / "two" / ".." / "one"]).trials
    assert frame["study"].tolist() == ["one", "two"]


def test_folders_with_the_same_name_are_told_apart_by_path(tmp_path: Path) -> None:
    roots = [tmp_path / "a" / "hippo", tmp_path / "b" / "hippo"]
    for root in roots:
        finish_trial(Ledger.create(root), make_spec(), dice=0.8, seconds=30)
    assert read_studies(roots).trials["study"].tolist() == [str(root) for root in roots]


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
    cards = ("Example GPU", "Example GPU")
    folder.begin_attempt(make_header(1, resumed_from_iteration=50, hostname="other", gpu_names=cards))
    folder.append_cost(make_interval(Phase.TRAINING, 50.0, attempt=1, start=50, stop=100))
    for report in make_epochs(folder.spec(), dice=0.8, seconds=100)[:5]:
        folder.append_epoch(report)
    tables = read_studies([study.root])
    assert tables.costs["waste_seconds"].tolist() == pytest.approx([20.0, 0.0])
    assert tables.costs["waste_energy_kwh"].tolist() == pytest.approx([20 * KWH_PER_SECOND, 0.0])
    assert tables.costs["hostname"].tolist() == ["node", "other"]
    row = tables.trials.iloc[0]
    assert (row["attempts"], row["runtime_seconds"], row["waste_seconds"]) == pytest.approx((2, 120.0, 20.0))
    assert row["hardware"] == "Example CPU | Example CPU + 2× Example GPU"


def test_unmeasured_energy_is_missing_in_every_table(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(), dice=0.8, seconds=30, measured=False, curve=True)
    tables = read_studies([study.root])
    assert tables.costs[["cpu_kwh", "energy_kwh", "co2_kg"]].isna().all(axis=None)
    assert tables.epochs[["energy_kwh", "co2_kg"]].isna().all(axis=None)
    assert tables.trials[["energy_kwh", "co2_kg", "total_energy_kwh", "total_co2_kg"]].isna().all(axis=None)
    assert tables.costs["seconds"].notna().all()
    assert tables.trials["runtime_seconds"].tolist() == pytest.approx([30.0])


def test_without_details_the_points_are_the_same_and_damage_is_named_too(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", folds=(0, 1), budgets=(1.0, 0.5), n_cases=4, curve=True)
    (study.trials()[-1].path / "epochs.jsonl").write_text("no record\n")
    whole, part = gather([study.root]), gather([study.root], with_details=False)
    pd.testing.assert_frame_equal(with_intervals(part.points, part.tables), whole.points)
    pd.testing.assert_frame_equal(part.tables.trials, whole.tables.trials)
    by_class = whole.tables.cases[whole.tables.cases["label"] != "foreground"]
    pd.testing.assert_frame_equal(part.tables.cases, by_class.reset_index(drop=True))
    assert whole.tables.trials["state"].iloc[-1] == "unreadable" and whole.tables.trials["pace"].notna().any()
    assert part.tables.epochs.empty and set(part.tables.costs["phase"]) == {"training"}

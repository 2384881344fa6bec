"""CO₂ on another grid: the same energy, another carbon intensity, in every table; what was not measured stays so."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from ledgers import CODECARBON, finish_trial, make_epochs, make_header, make_interval, make_spec, make_study

from analysis.tables.frame import Tables, read_studies
from analysis.tables.sources import Grid, redrawn
from study.common.errors import InvalidInputError
from study.run.meter import carbon_intensity_kg_per_kwh
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.records import Phase

CARBON = {"trials": ["co2_kg", "total_co2_kg"], "epochs": ["co2_kg"], "costs": ["co2_kg", "waste_co2_kg"]}


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return read_studies([make_study(tmp_path / "study", curve=True).root])


def test_every_amount_scales_with_the_intensity(tables: Tables) -> None:
    poland = redrawn(tables, Grid(country="POL"))
    factor = carbon_intensity_kg_per_kwh("POL") / CODECARBON.carbon_intensity_kg_per_kwh
    assert factor > 3
    for name, columns in CARBON.items():
        for column in columns:
            before, after = getattr(tables, name)[column], getattr(poland, name)[column]
            assert after.to_numpy() == pytest.approx(factor * before.to_numpy()), (name, column)


def test_seconds_and_energy_stay_and_the_tables_say_which_grid_it_is(tables: Tables) -> None:
    poland = redrawn(tables, Grid(country="POL"))
    for column in ("runtime_seconds", "energy_kwh", "dice"):
        pd.testing.assert_series_equal(poland.trials[column], tables.trials[column])
    assert set(poland.trials["country"]) == {"POL"}
    assert poland.trials["carbon_rate"].iloc[0] == f"{carbon_intensity_kg_per_kwh('POL'):g} kg CO₂ per kWh, PUE 1.2"
    assert set(tables.trials["country"]) == {"FRA"}


def test_it_is_the_bill_of_the_ledger_for_that_grid(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    folder = study.add(make_spec())
    folder.begin_attempt(make_header(0))
    folder.append_cost(make_interval(Phase.TRAINING, 70.0, start=0, stop=70))
    folder.begin_attempt(make_header(1, resumed_from_iteration=50))
    folder.append_cost(make_interval(Phase.TRAINING, 50.0, attempt=1, start=50, stop=100))
    for report in make_epochs(folder.spec(), dice=0.8, seconds=100)[:5]:
        folder.append_epoch(report)
    intensity = carbon_intensity_kg_per_kwh("SWE")
    costs = bill(folder.attempts(), folder.cost_intervals(), carbon_intensity_kg_per_kwh=intensity, pue=1.5)
    tables = redrawn(read_studies([study.root]), Grid(country="SWE", pue=1.5))
    assert tables.trials.loc[0, "co2_kg"] == pytest.approx(costs.training.co2_kg)
    assert tables.trials.loc[0, "total_co2_kg"] == pytest.approx(costs.total.co2_kg)
    assert tables.costs["waste_co2_kg"].sum() == pytest.approx(costs.waste.co2_kg)


def test_unmeasured_stays_unmeasured_and_a_new_trial_has_no_grid(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(), dice=0.8, seconds=30, measured=False, curve=True)
    study.add(make_spec("cps"))
    tables = redrawn(read_studies([study.root]), Grid(country="POL"))
    for frame in (tables.trials, tables.epochs, tables.costs):
        assert frame["co2_kg"].isna().all()
    assert set(tables.trials["country"].dropna()) == {"FRA"}


def test_the_same_grid_changes_nothing(tables: Tables) -> None:
    rate = carbon_intensity_kg_per_kwh("FRA") / CODECARBON.carbon_intensity_kg_per_kwh
    france = redrawn(tables, Grid(country="FRA"))
    assert france.trials["co2_kg"].to_numpy() == pytest.approx(rate * tables.trials["co2_kg"].to_numpy())


@pytest.mark.parametrize("pue", [0.5, 11])
def test_an_impossible_pue_is_refused(pue: float) -> None:
    with pytest.raises(InvalidInputError, match="pue"):
        Grid(country="FRA", pue=pue)

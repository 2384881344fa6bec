"""Meters: what is measured grows, what is not is None and never 0, and nobody's settings leak in."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prepared import Phase, spec_of, train, workplace

from study import trial
from study.datasets import data_paths
from study.emissions import (
    WORLD,
    CodeCarbonMeter,
    NoMeter,
    carbon_intensity_kg_per_kwh,
    check_country,
    make_meter,
    nvml_indices,
)
from study.errors import InvalidInputError
from study.ledger import Ledger
from study.records import UNMEASURED, Energy, MeterInfo, MeterReading

NOT_MEASURED = {"cpu": "unmeasured", "gpu": "unmeasured", "ram": "unmeasured"}
# Settings that would change what is measured, where it goes, or whose carbon it is.
HOSTILE = {
    "force_cpu_power": "1000000",
    "force_ram_power": "1000000",
    "pue": "9",
    "wue": "9",
    "tracking_mode": "process",
    "gpu_ids": "0,1,2",
    "country_iso_code": "POL",
    "cloud_provider": "aws",
    "cloud_region": "us-east-1",
    "force_carbon_intensity_g_co2e_kwh": "1",
    "output_methods": "csv,logger",
    "save_to_file": "true",
    "output_dir": "/nowhere",
    "emissions_endpoint": "http://localhost:1/",
    "log_level": "debug",
    "allow_multiple_runs": "false",
    "force_mode_cpu_load": "true",
    "rapl_include_dram": "true",
    "rapl_prefer_psys": "true",
    "api_call_interval": "1",
    "measure_power_secs": "3600",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(meter: CodeCarbonMeter, readings: int = 3) -> tuple[MeterInfo, list[MeterReading]]:
    info = meter.start()
    taken = []
    for _ in range(readings):
        time.sleep(0.1)
        taken.append(meter.read())
    return info, [*taken, meter.stop()]


def settings_of(meter: CodeCarbonMeter) -> dict[str, Any]:
    """What CodeCarbon has made of the settings that somebody tried to change."""
    return {name: value for name, value in meter._tracker._conf.items() if name in HOSTILE}


def measured(value: float | None) -> float:
    assert value is not None
    return value


# -------------------------------------------------------------------------------------------------------------- meters


def test_no_meter_is_unmeasured() -> None:
    meter = make_meter(Energy(meter="none", country="FRA", pue=1.3), ())
    assert isinstance(meter, NoMeter)
    info = meter.start()
    assert (info.name, info.methods, info.country, info.pue) == ("none", NOT_MEASURED, "FRA", 1.3)
    assert meter.read() == meter.stop() == UNMEASURED == MeterReading(cpu_kwh=None, gpu_kwh=None, ram_kwh=None)


def test_codecarbons_readings_grow(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    meter = make_meter(Energy(country="FRA", pue=1.3), ())
    assert isinstance(meter, CodeCarbonMeter)
    info, readings = run_of(meter)
    assert info.name == "codecarbon"
    assert info.methods["cpu"] in {"measured", "estimated"}
    assert (info.methods["gpu"], info.methods["ram"]) == ("absent", "estimated")
    assert (info.country, info.pue) == ("FRA", 1.3)
    assert info.carbon_intensity_kg_per_kwh == carbon_intensity_kg_per_kwh("FRA")
    for earlier, later in pairwise(readings):
        assert measured(later.cpu_kwh) >= measured(earlier.cpu_kwh)
        assert measured(later.ram_kwh) >= measured(earlier.ram_kwh)
    assert 0 < measured(readings[0].ram_kwh) < measured(readings[2].ram_kwh)
    # No GPU belongs to the trial, so none is charged, whatever the machine has.
    assert all(reading.gpu_kwh == 0.0 for reading in readings)
    assert meter.read() == UNMEASURED
    assert list(home.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_foreign_settings_change_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untouched = CodeCarbonMeter(country="FRA")
    expected = run_of(untouched, readings=1)[0]
    lines = [f"{name} = {value}" for name, value in HOSTILE.items()]
    (home / ".codecarbon.config").write_text("\n".join(["[codecarbon]", *lines]))
    for name, value in HOSTILE.items():
        monkeypatch.setenv(f"CODECARBON_{name.upper()}", value)
    meter = CodeCarbonMeter(country="FRA")
    info, readings = run_of(meter)
    assert info == expected
    assert settings_of(meter) == settings_of(untouched)
    assert len(settings_of(meter)) == len(HOSTILE)
    # A megawatt for 0.3 s would be 0.08 kWh.
    assert 0 < measured(readings[-1].cpu_kwh) < 1e-3
    assert 0 < measured(readings[-1].ram_kwh) < 1e-3
    assert measured(readings[2].ram_kwh) > measured(readings[0].ram_kwh)
    assert [path.name for path in home.iterdir()] == [".codecarbon.config"]


def test_a_tracker_that_cannot_start_is_unmeasured(home: Path) -> None:
    (home / ".codecarbon.config").write_text("this is no INI file")
    info, readings = run_of(CodeCarbonMeter(country="FRA"))
    assert (info.name, info.methods) == ("codecarbon", NOT_MEASURED)
    assert readings == [UNMEASURED] * 4


def test_a_tracker_that_breaks_later_is_unmeasured_from_then_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = CodeCarbonMeter()
    assert meter.start().methods != NOT_MEASURED
    assert meter.read() != UNMEASURED
    monkeypatch.setattr(meter._tracker, "_do_measurements", lambda: 1 / 0)
    time.sleep(0.1)
    assert meter.read() == UNMEASURED
    monkeypatch.setattr(meter._tracker, "flush", lambda: 1 / 0)
    assert meter.read() == UNMEASURED
    stop = meter._tracker.stop
    monkeypatch.setattr(meter._tracker, "stop", lambda: 1 / 0)
    assert meter.stop() == UNMEASURED
    stop()


def test_the_ledgers_intervals_add_up_to_the_last_reading(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[MeterReading] = []

    class Noting(CodeCarbonMeter):
        def read(self) -> MeterReading:
            readings.append(super().read())
            return readings[-1]

    monkeypatch.setattr(trial, "make_meter", lambda energy, gpus: Noting(country=energy.country, gpu_ids=gpus))
    paths = data_paths(data)
    place = workplace(paths, energy=Energy(country="FRA"))
    folder = train(spec_of(paths), Ledger.create(tmp_path / "study"), place, after=8)
    intervals = folder.cost_intervals()
    assert len(intervals) == len(readings) - 1 > 3
    for part in ("cpu_kwh", "ram_kwh", "gpu_kwh"):
        deltas = [measured(getattr(interval, part)) for interval in intervals]
        assert min(deltas) >= 0
        first, last = (measured(getattr(readings[i], part)) for i in (0, -1))
        assert sum(deltas) + first == pytest.approx(last)
    assert measured(readings[-1].ram_kwh) > 0
    assert {interval.phase for interval in intervals} == {Phase.SETUP, Phase.TRAINING}


# ----------------------------------------------------------------------------------------------------- countries, GPUs


def test_known_countries_and_none_pass() -> None:
    for country in ("FRA", "DEU", "USA", None):
        check_country(country)


@pytest.mark.parametrize(
    ("country", "remedy"),
    [
        ("DE", "DEU"),
        ("DEX", "DEU"),
        ("Germany", "did you mean DEU?"),
        ("fra", "FRA"),
        ("QQQ", "ISO 3166 alpha-3"),
        ("", "ISO 3166 alpha-3"),
    ],
)
def test_an_unknown_country_is_refused_with_a_hint(country: str, remedy: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        check_country(country)
    message = str(refusal.value)
    assert message.startswith(f"country: received {country!r}, legal is a three-letter country code")
    assert remedy in message.partition(";")[2]


def test_intensity_is_the_countrys_or_the_worlds() -> None:
    france, poland, world = (carbon_intensity_kg_per_kwh(code) for code in ("FRA", "POL", None))
    assert 0.01 < france < 0.1 < world < poland < 1.5
    assert NoMeter().start().country == WORLD
    assert NoMeter().start().carbon_intensity_kg_per_kwh == world
    with pytest.raises(InvalidInputError):
        carbon_intensity_kg_per_kwh("QQQ")


@pytest.mark.parametrize("uuids", [(), ("GPU-00000000-0000-0000-0000-000000000000",), ("not a uuid",)])
def test_gpus_that_are_not_there_have_no_index(uuids: Any) -> None:
    assert nvml_indices(uuids) == ()

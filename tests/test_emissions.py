"""Meters: what is measured grows, what is not is None and never 0, and nobody's settings leak in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prepared import Phase, spec_of, train, workplace

from study.common.errors import InvalidInputError
from study.nnunet.datasets import data_paths
from study.run import meter as emissions
from study.run.meter import (
    OWN_COUNTED,
    OWN_MODELLED,
    WORLD,
    CodeCarbonMeter,
    NoMeter,
    carbon_intensity_kg_per_kwh,
    check_country,
    make_meter,
)
from study.run.own_energy import ProcessTree, Sample
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.readings import UNMEASURED, MeterInfo, MeterReading, NodeUse
from study.store.specification import Energy

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


def make(**settings: Any) -> CodeCarbonMeter:
    return CodeCarbonMeter(**{"country": "FRA", "cpus": 1.0, **settings})


def run_of(meter: CodeCarbonMeter, readings: int = 3) -> tuple[MeterInfo, list[MeterReading]]:
    processes = ProcessTree()
    meter.start()
    info, _ = meter.describe(())
    taken = []
    for _ in range(readings):
        time.sleep(0.1)
        taken.append(meter.read(processes.sample()))
    meter.stop()
    processes.close()
    return info, taken


def settings_of(meter: CodeCarbonMeter) -> dict[str, Any]:
    """What CodeCarbon has made of the settings that somebody tried to change."""
    return {name: value for name, value in meter._tracker._conf.items() if name in HOSTILE}


def measured(value: float | None) -> float:
    assert value is not None
    return value


SAMPLE = Sample(use=NodeUse(own_cpu_seconds=1.0, cpu_seconds=2.0, trials=1), pids=frozenset())


def test_no_meter_is_unmeasured() -> None:
    meter = make_meter(Energy(meter="none", country="FRA", pue=1.3), cpus=1)
    assert isinstance(meter, NoMeter)
    meter.start()
    info, indices = meter.describe(["GPU-1"])
    assert (info.name, info.methods, info.country, info.pue, indices) == ("none", NOT_MEASURED, "FRA", 1.3, ())
    assert meter.read(SAMPLE) == UNMEASURED
    assert set(asdict(UNMEASURED.own).values()) == {None}


def test_readings_grow_and_the_trial_is_charged_its_part(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    meter = make_meter(Energy(country="FRA", pue=1.3), cpus=0.5)
    assert isinstance(meter, CodeCarbonMeter)
    info, readings = run_of(meter)
    assert info.name == "codecarbon"
    assert info.methods["cpu"] in {OWN_MODELLED, OWN_COUNTED}
    assert (info.methods["gpu"], info.methods["ram"], info.reasons) == ("absent", "estimated", {})
    assert (info.country, info.pue) == ("FRA", 1.3)
    assert info.carbon_intensity_kg_per_kwh == carbon_intensity_kg_per_kwh("FRA")
    for earlier, later in pairwise(readings):
        assert measured(later.cpu_kwh) >= measured(earlier.cpu_kwh)
        assert measured(later.ram_kwh) > measured(earlier.ram_kwh) > 0
        assert measured(later.own.idle_cpu_kwh) > measured(earlier.own.idle_cpu_kwh) > 0
    for reading in readings:
        assert reading.own.ram_kwh == pytest.approx(measured(reading.ram_kwh) * 0.5 / (os.cpu_count() or 1))
        # No GPU belongs to the trial, so none is charged, whatever the machine has.
        assert (reading.gpu_kwh, reading.own.gpu_kwh, reading.reasons) == (0.0, 0.0, {})
    assert list(home.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_foreign_settings_change_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untouched = make()
    expected = run_of(untouched, readings=1)[0]
    lines = [f"{name} = {value}" for name, value in HOSTILE.items()]
    (home / ".codecarbon.config").write_text("\n".join(["[codecarbon]", *lines]))
    for name, value in HOSTILE.items():
        monkeypatch.setenv(f"CODECARBON_{name.upper()}", value)
    meter = make()
    info, readings = run_of(meter)
    assert info == expected
    assert settings_of(meter) == settings_of(untouched)
    assert len(settings_of(meter)) == len(HOSTILE)
    # A megawatt for 0.3 s would be 0.08 kWh.
    assert 0 < measured(readings[-1].cpu_kwh) < 1e-3
    assert 0 < measured(readings[-1].ram_kwh) < 1e-3
    assert measured(readings[-1].ram_kwh) > measured(readings[0].ram_kwh)
    assert [path.name for path in home.iterdir()] == [".codecarbon.config"]


def test_a_tracker_that_cannot_start_is_unmeasured_and_says_why(home: Path) -> None:
    (home / ".codecarbon.config").write_text("this is no INI file")
    info, readings = run_of(make())
    assert info.methods == {"cpu": "unmeasured", "gpu": "absent", "ram": "unmeasured"}
    for reasons in (info.reasons, *(reading.reasons for reading in readings)):
        assert set(reasons) == {"cpu", "ram"}
        assert "MissingSectionHeaderError" in reasons["ram"]
    for reading in readings:
        assert (reading.cpu_kwh, reading.ram_kwh, reading.own.cpu_kwh, reading.own.ram_kwh) == (None,) * 4
        assert reading.own.gpu_kwh == 0.0


def break_flush(tracker: Any) -> None:
    tracker.flush = lambda: 1 / 0


def break_measurement(tracker: Any) -> None:
    tracker._do_measurements = lambda: 1 / 0


def silence(tracker: Any) -> None:
    tracker._output_handlers.clear()


def stand_still(tracker: Any) -> None:
    tracker._measure_power_and_energy_if_stale = tracker._measure_power_and_energy = lambda: None


def give_up_on_ram(tracker: Any) -> None:
    """It then warns in its log and takes 0 W."""
    ram = next(part for part in tracker._hardware if type(part).__name__ == "RAM")
    ram._calculate_ram_power = lambda memory_gb: 1 / 0


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (break_flush, "ZeroDivisionError"),
        (break_measurement, "ZeroDivisionError"),
        (silence, "no reading and no reason"),
        (stand_still, "stood still"),
        (give_up_on_ram, "stood still"),
    ],
)
def test_a_tracker_that_breaks_later_is_unmeasured_from_then_on_and_says_why(
    home: Path, harm: Callable[[Any], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter, processes = make(), ProcessTree()
    monkeypatch.setattr(emissions, "_STILL_SECONDS", 0.2)
    meter.start()
    time.sleep(0.1)
    assert meter.read(processes.sample()).reasons == {}
    harm(meter._tracker)
    meter.read(processes.sample())
    for _ in range(2):
        time.sleep(0.3)
        reading = meter.read(processes.sample())
        assert (reading.ram_kwh, reading.own.ram_kwh, reading.own.gpu_kwh) == (None, None, 0.0)
        assert said in reading.reasons["ram"]
        # The model of what the trial's own processes draw needs no reading of the node.
        assert (reading.own.cpu_kwh is None) == ("cpu" in reading.reasons) == meter._counted
    meter.stop()


def test_memory_of_a_slurm_job_is_charged_by_share_of_the_jobs_cores(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = home / "scontrol"
    scontrol.write_text("#!/bin/sh\necho 'JobId=7 NumNodes=2 NumCPUs=16 AllocTRES=cpu=16,mem=64G,node=2'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
    for module in ("codecarbon.core.util", "codecarbon.external.ram"):
        monkeypatch.setattr(f"{module}.SLURM_JOB_ID", "7")
    _, readings = run_of(make(cpus=4.0))
    assert readings[-1].own.ram_kwh == pytest.approx(measured(readings[-1].ram_kwh) * 4 / 16)
    assert measured(readings[-1].ram_kwh) > 0


def test_the_ledgers_intervals_add_up_to_the_last_reading(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[MeterReading] = []

    class Noting(CodeCarbonMeter):
        def read(self, sample: Sample) -> MeterReading:
            readings.append(super().read(sample))
            return readings[-1]

    monkeypatch.setattr(emissions, "make_meter", lambda energy, **allotted: Noting(country=energy.country, **allotted))
    paths = data_paths(data)
    place = workplace(paths, energy=Energy(country="FRA"))
    folder = train(spec_of(paths), Ledger.create(tmp_path / "study"), place, after=8)
    intervals = folder.cost_intervals()
    assert len(intervals) == len(readings) > 3
    for part in ("cpu_kwh", "ram_kwh", "gpu_kwh"):
        deltas = [measured(getattr(interval, part)) for interval in intervals]
        assert min(deltas) >= 0
        assert sum(deltas) == pytest.approx(measured(getattr(readings[-1], part)))
    for part, total in asdict(readings[-1].own).items():
        assert sum(getattr(interval.own, part) for interval in intervals) == pytest.approx(total)
    assert {interval.phase for interval in intervals} == {Phase.SETUP, Phase.TRAINING}
    setup = intervals[0]
    assert setup.phase is Phase.SETUP
    # From the first moment on: set-up is work of seconds.
    assert measured(setup.own.cpu_kwh) > 0 < measured(setup.own.ram_kwh)
    assert all(interval.use.trials >= 1 for interval in intervals)
    assert bill(folder.attempts(), intervals).by_phase[Phase.SETUP].energy_kwh > 0


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
    for country in ("FRA", "DEU", "USA", None):
        check_country(country)
    france, poland, world = (carbon_intensity_kg_per_kwh(code) for code in ("FRA", "POL", None))
    assert 0.01 < france < 0.1 < world < poland < 1.5
    info, _ = NoMeter().describe(())
    assert (info.country, info.carbon_intensity_kg_per_kwh) == (WORLD, world)
    with pytest.raises(InvalidInputError):
        carbon_intensity_kg_per_kwh("QQQ")

"""Meters of energy: CodeCarbon, or none. A meter that fails says "unmeasured" (None) and why, never 0.

CodeCarbon measures the node (`machine` mode); the ledger keeps that and what the trial is charged apart. Its offline
tracker gets every setting explicitly, because `~/.codecarbon.config` and `CODECARBON_*` would fill in the rest, and its
carbon figures are not used: the grid's intensity is stored beside the energy and carbon is computed when read.

`Accounts` are what an attempt uses of energy and cores, from its first moment on, stretch by stretch.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from importlib import metadata, resources
from typing import Any

from study.common.errors import InvalidInputError
from study.run.own_energy import CpuEnergy, GpuEnergy, ProcessTree, Sample, load_nvml
from study.store.readings import AT_START, UNMEASURED, MeterInfo, MeterReading, NodeUse, OwnEnergy
from study.store.records import CostInterval, Phase
from study.store.specification import Energy

WORLD = "world"
# Seconds between CodeCarbon's own samples of power.
SAMPLE_SECONDS = 5
MIXES = "global_energy_mix.json"
PARTS = ("cpu", "gpu", "ram")
OWN_MODELLED, OWN_COUNTED = "estimated from own CPU time", "measured, split by CPU time"
_LOAD_MODES = ("cpu_load", "constant")
# CodeCarbon's own for a CPU that is not in its table.
_GENERIC_TDP_WATTS = 85.0
_STILL_SECONDS = 1.0
_SILENT = "CodeCarbon gave no reading and no reason"


class NoMeter:
    """Measures nothing and says so; the methods are those of `CodeCarbonMeter`."""

    def __init__(self, *, country: str | None = None, pue: float = 1.0) -> None:
        self._country, self._pue = country, pue

    def start(self) -> None: ...

    def describe(self, gpu_uuids: Sequence[str]) -> tuple[MeterInfo, tuple[int, ...]]:
        return _info("none", "", dict.fromkeys(PARTS, "unmeasured"), self._country, self._pue), ()

    def read(self, sample: Sample) -> MeterReading:
        return UNMEASURED

    def stop(self) -> None: ...


class CodeCarbonMeter:
    """CodeCarbon's offline tracker for CPU and RAM of the node, `own_energy` for what is the trial's.

    Whatever breaks in it, no training breaks. CodeCarbon tells nobody but its log why it gives nothing, or 0: the log
    is listened to, and a reading that stands still for a second is no reading.

    RAM is CodeCarbon's constant for the size of the node's memory, charged by share of its cores; in a Slurm job
    CodeCarbon takes the job's memory, which is charged by share of the job's cores. The second or so that CodeCarbon
    takes to start is charged by the models.

    Args:
        country: ISO 3166 alpha-3 code, or None for the world average.
        pue: power usage effectiveness of the data centre.
        cpus: cores that the trial was allotted; gpus: GPUs, or the fraction of one.
        load_nvml: gives NVIDIA's management library.
    """

    def __init__(
        self,
        *,
        country: str | None = None,
        pue: float = 1.0,
        cpus: float,
        gpus: float = 1.0,
        load_nvml: Callable[[], Any] = load_nvml,
    ) -> None:
        self._country, self._pue, self._cpus, self._gpus, self._load_nvml = country, pue, cpus, gpus, load_nvml
        self._tracker: Any = None
        self._totals: list[Any] = []
        self._heard = _Heard()
        self._reasons: dict[str, str] = {}
        self._grown: dict[str, tuple[float, float]] = {}

    def start(self) -> None:
        """Start measuring, before it is known what the trial computes on; whatever cannot be is unmeasured."""
        self._started = time.perf_counter()
        self._gpu = GpuEnergy(fraction=self._gpus, load=self._load_nvml)
        logging.getLogger("codecarbon").addFilter(self._heard)
        try:
            self._start_tracker()
        except Exception as error:
            reason = self._heard.reason or _words(error)
            self._tracker, self._reasons = None, {"cpu": reason, "ram": reason}

    def _start_tracker(self) -> None:
        self._tracker = _tracker(self._country, self._totals)
        self._tracker.start()
        parts = {type(part).__name__: part for part in self._tracker._hardware}
        cores, cpu, ram = os.cpu_count() or 1, parts.get("CPU"), parts["RAM"]
        self._counted = getattr(cpu, "_mode", _LOAD_MODES[0]) not in _LOAD_MODES
        self._tdp_watts = float(getattr(cpu, "_tdp", None) or _GENERIC_TDP_WATTS)
        self._cpu = CpuEnergy(tdp_watts=self._tdp_watts, cores=cores, cpus=self._cpus, counted=self._counted)
        self._startup_ram_kwh = ram.total_power().kW * self._seconds / 3600
        self._ram_share = min(1.0, self._cpus / _cores_of(ram, cores))
        self._total()

    def describe(self, gpu_uuids: Sequence[str]) -> tuple[MeterInfo, tuple[int, ...]]:
        """Say which GPUs are the trial's, as CUDA names them, if any; how all is measured, and NVML's numbers."""
        gpu, reason, indices = self._gpu.choose(gpu_uuids)
        methods = {"cpu": "unmeasured", "gpu": gpu, "ram": "unmeasured"}
        if self._tracker is not None:
            methods |= {"cpu": OWN_COUNTED if self._counted else OWN_MODELLED, "ram": "estimated"}
        reasons = {**self._reasons, **({"gpu": reason} if reason else {})}
        tdp_watts = self._tdp_watts if self._tracker is not None else None
        info = _info("codecarbon", metadata.version("codecarbon"), methods, self._country, self._pue)
        return replace(info, reasons=reasons, cpu_tdp_watts=tdp_watts), indices

    def read(self, sample: Sample) -> MeterReading:
        """Energy since `start`, given who used the cores."""
        node_cpu_kwh, ram_kwh = self._node()
        gpu_kwh, own_gpu_kwh, reason = self._gpu.read(sample.pids)
        own_kwh = idle_kwh = own_ram_kwh = None
        if self._tracker is not None:
            own_kwh, idle_kwh = self._cpu.read(sample.use, seconds=self._seconds, node_kwh=node_cpu_kwh)
            own_ram_kwh = None if ram_kwh is None else self._ram_share * ram_kwh
        unmeasured = {"cpu": own_kwh, "ram": ram_kwh}
        reasons = {part: self._reasons.get(part, _SILENT) for part, kwh in unmeasured.items() if kwh is None}
        return MeterReading(
            cpu_kwh=node_cpu_kwh,
            gpu_kwh=gpu_kwh,
            ram_kwh=ram_kwh,
            own=OwnEnergy(cpu_kwh=own_kwh, idle_cpu_kwh=idle_kwh, gpu_kwh=own_gpu_kwh, ram_kwh=own_ram_kwh),
            reasons={**reasons, **({"gpu": reason} if reason else {})},
        )

    def stop(self) -> None:
        if self._tracker is not None:
            with suppress(Exception):
                self._tracker.stop()
        logging.getLogger("codecarbon").removeFilter(self._heard)

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    def _node(self) -> tuple[float | None, float | None]:
        """Energy of the node's CPU and RAM; None from where one is no longer measured."""
        if self._tracker is None:
            return None, None
        try:
            total = self._total()
        except Exception as error:
            reason = self._heard.reason or _words(error)
            self._reasons = {"cpu": reason, "ram": reason, **self._reasons}
            return None, None
        readings = {"cpu": float(total.cpu_energy), "ram": float(total.ram_energy) + self._startup_ram_kwh}
        for part, kwh in readings.items():
            self._check_growth(part, kwh)
        cpu_kwh, ram_kwh = (None if part in self._reasons else kwh for part, kwh in readings.items())
        return cpu_kwh, ram_kwh

    def _total(self) -> Any:
        """CodeCarbon's sums; an error when it has none, which it does not raise itself."""
        self._totals.clear()
        self._heard.reason = ""
        self._tracker.flush()
        if not self._totals:
            raise RuntimeError(_SILENT)
        return self._totals[-1]

    def _check_growth(self, part: str, kwh: float) -> None:
        last_kwh, since = self._grown.get(part, (-1.0, 0.0))
        if kwh > last_kwh:
            self._grown[part] = kwh, self._seconds
        elif self._seconds - since > _STILL_SECONDS:
            self._reasons.setdefault(part, self._heard.reason or "CodeCarbon's reading stood still")


def _tracker(country: str | None, totals: list[Any]) -> Any:
    """CodeCarbon's tracker of the whole machine, which adds its sums to a list and reads nobody's settings."""
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.output_methods.base_output import BaseOutput

    class Keep(BaseOutput):
        def out(self, total: Any, delta: Any) -> None:
            totals.append(total)

    return OfflineEmissionsTracker(
        project_name="pgps-study",
        country_iso_code=country or "USA",
        region=None,
        cloud_provider=None,
        cloud_region=None,
        country_2letter_iso_code=None,
        electricitymaps_api_token=None,
        force_carbon_intensity_g_co2e_kwh=1000 * carbon_intensity_kg_per_kwh(country),
        measure_power_secs=SAMPLE_SECONDS,
        api_call_interval=-1,
        output_methods=[],
        output_handlers=[Keep()],
        output_dir=".",
        emissions_endpoint=None,
        experiment_id=None,
        gpu_ids=None,
        tracking_mode="machine",
        log_level="warning",
        force_cpu_power=None,
        force_ram_power=None,
        force_mode_cpu_load=False,
        rapl_include_dram=False,
        rapl_prefer_psys=False,
        logger_preamble="",
        pue=1.0,
        wue=0.0,
        allow_multiple_runs=True,
    )


class _Heard(logging.Filter):
    """Keeps the first exception that CodeCarbon's log tells of, and lets nothing through to a terminal."""

    reason = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None and not self.reason:
            self.reason = _words(record.exc_info[1])
        return False


def _cores_of(ram: Any, cores: int) -> int:
    """Cores that the memory which CodeCarbon took belongs to: only the size of a Slurm job does it keep."""
    if not getattr(ram, "memory_size", None):
        return cores
    from codecarbon.core.util import count_cpus

    # The job's, on all of its nodes, from the same answer of `scontrol`.
    return int(count_cpus())


def make_meter(energy: Energy, *, cpus: float, gpus: float = 1.0) -> NoMeter | CodeCarbonMeter:
    """The meter of a study's energy settings, for what one trial is allotted; see `check_country` for errors."""
    if energy.meter == "none":
        return NoMeter(country=energy.country, pue=energy.pue)
    return CodeCarbonMeter(country=energy.country, pue=energy.pue, cpus=cpus, gpus=gpus)


def check_country(country: str | None) -> None:
    """Raise InvalidInputError unless the code is ISO 3166 alpha-3 with a known grid, or None."""
    if country is None or country in _data(MIXES):
        return
    names = {mix["country_name"].lower(): code for code, mix in _data(MIXES).items()}
    near = difflib.get_close_matches(str(country).upper(), _data(MIXES), n=3, cutoff=0.6)
    named = names.get(str(country).lower())
    hint = f"did you mean {named or ' or '.join(near)}?" if named or near else "see ISO 3166 alpha-3"
    legal = "a three-letter country code such as FRA, DEU or USA"
    raise InvalidInputError(field="country", received=country, legal=legal, remedy=hint)


def carbon_intensity_kg_per_kwh(country: str | None) -> float:
    """Carbon intensity of a country's grid in kg CO2eq per kWh, CodeCarbon's figures; None is the world average."""
    if country is None:
        return float(_data("carbon_intensity_per_source.json")["world_average"]) / 1000
    check_country(country)
    return float(_data(MIXES)[country]["carbon_intensity"]) / 1000


def _words(error: BaseException) -> str:
    return f"CodeCarbon: {type(error).__name__}: {' '.join(str(error).split())}"


def _info(name: str, version: str, methods: Mapping[str, str], country: str | None, pue: float) -> MeterInfo:
    return MeterInfo(
        name=name,
        version=version,
        methods=methods,
        country=country or WORLD,
        carbon_intensity_kg_per_kwh=carbon_intensity_kg_per_kwh(country),
        pue=pue,
    )


@cache
def _data(name: str) -> dict[str, Any]:
    text = resources.files("codecarbon").joinpath("data", "private_infra", name).read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


_NODE_ENERGY, _CORES = ("cpu_kwh", "gpu_kwh", "ram_kwh"), ("own_cpu_seconds", "cpu_seconds")
_OWN_ENERGY = [field.name for field in fields(OwnEnergy)]


class Accounts:
    """Measures from when it is made until it is closed.

    Args:
        energy: how energy is measured.
        cpus: cores that the trial is allotted; gpus: GPUs, or the fraction of one.
        helpers: processes that work for the trial and are no children of this one.
    """

    def __init__(self, energy: Energy, *, cpus: float, gpus: float = 1.0, helpers: Sequence[int] = ()) -> None:
        self.started_at, self._started = time.time(), time.perf_counter()
        self._processes = ProcessTree(helpers)
        self._meter = make_meter(energy, cpus=cpus, gpus=gpus)
        self._reading, self._use = AT_START, NodeUse(own_cpu_seconds=0.0, cpu_seconds=0.0, trials=None)

    def start(self) -> None:
        self._meter.start()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._started

    def describe(self, gpu_uuids: Sequence[str]) -> tuple[MeterInfo, tuple[int, ...]]:
        """How energy is measured, and NVML's numbers of the trial's GPUs; see `CodeCarbonMeter`."""
        return self._meter.describe(gpu_uuids)

    def interval(
        self, phase: Phase, *, attempt: int, stage: int | None, start: int, stop: int, seconds: float
    ) -> CostInterval:
        """What was used since the last interval, booked on a stretch of work of so many seconds."""
        sample = self._processes.sample()
        before, used = self._reading, self._use
        self._reading, self._use = reading, use = self._meter.read(sample), sample.use
        return CostInterval(
            attempt=attempt,
            phase=phase,
            stage=stage,
            iteration_start=start,
            iteration_stop=stop,
            started_at=time.time() - seconds,
            seconds=seconds,
            **_differences(reading, before, _NODE_ENERGY),
            own=OwnEnergy(**_differences(reading.own, before.own, _OWN_ENERGY)),
            use=NodeUse(**_differences(use, used, _CORES), trials=use.trials),
            reasons=reading.reasons,
        )

    def close(self) -> None:
        self._meter.stop()
        self._processes.close()


def _differences(now: Any, before: Any, names: Iterable[str]) -> dict[str, Any]:
    pairs = {name: (getattr(now, name), getattr(before, name)) for name in names}
    return {name: None if a is None or b is None else max(0.0, a - b) for name, (a, b) in pairs.items()}

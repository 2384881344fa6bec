"""Meters of energy: CodeCarbon, or none. A meter that fails says "unmeasured" (None), never 0.

CodeCarbon measures the node (`machine` mode); the ledger keeps that and the share charged to a trial apart. Its offline
tracker gets every setting explicitly, because `~/.codecarbon.config` and `CODECARBON_*` would fill in the rest, and its
carbon figures are not used: the grid's intensity is stored beside the energy and carbon is computed when read.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata, resources
from typing import Any, Protocol

from study.errors import InvalidInputError
from study.records import UNMEASURED, Energy, MeterInfo, MeterReading

WORLD = "world"
# Seconds between CodeCarbon's own samples of power.
SAMPLE_SECONDS = 5
_LOAD_MODES = ("cpu_load", "constant")


class Meter(Protocol):
    """Measures the node's energy from `start` to `stop`."""

    def start(self) -> MeterInfo:
        """Start measuring; says how."""

    def read(self) -> MeterReading:
        """Energy since `start`, in kWh by part."""

    def stop(self) -> MeterReading:
        """Last reading; nothing is measured after it."""


class NoMeter:
    """Measures nothing and says so."""

    def __init__(self, *, country: str | None = None, pue: float = 1.0) -> None:
        self._country, self._pue = country, pue

    def start(self) -> MeterInfo:
        """Say that nothing is measured."""
        return _info("none", "", dict.fromkeys(("cpu", "gpu", "ram"), "unmeasured"), self._country, self._pue)

    def read(self) -> MeterReading:
        """Nothing, by part."""
        return UNMEASURED

    def stop(self) -> MeterReading:
        """Nothing, by part."""
        return UNMEASURED


class CodeCarbonMeter:
    """CodeCarbon's offline tracker on the whole node and the given GPUs. Whatever breaks in it, no training breaks.

    Args:
        country: ISO 3166 alpha-3 code, or None for the world average.
        pue: power usage effectiveness of the data centre.
        gpu_ids: NVML indices to measure; empty means that the trial uses no GPU, and none is charged.
    """

    def __init__(self, *, country: str | None = None, pue: float = 1.0, gpu_ids: Sequence[int] = ()) -> None:
        self._country, self._pue, self._gpu_ids = country, pue, tuple(gpu_ids)
        self._tracker: Any = None
        self._totals: list[Any] = []

    def start(self) -> MeterInfo:
        """Start the tracker; when it cannot, every part is `unmeasured`."""
        version = metadata.version("codecarbon")
        try:
            self._tracker = self._make_tracker()
            self._tracker.start()
            methods = self._methods() if self._read() is not UNMEASURED else None
        except Exception:
            methods = None
        if methods is None:
            self._tracker = None
            methods = dict.fromkeys(("cpu", "gpu", "ram"), "unmeasured")
        return _info("codecarbon", version, methods, self._country, self._pue)

    def read(self) -> MeterReading:
        """Measure now; unmeasured when CodeCarbon gives nothing or breaks."""
        try:
            return self._read()
        except Exception:
            return UNMEASURED

    def stop(self) -> MeterReading:
        """Stop the tracker's threads and take its last measurement."""
        if self._tracker is None:
            return UNMEASURED
        self._totals.clear()
        try:
            self._tracker.stop()
            return self._reading()
        except Exception:
            return UNMEASURED

    def _read(self) -> MeterReading:
        if self._tracker is None:
            return UNMEASURED
        self._totals.clear()
        self._tracker.flush()
        return self._reading()

    def _reading(self) -> MeterReading:
        if not self._totals:
            return UNMEASURED
        total = self._totals[-1]
        gpu_kwh = float(total.gpu_energy) if self._gpu_ids else 0.0
        return MeterReading(cpu_kwh=float(total.cpu_energy), gpu_kwh=gpu_kwh, ram_kwh=float(total.ram_energy))

    def _methods(self) -> dict[str, str]:
        parts = {type(part).__name__: part for part in self._tracker._hardware}
        cpu = parts.get("CPU")
        modelled = cpu is None or getattr(cpu, "_mode", "") in _LOAD_MODES
        gpu = "absent" if not self._gpu_ids else "measured" if "GPU" in parts else "unmeasured"
        return {"cpu": "estimated" if modelled else "measured", "gpu": gpu, "ram": "estimated"}

    def _make_tracker(self) -> Any:
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.output_methods.base_output import BaseOutput

        # Importing the package sets its own level.
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)

        totals = self._totals

        class Keep(BaseOutput):
            def out(self, total: Any, delta: Any) -> None:
                totals.append(total)

        return OfflineEmissionsTracker(
            project_name="pgps-study",
            country_iso_code=self._country or "USA",
            region=None,
            cloud_provider=None,
            cloud_region=None,
            country_2letter_iso_code=None,
            electricitymaps_api_token=None,
            force_carbon_intensity_g_co2e_kwh=1000 * carbon_intensity_kg_per_kwh(self._country),
            measure_power_secs=SAMPLE_SECONDS,
            api_call_interval=-1,
            output_methods=[],
            output_handlers=[Keep()],
            output_dir=".",
            emissions_endpoint=None,
            experiment_id=None,
            gpu_ids=list(self._gpu_ids) or None,
            tracking_mode="machine",
            log_level="critical",
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


def make_meter(energy: Energy, gpu_ids: Sequence[int]) -> Meter:
    """The meter of a study's energy settings, for the GPUs of one trial; see `check_country` for errors."""
    if energy.meter == "none":
        return NoMeter(country=energy.country, pue=energy.pue)
    return CodeCarbonMeter(country=energy.country, pue=energy.pue, gpu_ids=gpu_ids)


def check_country(country: str | None) -> None:
    """Raise InvalidInputError unless the code is ISO 3166 alpha-3 with a known grid, or None."""
    if country is None or country in _energy_mixes():
        return
    names = {mix["country_name"].lower(): code for code, mix in _energy_mixes().items()}
    near = difflib.get_close_matches(str(country).upper(), _energy_mixes(), n=3, cutoff=0.6)
    named = names.get(str(country).lower())
    hint = f"did you mean {named or ' or '.join(near)}?" if named or near else "see ISO 3166 alpha-3"
    raise InvalidInputError(
        field="country", received=country, legal="a three-letter country code such as FRA, DEU or USA", remedy=hint
    )


def carbon_intensity_kg_per_kwh(country: str | None) -> float:
    """Carbon intensity of a country's grid in kg CO2eq per kWh, CodeCarbon's figures; None is the world average."""
    if country is None:
        return float(_data("carbon_intensity_per_source.json")["world_average"]) / 1000
    check_country(country)
    return float(_energy_mixes()[country]["carbon_intensity"]) / 1000


def nvml_indices(uuids: Sequence[str]) -> tuple[int, ...]:
    """NVML indices of CUDA devices by universal identifier; those NVML does not know are left out.

    CUDA numbers devices by its own order and visibility, NVML by bus, so numbers cannot be passed on.
    """
    if not uuids:
        return ()
    try:
        import pynvml

        pynvml.nvmlInit()
        known = {_uuid(pynvml, index): index for index in range(pynvml.nvmlDeviceGetCount())}
    except Exception:  # no driver, no library, no permission: not measurable
        return ()
    wanted = (uuid if uuid.startswith("GPU-") else f"GPU-{uuid}" for uuid in uuids)
    return tuple(known[uuid] for uuid in wanted if uuid in known)


def _uuid(pynvml: Any, index: int) -> str:
    uuid = pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))
    return uuid.decode() if isinstance(uuid, bytes) else str(uuid)


def _info(name: str, version: str, methods: Mapping[str, str], country: str | None, pue: float) -> MeterInfo:
    return MeterInfo(
        name=name,
        version=version,
        methods=methods,
        country=country or WORLD,
        carbon_intensity_kg_per_kwh=carbon_intensity_kg_per_kwh(country),
        pue=pue,
    )


def _energy_mixes() -> dict[str, Any]:
    return _data("global_energy_mix.json")


@cache
def _data(name: str) -> dict[str, Any]:
    text = resources.files("codecarbon").joinpath("data", "private_infra", name).read_text()
    data: dict[str, Any] = json.loads(text)
    return data

"""What an attempt uses, from its first moment on: energy and cores, stretch by stretch as the ledger keeps them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from study.common.machine import MachineShare
from study.run.cpu_energy import ProcessTree
from study.run.meter import make_meter
from study.store.readings import AT_START, MeterInfo, NodeUse, OwnEnergy
from study.store.records import CostInterval, Phase
from study.store.specification import Energy

_NODE_ENERGY, _CORES = ("cpu_kwh", "gpu_kwh", "ram_kwh"), ("own_cpu_seconds", "cpu_seconds")
_OWN_ENERGY = [field.name for field in fields(OwnEnergy)]


class Accounts:
    """Measures from when it is made until it is closed.

    Args:
        resources: what the trial is allotted.
        energy: how energy is measured.
        helpers: processes that work for the trial and are no children of this one.
    """

    def __init__(self, resources: MachineShare, energy: Energy, helpers: Sequence[int]) -> None:
        self.started_at, self._started = time.time(), time.perf_counter()
        self._processes = ProcessTree(helpers)
        gpus = 1.0 if resources.gpus is None else resources.gpus
        self._meter = make_meter(energy, cpus=resources.usable_cpus, gpus=gpus)
        self._reading, self._use = AT_START, NodeUse(own_cpu_seconds=0.0, cpu_seconds=0.0, trials=None)

    def start(self) -> None:
        self._meter.start()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._started

    def describe(self, gpu_uuids: Sequence[str]) -> tuple[MeterInfo, tuple[int, ...]]:
        """How energy is measured, and NVML's numbers of the trial's GPUs; see `meter.Meter`."""
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

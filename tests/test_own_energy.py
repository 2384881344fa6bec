"""What a trial is charged of a node's CPU and of its GPUs: the arithmetic, against sums done by hand.

In the examples the node has 16 cores and a TDP of 160 W: 16 W idle, 9 W more for each busy core. The trial has 4 cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from neighbours import busy_neighbours

from study.run.meter import Accounts, CodeCarbonMeter
from study.run.own_energy import (
    ABSENT,
    BY_USE,
    EVENLY,
    MEASURED,
    UNMEASURED,
    CpuEnergy,
    GpuEnergy,
    ProcessTree,
    load_nvml,
)
from study.store.readings import NodeUse
from study.store.records import CostInterval, Phase
from study.store.specification import Energy

HOUR = 3600.0
IDLE_OF_AN_HOUR_KWH = 0.016 * 4 / 16


def use(own_hours: float, all_hours: float) -> NodeUse:
    return NodeUse(own_cpu_seconds=own_hours * HOUR, cpu_seconds=all_hours * HOUR, trials=1)


def cpu(*, counted: bool = False, cpus: float = 4) -> CpuEnergy:
    return CpuEnergy(tdp_watts=160, cores=16, cpus=cpus, counted=counted)


@pytest.mark.parametrize("neighbours", [0, 5, 12])
def test_the_model_charges_busy_cores_and_idle_power_whatever_the_neighbours_do(neighbours: float) -> None:
    meter = cpu()
    for hours in (3, 5, 9):
        read = meter.read(use(hours, hours + neighbours), seconds=HOUR * hours, node_kwh=0.16)
        assert read == pytest.approx((hours * 0.009, hours * IDLE_OF_AN_HOUR_KWH))


@pytest.mark.parametrize(("neighbours", "node_watts"), [(0, 16 + 30), (1, 16 + 40), (12, 16 + 150)])
def test_a_counter_is_split_by_cpu_time(neighbours: float, node_watts: float) -> None:
    # Of 3 of the trial's cores and its neighbours', each at 10 W: whoever is there, the trial drew 30 W.
    read = cpu(counted=True).read(use(3, 3 + neighbours), seconds=HOUR, node_kwh=node_watts / 1000)
    assert read == pytest.approx((0.030, IDLE_OF_AN_HOUR_KWH), rel=0.1)


def test_a_counter_that_is_lost_makes_it_unmeasured_from_then_on() -> None:
    meter = cpu(counted=True)
    assert None not in meter.read(use(1, 1), seconds=HOUR, node_kwh=0.02)
    assert meter.read(use(2, 2), seconds=2 * HOUR, node_kwh=None) == (None, None)
    assert meter.read(use(3, 3), seconds=3 * HOUR, node_kwh=0.06) == (None, None)


def test_before_the_counter_counts_the_model_is_taken() -> None:
    meter = cpu(counted=True)
    assert meter.read(use(1, 5), seconds=HOUR, node_kwh=0.0) == pytest.approx((0.009, IDLE_OF_AN_HOUR_KWH))
    assert meter.read(use(1, 5), seconds=2 * HOUR, node_kwh=0.016) == pytest.approx((0.009, 2 * IDLE_OF_AN_HOUR_KWH))


def test_no_more_than_the_node_is_charged() -> None:
    # The counter shows less than the idle power.
    assert cpu(counted=True).read(use(1, 1), seconds=HOUR, node_kwh=0.008) == pytest.approx((0.0, 0.002))
    own, idle = cpu(counted=True, cpus=64).read(use(3, 2.9), seconds=HOUR, node_kwh=0.1)
    assert own + idle == pytest.approx(0.1)


class NVMLError_NotFound(Exception):
    """As NVML's own of that name."""


class NVMLError_NotSupported(Exception):
    """As NVML's own of that name."""


@dataclass
class Used:
    pid: int
    smUtil: int
    timeStamp: int


@dataclass
class Nvml:
    """What stands in for NVIDIA's library: cards by name, and what they would say."""

    millijoules: dict[str, int]
    without_counter: tuple[str, ...] = ()
    samples: list[Used] | Exception = field(default_factory=list)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return list(self.millijoules)[index]

    def nvmlDeviceGetUUID(self, handle: str) -> bytes:
        return handle.encode()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if handle in self.without_counter:
            raise NVMLError_NotSupported("Not Supported")
        return self.millijoules[handle]

    def nvmlDeviceGetProcessUtilization(self, handle: str, since: int) -> list[Used]:
        if isinstance(self.samples, Exception):
            raise self.samples
        if not (found := [sample for sample in self.samples if sample.timeStamp > since]):
            raise NVMLError_NotFound("Not Found")
        return found

    def burn(self, kwh: float, name: str = "GPU-b") -> None:
        self.millijoules[name] += int(kwh * 3.6e9)


def two_cards(**more: Any) -> Nvml:
    return Nvml(millijoules={"GPU-a": 10**9, "GPU-b": 5}, **more)


def gpu(nvml: Nvml, **more: Any) -> GpuEnergy:
    return GpuEnergy(load=lambda: nvml, **more)


def test_the_trials_card_counts_from_the_start_and_no_other() -> None:
    nvml = two_cards()
    meter = gpu(nvml)
    nvml.burn(1.0)
    nvml.burn(7.0, "GPU-a")
    # torch leaves the prefix out.
    assert meter.choose(["b"]) == (MEASURED, "", (1,))
    assert meter.read(()) == (1.0, 1.0, "")
    nvml.burn(0.5)
    assert meter.read(()) == (1.5, 1.5, "")


def no_library() -> Any:
    raise ImportError("No module named 'pynvml'")


def no_permission() -> Any:
    raise PermissionError("Insufficient Permissions")


def test_a_trial_without_gpu_costs_none_whatever_nvml_does() -> None:
    for meter in (gpu(two_cards()), GpuEnergy(load=no_library)):
        assert meter.choose([]) == (ABSENT, "", ())
        assert meter.read(()) == (0.0, 0.0, "")


@pytest.mark.parametrize(
    ("load", "uuid", "said"),
    [
        (no_library, "GPU-b", "ImportError: No module named 'pynvml'"),
        (no_permission, "GPU-b", "PermissionError: Insufficient Permissions"),
        (two_cards, "MIG-5", "no energy of MIG-5, but of GPU-a, GPU-b: only whole cards have a counter, no MIG"),
        (two_cards, "5", "no energy of GPU-5"),
        (two_cards, "no name", "no energy of GPU-no name"),
        (lambda: two_cards(without_counter=("GPU-b",)), "GPU-b", "card 1: NVML: NVMLError_NotSupported"),
        (lambda: Nvml(millijoules={}), "GPU-b", "but of none"),
    ],
)
def test_a_card_that_cannot_be_named_or_has_no_counter_is_unmeasured_with_the_reason(
    load: Any, uuid: str, said: str
) -> None:
    meter = GpuEnergy(load=load)
    method, reason, indices = meter.choose([uuid])
    assert (method, indices) == (UNMEASURED, ())
    assert said in reason
    assert meter.read(()) == (None, None, reason)


def test_a_counter_that_breaks_or_begins_anew_is_unmeasured_from_then_on() -> None:
    for harm, said in (
        (lambda nvml: setattr(nvml, "without_counter", ("GPU-b",)), "NotSupported"),
        (lambda nvml: nvml.burn(-2.0), "began anew"),
    ):
        nvml = two_cards()
        meter = gpu(nvml)
        meter.choose(["GPU-b"])
        nvml.burn(1.0)
        assert meter.read(())[:2] == (1.0, 1.0)
        harm(nvml)
        for _ in range(2):
            kwh, own, reason = meter.read(())
            assert (kwh, own) == (None, None)
            assert said in reason
            nvml.without_counter = ()


def test_a_shared_card_is_split_by_use() -> None:
    nvml = two_cards()
    meter = gpu(nvml, fraction=0.5)
    assert meter.choose(["GPU-b"])[0] == BY_USE
    nvml.burn(1.0)
    nvml.samples = [Used(7, 60, 1), Used(8, 20, 1), Used(9, 20, 2)]
    # Processes 7 and 9 are the trial's.
    assert meter.read({7, 9}) == pytest.approx((1.0, 0.8, ""))
    nvml.burn(1.0)
    nvml.samples += [Used(7, 10, 3), Used(8, 30, 3)]
    assert meter.read({7, 9})[1] == pytest.approx(0.8 + 0.25)


NEVER_TOLD = NVMLError_NotSupported("Not Supported")


@pytest.mark.parametrize(
    ("samples", "fraction", "method"),
    [
        ([], 0.25, BY_USE),
        ([Used(8, 30, 1)], 0.25, BY_USE),
        ([Used(7, 0, 1)], 0.25, BY_USE),
        (NEVER_TOLD, 0.5, EVENLY),
        ([Used(8, 30, 1)], 2.0, MEASURED),
    ],
)
def test_where_nothing_is_known_of_the_use_a_shared_card_is_split_evenly_and_a_whole_one_never(
    samples: Any, fraction: float, method: str
) -> None:
    nvml = two_cards(samples=samples)
    meter = gpu(nvml, fraction=fraction)
    assert meter.choose(["GPU-b"])[0] == method
    nvml.burn(1.0)
    assert meter.read({7}) == pytest.approx((1.0, min(1.0, fraction), ""))


def test_the_meter_of_a_cuda_trial_without_nvml_has_no_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    processes, meter = ProcessTree(), CodeCarbonMeter(cpus=1, load_nvml=no_library)
    meter.start()
    info, _ = meter.describe(["GPU-b"])
    reading = meter.read(processes.sample())
    meter.stop()
    processes.close()
    assert info.methods["gpu"] == "unmeasured"
    assert (reading.gpu_kwh, reading.own.gpu_kwh) == (None, None)
    assert info.reasons == reading.reasons == {"gpu": "NVML: ImportError: No module named 'pynvml'"}
    assert reading.own.cpu_kwh is not None


@pytest.mark.gpu
def test_a_real_card_counts() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    meter = GpuEnergy()
    method, reason, indices = meter.choose([str(torch.cuda.get_device_properties(0).uuid)])
    assert (method, reason, len(indices)) == (MEASURED, "", 1)
    matrix = torch.ones(4096, 4096, device="cuda")
    end = time.monotonic() + 2
    while time.monotonic() < end:
        matrix @ matrix
        torch.cuda.synchronize()
    kwh, own, _ = meter.read({os.getpid()})
    assert kwh == own
    # 2 s at more than 50 W and less than 2 kW.
    assert 50 * 2 / 3.6e6 < kwh < 2000 * 2 / 3.6e6
    assert len(load_nvml().nvmlDeviceGetUUID(load_nvml().nvmlDeviceGetHandleByIndex(indices[0]))) > 8


def bill_of_work() -> CostInterval:
    """What the ledger keeps of a child that works for a second and a half of CPU time."""
    accounts = Accounts(Energy(country="FRA"), cpus=1)
    try:
        accounts.start()
        accounts.describe(())
        used = {"attempt": 0, "stage": None, "start": 0, "stop": 0}
        accounts.interval(Phase.SETUP, seconds=accounts.seconds, **used)
        work = "import time\nwhile time.process_time() < 1.5: pass"
        subprocess.run([sys.executable, "-c", work], check=True)
        return accounts.interval(Phase.TRAINING, seconds=accounts.seconds, **used)
    finally:
        accounts.close()


@pytest.mark.cluster
def test_the_same_work_costs_the_same_cpu_energy_alone_and_beside_a_busy_neighbour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    alone = bill_of_work()
    with busy_neighbours():
        beside = bill_of_work()
    assert alone.own.cpu_kwh > 0
    assert beside.own.cpu_kwh == pytest.approx(alone.own.cpu_kwh, rel=0.15)
    # Others worked meanwhile, and the ledger shows it.
    assert beside.use.cpu_seconds - beside.use.own_cpu_seconds > 0.5
    assert None not in (alone.use.trials, beside.use.trials)

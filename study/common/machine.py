"""What this machine is and what a trial may use of it."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path

from study.common.errors import MachineError, check_choice, check_count, check_range

DEVICES = ("auto", "cpu", "cuda")
# nnU-Net's own number of augmentation processes beside a GPU.
MOST_DATA_WORKERS = 12
MOST_OF_A_NODE = 1024


@dataclass(frozen=True, kw_only=True)
class MachineShare:
    """What a trial is allotted.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        cpus: cores, None for all of the node; gpus: whole or a fraction of one, None for one if the device is CUDA.
        data_workers: processes that draw batches, None to derive from cores.
        concurrent_trials: how many trials share the node at most.
        compile_cache: folder of compiled kernels that the node's trainings share, None for the user's own; see
            `steps.use_compile_cache`.
    """

    device: str = "auto"
    cpus: float | None = None
    gpus: float | None = None
    data_workers: int | None = None
    concurrent_trials: int = 1
    compile_cache: str | None = None

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)
        if self.cpus is not None:
            check_range("cpus", self.cpus, 0, MOST_OF_A_NODE, above_low=True)
        if self.gpus is not None:
            check_range("gpus", self.gpus, 0, MOST_OF_A_NODE)
        if self.data_workers is not None:
            check_count("data_workers", self.data_workers, least=0, most=MOST_OF_A_NODE)

    @property
    def usable_cpus(self) -> float:
        """Cores the trial counts as using."""
        return float(usable_cores()) if self.cpus is None else self.cpus

    @property
    def compile_cache_folder(self) -> Path | None:
        """The folder of `compile_cache`."""
        return None if self.compile_cache is None else Path(self.compile_cache)

    @property
    def threads(self) -> int:
        """Threads of torch, and processes of the final validation."""
        return max(1, int(self.usable_cpus))

    def workers_for(self, device: str) -> int:
        """Data workers on a resolved device: none on a single core, one beside CPU training, many beside a GPU.

        Beside a GPU all cores but one, at most nnU-Net's twelve. Measured on Hippocampus' plan: twelve of an EPYC give
        a batch every 3 ms at the smallest patch and every 11 ms at the full one with nnU-Net's own drawing, and an H200
        takes 2 and 12 ms for an iteration. Fewer workers would leave the small stages waiting.
        """
        if self.data_workers is not None:
            return self.data_workers
        if device == "cuda":
            return max(1, min(MOST_DATA_WORKERS, self.threads - 1))
        return 0 if self.threads == 1 else 1


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(device: str, *, instead: str = "use --device cpu") -> str:
    """`cpu` or `cuda`.

    Args:
        device: one of `DEVICES`.
        instead: what to do without CUDA.

    Raises:
        MachineError: CUDA was asked for and torch sees none.
    """
    check_choice("device", device, DEVICES)
    if device == "cpu":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise MachineError(
            f"device: received 'cuda', but torch {torch.__version__} sees no CUDA device here; "
            f"{instead}, or check the driver with `python -m study doctor`"
        )
    return "cpu"


def cpu_name() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def hostname() -> str:
    """This node's name."""
    return socket.gethostname()

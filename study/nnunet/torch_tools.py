"""Small things asked of torch: a checksum of weights, the devices in sight, threads, an optimizer, one voxel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from study.store.specification import TrainingSettings


def weights_sha256(network: torch.nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of a network's weights, in order of names."""
    return state_sha256(getattr(network, "_orig_mod", network).state_dict())


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """The same of the weights by name, as a checkpoint has them."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cuda_device_uuids() -> tuple[str, ...]:
    """Universal identifiers of the CUDA devices this process sees, in CUDA's order."""
    if not torch.cuda.is_available():
        return ()
    return tuple(str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count()))


def cuda_device_names() -> tuple[str, ...]:
    """Names of the CUDA devices this process sees, in CUDA's order."""
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def reserved_memory() -> tuple[int, int]:
    """The most bytes that torch has reserved on the current card, and all that it has."""
    return torch.cuda.max_memory_reserved(), int(torch.cuda.get_device_properties(0).total_memory)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Limit torch's threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether every number in tensors of one device is finite; waits for the device once."""
    return bool(torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all())


def make_optimizer(
    settings: TrainingSettings, parameters: Iterable[torch.nn.Parameter], *, fused: bool
) -> torch.optim.Optimizer:
    """The optimizer of resolved settings; fused, it is stepped by a GPU without the CPU waiting for it.

    It keeps its own choice of kernels when it loads a checkpoint, which may be another device's.
    """
    momentum = float(settings.momentum or 0.0)
    shared: dict[str, Any] = {"lr": settings.initial_learning_rate, "weight_decay": settings.weight_decay}
    if fused:
        shared["fused"] = True
    if settings.optimizer == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, betas=(momentum, 0.999), **shared)
    else:
        optimizer = torch.optim.SGD(parameters, momentum=momentum, nesterov=momentum > 0, **shared)

    def with_own_kernels(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
        kept = [{**loaded, **{name: group[name] for name in ("fused", "foreach")}} for loaded, group in pairs]
        return {**state, "param_groups": kept}

    optimizer.register_load_state_dict_pre_hook(with_own_kernels)
    return optimizer


class _Unchecked:
    weight: Any
    bias: Any
    eps: float

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """(batch, channels, *size) to the same shape."""
        cudnn = bool(torch.backends.cudnn.enabled)
        return torch.instance_norm(batch, self.weight, self.bias, None, None, True, 0.0, self.eps, cudnn)


_UNCHECKED: dict[type, type] = {
    kind: type(kind.__name__, (_Unchecked, kind), {})
    for kind in (torch.nn.InstanceNorm1d, torch.nn.InstanceNorm2d, torch.nn.InstanceNorm3d)
}


def allow_one_voxel(network: torch.nn.Module) -> None:
    """Have every InstanceNorm of a network take one voxel; of other sizes it makes what it made before.

    torch refuses InstanceNorm of a single voxel in training, as a probable mistake. The authors of the follow-up, whose
    chain starts there (arXiv 2510.23241), switch that check off for the whole process; here the norms of the one
    network that needs it go round it. At one voxel x - mean is 0: the norm gives its bias, and neither its weight nor
    anything before it gets a gradient. BatchNorm takes one voxel as it is.
    """
    for module in network.modules():
        if type(module) in _UNCHECKED and not module.track_running_stats:
            module.__class__ = _UNCHECKED[type(module)]

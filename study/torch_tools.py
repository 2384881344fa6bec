"""Small things asked of torch: a checksum of weights, the devices in sight, limits on threads and compilations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def weights_sha256(network: torch.nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of a network's weights, in order of names."""
    digest = hashlib.sha256()
    state = getattr(network, "_orig_mod", network).state_dict()
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


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Limit torch's threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def allow_compilations(count: int) -> None:
    """Let dynamo compile so many shapes: beyond its limit it runs further ones eagerly, without a word."""
    import torch._dynamo

    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    setattr(torch._dynamo.config, limit, max(getattr(torch._dynamo.config, limit), count))

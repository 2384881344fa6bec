"""One voxel at the bottleneck, where the follow-up's chain starts (arXiv 2510.23241).

torch refuses InstanceNorm of a single voxel in training, as a probable mistake. The authors switch that check off for
the whole process; here the norms of the one network that needs it go round it. At one voxel x - mean is 0: the norm
gives its bias, and neither its weight nor anything before it gets a gradient. BatchNorm takes one voxel as it is.
"""

from __future__ import annotations

from typing import Any

import torch


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
    """Have every InstanceNorm of a network take one voxel; of other sizes it makes what it made before."""
    for module in network.modules():
        if type(module) in _UNCHECKED and not module.track_running_stats:
            module.__class__ = _UNCHECKED[type(module)]

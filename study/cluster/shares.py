"""What each trial gets of a node, from what the space asks for and what the nodes have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from study.common.errors import MachineError
from study.common.machine import usable_cores
from study.search.space import Resources

# A tenth goes ten times into one in spite of binary fractions.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Node:
    """Cores and GPUs of one node."""

    cpus: float
    gpus: float


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Cores and share of a GPU of one trial, and how many trials fit on a node and in the whole cluster at a time."""

    cpus: float
    gpus: float
    per_node: int
    in_total: int

    @property
    def device(self) -> str:
        """`cuda` with a share of a GPU, else `cpu`."""
        return "cuda" if self.gpus else "cpu"


def local_node(asked: Resources) -> Node:
    """This machine as a node; its GPUs are counted only if they may be used, because that needs torch."""
    gpus = 0
    if asked.gpus != 0:
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Node(cpus=usable_cores(), gpus=gpus)


def allot(asked: Resources, nodes: Sequence[Node]) -> Shares:
    """What of a node every trial gets.

    Args:
        asked: resources of the space; None leaves a number to the nodes.
        nodes: what the cluster has, at least one node.

    Raises:
        MachineError: no node can hold a single trial.
    """
    gpus = asked.gpus if asked.gpus is not None else float(any(node.gpus >= 1 for node in nodes))
    cpus = asked.cpus if asked.cpus is not None else _share(nodes, gpus)
    counts = [_count(node, cpus, gpus) for node in nodes]
    if not any(counts):
        largest = max(nodes, key=lambda node: (node.gpus, node.cpus))
        raise MachineError(
            f"resources: received {cpus:g} CPUs and {gpus:g} GPUs per trial, but the largest node has "
            f"{largest.cpus:g} CPUs and {largest.gpus:g} GPUs; use --cpus and --gpus (--gpus 0 trains on the CPU)"
        )
    limit = asked.concurrent or sum(counts)
    return Shares(cpus=cpus, gpus=gpus, per_node=min(limit, max(counts)), in_total=min(limit, sum(counts)))


def _share(nodes: Sequence[Node], gpus: float) -> float:
    """Whole cores for each trial that a node's GPUs hold, or all of its cores; of unlike nodes, the least."""
    trials = [(node, _by_gpus(node, gpus) if gpus else 1) for node in nodes if node.cpus >= 1]
    return min((max(1.0, float(node.cpus // count)) for node, count in trials if count), default=1.0)


def _count(node: Node, cpus: float, gpus: float) -> int:
    by_cpus = _fit(node.cpus, cpus)
    return min(by_cpus, _by_gpus(node, gpus)) if gpus else by_cpus


def _by_gpus(node: Node, gpus: float) -> int:
    """A share of a GPU cannot be put together from two."""
    return int(node.gpus) * _fit(1, gpus)


def _fit(available: float, each: float) -> int:
    return math.floor(available / each + ROUNDING)

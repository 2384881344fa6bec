"""What each trial gets of a node, from what the space asks for and what the nodes have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from study.errors import MachineError
from study.spaces import Resources


@dataclass(frozen=True, kw_only=True)
class Node:
    """Cores and GPUs of one node."""

    cpus: float
    gpus: float


@dataclass(frozen=True, kw_only=True)
class Allotment:
    """Cores and share of a GPU of one trial, and how many trials fit on a node and in the whole cluster at a time."""

    cpus: float
    gpus: float
    per_node: int
    in_total: int

    @property
    def device(self) -> str:
        """`cuda` with a share of a GPU, else `cpu`."""
        return "cuda" if self.gpus else "cpu"


def allot(asked: Resources, nodes: Sequence[Node]) -> Allotment:
    """The allotment of every trial.

    Args:
        asked: resources of the space; None leaves a number to the nodes.
        nodes: what the cluster has, at least one node.

    Raises:
        MachineError: no node can hold a single trial.
    """
    gpus = asked.gpus if asked.gpus is not None else float(any(node.gpus >= 1 for node in nodes))
    fitting = [node for node in nodes if node.gpus >= gpus]
    cpus = asked.cpus if asked.cpus is not None else min((_share(node, gpus) for node in fitting), default=1.0)
    counts = [_count(node, cpus, gpus) for node in nodes]
    if not any(counts):
        largest = max(nodes, key=lambda node: (node.gpus, node.cpus))
        raise MachineError(
            f"resources: received {cpus:g} CPUs and {gpus:g} GPUs per trial, but the largest node has "
            f"{largest.cpus:g} CPUs and {largest.gpus:g} GPUs; use --cpus and --gpus (--gpus 0 trains on the CPU)"
        )
    limit = asked.concurrent or sum(counts)
    return Allotment(cpus=cpus, gpus=gpus, per_node=min(limit, max(counts)), in_total=min(limit, sum(counts)))


def _share(node: Node, gpus: float) -> float:
    trials = math.floor(node.gpus / gpus) if gpus else 1
    return max(1.0, float(math.floor(node.cpus / trials)))


def _count(node: Node, cpus: float, gpus: float) -> int:
    by_cpus = math.floor(node.cpus / cpus + 1e-9)
    return by_cpus if not gpus else min(by_cpus, math.floor(node.gpus / gpus + 1e-9))

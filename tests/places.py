"""Where a tortured study runs: on a Ray of its driver's own, or on a cluster of two nodes whose nodes are replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

import psutil
from clusters import Cluster, RayNode, cluster
from victims import cut_power


class OwnRay:
    """Where a study runs: every driver starts its own Ray."""

    name = "its own Ray"

    def words(self) -> list[str]:
        """For the command line."""
        return []

    def environment(self) -> dict[str, str]:
        """Of the driver."""
        return dict(os.environ)

    def cut_power(self, raylet: psutil.Process) -> bool:
        """Kill the node of a raylet with everything on it, and provide another one; whether the driver can go on."""
        cut_power(raylet)
        return False


class TwoNodes(OwnRay):
    """A head and another node with a core each. Use it as a context manager."""

    name = "a cluster of two nodes"

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._cluster: Cluster
        self._nodes: list[RayNode] = []

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def words(self) -> list[str]:
        return ["--address", self._cluster.address]

    def environment(self) -> dict[str, str]:
        return self._cluster.environment()

    def cut_power(self, raylet: psutil.Process) -> bool:
        roots = {raylet.pid, *(parent.pid for parent in raylet.parents())}
        [node] = [node for node in (self._cluster.head, *self._nodes) if node.process.pid in roots]
        cut_power(psutil.Process(node.process.pid))
        node.process.wait()
        if node is self._cluster.head:
            self._stack.close()
            self._start()
            return False
        self._nodes = [self._stack.enter_context(further_node(self._cluster))]
        return True

    def _start(self) -> None:
        self._stack = ExitStack()
        self._cluster = self._stack.enter_context(cluster(cpus=1))
        self._nodes = [self._stack.enter_context(further_node(self._cluster))]


@contextmanager
def further_node(ray: Cluster) -> Iterator[RayNode]:
    """A node with one core that has joined the cluster."""
    # All nodes of a cluster write to one log, in which an earlier one has said already that it has started.
    (ray.folder / "node.log").unlink(missing_ok=True)
    with ray.node(cpus=1) as node:
        yield node

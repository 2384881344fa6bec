"""The pieces of a ranking on the nodes of a Ray cluster: each leaves a file in a folder that all nodes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray

from study.cluster.local import check_address
from study.cluster.nodes import ask_nodes, joined
from study.common import files
from study.common.errors import MachineError, StudyError
from study.ranking.work import Spread, call

_LOOK_SECONDS = 0.3
# Of a piece whose worker or node is lost.
_TRIES = 3


@contextmanager
def spread_over(address: str, folder: Path) -> Iterator[Spread]:
    """What `make_ranking` hands its pieces to: a core of the cluster for each.

    Args:
        address: of the cluster.
        folder: of the rankings, made if absent.

    Raises:
        InvalidInputError: no address.
        MachineError: no cluster answers, the folder cannot be written, or a node does not share it.
    """
    check_address(address)
    with joined(address):
        _check_shared(folder)
        yield _run_all


def _run_all(function: Callable[[Any], object], items: Sequence[Any], report: Callable[[int], None]) -> None:
    report(0)
    task: Any = ray.remote(num_cpus=1, max_retries=_TRIES)(call)
    shared = ray.put(function)
    waiting = [task.remote(shared, item) for item in items]
    try:
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_LOOK_SECONDS)
            ray.get(done)
            report(len(items) - len(waiting))
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, StudyError) else error from None
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise MachineError(f"a piece of the ranking was lost ({reason}); the same command goes on from here") from error
    finally:
        for left in waiting:
            ray.cancel(left, force=True)


def _check_shared(folder: Path) -> None:
    probe = folder / f".probe-{uuid4().hex}"
    try:
        files.make_folder(folder)
        probe.touch()
    except OSError as error:
        raise MachineError(
            f"{folder} cannot be written ({error.strerror}); give --out DIR, a folder that can"
        ) from error
    try:
        for name, _, troubles in ask_nodes(partial(_look, probe)):
            if troubles:
                raise MachineError(f"{name}: {troubles[0]}")
    finally:
        probe.unlink(missing_ok=True)


def _look(probe: Path, _: str) -> list[str]:
    shared = f"{probe.parent} is not the folder of this machine; all nodes must share it"
    return [] if probe.exists() else [shared]

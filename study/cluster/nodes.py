"""Ray, and whether every node of it can do a study's work: same storage, same data, same code, same libraries.

Asked before the first trial starts: a study whose nodes write to different disks of the same name loses what it trains.

The pieces of a ranking on the nodes of a Ray cluster: each leaves a file in a folder that all nodes share.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.buckets.shared_ledger import trouble_here
from study.cluster.local import WORKER_SETTINGS, Node, check_address, local_node
from study.common import files
from study.common.errors import MachineError, StudyError
from study.common.process import short_folder
from study.nnunet.datasets import DataPaths
from study.ranking.work import Spread, call
from study.run.provenance import Provenance
from study.search.space import SearchSpace

# Set by Ray in the driver of a submitted job, whose working directory, with our code in it, all nodes get.
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
PROBE_SECONDS = 300.0
# Characters of what Ray says, which may be pages.
MOST_OF_REASON = 400


@contextmanager
def connected(space: SearchSpace, address: str | None) -> Iterator[None]:
    """A Ray to run a study on: one of our own, or the one at an address.

    Raises:
        MachineError: it does not start or answer.
    """
    if address is not None:
        with joined(address):
            yield
        return
    node = local_node(space.resources)
    options = {"num_cpus": int(node.cpus), "num_gpus": int(node.gpus), "include_dashboard": False}
    # Without "local" Ray would join a cluster that the environment names. What it makes it opens to all, so it is given
    # a folder within one that others cannot enter.
    trouble = "Ray does not start on this machine"
    with _ray(trouble, address="local", _temp_dir=str(short_folder() / "ray"), **options):
        yield


@contextmanager
def joined(address: str) -> Iterator[None]:
    """The Ray cluster at an address, whose workers get our code: they train with it, whatever else their Python finds.

    Raises:
        MachineError: none answers.
    """
    environment: dict[str, Any] = {"env_vars": WORKER_SETTINGS}
    if JOB_VARIABLE not in os.environ:
        environment["py_modules"] = [str(Path(__file__).resolve().parents[1])]
    trouble = f"--address: no Ray cluster answers at {address!r}; one that demands a token needs RAY_AUTH_MODE=token"
    with _ray(trouble, address=address, runtime_env=environment):
        yield


@contextmanager
def _ray(trouble: str, **options: Any) -> Iterator[None]:
    # The files that Ray's processes make, logs among them, are this user's alone.
    umask = os.umask(0o077)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **options)
    except Exception as error:  # Ray raises what it likes
        reason = " ".join(str(error).split())[:MOST_OF_REASON] or type(error).__name__
        raise MachineError(f"{trouble} ({reason})") from error
    finally:
        os.umask(umask)
    # Failures are told from the ledger, in one line each.
    for name in ("ray", "ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


def nodes() -> list[Node]:
    """Cores and GPUs of the nodes that are alive."""
    held = [node["Resources"] for node in alive()]
    return [Node(cpus=float(r.get("CPU", 0)), gpus=float(r.get("GPU", 0))) for r in held]


def check_nodes(
    root: Path,
    space: SearchSpace,
    data: DataPaths,
    here: Provenance,
    *,
    previous_stage: Path | None = None,
    url: str | None = None,
) -> None:
    """Have every node that can train look at the study folder, the data, the code and the libraries.

    Args:
        root: absolute path of the study folder.
        space: of the study.
        data: folders of its prepared data.
        here: what it rests on where the driver is.
        previous_stage: for a cascade, as the driver names it.
        url: of the study when it is in object storage, which every node is to reach.

    Raises:
        MachineError: a node sees something else than the driver; each one is named with what it sees.
    """
    for left_over in root.glob(".probe-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    probe, complaints = root / f".probe-{uuid4().hex}", []
    probe.mkdir()
    try:
        look = partial(_look, probe, url, space, data, previous_stage, here.to_json())
        for name, reply, troubles in ask_nodes(look):
            unseen = url is None and not troubles and not (probe / reply).exists()
            complaints += [f"{name}: {text}" for text in (troubles or [_not_shared(probe)] * unseen)]
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    if complaints:
        raise MachineError(f"the cluster cannot run this study: {'; '.join(complaints)}")


def alive() -> list[dict[str, Any]]:
    """Ray's own description of the nodes that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def ask_nodes(look: Callable[[str], list[str]]) -> list[tuple[str, str, list[str]]]:
    """Have every node that has cores look at something, all at the same time.

    Args:
        look: runs there, given a name of the node's own for a file; returns what is wrong.

    Returns:
        Of each node its name in words, that of its file, and what is wrong; a node that does not answer says that.
    """
    asked = []
    for node in alive():
        if node["Resources"].get("CPU", 0):
            affinity = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task: Any = ray.remote(_call).options(num_cpus=0, scheduling_strategy=affinity, max_retries=0)
            name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
            reply = f"reply-{node['NodeID']}"
            asked.append((name, reply, task.remote(look, reply)))
    return [(name, reply, _answer(promise)) for name, reply, promise in asked]


def _call(look: Callable[[str], list[str]], reply: str) -> list[str]:
    return look(reply)


def _answer(promise: Any) -> list[str]:
    try:
        troubles: list[str] = ray.get(promise, timeout=PROBE_SECONDS)
        return troubles
    except ray.exceptions.RayError as error:
        return [" ".join(str(error).split())[:300]]


def _look(
    probe: Path,
    url: str | None,
    space: SearchSpace,
    data: DataPaths,
    previous_stage: Path | None,
    provenance: dict[str, Any],
    reply: str,
) -> list[str]:
    if url is not None:
        trouble = trouble_here(url)
        if trouble is not None:
            return [trouble]
    elif not probe.is_dir():
        return [_not_shared(probe)]
    else:
        try:
            (probe / reply).write_text(socket.gethostname(), encoding="utf-8")
        except OSError as error:
            return [f"{probe.parent} cannot be written there ({error.strerror})"]
    try:
        return Provenance.here(space, data, previous_stage).differences(provenance)
    except StudyError as error:
        return [str(error)]


def _not_shared(probe: Path) -> str:
    return f"{probe.parent} is not the driver's folder there; --out must be on storage that all nodes share"


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
        for name, _, troubles in ask_nodes(partial(_seen, probe)):
            if troubles:
                raise MachineError(f"{name}: {troubles[0]}")
    finally:
        probe.unlink(missing_ok=True)


def _seen(probe: Path, _: str) -> list[str]:
    shared = f"{probe.parent} is not the folder of this machine; all nodes must share it"
    return [] if probe.exists() else [shared]

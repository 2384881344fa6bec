"""Ray, and whether every node of it can do a study's work: same storage, same data, same code, same libraries.

Asked before the first trial starts: a study whose nodes write to different disks of the same name loses what it trains.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.buckets.shared_ledger import trouble_here
from study.cluster.local import WORKER_SETTINGS
from study.cluster.shares import Node, local_node
from study.common.errors import MachineError, StudyError
from study.common.process import short_folder
from study.nnunet.datasets import DataPaths
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
    with _ray("local", _temp_dir=str(short_folder() / "ray"), **options):
        yield


@contextmanager
def _nobody_else_reads() -> Iterator[None]:
    """Processes that are started in the block make files, logs among them, that are this user's alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def joined(address: str) -> Iterator[None]:
    """The Ray cluster at an address, whose workers get our code.

    Raises:
        MachineError: none answers.
    """
    with _ray(address, runtime_env=_runtime_env()):
        yield


@contextmanager
def _ray(address: str, **options: Any) -> Iterator[None]:
    try:
        with _nobody_else_reads():
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **options
            )
    except Exception as error:  # Ray raises what it likes
        reason = " ".join(str(error).split())[:MOST_OF_REASON] or type(error).__name__
        raise MachineError(f"{_trouble(address)} ({reason})") from error
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
    probe = root / f".probe-{uuid4().hex}"
    probe.mkdir()
    try:
        question = _Question(
            probe=str(probe),
            url=url,
            space=space,
            data=data,
            previous_stage=previous_stage,
            provenance=here.to_json(),
        )
        asked = [(node, _ask(node, question)) for node in alive() if node["Resources"].get("CPU", 0)]
        complaints = [text for node, answer in asked for text in _complaints(node, answer, question)]
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    if complaints:
        raise MachineError(f"the cluster cannot run this study: {'; '.join(complaints)}")


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What a node is asked: whether it sees the probe's folder, and has the same data, code and libraries."""

    probe: str
    url: str | None
    space: SearchSpace
    data: DataPaths
    previous_stage: Path | None
    provenance: dict[str, Any]


def alive() -> list[dict[str, Any]]:
    """Ray's own description of the nodes that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _ask(node: dict[str, Any], question: _Question) -> Any:
    """Ray's promise of an answer: all nodes look at the same time."""
    affinity = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(_look).options(num_cpus=0, scheduling_strategy=affinity, max_retries=0)
    return task.remote(question, _reply(node))


def _complaints(node: dict[str, Any], answer: Any, question: _Question) -> list[str]:
    try:
        complaints: list[str] = ray.get(answer, timeout=PROBE_SECONDS)
    except ray.exceptions.RayError as error:
        complaints = [" ".join(str(error).split())[:300]]
    if not complaints and question.url is None and not (Path(question.probe) / _reply(node)).exists():
        complaints = [_not_shared(question)]
    name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
    return [f"{name}: {text}" for text in complaints]


def _reply(node: dict[str, Any]) -> str:
    return f"reply-{node['NodeID']}"


def _look(question: _Question, reply: str) -> list[str]:
    """Runs on the node that is asked."""
    trouble = _trouble_with_storage(question, reply)
    if trouble is not None:
        return [trouble]
    try:
        return Provenance.here(question.space, question.data, question.previous_stage).differences(question.provenance)
    except StudyError as error:
        return [str(error)]


def _trouble_with_storage(question: _Question, reply: str) -> str | None:
    if question.url is not None:
        return trouble_here(question.url)
    if not Path(question.probe).is_dir():
        return _not_shared(question)
    try:
        (Path(question.probe) / reply).write_text(socket.gethostname(), encoding="utf-8")
    except OSError as error:
        return f"{Path(question.probe).parent} cannot be written there ({error.strerror})"
    return None


def _not_shared(question: _Question) -> str:
    folder = Path(question.probe).parent
    return f"{folder} is not the driver's folder there; --out must be on storage that all nodes share"


def _runtime_env() -> dict[str, Any]:
    """Workers train with the driver's own code, wherever their Python finds another copy."""
    environment: dict[str, Any] = {"env_vars": WORKER_SETTINGS}
    if JOB_VARIABLE not in os.environ:
        environment["py_modules"] = [str(Path(__file__).resolve().parents[1])]
    return environment


def _trouble(address: str) -> str:
    if address == "local":
        return "Ray does not start on this machine"
    return f"--address: no Ray cluster answers at {address!r}; one that demands a token needs RAY_AUTH_MODE=token"

"""The driver: starts Ray, runs the study's points on Tune, shows the ledger while it waits, and stops cleanly.

Tune runs in a thread, so that this one can take signals. On the first Ctrl-C or SIGTERM a stop file appears in the
study folder: every training writes a checkpoint and ends, on whatever node it is, and only then Ray goes down. A second
signal goes down at once, as a killed driver does; the trainings then notice that nobody holds their pipe, and write
their checkpoints too. Ray's own agents leave about a minute after a killed driver.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray import tune

from study.cluster import WORKER_SETTINGS
from study.cluster.allotment import Allotment, Node, allot, local_node
from study.cluster.searchers import Search, listed, optuna_search, unfinished_points
from study.cluster.tuning import EndOnRequest, TuneThread
from study.cluster.work import Assignment, run_point
from study.datasets import DataPaths
from study.errors import MachineError, TrialInterrupted
from study.ledger import Ledger, TrialState
from study.machine import Resources
from study.spaces import OPTUNA, Point, SearchSpace
from study.specs import prepared_lookup
from study.trial_process import STOP_GRACE_SECONDS, Job

REFRESH_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a study.

    Attributes:
        space: what is searched; ledger: where it is kept; data: prepared data.
        address: of a Ray cluster, None for one of our own on this machine.
        previous_stage: for cascades.
        on_refresh: called about once a second while trials run.
    """

    space: SearchSpace
    ledger: Ledger
    data: DataPaths
    address: str | None = None
    previous_stage: Path | None = None
    on_refresh: Callable[[], None] = lambda: None


def run_study(run: Run) -> list[str]:
    """Run all points that have not finished; returns a line for each that failed.

    Raises:
        TrialInterrupted: stopped by a signal; the same call resumes.
        InvalidInputError: fewer points are asked for than have finished.
        LedgerError: another process runs the study.
        MachineError: no node can hold a trial, or no cluster answers.
    """
    with run.ledger.locked():
        points = None
        if run.space.searcher != OPTUNA:
            points = unfinished_points(run.space, run.ledger, prepared_lookup(run.data))
        search = optuna_search(run.space, run.ledger) if points is None else listed(len(points))
        if not search.samples:
            return []
        with _stop_file(run.ledger.root) as stop_file, _ray(run):
            allotment = allot(run.space.resources, _nodes())
            return _fit(run, search, _assignment(run, points, allotment, stop_file), allotment, stop_file)


@contextmanager
def _ray(run: Run) -> Iterator[None]:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if run.address is None:
            node = local_node(run.space.resources)
            options |= {"num_cpus": int(node.cpus), "num_gpus": int(node.gpus), "include_dashboard": False}
            # Without "local" Ray would join a cluster that the environment names.
            ray.init(address="local", **options)
        else:
            ray.init(address=run.address, runtime_env={"env_vars": WORKER_SETTINGS}, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise MachineError(f"{_trouble(run.address)} ({error})") from error
    # Failures are told from the ledger, in one line each.
    for name in ("ray", "ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


def _trouble(address: str | None) -> str:
    if address is None:
        return "Ray does not start on this machine"
    return f"--address: no Ray cluster answers at {address!r}; one that demands a token needs RAY_AUTH_MODE=token"


def _nodes() -> list[Node]:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return [Node(cpus=float(r.get("CPU", 0)), gpus=float(r.get("GPU", 0))) for r in alive]


@contextmanager
def _stop_file(root: Path) -> Iterator[Path]:
    path = root.resolve() / f".stop-{uuid4().hex}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _assignment(run: Run, points: Sequence[Point] | None, allotment: Allotment, stop_file: Path) -> Assignment:
    resources = Resources(
        device=allotment.device,
        cpus=allotment.cpus,
        gpus=allotment.gpus or None,
        data_workers=run.space.resources.data_workers,
        concurrent_trials=allotment.per_node,
    )
    template = Job(
        study=str(run.ledger.root.resolve()),
        trial_id="",
        raw=None if run.data.raw is None else str(run.data.raw),
        preprocessed=str(run.data.preprocessed),
        resources=resources,
        energy=run.space.energy,
        previous_stage=None if run.previous_stage is None else str(run.previous_stage),
        stop_file=str(stop_file),
    )
    return Assignment(space=run.space, points=points, data=run.data, template=template)


def _fit(run: Run, search: Search, assignment: Assignment, allotment: Allotment, stop_file: Path) -> list[str]:
    thread = TuneThread(lambda end: _tuner(run, search, assignment, allotment, end))
    try:
        with _signals_as_flag() as stopped:
            thread.start()
            while thread.is_alive() and not stopped.is_set():
                thread.join(REFRESH_SECONDS)
                run.on_refresh()
            if stopped.is_set():
                stop_file.touch()
                _wait_for_trainings(run)
                raise TrialInterrupted("the study was stopped; the same command resumes it")
    finally:
        thread.end()
    return thread.failures()


def _tuner(run: Run, search: Search, assignment: Assignment, allotment: Allotment, end: EndOnRequest) -> tune.Tuner:
    # Tune's own folder is a scheduler's memory: a fresh one for every run, never read back.
    name = time.strftime("%Y%m%d-%H%M%S-") + uuid4().hex[:6]
    trainable = tune.with_resources(
        tune.with_parameters(run_point, assignment=assignment), {"cpu": allotment.cpus, "gpu": allotment.gpus}
    )
    return tune.Tuner(
        trainable,
        param_space=search.parameters,
        tune_config=tune.TuneConfig(
            search_alg=search.algorithm,
            num_samples=search.samples,
            max_concurrent_trials=allotment.in_total,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=name, storage_path=str(run.ledger.root.resolve() / "tune"), verbose=0, callbacks=[end]
        ),
    )


@contextmanager
def _signals_as_flag() -> Iterator[threading.Event]:
    """The first signal sets the flag, a second one interrupts whatever is being waited for."""
    flag = threading.Event()

    def handle(*_: object) -> None:
        if flag.is_set():
            raise TrialInterrupted("the study was stopped at once; the same command resumes it")
        flag.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def _wait_for_trainings(run: Run) -> None:
    deadline = time.monotonic() + STOP_GRACE_SECONDS
    while time.monotonic() < deadline:
        if not any(folder.state() is TrialState.RUNNING for folder in run.ledger.trials()):
            return
        run.on_refresh()
        time.sleep(REFRESH_SECONDS)

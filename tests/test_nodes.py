"""Several nodes on this machine: one of those that train is lost, as in a power cut, and its trial goes on on another;
nodes that cannot do the work are named before the first trial starts.

`pytest -s` shows how long it took from the loss to the next iteration.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path

import psutil
import pytest
from clusters import Cluster, RayNode, cluster, until
from places import further_node
from prepared import final_weights, train, workplace
from studies import TRAINING, USER_ERROR, WAIT_SECONDS, Ended, status, training, write_space
from victims import Victim, cut_power, find

from study.nnunet.datasets import data_paths
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.records import Phase
from study.store.trial_folder import TrialFolder

EPOCHS = 16
ITERATIONS = EPOCHS * TRAINING["iterations_per_epoch"]
# A trial a node.
RESOURCES = {"cpus": 1, "gpus": 0, "concurrent": 2, "data_workers": 0}


def write_two_trials(folder: Path) -> Path:
    settings = {**TRAINING, "epochs": EPOCHS, "initial_learning_rate": [1e-3, 2e-3]}
    return write_space(
        folder,
        searcher="grid",
        trials=None,
        objectives=None,
        resources=RESOURCES,
        curriculum={"min_patch": 0.5},
        training=settings,
    )


@contextmanager
def driver_on(ray: Cluster, space: Path, data: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A driver that uses the cluster; its output is beside the space."""
    words = ["run", str(space), "--data", str(data), "--out", str(out), "--address", ray.address]
    with space.with_suffix(".out").open("wb") as output, space.with_suffix(".err").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "study", *words],
            env=ray.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ended(process: subprocess.Popen[bytes], space: Path, out: Path) -> Ended:
    code = process.wait(WAIT_SECONDS)
    output, errors = (space.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
    return Ended(code=code, output=output, errors=errors, trials=status(out))


def on_one_of(nodes: list[RayNode], out: Path) -> tuple[TrialFolder, RayNode] | None:
    """A trial that is well under way on one of the nodes, with a checkpoint behind it."""
    for folder in training(out, Counter()) if out.exists() else []:
        raylet = find(Victim.NODE, folder)
        above = {raylet.pid, *(parent.pid for parent in raylet.parents())} if raylet else set()
        for node in nodes:
            if node.process.pid in above:
                return folder, node
    return None


def iterations(folder: TrialFolder) -> int:
    return max((interval.iteration_stop for interval in folder.cost_intervals()), default=0)


def trained_since(folder: TrialFolder, attempts: int) -> bool:
    return any(i.attempt >= attempts and i.phase is not Phase.SETUP for i in folder.cost_intervals())


@pytest.mark.parametrize(
    "further",
    [
        pytest.param(1, id="two nodes", marks=pytest.mark.cluster),
        pytest.param(2, id="three nodes", marks=pytest.mark.torture),
    ],
)
def test_a_trial_whose_node_is_lost_goes_on_on_another_to_the_same_weights(
    further: int, data: Path, tmp_path: Path
) -> None:
    space, out = write_two_trials(tmp_path), tmp_path / "study"
    with ExitStack() as stack:
        ray = stack.enter_context(cluster(cpus=1))
        others = [stack.enter_context(further_node(ray)) for _ in range(further)]
        driver = stack.enter_context(driver_on(ray, space, data, out))
        victim, node = until(lambda: on_one_of(others, out), driver)
        before, reached, since = len(victim.attempts()), iterations(victim), time.time()
        cut_power(psutil.Process(node.process.pid))
        until(lambda: trained_since(victim, before), driver)
        print(f"\n{1 + further} nodes: {time.time() - since:.1f} s from the loss of one to its trial's next iteration")
        end = ended(driver, space, out)
    assert end.code == 0, end.errors
    assert "Traceback" not in end.errors
    assert [row["state"] for row in end.trials] == ["finished", "finished"]
    first, second = victim.attempts()
    assert 0 < second.resumed_from_iteration < ITERATIONS
    # At most what was trained after the last checkpoint is trained again: one is written after every epoch or two.
    assert second.resumed_from_iteration >= reached - 3 * TRAINING["iterations_per_epoch"]
    costs = bill([first, second], victim.cost_intervals())
    assert costs.waste.seconds >= 0
    assert costs.total.seconds == pytest.approx(sum(segment.charge.seconds for segment in costs.segments))
    assert [e["event"] for e in victim.events() if e["event"] != "note"] == ["started", "started", "finished"]
    alone = train(victim.spec(), Ledger.create(tmp_path / "alone"), workplace(data_paths(data)))
    assert final_weights(victim) == final_weights(alone)
    # The other trial is not disturbed.
    assert [len(folder.attempts()) for folder in Ledger.open(out).trials() if folder != victim] == [1]


ELSEWHERE = """#!/bin/sh
exec unshare --mount sh -c 'mount -t tmpfs none "$0" && exec "$@"' "{folder}" "{python}" "$@"
"""


@pytest.mark.torture
def test_nodes_that_do_not_share_the_folder_or_have_another_version_are_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, out = write_two_trials(tmp_path), tmp_path / "shared" / "study"
    out.parent.mkdir()
    with ExitStack() as stack:
        ray = stack.enter_context(cluster(cpus=1))
        stack.enter_context(node_with_a_disk_of_its_own(ray, out.parent, tmp_path, monkeypatch))
        stack.enter_context(node_with_another_version(ray, tmp_path, monkeypatch))
        driver = stack.enter_context(driver_on(ray, space, data, out))
        end = ended(driver, space, out)
    assert end.code == USER_ERROR
    [line] = end.errors.splitlines()
    assert line.startswith("error: the cluster cannot run this study: node ")
    name = r"node \S+ \(127\.0\.0\.1, [0-9a-f]{8}\): "
    complaints = re.split(name, line)[1:]
    assert sorted(complaint.rstrip("; ") for complaint in complaints) == [
        f"{out} is not the driver's folder there; --out must be on storage that all nodes share",
        f"scikit-image 0.0.1, was {metadata.version('scikit-image')}",
    ]
    assert Ledger(out).trials() == []
    assert list(out.glob(".probe-*")) == []


@contextmanager
def node_with_a_disk_of_its_own(
    ray: Cluster, folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RayNode]:
    """A node that sees another, empty disk in place of the folder."""
    if subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(folder)], check=False).returncode:
        pytest.skip("a mount namespace needs more rights than this user has")
    python = scratch / "python"
    python.write_text(ELSEWHERE.format(folder=folder, python=sys.executable))
    python.chmod(0o755)
    with ExitStack() as stack, monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        node = stack.enter_context(further_node(ray))
        patch.undo()
        yield node


@contextmanager
def node_with_another_version(ray: Cluster, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayNode]:
    """A node on which another version of a library that decides results claims to be installed."""
    claim = scratch / "libraries" / "scikit_image-0.0.1.dist-info"
    claim.mkdir(parents=True)
    (claim / "METADATA").write_text("Metadata-Version: 2.1\nName: scikit-image\nVersion: 0.0.1\n")
    with ExitStack() as stack, monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(claim.parent), prepend=os.pathsep)
        node = stack.enter_context(further_node(ray))
        patch.undo()
        yield node

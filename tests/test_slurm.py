"""The Slurm script, run for real against stand-ins of Slurm's commands that start everything on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clusters import LOOPBACK, LOOPBACK_ONLY, RAY, REPOSITORY, START, free_ports, own_environment, reached
from studies import INTERRUPTED, TRAINING, WAIT_SECONDS, status, training, write_space

from study.store.ledger import Ledger
from study.store.records import Phase
from study.store.trial_folder import TrialState

SLURM = REPOSITORY / "study" / "deploy" / "slurm.sh"
JOB_ID = "4711"
EPOCHS = 12
ITERATIONS = EPOCHS * TRAINING["iterations_per_epoch"]
SCONTROL = """
import os, sys
if sys.argv[1:3] == ["show", "hostnames"]:
    print(sys.argv[3].replace(",", "\\n"))
else:
    open(os.environ["SAID"], "a").write(" ".join(sys.argv[1:]) + "\\n")
"""
# One task, whatever is asked for: a step of this job has one task on a node, and there is one node besides the first.
SRUN = f"""
import os, sys
command = sys.argv[1:]
while command[0].startswith("--"):
    del command[0]
if command[0] == "ray":
    command = [sys.executable, "-c", {START!r}, *command[1:], "--num-gpus=0"]
    if "--head" not in command:
        command.append("--node-ip-address={LOOPBACK}")
os.execvp(command[0], command)
"""


@dataclass(frozen=True, kw_only=True)
class Requeued:
    """A job that came near its time limit, and the same job started again.

    Attributes:
        codes, logs: of both; said: to `scontrol`, by the job and by CodeCarbon, which looks up its memory there.
        stranger: what somebody without the token was told about the cluster.
        stopped_at: iteration at which each trial was stopped; left_over: folders of Ray's that were not deleted.
    """

    ledger: Ledger
    codes: tuple[int, int]
    logs: tuple[str, str]
    said: list[str]
    stranger: str
    stopped_at: dict[str, int]
    left_over: list[Path]


@pytest.fixture(scope="module")
def requeued(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Requeued:
    folder = tmp_path_factory.mktemp("slurm")
    space = write_space(
        folder, trials=1, training={**TRAINING, "epochs": EPOCHS, "initial_learning_rate": [1e-3, 2e-3]}
    )
    out, environment = folder / "study", _allocation(folder)
    command = ["bash", str(SLURM), str(space), "--data", str(data), "--out", str(out)]
    with _batch(command, environment, folder / "first.log") as job:
        _until(lambda: out.exists() and training(out, Counter()), job, folder / "first.log")
        stranger = _status_without_token(f"{LOOPBACK}:{environment['PORT']}")
        # The time limit is near: Slurm tells the batch shell alone.
        job.send_signal(signal.SIGUSR1)
        first = job.wait(WAIT_SECONDS)
    said = Path(environment["SAID"]).read_text(encoding="utf-8").splitlines()
    stopped_at = {trial.trial_id: reached(trial) for trial in Ledger(out).trials()}
    # In another allocation, of a single node.
    environment["SLURM_JOB_NODELIST"] = "third"
    with _batch(command, environment, folder / "second.log") as job:
        second = job.wait(WAIT_SECONDS)
    return Requeued(
        ledger=Ledger.open(out),
        codes=(first, second),
        logs=((folder / "first.log").read_text(), (folder / "second.log").read_text()),
        said=said,
        stranger=stranger,
        stopped_at=stopped_at,
        left_over=list(Path("/tmp").glob(f"ray-{environment['SLURM_JOB_ID']}")),
    )


def _status_without_token(address: str) -> str:
    environment = {**own_environment(), **LOOPBACK_ONLY, "RAY_AUTH_MODE": "disabled"}
    answer = subprocess.run(
        [RAY, "status", "--address", address], env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS
    )
    return answer.stdout + answer.stderr


def _allocation(folder: Path) -> dict[str, str]:
    """Slurm's variables in a batch script, and its commands."""
    commands = folder / "bin"
    commands.mkdir()
    for name, code in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(f"#!{sys.executable}\n{code}")
        (commands / name).chmod(0o755)
    (folder / "said").touch()
    ports = free_ports(1)
    return {
        **own_environment(),
        **LOOPBACK_ONLY,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "SAID": str(folder / "said"),
        "SLURM_JOB_ID": f"{JOB_ID}{os.getpid()}",
        "SLURM_JOB_NODELIST": "first,second",
        "SLURM_CPUS_PER_TASK": "1",
        "VENV": sys.prefix,
        "HEAD_IP": LOOPBACK,
        "PORT": str(ports[0]),
    }


@contextmanager
def _batch(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        job = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield job
    finally:
        if job.poll() is None:
            job.send_signal(signal.SIGTERM)
            job.wait(WAIT_SECONDS)


def _until(condition: Callable[[], Any], job: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert job.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.1)


@pytest.mark.torture
def test_before_the_time_limit_trainings_write_checkpoints_and_the_job_is_queued_again(requeued: Requeued) -> None:
    assert requeued.codes[0] == INTERRUPTED, requeued.logs[0]
    assert [line for line in requeued.said if line.startswith("requeue ")] == [f"requeue {JOB_ID}{os.getpid()}"]
    assert "the study was stopped; the same command resumes it" in requeued.logs[0]
    assert any(0 < iteration < ITERATIONS for iteration in requeued.stopped_at.values())


@pytest.mark.torture
def test_started_again_the_job_resumes_and_finishes(requeued: Requeued) -> None:
    assert requeued.codes[1] == 0, requeued.logs[1]
    assert [row["state"] for row in status(requeued.ledger.root)] == ["finished"]
    assert all(trial.state() is TrialState.FINISHED for trial in requeued.ledger.trials())
    for trial in requeued.ledger.trials():
        intervals = [i for i in trial.cost_intervals() if i.phase is Phase.TRAINING]
        assert sum(i.iteration_stop - i.iteration_start for i in intervals) == ITERATIONS
        assert trial.attempts()[-1].resumed_from_iteration == requeued.stopped_at.get(trial.trial_id, 0)


@pytest.mark.torture
def test_the_job_leaves_nothing_of_rays_behind(requeued: Requeued) -> None:
    assert requeued.left_over == []
    assert "Traceback" not in "".join(requeued.logs)


@pytest.mark.torture
def test_the_cluster_in_the_allocation_asks_for_a_token(requeued: Requeued) -> None:
    assert "Unauthorized" in requeued.stranger or "authentication" in requeued.stranger
    assert "node_" not in requeued.stranger


# Ray and the driver stand in, too, where only the script's own decisions are looked at: they take no time.
RAY_STANDS_IN = """#!/bin/bash
case $1 in
    status) [[ "$RAY_AUTH_MODE" == token && -n "$RAY_AUTH_TOKEN" ]] && printf 'Active:\\n%b' "$JOINED" ;;
    start) exec sleep 600 ;;
esac
"""
DRIVER_STANDS_IN = f"""#!/bin/bash
[[ "$1" == -c ]] && exec {sys.executable} "$@"
trap 'exit 130' TERM
echo "driver: $*"
for i in $(seq "$DRIVER_TENTHS"); do sleep 0.1; done
exit 7
"""


@pytest.fixture
def quick(tmp_path: Path) -> dict[str, str]:
    """An allocation in which Ray and the driver stand in."""
    environment = _allocation(tmp_path)
    scripts = tmp_path / "venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "activate").write_text(f'PATH="{scripts}:$PATH"')
    for name, text in (("ray", RAY_STANDS_IN), ("python", DRIVER_STANDS_IN)):
        (scripts / name).write_text(text)
        (scripts / name).chmod(0o755)
    # This one starts real Ray nodes; here, what is called ray.
    (tmp_path / "bin" / "srun").write_text('#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done\nexec "$@"\n')
    joined = " 1 node_a\\n 1 node_b\\n"
    return {**environment, "VENV": str(tmp_path / "venv"), "JOINED": joined, "DRIVER_TENTHS": "6000"}


def test_a_cancelled_job_stops_its_driver_and_is_not_queued_again(quick: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with _batch(["bash", str(SLURM), "SPACE", "--out", "STUDY"], quick, log) as job:
        address = f"{quick['HEAD_IP']}:{quick['PORT']}"
        expected = f"driver: -m study run SPACE --out STUDY --address {address}"
        _until(lambda: expected in log.read_text(), job, log)
        job.send_signal(signal.SIGTERM)
        assert job.wait(WAIT_SECONDS) == INTERRUPTED, log.read_text()
    assert "requeue" not in Path(quick["SAID"]).read_text(encoding="utf-8")


def test_the_jobs_code_is_the_drivers(quick: dict[str, str], tmp_path: Path) -> None:
    with _batch(["bash", str(SLURM), "SPACE"], {**quick, "DRIVER_TENTHS": "1"}, tmp_path / "log") as job:
        assert job.wait(WAIT_SECONDS) == 7, (tmp_path / "log").read_text()
    assert "requeue" not in Path(quick["SAID"]).read_text(encoding="utf-8")


def test_nodes_that_do_not_join_end_the_job_with_one_line(quick: dict[str, str], tmp_path: Path) -> None:
    environment = {**quick, "JOINED": " 1 node_a\\n", "START_SECONDS": "2"}
    with _batch(["bash", str(SLURM), "SPACE"], environment, tmp_path / "log") as job:
        assert job.wait(WAIT_SECONDS) == 1
    address = f"{quick['HEAD_IP']}:{quick['PORT']}"
    assert (tmp_path / "log").read_text() == (
        f"only 1 of 2 nodes joined Ray at {address} within 2 s; is HEAD_IP right?\n"
    )

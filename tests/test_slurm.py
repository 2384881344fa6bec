"""The Slurm script, run for real against stand-ins of Slurm's commands that start everything on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clusters import LOOPBACK, LOOPBACK_ONLY, RAY, REPOSITORY, START, free_ports, own_environment, reached, until
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


@pytest.mark.torture
def test_near_its_time_limit_the_job_is_queued_again_and_then_resumes(data: Path, tmp_path: Path) -> None:
    training_settings = {**TRAINING, "epochs": EPOCHS, "initial_learning_rate": [1e-3, 2e-3]}
    space = write_space(tmp_path, trials=1, training=training_settings)
    out, environment = tmp_path / "study", _allocation(tmp_path)
    command = ["bash", str(SLURM), str(space), "--data", str(data), "--out", str(out)]
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with _batch(command, environment, first) as job:
        until(lambda: out.exists() and training(out, Counter()), job)
        stranger = _status_without_token(f"{LOOPBACK}:{environment['PORT']}")
        # The time limit is near: Slurm tells the batch shell alone.
        job.send_signal(signal.SIGUSR1)
        assert job.wait(WAIT_SECONDS) == INTERRUPTED, first.read_text()
    # The cluster in the allocation asks for a token.
    assert "Unauthorized" in stranger or "authentication" in stranger
    assert "node_" not in stranger
    # CodeCarbon asks for its memory there, too.
    said = Path(environment["SAID"]).read_text(encoding="utf-8").splitlines()
    assert [line for line in said if line.startswith("requeue ")] == [f"requeue {environment['SLURM_JOB_ID']}"]
    assert "the study was stopped; the same command resumes it" in first.read_text()
    stopped_at = {trial.trial_id: reached(trial) for trial in Ledger(out).trials()}
    assert any(0 < iteration < ITERATIONS for iteration in stopped_at.values())

    # In another allocation, of a single node.
    environment["SLURM_JOB_NODELIST"] = "third"
    with _batch(command, environment, second) as job:
        assert job.wait(WAIT_SECONDS) == 0, second.read_text()
    assert [row["state"] for row in status(out)] == ["finished"]
    for trial in Ledger.open(out).trials():
        assert trial.state() is TrialState.FINISHED
        intervals = [i for i in trial.cost_intervals() if i.phase is Phase.TRAINING]
        assert sum(i.iteration_stop - i.iteration_start for i in intervals) == ITERATIONS
        assert trial.attempts()[-1].resumed_from_iteration == stopped_at.get(trial.trial_id, 0)
    # It leaves nothing of Ray's behind.
    assert list(Path("/tmp").glob(f"ray-{environment['SLURM_JOB_ID']}")) == []
    assert "Traceback" not in first.read_text() + second.read_text()


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
        until(lambda: expected in log.read_text(), job)
        job.send_signal(signal.SIGTERM)
        assert job.wait(WAIT_SECONDS) == INTERRUPTED, log.read_text()
    assert "requeue" not in Path(quick["SAID"]).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        # The job's code is the driver's.
        ({"DRIVER_TENTHS": "1"}, 7, "driver: -m study run SPACE --address ADDRESS\n"),
        (
            {"JOINED": " 1 node_a\\n", "START_SECONDS": "2"},
            1,
            "only 1 of 2 nodes joined Ray at ADDRESS within 2 s; is HEAD_IP right?\n",
        ),
    ],
)
def test_a_job_that_ends_by_itself_says_why_and_is_not_queued_again(
    quick: dict[str, str], tmp_path: Path, given: dict[str, str], code: int, said: str
) -> None:
    with _batch(["bash", str(SLURM), "SPACE"], {**quick, **given}, tmp_path / "log") as job:
        assert job.wait(WAIT_SECONDS) == code, (tmp_path / "log").read_text()
    assert (tmp_path / "log").read_text() == said.replace("ADDRESS", f"{quick['HEAD_IP']}:{quick['PORT']}")
    assert "requeue" not in Path(quick["SAID"]).read_text(encoding="utf-8")

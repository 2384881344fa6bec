"""What `study/deploy` holds: manifests against the published schemas, and the Slurm script, run for real against
stand-ins of Slurm's commands that start everything on this machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import LOOPBACK, LOOPBACK_ONLY, RAY, REPOSITORY, START, free_ports, own_environment, reached
from studies import INTERRUPTED, TRAINING, WAIT_SECONDS, status, training, write_space

from study.ledger import Ledger, TrialState
from study.records import Phase

DEPLOY = REPOSITORY / "study" / "deploy"
SLURM, KUBERAY = DEPLOY / "slurm.sh", DEPLOY / "kuberay-rayjob.yaml"

# ------------------------------------------------------------------------------------------------------------- KubeRay

# The fields that the manifest uses, of the RayJob of KubeRay 1.7.1 (ray.io/v1): in the CRD unknown ones are dropped
# without a word. `authOptions` is there since 1.5.1. A pod template is Kubernetes' own and validated as such.
TEMPLATE = "pod template"
RAYJOB: Mapping[str, Any] = {
    "entrypoint": str,
    "backoffLimit": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "rayClusterSpec": {
        "rayVersion": str,
        "authOptions": {"mode": {"disabled", "token"}},
        "headGroupSpec": {"rayStartParams": str, "template": TEMPLATE},
        "workerGroupSpecs": [
            {
                "groupName": str,
                "replicas": int,
                "minReplicas": int,
                "maxReplicas": int,
                "rayStartParams": str,
                "template": TEMPLATE,
            }
        ],
    },
}
FREE_KEYS = {"rayStartParams"}
"""Objects whose keys are anything and whose values are of the type above."""
REQUIRED = {
    "rayClusterSpec": {"headGroupSpec"},
    "headGroupSpec": {"template"},
    "workerGroupSpecs": {"groupName", "maxReplicas", "minReplicas", "template"},
}


def documents() -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(KUBERAY.read_text())}


def wrong(value: Any, legal: Any, name: str) -> Iterator[str]:
    """What of a value is not as the table says."""
    if legal is TEMPLATE:
        yield from wrong_pod(value)
    elif name in FREE_KEYS:
        yield from (f"{name}.{key}" for key, each in value.items() if not isinstance(each, legal))
    elif isinstance(legal, Mapping):
        yield from (f"{name} lacks {key}" for key in REQUIRED.get(name, set()) - set(value))
        for key, each in value.items():
            yield from wrong(each, legal[key], key) if key in legal else [f"{name}.{key}"]
    elif isinstance(legal, list):
        for each in value:
            yield from wrong(each, legal[0], name)
    elif isinstance(legal, set):
        yield from [] if value in legal else [name]
    # A number in quotes is no number, and true is none either.
    elif type(value) is not legal:
        yield name


def wrong_pod(template: Mapping[str, Any]) -> Iterator[str]:
    yield from wrong_object({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, **template})


def wrong_object(value: Mapping[str, Any]) -> Iterator[str]:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(value, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        yield str(error.message)


def test_the_manifests_have_the_fields_and_types_of_the_published_schemas() -> None:
    made = documents()
    assert set(made) == {"PersistentVolumeClaim", "RayJob"}
    assert list(wrong_object(made["PersistentVolumeClaim"])) == []
    assert made["RayJob"]["apiVersion"] == "ray.io/v1"
    assert list(wrong(made["RayJob"]["spec"], RAYJOB, "spec")) == []


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["backoffLimit"], "20", "backoffLimit"),
        (["backofflimit"], 20, "spec.backofflimit"),
        (["rayClusterSpec", "authOptions"], {"mode": "tokens"}, "mode"),
        (["rayClusterSpec", "headGroupSpec", "rayStartParams"], {"num-cpus": 0}, "rayStartParams.num-cpus"),
        (["rayClusterSpec", "headGroupSpec", "template", "spec", "containers"], None, "None is not of type 'array'"),
        (["rayClusterSpec", "headGroupSpec", "template", "spec", "tolerate"], [], "Additional properties are not"),
    ],
)
def test_a_slip_in_the_manifest_would_be_found(path: list[str], value: Any, complaint: str) -> None:
    spec = documents()["RayJob"]["spec"]
    place = spec
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    [found] = wrong(spec, RAYJOB, "spec")
    assert found.startswith(complaint)


def pods() -> dict[str, dict[str, Any]]:
    cluster = documents()["RayJob"]["spec"]["rayClusterSpec"]
    [workers] = cluster["workerGroupSpecs"]
    return {"head": cluster["headGroupSpec"]["template"]["spec"], "workers": workers["template"]["spec"]}


@pytest.mark.parametrize("which", ["head", "workers"])
def test_pods_are_no_root_and_hold_the_shared_storage(which: str) -> None:
    pod = pods()[which]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts) == set(volumes)
    claim = documents()["PersistentVolumeClaim"]
    assert volumes["study"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_cluster_asks_for_a_token_and_a_lost_head_is_replaced() -> None:
    spec = documents()["RayJob"]["spec"]
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert spec["backoffLimit"] > 0
    head, workers = pods()["head"], pods()["workers"]
    assert head["nodeSelector"] != workers["nodeSelector"]
    assert workers["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_entrypoint_is_the_same_command(capsys: pytest.CaptureFixture[str]) -> None:
    from study.__main__ import main

    shell, flag, script = _words(documents()["RayJob"]["spec"]["entrypoint"])
    assert (shell, flag) == ("sh", "-c")
    command = _words(script.partition("exec ")[2])
    assert command[:4] == ["python", "-m", "study", "run"]
    space = REPOSITORY / command[4]
    assert space.is_file()
    # It is refused only because the storage is not here: everything before that has been read.
    assert main(["run", str(space), *command[5:]]) != 0
    assert "found nothing in /study/data" in capsys.readouterr().err
    assert _storage() == "/study"


def _words(text: str) -> list[str]:
    import shlex

    return shlex.split(text)


def _storage() -> str:
    mounts = pods()["workers"]["containers"][0]["volumeMounts"]
    [path] = [mount["mountPath"] for mount in mounts if mount["name"] == "study"]
    return str(path)


# --------------------------------------------------------------------------------------------------------------- Slurm

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
    said = Path(environment["SAID"]).read_text().splitlines()
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
        assert job.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_before_the_time_limit_trainings_write_checkpoints_and_the_job_is_queued_again(requeued: Requeued) -> None:
    assert requeued.codes[0] == INTERRUPTED, requeued.logs[0]
    assert [line for line in requeued.said if line.startswith("requeue ")] == [f"requeue {JOB_ID}{os.getpid()}"]
    assert "the study was stopped; the same command resumes it" in requeued.logs[0]
    assert any(0 < iteration < ITERATIONS for iteration in requeued.stopped_at.values())


def test_started_again_the_job_resumes_and_finishes(requeued: Requeued) -> None:
    assert requeued.codes[1] == 0, requeued.logs[1]
    assert [row["state"] for row in status(requeued.ledger.root)] == ["finished"]
    assert all(trial.state() is TrialState.FINISHED for trial in requeued.ledger.trials())
    for trial in requeued.ledger.trials():
        intervals = [i for i in trial.cost_intervals() if i.phase is Phase.TRAINING]
        assert sum(i.iteration_stop - i.iteration_start for i in intervals) == ITERATIONS
        assert trial.attempts()[-1].resumed_from_iteration == requeued.stopped_at.get(trial.trial_id, 0)


def test_the_job_leaves_nothing_of_rays_behind(requeued: Requeued) -> None:
    assert requeued.left_over == []
    assert "Traceback" not in "".join(requeued.logs)


def test_the_cluster_in_the_allocation_asks_for_a_token(requeued: Requeued) -> None:
    assert "Unauthorized" in requeued.stranger or "authentication" in requeued.stranger
    assert "node_" not in requeued.stranger

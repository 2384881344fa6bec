"""The Kubernetes manifests against the published schemas, and what they must hold to do their work."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from clusters import REPOSITORY

KUBERAY = REPOSITORY / "study" / "deploy" / "kuberay-rayjob.yaml"

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

    shell, flag, script = shlex.split(documents()["RayJob"]["spec"]["entrypoint"])
    assert (shell, flag) == ("sh", "-c")
    command = shlex.split(script.partition("exec ")[2])
    assert command[:4] == ["python", "-m", "study", "run"]
    space = REPOSITORY / command[4]
    assert space.is_file()
    # It is refused only because the storage is not here: everything before that has been read.
    assert main(["run", str(space), *command[5:]]) != 0
    assert "found nothing in /study/data" in capsys.readouterr().err
    assert _storage() == "/study"


def _storage() -> str:
    mounts = pods()["workers"]["containers"][0]["volumeMounts"]
    [path] = [mount["mountPath"] for mount in mounts if mount["name"] == "study"]
    return str(path)

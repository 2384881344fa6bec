"""The doctor: says what is there on any machine, names a remedy for what is not, fails only for what is required."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from study import __main__
from study.cli import doctor
from study.cli.doctor import Finding, Verdict, container_cores, examine, required_versions
from study.common import files
from study.nnunet.datasets import PREPARED_VARIABLE, RAW_VARIABLE

NAME = "Dataset004_Hippocampus"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (RAW_VARIABLE, PREPARED_VARIABLE, "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)


def finding(subject: str, findings: list[Finding]) -> Finding:
    (only,) = (f for f in findings if f.subject == subject)
    return only


def test_this_machine_is_fit(tmp_path: Path) -> None:
    findings = examine(None, tmp_path / "studies")
    assert [f for f in findings if f.verdict is Verdict.MISSING] == []
    assert {"Python", "nnunetv2", "torch", "ray", "CPU", "GPU", "energy of CPU", "Ray cluster"} <= {
        f.subject for f in findings
    }
    assert not (tmp_path / "studies").exists()


def test_whatever_is_not_as_it_should_be_comes_with_a_remedy(tmp_path: Path) -> None:
    findings = examine(tmp_path / "nothing", tmp_path / "studies")
    silent = [f.subject for f in findings if f.verdict is not Verdict.OK and not f.remedy]
    assert set(silent) <= {"energy of RAM", "energy of GPU"}, "only what no one can change has none"
    assert all(not f.remedy for f in findings if f.verdict is Verdict.OK)


def test_looking_loads_neither_ray_nor_nnunet(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from study.cli.doctor import examine; "
        f"examine(None, Path({str(tmp_path)!r})); print(sorted({{'ray', 'nnunetv2', 'torch'}} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "['torch']"


def test_the_verb_prints_a_line_for_each_finding_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["doctor", "--out", str(tmp_path)]) == 0
    lines, words = capsys.readouterr().out.splitlines(), {verdict.value for verdict in Verdict}
    assert all(line.split()[0] in words or line.strip().startswith("->") for line in lines)
    assert __main__.main(["doctor", "--json", "--out", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {tuple(row) for row in rows} == {("subject", "verdict", "found", "remedy")}
    assert next(row for row in rows if row["subject"] == "study folder")["found"] == str(tmp_path)
    (tmp_path / "file").touch()
    assert __main__.main(["doctor", "--out", str(tmp_path / "file" / "studies")]) == 1
    assert "cannot be written: name another --out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "version", "supported"),
    [
        ("torch", "2.9.1", False),
        ("torch", "2.5.1", False),
        ("torch", "2.6.0", True),
        ("torch", "2.15.0+cpu", True),
        ("nnunetv2", "2.9.0", False),
        ("ray", "2.9.0", False),
    ],
)
def test_supported_versions_are_those_declared(package: str, version: str, supported: bool) -> None:
    assert required_versions()[package].contains(version, prereleases=True) is supported


def test_missing_and_unsupported_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = metadata.version

    def version(name: str) -> str:
        if name == "moocore":
            raise metadata.PackageNotFoundError(name)
        return "2.9.1" if name == "torch" else installed(name)

    monkeypatch.setattr(metadata, "version", version)
    findings = examine(None, tmp_path)
    torch = finding("torch", findings)
    assert {torch.verdict, finding("moocore", findings).verdict} == {Verdict.MISSING}
    assert torch.found.startswith("2.9.1, needed is ")
    assert "!=2.9.*" in torch.found
    assert "pip install" in torch.remedy


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "nonsense\n"}, None),
        ({"cpu.max": "-1 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_a_containers_limit_is_read(tmp_path: Path, content: dict[str, str], cores: float | None) -> None:
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert container_cores(tmp_path) == cores


def test_a_limit_below_the_cores_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000")
    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    cpu = finding("CPU", examine(None, tmp_path))
    assert cpu.verdict is Verdict.NOTE
    assert "serves 0.5" in cpu.found
    assert "--cpus 1" in cpu.remedy


def test_with_readable_counters_energy_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "RAPL", tmp_path / "powercap")
    for verdict, found in ((Verdict.NOTE, "estimated from load"), (Verdict.OK, "measured (RAPL)")):
        cpu = finding("energy of CPU", examine(None, tmp_path))
        assert (cpu.verdict, cpu.found) == (verdict, found)
        (tmp_path / "powercap" / "intel-rapl:0").mkdir(parents=True, exist_ok=True)
        (tmp_path / "powercap" / "intel-rapl:0" / "energy_uj").write_text("1")


def test_a_cluster_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert "10.0.0.1:6379" in finding("Ray cluster", examine(None, tmp_path)).found


def test_prepared_datasets_and_their_plans_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "nnUNet_preprocessed" / NAME
    files.write_json(folder / "dataset.json", {"labels": {"background": 0}})
    files.write_json(folder / "nnUNetPlans.json", {"plans_name": "nnUNetPlans", "configurations": {}})
    found = finding(NAME, examine(tmp_path, tmp_path))
    assert (found.verdict, found.found) == (Verdict.OK, "plans nnUNetPlans")


def test_a_dataset_that_is_not_prepared_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "nnUNet_preprocessed" / NAME).mkdir(parents=True)
    found = finding(NAME, examine(tmp_path, tmp_path))
    assert (found.verdict, found.remedy) == (Verdict.NOTE, "python -m study prepare")


def test_nnunets_variables_are_used_without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    monkeypatch.setenv(PREPARED_VARIABLE, str(tmp_path))
    findings = examine(None, tmp_path)
    assert finding(PREPARED_VARIABLE, findings).found == str(tmp_path)
    assert finding(NAME, findings).verdict is Verdict.NOTE

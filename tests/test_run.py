"""`run` before Ray: what is refused, in one line, and what `--dry-run` shows, leaving no trace."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prepared import CUBE, NAME, NUMBER
from studies import USER_ERROR, run_to_end, write_space

from study.__main__ import main
from study.search.document import load_space
from study.store.ledger import Ledger

REPOSITORY = Path(__file__).resolve().parent.parent

REFUSING = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from study.__main__ import main
ends = {}
for name, arguments in json.loads(sys.argv[1]).items():
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        code = main(arguments)
    ends[name] = [code, output.getvalue(), errors.getvalue(), "ray" in sys.modules]
print(json.dumps(ends))
"""
NEW = "OUT"
"""Stands for a study folder that does not exist."""
REFUSALS: dict[str, tuple[list[str], str]] = {
    "no space": (["NONE.yaml", "--out", NEW], "no search space at NONE.yaml (No such file or directory)"),
    "unknown key": (
        ["MISSPELT", "--out", NEW],
        "unknown key sercher: received 'sercher', legal is one of name, searcher",
    ),
    "no data": (["SPACE", "--out", NEW, "--data", "nowhere"], f"dataset: received '{NUMBER}', found nothing in "),
    "unknown dataset": (["SPACE", "--out", NEW, "--dataset", "77"], f"dataset: received '77', found {NAME} in "),
    "unknown plans": (["SPACE", "--out", NEW, "--plans", "Big"], f"plans: received 'Big', legal for {NAME} is"),
    "unknown configuration": (
        ["SPACE", "--out", NEW, "--configuration", "4d"],
        "configuration: received '4d', legal is one of 3d_fullres",
    ),
    "unknown fold": (["SPACE", "--out", NEW, "--folds", "0", "9"], "fold: received 9, legal is 0 to 4"),
    "unknown country": (["SPACE", "--out", NEW, "--country", "XYZ"], "country: received 'XYZ', legal is a "),
    "no trials": (["SPACE", "--out", NEW, "--trials", "0"], "trials: received 0, legal is a whole number from 1 to"),
    "more cores than there are": (
        ["SPACE", "--out", NEW, "--cpus", "1024"],
        "resources: received 1024 CPUs and 0 GPUs per trial, but the largest node has ",
    ),
    "no GPU": (["SPACE", "--out", NEW, "--gpus", "1"], "resources: received 0.5 CPUs and 1 GPUs per trial, but "),
    "no folder": (["SPACE"], "--out DIR is needed to run a study; --dry-run lists its trials without"),
    "somebody else's folder": (["SPACE", "--out", "FOREIGN"], "FOREIGN holds other files and no study.json; "),
    "no folder at all": (["SPACE", "--out", "SPACE/study"], "cannot write to SPACE/study: Not a directory; "),
    "another study's folder": (
        ["SPACE", "--out", "STUDY", "--epochs", "5"],
        "STUDY belongs to another study: training.epochs differ; name another --out, or undo the change",
    ),
    "another study's preview": (
        ["SPACE", "--out", "STUDY", "--epochs", "5", "--dry-run"],
        "STUDY belongs to another study: training.epochs differ; name another --out, or undo the change",
    ),
    "no tracker": (
        ["SPACE", "--out", NEW, "--mlflow", "ftp://me:secret@host/runs"],
        "trackers.mlflow: received 'ftp://…@host/runs', legal is http(s)://HOST:PORT, ",
    ),
    "no port": (["SPACE", "--out", NEW, "--mlflow", "localhost:5000"], "trackers.mlflow: received 'localhost:5000'"),
    "a tracker in a file": (["SPACE", "--out", NEW, "--tensorboard", "SPACE/runs"], "trackers.tensorboard: received "),
    "no cluster": (
        ["SPACE", "--out", NEW, "--address", "127.0.0.1:1"],
        "--address: received '127.0.0.1:1', nothing answers there (Connection refused); start a cluster with",
    ),
    "no address": (["SPACE", "--out", NEW, "--address", "here"], "--address: received 'here', legal is auto or HOST"),
}


@dataclass(frozen=True)
class Refused:
    """How each of `REFUSALS` ended, and the folder where it happened."""

    ends: dict[str, list[Any]]
    folder: Path


@pytest.fixture(scope="module")
def refused(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Refused:
    """All in one process, which thereby shows that none of them imports ray."""
    folder = tmp_path_factory.mktemp("refused")
    space = write_space(folder)
    space.rename(folder / "SPACE")
    (folder / "MISSPELT").write_text((folder / "SPACE").read_text().replace("searcher:", "sercher:"))
    (folder / "FOREIGN").mkdir()
    (folder / "FOREIGN" / "thesis.txt").touch()
    Ledger.create(folder / "STUDY", space=load_space(folder / "SPACE").identity())
    commands = {
        name: ["run", *words, *([] if "--data" in words else ["--data", str(data)])]
        for name, (words, _) in REFUSALS.items()
    }
    answer = subprocess.run(
        [sys.executable, "-c", REFUSING, json.dumps(commands)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""},
    )
    return Refused(json.loads(answer.stdout), folder)


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_one_line_before_ray_is_loaded(refused: Refused, name: str) -> None:
    code, output, errors, ray_loaded = refused.ends[name]
    assert errors.startswith(f"error: {REFUSALS[name][1]}"), errors
    assert errors.count("\n") == 1
    assert (code, output, ray_loaded) == (USER_ERROR, "", False)


def test_what_is_refused_leaves_nothing_behind(refused: Refused) -> None:
    assert sorted(path.name for path in refused.folder.iterdir()) == ["FOREIGN", "MISSPELT", "SPACE", "STUDY"]


def test_a_study_that_is_being_run_is_refused(data: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path)
    ledger = Ledger.create(tmp_path / "study", space=load_space(space).identity())
    with ledger.locked():
        ended = run_to_end(space, data, ledger.root)
    assert (ended.code, ended.output) == (USER_ERROR, "")
    assert re.fullmatch(
        rf"error: {ledger.root} is being run by process {os.getpid()} on {socket.gethostname()} since "
        r"[-\d]+ [:\d]+ UTC; stop that one first, or name another study\n",
        ended.errors,
    )


HEAVY = ("torch", "nnunetv2", "ray", "optuna")
SPACE: dict[str, Any] = {
    "name": "dry",
    "searcher": "grid",
    "datasets": [NUMBER],
    "plans": CUBE,
    "curriculum": {"scheme": ["cps", "pgps"], "stages": [1, 2]},
    "training": {"epochs": 10, "iterations_per_epoch": 20},
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({**SPACE, **changes}))
    return path


def dry_run(space: Path, data: Path, *more: str) -> list[str]:
    return ["run", str(space), "--data", str(data), "--dry-run", *more]


def titles(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("trial ")]


def test_every_trial_has_its_stage_table(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(dry_run(write(tmp_path), data, "--out", str(out))) == 0
    output = capsys.readouterr().out
    lines = titles(output)
    assert [line.partition("scheme ")[2].partition(":")[0] for line in lines] == [
        "cps, stages 1",
        "cps, stages 2",
        "pgps, stages 1",
        "pgps, stages 2",
    ]
    assert all(f"{NAME}  fold 0  seed 0" in line for line in lines)
    # CPS has one size however many are asked for, and PGPS of one size is CPS.
    assert [line.endswith(": the same trial as above") for line in lines] == [False, True, True, False]
    assert len({line.split()[1] for line in lines[:3]}) == 1
    assert output.splitlines()[-2] == "2 trials"
    assert output.splitlines()[-1].startswith("no costs are told: ")
    tables = re.findall(r"^ *\d+ +(\S+) +\d+ +(\d+) +(\d+) ", output, flags=re.MULTILINE)
    assert tables == [("32x32x32", "0", "200"), ("16x8x8", "0", "100"), ("32x32x32", "100", "100")]
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


def test_a_trial_for_every_fold_and_seed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(dry_run(write(tmp_path), data, "--folds", "0", "3", "--seeds", "1", "2", "--trials", "1")) == 0
    lines = titles(capsys.readouterr().out)
    found = [match for line in lines for match in re.findall(r"fold (\d)  seed (\d)", line)]
    assert found == [("0", "1"), ("0", "2"), ("3", "1"), ("3", "2")]


def test_what_is_drawn_is_listed_and_what_depends_on_results_is_named_by_its_domains(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = {"min_patch": {"uniform": [0, 1]}, "budget": [0.5, 1.0]}
    drawn = []
    for _ in range(2):
        assert main(dry_run(write(tmp_path, searcher="random", trials=4, curriculum=axes), data)) == 0
        drawn.append(titles(capsys.readouterr().out))
    assert len(drawn[0]) == 4
    assert drawn[0] == drawn[1]
    space = write(tmp_path, searcher="optuna", trials=5, curriculum=axes)
    assert main(dry_run(space, data, "--trials", "7")) == 0
    *told, costs = capsys.readouterr().out.splitlines()
    assert costs.startswith("no costs are told: ")
    assert told == [
        "7 points proposed by optuna as results come in, from",
        "  curriculum.min_patch: {'uniform': [0.0, 1.0]}",
        "  curriculum.budget: {'choice': [0.5, 1.0]}",
    ]


def test_a_dry_run_loads_nothing_heavy(data: Path, tmp_path: Path) -> None:
    arguments = dry_run(write(tmp_path), data)
    script = f"import sys; from study.__main__ import main; main({arguments!r}); "
    script += f"import json; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout.splitlines()[-1]) == []

"""`run --dry-run`: the trials of a space and their stage tables, from prepared data, leaving no trace."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prepared import CUBE, NAME, NUMBER

from study.__main__ import main

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
    assert output.splitlines()[-1] == "2 trials"
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
    assert capsys.readouterr().out.splitlines() == [
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

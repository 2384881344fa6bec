"""The two commands: tools of fixed versions, whose verdict does not depend on what a run left in the checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RUFF = (sys.executable, "-m", "ruff", "check", "--no-cache")


def lint(folder: Path) -> str:
    answer = subprocess.run([*RUFF, "."], cwd=folder, capture_output=True, text=True, check=False)
    return "" if answer.returncode == 0 else answer.stdout


def test_folders_named_as_modules_do_not_change_the_lint(tmp_path: Path) -> None:
    """`make study` leaves `studies/`, and tests import a module of that name."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    shutil.copytree(REPOSITORY / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    assert lint(tmp_path) == ""
    for name in ("studies", "data", "report", "torch", *(path.stem for path in (REPOSITORY / "tests").glob("*.py"))):
        (tmp_path / name).mkdir(exist_ok=True)
    assert lint(tmp_path) == ""
    (tmp_path / "tests" / "broken.py").write_text("import os, study.ledger\n")
    assert "I001" in lint(tmp_path)


def names(requirements: list[str]) -> set[str]:
    found = {re.split(r"[\[<>=; ]", line)[0].lower() for line in requirements}
    return found - {"pgps-study"}


def test_every_tool_and_library_is_pinned() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = names([*project["dependencies"], *extras["notebooks"], *extras["dev"]])
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9.]*", pin) for pin in pins)
    assert names(pins) == wanted

"""CONTRIBUTING's examples: each diff applies to a copy of the repository, whose commands then print what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from study import __version__
from study.nnunet.identity import TRAINING_VERSION

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = ["study", "analysis", "search_spaces", "benchmarks", "tests", "pyproject.toml", "README.md", "docs"]
BLOCKS = re.compile(
    r"^## Add a[n]? (\w+)\n(?:(?!^## ).)*?^```diff\n(.*?)^```\n(?:(?!^## ).)*?^```sh\n(.*?)^```\n"
    r"(?:(?!^## ).)*?^```text\n(.*?)^```\n",
    flags=re.MULTILINE | re.DOTALL,
)
EXAMPLES = {name: rest for name, *rest in BLOCKS.findall((REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8"))}


def copy_of_the_repository(folder: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "--", *PARTS, ":!tests/golden"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / name)
    return folder


def shell(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-ec", commands], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def plain(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_every_way_to_add_something_has_its_example() -> None:
    assert list(EXAMPLES) == ["scheme", "axis", "searcher", "figure"]


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.cluster
def test_an_example_applies_and_does_what_it_says(name: str, tmp_path: Path) -> None:
    diff, commands, printed = EXAMPLES[name]
    folder = copy_of_the_repository(tmp_path)
    # In a repository around the folder git would apply nothing.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    subprocess.run(["git", "apply", "-C1", "-"], cwd=folder, env=environment, input=diff, text=True, check=True)
    done = shell(commands, folder)
    assert done.returncode == 0, done.stderr
    assert plain(done.stdout) == plain(printed), done.stderr


def test_the_changelog_knows_this_version_and_what_trains() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, flags=re.MULTILINE)
    assert versions[:1] == ["Unreleased"] and __version__ in versions
    assert re.search(r"`run` refuses such a study by name\. It is (\d+)\.", text).group(1) == str(TRAINING_VERSION)

"""The wheel is the whole program: unpacked anywhere, its commands find their space files from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from prepared import NUMBER, once

REPOSITORY = Path(__file__).resolve().parent.parent
SPACES = sorted(path.name for path in (REPOSITORY / "search_spaces").iterdir())


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip would put into site-packages."""
    return once(tmp_path_factory, "wheel", _build)


def _build(folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = (folder / "dist").iterdir()
    zipfile.ZipFile(wheel).extractall(folder / "site")


def elsewhere(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed program, from a folder that is no checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed / "site"), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "study", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_every_file_of_the_packages_is_in_it(installed: Path) -> None:
    sources = subprocess.run(
        ["git", "ls-files", "study", "analysis", "benchmarks"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    missing = [name for name in sources if not (installed / "site" / name).is_file()]
    assert missing == [] and {"study/py.typed", "analysis/py.typed", "benchmarks/py.typed"} <= set(sources)
    assert sorted(path.name for path in (installed / "site/study/search_spaces").iterdir()) == SPACES
    (entries,) = (installed / "site").glob("*.dist-info/entry_points.txt")
    parsed = ConfigParser()
    parsed.read(entries, encoding="utf-8")
    assert parsed["console_scripts"]["pgps"] == "study.__main__:main"


@pytest.mark.parametrize(
    ("space", "listed"), [("pgps.yaml", "points proposed by pareto"), ("smoke.yaml", f"Dataset{NUMBER}_Phantom")]
)
def test_a_space_that_comes_with_it_is_found_from_any_folder(
    installed: Path, data: Path, tmp_path: Path, space: str, listed: str
) -> None:
    words = ["--data", str(data), "--dataset", str(NUMBER), "--plans", "CubePlans", "--trials", "1", "--dry-run"]
    done = elsewhere(installed, tmp_path, "run", space, *words)
    assert done.returncode == 0, done.stderr
    assert listed in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_users_own_comes_first(installed: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "pgps.yaml").write_text("name: [\n")
    done = elsewhere(installed, tmp_path, "run", "pgps.yaml", "--data", str(data), "--dry-run")
    assert done.returncode == 2
    assert "line 2, column 1" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_demos_space_is_read_from_any_folder(installed: Path, tmp_path: Path) -> None:
    script = (
        "import study; from study.search.document import load_space; from study.cli.demo import SPACE; "
        "print(study.__file__); print(load_space(SPACE).name)"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed / "site"), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [str(installed / "site/study/__init__.py"), "smoke"]

"""Walls between the parts: what may be imported by whom, and what must not be loaded where."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

HEAVY = {"torch", "nnunetv2", "ray", "optuna"}
LIGHT_MODULES = [
    "study.curriculum.curriculum",
    "study.nnunet.plans",
    "study.store.records",
    "study.store.specification",
    "study.store.ledger",
    "study.store.costs",
]
REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")


@cache
def loaded_by(statement: str) -> set[str]:
    """Top-level packages in a fresh interpreter after a statement."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    answer = subprocess.run(
        [sys.executable, "-c", f"{statement}; {report}"], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert answer.returncode == 0, answer.stderr
    return set(answer.stdout.split())


def test_arithmetic_and_records_need_the_standard_library_alone_and_the_analysis_neither_torch_nor_ray() -> None:
    third_party = loaded_by(f"import {', '.join(LIGHT_MODULES)}") - loaded_by("pass") - set(sys.stdlib_module_names)
    # The names of kinds, from which records are read.
    assert third_party == {"study", "annotated_types", "typing_extensions"}
    arithmetic = loaded_by("import study.curriculum.curriculum, study.nnunet.plans") - loaded_by("pass")
    assert arithmetic - set(sys.stdlib_module_names) == {"study"}
    assert loaded_by("import analysis.cli.front, analysis.page.report") & HEAVY == set()
    assert "optuna" in loaded_by("import study.curriculum.curriculum, optuna") & HEAVY, "one would be noticed"


def imports(source: str) -> set[str]:
    """Top-level packages that a source imports anywhere, in functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_only_the_cluster_imports_ray() -> None:
    """The contracts name modules; this finds those that nobody thought of naming."""
    sources = [path for package in ("study", "analysis") for path in (REPOSITORY / package).rglob("*.py")]
    users = {str(path.relative_to(REPOSITORY)) for path in sources if "ray" in imports(path.read_text())}
    assert users and all(user.startswith("study/cluster") for user in users), users


def test_the_picture_of_the_rooms_is_the_contract() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [layer for each in contracts["contracts"] for layer in each.get("layers", ())]
    assert re.findall(r"^│ ([a-z.| ]+?) *│", PAGE, flags=re.MULTILINE) == layers


def test_the_page_of_the_architecture_names_what_there_is() -> None:
    named = re.findall(r"`((?:study|analysis|benchmarks)(?:\.\w+)+|tests/\w+\.py)`", PAGE)
    files = [REPOSITORY / (name if "/" in name else name.replace(".", "/")) for name in named]
    assert len(files) > 60
    assert [str(file) for file in files if not (file.exists() or file.with_suffix(".py").exists())] == []

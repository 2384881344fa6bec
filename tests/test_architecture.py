"""Walls between the parts, tools of fixed versions, and text that is read and written in one encoding."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

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


def names(requirements: list[str]) -> set[str]:
    found = {re.split(r"[\[<>=; ]", line)[0].lower() for line in requirements}
    return found - {"pgps-study"}


def test_every_tool_and_library_is_pinned() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = names([*project["dependencies"], *(line for extra in extras.values() for line in extra)])
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9.]*", pin) for pin in pins)
    assert names(pins) == wanted


def without_encoding(source: str) -> Iterator[str]:
    """Calls that read or write text in whatever encoding the locale has: ruff finds those whose object it can infer."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(word.arg in ("encoding", None) for word in node.keywords):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        modes = [
            word.value for word in (*node.args, *(k.value for k in node.keywords)) if isinstance(word, ast.Constant)
        ]
        is_mode = [isinstance(mode, str) and set(mode) <= set("rwax+t") and mode != "" for mode in modes]
        as_text = any(
            word.arg in ("text", "universal_newlines") and ast.unparse(word.value) == "True" for word in node.keywords
        )
        if (
            name in ("read_text", "write_text", "TextIOWrapper")
            or as_text
            or (name in ("open", "fdopen") and any(is_mode))
        ):
            yield ast.unparse(node)


@pytest.mark.parametrize("package", ["study", "analysis"])
def test_text_is_never_read_or_written_in_the_locales_encoding(package: str) -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in (REPOSITORY / package).rglob("*.py")}
    assert {str(path): calls for path, text in sources.items() if (calls := list(without_encoding(text)))} == {}

"""Tools of fixed versions, and text that is read and written in one encoding."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


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


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("p.read_text()", True),
        ("f(p).write_text('x')", True),
        ("p.open('a')", True),
        ("os.fdopen(3, mode='w')", True),
        ("subprocess.run(c, text=True)", True),
        ("p.open('ab')", False),
        ("p.read_text(encoding='utf-8')", False),
        ("Ledger.open(p)", False),
    ],
)
def test_such_calls_are_told_from_others(call: str, found: bool) -> None:
    assert list(without_encoding(call)) == [call] * found

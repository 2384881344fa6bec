"""The manual (CONTRIBUTING has tests of its own): its site builds, and every command in it is one that exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.__main__ import PROGRAM as ANALYSIS
from study.__main__ import PROGRAM as STUDY
from study.cli.program import CommandLine

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "search_spaces/README.md", "study/deploy/README.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
PROGRAMS = {
    ("python", "-m", "study"): STUDY,
    ("python", "-m", "analysis"): ANALYSIS,
    ("pgps",): replace(STUDY, name="pgps"),
}
# Shell code is fenced with its language or indented by four; a command in the text is between backticks.
_FENCED = re.compile(r"^```sh\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^|\n\n)((?: {4}[^\n]*\n)+)")
_INLINE = re.compile(r"`((?:python -m (?:study|analysis)|pgps) [^`]+)`")
_LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)")
# What stands for something else, or was left out, in a command that shows only a part.
_PARTS = ("…", "VERB", "[")


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of ours in a page, without what a shell would do around them."""
    blocks = [*_FENCED.findall(text), *_INDENTED.findall(text)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *(" ".join(inline.split()) for inline in _INLINE.findall(text))]:
        if any(part in line for part in _PARTS):
            continue
        words = _words(line)
        for start in range(len(words)):
            if any(tuple(words[start : start + len(name)]) == name for name in PROGRAMS):
                yield words[start:]
                break


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return []
    ends = [words.index(sign) for sign in (">", "|", "&&", ";", "<") if sign in words]
    return words[: min(ends, default=len(words))]


def program_of(words: list[str]) -> tuple[CommandLine, list[str]]:
    (name,) = (name for name in PROGRAMS if tuple(words[: len(name)]) == name)
    return PROGRAMS[name], words[len(name) :]


CASES = [(path, words) for path in PAGES for words in commands(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_command_is_one_that_the_program_takes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (words for page, words in CASES if page == path):
        program, rest = program_of(words)
        verb = next((word for word in rest if word in program.verbs), None)
        if verb is None and (not rest or rest[0].startswith("-")):
            continue
        try:
            # A verb named alone is the verb, not a command to type.
            if rest != [verb]:
                program.parser(*filter(None, [verb])).parse_args(rest)
        except SystemExit as ended:
            assert ended.code == 0, f"{path.name}: {' '.join(words)}\n{capsys.readouterr().err}"


def test_the_commands_are_found() -> None:
    assert len(CASES) > 60
    assert {program_of(words)[1][0] for _, words in CASES if program_of(words)[1]} >= {"run", "prepare", "compare"}


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    assert text.count("![") == 1
    for target, _ in _LINK.findall(text):
        assert (REPOSITORY / target).exists(), target


def test_the_site_is_built_without_a_warning_and_asks_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    assert len(pages) > 25
    for path, text in pages.items():
        loaded = re.findall(r"<(?:script|img|link rel=\"?stylesheet\"?)[^>]*(?:src|href)=\"?(https?:[^\">]*)", text)
        assert loaded == [], path
    reference = (tmp_path / "site" / "reference" / "commands.html").read_text(encoding="utf-8")
    assert all(f"pgps {verb}" in reference for verb in STUDY.verbs)

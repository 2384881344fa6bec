"""The command line as a shell sees it: help of every verb without heavy imports, exit codes, one line for an error."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from study import __main__, __version__
from study.cli import plan as plan_verb
from study.cli.program import INTERRUPTED, USER_ERROR
from study.common.errors import InvalidInputError

HEAVY = {"torch", "nnunetv2", "ray", "pandas", "matplotlib"}
LEGAL = ["--patch-size", "64", "--divisors", "16", "--batch-size", "2"]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


HELP = """
import contextlib, io, json, sys
from study.__main__ import VERBS, main
told = {}
for verb in ("", *VERBS):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main([*verb.split(), "--help"])
    told[verb] = said.getvalue(), sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[str, list[str]]]:
    """Of every verb its help, and the packages that are loaded when it and those before it have answered."""
    told: dict[str, tuple[str, list[str]]] = json.loads(python("-c", HELP).stdout)
    return told


@pytest.mark.parametrize("verb", ["", *__main__.VERBS])
def test_help_answers_without_loading_anything_heavy(helps: dict[str, tuple[str, list[str]]], verb: str) -> None:
    text, loaded = helps[verb]
    assert text.startswith(f"usage: python -m study {verb}".strip())
    assert HEAVY & {*loaded} == set() and "argparse" in loaded
    if verb:
        assert f"python -m study {verb}" in text.partition("examples:")[2]


def test_every_verb_has_a_line_in_the_help() -> None:
    text = " ".join(python("-m", "study", "--help").stdout.split())
    assert all(f"{verb} {summary}" in text for verb, summary in __main__.VERBS.items())


def test_the_version_is_printed() -> None:
    assert python("-m", "study", "--version").stdout.strip() == f"pgps-study {__version__}"


@pytest.mark.parametrize("words", [["train"], ["--bogus"], ["plan", "--bogus"]])
def test_what_argparse_refuses_is_exit_code_two(words: list[str]) -> None:
    answer = python("-m", "study", *words)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("usage: ")
    assert "Traceback" not in answer.stderr


def test_an_error_is_one_line_and_debug_adds_the_traceback() -> None:
    plain = python("-m", "study", "plan", "--patch-size", "3")
    debug = python("-m", "study", "plan", "--patch-size", "3", "--debug")
    assert plain.returncode == debug.returncode == 2
    assert plain.stderr.startswith("error: network options: received '--patch-size'")
    assert plain.stderr.count("\n") == 1
    assert debug.stderr.startswith("Traceback (most recent call last):")
    assert debug.stderr.endswith(plain.stderr)


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(plan_verb, "run", broken)
    with pytest.raises(ZeroDivisionError):
        __main__.main(["plan", *LEGAL])


def test_an_interrupt_says_that_the_work_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr(plan_verb, "run", interrupted)
    assert __main__.main(["plan", *LEGAL]) == INTERRUPTED
    assert capsys.readouterr().err == "interrupted; the same command resumes\n"


def test_words_of_the_user_stay_on_the_error_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["plan", *LEGAL, "--scheme", "a\nb"]) == USER_ERROR
    assert capsys.readouterr().err.count("\n") == 1


def test_a_remedy_follows_the_legal_values() -> None:
    error = InvalidInputError(field="--out", received="/", legal="a new folder", remedy="name another")
    assert str(error) == "--out: received '/', legal is a new folder; name another"

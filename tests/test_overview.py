"""What needs no study named: the studies that are here, the cards of the schemes, the completion of a shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from examples import make_spec
from test_status import complete

from study.__main__ import VERBS, main
from study.cli.completion import SHELLS
from study.curriculum.schemes import CARDS, SCHEMES
from study.store.ledger import Ledger

USER_ERROR = 2


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made_study(root: Path, *states: str) -> Ledger:
    ledger = Ledger.create(root)
    for number, state in enumerate(states):
        trial = ledger.add(make_spec("pgps", seed=number))
        if state == "finished":
            complete(trial)
        elif state == "failed":
            trial.fail(attempt=0, reason="out of luck")
    return ledger


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def test_without_a_word_the_studies_here_are_shown_with_what_comes_next(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_study(here / "first", "finished", "new", "failed")
    made_study(here / "studies" / "with space", "finished")
    done = made_study(here / "studies" / "reported", "finished")
    (done.root / "report").mkdir()
    (done.root / "report" / "report.html").write_text("")
    (running := made_study(here / "studies" / "running", "finished")).header()
    with running.locked():
        text = shown(capsys)
        assert text == shown(capsys, "status")
        rows = {row["study"]: row for row in json.loads(shown(capsys, "status", "--json"))}
    told = {name: (row["states"], row["next"]) for name, row in rows.items()}
    assert told == {
        "first": ({"new": 1, "failed": 1, "finished": 1}, "pgps status first"),
        "studies/reported": ({"finished": 1}, "pgps recommend studies/reported --knee"),
        "studies/running": ({"finished": 1}, "pgps status studies/running --watch"),
        "studies/with space": ({"finished": 1}, "pgps report 'studies/with space'"),
    }
    assert [name for name, row in rows.items() if row["runner"]] == ["studies/running"]
    assert all(name in text for name in rows)


def test_a_folder_that_is_a_study_shows_itself(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made_study(here / "one").root)
    (row,) = json.loads(shown(capsys, "status", "--json"))
    assert (row["study"], row["states"], row["next"]) == (".", {}, "pgps status .")


NO_STUDIES = ("", "{", "[]", "3", '{"schema": 99}', '{"name": "another\'s"}', '{"schema": 1, "space": 7}', "\x00")


@pytest.mark.parametrize("content", NO_STUDIES)
def test_what_is_no_study_is_passed_over(here: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (here / "foreign").mkdir()
    (here / "foreign" / "study.json").write_text(content)
    (here / "study.json").mkdir()
    (here / "loop").symlink_to(here)
    (here / "gone").symlink_to(here / "nowhere")
    (here / "studies").write_text("a file")
    made_study(here / "mine", "finished")
    assert [row["study"] for row in json.loads(shown(capsys, "status", "--json"))] == ["mine"]


def test_damaged_trials_are_counted_and_strange_ones_not(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = made_study(here / "mine", "failed")
    (trial,) = ledger.trials()
    (trial.path / "events.jsonl").write_bytes(b"\xff{")
    (ledger.root / "trials" / "notes").mkdir()
    (row,) = json.loads(shown(capsys, "status", "--json"))
    assert sum(row["states"].values()) == 1


def test_where_nothing_is_the_way_to_something_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"no study in {here}" in shown(capsys) and json.loads(shown(capsys, "status", "--json")) == []
    assert main(["status", "--watch"]) == USER_ERROR


def test_every_scheme_has_a_card_and_each_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(SCHEMES) <= set(CARDS)
    table = shown(capsys, "schemes")
    assert all(name in table for name in CARDS)
    for name, card in CARDS.items():
        text = shown(capsys, "schemes", name)
        assert " ".join(card.source.split()[:3]) in " ".join(text.split())
        assert max(map(len, text.splitlines())) <= 100
    assert main(["schemes", "PGPS"]) == USER_ERROR
    assert "legal is one of cps, pgps" in capsys.readouterr().err


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_is_told_every_verb_and_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = shown(capsys, "completion", shell)
    options = ("stall-minutes", "objectives", "max-features", "knee")
    assert all(word in script for word in (*VERBS, *options))


def test_bash_completes_verbs_options_and_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pgps.sh").write_text(shown(capsys, "completion", "bash"))
    (tmp_path / "studies").mkdir()

    def completed(*words: str) -> set[str]:
        lines = [
            "source pgps.sh",
            "complete -p pgps > /dev/null",
            f"COMP_WORDS=({' '.join(words)}) COMP_CWORD={len(words) - 1}",
            "$(complete -p pgps | sed 's/.*-F \\([^ ]*\\).*/\\1/')",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ]
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return set(done.stdout.split())

    assert completed("pgps", "sta") == {"status"}
    assert "--dry-run" in completed("pgps", "run", "--dr")
    assert "studies" in {word.rstrip("/") for word in completed("pgps", "status", "stu")}


def test_completion_imports_nothing_heavy() -> None:
    code = (
        "import sys; from study.__main__ import main; main(['completion', 'bash']); "
        "print(sorted({'torch', 'ray', 'nnunetv2', 'pandas'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"

"""`python -m analysis compare`: tables, JSON, published numbers, exit codes and one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ledgers import finish_trial, make_spec, make_study

from analysis.__main__ import main
from study.store.ledger import Ledger

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies") / "hippo"
    make_study(root, folds=(0, 1), n_cases=20)
    return root


def test_the_papers_own_ratios() -> None:
    words = ["compare", "--reference", "miccai2024", "--baseline", "cps", "--against", "pgps"]
    done = subprocess.run(
        [sys.executable, "-m", "analysis", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "runtime 46.09 % ± 6.82 %, voxels 35.09 % ± 2.30 %" in done.stdout
    assert "Dice higher on 6" in done.stdout
    assert "the text gives PGPS CO₂ 48.22 % ± 9.34 %, its Table 1 gives 45.55 % ± 5.29 %." in done.stdout
    assert "2407.07853" in done.stdout


def test_sign_pairing_and_dropped_cases_are_printed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(study), "--baseline", "cps", "--against", "pgps,pgps+"]) == 0
    out = capsys.readouterr().out
    assert "Positive ΔDice: above CPS." in out
    assert "pairs each validation case with itself" in out
    assert "Dropped for want of a Dice: no pair." in out
    assert "PGPS+" in out
    assert "RPSS" not in out


def test_json_has_the_same_numbers(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(study), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["against"] for row in told["rows"]] == ["PGPS", "PGPS+", "RPSS", "Efficiency", "Performance"]
    row = told["rows"][0]
    assert row["dice_difference"] == pytest.approx(0.003)
    assert (row["p_trainings"], row["covers"]) == (None, "cases")
    assert told["summary"][0]["runtime_ratio_sd"] is None
    assert told["alternative"] == "greater"
    assert told["notes"]


def test_published_numbers_beside_trials(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", str(study), "--reference", "miccai2024", "--country", "FRA"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    published = [row for row in told["rows"] if row["source"] == "miccai2024 (published)"]
    assert [(row["against"], row["p"]) for row in published] == [("PGPS", None), ("PGPS+", None)]
    assert "CO₂ of published numbers stays as it was printed, whatever --country says." in told["notes"]
    assert main(words) == 0
    assert "published" in capsys.readouterr().out


def test_ids_beside_published_numbers(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searched = [path.name for path in (study / "trials").iterdir() if '"stages": 3' in (path / "spec.json").read_text()]
    assert main(["compare", str(study), "--against", searched[0], "--reference", "miccai2024", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["source"] for row in told["rows"]] == ["trials"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "studies: received 'none', legal is a study's folder, --reference NAME, or both"),
        (["--reference", "x"], "reference: received 'x', legal is one of miccai2024"),
        (["--reference", "miccai2024", "--against", "rpss"], "nothing to compare: No finished trial of RPSS."),
        (["STUDY", "--against", "pgsp"], "against: received 'pgsp', legal is a scheme (finished here: cps, pgps,"),
        (["STUDY", "--country", "ZZZ"], "ZZZ"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *(str(study) if word == "STUDY" else word for word in words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_nothing_to_compare_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Ledger.create(tmp_path / "s")
    finish_trial(study, make_spec("cps"), dice=0.8, seconds=30)
    assert main(["compare", str(study.root)]) == 2
    assert "nothing to compare: no finished trial of two schemes" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    assert "--reference miccai2024 --baseline cps --against pgps" in capsys.readouterr().out

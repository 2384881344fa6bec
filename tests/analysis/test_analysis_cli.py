"""`python -m analysis` and `python -m study report`: exit codes, one-line errors, JSON, and what is never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledgers import finish_trial, make_spec, make_study

from analysis.__main__ import main
from analysis.fronts.front import GROUP_COLUMNS
from analysis.statistics.study_results import gather
from benchmarks.made_up import write_study
from benchmarks.reports import OBJECTIVES, measure_front
from study.curriculum.curriculum import Curriculum, Stage
from study.curriculum.schemes import Axes
from study.store.ledger import Ledger

ROOT = Path(__file__).parents[2]


def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return make_study(tmp_path_factory.mktemp("studies") / "hippo", folds=(0, 1), budgets=(1.0, 0.5))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return make_study(tmp_path_factory.mktemp("studies") / "hippo", folds=(0, 1), n_cases=20)


def test_front_as_json(study: Ledger) -> None:
    done = python("-m", "analysis", "front", study.root, "--objectives", "dice,runtime_seconds", "--json")
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout)
    assert [point["summary"] for point in points][-1] == "Performance, budget 100%"
    dice = [point["objectives"]["dice"] for point in points]
    seconds = [point["objectives"]["runtime_seconds"] for point in points]
    assert dice == sorted(dice)
    assert seconds == sorted(seconds)
    for point in points:
        specs = [study.trial(trial_id).spec() for trial_id in point["trial_ids"]]
        assert [spec.fold for spec in specs] == point["folds"] == [0, 1]
        assert Axes(**point["axes"]) == specs[0].axes
        assert stages_without_crops(point["stages"]) == stages_without_crops(specs[0].curriculum)


def stages_without_crops(table: list[dict] | Curriculum) -> list[tuple]:
    if isinstance(table, list):
        return [(*s["patch_size"], s["batch_size"], s["first_iteration"], s["iterations"]) for s in table]
    stages: tuple[Stage, ...] = table.stages
    return [(*s.patch_size, s.batch_size, s.first_iteration, s.iterations) for s in stages]


def test_front_as_a_table_says_how_many_and_in_which_units(study: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(study.root), "--objectives", "dice,co2_kg", "--by", "budget"]) == 0
    captured = capsys.readouterr()
    assert "10 of 16 points are on the front" in captured.out
    assert "[mg]" in captured.out
    assert "estimated" in captured.err


@pytest.mark.parametrize("column", GROUP_COLUMNS)
def test_a_front_by_any_column(column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme, seconds in (("cps", 90), ("pgps", 30)):
        finish_trial(study, make_spec(scheme), dice=0.8, seconds=seconds)
    assert main(["front", str(study.root), "--by", column]) == 0
    assert "of 2 points are on the front" in capsys.readouterr().out


def test_three_objectives(study: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(study.root), "--objectives", "dice,runtime_seconds,voxel_share", "--json"]) == 0
    points = json.loads(capsys.readouterr().out)
    assert {"dice", "runtime_seconds", "voxel_share"} == set(points[0]["objectives"])
    assert len(points) > 8


def test_a_front_of_nothing_is_an_empty_list_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Ledger.create(tmp_path / "study")
    assert main(["front", str(study.root), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == []
    assert "no trials" in captured.err
    finish_trial(study, make_spec(), dice=0.8, seconds=30, measured=False)
    assert main(["front", str(study.root), "--objectives", "dice,co2_kg"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1 point left out, without a value for co2_kg." in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["front", "{tmp}/newer", "--json"], "update pgps-study"),
        (["front", "{study}", "--objectives", "dice,speed"], "runtime_seconds, energy_kwh"),
        (["front", "{study}", "--by", "colour"], "budget"),
        (["compare"], "studies: received 'none', legal is a study's folder, --reference NAME, or both"),
        (["compare", "--reference", "x"], "reference: received 'x', legal is one of miccai2024"),
        (["compare", "--reference", "miccai2024", "--against", "rpss"], "compare: No finished trial of RPSS."),
        (["compare", "{study}", "--against", "pgsp"], "'pgsp', legal is a scheme (finished here: cps, pgps,"),
        (["compare", "{study}", "--country", "ZZZ"], "ZZZ"),
        (["compare", "{one}"], "nothing to compare: no finished trial of two schemes"),
        (["bench", "report", "--trials", "0"], "--trials"),
        (["power", "{study}", "--training-sd", "-1"], "training-sd"),
        (["recommend", "{study}"], "received 'nothing'"),
        (["recommend", "{study}", "--knee", "--max-co2-kg", "1"], "--max-co2-kg and --knee"),
        (["recommend", "{study}", "--max-runtime-seconds", "1"], "the cheapest configuration took"),
        (["recommend", "{study}", "--knee", "--cost", "dice"], "runtime_seconds, energy_kwh"),
        (["recommend", "{study}", "--max-co2-kg", "1", "--cost", "voxels"], "--knee alone"),
        (["recommend", "{study}", "--knee", "--dataset", "Dataset005_Prostate"], "Dataset004_Hippocampus"),
        (["recommend", "{empty}", "--knee"], "no trial has finished (no trials)"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, study: Ledger, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "study.json").write_text('{"schema": 99}')
    (tmp_path / "file").write_text("")
    empty, one = (Ledger.create(tmp_path / name) for name in ("empty", "one"))
    finish_trial(one, make_spec("cps"), dice=0.8, seconds=30)
    places = {"tmp": tmp_path, "study": study.root, "empty": empty.root, "one": one.root}
    assert words in refused(*(word.format(**places) for word in arguments), by=main)


def test_help_has_examples_and_imports_nothing_heavy() -> None:
    done = python(
        "-c",
        "import sys\nfrom analysis.__main__ import main\n"
        "try: main(['report', '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'pandas', 'numpy', 'matplotlib', 'rich', 'moocore', 'torch'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))",
    )
    assert done.returncode == 0, done.stderr
    assert "python -m analysis report studies/hippo" in done.stdout
    assert "heavy: []" in done.stdout


def test_the_papers_own_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--reference", "miccai2024", "--baseline", "cps", "--against", "pgps"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "runtime 46.09 % ± 6.82 %, voxels 35.09 % ± 2.30 %" in out
    assert "Dice higher on 6" in out
    assert "the text gives PGPS CO₂ 48.22 % ± 9.34 %, its Table 1 gives 45.55 % ± 5.29 %." in out
    assert "2407.07853" in out


def test_sign_pairing_and_dropped_cases_are_printed(cases: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(cases.root), "--baseline", "cps", "--against", "pgps,pgps+"]) == 0
    out = capsys.readouterr().out
    assert "Positive ΔDice: above CPS." in out
    assert "pairs each validation case with itself" in out
    assert "Dropped for want of a Dice: no pair." in out
    assert "PGPS+" in out
    assert "RPSS" not in out


def test_json_has_the_same_numbers(cases: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(cases.root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["against"] for row in told["rows"]] == ["PGPS", "PGPS+", "RPSS", "Efficiency", "Performance"]
    row = told["rows"][0]
    assert row["dice_difference"] == pytest.approx(0.003)
    assert (row["p_trainings"], row["covers"]) == (None, "cases")
    assert told["summary"][0]["runtime_ratio_sd"] is None
    assert told["alternative"] == "greater"
    assert told["notes"]


def test_published_numbers_beside_trials(cases: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(cases.root), "--reference", "miccai2024", "--country", "FRA", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    published = [row for row in told["rows"] if row["source"] == "miccai2024 (published)"]
    assert [(row["against"], row["p"]) for row in published] == [("PGPS", None), ("PGPS+", None)]
    assert "CO₂ of published numbers stays as it was printed, whatever --country says." in told["notes"]


def test_ids_beside_published_numbers(cases: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    searched = [
        path.name for path in (cases.root / "trials").iterdir() if '"stages": 3' in (path / "spec.json").read_text()
    ]
    assert main(["compare", str(cases.root), "--against", searched[0], "--reference", "miccai2024", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["source"] for row in told["rows"]] == ["trials"]


def test_the_front_is_that_of_the_made_up_trials(tmp_path: Path) -> None:
    figures = measure_front(tmp_path, trials=300)
    values = pd.read_parquet(tmp_path / "trials.parquet")[list(OBJECTIVES)].to_numpy() * [-1, 1, 1]
    beaten = [((values <= row).all(axis=1) & (values < row).any(axis=1)).any() for row in values]
    assert (figures.trials, figures.on_front) == (300, int((~np.array(beaten)).sum()))
    assert figures.load_seconds > 0
    assert figures.front_seconds > 0
    assert figures.peak_memory_mib > 50


def test_a_made_up_study_is_read_like_a_real_one(tmp_path: Path) -> None:
    results = gather([write_study(tmp_path / "study", 5).root])
    assert results.tables.trials["state"].tolist() == ["finished"] * 5
    assert results.tables.epochs.groupby("trial_id").size().tolist() == [10] * 5
    assert results.points[["dice", "dice_low", "dice_high", "runtime_seconds", "co2_kg"]].notna().all(axis=None)
    assert (results.points["dice_low"] < results.points["dice"]).all()


@pytest.mark.cluster
def test_a_report_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "report", "--trials", "3", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["report"]
    assert figures["trials"] == 3
    assert 0 < figures["read_by_report"] < 1
    assert figures["page_mib"] > 0
    assert figures["figures"] > 0

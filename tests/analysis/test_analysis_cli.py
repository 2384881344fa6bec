"""`python -m analysis` and `python -m study report`: exit codes, one-line errors, JSON, and what is never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ledgers import finish_trial, make_spec, make_study

from analysis.__main__ import main
from analysis.fronts.front import GROUP_COLUMNS
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
def test_a_front_by_any_column(column: str, study: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(study.root), "--by", column]) == 0
    assert "points are on the front" in capsys.readouterr().out


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


def test_study_has_the_verbs_of_analysis(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    done = python("-m", "study", "report", study.root, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "report.html")
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "{tmp}/absent"], "does not exist"),
        (["report", "{tmp}"], "not a study folder"),
        (["report", "{tmp}/newer"], "update pgps-study"),
        (["front", "{tmp}/newer", "--json"], "update pgps-study"),
        (["front", "{study}", "--objectives", "dice,speed"], "runtime_seconds, energy_kwh"),
        (["front", "{study}", "--by", "colour"], "budget"),
        (["report", "{study}", "--out", "{tmp}/file/report"], "name another --out"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, study: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "study.json").write_text('{"schema": 99}')
    (tmp_path / "file").write_text("")
    assert main([word.format(tmp=tmp_path, study=study.root) for word in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err


def test_no_traceback_without_debug_and_one_with_it(tmp_path: Path) -> None:
    plain = python("-m", "analysis", "front", tmp_path / "absent")
    assert (plain.returncode, "Traceback" in plain.stderr) == (2, False)
    debug = python("-m", "analysis", "front", tmp_path / "absent", "--debug")
    assert (debug.returncode, "Traceback" in debug.stderr) == (2, True)


@pytest.mark.parametrize("program", ["analysis", "study"])
def test_help_has_examples_and_imports_nothing_heavy(program: str) -> None:
    done = python(
        "-c",
        f"import sys\nfrom {program}.__main__ import main\n"
        "try: main(['report', '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'pandas', 'numpy', 'matplotlib', 'rich', 'moocore', 'torch'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))",
    )
    assert done.returncode == 0, done.stderr
    assert f"python -m {program} report studies/hippo" in done.stdout
    assert "heavy: []" in done.stdout


def loaded_after(code: str) -> tuple[set[str], list[str]]:
    """Top-level modules that a process has after it ran some code, and what the code printed."""
    done = python(
        "-c", f"import sys\n{code}\nprint('loaded:', *sorted({{name.split('.')[0] for name in sys.modules}}))"
    )
    assert done.returncode == 0, done.stderr
    *lines, loaded = done.stdout.splitlines()
    return set(loaded.split()), lines


def test_a_report_loads_neither_torch_nor_nnunet_nor_ray_and_says_where_it_is(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(), dice=0.8, seconds=30, measured=False)
    loaded, lines = loaded_after(
        "import pkgutil, importlib, analysis\n"
        "for module in pkgutil.walk_packages(analysis.__path__, 'analysis.'): importlib.import_module(module.name)\n"
        f"sys.modules['analysis.__main__'].main(['report', {str(study.root)!r}])"
    )
    assert {"pandas", "matplotlib", "moocore", "analysis"} <= loaded
    assert not {"torch", "nnunetv2", "ray"} & loaded
    assert lines[0] == "1 trial: 1 finished"
    assert lines[1].startswith("No figure of Training CO₂: it was not measured")
    assert lines[-1] == str(study.root / "report" / "report.html")
    assert (study.root / "report" / "report.html").exists()


def test_a_loaded_heavy_module_would_be_noticed() -> None:
    assert "ray" in loaded_after("import ray")[0]

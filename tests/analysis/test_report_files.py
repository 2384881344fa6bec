"""The folder of a report: its files in every format, what it takes away, and bad input: a useful page or one line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from ledgers import finish_trial, make_spec, make_study, start_trial
from reports import quick_report

from analysis.__main__ import main
from analysis.figures.exhibits import FIGURE_FORMATS, draw_all
from analysis.page.fronts import fronts
from analysis.page.report import CHAPTERS, Report, write_report
from analysis.statistics.evidence import gather
from analysis.tables.columns import TRIAL_COLUMNS
from study.common.errors import InvalidInputError, LedgerError, MachineError
from study.store.ledger import Ledger
from study.store.trial_folder import TrialState

MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return make_study(tmp_path_factory.mktemp("studies") / "hippo", folds=(0, 1))


@pytest.fixture(scope="module")
def report(study: Ledger) -> Report:
    return write_report([study.root], sections=[fronts])


def text_of(report: Report) -> str:
    return report.page.read_text(encoding="utf-8")


def test_every_figure_has_three_formats(study: Ledger, report: Report) -> None:
    assert report.folder == study.root / "report"
    figures = {path.stem for path in (report.folder / "figures").iterdir()}
    assert {"pareto_dice_runtime", "pareto_dice_co2"} <= figures
    for stem in figures:
        for ending in FIGURE_FORMATS:
            assert (report.folder / "figures" / f"{stem}.{ending}").read_bytes().startswith(MAGIC[ending])


def test_every_table_has_three_formats(report: Report) -> None:
    tables = {path.stem for path in (report.folder / "tables").glob("*.md")}
    assert {"pareto_dice_runtime", "trials"} <= tables
    for stem in tables:
        lines = (report.folder / "tables" / f"{stem}.md").read_text().splitlines()
        latex = (report.folder / "tables" / f"{stem}.tex").read_text()
        assert not pd.read_csv(report.folder / "tables" / f"{stem}.csv").empty
        assert latex.count("\\begin{") == latex.count("\\end{")
        assert f"\\label{{tab:{stem}}}" in latex
        assert len(lines) >= 3


def test_the_list_of_figures_begins_with_the_pareto_plots(report: Report) -> None:
    assert report.figures[0].name == "pareto_dice_runtime.png"
    pareto = [path.name.startswith("pareto_") for path in report.figures]
    assert pareto == sorted(pareto, reverse=True)
    assert list(report.pareto_figures) == [path for path in report.figures if path.name.startswith("pareto_")]
    assert {path.name for path in report.figures} == {p.name for p in (report.folder / "figures").glob("*.png")}


def test_the_data_hold_every_trial_and_column_and_read_back_the_same(study: Ledger, report: Report) -> None:
    frame = gather([study.root]).tables.trials
    stored = pd.read_parquet(report.folder / "data" / "trials.parquet")
    pd.testing.assert_frame_equal(stored, frame)
    assert {name: str(dtype) for name, dtype in stored.dtypes.items()} == {c.name: c.dtype for c in TRIAL_COLUMNS}
    text = pd.read_csv(report.folder / "tables" / "trials.csv")
    assert text["trial_id"].tolist() == frame["trial_id"].tolist()
    assert text["co2_kg"].sum() == pytest.approx(frame["co2_kg"].sum())


def test_a_report_of_a_report_has_the_same_numbers(report: Report, tmp_path: Path) -> None:
    again = quick_report([report.folder], tmp_path / "again")
    name = "tables/pareto_dice_runtime.csv"
    assert (again.folder / name).read_bytes() == (report.folder / name).read_bytes()


def test_only_files_of_an_earlier_report_are_taken_away(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    out = tmp_path / "out"
    quick_report([study.root], out)
    mine = [out / "figures" / "mine.png", out / "notes.md", out / "trials.csv"]
    for path in mine:
        path.write_text("mine")
    listed = json.loads((out / "files.json").read_text())
    (out / "files.json").write_text(json.dumps([*listed, "../outside.png", "/etc/hosts", 7]))
    (tmp_path / "outside.png").write_text("mine")
    empty = Ledger.create(tmp_path / "empty")
    quick_report([empty.root], out)
    assert list((out / "figures").iterdir()) == [mine[0]]
    assert {path.name for path in (out / "tables").iterdir()} == {"trials.csv", "trials.md", "trials.tex"}
    assert all(path.exists() for path in [*mine, tmp_path / "outside.png"])


def test_files_of_the_layout_before_are_taken_away(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    out = study.root / "report"
    out.mkdir()
    for name in ("report.html", "trials.csv", "pareto_dice_co2.png", "mine.png"):
        (out / name).write_text("old")
    quick_report([study.root])
    assert {path.name for path in out.iterdir()} == {
        *("report.html", "mine.png", "files.json", "figures", "tables", "data")
    }


def test_unmeasured_carbon_is_explained(tmp_path: Path) -> None:
    report = quick_report([make_study(tmp_path / "study", measured=False).root])
    assert "pareto_dice_co2.png" not in {path.name for path in report.figures}
    reason = next(sentence for sentence in report.missing if "CO₂" in sentence)
    assert "not measured" in reason
    assert "cpu unmeasured" in reason
    assert reason in text_of(report)


def test_files_of_several_datasets_do_not_meet(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for dataset in ("Dataset001_A", "Dataset002_B"):
        finish_trial(study, make_spec(dataset=dataset), dice=0.8, seconds=30)
    evidence = gather([study.root])
    stems = [exhibit.stem for section in CHAPTERS for exhibit in section(evidence).exhibits]
    assert len(stems) == len(set(stems))
    assert {"pareto_dice_runtime_Dataset001_A", "pareto_dice_runtime_Dataset002_B"} <= set(stems)
    assert {"trials", "report"}.isdisjoint(stems)


@pytest.mark.cluster
def test_drawing_in_several_processes_gives_the_same_bytes(study: Ledger) -> None:
    evidence = gather([study.root])
    exhibits = fronts(evidence).exhibits[-3:]
    assert draw_all(exhibits) == draw_all(exhibits, processes=2)


# ------------------------------------------------------------------------------------------------------------ bad input


def test_an_empty_study_is_a_page_without_figures(tmp_path: Path) -> None:
    report = write_report([Ledger.create(tmp_path / "study").root])
    assert report.figures == ()
    assert report.missing
    assert "<svg" not in text_of(report)
    assert "no trials yet" in text_of(report)


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.INFEASIBLE])
def test_a_study_without_a_finished_trial_is_a_table_of_reasons(tmp_path: Path, state: TrialState) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme in ("cps", "pgps"):
        start_trial(study, make_spec(scheme), seconds=3).fail(attempt=0, reason=f"{scheme} broke", state=state)
    report = write_report([study.root])
    pareto = {path.name for path in report.pareto_figures}
    assert pareto == set()
    assert "No trial has finished" in text_of(report)
    assert f"2 trials {state.value}: in the table with the reason" in text_of(report)
    assert "cps broke" in text_of(report)


def test_a_study_in_progress_says_so(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec("cps"), dice=0.8, seconds=60)
    folder = start_trial(study, make_spec("pgps"), seconds=3)
    with folder.locked():
        report = quick_report([study.root])
    assert "1 trial still running: this is a study in progress" in text_of(report)
    assert "pareto_dice_runtime.png" in {path.name for path in report.figures}


def test_a_finished_trial_without_a_dice_is_in_the_table_and_in_no_front(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(), dice=float("nan"), seconds=30)
    report = quick_report([study.root])
    assert report.pareto_figures == ()
    assert report.trials["state"].tolist() == ["unreadable"]
    assert "1 trial unreadable: in the table with the reason" in text_of(report)


def test_an_unreadable_trial_is_a_row_with_the_reason(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    broken = study.add(make_spec(seed=1))
    (broken.path / "spec.json").write_text("{")
    report = quick_report([study.root])
    assert "1 trial unreadable: in the table with the reason" in text_of(report)
    assert report.figures


def test_a_folder_that_cannot_be_written_is_one_clear_line_before_anything_is_drawn(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    (tmp_path / "file").write_text("here")
    with pytest.raises(MachineError, match="name another --out"):
        quick_report([study.root], tmp_path / "file" / "report")


def test_what_is_no_study_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "study.json").write_text('{"schema": 99}')
    for name, words in (("absent", "does not exist"), ("", "not a study folder"), ("newer", "update pgps-study")):
        with pytest.raises(LedgerError, match=words):
            quick_report([tmp_path / name], tmp_path / "out")
    with pytest.raises(InvalidInputError):
        quick_report([Ledger.create(tmp_path / "study").root], tmp_path / "out", country="XXX")
    assert not (tmp_path / "out").exists()


def test_the_verb_names_the_plots_and_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(), dice=0.8, seconds=30)
    assert main(["report", str(study.root), "--out", str(tmp_path / "out"), "--country", "DEU"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 trial: 1 finished"
    figures = [f"pareto_dice_{cost}.png" for cost in ("runtime", "co2")]
    assert {str(tmp_path / "out" / "figures" / figure) for figure in figures} <= set(lines)
    assert lines[-1] == str(tmp_path / "out" / "report.html")
    assert "1 of 1 point" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert set(pd.read_csv(tmp_path / "out" / "tables" / "trials.csv")["country"]) == {"DEU"}


def test_an_unknown_country_is_one_line(study: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(study.root), "--country", "XXX"]) == 2
    assert capsys.readouterr().err.count("\n") == 1

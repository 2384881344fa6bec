"""The report: its files, the page that needs no network, and what it says when there is little to show."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from ledgers import finish_trial, make_header, make_spec, make_study, start_trial

from analysis.columns import TRIAL_COLUMNS
from analysis.frame import read_studies
from analysis.page import stylesheet
from analysis.report import Report, write_report
from analysis.tables import markdown, readable
from study.errors import LedgerError, MachineError
from study.ledger import Ledger

# Elements that HTML closes by itself.
VOID = {"meta", "br", "hr", "img", "link", "input"}


class PageReader(HTMLParser):
    """Checks that elements nest, and collects what a page is asked about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def page_of(report: Report) -> PageReader:
    return PageReader(report.page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    study = make_study(tmp_path_factory.mktemp("studies") / "hippo", folds=(0, 1))
    start_trial(study, make_spec("cps", budget=0.25), seconds=12)
    broken = study.add(make_spec("pgps", budget=0.25))
    broken.begin_attempt(make_header())
    broken.fail(attempt=0, reason="<script>alert('no')</script> | & gone")
    return study


@pytest.fixture(scope="module")
def report(study: Ledger) -> Report:
    return write_report([study.root])


def test_the_files_of_a_report(study: Ledger, report: Report) -> None:
    assert report.folder == study.root / "report"
    figures = {f"pareto_dice_{kind}.{ending}" for kind in ("runtime", "co2") for ending in ("png", "svg")}
    tables = {"trials.parquet", "trials.csv", "trials.md", "front.csv", "report.html"}
    assert {path.name for path in report.folder.iterdir()} == figures | tables
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in report.figures)


def test_parquet_and_csv_hold_every_trial_and_column(study: Ledger, report: Report) -> None:
    frame = read_studies([study.root]).trials
    stored = pd.read_parquet(report.folder / "trials.parquet")
    pd.testing.assert_frame_equal(stored, frame)
    assert {name: str(dtype) for name, dtype in stored.dtypes.items()} == {c.name: c.dtype for c in TRIAL_COLUMNS}
    text = pd.read_csv(report.folder / "trials.csv")
    assert text["trial_id"].tolist() == frame["trial_id"].tolist()
    assert text["co2_kg"].sum() == pytest.approx(frame["co2_kg"].sum())


def test_front_csv_has_the_points_of_every_figure(report: Report) -> None:
    front = pd.read_csv(report.folder / "front.csv")
    assert set(front["figure"]) == {"pareto_dice_runtime", "pareto_dice_co2"}
    assert front["dice"].max() == pytest.approx(0.819)
    assert front.groupby("figure")["number"].min().tolist() == [1, 1]


def test_the_page_loads_nothing(report: Report) -> None:
    page = page_of(report)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "img", "object")
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    text = report.page.read_text(encoding="utf-8")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_ids_on_the_page_are_unique(report: Report) -> None:
    ids = [attributes["id"] for _, attributes in page_of(report).tags if "id" in attributes]
    assert ids
    assert len(ids) == len(set(ids))


def test_figures_have_words_for_those_who_do_not_see_them(report: Report) -> None:
    figures = [attributes for tag, attributes in page_of(report).tags if tag == "svg"]
    assert len(figures) == 4
    assert all(f["role"] == "img" and "on the Pareto front" in (f["aria-label"] or "") for f in figures)


def test_text_from_a_study_is_escaped(report: Report) -> None:
    page = page_of(report)
    assert "<script>alert('no')</script> | & gone" in page.text
    assert "\\| & gone" in (report.folder / "trials.md").read_text()


def test_the_page_says_what_it_rests_on(report: Report) -> None:
    text = page_of(report).text
    for expected in (
        "18 trials: 16 finished, 1 interrupted, 1 failed",
        "8 with a finished trial",
        "Folds 0, 1",
        "Seeds 0",
        "Hardware Example CPU",
        "codecarbon 3.3.2: cpu estimated",
        "torch 2.15.0",
        "1 trial failed",
    ):
        assert expected in text


def test_every_colour_of_a_figure_is_defined_for_light_and_dark(report: Report) -> None:
    css = stylesheet()
    for name in set(re.findall(r"var\(--([a-z-]+)\)", report.page.read_text(encoding="utf-8"))):
        assert css.count(f"--{name}:") == 2


def test_unmeasured_carbon_is_explained_and_an_old_figure_of_it_goes(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", measured=False)
    old = study.root / "report" / "pareto_dice_co2.png"
    old.parent.mkdir()
    old.write_bytes(b"old")
    report = write_report([study.root])
    assert not old.exists()
    assert [path.name for path in report.figures] == ["pareto_dice_runtime.png"]
    assert "not measured" in report.missing[0]
    assert "cpu unmeasured" in report.missing[0]
    assert report.missing[0] in page_of(report).text


def test_an_empty_study_is_a_page_without_figures(tmp_path: Path) -> None:
    report = write_report([Ledger.create(tmp_path / "study").root])
    page = page_of(report)
    assert report.figures == ()
    assert page.count("svg") == 0
    assert "Study report: study no trials" in page.text
    assert "no trials yet" in page.text


def test_a_study_whose_trials_all_failed_is_a_table_of_reasons(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme in ("cps", "pgps"):
        start_trial(study, make_spec(scheme), seconds=3).fail(attempt=0, reason=f"{scheme} broke")
    report = write_report([study.root])
    page = page_of(report)
    assert report.figures == ()
    assert page.count("svg") == 0
    assert "No trial has finished" in page.text
    assert "cps broke" in page.text


def test_one_trial_is_a_page_with_its_figure(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(), dice=0.8, seconds=30)
    report = write_report([study.root])
    assert [path.name for path in report.figures] == ["pareto_dice_runtime.png", "pareto_dice_co2.png"]
    assert "1 of 1 point" in page_of(report).text


def test_a_finished_trial_without_a_dice_is_in_the_table_and_in_no_figure(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(), dice=float("nan"), seconds=30)
    report = write_report([study.root])
    assert report.figures == ()
    assert "no finished trial has a Dice" in report.missing[0]
    finish_trial(study, make_spec("cps"), dice=0.8, seconds=30, measured=False)
    report = write_report([study.root])
    assert [path.name for path in report.figures] == ["pareto_dice_runtime.png"]
    assert "not measured completely" in report.missing[0]


def test_each_dataset_has_its_own_figures(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for dataset, measured in (("Dataset001_A", True), ("Dataset002_B", False)):
        finish_trial(study, make_spec(dataset=dataset), dice=0.8, seconds=30, measured=measured)
    report = write_report([study.root])
    assert {path.stem for path in report.figures} == {
        "pareto_dice_runtime_Dataset001_A",
        "pareto_dice_co2_Dataset001_A",
        "pareto_dice_runtime_Dataset002_B",
    }


def test_a_few_budgets_are_also_compared_each_by_itself(tmp_path: Path) -> None:
    report = write_report([make_study(tmp_path / "study", budgets=(1.0, 0.5)).root])
    assert {"pareto_dice_runtime_by_budget.png", "pareto_dice_co2_by_budget.png"} <= {p.name for p in report.figures}


def test_several_studies_are_one_report(tmp_path: Path, study: Ledger) -> None:
    other = Ledger.create(tmp_path / "other")
    finish_trial(other, make_spec(seed=1), dice=0.8, seconds=30, cpu_name="Another CPU")
    report = write_report([study.root, other.root], tmp_path / "both")
    assert set(report.trials["study"]) == {"hippo", "other"}
    assert "Measured on different hardware" in page_of(report).text


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    (tmp_path / "file").write_text("here")
    with pytest.raises(MachineError, match="name another --out"):
        write_report([study.root], tmp_path / "file" / "report")
    with pytest.raises(LedgerError):
        write_report([tmp_path / "absent"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_markdown_table_has_units_scaled_numbers_and_dashes(study: Ledger) -> None:
    frame = read_studies([study.root]).trials
    rows = frame[frame["method"] == "cps"].sort_values("dice")
    lines = markdown(readable(rows, ["method", "dice", "co2_kg", "test_time_mirroring"])).splitlines()
    assert lines[0] == "| Method | Dice | Training CO₂ [mg] | Mirroring |"
    assert lines[1] == "| --- | ---: | ---: | --- |"
    assert lines[3] == "| cps | 0.8120 | 39.2 | yes |"
    assert lines[4] == "| cps | – | 5.00 | yes |"

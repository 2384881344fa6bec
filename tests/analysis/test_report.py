"""A report: its files in every format, what it takes away, a valid, self-contained page, and bad input."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from ledgers import finish_trial, make_header, make_spec, make_study, start_trial
from reports import quick_report

from analysis.figures.display_items import FIGURE_FORMATS, draw_all
from analysis.page.report import CHAPTERS, Report, stylesheet, write_report
from analysis.page.sections import fronts
from analysis.statistics.study_results import gather
from analysis.tables.columns import TRIAL_COLUMNS
from study.common.errors import InvalidInputError, LedgerError, MachineError, StudyError
from study.store.ledger import Ledger
from study.store.trial_folder import TrialState

MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
# Elements that HTML closes by itself.
VOID = {"meta", "br", "hr", "img", "link", "input"}
TEXT_WITH_MARKUP = "<script>alert('no')</script> | & gone"
bare_report = partial(quick_report, most=0)


class PageReader(HTMLParser):
    """Checks that elements nest, and collects what a page is asked about."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.data: list[str] = []
        self.html = report.page.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.data if self.open[-1:] == ["script"] else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    study = make_study(tmp_path_factory.mktemp("studies") / "hippo", folds=(0, 1))
    start_trial(study, make_spec("cps", budget=0.25), seconds=12)
    broken = study.add(make_spec("pgps", budget=0.25))
    broken.begin_attempt(make_header())
    broken.fail(attempt=0, reason=TEXT_WITH_MARKUP)
    start_trial(study, make_spec("rpss", budget=0.25), seconds=7).fail(
        attempt=0, reason="out of memory", state=TrialState.INFEASIBLE
    )
    return study


# Of the whole package, so that nothing heavy is overlooked.
VERB = """
import importlib, pkgutil, sys
import analysis
for module in pkgutil.walk_packages(analysis.__path__, "analysis."):
    importlib.import_module(module.name)
from study.__main__ import main
assert main(["report", sys.argv[1]]) == 0
print(*{name.partition(".")[0] for name in sys.modules})
"""


@pytest.fixture(scope="module")
def printed(study: Ledger) -> list[str]:
    """What the verb printed as it wrote a whole report; the last line is what it had loaded."""
    words = [sys.executable, "-c", VERB, str(study.root)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def report(study: Ledger, printed: list[str]) -> Report:
    folder = study.root / "report"
    figures = tuple(sorted((folder / "figures").glob("*.png")))
    return Report(folder=folder, page=folder / "report.html", figures=figures, missing=(), trials=pd.DataFrame())


@pytest.fixture(scope="module")
def page(report: Report) -> PageReader:
    return PageReader(report)


def test_figures_and_tables_have_three_formats_and_the_verb_names_plots_and_page(
    printed: list[str], report: Report
) -> None:
    figures = {path.stem for path in (report.folder / "figures").iterdir()}
    assert {"pareto_dice_runtime", "pareto_dice_voxels"} <= figures
    for stem, ending in itertools.product(figures, FIGURE_FORMATS):
        assert (report.folder / "figures" / f"{stem}.{ending}").read_bytes().startswith(MAGIC[ending])
    tables = {path.stem for path in (report.folder / "tables").glob("*.md")}
    assert {"pareto_dice_runtime", "trials"} <= tables
    for stem in tables:
        latex = (report.folder / "tables" / f"{stem}.tex").read_text()
        assert not pd.read_csv(report.folder / "tables" / f"{stem}.csv").empty
        assert latex.count("\\begin{") == latex.count("\\end{")
        assert f"\\label{{tab:{stem}}}" in latex
        assert len((report.folder / "tables" / f"{stem}.md").read_text().splitlines()) >= 3
    assert printed[0] == "19 trials: 16 finished, 1 interrupted, 1 infeasible, 1 failed"
    plots = [str(report.folder / "figures" / f"pareto_dice_{cost}.png") for cost in ("runtime", "voxels")]
    assert printed[-4:-1] == [*plots, str(report.page)]


def test_a_report_loads_neither_torch_nor_nnunet_nor_ray(printed: list[str]) -> None:
    loaded = set(printed[-1].split())
    assert {"pandas", "matplotlib", "moocore", "analysis"} <= loaded
    assert not {"torch", "nnunetv2", "ray"} & loaded


def test_the_data_hold_every_trial_and_column_and_read_back_the_same(
    study: Ledger, report: Report, tmp_path: Path
) -> None:
    frame = gather([study.root]).tables.trials
    stored = pd.read_parquet(report.folder / "data" / "trials.parquet")
    pd.testing.assert_frame_equal(stored, frame)
    assert {name: str(dtype) for name, dtype in stored.dtypes.items()} == {c.name: c.dtype for c in TRIAL_COLUMNS}
    text = pd.read_csv(report.folder / "tables" / "trials.csv")
    assert text["trial_id"].tolist() == frame["trial_id"].tolist()
    assert text["co2_kg"].sum() == pytest.approx(frame["co2_kg"].sum())
    # A report of the report has the same numbers.
    again, name = quick_report([report.folder], tmp_path / "again"), "tables/pareto_dice_runtime.csv"
    assert (again.folder / name).read_bytes() == (report.folder / name).read_bytes()


def test_only_files_of_an_earlier_report_are_taken_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    quick_report([make_study(tmp_path / "study").root], out)
    mine = [out / "figures" / "mine.png", out / "notes.md", out / "trials.csv", tmp_path / "outside.png"]
    for path in mine:
        path.write_text("mine")
    listed = json.loads((out / "files.json").read_text())
    (out / "files.json").write_text(json.dumps([*listed, "../outside.png", "/etc/hosts", 7]))
    bare_report([Ledger.create(tmp_path / "empty").root], out)
    assert list((out / "figures").iterdir()) == mine[:1]
    assert {path.name for path in (out / "tables").iterdir()} == {"trials.csv", "trials.md", "trials.tex"}
    assert all(path.exists() for path in mine)


def test_files_of_several_datasets_do_not_meet(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for dataset in ("Dataset001_A", "Dataset002_B"):
        finish_trial(study, make_spec(dataset=dataset), dice=0.8, seconds=30)
    results = gather([study.root])
    stems = [item.stem for section in CHAPTERS for item in section(results).items]
    assert len(stems) == len(set(stems))
    assert {"pareto_dice_runtime_Dataset001_A", "pareto_dice_runtime_Dataset002_B"} <= set(stems)
    assert {"trials", "report"}.isdisjoint(stems)


@pytest.mark.cluster
def test_drawing_in_several_processes_gives_the_same_items(study: Ledger) -> None:
    items = fronts(gather([study.root])).items[-3:]
    for here, elsewhere in zip(draw_all(items), draw_all(items, processes=2), strict=True):
        assert list(here.files) == list(elsewhere.files)
        assert all(content == elsewhere.files[name] for name, content in here.files.items() if "tables/" in name)
        for one, other in ((here.wide, elsewhere.wide), (here.narrow, elsewhere.narrow)):
            assert re.findall(r"<(\w+)", one) == re.findall(r"<(\w+)", other)
            assert re.findall(r"<text[^>]*>([^<]*)", one) == re.findall(r"<text[^>]*>([^<]*)", other)


@pytest.mark.torture
def test_drawing_in_several_processes_gives_the_same_bytes(study: Ledger) -> None:
    items = fronts(gather([study.root])).items[-3:]
    assert draw_all(items) == draw_all(items, processes=2)


@pytest.mark.cluster
def test_the_same_study_gives_the_same_files(study: Ledger, tmp_path: Path) -> None:
    first, second = (quick_report([study.root], tmp_path / name) for name in ("a", "b"))
    for path in first.folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (second.folder / path.relative_to(first.folder)).read_bytes(), path.name


def test_the_page_loads_nothing_and_forbids_itself_to(page: PageReader) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "img", "object")
        assert "src" not in attributes
    [policy] = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"@import|url\((?!#)|https?://(?!www\.w3\.org/2000/svg)", page.html)


def test_every_link_leads_to_a_place_on_the_page_or_a_file_beside_it(report: Report, page: PageReader) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"] for attributes in page.all("a")}
    assert {link for link in links if link.startswith("#") and link[1:] not in ids} == set()
    files = {link for link in links if not link.startswith("#")}
    assert {"figures/pareto_dice_runtime.pdf", "tables/trials.csv", "data/schema.json"} <= files
    assert [name for name in files if not (report.folder / name).is_file()] == []


def test_the_page_can_be_read_by_ear(page: PageReader) -> None:
    figures = page.all("svg")
    assert len(figures) >= 4
    assert all(figure["role"] == "img" and len(figure["aria-label"]) > 40 for figure in figures)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [len(page.all(tag)) for tag in ("header", "nav", "main", "footer", "dialog")] == [1, 1, 1, 1, 1]
    assert page.all("html")[0]["lang"] == "en"


def test_text_from_a_study_is_escaped(report: Report, page: PageReader) -> None:
    assert TEXT_WITH_MARKUP in page.text
    assert len(page.data) == 2
    cards = json.loads(page.data[0])
    assert TEXT_WITH_MARKUP in cards["trials"][make_spec("pgps", budget=0.25).trial_id][0]["events"][-1][1]
    assert "&lt;/script&gt; \\| &amp; gone" in (report.folder / "tables" / "trials.md").read_text()
    latex = (report.folder / "tables" / "trials.tex").read_text()
    assert r"$<$script$>$alert('no')$<$/script$>$ \textbar{} \& gone" in latex


def test_the_page_says_what_it_rests_on_and_what_is_in_no_figure(page: PageReader) -> None:
    for expected in (
        "19 trials: 16 finished, 1 interrupted, 1 infeasible, 1 failed",
        "8 with a finished trial",
        "Folds 0, 1",
        "Seeds 0",
        "Hardware Example CPU",
        "codecarbon 3.3.2: cpu estimated",
        "Estimated parts are models, not readings: CPU, RAM.",
        "FRA grid: 0.05 kg CO₂ per kWh",
        "torch 2.15.0",
        "29.0 s in trials without a result",
        "1 trial failed: in the table with the reason, in no figure.",
        "1 trial infeasible: in the table",
        "1 trial interrupted and not finished",
    ):
        assert expected in page.text


def test_every_trial_and_every_point_has_a_card(study: Ledger, page: PageReader) -> None:
    cards, rows = json.loads(page.data[0]), {attributes.get("id") for attributes in page.all("tr")}
    ids = {folder.trial_id for folder in study.trials()}
    assert ids <= set(cards["trials"]) and {f"trial-{trial_id}" for trial_id in ids} <= rows
    points = {group["data-card"] for group in page.all("g") if group.get("class") == "point"}
    assert len(points) == 8 and points <= set(cards["configurations"])


def test_every_colour_of_the_page_is_defined_for_light_and_dark(page: PageReader) -> None:
    for name in set(re.findall(r"var\(--([a-z-]+)\)", page.html)):
        assert stylesheet().count(f"--{name}:") == 2


def test_a_configuration_that_lacks_a_fold_and_a_trial_of_several_attempts_are_told(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", folds=(0, 1))
    folder = start_trial(study, make_spec("pgps", budget=0.25), seconds=10)
    folder.begin_attempt(make_header(1, resumed_from_iteration=0))
    finish_trial(study, make_spec("cps", budget=0.25), dice=0.7, seconds=10)
    text = PageReader(bare_report([study.root])).text
    assert "Folds 0, 1; 1 configuration not finished on all of them" in text
    assert "Attempts 19 for 18 trials: 1 resumed or tried again" in text
    assert "lost to interruptions" in text


def test_several_studies_are_one_page(tmp_path: Path, study: Ledger) -> None:
    other = Ledger.create(tmp_path / "other")
    finish_trial(other, make_spec(seed=1), dice=0.8, seconds=30, cpu_name="Another CPU")
    report = quick_report([study.root, other.root], tmp_path / "both")
    assert set(report.trials["study"]) == {"hippo", "other"}
    text = PageReader(report).text
    assert "Study report: hippo, other" in text
    assert "Measured on different hardware" in text


def test_unmeasured_carbon_is_explained(tmp_path: Path) -> None:
    report = bare_report([make_study(tmp_path / "study", measured=False).root])
    reason = next(sentence for sentence in report.missing if "CO₂" in sentence)
    assert "not measured" in reason and "cpu unmeasured" in reason
    assert reason in PageReader(report).text


def a_failed(study: Ledger, state: TrialState = TrialState.FAILED) -> None:
    for scheme in ("cps", "pgps"):
        start_trial(study, make_spec(scheme), seconds=3).fail(attempt=0, reason=f"{scheme} broke", state=state)


def without_dice(study: Ledger) -> None:
    finish_trial(study, make_spec(), dice=float("nan"), seconds=30)


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (lambda study: None, ["no trials yet"]),
        (a_failed, ["No trial has finished", "2 trials failed: in the table with the reason", "cps broke"]),
        (partial(a_failed, state=TrialState.INFEASIBLE), ["2 trials infeasible: in the table with the reason"]),
        (without_dice, ["1 trial unreadable: in the table with the reason"]),
    ],
)
def test_a_study_without_a_result_is_a_page_of_reasons(
    tmp_path: Path, fill: Callable[[Ledger], None], words: list[str]
) -> None:
    study = Ledger.create(tmp_path / "study")
    fill(study)
    report = write_report([study.root])
    page = PageReader(report)
    assert report.pareto_figures == () and page.all("svg") == [] and report.missing
    assert [expected for expected in words if expected not in page.text] == []


def test_a_study_in_progress_says_so_and_an_unreadable_trial_is_a_row_with_the_reason(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec("cps"), dice=0.8, seconds=60)
    (study.add(make_spec(seed=1)).path / "spec.json").write_text("{")
    with start_trial(study, make_spec("pgps"), seconds=3).locked():
        report = bare_report([study.root], country="DEU")
    text = PageReader(report).text
    assert "1 trial still running: this is a study in progress" in text
    assert "1 trial unreadable: in the table with the reason" in text
    assert "DEU grid" in text and "FRA grid" not in text


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("absent", LedgerError, "does not exist"),
        ("", LedgerError, "not a study folder"),
        ("newer", LedgerError, "update pgps-study"),
        ("study", InvalidInputError, "XXX"),
    ],
)
def test_what_is_no_study_leaves_nothing_behind(tmp_path: Path, name: str, error: type[StudyError], words: str) -> None:
    Ledger.create(tmp_path / "study")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "study.json").write_text('{"schema": 99}')
    with pytest.raises(error, match=words):
        bare_report([tmp_path / name], tmp_path / "out", country="XXX" if name == "study" else None)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_clear_line_before_anything_is_drawn(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    (tmp_path / "file").write_text("here")
    with pytest.raises(MachineError, match="name another --out"):
        write_report([study.root], tmp_path / "file" / "report", sections=[lambda results: pytest.fail("drawn")])

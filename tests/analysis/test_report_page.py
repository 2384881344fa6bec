"""The page of a report: valid, self-contained, escaped, and it says what it rests on and what is missing."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ledgers import finish_trial, make_header, make_spec, make_study, start_trial
from reports import no_section, quick_report

from analysis.page.report import Report, stylesheet, write_report
from study.store.ledger import Ledger
from study.store.trial_folder import TrialState

# Elements that HTML closes by itself.
VOID = {"meta", "br", "hr", "img", "link", "input"}
TEXT_WITH_MARKUP = "<script>alert('no')</script> | & gone"


class PageReader(HTMLParser):
    """Checks that elements nest, and collects what a page is asked about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.data: list[str] = []
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
        (self.data if self.open[-1:] == ["script"] else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(report: Report) -> PageReader:
    return PageReader(report.page.read_text(encoding="utf-8"))


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


@pytest.fixture(scope="module")
def report(study: Ledger) -> Report:
    return write_report([study.root])


@pytest.fixture(scope="module")
def page(report: Report) -> PageReader:
    return page_of(report)


def test_the_page_loads_nothing_and_forbids_itself_to(report: Report, page: PageReader) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "img", "object")
        assert "src" not in attributes
    policies = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0] is not None
    assert "default-src 'none'" in policies[0]
    text = report.page.read_text(encoding="utf-8")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_every_link_leads_to_a_place_on_the_page_or_a_file_beside_it(report: Report, page: PageReader) -> None:
    ids = {attributes.get("id") for _, attributes in page.tags}
    links = {attributes["href"] or "" for attributes in page.all("a")}
    assert {link for link in links if link.startswith("#") and link[1:] not in ids} == set()
    files = {link for link in links if not link.startswith("#")}
    assert {"figures/pareto_dice_runtime.pdf", "tables/trials.csv", "data/schema.json"} <= files
    assert [name for name in files if not (report.folder / name).is_file()] == []


def test_ids_on_the_page_are_unique(page: PageReader) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert ids
    assert len(ids) == len(set(ids))


def test_figures_have_words_for_those_who_do_not_see_them(page: PageReader) -> None:
    figures = page.all("svg")
    assert len(figures) >= 4
    assert all(figure["role"] == "img" and len(figure["aria-label"] or "") > 40 for figure in figures)


def test_headings_are_one_h1_and_skip_no_level(page: PageReader) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_landmarks(page: PageReader) -> None:
    assert [page.count(tag) for tag in ("header", "nav", "main", "footer", "dialog")] == [1, 1, 1, 1, 1]
    assert page.all("html")[0]["lang"] == "en"


def test_text_from_a_study_is_escaped(report: Report, page: PageReader) -> None:
    assert TEXT_WITH_MARKUP in page.text
    assert len(page.data) == 2
    cards = json.loads(page.data[0])
    assert TEXT_WITH_MARKUP in cards["trials"][make_spec("pgps", budget=0.25).trial_id][0]["events"][-1][1]
    assert "&lt;/script&gt; \\| &amp; gone" in (report.folder / "tables" / "trials.md").read_text()
    assert (
        r"$<$script$>$alert('no')$<$/script$>$ \textbar{} \& gone"
        in (report.folder / "tables" / "trials.tex").read_text()
    )


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


def test_a_configuration_that_lacks_a_fold_and_a_trial_of_several_attempts_are_told(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", folds=(0, 1))
    folder = start_trial(study, make_spec("pgps", budget=0.25), seconds=10)
    folder.begin_attempt(make_header(1, resumed_from_iteration=0))
    finish_trial(study, make_spec("cps", budget=0.25), dice=0.7, seconds=10)
    text = page_of(write_report([study.root], sections=[no_section])).text
    assert "Folds 0, 1; 1 configuration not finished on all of them" in text
    assert "Attempts 19 for 18 trials: 1 resumed or tried again" in text
    assert "lost to interruptions" in text


def test_every_trial_has_a_row_and_a_card(study: Ledger, page: PageReader) -> None:
    rows = {attributes.get("id") for attributes in page.all("tr")}
    cards = json.loads(page.data[0])["trials"]
    for folder in study.trials():
        assert f"trial-{folder.trial_id}" in rows
        assert folder.trial_id in cards


def test_every_point_of_a_figure_has_a_card(report: Report, page: PageReader) -> None:
    known = set(json.loads(page.data[0])["configurations"])
    points = [group["data-card"] for group in page.all("g") if group.get("class") == "point"]
    assert set(points) <= known
    assert len(set(points)) == 8


def test_every_colour_of_the_page_is_defined_for_light_and_dark(report: Report) -> None:
    css = stylesheet()
    for name in set(re.findall(r"var\(--([a-z-]+)\)", report.page.read_text(encoding="utf-8"))):
        assert css.count(f"--{name}:") == 2


def test_another_grid_is_said(study: Ledger, tmp_path: Path) -> None:
    text = page_of(write_report([study.root], tmp_path / "out", country="POL", sections=[no_section])).text
    assert "POL grid" in text
    assert "FRA grid" not in text


def test_several_studies_are_one_page(tmp_path: Path, study: Ledger) -> None:
    other = Ledger.create(tmp_path / "other")
    finish_trial(other, make_spec(seed=1), dice=0.8, seconds=30, cpu_name="Another CPU")
    report = quick_report([study.root, other.root], tmp_path / "both")
    assert set(report.trials["study"]) == {"hippo", "other"}
    text = page_of(report).text
    assert "Study report: hippo, other" in text
    assert "Measured on different hardware" in text


def test_the_same_study_gives_the_same_page(study: Ledger, tmp_path: Path) -> None:
    first, second = (quick_report([study.root], tmp_path / name) for name in ("a", "b"))
    for path in sorted(first.folder.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (second.folder / path.relative_to(first.folder)).read_bytes(), path.name

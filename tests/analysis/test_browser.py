"""The page in a real Chromium: tooltips, cards, sorting, filters, phone, dark and print, all without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from browser import chromium, opened
from ledgers import make_header, make_spec, make_study, start_trial
from playwright.sync_api import Browser, Locator, Page
from reports import only, quick_report

from analysis.page.papers import papers
from analysis.page.report import Report, write_report
from analysis.page.sections import certainty, costs, effects
from analysis.statistics.study_results import StudyResults, gather

POINT = "figure > svg.wide .point"
SHOWN = "node => getComputedStyle(node).display !== 'none'"
ROWS = "all => all.map(row => [...row.cells].map(cell => cell.textContent))"
CARD = "document.activeElement.dataset.card"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies") / "hippo"
    study = make_study(root, folds=(0, 1), budgets=(1.0, 0.5), n_cases=4, curve=True)
    broken = study.add(make_spec("pgps", budget=0.25))
    broken.begin_attempt(make_header())
    broken.fail(attempt=0, reason="</script><b>no</b>")
    start_trial(study, make_spec("cps", budget=0.25), seconds=12)
    return root


@pytest.fixture(scope="module")
def report(root: Path) -> Report:
    return quick_report([root])


@pytest.fixture(scope="module")
def results(root: Path, report: Report) -> StudyResults:
    return gather([root])


@pytest.fixture
def page(browser: Browser, report: Report) -> Iterator[Page]:
    with opened(browser, report.page) as page:
        yield page


@pytest.fixture(scope="module")
def point(results: StudyResults) -> pd.Series:
    points = results.points
    return points[(points["method"] == "performance") & (points["budget"] == 1)].iloc[0]


def mark_of(page: Page, point: pd.Series) -> Locator:
    return page.locator(f"{POINT}[data-card='{point['point_id']}']")


def test_hover_tells_curriculum_stages_dice_and_cost(page: Page, point: pd.Series) -> None:
    assert page.locator("#tip").is_hidden()
    mark_of(page, point).hover()
    text = page.locator("#tip").inner_text()
    stages = json.loads(point["stage_table"])
    for expected in (
        point["summary"],
        f"{point['dice']:.4f}",
        f"{point['dice_low']:.4f} to {point['dice_high']:.4f}",
        f"{point['runtime_seconds']:.1f} s",
        f"1: {point['dice'] + 0.02:.4f}, 2: {point['dice'] - 0.02:.4f}",
        "Folds used",
        *("×".join(map(str, stages[place]["patch_size"])) for place in (0, -1)),
    ):
        assert expected in text
    page.mouse.move(0, 0)
    assert page.locator("#tip").is_hidden()


def test_a_figure_is_one_tab_stop_and_arrows_reach_every_point_in_order(page: Page, results: StudyResults) -> None:
    stops = page.locator(f"{POINT}[tabindex='0']")
    assert stops.count() == 1
    stops.focus()
    page.keyboard.press("Home")
    seen = [page.evaluate(CARD)]
    for _ in range(len(results.points) + 2):
        page.keyboard.press("ArrowRight")
        seen.append(page.evaluate(CARD))
    points = results.points.set_index("point_id")
    assert set(seen) == set(points.index)
    assert list(points["runtime_seconds"][list(dict.fromkeys(seen))]) == sorted(points["runtime_seconds"])
    label, last = page.evaluate("document.activeElement.getAttribute('aria-label')"), points.loc[seen[-1]]
    assert label.startswith(last["summary"])
    assert f"Dice {last['dice']:.4f}" in label
    assert last["summary"] in page.locator("#tip").inner_text()
    assert page.evaluate("document.activeElement.getAttribute('role')") == "button"


def test_enter_opens_the_card_escape_closes_it_and_focus_returns(page: Page, point: pd.Series) -> None:
    mark_of(page, point).focus()
    page.keyboard.press("Enter")
    card = page.locator("dialog#card")
    assert card.locator("h2").inner_text() == point["summary"]
    for expected in (*point["trial_ids"].split(), "nnUNetv2_predict"):
        assert expected in card.inner_text()
    assert card.locator("svg.curve").count() == 2
    page.keyboard.press("Escape")
    assert card.is_hidden()
    assert page.evaluate(CARD) == point["point_id"]


def test_a_click_opens_the_card_and_it_leads_to_its_trials_and_back(page: Page, point: pd.Series) -> None:
    mark_of(page, point).click()
    trial = point["trial_ids"].split()[0]
    card = page.locator("dialog#card")
    card.locator(f"a[data-card='{trial}']").first.click()
    assert card.locator("h2").inner_text() == f"Trial {trial}"
    for expected in ("Final validation", "20.0 s", "What happened", "Stage table", f"trials/{trial}/results"):
        assert expected in card.inner_text()
    card.get_by_role("button", name="Back").click()
    assert card.locator("h2").inner_text() == point["summary"]
    card.get_by_role("button", name="Close").click()
    assert card.is_hidden()


def test_a_failed_trial_has_a_card_with_the_reason_as_plain_text(page: Page) -> None:
    page.locator("#trials > summary").click()
    page.locator(f"#trials a[data-card='{make_spec('pgps', budget=0.25).trial_id}']").click()
    card = page.locator("dialog#card")
    assert "</script><b>no</b>" in card.inner_text()
    assert card.locator("b").count() == 0
    assert "nnUNetv2_predict" not in card.inner_text()


def test_the_command_can_be_copied(browser: Browser, report: Report, point: pd.Series) -> None:
    with opened(browser, report.page, permissions=["clipboard-read", "clipboard-write"]) as page:
        mark_of(page, point).click()
        dialog = page.locator("dialog")
        dialog.get_by_role("button", name="Copy").first.click()
        assert dialog.get_by_role("button", name="Copied").is_visible()
        assert page.evaluate("getSelection().toString()") == dialog.locator("code").first.inner_text()


def test_tables_sort_by_number_with_missing_values_last_and_keep_ties_in_order(page: Page) -> None:
    def cells(heading: Locator) -> list[str]:
        column = heading.evaluate("heading => heading.cellIndex")
        return [row[column] for row in page.eval_on_selector_all("#trials tbody tr", ROWS)]

    page.locator("#trials > summary").click()
    before = page.eval_on_selector_all("#trials tbody tr", ROWS)
    fold = page.locator("#trials thead th").filter(has_text="Fold")
    column = fold.evaluate("heading => heading.cellIndex")
    fold.get_by_role("button").click()
    ties = sorted(before, key=lambda row: int(row[column]))
    assert page.eval_on_selector_all("#trials tbody tr", ROWS) == ties
    dice = page.locator("#trials thead th").filter(has_text=re.compile("^Dice"))
    for order, reverse in (("ascending", False), ("descending", True)):
        dice.get_by_role("button").focus()
        page.keyboard.press("Enter")
        assert dice.get_attribute("aria-sort") == order and fold.get_attribute("aria-sort") is None
        values = cells(dice)
        assert values[-2:] == ["–", "–"]
        numbers = [float(value) for value in values[:-2]]
        assert numbers == sorted(numbers, reverse=reverse) and len(numbers) == 32


def hide(page: Page) -> None:
    for label in ("PGPS", "50%"):
        page.get_by_label(label, exact=True).uncheck()


def test_filters_hide_points_and_rows(page: Page, results: StudyResults) -> None:
    points, trials = results.points, results.tables.trials
    hide(page)
    kept = points[(points["method"] != "pgps") & (points["budget"] == 1)]
    shown = page.eval_on_selector_all(POINT, f"all => all.filter({SHOWN}).map(mark => mark.dataset.card)")
    assert set(shown) == set(kept["point_id"])
    rows = page.eval_on_selector_all("#trials tbody tr", f"all => all.filter({SHOWN}).length")
    assert rows == int(((trials["method"] != "pgps") & (trials["budget"] != 0.5)).sum())
    assert page.locator(f"{POINT}[tabindex='0']").evaluate(SHOWN)
    for label in ("PGPS", "50%"):
        page.get_by_label(label, exact=True).check()
    assert page.locator(".filtered").count() == 0


@pytest.mark.cluster
def test_filters_hide_every_mark_of_hidden_points_in_every_figure(
    browser: Browser, root: Path, results: StudyResults, tmp_path: Path
) -> None:
    points = results.points
    kept = set(points.loc[(points["method"] != "pgps") & (points["budget"] == 1), "point_id"])
    figures = {
        *("dice_and_cost_by_setting", "learning_curves", "cost_by_cause", "hypervolume_over_hours"),
        *("dice_by_budget", "dice_difference", "dice_per_case"),
    }
    chapters = [only(chapter, *figures, "cost_by_stage") for chapter in (papers, costs, certainty, effects)]
    report = write_report([root], tmp_path / "report", None, sections=chapters)
    with opened(browser, report.page) as page:
        hide(page)
        told = f"all => all.map(mark => [mark.closest('article, details[id]').id, mark.dataset.of, ({SHOWN})(mark)])"
        marks = page.eval_on_selector_all("svg.wide [data-of]", told)
        assert {stem for stem, _, shown in marks if shown} == {stem for stem, _, shown in marks if not shown} == figures
        # A label, bar or line of several points stays while one of them does.
        assert all(shown == bool(kept.intersection(ids.split("-"))) for _, ids, shown in marks)
        rows = f"all => all.map(row => [row.cells[0].textContent, ({SHOWN})(row)])"
        for stem in ("cost_by_cause", "cost_by_stage"):
            groups = page.eval_on_selector_all(f"#{stem} tbody tr", rows)
            assert groups
            assert all(shown != (group.startswith("PGPS,") or "50%" in group) for group, shown in groups)


def test_everything_that_reacts_is_reached_by_tab_and_focus_can_be_seen(page: Page) -> None:
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href], button, input, summary, [tabindex=\"0\"]')]"
        ".filter(e => e.checkVisibility() && !e.closest('dialog')).length"
    )
    page.evaluate("window.reached = new Set(); addEventListener('focusin', e => window.reached.add(e.target))")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for step in range(wanted):
        page.keyboard.press("Tab")
        assert step or page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert page.evaluate("window.reached.size") == wanted


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(browser: Browser, report: Report, width: int) -> None:
    with opened(browser, report.page, width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("svg.narrow").first.is_visible() == (width == 390)
        assert page.locator("svg.wide").first.is_visible() == (width != 390)
        page.locator("#trials > summary").click()
        page.locator("#trials a[data-card]").first.click()
        box = page.locator("dialog#card").bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
        assert page.evaluate("card.scrollWidth <= card.clientWidth")


def test_dark_and_light_and_paper(browser: Browser, report: Report) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, report.page, color_scheme="dark") as page:
        mark = page.locator(f"{POINT} use").first
        assert page.evaluate(background) == "rgb(20, 24, 29)"
        dark = mark.evaluate("use => getComputedStyle(use).fill")
        page.emulate_media(color_scheme="light")
        assert page.evaluate(background) == "rgb(255, 255, 255)"
        assert mark.evaluate("use => getComputedStyle(use).fill") != dark
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate(background) == "rgb(255, 255, 255)"
        assert page.locator("#filters").is_hidden()
        assert page.locator("#trials .scroll").evaluate("box => box.scrollHeight <= box.clientHeight + 1")


def test_without_script_everything_can_be_read(browser: Browser, report: Report) -> None:
    with opened(browser, report.page, java_script_enabled=False) as page:
        link = page.locator("#pareto_dice_runtime a[data-card]").first
        page.locator("#pareto_dice_runtime summary").click()
        target = link.get_attribute("href") or "?"
        link.click()
        assert page.url.endswith(target) and page.locator(target).is_visible()
        assert page.locator("figure > svg[role=img]").first.is_visible()


@pytest.mark.cluster
def test_on_a_phone_a_whole_report_is_a_page_of_bearable_length(browser: Browser, tmp_path: Path) -> None:
    study = make_study(tmp_path / "hippo", folds=(0, 1), budgets=(1.0, 0.5), n_cases=52, curve=True)
    with opened(browser, write_report([study.root]).page, width=390) as page:
        assert page.evaluate("document.documentElement.scrollHeight") <= 7_000
        assert page.locator("#answer svg.narrow").first.is_visible()

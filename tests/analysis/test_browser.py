"""The page in a real Chromium: tooltips, cards, sorting, filters, phone, dark and print, all without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from browser import chromium, opened
from ledgers import make_header, make_spec, make_study, start_trial
from playwright.sync_api import Browser, Locator, Page
from reports import quick_report

from analysis.figures.exhibits import Section
from analysis.figures.style import PAINTS, Paint
from analysis.page.effects import effects
from analysis.page.report import Report, write_report
from analysis.statistics.evidence import Evidence, gather

POINT = "figure > svg.wide .point"
SHOWN = "point => getComputedStyle(point).display !== 'none'"
FOCUSED = "document.activeElement.outerHTML.slice(0, 200)"


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
def evidence(root: Path, report: Report) -> Evidence:
    return gather([root])


@pytest.fixture
def page(browser: Browser, report: Report) -> Iterator[Page]:
    with opened(browser, report.page) as page:
        yield page


def point_of(page: Page, point: pd.Series) -> Locator:
    return page.locator(f"{POINT}[data-card='{point['point_id']}']")


def one_point(evidence: Evidence) -> pd.Series:
    points = evidence.points
    return points[(points["method"] == "performance") & (points["budget"] == 1)].iloc[0]


def test_hover_tells_curriculum_stages_dice_and_cost(page: Page, evidence: Evidence) -> None:
    point = one_point(evidence)
    assert page.locator("#tip").is_hidden()
    point_of(page, point).hover()
    text = page.locator("#tip").inner_text()
    for expected in (
        point["summary"],
        f"{point['dice']:.4f}",
        f"{point['dice_low']:.4f} to {point['dice_high']:.4f}",
        f"{point['runtime_seconds']:.1f} s",
        f"1: {point['dice'] + 0.02:.4f}, 2: {point['dice'] - 0.02:.4f}",
        "Folds used",
    ):
        assert expected in text
    stages = json.loads(point["stage_table"])
    assert "×".join(map(str, stages[0]["patch_size"])) in text
    assert "×".join(map(str, stages[-1]["patch_size"])) in text
    page.mouse.move(0, 0)
    assert page.locator("#tip").is_hidden()


def test_a_figure_is_one_tab_stop_and_arrows_reach_every_point_in_order(page: Page, evidence: Evidence) -> None:
    stops = page.locator(f"{POINT}[tabindex='0']")
    assert stops.count() == 1
    stops.focus()
    page.keyboard.press("Home")
    seen = [page.evaluate("document.activeElement.dataset.card")]
    for _ in range(len(evidence.points) + 2):
        page.keyboard.press("ArrowRight")
        seen.append(page.evaluate("document.activeElement.dataset.card"))
    seconds = evidence.points.set_index("point_id")["runtime_seconds"]
    assert set(seen) == set(seconds.index)
    assert list(seconds[list(dict.fromkeys(seen))]) == sorted(seconds)
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    last = evidence.points.set_index("point_id").loc[seen[-1]]
    assert label.startswith(last["summary"])
    assert f"Dice {last['dice']:.4f}" in label
    assert last["summary"] in page.locator("#tip").inner_text()
    assert page.evaluate("document.activeElement.getAttribute('role')") == "button"


def test_enter_opens_the_card_escape_closes_it_and_focus_returns(page: Page, evidence: Evidence) -> None:
    point = one_point(evidence)
    point_of(page, point).focus()
    page.keyboard.press("Enter")
    card = page.locator("dialog#card")
    assert card.is_visible()
    assert card.locator("h2").inner_text() == point["summary"]
    text = card.inner_text()
    for trial_id in point["trial_ids"].split():
        assert trial_id in text
    assert "nnUNetv2_predict" in text
    assert card.locator("svg.curve").count() == 2
    page.keyboard.press("Escape")
    assert card.is_hidden()
    assert page.evaluate("document.activeElement.dataset.card") == point["point_id"]


def test_a_click_opens_the_card_and_it_leads_to_its_trials_and_back(page: Page, evidence: Evidence) -> None:
    point = one_point(evidence)
    point_of(page, point).click()
    trial = point["trial_ids"].split()[0]
    card = page.locator("dialog#card")
    card.locator(f"a[data-card='{trial}']").first.click()
    assert card.locator("h2").inner_text() == f"Trial {trial}"
    text = card.inner_text()
    for expected in ("Final validation", "20.0 s", "What happened", "Stage table", f"trials/{trial}/results"):
        assert expected in text
    card.get_by_role("button", name="Back").click()
    assert card.locator("h2").inner_text() == point["summary"]
    card.get_by_role("button", name="Close").click()
    assert card.is_hidden()


def test_a_failed_trial_has_a_card_with_the_reason_as_plain_text(page: Page) -> None:
    trial = make_spec("pgps", budget=0.25).trial_id
    page.locator(f"#trials a[data-card='{trial}']").click()
    card = page.locator("dialog#card")
    assert "</script><b>no</b>" in card.inner_text()
    assert card.locator("b").count() == 0
    assert "nnUNetv2_predict" not in card.inner_text()


def test_the_command_can_be_copied(browser: Browser, report: Report, evidence: Evidence) -> None:
    with opened(browser, report.page, permissions=["clipboard-read", "clipboard-write"]) as page:
        point_of(page, one_point(evidence)).click()
        page.get_by_role("button", name="Copy").click()
        assert page.get_by_role("button", name="Copied").is_visible()
        assert page.evaluate("getSelection().toString()") == page.locator("dialog code").inner_text()


def test_tables_sort_by_number_with_missing_values_last(page: Page) -> None:
    heading = page.locator("#trials thead th").filter(has_text=re.compile("^Dice"))
    column = heading.evaluate("heading => heading.cellIndex")
    cells = f"[...document.querySelectorAll('#trials tbody tr')].map(row => row.cells[{column}].textContent)"
    button = heading.get_by_role("button")
    for order, reverse in (("ascending", False), ("descending", True)):
        button.focus()
        page.keyboard.press("Enter")
        assert heading.get_attribute("aria-sort") == order
        values = page.evaluate(cells)
        assert values[-2:] == ["–", "–"]
        numbers = [float(value) for value in values[:-2]]
        assert numbers == sorted(numbers, reverse=reverse)
        assert len(numbers) == 32
    page.locator("#trials thead th").first.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") is None


def test_sorting_keeps_the_order_of_ties(page: Page) -> None:
    def rows() -> list[list[str]]:
        return page.evaluate(
            "[...document.querySelectorAll('#trials tbody tr')].map(row => [...row.cells].map(c => c.textContent))"
        )

    before = rows()
    column = page.locator("#trials thead th").filter(has_text="Fold").evaluate("heading => heading.cellIndex")
    page.locator("#trials thead th").filter(has_text="Fold").get_by_role("button").click()
    assert rows() == sorted(before, key=lambda cells: int(cells[column]))


def test_filters_hide_points_and_rows(page: Page, evidence: Evidence) -> None:
    points = evidence.points
    page.get_by_label("PGPS", exact=True).uncheck()
    page.get_by_label("50%", exact=True).uncheck()
    kept = points[(points["method"] != "pgps") & (points["budget"] == 1)]
    shown = page.eval_on_selector_all(
        POINT, "all => all.filter(isShown).map(p => p.dataset.card)".replace("isShown", SHOWN)
    )
    assert set(shown) == set(kept["point_id"])
    # Bars, labels and key go with their points; a label of several stays while one of them does.
    marks = page.eval_on_selector_all(
        "svg [data-of]", "all => all.map(m => [m.dataset.of, getComputedStyle(m).display !== 'none'])"
    )
    named = [(re.findall(r"[0-9a-f]{12}", name), visible) for name, visible in marks]
    assert any(not visible for _, visible in named)
    assert all(
        visible == bool({*ids} & {*kept["point_id"]}) for ids, visible in named if {*ids} & {*points["point_id"]}
    )
    rows = page.eval_on_selector_all("#trials tbody tr", f"all => all.filter({SHOWN}).length")
    trials = evidence.tables.trials
    assert rows == int(((trials["method"] != "pgps") & (trials["budget"] != 0.5)).sum())
    assert page.locator(f"{POINT}[tabindex='0']").evaluate(SHOWN)
    page.get_by_label("PGPS", exact=True).check()
    page.get_by_label("50%", exact=True).check()
    assert page.locator(".filtered").count() == 0


def test_filters_hide_bars_and_curves_and_the_rows_of_their_tables(
    browser: Browser, root: Path, tmp_path: Path
) -> None:
    stems = ("learning_curves", "costs", "costs_by_stage")

    def section(evidence: Evidence) -> Section:
        told = effects(evidence)
        return replace(told, exhibits=[one for one in told.exhibits if one.stem in stems])

    def is_kept(group: str) -> bool:
        return not (group.startswith("PGPS,") or "50%" in group)

    report = write_report([root], tmp_path / "report", None, sections=[section])
    with opened(browser, report.page) as page:
        page.get_by_label("PGPS", exact=True).uncheck()
        page.get_by_label("50%", exact=True).uncheck()
        marks = page.eval_on_selector_all(
            "#costs svg.wide g[data-of]", f"all => all.map(g => [g.textContent.trim(), ({SHOWN})(g)])"
        )
        names = [(words, shown) for words, shown in marks if words.endswith("budget")]
        assert len({is_kept(words) for words, _ in names}) == 2
        assert all(shown == is_kept(words) for words, shown in names)
        # Of every bar the name, the amount at its end and the pieces, which have no text.
        share = sum(shown for _, shown in marks) / len(marks)
        assert share == pytest.approx(sum(shown for _, shown in names) / len(names), abs=0.1)
        for stem in stems[1:]:
            rows = page.eval_on_selector_all(
                f"#{stem} tbody tr", f"all => all.map(row => [row.cells[0].textContent, ({SHOWN})(row)])"
            )
            assert rows and all(shown == is_kept(group) for group, shown in rows)
        curves = page.eval_on_selector_all("#learning_curves svg.wide [data-of]", f"all => all.map({SHOWN})")
        assert set(curves) == {True, False}


def test_everything_that_reacts_is_reached_by_tab(page: Page) -> None:
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href], button, input, summary, [tabindex=\"0\"]')]"
        ".filter(e => e.checkVisibility() && !e.closest('dialog')).length"
    )
    page.evaluate("window.reached = new Set(); addEventListener('focusin', e => window.reached.add(e.target))")
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate(FOCUSED)
    for _ in range(wanted):
        page.keyboard.press("Tab")
    assert page.evaluate("window.reached.size") == wanted


def test_focus_can_be_seen(page: Page) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(browser: Browser, report: Report, width: int) -> None:
    with opened(browser, report.page, width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("svg.narrow").first.is_visible() == (width == 390)
        assert page.locator("svg.wide").first.is_visible() == (width != 390)
        page.locator("#trials a[data-card]").first.click()
        box = page.locator("dialog#card").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert page.evaluate("card.scrollWidth <= card.clientWidth")


def test_dark_and_light_and_paper(browser: Browser, report: Report) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, report.page, color_scheme="dark") as page:
        assert page.evaluate(background) == "rgb(20, 24, 29)"
        dark = page.locator(f"{POINT} use").first.evaluate("use => getComputedStyle(use).fill")
        page.emulate_media(color_scheme="light")
        assert page.evaluate(background) == "rgb(255, 255, 255)"
        assert page.locator(f"{POINT} use").first.evaluate("use => getComputedStyle(use).fill") != dark
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate(background) == "rgb(255, 255, 255)"
        assert page.locator("#filters").is_hidden()
        assert page.locator("#trials .scroll").evaluate("box => box.scrollHeight <= box.clientHeight + 1")


def test_without_script_everything_can_be_read(browser: Browser, report: Report) -> None:
    with opened(browser, report.page, java_script_enabled=False) as page:
        link = page.locator("#fronts a[data-card]").first
        target = link.get_attribute("href")
        link.click()
        assert page.url.endswith(target or "?")
        assert page.locator(target or "?").is_visible()
        assert page.locator("figure > svg[role=img]").first.is_visible()


@pytest.mark.parametrize("name", ["ink", "muted", "pgps"])
@pytest.mark.parametrize("ground", ["surface", "shade"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(name: str, ground: str, theme: str) -> None:
    paints = {paint.name: paint for paint in PAINTS}
    bright, dim = sorted((luminance(paints[one], theme) for one in (name, ground)), reverse=True)
    assert (bright + 0.05) / (dim + 0.05) >= 4.5


def luminance(paint: Paint, theme: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(getattr(paint, theme)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

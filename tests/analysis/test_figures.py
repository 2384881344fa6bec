"""Figures that do not mislead: what is drawn where, what is said below, no overlapping numbers, SVG fit for a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import finish_trial, make_points, make_spec, make_study
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from analysis.figures.display_items import DisplayItem, as_png, as_svg, inline_svg
from analysis.figures.style import FILE, METHOD_STYLES, NARROW, SURFACE, WIDE, Layout, place
from analysis.fronts.captions import description, notes, title
from analysis.fronts.figures import pareto_figure
from analysis.fronts.front import Front, pareto_front
from analysis.page.report import CHAPTERS
from analysis.statistics.study_results import StudyResults, gather
from analysis.tables.format import amount, number, reading_scale
from study.store.ledger import Ledger


def front_of(study: Ledger, *costs: str, by: str | None = None) -> Front:
    return pareto_front(gather([study.root]).points, ("dice", *(costs or ("runtime_seconds",))), by=by)


def study_of(root: Path, *trials: tuple[str, int, float, float], **header: str) -> Ledger:
    """Of scheme, fold, Dice and seconds."""
    study = Ledger.create(root)
    for scheme, fold, dice, seconds in trials:
        finish_trial(study, make_spec(scheme, fold=fold), dice=dice, seconds=seconds, **header)
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return make_study(tmp_path_factory.mktemp("studies") / "hippo", folds=(0, 1), budgets=(1.0, 0.5))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    root = tmp_path_factory.mktemp("whole") / "hippo"
    return gather([make_study(root, folds=(0, 1), budgets=(0.5, 1.0), n_cases=8, curve=True).root])


@pytest.fixture(scope="module")
def items(results: StudyResults) -> Sequence[DisplayItem]:
    return [item for chapter in CHAPTERS for item in chapter(results).items]


def words_on(figure: Figure) -> str:
    return " ".join(re.findall(r"<text[^>]*>([^<]*)<", as_svg(figure, text_as_paths=False)))


def texts(figure: Figure) -> list[Text]:
    FigureCanvasAgg(figure).draw()
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def legend_of(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.legends[0].get_texts()}


def lines_of(figure: Figure, prefix: str) -> dict[str, Line2D]:
    """Lines of the first panel by what follows a prefix in their names; no two share one."""
    found = [line for line in figure.axes[0].lines if str(line.get_gid()).startswith(prefix)]
    named = {str(line.get_gid()).removeprefix(prefix): line for line in found}
    assert len(named) == len(found)
    return named


def steps_of(figure: Figure) -> list[Line2D]:
    return [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"]


@pytest.mark.parametrize("layout", [FILE, pytest.param(NARROW, marks=pytest.mark.cluster)], ids=["file", "narrow"])
def test_figures_fit_are_legible_and_follow_the_page(items: Sequence[DisplayItem], layout: Layout) -> None:
    drawn = [item for item in items if item.draw is not None]
    assert len(drawn) > 10
    for item in drawn:
        assert item.heading and item.alt
        figure = item.draw(layout)
        width, height = figure.get_size_inches()
        assert width == layout.width
        assert min(text.get_fontsize() for text in texts(figure)) >= 7.5, item.stem
        ink = figure.get_tightbbox()
        assert min(ink.x0, ink.y0) >= 0 and ink.x1 <= width and ink.y1 <= height, item.stem
        svg = inline_svg(figure, prefix="x", alt='of <1> & "two"', css_class="wide")
        root = ElementTree.fromstring(svg)
        assert root.attrib["aria-label"] == 'of <1> & "two"'
        assert not re.search(r"#[0-9a-f]{6}\b|<style|font-family", svg), item.stem
        ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert len(ids) == len(set(ids)) and all(name.startswith("x-") for name in ids)
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) == set(ids)


@pytest.mark.cluster
def test_what_is_said_and_drawn_is_the_same_every_time(results: StudyResults, items: Sequence[DisplayItem]) -> None:
    again = [item for chapter in CHAPTERS for item in chapter(results).items]
    for one, other in zip(items, again, strict=True):
        assert (one.stem, one.alt, list(one.notes), one.table) == (
            other.stem,
            other.alt,
            list(other.notes),
            other.table,
        )
        assert (one.data is None) == (other.data is None) and (one.data is None or one.data.equals(other.data))
        if one.stem in (
            "pareto_dice_runtime",
            "dice_by_budget",
            "dice_difference",
            "dice_and_cost_by_setting",
            "cost_by_cause",
        ):
            assert as_svg(one.draw(NARROW)) == as_svg(other.draw(NARROW)), one.stem


def test_figures_do_not_depend_on_what_others_set(study: Ledger) -> None:
    """nnU-Net draws with seaborn, which changes matplotlib's settings for the whole process."""
    front = front_of(study)

    def drawn() -> tuple[str, bytes]:
        figure = pareto_figure(front)
        return as_svg(figure), as_png(figure, dots_per_inch=50)

    usual = drawn()
    others = {"axes.labelsize": 40, "xtick.labelsize": 40, "figure.facecolor": "red", "text.hinting": "none"}
    with mpl.rc_context({**others, "lines.linewidth": 9, "savefig.facecolor": "red"}):
        assert drawn() == usual


def test_axes_have_units_and_the_title_says_what_it_rests_on(study: Ledger) -> None:
    figure = pareto_figure(front_of(study))
    assert figure.axes[0].get_xlabel() == "Training time [s]"
    assert figure.axes[0].get_ylabel().startswith("Dice")
    words = words_on(figure)
    for expected in ("Dataset004_Hippocampus", "16 points from 32 trials", "2 folds, 1 seed", "Example CPU"):
        assert expected in words
    assert "estimated" not in words and "estimated" in words_on(pareto_figure(front_of(study, "co2_kg")))
    voxels = front_of(study, "voxels")
    assert pareto_figure(voxels).axes[0].get_xlabel() == "Voxels [million]"
    assert "million" in description(voxels)


def test_every_point_is_drawn_once_at_its_place_as_its_method(study: Ledger) -> None:
    front = front_of(study)
    figure = pareto_figure(front)
    drawn = lines_of(figure, "point-")
    assert set(drawn) == set(front.points["point_id"])
    for point in front.points.to_dict("records"):
        mark = drawn[point["point_id"]]
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (point["runtime_seconds"], point["dice"])
        assert mark.get_markerfacecolor() == METHOD_STYLES[point["method"]].paint.light
        assert mark.get_marker() == METHOD_STYLES[point["method"]].marker
    root = ElementTree.fromstring(inline_svg(figure, prefix="a", alt="a", css_class="a"))
    groups = [element.attrib["data-card"] for element in root.iter() if element.attrib.get("class") == "point"]
    assert sorted(groups) == sorted(drawn)


def test_folds_are_told_by_hollow_points_and_rings(tmp_path: Path) -> None:
    folds = [("cps", 5), ("pgps", 4), ("rpss", 1)]
    study = study_of(tmp_path / "study", *((scheme, n, 0.8, 90) for scheme, count in folds for n in range(count)))
    front = front_of(study)
    figure = pareto_figure(front)
    faces = {mark.get_markerfacecolor() for mark in lines_of(figure, "point-").values()}
    assert faces == {SURFACE.light, *(METHOD_STYLES[scheme].paint.light for scheme in ("cps", "pgps"))}
    rings = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert [ring.get_markeredgecolor() for ring in rings] == [METHOD_STYLES["cps"].paint.light]
    assert {"one fold", "several folds", "5 folds or more"} <= legend_of(figure)
    assert "A ring: 5 folds or more." in notes(front)
    assert any("one fold (hollow)" in sentence for sentence in notes(front))


def bars_of(figure: Figure) -> list[list[float]]:
    """Ends of the bars, upwards."""
    return sorted(list(map(float, line.get_ydata())) for line in lines_of(figure, "of-").values())


def test_bars_are_intervals_and_within_the_axis(results: StudyResults) -> None:
    front = pareto_front(results.points, ("dice", "runtime_seconds"))
    figure = pareto_figure(front)
    assert bars_of(figure) == sorted(front.points[["dice_low", "dice_high"]].to_numpy().tolist())
    low, high = figure.axes[0].get_ylim()
    assert low < front.points["dice_low"].min() < front.points["dice_high"].max() < high
    said = " ".join(notes(front))
    assert "95 % interval of Dice over validation cases, not over seeds" in said
    assert "fewer than 50 cases (16)" in said


def test_without_cases_bars_are_the_range_of_the_trials(study: Ledger) -> None:
    front = front_of(study)
    assert bars_of(pareto_figure(front)) == sorted(front.points[["dice_min", "dice_max"]].to_numpy().tolist())
    assert "Bars: lowest to highest of the averaged folds and seeds." in notes(front)


def test_long_names_of_hardware_stand_below_each_other(tmp_path: Path) -> None:
    study = study_of(
        tmp_path / "s", ("cps", 0, 0.8, 90), cpu_name="Slow CPU of a name of sixty letters, then some @ 2 GHz"
    )
    finish_trial(study, make_spec("pgps"), dice=0.8, seconds=90, cpu_name="Fast")
    figure = pareto_figure(front_of(study, by="hardware"))
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x1 <= figure.bbox.x1 and legend.y0 >= figure.bbox.y0


def test_the_front_is_a_step_line_through_the_non_dominated_points(study: Ledger) -> None:
    front = front_of(study)
    [line] = steps_of(pareto_figure(front))
    corners = set(zip(*line.get_data(), strict=True))
    assert set(front.best[["runtime_seconds", "dice"]].itertuples(index=False, name=None)) <= corners


def test_by_a_column_every_group_has_its_line_in_the_legend(study: Ledger) -> None:
    figure = pareto_figure(front_of(study, by="budget"))
    lines = steps_of(figure)
    # In colours and patterns of their own, the legend's too.
    assert len({str(line._dash_pattern) for line in lines}) == len({line.get_color() for line in lines}) == 2
    shown = {handle.get_color() for handle in figure.legends[0].findobj(Line2D)}
    assert {line.get_color() for line in lines} <= shown
    assert {"budget 50%", "budget 100%"} <= legend_of(figure)
    assert title(front_of(study, by="budget")) == "Dice against training time, by budget"


@pytest.mark.parametrize(("lowest", "cut"), [(0.78, True), (0.0, False)])
def test_a_cut_dice_axis_carries_a_mark_and_says_so(tmp_path: Path, lowest: float, cut: bool) -> None:
    front = front_of(study_of(tmp_path / "study", ("cps", 0, lowest, 90), ("pgps", 0, 1.0, 30)))
    figure = pareto_figure(front)
    assert (figure.axes[0].get_ylim()[0] > 0) == bool(lines_of(figure, "axis-cut")) == cut
    assert ("The Dice axis does not start at 0." in notes(front)) == cut
    assert max(figure.axes[0].get_yticks()) <= 1


def test_costs_start_at_0_unless_they_span_more_than_25_fold(tmp_path: Path) -> None:
    study = study_of(tmp_path / "study", ("cps", 0, 0.8, 90), ("pgps", 0, 0.79, 30))
    assert pareto_figure(front_of(study)).axes[0].get_xlim()[0] == 0
    finish_trial(study, make_spec("pgps+"), dice=0.81, seconds=9000)
    axes = pareto_figure(front_of(study)).axes[0]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "Training time [min], logarithmic")


def test_one_point_with_special_letters_is_drawn_as_it_is(tmp_path: Path) -> None:
    study, spec = Ledger.create(tmp_path / "study"), make_spec(dataset=r"Dataset007_$\frac$_<b>&")
    finish_trial(study, spec, dice=0.8, seconds=30, cpu_name="CPU @ 2^3 $GHz$")
    front = front_of(study)
    assert "1 point, 1 of them on the Pareto front, PGPS with Dice 0.800 at 30.0 s" in description(front)
    figure = pareto_figure(front)
    assert as_png(figure, dots_per_inch=50).startswith(b"\x89PNG")
    words = unescape(words_on(figure))
    assert spec.dataset in words and "CPU @ 2^3 $GHz$" in words


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300)), max_size=40))
def test_labels_never_overlap_and_name_every_point_once(positions: list[tuple[float, float]]) -> None:
    labels = place(sorted(positions))
    assert [n for label in labels for n in range(label.first, label.last + 1)] == list(range(1, len(positions) + 1))
    assert not any(a.overlaps(b) for i, a in enumerate(labels) for b in labels[:i])


@given(
    st.lists(st.tuples(st.floats(0.5, 1), st.floats(1, 1000)), min_size=1, max_size=25),
    st.sampled_from([WIDE, NARROW]),
)
@settings(max_examples=12, deadline=None)
def test_labels_as_drawn_do_not_overlap(values: list[tuple[float, float]], layout: Layout) -> None:
    dice, seconds = (list(column) for column in zip(*values, strict=True))
    bars = {"dice_min": dice, "dice_max": dice, **dict.fromkeys(("dice_low", "dice_high"), [float("nan")] * len(dice))}
    points = make_points(dice=dice, runtime_seconds=seconds, **bars).assign(method="other")
    figure = pareto_figure(pareto_front(points, ("dice", "runtime_seconds")), layout=layout)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts if text.get_verticalalignment() == "bottom"]
    assert boxes
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (94.04, "s", "94.0 s"),
        (5600, "s", "93.3 min"),
        (86400, "s", "24.0 h"),
        (1_000_000, "s", "278 h"),
        (6e-6, "kg", "6.00 mg"),
        (0.0042, "kg", "4.20 g"),
        (12.5, "kg", "12.5 kg"),
        (0.0003, "kWh", "0.300 Wh"),
        (0.0, "s", "0 s"),
        (0.35, "", "0.350"),
    ],
)
def test_amounts_have_the_unit_that_fits(value: float, unit: str, expected: str) -> None:
    assert amount(value, unit) == expected


@given(st.floats(1e-6, 1e9), st.sampled_from(["s", "kg", "kWh", ""]))
def test_a_scaled_amount_is_the_same_amount(value: float, unit: str) -> None:
    in_file = {"s": 1, "min": 60, "h": 3600, "mg": 1e-6, "g": 1e-3, "kg": 1, "Wh": 1e-3, "kWh": 1, "": 1}
    scale = reading_scale(unit, value)
    assert value * scale.factor * in_file[scale.unit] == pytest.approx(value)
    assert float(number(value)) == pytest.approx(value, rel=0.005)

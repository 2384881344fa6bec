"""Figures that do not mislead: what is drawn where, what is said below, no overlapping numbers, SVG fit for a page."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import finish_trial, make_points, make_spec, make_study
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.encodings import place
from analysis.figures.images import as_png, as_svg, inline_svg
from analysis.figures.style import METHOD_STYLES, NARROW, PAINTS, SURFACE, WIDE
from analysis.fronts.captions import description, notes, title
from analysis.fronts.figures import pareto_figure
from analysis.fronts.front import Front, pareto_front
from analysis.statistics.evidence import gather
from analysis.tables.frame import read_studies
from analysis.tables.methods import METHOD_LABELS, with_data_curriculum
from analysis.tables.points import average_points
from analysis.tables.units import amount, number, reading_scale
from study.curriculum.schemes import SCHEMES
from study.store.ledger import Ledger


def front_of(study: Ledger, cost: str = "runtime_seconds", by: str | None = None) -> Front:
    return pareto_front(average_points(read_studies([study.root]).trials), ("dice", cost), by=by)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return make_study(tmp_path_factory.mktemp("studies") / "hippo", folds=(0, 1), budgets=(1.0, 0.5))


def words_on(figure: Figure) -> str:
    return " ".join(re.findall(r"<text[^>]*>([^<]*)<", as_svg(figure, text_as_paths=False)))


def has_cut_mark(figure: Figure) -> bool:
    return any(str(line.get_gid()).startswith("axis-cut") for line in figure.axes[0].lines)


def test_axes_have_units_and_the_title_says_what_it_rests_on(study: Ledger) -> None:
    figure = pareto_figure(front_of(study))
    axes = figure.axes[0]
    assert axes.get_xlabel() == "Training time [s]"
    assert axes.get_ylabel().startswith("Dice")
    words = words_on(figure)
    for expected in ("Dataset004_Hippocampus", "16 points from 32 trials", "2 folds, 1 seed", "Example CPU"):
        assert expected in words


def drawn_points(figure: Figure) -> dict[str, Line2D]:
    """The mark of each point by its identity."""
    marks = [line for line in figure.axes[0].lines if str(line.get_gid()).startswith("point-")]
    assert len(marks) == len({mark.get_gid() for mark in marks})
    return {mark.get_gid().removeprefix("point-"): mark for mark in marks}


@pytest.mark.parametrize("costs", [("runtime_seconds",), ("runtime_seconds", "voxels")])
def test_every_point_is_drawn_once_at_its_place_in_the_colour_of_its_method(study: Ledger, costs: tuple) -> None:
    points = average_points(read_studies([study.root]).trials)
    drawn = drawn_points(pareto_figure(pareto_front(points, ("dice", *costs))))
    assert set(drawn) == set(points["point_id"])
    for _, point in points.iterrows():
        mark = drawn[point["point_id"]]
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (point["runtime_seconds"], point["dice"])
        assert mark.get_markerfacecolor() == METHOD_STYLES[point["method"]].paint.light
        assert mark.get_marker() == METHOD_STYLES[point["method"]].marker


def test_every_point_is_an_svg_group_of_its_own_on_a_page(study: Ledger) -> None:
    front = front_of(study)
    root = ElementTree.fromstring(inline_svg(pareto_figure(front), prefix="a-wide", alt="a", css_class="a"))
    groups = [element.attrib["data-card"] for element in root.iter() if element.attrib.get("class") == "point"]
    assert sorted(groups) == sorted(front.points["point_id"])


def test_a_point_on_one_fold_is_hollow(tmp_path: Path) -> None:
    single = Ledger.create(tmp_path / "study")
    finish_trial(single, make_spec("cps", fold=0), dice=0.8, seconds=90)
    finish_trial(single, make_spec("cps", fold=1), dice=0.8, seconds=90)
    finish_trial(single, make_spec("pgps"), dice=0.79, seconds=30)
    front = front_of(single)
    figure = pareto_figure(front)
    faces = {mark.get_markerfacecolor() for mark in drawn_points(figure).values()}
    assert faces == {SURFACE.light, METHOD_STYLES["cps"].paint.light}
    assert "one fold" in words_on(figure)
    assert any("one fold (hollow)" in sentence for sentence in notes(front))


def test_a_point_on_five_folds_has_a_ring_which_the_legend_explains(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme, folds in (("cps", 5), ("pgps", 4)):
        for fold in range(folds):
            finish_trial(study, make_spec(scheme, fold=fold), dice=0.8, seconds=90)
    front = front_of(study)
    figure = pareto_figure(front)
    rings = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert [ring.get_markeredgecolor() for ring in rings] == [METHOD_STYLES["cps"].paint.light]
    assert {"several folds", "5 folds or more"} <= {text.get_text() for text in figure.legends[0].get_texts()}
    assert "A ring: 5 folds or more." in notes(front)


def bars_of(figure: Figure) -> list[list[float]]:
    """Ends of the bars, upwards."""
    lines = [
        line for line in figure.axes[0].lines if str(line.get_gid()).startswith("of-") and len(line.get_xdata()) == 2
    ]
    return sorted([float(end) for end in line.get_ydata()] for line in lines)


def test_bars_are_intervals_and_within_the_axis(tmp_path: Path) -> None:
    points = gather([make_study(tmp_path / "study", n_cases=12).root]).points
    front = pareto_front(points, ("dice", "runtime_seconds"))
    figure = pareto_figure(front)
    assert bars_of(figure) == sorted(points[["dice_low", "dice_high"]].to_numpy().tolist())
    low, high = figure.axes[0].get_ylim()
    assert low < points["dice_low"].min() < points["dice_high"].max() < high
    said = " ".join(notes(front))
    assert "95 % interval of Dice over validation cases, not over seeds" in said
    assert "fewer than 50 cases (12)" in said


def test_without_cases_bars_are_the_range_of_the_trials(study: Ledger) -> None:
    front = front_of(study)
    assert bars_of(pareto_figure(front)) == sorted(front.points[["dice_min", "dice_max"]].to_numpy().tolist())
    assert "Bars: lowest to highest of the averaged folds and seeds." in notes(front)


def test_three_objectives_have_areas_instead_of_a_line(study: Ledger) -> None:
    points = average_points(read_studies([study.root]).trials)
    front = pareto_front(points, ("dice", "runtime_seconds", "co2_kg"))
    figure = pareto_figure(front)
    assert not [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    drawn = drawn_points(figure)
    same = points[points["method"] == "cps"].sort_values("co2_kg")
    sizes = [drawn[point_id].get_markersize() for point_id in same["point_id"]]
    assert sizes == sorted(set(sizes))
    assert title(front) == "Dice against training time and training CO₂"
    assert "The larger a mark, the more training CO₂." in notes(front)
    assert "mg" in words_on(figure)


def test_long_names_of_hardware_stand_below_each_other(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme, cpu in (("cps", "Slow CPU with a long name of sixty letters, and then some @ 2 GHz"), ("pgps", "Fast")):
        finish_trial(study, make_spec(scheme), dice=0.8, seconds=90, cpu_name=cpu)
    figure = pareto_figure(front_of(study, by="hardware"))
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x1 <= figure.bbox.x1
    assert legend.y0 >= figure.bbox.y0


def test_voxels_are_counted_in_words(study: Ledger) -> None:
    front = front_of(study, "voxels")
    assert pareto_figure(front).axes[0].get_xlabel() == "Voxels [million]"
    assert "million" in description(front)


def test_a_thousand_points_are_drawn() -> None:
    values = [(0.5 + (n % 97) / 250, 100 + 7 * n % 1009) for n in range(1000)]
    assert len(as_svg(pareto_figure(random_front(values)))) > 1000


def test_the_front_is_a_step_line_through_the_non_dominated_points(study: Ledger) -> None:
    front = front_of(study)
    line = next(line for line in pareto_figure(front).axes[0].lines if line.get_drawstyle() == "steps-post")
    corners = set(zip(*line.get_data(), strict=True))
    assert set(front.best[["runtime_seconds", "dice"]].itertuples(index=False, name=None)) <= corners


def test_by_a_column_every_group_has_its_line_in_the_legend(study: Ledger) -> None:
    figure = pareto_figure(front_of(study, by="budget"))
    lines = [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert len(lines) == 2
    assert len({str(line.get_linestyle()) + str(line._dash_pattern) for line in lines}) == 2
    # In colours of their own, the legend's too.
    shown = [handle for handle in figure.legends[0].legend_handles if handle.get_linestyle() != "None"]
    assert len({to_hex(line.get_color()) for line in lines}) == 2
    assert {to_hex(line.get_color()) for line in lines} <= {to_hex(handle.get_color()) for handle in shown}
    assert {"budget 50%", "budget 100%"} <= {text.get_text() for text in figure.legends[0].get_texts()}
    assert title(front_of(study, by="budget")) == "Dice against training time, by budget"


def test_a_cut_dice_axis_carries_a_mark_and_says_so(study: Ledger) -> None:
    front = front_of(study)
    assert pareto_figure(front).axes[0].get_ylim()[0] > 0
    assert has_cut_mark(pareto_figure(front))
    assert "The Dice axis does not start at 0." in notes(front)


def test_a_dice_axis_from_0_carries_none(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec("cps"), dice=0.0, seconds=90)
    finish_trial(study, make_spec("pgps"), dice=1.0, seconds=30)
    figure = pareto_figure(front_of(study))
    assert figure.axes[0].get_ylim()[0] == 0
    assert not has_cut_mark(figure)
    assert max(figure.axes[0].get_yticks()) <= 1
    assert "The Dice axis does not start at 0." not in notes(front_of(study))


def test_costs_start_at_0_unless_they_span_more_than_25_fold(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec("cps"), dice=0.8, seconds=90)
    finish_trial(study, make_spec("pgps"), dice=0.79, seconds=30)
    assert pareto_figure(front_of(study)).axes[0].get_xlim()[0] == 0
    finish_trial(study, make_spec("pgps+"), dice=0.81, seconds=9000)
    figure = pareto_figure(front_of(study))
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].get_xlabel() == "Training time [min], logarithmic"


def test_estimated_energy_is_in_the_footnote_of_the_carbon_figure_alone(study: Ledger) -> None:
    assert "estimated" in words_on(pareto_figure(front_of(study, "co2_kg")))
    assert "estimated" not in words_on(pareto_figure(front_of(study)))


def test_names_with_special_letters_are_drawn_as_they_are(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    spec = make_spec(dataset=r"Dataset007_$\frac$_<b>&")
    finish_trial(study, spec, dice=0.8, seconds=30, cpu_name="CPU @ 2^3 $GHz$")
    figure = pareto_figure(front_of(study))
    assert as_png(figure, dots_per_inch=50).startswith(b"\x89PNG")
    root = ElementTree.fromstring(inline_svg(figure, prefix="a", alt="a", css_class="a"))
    words = " ".join(element.text or "" for element in root.iter())
    assert spec.dataset in words
    assert "CPU @ 2^3 $GHz$" in words


def test_one_point_is_a_figure(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(), dice=0.8, seconds=30)
    front = front_of(study)
    assert as_png(pareto_figure(front), dots_per_inch=50).startswith(b"\x89PNG")
    assert "1 point, 1 of them on the Pareto front, PGPS with Dice 0.800 at 30.0 s" in description(front)


def test_every_scheme_has_its_own_colour_and_marker() -> None:
    patches = {*SCHEMES, "other"}
    assert set(METHOD_STYLES) == set(METHOD_LABELS) == {*patches, *map(with_data_curriculum, patches)}
    assert len({style.marker for style in METHOD_STYLES.values()}) == len(METHOD_STYLES)
    assert len({paint.light for paint in PAINTS}) == len({paint.name for paint in PAINTS}) == len(PAINTS)


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
def test_labels_as_drawn_do_not_overlap(values: list[tuple[float, float]], layout) -> None:
    figure = pareto_figure(random_front(values), layout=layout)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts if text.get_verticalalignment() == "bottom"]
    assert boxes
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def random_front(values: list[tuple[float, float]]) -> Front:
    """A front over points with the given Dice and seconds."""
    dice, seconds = (list(column) for column in zip(*values, strict=True))
    nothing = [float("nan")] * len(dice)
    points = make_points(
        dice=dice, dice_min=dice, dice_max=dice, dice_low=nothing, dice_high=nothing, runtime_seconds=seconds
    )
    return pareto_front(points.assign(method="other"), ("dice", "runtime_seconds"))


def test_an_svg_for_a_page_has_variables_for_colours_and_ids_of_its_own(study: Ledger) -> None:
    figure = pareto_figure(front_of(study), layout=WIDE)
    text = inline_svg(figure, prefix="one", alt='of <1> & "two"', css_class="wide")
    root = ElementTree.fromstring(text)
    assert root.attrib["aria-label"] == 'of <1> & "two"'
    assert not re.search(r"#[0-9a-f]{6}\b", text)
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert used <= set(ids)
    assert all(name.startswith("one-") for name in ids)
    assert "<style" not in text
    assert "font-family" not in text


def test_the_same_figure_gives_the_same_file(study: Ledger) -> None:
    assert as_svg(pareto_figure(front_of(study))) == as_svg(pareto_figure(front_of(study)))


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


def test_figures_do_not_depend_on_what_others_set(tmp_path: Path) -> None:
    """nnU-Net draws with seaborn, which changes matplotlib's settings for the whole process."""
    front = front_of(make_study(tmp_path / "study"))

    def drawn() -> tuple[str, bytes]:
        figure = pareto_figure(front)
        return as_svg(figure), as_png(figure, dots_per_inch=50)

    usual = drawn()
    others = {"axes.labelsize": 40, "xtick.labelsize": 40, "figure.facecolor": "red", "text.hinting": "none"}
    with mpl.rc_context({**others, "lines.linewidth": 9, "savefig.facecolor": "red"}):
        assert drawn() == usual

"""Tables as Markdown, LaTeX, HTML and on terminals: units, missing values, nothing that a study's texts could break."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import make_spec as spec
from ledgers import make_study, start_trial

from analysis.cli.front import _print_table
from analysis.fronts.front import Front, pareto_front
from analysis.fronts.hypervolume import judged
from analysis.fronts.resampling import CaseDraws
from analysis.statistics.study_results import gather
from analysis.tables.format import LONGEST_FLOAT, Table, escaped, html, latex, markdown, readable
from analysis.tables.frame import read_studies
from study.common.tables import PlainConsole

WORDS = st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)


def table(*rows: tuple[str, ...], numeric: tuple[bool, ...] = (False, True)) -> Table:
    return Table(headings=("Curriculum", "Dice [%]"), numeric=numeric, rows=rows)


def test_a_markdown_table_has_units_scaled_numbers_and_dashes(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    start_trial(study, spec("cps", budget=0.25), seconds=12)
    frame = read_studies([study.root]).trials
    rows = frame[frame["method"] == "cps"].sort_values("dice")
    lines = markdown(readable(rows, ["method", "dice", "co2_kg", "test_time_mirroring"])).splitlines()
    assert lines == [
        "| Method | Dice | Training CO₂ [mg] | Mirroring |",
        "| --- | ---: | ---: | --- |",
        "| cps | 0.8120 | 39.2 | yes |",
        "| cps | – | 5.00 | yes |",
    ]


def test_a_latex_table_in_full() -> None:
    text = latex(table(("PGPS & more", "0.81"), ("[x]", "–")), caption="50 % of it_all", label="front")
    assert text == (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{table}[htbp]\n\\centering\n\\caption{50 \\% of it\\_all}\\label{tab:front}\n"
        "\\begin{tabular}{lr}\n\\toprule\nCurriculum & Dice [\\%] \\\\\n\\midrule\n"
        "PGPS \\& more & 0.81 \\\\\n{[x]} & -- \\\\\n\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )


def test_a_long_latex_table_goes_over_pages() -> None:
    text = latex(table(*[("a", "1")] * (LONGEST_FLOAT + 1)), caption="All", label="all")
    assert text.startswith("% needs \\usepackage{booktabs,longtable}\n\\begin{longtable}{lr}")
    assert text.count("\\endfirsthead") == text.count("\\endlastfoot") == 1
    assert text.count("a & 1 \\\\") == LONGEST_FLOAT + 1


@pytest.mark.parametrize(
    ("plain", "set_as"),
    [
        ("a_b#c$d{e}", r"a\_b\#c\$d\{e\}"),
        ("\\", r"\textbackslash{}"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ("40×56 ±2 Δ", r"40$\times$56 $\pm$2 $\Delta$"),
        ("CO₂ <1 |", r"CO$_2$ $<$1 \textbar{}"),
        ("Müller", "Müller"),
    ],
)
def test_latex_escapes(plain: str, set_as: str) -> None:
    assert escaped(plain) == set_as


@given(st.lists(st.tuples(WORDS, WORDS), max_size=5), WORDS)
def test_no_text_breaks_a_latex_table(rows: list[tuple[str, str]], caption: str) -> None:
    text = latex(table(*rows), caption=caption, label="t")
    bare = re.sub(r"\\[&%$#_{}\\]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == len(rows)
    for line in body:
        assert line.endswith(r" \\")
        assert re.sub(r"\\&", "", line).count("&") == 1
        assert "%" not in re.sub(r"\\%", "", line)


class Cells(HTMLParser):
    """Texts of the cells of a table, and the attributes of all elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells and data != "\n":
            self.cells[-1] += data


@given(st.lists(st.tuples(WORDS, WORDS), max_size=5))
def test_html_gives_back_every_text(rows: list[tuple[str, str]]) -> None:
    read = Cells(html(table(*rows), caption="c").split("</caption>")[1])
    assert read.cells == ["Curriculum", "Dice [%]", *(cell for row in rows for cell in row)]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("0.81 ± 0.02", "0.81"),
        ("−3.5", "-3.5"),
        ("0.81", None),
        ("–", ""),
        ("1.2e-3 x", "1.2e-3"),
        ("< 0.001", "0.001"),
    ],
)
def test_what_a_numeric_cell_is_sorted_by(cell: str, value: str | None) -> None:
    cells = Cells(html(table(("a", cell)), caption="c")).found
    assert [attributes.get("data-value") for tag, attributes in cells if tag == "td"] == [None, value]


def test_identities_of_trials_become_links_and_nothing_else_does() -> None:
    rows = (("t1 t2", "1"), ("t1 other", "2"), ("t3", "3"))
    text = html(table(*rows), caption="c", cards={"t1": "trial-t1", "t2": "trial-t1"}, row_ids=["r1", None, "r<3"])
    links = [(a["href"], a["data-card"]) for tag, a in Cells(text).found if tag == "a"]
    assert links == [("#trial-t1", "t1"), ("#trial-t1", "t2")]
    assert [a.get("id") for tag, a in Cells(text).found if tag == "tr"] == [None, "r1", None, "r<3"]


LONG = "Dataset0123_HepaticVesselWithAVeryLongName"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies")
    make_study(root / "one", n_cases=2)
    make_study(root / "other", n_cases=2, dataset=LONG)
    return root


def best_of(studies: list[Path], objectives: tuple[str, ...]) -> tuple[pd.DataFrame, Front]:
    results = gather(studies)
    front = pareto_front(results.points, objectives)
    table = judged(front, CaseDraws(results.tables, replicates=50))
    return table[table["non_dominated"]], front


@pytest.mark.parametrize("names", [["one"], ["one", "other"]])
@pytest.mark.parametrize("objectives", [("dice", "runtime_seconds"), ("dice", "runtime_seconds", "co2_kg")])
def test_a_front_has_its_datasets_objectives_and_trials_at_any_width(
    root: Path,
    names: list[str],
    objectives: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    best, front = best_of([root / name for name in names], objectives)
    for width in (80, 100, 120, 200):
        monkeypatch.setattr("study.common.tables.wide_console", lambda width=width: PlainConsole(width=width))
        _print_table(best, front, of_class="")
        text = capsys.readouterr().out
        words = text.split()
        assert max(map(len, text.splitlines())) <= width
        for _, point in best.iterrows():
            assert point["trial_ids"] in words and f"{point['dice']:.4f}" in words
        assert words.count("time") >= 1 and ("CO₂" in words) is ("co2_kg" in objectives)
        if len(names) == 2:
            assert words.count(LONG) == (best["dataset"] == LONG).sum()

"""Names and reasons out of records that mean harm: to paths, spreadsheets, Markdown, HTML, LaTeX and commands."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from examples import finish, make_spec
from reports import quick_report

from analysis.figures.display_items import DisplayItem, Drawn, draw, stem_of
from analysis.page.report import write_folder
from analysis.tables.format import Table, markdown
from analysis.tables.frame import tables_of
from study.common.errors import InvalidInputError, LedgerError, check_name
from study.store.ledger import Ledger

BAD_NAMES = [
    *("../../x", "..", ".", "a/b", "/etc/passwd", "", "-rf", ".hidden", "a\0b", "a\nb", "a\tb", "\x1b[31m", "x" * 300),
    *("a\u2028b", "a\u202eb", "ü" * 150, 7, None, ["a"]),
]
CELLS = ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "=cmd|' /C calc'!A0", "-"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leaves_its_place_is_refused_where_it_is_read(tmp_path: Path, name: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^dataset: received "):
        check_name("dataset", name)
    ledger = Ledger.create(tmp_path / "study")
    spec = ledger.add(make_spec()).path / "spec.json"
    document = json.loads(spec.read_text())
    for field in ("dataset", "plans", "configuration"):
        spec.write_text(json.dumps({**document, field: name}))
        with pytest.raises(LedgerError, match=rf"spec\.json is damaged: {field}: received "):
            ledger.trials()[0].spec()
    (ledger.root / "points.jsonl").write_text(json.dumps({"number": 0, "point": {}, "trial_ids": [name]}) + "\n")
    with pytest.raises(LedgerError, match=r"points\.jsonl is damaged: line 1 "):
        ledger.points()


@pytest.mark.parametrize(
    "name", ["Dataset004_Hippocampus", "nnUNetPlans", "3d_fullres", "Größe ä", "a.b", "a b", "x" * 200]
)
def test_usual_names_are_accepted(name: str) -> None:
    check_name("dataset", name)


def test_stems_are_told_apart_and_clean() -> None:
    names = ["a", "a b", "a_b", "a/b", "../a", "ä", "ö", "a.b"]
    assert len({stem_of(name) for name in names}) == len(names)
    assert stem_of("Dataset004_Hippocampus") == "Dataset004_Hippocampus"
    for name in names:
        DisplayItem(stem=f"x_{stem_of(name)}", heading="")
    for stem in ("", "../x", "a/b", "a b", ".x"):
        with pytest.raises(ValueError, match="no stem"):
            DisplayItem(stem=stem, heading="")


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_report_writes_inside_its_folder_and_clears_what_it_wrote(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study")
    for dataset in ("Dataset001_Größe [x] <b>", "Dataset002_=1+1|$x$"):
        finish(ledger.add(replace(make_spec("pgps"), dataset=dataset)))
    evil = ledger.add(make_spec("rpss")).path / "spec.json"
    evil.write_text(json.dumps({**json.loads(evil.read_text()), "dataset": "../../../outside"}))
    before = files_below(tmp_path)
    quick_report([ledger.root], tmp_path / "report")
    written = files_below(tmp_path) - before
    assert all(name.startswith("report/") for name in written)
    assert len([name for name in written if "Gr__e" in name]) > 3
    # The next one, of a study without trials, leaves nothing of this one's.
    quick_report([Ledger.create(tmp_path / "empty").root], tmp_path / "report")
    assert not [name for name in files_below(tmp_path / "report") if "Dataset" in name]


@pytest.mark.parametrize("name", ["figures/../../x.png", "figures/a b.png", "x.png", "tables/x.html", "/etc/x"])
def test_nothing_is_written_that_would_not_be_cleared(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no file of a report"):
        write_folder(tmp_path / "report", [Drawn(files={name: b""})], tables_of({}), "")
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("name", ["figures", "tables", "data"])
def test_a_link_in_a_reports_folder_is_not_followed(tmp_path: Path, name: str) -> None:
    elsewhere, report = tmp_path / "elsewhere", tmp_path / "report"
    elsewhere.mkdir()
    report.mkdir()
    (report / name).symlink_to(elsewhere)
    with pytest.raises(OSError, match="is a link; delete it"):
        write_folder(report, [], tables_of({}), "")
    assert files_below(elsewhere) == set()


def test_no_cell_of_a_csv_is_a_formula() -> None:
    data = pd.DataFrame({"word": CELLS, "number": [-1.5] * len(CELLS), "count": pd.array([1, None] * 5, dtype="Int64")})
    text = draw(DisplayItem(stem="t", heading="", data=data), prefix="f").files["tables/t.csv"].decode()
    words, numbers, counts = zip(*list(csv.reader(io.StringIO(text, newline="")))[1:], strict=True)
    assert list(words) == ["'" + cell.replace("\r", " ") for cell in CELLS]
    assert (set(numbers), set(counts)) == ({"-1.5"}, {"1", ""})


@pytest.mark.parametrize(
    ("text", "set_as"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y&gt;"),
        ("[a](javascript:b)", r"[a]\(javascript:b)"),
        ("![](http://x)", r"![]\(http://x)"),
        ("a|b", r"a\|b"),
        ("a\nb\r\nc\td", "a b c d"),
        ("`x` *y* ~z~ \\", r"\`x\` \*y\* \~z\~ \\"),
        ("&amp;", "&amp;amp;"),
        ("pgps+ 50 % a_b", "pgps+ 50 % a_b"),
    ],
)
def test_markdown_sets_text_as_it_is_written(text: str, set_as: str) -> None:
    table = Table(headings=(text,), numeric=(False,), rows=((text,),))
    assert markdown(table) == f"| {set_as} |\n| --- |\n| {set_as} |\n"


def test_a_page_shows_hostile_text_as_text(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "<i>study")
    hostile = "</script><script>alert(1)</script><img src=x onerror=y>"
    finish(ledger.add(replace(make_spec("pgps"), dataset=f"Dataset001_{hostile.replace('/', '')}")))
    ledger.add(make_spec("cps")).fail(reason=hostile)
    page = quick_report([ledger.root], tmp_path / "report").page.read_text(encoding="utf-8")
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page

"""The papers' tables and figures from made-up studies: what is in them, what is missing and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledgers import make_study

from analysis.figures.display_items import DisplayItem, Section, as_png
from analysis.figures.style import FILE, WIDE
from analysis.page.papers import papers
from analysis.statistics.study_results import StudyResults, gather, results_of
from study.common.errors import InvalidInputError


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    root = tmp_path_factory.mktemp("studies") / "hippo"
    make_study(root, folds=(0, 1), budgets=(1.0, 0.5), n_cases=20)
    return gather([root])


@pytest.fixture(scope="module")
def section(study: StudyResults) -> Section:
    return papers(study)


def item(section: Section, stem: str) -> DisplayItem:
    return next(one for one in section.items if one.stem == stem)


def test_figure_two_has_a_line_per_scheme_in_each_panel(section: Section, study: StudyResults) -> None:
    panels = item(section, "dice_by_budget").draw(WIDE).axes
    assert [panel.get_xlabel() for panel in panels] == ["Iterations", "Voxels [millions]", "Training time [s]"]
    points = study.points.query("method == 'pgps'").sort_values("budget")
    for panel, cost, factor in zip(panels, ("iterations", "voxels", "runtime_seconds"), (1, 1e-6, 1), strict=True):
        lines = [line.get_xydata() for line in panel.get_lines() if len(line.get_xdata()) == 2]
        expected = points[[cost, "dice"]].astype(float).to_numpy() * [factor, 1]
        assert any(np.allclose(line, expected) for line in lines)
    assert {text.get_text() for text in panels[0].texts} == {"50 %", "100 %"}


def test_figure_three_draws_the_table_of_comparisons(section: Section) -> None:
    rows = item(section, "comparison").data
    axes = item(section, "dice_difference").draw(FILE).axes[0]
    marks = {line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() not in ("None", None, "")}
    assert marks == set(rows["dice_difference"])
    # One seed.
    assert not any(text.get_text() == "*" for text in axes.texts)
    assert axes.get_xlim()[0] < 0 < axes.get_xlim()[1]


def test_table_one_holds_every_scheme_and_budget(section: Section, study: StudyResults) -> None:
    table = item(section, "results_by_scheme")
    assert [row[2] for row in table.table.rows] == ["CPS", "PGPS", "PGPS+", "RPSS", "Efficiency", "Performance"] * 2
    pgps = study.points.query("method == 'pgps' and budget == 1").iloc[0]
    assert table.table.rows[1][3] == f"{pgps['dice']:.4f}"
    assert table.table.rows[1][5] == f"{100 * pgps['voxel_share']:.2f} %"
    assert "Hardware: Example CPU." in table.notes


def test_patch_and_batch_sizes_are_those_of_the_ledger(section: Section, study: StudyResults) -> None:
    data = item(section, "patch_batch_sizes").data
    stages = json.loads(study.points.query("method == 'pgps+' and budget == 1")["stage_table"].item())
    ours = data[data["batch_size_pgps+"].notna()]
    assert ours["patch_size"].tolist() == ["×".join(map(str, stage["patch_size"])) for stage in stages]
    for name in ("batch_size", "iterations"):
        assert ours[f"{name}_pgps+"].tolist() == [stage[name] for stage in stages]
    assert data["batch_size_cps"].notna().sum() == 1
    assert data["iterations_rpss"].isna().all()


def test_several_tasks_have_means_and_one_fold_is_hollow(tmp_path: Path) -> None:
    roots = [tmp_path / f"s{n}" for n in range(2)]
    for number, root in enumerate(roots):
        make_study(root, n_cases=8, dataset=f"Dataset00{number}_Task")
    section = papers(gather(roots))
    assert any("over 2 tasks (mean ± SD)" in note for note in item(section, "results_by_scheme").notes)
    assert section.missing == [
        "Fig. 2 needs published schemes at two budgets or more: not on Dataset000_Task, Dataset001_Task."
    ]
    lines = item(section, "dice_difference").draw(FILE).axes[0].get_lines()
    assert {line.get_markerfacecolor() for line in lines if line.get_marker() == "o"} == {"#ffffff"}
    assert "Hollow: one fold." in item(section, "dice_difference").notes


def test_published_numbers_beside_ours_on_request(study: StudyResults) -> None:
    section = papers(study, reference="miccai2024")
    rows = item(section, "results_by_scheme").table.rows
    schemes = [row[2] for row in rows]
    assert schemes[:4] == ["CPS", "CPS, miccai2024 (published)", "PGPS", "PGPS, miccai2024 (published)"]
    assert rows[1][4] == "128 min"
    assert any("NVIDIA A100-SXM4-80GB" in note for note in item(section, "results_by_scheme").notes)
    axes = item(section, "dice_difference").draw(FILE).axes[0]
    diamonds = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "d" and len(line.get_xdata())]
    assert diamonds == pytest.approx([0.0020, 0.0016])
    with pytest.raises(InvalidInputError, match="legal is one of miccai2024"):
        papers(study, reference="nature2030")


@pytest.mark.cluster
def test_a_thousand_trials_are_drawn(study: StudyResults) -> None:
    """The trials again under other seeds."""

    def copies(frame: pd.DataFrame) -> pd.DataFrame:
        parts = [frame.assign(trial_id=frame["trial_id"] + f"-{n}") for n in range(32)]
        return pd.concat([part.assign(seed=n) if "seed" in part else part for n, part in enumerate(parts)])

    frames = {name: copies(frame).reset_index(drop=True) for name, frame in study.tables.as_dict().items()}
    assert len(frames["trials"]) > 1000
    for one in papers(results_of(replace(study.tables, **frames))).items:
        assert one.draw is None or as_png(one.draw(FILE), dots_per_inch=60)

"""Studies over several plans: a plan's schemes are compared with its own constant patch size, and the plan is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledgers import GEOMETRY, finish_trial, make_spec

from analysis.comparison.compare import compare
from analysis.comparison.equal_cost import equal_cost_sentences, equal_cost_table, time_to_dice
from analysis.comparison.text import cost_table, dice_table, notes
from analysis.effects.axes import varying_axes
from analysis.fronts.captions import caveats
from analysis.fronts.front import pareto_front
from analysis.page.answer import answers
from analysis.page.papers import figure3
from analysis.papers.tables import paired_cases, time_table
from analysis.statistics.study_results import StudyResults, gather
from study.curriculum.chain import Geometry
from study.store.ledger import Ledger

PLAIN, RESIDUAL = "nnUNetPlans", "nnUNetResEncUNetLPlans"
GEOMETRIES = {PLAIN: GEOMETRY, RESIDUAL: Geometry(patch_size=(48, 64, 48), divisors=(8, 8, 8), batch_size=2)}
# Dice and seconds at the whole budget.
TRIALS = {
    (PLAIN, "cps"): (0.80, 100.0),
    (PLAIN, "pgps"): (0.81, 40.0),
    (RESIDUAL, "cps"): (0.85, 1000.0),
    (RESIDUAL, "pgps"): (0.83, 300.0),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    root = tmp_path_factory.mktemp("studies") / "plans"
    study = Ledger.create(root)
    for (plans, scheme), (dice, seconds) in TRIALS.items():
        for budget in (1.0, 0.5, 0.25):
            spec = make_spec(scheme, plans=plans, geometry=GEOMETRIES[plans], budget=budget)
            lost = 0.02 * (1 - budget)
            finish_trial(study, spec, dice=dice - lost, seconds=seconds * budget, n_cases=20, curve=True)
    return gather([root])


def test_schemes_are_compared_within_a_plan(results: StudyResults) -> None:
    comparison = compare(results)
    whole = comparison.rows[comparison.rows["budget"] == 1].set_index("plans")
    assert whole["dice_difference"].to_dict() == pytest.approx({PLAIN: 0.01, RESIDUAL: -0.02})
    assert whole["runtime_ratio"].to_dict() == pytest.approx({PLAIN: 0.4, RESIDUAL: 0.3})
    assert set(whole["n_cases"]) == {20} and set(whole["n_unpaired"]) == {0}
    for table in (dice_table(comparison), cost_table(comparison)):
        at = table.headings.index("Plans")
        assert {row[at] for row in table.rows} == {PLAIN, RESIDUAL}
    told = " ".join(notes(comparison))
    assert "Several plans or training settings of a dataset count as separate tasks." in told
    pairs = paired_cases(results, comparison, "Dataset004_Hippocampus")
    assert pairs.groupby("scheme")["difference"].mean().to_dict() == pytest.approx(
        {f"PGPS, {PLAIN}": 0.01, f"PGPS, {RESIDUAL}": -0.02}
    )
    assert (item := figure3(comparison)) is not None and item.draw is not None


def test_dice_at_equal_cost_is_of_the_plans_own_line(results: StudyResults) -> None:
    rows = compare(results).equal_cost
    assert set(rows["plans"]) == {PLAIN, RESIDUAL}
    at = rows[(rows["cost"] == "runtime_seconds") & (rows["measured"] == "pgps") & (rows["budget"] == 1)]
    # CPS for 40 s and 300 s of its own plan: between a quarter and a half of the iterations.
    expected = {
        PLAIN: 0.80 - 0.02 * (1 - 0.4),
        RESIDUAL: 0.85 - 0.02 * (1 - 0.3),
    }
    assert at.set_index("plans")["other_dice"].to_dict() == pytest.approx(expected)
    table = equal_cost_table(rows)
    assert table.headings[0] == "Plans" and {row[0] for row in table.rows} == {PLAIN, RESIDUAL}
    assert {len(row) for row in table.rows} == {len(table.headings)} == {len(table.numeric)}
    assert any(f"Hippocampus, {RESIDUAL}: for the training time" in said for said in equal_cost_sentences(rows))


def test_time_to_dice_is_relative_to_the_plans_own_training(results: StudyResults) -> None:
    rows = time_to_dice(results, [0.5])
    assert {(row["plans"], row["n_pairs"]) for _, row in rows.iterrows()} == {(PLAIN, 1), (RESIDUAL, 1)}
    item = time_table(results, [0.5])
    assert item is not None and item.table is not None and item.table.headings[0] == "Plans"


def test_the_plan_is_an_axis_and_is_said(results: StudyResults) -> None:
    points = results.points
    assert "plans" in [name for axis in varying_axes(points) for name in (axis.name, *axis.together)]
    assert set(points["summary"]) >= {f"PGPS, {RESIDUAL}, budget 100%", f"CPS, {PLAIN}, budget 25%"}
    [one] = answers(results)
    assert one.sentences[0].startswith(f"CPS, {RESIDUAL}, budget 25%: Dice 0.835 for 25 % of CPS, {RESIDUAL}' training")
    words = "A voxel share is of the plan's own constant patch size: those of different plans do not compare."
    assert words in caveats(pareto_front(points, ("dice", "voxel_share")))
    assert words not in caveats(pareto_front(points[points["plans"] == PLAIN], ("dice", "voxel_share")))
    assert words not in caveats(pareto_front(points, ("dice", "runtime_seconds")))


def test_a_plan_without_constant_patch_size_is_compared_with_no_other_plans(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    for plans, scheme, dice in ((PLAIN, "cps", 0.7), (RESIDUAL, "pgps", 0.8)):
        finish_trial(study, make_spec(scheme, plans=plans), dice=dice, seconds=50.0, n_cases=20)
    [one] = answers(gather([study.root]))
    assert "no finished trial of CPS of its plans to compare it with" in one.sentences[0]
    assert compare(gather([study.root])).rows.empty

"""Dice at equal cost, and what a study can show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ledgers import finish_trial, make_points, make_spec, make_study

from analysis.__main__ import main
from analysis.cli.power import power, power_sentences
from analysis.comparison.compare import compare
from analysis.comparison.equal_cost import equal_cost, equal_cost_sentences, equal_cost_table
from analysis.statistics.study_results import StudyResults, gather
from analysis.statistics.tests import smallest_difference
from analysis.tables.frame import tables_of
from study.store.ledger import Ledger

# docs/measurements.md, "Budgets": scheme, budget, Dice, seconds, voxel share of 600 iterations of CPS.
MEASURED = [
    ("cps", 1.0, 0.824, 243.0, 1.0),
    ("pgps", 1.0, 0.792, 111.0, 0.347),
    ("cps", 0.5, 0.742, 109.0, 0.5),
    ("pgps", 0.5, 0.674, 50.0, 0.174),
    ("cps", 0.25, 0.374, 56.0, 0.25),
    ("pgps", 0.25, 0.165, 35.0, 0.0875),
]


def published(**changes: list) -> StudyResults:
    """Points of the table in docs/measurements.md, without cases."""
    names = ("method", "budget", "dice", "runtime_seconds", "voxels")
    columns = dict(zip(names, map(list, zip(*MEASURED, strict=True)), strict=True))
    return StudyResults(tables=tables_of({}), points=make_points(**columns, energy_kwh=[np.nan] * 6, **changes))


def test_the_readmes_table_at_equal_time() -> None:
    rows = equal_cost(published(), "cps", ["pgps"]).set_index(["measured", "budget", "cost"])
    ours = rows.loc[("pgps", 1.0, "runtime_seconds")]
    assert (ours["measured_dice"], ours["other_dice"]) == pytest.approx((0.792, 0.742), abs=0.002)
    assert ours["difference"] == pytest.approx(0.792 - (0.742 + 0.082 * 2 / 134))
    theirs = rows.loc[("cps", 0.5, "runtime_seconds")]
    assert theirs["other_dice"] == pytest.approx(0.674 + 0.118 * 59 / 61)
    assert theirs["difference"] == pytest.approx(theirs["other_dice"] - 0.742)
    assert rows.loc[("pgps", 1.0, "voxels"), "other_dice"] == pytest.approx(0.374 + 0.368 * 0.097 / 0.25)


def test_nothing_is_extrapolated_and_what_was_not_measured_is_absent() -> None:
    rows = equal_cost(published(), "cps", ["pgps"])
    assert set(rows["cost"]) == {"runtime_seconds", "voxels"}
    reached = set(map(tuple, rows.loc[rows["cost"] == "runtime_seconds", ["measured", "budget"]].to_numpy()))
    # 243 s are beyond PGPS' line, 50 and 35 s below that of CPS.
    assert reached == {("pgps", 1.0), ("cps", 0.5), ("cps", 0.25)}


@pytest.mark.parametrize("changes", [{"hardware": ["a", "b"] * 3}, {"cpus": [1.0, 2.0] * 3}])
def test_other_machines_have_voxels_alone(changes: dict) -> None:
    assert set(equal_cost(published(**changes), "cps", ["pgps"])["cost"]) == {"voxels"}


def test_other_folds_are_another_line() -> None:
    assert equal_cost(published().of("x"), "cps", ["rpss"]).empty
    results = published()
    points = results.points.assign(folds=["0", "0 1"] * 3)
    assert equal_cost(StudyResults(tables=results.tables, points=points), "cps", ["pgps"]).empty


def test_table_and_sentence_say_both() -> None:
    rows = equal_cost(published(), "cps", ["pgps"])
    table = equal_cost_table(rows)
    assert table.headings[-2:] == (
        "Its Dice at equal training time (difference)",
        "Its Dice at equal voxels (difference)",
    )
    assert table.rows[0][:4] == ("PGPS", "100 %", "0.7920", "CPS")
    assert table.rows[0][4] == "0.7432 (+0.0488)"
    said = equal_cost_sentences(rows)[1]
    assert "training time of PGPS at 100 % (111 s) it has Dice 0.7920, CPS 0.7432 (+0.0488)" in said


def test_with_cases_the_difference_has_an_interval_and_stands_in_compare(tmp_path: Path, capsys) -> None:
    study = make_study(tmp_path / "s", budgets=(1.0, 0.5, 0.25), n_cases=12)
    assert main(["compare", str(study.root), "--against", "pgps", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["equal_cost"]
    assert rows and all(row["low"] < row["difference"] < row["high"] for row in rows)
    assert main(["compare", str(study.root), "--against", "pgps"]) == 0
    said = capsys.readouterr().out
    assert "Dice at equal cost" in said
    assert "Elsewhere a kWh is 33.1 g (PUE 1.1, NOR) to 1.14 kg (PUE 1.6, IND)." in said


def two_seeds(root: Path) -> Ledger:
    study = Ledger.create(root)
    for fold in (0, 1):
        for seed, apart in enumerate((-0.003, 0.003)):
            for scheme, dice in (("cps", 0.80), ("pgps", 0.81)):
                spec = make_spec(scheme, fold=fold, seed=seed)
                finish_trial(study, spec, dice=dice + apart + 0.01 * fold, seconds=9, n_cases=20)
    return study


def test_power_tells_sources_apart(tmp_path: Path) -> None:
    comparison = compare(gather([two_seeds(tmp_path / "s").root]))
    row = power(comparison.rows).iloc[0]
    assert row["training_sd"] == pytest.approx(0.003 * np.sqrt(2))
    assert not row["assumed"]
    assert row["fold_sd"] == pytest.approx(0, abs=1e-12)
    assert row["from_cases"] == pytest.approx(smallest_difference(row["case_sd"] / np.sqrt(40)))
    # Two folds with two seeds: four trainings of each.
    assert row["with_2"] == pytest.approx(
        smallest_difference(np.sqrt(row["case_sd"] ** 2 / 40 + 2 * row["training_sd"] ** 2 / 4))
    )
    assert row["with_1"] > row["with_2"] > row["with_3"] > row["with_5"] > row["from_cases"]
    # The study itself has to estimate both SDs.
    assert row["detectable"] > row["with_2"]


@pytest.mark.cluster
def test_one_seed_assumes_and_says_so(tmp_path: Path, capsys) -> None:
    study = make_study(tmp_path / "s", n_cases=12)
    rows = power(compare(gather([study.root])).rows, training_sd=0.002)
    assert rows["assumed"].all()
    assert (rows["training_sd"] == 0.002).all()
    assert "SD of seeds 0.002 is assumed in 5 of 5 rows" in power_sentences(rows)[-1]
    assert main(["power", str(study.root)]) == 0
    said = capsys.readouterr().out
    assert "Smallest difference of Dice that can be shown" in said
    assert "SD of seeds 0.004 is assumed" in said

"""Schemes against a baseline, on studies written through the real ledger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ledgers import NO_METER, complete, finish_trial, make_result, make_spec, make_study, start_trial
from scipy.stats import wilcoxon

from analysis.comparison.compare import Comparison, compare, joined_with, significant
from analysis.comparison.pairs import RATIOS, ROW_COLUMNS, SUMMARY_COLUMNS
from analysis.comparison.reference import load
from analysis.comparison.text import cost_table, dice_table, notes, summary_sentences, whole_table
from analysis.statistics.study_results import StudyResults, gather
from analysis.tables.columns import Column
from study.common.errors import InvalidInputError
from study.store.ledger import Ledger
from study.store.specification import TrainingSettings

SETTINGS = TrainingSettings(optimizer="adamw", epochs=10, iterations_per_epoch=20)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    root = tmp_path_factory.mktemp("studies") / "hippo"
    make_study(root, folds=(0, 1), budgets=(1.0, 0.5), n_cases=20)
    return gather([root])


def finish(study: Ledger, scheme: str, cases: dict[str, float], *, fold: int = 0, seed: int = 0, **more: Any) -> None:
    """A finished trial with these Dice per case."""
    spec = make_spec(scheme, fold=fold, seed=seed, training=more.pop("training", SETTINGS), **more.pop("axes", {}))
    folder = start_trial(study, spec, seconds=more.pop("seconds", 10.0), **more)
    mean = float(np.nanmean(list(cases.values())))
    by_class = {case: {"1": dice} for case, dice in cases.items()}
    per_class = {"dice_per_class": {"1": mean}, "dice_per_case_and_class": by_class}
    complete(folder, replace(make_result(spec, mean), dice_per_case=cases, **per_class))


def only(comparison: Comparison) -> pd.Series:
    assert len(comparison.rows) == 1
    return comparison.rows.iloc[0]


def test_by_hand(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    finish(study, "cps", {"a": 0.5, "b": 0.6, "c": 0.7}, seconds=100)
    finish(study, "pgps", {"a": 0.6, "b": 0.5, "c": 1.0}, seconds=40)
    row = only(compare(gather([study.root]), against=["pgps"]))
    assert row["dice_difference"] == pytest.approx(0.1)
    assert row["standard_error"] == pytest.approx(np.std([0.1, -0.1, 0.3], ddof=1) / np.sqrt(3))
    assert row["median_difference"] == pytest.approx(0.1)
    assert row["runtime_ratio"] == pytest.approx(0.4)
    # Ranks 1.5 and 1.5 with opposite signs, 3 with a plus.
    assert row["effect_size"] == pytest.approx(3 / 6)
    assert row["p"] == wilcoxon(np.round([0.1, -0.1, 0.3], 12), alternative="greater").pvalue


def test_against_scipy_over_all_folds(study: StudyResults) -> None:
    comparison = compare(study, against=["pgps"])
    trials = study.tables.trials.query("budget == 1 and method in ['cps', 'pgps']")
    cases = study.tables.cases.query("label == 'foreground'").merge(trials, on=["study", "trial_id"])
    wide = cases.pivot(index="case", columns="method", values="dice_x")
    difference = (wide["pgps"] - wide["cps"]).round(12)
    row = comparison.rows.query("budget == 1").iloc[0]
    assert row["n_cases"] == 40
    assert row["p"] == pytest.approx(wilcoxon(difference, alternative="greater").pvalue)
    assert row["dice_difference"] == pytest.approx(difference.mean())


def test_every_published_scheme_at_every_budget_and_no_searched_one(study: StudyResults) -> None:
    rows = compare(study).rows
    assert list(rows.columns) == [column.name for column in ROW_COLUMNS]
    assert rows["against"].tolist() == ["PGPS", "PGPS+", "RPSS", "Efficiency", "Performance"] * 2
    assert rows["budget"].tolist() == [1.0] * 5 + [0.5] * 5
    assert (rows["source"] == "trials").all()


def test_only_folds_and_cases_of_both_count(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    finish(study, "cps", {"a": 0.5, "b": 0.5}, fold=0)
    finish(study, "cps", {"z": 0.0}, fold=1)
    finish(study, "pgps", {"a": 0.6, "new": 0.9}, fold=0)
    comparison = compare(gather([study.root]))
    row = only(comparison)
    assert (row["folds"], row["folds_left_out"]) == ("0", "1")
    assert (row["baseline_dice"], row["n_cases"], row["n_unpaired"]) == (0.5, 1, 2)
    assert "Folds left out, which only one of the two has: 1." in notes(comparison)
    assert "2 cases of only one of the two left out." in notes(comparison)


def test_seeds_are_averaged_and_cases_without_dice_dropped_by_name(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    finish(study, "cps", {"a": 0.5, "b": 0.5, "c": 0.5})
    finish(study, "pgps", {"a": 0.6, "b": 0.6, "c": float("nan")}, seed=0)
    finish(study, "pgps", {"a": 0.8, "b": float("nan"), "c": float("nan")}, seed=1)
    comparison = compare(gather([study.root]))
    row = only(comparison)
    # Seeds have 0.6 on two cases and 0.8 on one, nnU-Net's means; the test pairs a with 0.7 and b with 0.6.
    assert row["dice_difference"] == pytest.approx(0.7 - 0.5)
    assert row["median_difference"] == pytest.approx((0.2 + 0.1) / 2)
    assert (row["n_cases"], row["n_dropped"], row["dropped_cases"]) == (2, 1, "c")
    assert "1 case without Dice dropped: c." in notes(comparison)
    assert "Dropped for want of a Dice: 1 pair." in notes(comparison)
    assert "Different seeds: 0 and 0, 1." in notes(comparison)


def test_direction_is_said_and_can_be_turned(study: StudyResults) -> None:
    up, down = compare(study, against=["rpss"]), compare(study, against=["rpss"], alternative="less")
    assert up.rows["p"].iloc[0] > 0.99
    assert down.rows["p"].iloc[0] < 0.001
    assert "Positive ΔDice: above CPS. Dice are means over the folds that both have, in a fold over seeds." in notes(up)
    assert any("that the method is below CPS" in sentence for sentence in notes(down))


def test_holm_is_over_every_comparison_of_the_table(tmp_path: Path) -> None:
    roots = []
    for number in range(3):
        make_study(tmp_path / f"s{number}", n_cases=8 + number, dataset=f"Dataset00{number}_Task")
        roots.append(tmp_path / f"s{number}")
    results = gather(roots)
    comparison = compare(results, against=["pgps", "rpss"])
    assert len(comparison.rows) == 6
    # The smallest of 6 is multiplied by 6.
    assert comparison.rows["p_holm"].min() == pytest.approx(min(1, 6 * comparison.rows["p"].min()))
    assert "Holm p: p of cases corrected over the 6 comparisons of this table." in notes(comparison)
    assert (comparison.summary["n_tasks"] == 3).all()
    assert len(summary_sentences(comparison)) == 2


def test_a_single_comparison_has_no_correction(study: StudyResults) -> None:
    trial = study.points.query("method == 'rpss' and budget == 1")["point_id"].item()
    comparison = compare(study, against=[trial])
    assert pd.isna(only(comparison)["p_holm"])
    assert "Holm p" not in dice_table(comparison).headings
    assert not any("Holm" in sentence for sentence in notes(comparison))


def seeded(tmp_path: Path, *, seeds: int, gain: float = 0.02, folds: int = 1) -> Comparison:
    """CPS and PGPS, whose trainings scatter by some thousandths."""
    study, rng = Ledger.create(tmp_path / f"s{seeds}{gain}"), np.random.default_rng(0)
    for fold in range(folds):
        easy = rng.normal(0.8, 0.05, 60)
        for scheme, better in (("cps", 0.0), ("pgps", gain)):
            for seed in range(seeds):
                dice = easy + better + rng.normal(0, 0.002) + rng.normal(0, 0.02, 60)
                finish(study, scheme, {f"{fold}_{n}": float(d) for n, d in enumerate(dice)}, fold=fold, seed=seed)
    return compare(gather([study.root]))


def test_one_seed_has_no_star_and_says_why(tmp_path: Path) -> None:
    comparison = seeded(tmp_path, seeds=1)
    row = only(comparison)
    assert row["p"] < 1e-4
    assert row[["p_trainings", "baseline_training_sd", "against_training_sd"]].isna().all()
    assert row["covers"] == "cases"
    assert not significant(comparison.rows).any()
    assert "*" not in "".join(dice_table(comparison).rows[0])
    said = " ".join(notes(comparison))
    assert "With one training per fold of a method, p, interval and SE are about the choice of cases alone" in said
    assert "no star is given" in said


def test_seeds_are_in_p_and_interval_and_may_earn_a_star(tmp_path: Path) -> None:
    several = seeded(tmp_path, seeds=3)
    row = only(several)
    assert row["covers"] == "cases and trainings"
    assert row["p"] < row["p_trainings"] < 0.05
    assert row["false_outperformance"] == row["p_trainings"]
    assert "False claim" not in dice_table(several).headings
    assert significant(several.rows).all()
    assert dict(zip(dice_table(several).headings, dice_table(several).rows[0], strict=True))["p"].endswith("*")
    assert row["standard_error"] > row["case_sd"] / np.sqrt(60)


def test_trainings_of_one_side_alone_are_not_enough(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    cases = {f"{n}": 0.7 + 0.01 * (n % 7) for n in range(20)}
    finish(study, "cps", cases)
    for seed in (0, 1):
        finish(study, "pgps", {case: dice + 0.1 + 0.001 * seed for case, dice in cases.items()}, seed=seed)
    comparison = compare(gather([study.root]))
    assert only(comparison)["covers"] == "cases"
    assert not significant(comparison.rows).any()


def test_seeds_in_different_folds_are_one_training_per_fold(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    for fold in (0, 1):
        for scheme, dice in (("cps", 0.7), ("pgps", 0.8)):
            finish_trial(study, make_spec(scheme, fold=fold, seed=fold), dice=dice, seconds=9, n_cases=20)
    assert only(compare(gather([study.root])))["covers"] == "cases"


def test_what_the_search_emitted_beside_what_it_saves(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    finish_trial(study, make_spec("cps"), dice=0.8, seconds=100)
    finish_trial(study, make_spec("pgps"), dice=0.8, seconds=40)
    start_trial(study, make_spec("rpss"), seconds=500)
    results = gather([study.root])
    comparison, trials = compare(results), results.tables.trials
    co2 = trials.set_index("method")["co2_kg"]
    # All of them, with set-up, validation and the trial that came to nothing.
    expected = trials["total_co2_kg"].sum() / (co2["cps"] - co2["pgps"])
    assert only(comparison)["break_even"] == pytest.approx(expected)
    assert any(f"({int(np.ceil(expected))} trainings)." in note for note in notes(comparison))


def test_skewed_differences_are_warned_about(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    cases = {f"{n}": 0.7 + 0.01 * (n % 7) for n in range(60)}
    finish(study, "cps", cases)
    finish(study, "pgps", {case: 0.0 if case == "3" else dice + 0.01 for case, dice in cases.items()})
    assert any("cases too skewed for their number (60 where" in note for note in notes(compare(gather([study.root]))))


def test_mean_and_population_sd_over_tasks(tmp_path: Path) -> None:
    roots = []
    for number, seconds in enumerate((40.0, 60.0)):
        study = Ledger.create(tmp_path / f"s{number}")
        name = f"Dataset00{number}_Task"
        finish_trial(study, make_spec("cps", dataset=name), dice=0.5, seconds=100)
        finish_trial(study, make_spec("pgps", dataset=name), dice=0.5 + 0.1 * number, seconds=seconds)
        roots.append(study.root)
    comparison = compare(gather(roots))
    summary = comparison.summary.iloc[0]
    assert list(comparison.summary.columns) == [column.name for column in SUMMARY_COLUMNS]
    assert (summary["runtime_ratio_mean"], summary["runtime_ratio_sd"]) == pytest.approx((0.5, 0.1))
    assert (summary["tasks_higher"], summary["tasks_equal"], summary["tasks_lower"]) == (1, 1, 0)
    assert summary["dice_gain_where_higher_mean"] == pytest.approx(0.2)
    assert "runtime 50.00 % ± 10.00 %" in summary_sentences(comparison)[0]


@pytest.mark.parametrize(
    ("header", "lost", "words"),
    [
        ({"cpu_name": "Other CPU"}, {"runtime_ratio", "energy_ratio", "co2_ratio"}, "different hardware"),
        ({"cpus": 1}, {"runtime_ratio", "energy_ratio", "co2_ratio"}, "different shares of the cpus"),
        ({"meter": NO_METER}, {"energy_ratio", "co2_ratio"}, "energy read in different ways"),
        ({"concurrent_trials": 2}, set(), "different numbers of trials on the machine at once"),
    ],
)
def test_costs_of_different_machines_are_not_compared(header: dict, lost: set[str], words: str, tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    finish(study, "cps", {"a": 0.5})
    finish(study, "pgps", {"a": 0.6}, **header)
    comparison = compare(gather([study.root]))
    row = only(comparison)
    assert {name for name in RATIOS if np.isnan(row[name])} == lost
    assert any(words in sentence.lower() for sentence in notes(comparison))
    assert row["voxel_ratio"] < 0.5


def test_unmeasured_energy_has_no_ratio(tmp_path: Path) -> None:
    make_study(tmp_path / "s", measured=False)
    comparison = compare(gather([tmp_path / "s"]))
    assert comparison.rows["energy_ratio"].isna().all()
    assert comparison.rows["runtime_ratio"].notna().all()
    assert "Energy" not in cost_table(comparison).headings


def test_training_settings_must_agree(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    other = replace(SETTINGS, initial_learning_rate=0.1)
    finish(study, "cps", {"a": 0.5})
    finish(study, "pgps", {"a": 0.6}, training=other)
    results = gather([study.root])
    comparison = compare(results)
    assert comparison.rows.empty
    assert [text.split(" with the same")[0] for text in comparison.missing] == ["No PGPS", "No CPS"]
    ids = dict(zip(results.points["method"], results.points["point_id"], strict=True))
    by_id = compare(results, baseline=ids["cps"], against=[ids["pgps"][:8]])
    assert "Settings differ: learning rate 0.003 and 0.1." in notes(by_id)
    assert only(by_id)["dice_difference"] == pytest.approx(0.1)


def test_the_foreground_share_may_follow_the_scheme(study: StudyResults) -> None:
    assert compare(study, against=["pgps"]).foreground.endswith("CPS 33 %, PGPS 50 %.")


def test_several_configurations_of_a_scheme_are_listed_and_not_guessed(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    finish(study, "cps", {"a": 0.5})
    finish(study, "pgps", {"a": 0.6})
    finish(study, "pgps", {"a": 0.7}, training=replace(SETTINGS, foreground_oversampling=0.33))
    results = gather([study.root])
    comparison = compare(results)
    assert comparison.rows.empty
    ids = results.points.loc[results.points["method"] == "pgps", "point_id"]
    assert comparison.ambiguous[0].startswith("2 configurations are PGPS on Dataset004_Hippocampus at 100 %")
    assert all(name in comparison.ambiguous[0] for name in ids)
    assert only(compare(results, against=[ids.iloc[1]]))["dice_difference"] == pytest.approx(0.2)


def test_trial_ids_name_their_configuration(study: StudyResults) -> None:
    trial = study.points.query("method == 'rpss' and budget == 1")["trial_ids"].item().split()[1]
    row = only(compare(study, against=[trial]))
    assert (row["against_method"], row["against"]) == ("rpss", trial)


@pytest.mark.parametrize("word", ["pgsp", "", "zzzz", "other"])
def test_a_word_that_names_nothing_is_one_line(word: str, study: StudyResults) -> None:
    with pytest.raises(InvalidInputError, match=r"against: .*finished here: cps, pgps, pgps\+, rpss"):
        compare(study, against=[word])


def test_published_rows_join_those_of_the_same_task(study: StudyResults) -> None:
    both = joined_with(compare(study, against=["pgps", "pgps+"]), compare(load("miccai2024")))
    published = both.rows[both.rows["source"] == "miccai2024 (published)"]
    assert published["against"].tolist() == ["PGPS", "PGPS+"]
    assert set(published["dataset"]) == {"Dataset004_Hippocampus"}
    assert published["p"].isna().all()
    assert "Source" in whole_table(both).headings
    assert any("published means, no cases" in sentence for sentence in notes(both))


def test_empty_failed_and_single() -> None:
    empty = replace_points(load("miccai2024"), keep=0)
    for comparison in (compare(empty), compare(replace_points(load("miccai2024"), keep=1))):
        assert comparison.rows.empty
        assert comparison.summary.empty
        assert summary_sentences(comparison) == []
        assert dice_table(comparison).rows == ()


def replace_points(results: StudyResults, *, keep: int) -> StudyResults:
    return replace(results, points=results.points.iloc[:keep])


def test_the_same_again(study: StudyResults) -> None:
    pd.testing.assert_frame_equal(*(compare(study, against=["pgps"]).rows for _ in range(2)))


@pytest.mark.parametrize("columns", [ROW_COLUMNS, SUMMARY_COLUMNS])
def test_columns_are_described_once(columns: tuple[Column, ...]) -> None:
    names = [column.name for column in columns]
    assert len(names) == len(set(names))
    assert all(column.meaning for column in columns)


def test_a_baseline_is_not_compared_with_itself(study: StudyResults) -> None:
    with pytest.raises(InvalidInputError, match="against: received 'cps', legal is anything but the baseline itself"):
        compare(study, against=["pgps", "cps"])


def test_two_settings_of_a_dataset_are_two_rows_and_said(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    for training in (SETTINGS, replace(SETTINGS, initial_learning_rate=0.1)):
        for scheme, dice in (("cps", 0.5), ("pgps", 0.6)):
            finish(study, scheme, {"a": dice}, training=training)
    comparison = compare(gather([study.root]))
    assert len(comparison.rows) == 2
    assert "Several plans or training settings of a dataset count as separate tasks." in notes(comparison)

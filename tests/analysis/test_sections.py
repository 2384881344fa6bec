"""The sections of a report: which items a study has, what they say, and what is missing and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledgers import finish_trial, make_spec, make_study, start_trial

from analysis.figures.display_items import DisplayItem, Section
from analysis.figures.style import NARROW
from analysis.fronts.front import pareto_front
from analysis.page.papers import papers
from analysis.page.sections import certainty, costs, effects, fronts, weaknesses
from analysis.statistics.study_results import StudyResults, gather, results_of
from analysis.tables.columns import CASE_COLUMNS, TRIAL_COLUMNS, dtypes
from analysis.tables.frame import Tables
from study.store.ledger import Ledger

Chapter = Callable[[StudyResults], Section]
FRONTS = ["pareto_dice_runtime", "pareto_dice_voxels", "hypervolume"]
PAPERS = [
    *("dice_difference", "dice_per_case", "comparison", "equal_cost", "dice_by_budget", "results_by_scheme"),
    *("time_to_dice", "patch_batch_sizes"),
]
COSTS = ["cost_by_cause", "cost_by_stage", "hypervolume_over_hours"]
FAILS = ["worst_cases", "front_by_class"]
SURE = ["attainment_dice_runtime", "learning_curves"]
EFFECTS = ["importances", "dice_and_cost_by_setting"]
# Energy of the made-up trials is a constant wattage.
IN_OTHER_UNITS = [f"Dice against training {one} is not drawn" for one in ("energy", "CO₂")]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    root = tmp_path_factory.mktemp("studies") / "hippo"
    return gather([make_study(root, folds=(0, 1), budgets=(1.0, 0.5), n_cases=8, curve=True).root])


def stems(section: Section) -> list[str]:
    return [item.stem for item in section.items]


def item_of(section: Section, stem: str) -> DisplayItem:
    return next(item for item in section.items if item.stem == stem)


@pytest.mark.parametrize(
    ("chapter", "expected"),
    [
        (fronts, FRONTS),
        (papers, PAPERS),
        (costs, COSTS),
        (weaknesses, FAILS),
        (certainty, SURE),
        (effects, EFFECTS),
    ],
)
def test_a_whole_study_has_every_item(results: StudyResults, chapter: Chapter, expected: list[str]) -> None:
    section = chapter(results)
    assert stems(section) == expected
    expected_missing = {"fronts": IN_OTHER_UNITS, "weaknesses": ["No pictures of the worst cases: no prediction"]}
    started = expected_missing.get(chapter.__name__, [])
    assert all(map(str.startswith, section.missing, started)) and len(section.missing) == len(started)


def trials(*schemes: str, folds: tuple[int, ...] = (0, 0), finish: bool = True) -> Callable[[Ledger], None]:
    """A trial of each scheme, with a curve, on its fold."""

    def fill(study: Ledger) -> None:
        for scheme, fold in zip(schemes, folds, strict=False):
            if finish:
                finish_trial(study, make_spec(scheme, fold=fold), dice=0.0, seconds=30, curve=True)
            else:
                start_trial(study, make_spec(scheme, fold=fold), seconds=3).fail(reason="it broke", attempt=0)

    return fill


ALONE, UNPAIRED = ["results_by_scheme", PAPERS[-1]], ["comparison", *PAPERS[-3:]]
NONE_PUBLISHED = "Table 1, Fig. 3 and the patch sizes need a finished trial of a published scheme; there is none."


@pytest.mark.parametrize(
    ("chapter", "fill", "expected", "missing"),
    [
        (fronts, trials(), [], "No front: it needs a finished trial (no trials)."),
        (fronts, trials("cps", finish=False), [], "No front: it needs a finished trial (1 trial: 1 failed)."),
        (fronts, trials("cps"), ["pareto_dice_runtime", "pareto_dice_energy", "pareto_dice_co2", *FRONTS[1:]], None),
        (certainty, trials("cps"), SURE[1:], "No figure of attainment: no scheme has configurations"),
        (costs, trials(), [], "No cost of a result yet: it takes a finished trial (no trials)."),
        (costs, trials("cps"), COSTS[:2], "Hypervolume against hours: it takes two finished configurations"),
        (weaknesses, trials(), [], "No case was validated: it takes a finished trial (no trials)."),
        (papers, trials(), [], NONE_PUBLISHED),
        (papers, trials("cps", finish=False), [], NONE_PUBLISHED),
        (papers, trials("cps"), ALONE, "Fig. 3 and the comparison need a finished trial of a scheme other than CPS;"),
        (papers, trials("pgps"), ALONE, "Fig. 3 and the comparison need finished trials of CPS; there is none."),
        (papers, trials("cps", "pgps", folds=(0, 1)), UNPAIRED, "Fig. 3 needs CPS and another scheme with the same"),
        (effects, trials(), [], "Nothing can be explained yet: it takes a finished trial (no trials)."),
        (effects, trials("cps", finish=False), [], "Nothing can be explained yet: it takes a finished trial (1 trial:"),
        (effects, trials("cps"), [], "Importances: they take at least 8 configurations that differ in an"),
    ],
)
def test_what_a_study_lacks_is_said(
    tmp_path: Path, chapter: Chapter, fill: Callable[[Ledger], None], expected: list[str], missing: str | None
) -> None:
    study = Ledger.create(tmp_path / "study")
    fill(study)
    section = chapter(gather([study.root]))
    assert stems(section) == expected
    assert section.missing[0].startswith(missing) if missing else not section.missing
    # A Dice of 0 everywhere, one point, one curve: all can be drawn.
    for item in section.items:
        assert item.draw is None or item.draw(NARROW).axes


def test_several_datasets_have_items_each(tmp_path: Path) -> None:
    names = ("Dataset001_A", "Dataset002_B")
    found = gather([make_study(tmp_path / name, dataset=name, n_cases=8, curve=True).root for name in names])
    for chapter, each in ((fronts, FRONTS), (effects, EFFECTS), (costs, COSTS), (weaknesses, FAILS)):
        section = chapter(found)
        assert stems(section) == [f"{stem}_{name}" for name in names for stem in each]
        assert all(item.heading.endswith(f", {names[1]}") for item in section.items[len(each) :])
        assert all(sentence.startswith("Dataset00") for sentence in section.missing)


def test_unmeasured_energy_is_left_out_and_said(tmp_path: Path) -> None:
    found = gather([make_study(tmp_path / "dark", measured=False, curve=True).root])
    section = fronts(found)
    assert "pareto_dice_co2" not in stems(section)
    assert section.missing[1].startswith("No figure of Training CO₂: it was not measured completely")
    assert {row[-1] for row in item_of(costs(found), "cost_by_cause").table.rows} == {"–"}
    assert "voxels" in set(item_of(effects(found), "importances").data["target"])
    assert {row[7] for row in item_of(papers(found), "results_by_scheme").table.rows} == {"–"}


def test_different_hardware_is_said_and_has_fronts_of_its_own(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for cpu, schemes in (("Slow CPU", ("cps", "rpss")), ("Fast CPU", ("pgps", "pgps+"))):
        for scheme in schemes:
            for budget in (0.5, 0.75, 1.0):
                finish_trial(study, make_spec(scheme, budget=budget), dice=0.8, seconds=30 * budget, cpu_name=cpu)
    sections = {chapter.__name__: chapter(gather([study.root])) for chapter in (fronts, papers, effects, costs)}
    for name, told in (
        ("fronts", ("pareto_dice_runtime", "hypervolume")),
        ("papers", ("results_by_scheme", "dice_by_budget")),
        ("effects", ("importances", "dice_and_cost_by_setting")),
        ("costs", ("cost_by_cause",)),
    ):
        for stem in told:
            assert "ifferent hardware" in " ".join(item_of(sections[name], stem).notes), stem
    by_hardware = [stem for stem in stems(sections["fronts"]) if stem.endswith("by_hardware")]
    assert by_hardware == ["pareto_dice_runtime_by_hardware"]
    data = item_of(sections["fronts"], by_hardware[0]).data
    assert data.loc[data["non_dominated"], "hardware"].unique().tolist() == ["Fast CPU", "Slow CPU"]
    assert "Hardware" in item_of(sections["papers"], "results_by_scheme").table.headings
    ratios = item_of(sections["papers"], "comparison").data.set_index("against")["runtime_ratio"]
    assert ratios["PGPS"].isna().all() and ratios["RPSS"].notna().all()


def test_the_table_of_a_front_has_interval_probability_and_contribution(results: StudyResults) -> None:
    item = item_of(fronts(results), "pareto_dice_runtime")
    front = pareto_front(results.points, ("dice", "runtime_seconds"))
    assert item.data is not None and item.table is not None
    assert len(item.data) == len(front.points) == 16
    best = item.data[item.data["non_dominated"]]
    ids = front.best["point_id"].tolist()
    assert best["point_id"].tolist() == ids == item.data["point_id"][: len(best)].tolist()
    assert item.data["probability"].between(0, 1).all()
    assert best["contribution"].gt(0).all()
    assert not item.data.loc[~item.data["non_dominated"], "contribution"].any()
    assert {"No.", "Dice, from", "Dice, to", "P(on front)", "Own share", "Folds used"} <= set(item.table.headings)
    likely = item.data["non_dominated"] | (item.data["probability"] >= 0.1)
    assert len(item.table.rows) == likely.sum()
    assert any("validation cases, not over seeds, drawn again" in sentence for sentence in item.notes)
    assert any("reference point Dice" in sentence for sentence in item.notes)


def test_the_table_of_hypervolumes_names_its_reference_points(results: StudyResults) -> None:
    item = item_of(fronts(results), "hypervolume")
    assert item.draw is None and item.table is not None and item.data is not None
    assert len(item.table.rows) == 1 + 7 + 2
    assert len(item.data) == 2 * len(item.table.rows)
    assert "Training time 10" in item.notes[0]
    assert {"all", "scheme", "budget"} == {row[1] for row in item.table.rows}
    # Every share stands in the column of its cost.
    for place, (_, rows) in enumerate(item.data.groupby("objectives", sort=False), start=3):
        assert [row[place] for row in item.table.rows] == [f"{share:.4f}" for share in rows["share"]]


def test_a_thousand_trials_on_many_cases_are_a_thousand_points() -> None:
    count, cases = 1000, 52
    rng = np.random.default_rng(0)
    blank = {"str": "x", "Int64": 1, "float64": 1.0, "boolean": True}
    dice, names = rng.beta(20, 4, count), [f"t{n:05d}" for n in range(count)]
    trials = pd.DataFrame({c.name: [blank[c.dtype]] * count for c in TRIAL_COLUMNS}).assign(
        **dict.fromkeys(("trial_id", "point_id"), names),
        state="finished",
        method="other",
        batch_growth="1",
        order="growing",
        dice=dice,
        stage_table='[{"patch_size": [8, 8], "batch_size": 2}]',
        runtime_seconds=rng.random(count) * 900 + 100,
        co2_kg=rng.random(count),
        voxels=1e9 * dice,
    )
    each = {"trial_id": np.repeat(names, cases), "case": np.tile([f"c{n}" for n in range(cases)], count)}
    scores = np.clip(np.repeat(dice, cases) + rng.normal(0, 0.05, count * cases), 0, 1)
    rows = pd.DataFrame({"study": "x", **each, "label": "1", "dice": scores})
    nothing = pd.DataFrame({"study": [], "trial_id": []})
    tables = Tables(
        trials=trials.astype(dtypes(TRIAL_COLUMNS)),
        cases=rows.reindex(columns=list(dtypes(CASE_COLUMNS))).astype(dtypes(CASE_COLUMNS)),
        epochs=nothing,
        costs=nothing,
    )
    assert len(item_of(fronts(results_of(tables)), "pareto_dice_runtime").data) == count

"""The section of fronts: which exhibits, what they say, what is missing and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledgers import finish_trial, make_spec, make_study, start_trial

from analysis.figures.exhibits import Exhibit, Section
from analysis.figures.style import NARROW
from analysis.fronts.front import pareto_front
from analysis.page.fronts import fronts
from analysis.statistics.evidence import Evidence, evidence_of, gather
from analysis.tables.columns import CASE_COLUMNS, TRIAL_COLUMNS, dtypes
from analysis.tables.frame import Tables
from study.store.ledger import Ledger

KINDS = ("runtime", "co2", "voxels")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    root = tmp_path_factory.mktemp("studies") / "hippo"
    return gather([make_study(root, folds=(0, 1), budgets=(1.0, 0.5), n_cases=8).root])


@pytest.fixture(scope="module")
def section(evidence: Evidence) -> Section:
    return fronts(evidence)


def stems(section: Section) -> list[str]:
    return [exhibit.stem for exhibit in section.exhibits]


def exhibit_of(section: Section, stem: str) -> Exhibit:
    return next(exhibit for exhibit in section.exhibits if exhibit.stem == stem)


def test_the_exhibits_of_a_whole_study(section: Section) -> None:
    plots = [f"pareto_dice_{kind}{by}" for kind in KINDS for by in ("", "_by_budget")]
    others = ["pareto_three_objectives", "front_by_class", "attainment_dice_runtime", "hypervolume"]
    assert stems(section) == [*plots, *others]
    assert section.missing == ()


def test_the_table_of_a_front_has_interval_probability_and_contribution(section: Section, evidence: Evidence) -> None:
    exhibit = exhibit_of(section, "pareto_dice_runtime")
    front = pareto_front(evidence.points, ("dice", "runtime_seconds"))
    assert exhibit.data is not None and exhibit.table is not None
    assert len(exhibit.data) == len(front.points) == 16
    best = exhibit.data[exhibit.data["non_dominated"]]
    ids = front.best["point_id"].tolist()
    assert best["point_id"].tolist() == ids == exhibit.data["point_id"][: len(best)].tolist()
    assert exhibit.data["probability"].between(0, 1).all()
    assert best["contribution"].gt(0).all()
    assert not exhibit.data.loc[~exhibit.data["non_dominated"], "contribution"].any()
    assert {"No.", "Dice, from", "Dice, to", "P(on front)", "Own share", "Folds used"} <= set(exhibit.table.headings)
    likely = exhibit.data["non_dominated"] | (exhibit.data["probability"] >= 0.1)
    assert len(exhibit.table.rows) == likely.sum()
    assert any("validation cases, not over seeds, drawn again" in sentence for sentence in exhibit.notes)
    assert any("reference point Dice" in sentence for sentence in exhibit.notes)


def test_the_table_of_hypervolumes_names_its_reference_points(section: Section) -> None:
    exhibit = exhibit_of(section, "hypervolume")
    assert exhibit.draw is None and exhibit.table is not None and exhibit.data is not None
    assert len(exhibit.table.rows) == 1 + 7 + 2
    assert len(exhibit.data) == 3 * len(exhibit.table.rows)
    assert "Training time 10" in exhibit.notes[0]
    assert {"all", "scheme", "budget"} == {row[1] for row in exhibit.table.rows}
    # Every share stands in the column of its cost.
    for place, (_, rows) in enumerate(exhibit.data.groupby("objectives", sort=False), start=3):
        assert [row[place] for row in exhibit.table.rows] == [f"{share:.4f}" for share in rows["share"]]


def test_several_datasets_have_exhibits_each(tmp_path: Path) -> None:
    roots = [make_study(tmp_path / name, dataset=name).root for name in ("Dataset001_A", "Dataset002_B")]
    section = fronts(gather(roots))
    assert {"pareto_dice_runtime_Dataset001_A", "pareto_dice_runtime_Dataset002_B"} <= set(stems(section))
    assert exhibit_of(section, "hypervolume_Dataset002_B").heading.endswith(", Dataset002_B")
    assert len(set(stems(section))) == len(stems(section))
    assert section.missing and all(sentence.startswith("Dataset00") for sentence in section.missing)


def test_unmeasured_energy_leaves_out_its_figure_and_takes_voxels_as_third(tmp_path: Path) -> None:
    section = fronts(gather([make_study(tmp_path / "study", measured=False).root]))
    assert "pareto_dice_co2" not in stems(section)
    assert section.missing[0].startswith("No figure of Training CO₂: it was not measured completely")
    assert exhibit_of(section, "pareto_three_objectives").heading == "Dice against training time and voxels"
    assert any(sentence.startswith("No figure of attainment") for sentence in section.missing)


@pytest.mark.parametrize("state", ["empty", "running"])
def test_without_finished_trials_there_is_a_sentence(tmp_path: Path, state: str) -> None:
    study = Ledger.create(tmp_path / "study")
    if state == "running":
        start_trial(study, make_spec(), seconds=9)
    section = fronts(gather([study.root]))
    assert section.exhibits == ()
    assert section.missing[0].startswith("No front: it needs a finished trial")


def test_a_single_trial_is_enough_and_a_dice_of_0_is_drawn(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    finish_trial(study, make_spec(), dice=0.0, seconds=30)
    section = fronts(gather([study.root]))
    pareto = [f"pareto_dice_{kind}" for kind in KINDS]
    assert stems(section) == [*pareto, "pareto_three_objectives", "front_by_class", "hypervolume"]
    finish_trial(study, make_spec(fold=1), dice=0.0, seconds=30)
    for exhibit in fronts(gather([study.root])).exhibits:
        if exhibit.draw is not None:
            exhibit.draw(NARROW)


def test_different_hardware_has_fronts_of_its_own_and_is_said(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for cpu, factor, budget in (("Slow CPU", 3, 0.5), ("Fast CPU", 1, 1.0)):
        for scheme, seconds in (("cps", 90), ("pgps", 30)):
            finish_trial(study, make_spec(scheme, budget=budget), dice=0.8, seconds=seconds * factor, cpu_name=cpu)
    section = fronts(gather([study.root]))
    assert {"pareto_dice_runtime_by_hardware", "pareto_dice_co2_by_hardware"} <= set(stems(section))
    assert "pareto_dice_voxels_by_hardware" not in stems(section)
    data = exhibit_of(section, "pareto_dice_runtime_by_hardware").data
    assert data is not None
    assert data.loc[data["non_dominated"], "hardware"].tolist() == ["Fast CPU", "Slow CPU"]
    for stem in ("pareto_dice_runtime", "hypervolume"):
        assert "different hardware" in " ".join(exhibit_of(section, stem).notes)


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
    assert len(exhibit_of(fronts(evidence_of(tables)), "pareto_dice_runtime").data) == count

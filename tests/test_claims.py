"""Published numbers as printed, and those of the documentation against that table, the curricula and their own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.comparison.compare import compare
from analysis.comparison.reference import (
    REFERENCES,
    check_claims,
    claims_of,
    contradictions,
    is_published,
    load,
    source,
    table1,
)
from analysis.statistics.case_dice import case_matrices
from analysis.statistics.intervals import estimate
from analysis.statistics.study_results import StudyResults, gather
from analysis.tables.columns import POINT_COLUMNS
from analysis.tables.methods import METHOD_LABELS
from study.common.errors import InvalidInputError
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import named_axes

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCS = " ".join(" ".join(path.read_text(encoding="utf-8") for path in PAGES).split())
SPACES = " ".join((ROOT / "search_spaces" / "README.md").read_text(encoding="utf-8").split())
PAPER = "miccai2024"
# Full patch, divisors and batch size of nnU-Net's plans, by the paper's name of the task.
PLANS = {
    "brain": ((128, 128, 128), (32, 32, 32), 2),
    "heart": ((80, 192, 160), (16, 32, 32), 2),
    "liver": ((128, 128, 128), (32, 32, 32), 2),
    "hippocampus": ((40, 56, 40), (8, 8, 8), 9),
    "lung": ((80, 192, 160), (16, 32, 32), 2),
    "pancreas": ((40, 224, 224), (8, 32, 32), 2),
    "hepatic vessel": ((64, 192, 192), (16, 32, 32), 2),
    "spleen": ((64, 192, 160), (16, 32, 32), 2),
}
TABLE = table1(PAPER).assign(task=lambda rows: rows["task"].str.lower()).set_index(["task", "method"])


def share(task: str, scheme: str) -> float:
    patch, divisors, batch = PLANS[task]
    geometry = Geometry(patch_size=patch, divisors=divisors, batch_size=batch)
    return round(100 * resolve(geometry, named_axes(scheme, allocation="reference")).voxel_share + 1e-9, 2)


def printed(task: str, scheme: str) -> float:
    return float(TABLE.loc[(task, scheme), "voxels_percent"])


def comes_out(task: str) -> bool:
    return all(share(task, scheme) == pytest.approx(printed(task, scheme), abs=0.01) for scheme in ("pgps", "pgps+"))


def test_the_tasks_whose_voxel_shares_come_out_and_those_that_do_not() -> None:
    text = DOCS[DOCS.index("the voxel shares of") : DOCS.index("Efficiency comes to")]
    tasks = sorted({task for task, _ in TABLE.index})
    reproduced = [task for task in PLANS if comes_out(task)]
    assert len(reproduced) == 7
    assert "of seven of the ten tasks" in text
    assert len(tasks) == 10
    for task in reproduced:
        assert f"{printed(task, 'pgps'):.2f} % and {printed(task, 'pgps+'):.2f} %" in text
    for task in set(tasks) - set(reproduced):
        assert task in text[text.index("Three do not") :]
    assert f"spleen for PGPS+ ({share('spleen', 'pgps+')} % here, {printed('spleen', 'pgps+')} % printed" in text
    assert share("spleen", "pgps") == printed("spleen", "pgps") == 36.30


def test_the_shares_of_the_follow_up() -> None:
    assert f"brain {share('brain', 'efficiency'):.2f} %, lung {share('lung', 'efficiency'):.2f} %" in DOCS


def test_what_the_papers_text_and_table_contradict_each_other_in() -> None:
    (co2,) = [claim for claim in check_claims(PAPER) if (claim.method, claim.quantity) == ("PGPS", "CO₂")]
    assert not co2.holds
    text, table = (value.split(" ±")[0] for value in (co2.printed, co2.computed))
    assert f"mean CO₂ of PGPS, {text} in the text and {table} from the table" in DOCS
    assert "Of the published numbers two do not follow" in DOCS


def test_on_how_many_tasks_the_authors_report_equal_or_better_dice() -> None:
    dice = TABLE["dice"].unstack("method")
    assert f"equal or better Dice on {(dice['pgps'] >= dice['cps']).sum()} of {len(dice)} tasks" in DOCS


def test_gpu_hours_of_the_papers_spaces() -> None:
    hours = TABLE["runtime_hours"]
    lung = hours["lung"]
    # RPSS has as many voxels as PGPS; the budgets are 10, 25, 50 and 100 %.
    assert f"`paper_msd.yaml` at those rates is about {round(5 * hours.sum(), -1):,.0f} GPU-hours" in SPACES
    assert f"`paper_lung.yaml` about {round(5 * 1.85 * (lung['cps'] + 2 * lung['pgps']), -1):.0f}" in SPACES


def test_what_validation_adds() -> None:
    """50 forward passes at the full patch after 250 steps, each of a third of a step."""
    cps, pgps = (50 / 3 / (250 * share("brain", scheme) / 100) for scheme in ("cps", "pgps"))
    assert f"add about {100 * cps:.0f} % to the computation of CPS and a fifth to that of PGPS" in SPACES
    assert pgps == pytest.approx(0.2, abs=0.03)


def measured() -> dict[tuple[str, int], tuple[float, float]]:
    """(scheme, iterations) -> voxel share and Dice, of the documentation's own table."""
    rows = re.findall(r"\| (\S+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \(", DOCS)
    return {(scheme, int(iterations)): (float(voxels), float(dice)) for scheme, iterations, voxels, dice in rows}


def test_sentences_about_the_measured_table_follow_from_it() -> None:
    table = measured()
    assert len(table) == 12

    def above(one: tuple[str, int], other: tuple[str, int]) -> str:
        return f"{table[one][1] - table[other][1]:.3f}"

    assert f"costs Dice at equal iterations ({above(('CPS', 600), ('PGPS', 600))} at 600)" in DOCS
    assert f"is {above(('PGPS', 600), ('CPS', 300))} above CPS at 300" in DOCS
    assert f"with {2 * table['PGPS', 600][0]:.2f} of its voxels" in DOCS
    assert f"above CPS at 300 iterations by {above(('PGPS+', 300), ('CPS', 300))}" in DOCS
    assert f"at 150 by {above(('PGPS+', 150), ('CPS', 150))}, and below it at 600" in DOCS
    assert table["PGPS+", 600][1] < table["CPS", 600][1]
    assert all(table["RPSS", n][1] < table["CPS", n][1] for n in (600, 300, 150))


def test_one_training_per_point_is_said_to_beat_nothing() -> None:
    text = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    assert not re.search(r"\b(beats?|wins?|outperforms?|significant\w*)\b", text)


def test_the_study_with_two_seeds_is_what_its_tables_come_to() -> None:
    results = gather([ROOT / "tests" / "data" / "two_seeds"])
    trials = results.tables.trials.sort_values("seed").groupby("method")["dice"].agg(list)
    rows = compare(results).rows.set_index("against_method")
    for _, point in results.points.iterrows():
        method = point["method"]
        one, other = trials[method]
        interval = f"{point['dice']:.3f} ({point['dice_low']:.3f} to {point['dice_high']:.3f})"
        surfaces = f"{point['nsd']:.3f} | {point['hd95_mm']:.2f}"
        told = f"| {METHOD_LABELS[method]} | {one:.3f}, {other:.3f} | {interval} | {surfaces} |"
        if method in rows.index:
            row = rows.loc[method]
            low, high = f"{row['difference_low']:+.3f}", f"{row['difference_high']:+.3f}"
            told += f" {row['dice_difference']:+.3f} ({low} to {high}) | ".replace("-", "−") + over_cases(results, row)
        assert told in DOCS
    assert f"a true one of {rows['detectable'].min():.2f} or {rows['detectable'].max():.2f} would" in DOCS
    assert f"Two trainings of CPS differ by {trials['cps'][1] - trials['cps'][0]:.3f} here" in DOCS


def over_cases(results: StudyResults, row: Any) -> str:
    """The interval of a difference as if there were no other trainings: one of each scheme, the mean of its seeds."""
    (matrix,) = case_matrices(results.tables).values()
    ids = [row["against_id"], row["baseline_id"]]
    means = np.stack([matrix.dice[matrix.point_ids == name].mean(axis=0) for name in ids])
    single = replace(
        matrix,
        point_ids=np.array(ids, dtype=object),
        folds=np.zeros(2, dtype=np.int64),
        dice=means,
        seen=matrix.seen[:2],
    )
    found = estimate(single, np.array([[1.0, -1.0]]))
    return f"{found.low[0]:+.3f} to {found.high[0]:+.3f}".replace("-", "−")


def test_table_is_whole_and_typed_right() -> None:
    table = table1(PAPER)
    assert len(table) == 30
    assert table.groupby("task")["method"].agg(list).map(tuple).unique().tolist() == [("cps", "pgps", "pgps+")]
    # Sums of the printed columns, by scheme.
    sums = table.groupby("method")[["dice", "runtime_hours", "voxels_percent", "co2_kg"]].sum().round(4)
    assert sums.loc["cps"].tolist() == [7.6122, 127.8, 1000.0, 51.47]
    assert sums.loc["pgps"].tolist() == [7.6516, 55.99, 350.86, 22.51]
    assert sums.loc["pgps+"].tolist() == [7.6772, 62.6, 410.46, 25.39]


def test_it_reads_like_a_study() -> None:
    results = load(PAPER)
    assert list(results.points.columns) == [column.name for column in POINT_COLUMNS]
    assert "Dataset004_Hippocampus" in results.datasets
    assert results.tables.trials.empty
    assert results.points["energy_kwh"].isna().all()
    assert is_published(results.points).all()
    assert results.points["point_id"].is_unique
    brain = results.of("Dataset001_BrainTumour").points.iloc[0]
    assert brain["runtime_seconds"] == pytest.approx(27.53 * 3600)


def test_the_papers_ratios_from_its_own_table() -> None:
    summary = compare(load(PAPER), against=["pgps", "pgps+"]).summary.set_index("against")

    def ratio(method: str, name: str) -> tuple[str, str]:
        return f"{100 * summary.loc[method, f'{name}_mean']:.2f}", f"{100 * summary.loc[method, f'{name}_sd']:.2f}"

    assert ratio("PGPS", "runtime_ratio") == ("46.09", "6.82")
    assert ratio("PGPS", "voxel_ratio") == ("35.09", "2.30")
    assert ratio("PGPS+", "runtime_ratio") == ("50.59", "7.60")
    assert ratio("PGPS+", "voxel_ratio") == ("41.05", "6.20")
    assert ratio("PGPS+", "co2_ratio") == ("50.59", "5.55")
    assert summary["tasks_higher"].to_dict() == {"PGPS": 6, "PGPS+": 7}


def test_what_does_not_follow_is_said_and_not_changed() -> None:
    assert contradictions(PAPER) == [
        "miccai2024: the text gives PGPS CO₂ 48.22 % ± 9.34 %, its Table 1 gives 45.55 % ± 5.29 %.",
        "miccai2024: the text gives PGPS+ gain of Dice where higher 1.7 % ± 3.1 %, its Table 1 gives 1.8 % ± 3.0 %.",
    ]
    assert len(check_claims(PAPER)) == len(claims_of(PAPER)) == 12


def test_origin_of_every_file_is_told() -> None:
    for name in REFERENCES:
        origin = source(name)
        assert set(origin.files) == {"table1.csv", "claims.csv"}
        assert origin.arxiv in origin.citation
        assert origin.remarks


@pytest.mark.parametrize("read", [load, source, table1, claims_of])
def test_unknown_name_is_one_line(read) -> None:
    with pytest.raises(InvalidInputError, match=r"reference: received '\.\./etc', legal is one of miccai2024"):
        read("../etc")

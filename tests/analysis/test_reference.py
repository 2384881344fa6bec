"""Published numbers: as printed, with their origin, and what follows from them through the code for trials."""

from __future__ import annotations

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
from analysis.tables.columns import POINT_COLUMNS
from study.common.errors import InvalidInputError
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import named_axes

PAPER = "miccai2024"

# Full patch and divisors of nnU-Net's plans; the batch size is 2 except where it is given.
PLANS = {
    "Brain": ((128, 128, 128), (32, 32, 32), 2),
    "Heart": ((80, 192, 160), (16, 32, 32), 2),
    "Liver": ((128, 128, 128), (32, 32, 32), 2),
    "Hippocampus": ((40, 56, 40), (8, 8, 8), 9),
    "Lung": ((80, 192, 160), (16, 32, 32), 2),
    "Pancreas": ((40, 224, 224), (8, 32, 32), 2),
    "Hepatic Vessel": ((64, 192, 192), (16, 32, 32), 2),
}


def test_table_is_whole_and_typed_right() -> None:
    table = table1(PAPER)
    assert len(table) == 30
    assert table.groupby("task")["method"].agg(list).map(tuple).unique().tolist() == [("cps", "pgps", "pgps+")]
    # Sums of the printed columns, by scheme.
    sums = table.groupby("method")[["dice", "runtime_hours", "voxels_percent", "co2_kg"]].sum().round(4)
    assert sums.loc["cps"].tolist() == [7.6122, 127.8, 1000.0, 51.47]
    assert sums.loc["pgps"].tolist() == [7.6516, 55.99, 350.86, 22.51]
    assert sums.loc["pgps+"].tolist() == [7.6772, 62.6, 410.46, 25.39]


def test_text_and_table_agree_on_lung() -> None:
    lung = table1(PAPER).query("task == 'Lung'").set_index("method")["runtime_hours"]
    assert (lung["cps"], lung["pgps"]) == (13.55, 5.7)


@pytest.mark.parametrize("task", PLANS)
@pytest.mark.parametrize("method", ["pgps", "pgps+"])
def test_voxels_follow_from_the_curriculum(task: str, method: str) -> None:
    patch, divisors, batch = PLANS[task]
    geometry = Geometry(patch_size=patch, divisors=divisors, batch_size=batch)
    share = resolve(geometry, named_axes(method, allocation="reference")).voxel_share
    printed = table1(PAPER).query("task == @task and method == @method")["voxels_percent"].item()
    assert 100 * share == pytest.approx(printed, abs=0.01)


def test_it_reads_like_a_study() -> None:
    evidence = load(PAPER)
    assert list(evidence.points.columns) == [column.name for column in POINT_COLUMNS]
    assert "Dataset004_Hippocampus" in evidence.datasets
    assert evidence.tables.trials.empty
    assert evidence.points["energy_kwh"].isna().all()
    assert is_published(evidence.points).all()
    assert evidence.points["point_id"].is_unique
    brain = evidence.of("Dataset001_BrainTumour").points.iloc[0]
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

"""Tables of the analysis on terminals of any width: what tells rows apart is there, whole, and nothing is wider."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from ledgers import make_study

from analysis.cli.front import _print_table
from analysis.fronts.front import Front, pareto_front
from analysis.fronts.hypervolume import judged
from analysis.fronts.resampling import CaseDraws
from analysis.statistics.evidence import gather
from study.common.tables import PlainConsole

LONG = "Dataset0123_HepaticVesselWithAVeryLongName"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies")
    make_study(root / "one", n_cases=2)
    make_study(root / "other", n_cases=2, dataset=LONG)
    return root


def best_of(studies: list[Path], objectives: tuple[str, ...]) -> tuple[pd.DataFrame, Front]:
    evidence = gather(studies)
    front = pareto_front(evidence.points, objectives)
    table = judged(front, CaseDraws(evidence.tables, replicates=50))
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

"""Contention: the same work at different speeds is said beside every time, and a time at reference speed is offered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import complete, finish_trial, make_header, make_interval, make_result, make_spec, start_trial
from reports import quick_report

from analysis.comparison.compare import compare
from analysis.fronts.captions import caveats
from analysis.fronts.front import pareto_front
from analysis.page.papers import papers
from analysis.page.sections import certainty, fronts
from analysis.statistics.study_results import gather
from study.__main__ import main
from study.store.ledger import Ledger
from study.store.readings import OwnEnergy
from study.store.records import Phase


def by_stage(study: Ledger, scheme: str, *, slower: float = 1.0, seed: int = 0, **header: object) -> str:
    """A finished trial whose iterations take a microsecond per voxel, or so many times as long."""
    spec = make_spec(scheme, seed=seed)
    folder = study.add(spec)
    folder.begin_attempt(make_header(**header))
    drawn = spec.curriculum.random_draws
    for number, stage in enumerate([] if drawn else spec.curriculum.stages):
        seconds = slower * stage.voxels * 1e-6
        stop = stage.first_iteration + stage.iterations
        interval = make_interval(Phase.TRAINING, seconds, start=stage.first_iteration, stop=stop)
        folder.append_cost(replace(interval, stage=number))
    if drawn:
        total = spec.curriculum.total_iterations
        interval = make_interval(Phase.TRAINING, slower * 10.0, start=0, stop=total)
        folder.append_cost(replace(interval, stage=None))
    complete(folder, make_result(spec, 0.8))
    return spec.trial_id


@pytest.mark.parametrize("scheme", ["cps", "pgps", "rpss"])
def test_time_at_reference_speed_is_the_same_for_the_same_work(tmp_path: Path, scheme: str) -> None:
    study = Ledger.create(tmp_path / "study")
    ids = [by_stage(study, scheme, slower=slower, seed=seed) for seed, slower in enumerate((1.0, 2.0, 1.2))]
    trials = gather([study.root]).tables.trials.set_index("trial_id").loc[ids]
    assert trials["pace"].tolist() == pytest.approx([1 / 1.2, 2 / 1.2, 1.0], rel=0.02)
    seconds = trials["runtime_at_reference_speed_seconds"]
    assert seconds.tolist() == pytest.approx([seconds.iloc[2]] * 3, rel=0.02)
    assert seconds.iloc[2] == pytest.approx(trials["runtime_seconds"].iloc[2], rel=0.02)


def test_what_no_other_trial_trained_has_no_pace_and_its_own_speed(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    by_stage(study, "cps")
    row = gather([study.root]).tables.trials.iloc[0]
    assert row[["pace"]].isna().all()
    assert row["runtime_at_reference_speed_seconds"] == pytest.approx(row["runtime_seconds"])


def test_another_machine_is_other_work(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    by_stage(study, "cps")
    by_stage(study, "cps", slower=3.0, seed=1, cpu_name="Slower CPU")
    assert gather([study.root]).tables.trials["pace"].isna().all()


def test_a_spread_of_the_same_work_is_said_beside_fronts_and_comparisons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, words = Ledger.create(tmp_path / "study"), "up to {} times as long"
    for seed, times in enumerate((1.0, 1.1, 2.2)):
        by_stage(study, "cps", seed=seed, slower=times)
        found = gather([study.root])
        told = " ".join(caveats(pareto_front(found.points, ["dice", "runtime_seconds"])))
        assert ("times as long" in told) == (words.format("2.20") in told) == (times > 2)
    # Voxels do not depend on who else was there.
    assert not any("times as long" in one for one in caveats(pareto_front(found.points, ["dice", "voxels"])))
    by_stage(study, "pgps", slower=2.2)
    found, words = gather([study.root]), words.format("2.20")
    assert words in compare(found).rows["remarks"].iloc[0]
    # Beside the papers' tables and figures, the hypervolume, at the head of the report, and by `status`.
    notes = {
        item.stem: " ".join(item.notes) for section in (papers, fronts, certainty) for item in section(found).items
    }
    for stem in ("results_by_scheme", "hypervolume", "attainment_dice_runtime", "pareto_dice_runtime"):
        assert words in notes[stem], stem
    assert words in quick_report([study.root], tmp_path / "report").page.read_text()
    assert main(["status", str(study.root)]) == 0
    assert words in " ".join(capsys.readouterr().out.split())


def test_where_most_energy_is_a_constant_wattage_co2_is_said_to_be_runtime(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme, seconds in (("cps", 90), ("pgps", 40), ("pgps+", 50)):
        finish_trial(study, make_spec(scheme), dice=0.8, seconds=seconds)
    # 40 W of CPU and 10 of RAM, in ledgers of before.
    front = pareto_front(gather([study.root]).points, ["dice", "co2_kg"])
    assert not any("constant wattage" in one for one in caveats(front))
    ram = Ledger.create(tmp_path / "ram")
    for scheme, seconds in (("cps", 90.0), ("pgps", 40.0), ("pgps+", 50.0)):
        own = OwnEnergy(cpu_kwh=0.2 * seconds, idle_cpu_kwh=0.1 * seconds, gpu_kwh=0.1 * seconds, ram_kwh=0.6 * seconds)
        spec = make_spec(scheme)
        folder = start_trial(ram, spec, seconds=seconds)
        path = folder.path / "costs.jsonl"
        path.unlink()
        end = spec.curriculum.total_iterations
        trained = make_interval(Phase.TRAINING, seconds, stop=end, ram_kwh=1e3, gpu_kwh=1e3)
        folder.append_cost(replace(trained, own=own))
        complete(folder, make_result(spec, 0.8))
    found = gather([ram.root])
    row = found.tables.trials.iloc[0]
    assert (row["gpu_energy_kwh"], row["constant_energy_kwh"]) == pytest.approx((9.0, 63.0))
    told = caveats(pareto_front(found.points, ["dice", "co2_kg"]))
    (sentence,) = [one for one in told if "constant wattage" in one]
    assert sentence.startswith("70% of the energy")
    assert "over the points: 1.00" in sentence

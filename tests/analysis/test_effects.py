"""The section of effects: costs that add up to the ledger's, curves that are its means, figures for any study."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledgers import (
    FINAL_VALIDATION_SECONDS,
    SETUP_SECONDS,
    complete,
    finish_trial,
    make_header,
    make_interval,
    make_result,
    make_spec,
    make_study,
    start_trial,
)
from matplotlib.text import Text

from analysis.effects.costs import AMOUNTS, CostParts, cost_parts
from analysis.effects.curves import MOST_CURVES, choose_points, curves_of
from analysis.figures.display_items import DisplayItem, Section, inline_svg
from analysis.figures.style import FILE, WIDE
from analysis.fronts.front import pareto_front
from analysis.page.sections import certainty, costs, effects
from analysis.statistics.study_results import StudyResults, gather, results_of
from study.store.ledger import Ledger
from study.store.readings import StagePart
from study.store.records import Phase
from study.store.specification import TrainingSettings


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    root = tmp_path_factory.mktemp("why") / "hippo"
    return gather([make_study(root, folds=(0, 1), budgets=(0.5, 1.0), n_cases=4, curve=True).root])


def item(section: Section, stem: str) -> DisplayItem:
    [found] = [one for one in section.items if one.stem == stem]
    return found


def words_in(one: DisplayItem) -> str:
    assert one.draw is not None
    return " ".join(text.get_text() for text in one.draw(FILE).findobj(Text))


def parts_of(results: StudyResults) -> CostParts:
    return cost_parts(results.tables.trials, results.tables.costs)


def test_costs_by_cause_are_those_of_the_ledger(results: StudyResults) -> None:
    parts = parts_of(results)
    cps = 94.0 + 0.5  # the mean of two folds
    told = {"training": 0.9 * cps, "online_validation": 0.1 * cps, "waste": 0.0}
    told |= {"setup": SETUP_SECONDS, "final_validation": FINAL_VALIDATION_SECONDS}
    rows = parts.causes.set_index(["group", "cause"])["seconds"]
    assert rows["CPS, 100% budget"].to_dict() == pytest.approx(told)
    trials = results.tables.trials
    whole = trials[(trials["method"] == "pgps") & (trials["budget"] == 0.5)]["total_co2_kg"].mean()
    assert parts.total("co2_kg")["PGPS, 50% budget"] == pytest.approx(whole)
    assert parts.groups[:3] == ["CPS, 100% budget", "CPS, 50% budget", "PGPS, 100% budget"]
    assert parts.causes[list(AMOUNTS)].notna().all(axis=None)


def test_the_bars_are_as_long_as_the_costs(results: StudyResults) -> None:
    parts, one = parts_of(results), item(costs(results), "cost_by_cause")
    assert one.draw is not None
    [panel] = one.draw(WIDE).axes
    lengths = Counter[float]()
    for piece in panel.patches:
        lengths[round(piece.get_y() + piece.get_height() / 2)] += piece.get_width()
    assert list(lengths.values()) == pytest.approx(list(parts.total("seconds")))


def test_waste_is_a_cause_of_its_own_and_never_counted_twice(tmp_path: Path) -> None:
    study, spec = Ledger.create(tmp_path / "s"), make_spec("cps")
    folder, end = study.add(spec), spec.curriculum.total_iterations
    folder.begin_attempt(make_header())
    folder.append_cost(make_interval(Phase.TRAINING, 40.0, start=0, stop=end // 2))
    folder.begin_attempt(make_header(1, resumed_from_iteration=0))
    folder.append_cost(make_interval(Phase.TRAINING, 90.0, attempt=1, start=0, stop=end))
    complete(folder, make_result(spec, 0.8), attempt=1, validation_seconds=7.0)
    found = gather([study.root])
    seconds = parts_of(found).causes.set_index("cause")["seconds"]
    assert (seconds["waste"], seconds["training"], seconds["final_validation"]) == (40.0, 90.0, 7.0)
    assert seconds.sum() == found.tables.trials["total_seconds"].sum()
    one = item(costs(found), "cost_by_cause")
    assert any("lost to an interruption" in note for note in one.notes)
    assert "waste" in words_in(one)


def test_costs_by_stage_add_up_to_the_training(tmp_path: Path) -> None:
    study, spec = Ledger.create(tmp_path / "s"), make_spec("pgps", stages=2)
    folder = study.add(spec)
    folder.begin_attempt(make_header())
    for number, stage in enumerate(spec.curriculum.stages):
        first = stage.first_iteration
        interval = make_interval(Phase.TRAINING, 10.0 + number, start=first, stop=first + stage.iterations)
        folder.append_cost(replace(interval, stage=number))
    complete(folder, make_result(spec, 0.8))
    stages = parts_of(gather([study.root])).stages
    assert stages["seconds"].tolist() == [10.0, 11.0]
    assert stages["iterations"].sum() == spec.curriculum.total_iterations
    assert stages["patch_size"].tolist() == ["×".join(map(str, one.patch_size)) for one in spec.curriculum.stages]


def test_costs_of_random_order_are_by_stage_over_attempts_and_seeds(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    specs = [make_spec("rpss", seed=seed) for seed in (0, 1)]
    for spec in specs:
        folder, sizes, end = study.add(spec), spec.curriculum.stages, spec.curriculum.total_iterations
        # A stage takes as many seconds as it has iterations, times its number from 1; the last ten are trained twice.
        for attempt, start, stop in [(0, 0, end // 2), (1, end // 2 - 10, end)]:
            drawn = Counter(map(spec.curriculum.stage_index, range(start, stop)))
            parts = [StagePart(stage=s, iterations=n, seconds=n * (s + 1.0)) for s, n in sorted(drawn.items())]
            folder.begin_attempt(make_header(attempt, resumed_from_iteration=start))
            whole = sum(part.seconds for part in parts)
            interval = make_interval(Phase.TRAINING, whole, attempt=attempt, start=start, stop=stop)
            folder.append_cost(replace(interval, stage=None, parts=tuple(parts)))
        complete(folder, make_result(spec, 0.8), attempt=1)
    found = gather([study.root])
    spent = found.tables.costs[found.tables.costs["phase"] == "training"]
    iterations = spent.groupby("stage")["iterations"].sum().to_numpy(dtype=float)
    assert spent.groupby("stage")["seconds"].sum().tolist() == pytest.approx(
        list(iterations * (np.arange(len(sizes)) + 1))
    )
    assert iterations.sum() == 2 * (end + 10)
    assert spent["seconds"].sum() == pytest.approx(found.tables.trials["runtime_seconds"].sum())
    stages = parts_of(found).stages
    assert stages["patch_size"].tolist() == ["×".join(map(str, stage.patch_size)) for stage in sizes]
    assert stages["seconds"].sum() == pytest.approx((spent["seconds"] - spent["waste_seconds"]).sum() / 2)


def test_unfinished_trials_are_named_and_not_averaged(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s")
    start_trial(study, make_spec("cps", fold=3), seconds=1000.0)
    found = gather([study.root])
    one = item(costs(found), "cost_by_cause")
    assert any("1 trial that did not finish" in note for note in one.notes)
    assert one.data is not None and one.data["seconds"].max() < 100
    # No epoch of these has a validation.
    assert any(sentence.startswith("Learning curves") for sentence in certainty(found).missing)


def test_curves_are_means_over_folds_at_the_same_epoch(results: StudyResults) -> None:
    tables = results.tables
    points = choose_points(pareto_front(results.points, ("dice", "runtime_seconds")), tables.epochs)
    means, singles = curves_of(points, tables)
    assert set(points["budget"]) == {1.0}
    assert points["method"].tolist()[:4] == ["cps", "pgps", "pgps+", "rpss"]
    assert len(points) <= MOST_CURVES
    cps = means[means["point_id"] == points["point_id"].iloc[0]]
    last = singles[(singles["point_id"] == points["point_id"].iloc[0]) & (singles["epoch"] == 9)]
    assert set(last["trial_id"]) == set(points["trial_ids"].iloc[0].split())
    assert cps["pseudo_dice"].iloc[-1] == pytest.approx(last["pseudo_dice"].mean())
    assert set(cps["n_trials"]) == {2}


def test_of_many_points_few_curves_are_drawn_and_named(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    for number in range(20):
        rate = {"optimizer": "adamw", "initial_learning_rate": 0.001 * (number + 1)}
        settings = TrainingSettings(epochs=10, iterations_per_epoch=20, **rate)
        spec = make_spec("pgps", min_patch=0.3, stages=3, training=settings)
        finish_trial(study, spec, dice=0.7 + 0.005 * number, seconds=30.0 + number, curve=True)
    one = item(certainty(gather([study.root])), "learning_curves")
    assert one.data is not None and one.data["point_id"].nunique() == MOST_CURVES
    assert all(summary.split(", ")[-1] in one.notes[0] for summary in set(one.data["summary"]))


@pytest.mark.cluster
def test_a_thousand_points_take_no_megabytes(results: StudyResults) -> None:
    """The study's trials sixty-odd times over, each copy with settings and results of its own."""
    rng = np.random.default_rng(0)
    trials = results.tables.trials
    draws = {"budget": (0.1, 1), "min_patch": (0, 1), "dice": (0.5, 0.9)}
    copies = [
        trials.assign(
            study=f"s{number}",
            point_id=trials["trial_id"] + f"-{number}",
            initial_learning_rate=10 ** rng.uniform(-4, -1, len(trials)),
            **{name: rng.uniform(*ends, len(trials)) for name, ends in draws.items()},
        )
        for number in range(1000 // len(trials) + 1)
    ]
    tables = replace(results.tables, trials=pd.concat(copies, ignore_index=True), cases=results.tables.cases.head(0))
    many = results_of(tables)
    assert len(many.points) > 1000
    drawn = [one for one in effects(many).items if one.draw is not None]
    sizes = {one.stem: len(inline_svg(one.draw(WIDE), prefix="x", alt=one.alt, css_class="wide")) for one in drawn}
    assert max(sizes.values()) < 1_200_000, sizes
